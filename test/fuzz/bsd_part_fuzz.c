/*
 * Partition tables from anywhere: the first sectors, and sums put right where the
 * first byte says so. Whatever is found lies on the disk and has a name.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/util.h"
#include "load/bsd/media.h"
#include "load/bsd/part.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define DISK (64 * 1024u)

static uint8_t disk[DISK];

static uint32_t crc32(const uint8_t *p, size_t len)
{
	uint32_t crc = ~0u;

	while (len-- > 0) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
	}
	return ~crc;
}

static void make_gpt(void)
{
	const uint64_t here = 1, table = 2;
	const uint32_t n = 8, each = 128, size = 92, zero = 0;

	memcpy(disk + 512, "EFI PART", 8);
	memcpy(disk + 512 + 12, &size, 4);
	memcpy(disk + 512 + 24, &here, 8);
	memcpy(disk + 512 + 72, &table, 8);
	memcpy(disk + 512 + 80, &n, 4);
	memcpy(disk + 512 + 84, &each, 4);
	uint32_t crc = crc32(disk + 1024, n * each);
	memcpy(disk + 512 + 88, &crc, 4);
	memcpy(disk + 512 + 16, &zero, 4);
	crc = crc32(disk + 512, size);
	memcpy(disk + 512 + 16, &crc, 4);
}

static void make_label(size_t at)
{
	const uint32_t magic = 0x82564557, sector = 512;
	uint16_t sum = 0;

	memcpy(disk + at, &magic, 4);
	memcpy(disk + at + 132, &magic, 4);
	memcpy(disk + at + 40, &sector, 4);
	disk[at + 138] %= 23;
	disk[at + 139] = 0;
	memset(disk + at + 136, 0, 2);
	for (unsigned i = 0; i < 148 + 16u * disk[at + 138]; i += 2)
		sum ^= (uint16_t)(disk[at + i] | disk[at + i + 1] << 8);
	disk[at + 136] = (uint8_t)sum;
	disk[at + 137] = (uint8_t)(sum >> 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static int fd = -1;
	struct parts p;

	if (len < 1)
		return 0;
	if (fd < 0)
		fd = memfd_create("disk", 0);
	memset(disk, 0, sizeof(disk));
	memcpy(disk, data + 1, MIN(len - 1, (size_t)DISK));
	if ((data[0] & 3) == 1)
		make_gpt();
	if ((data[0] & 3) == 2)
		make_label(512);
	if ((data[0] & 3) == 3) {
		memcpy(disk + 510, "\x55\xaa", 2);
		disk[446] = disk[462] = disk[478] = disk[494] = 0;
		disk[446 + 4] = 0xa5;
		memcpy(disk + 446 + 8, "\3\0\0\0", 4);
		make_label(4 * 512);
	}
	if (fd < 0 || pwrite(fd, disk, DISK, 0) != DISK)
		abort();
	struct media m = { .fd = fd, .size = DISK };
	part_read(&m, &p);
	if (p.count > PART_MAX)
		abort();
	for (unsigned i = 0; i < p.count; i++) {
		const struct part *q = &p.part[i];
		if (q->name[0] == '\0' || q->size == 0 || q->start >= DISK ||
		    q->size > DISK - q->start || q->type == NULL)
			abort();
	}
	return 0;
}
