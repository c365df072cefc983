/*
 * Reads partition tables (part.h). Every number is the image's: partitions that do
 * not lie on the disk are left out, chains end after a fixed number of links.
 */
#include "load/bsd/part.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/bsd/media.h"

#define SECTOR        512u
#define LABEL_MAGIC   0x82564557u
#define LABEL_PARTS   148 /* offset of the first partition */
#define LABEL_MAX     22  /* partitions that fit into one sector */
#define LABEL_RAW     2   /* "c" is the whole slice */
#define GPT_ENTRIES   1024u
#define LOGICAL_MAX   64

#define MBR_EMPTY     0x00
#define MBR_EXTENDED  0x05
#define MBR_EXT_LBA   0x0f
#define MBR_EXT_LINUX 0x85
#define MBR_FREEBSD   0xa5
#define MBR_GPT       0xee

struct guid_name {
	uint32_t
	    first; /* the GUID's first group; the rest of FreeBSD's is common */
	const char *name;
};

/* 516e7cXX-6ecf-11d6-8ff8-00022d09712b */
static const uint8_t freebsd_tail[12] = { 0xcf, 0x6e, 0xd6, 0x11, 0x8f, 0xf8, 0x00,
	0x02, 0x2d, 0x09, 0x71, 0x2b };
static const struct guid_name freebsd_types[] = {
	{ 0x516e7cb4, "freebsd" },
	{ 0x516e7cb5, "freebsd-swap" },
	{ 0x516e7cb6, "freebsd-ufs" },
	{ 0x516e7cb8, "freebsd-vinum" },
	{ 0x516e7cba, "freebsd-zfs" },
};
static const struct {
	uint8_t guid[16];
	const char *name;
} other_types[] = {
	{ { 0x9d, 0x6b, 0xbd, 0x83, 0x41, 0x7f, 0xdc, 0x11, 0xbe, 0x0b, 0x00, 0x15,
	      0x60, 0xb8, 0x4f, 0x0f },
	    "freebsd-boot" },
	{ { 0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0,
	      0xc9, 0x3e, 0xc9, 0x3b },
	    "efi" },
	{ { 0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6,
	      0xb7, 0x26, 0x99, 0xc7 },
	    "ms-basic-data" },
};

static void add(struct parts *p, const struct media *m, const char *type,
    uint64_t start, uint64_t size, const char *name)
{
	if (start >= m->size || size == 0 ||
	    strlen(name) >= sizeof(p->part[0].name)) {
		p->damage = "a partition does not lie on the disk";
		return;
	}
	if (p->count == PART_MAX) {
		p->damage = "more partitions than this loader takes";
		return;
	}
	struct part *q = &p->part[p->count++];
	snprintf(q->name, sizeof(q->name), "%s", name);
	q->type = type;
	q->start = start;
	q->size = MIN(size, m->size - start);
}

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

static const char *guid_type(const uint8_t *guid)
{
	if (memcmp(guid + 4, freebsd_tail, sizeof(freebsd_tail)) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(freebsd_types); i++)
			if (get32(guid) == freebsd_types[i].first)
				return freebsd_types[i].name;
	for (size_t i = 0; i < ARRAY_SIZE(other_types); i++)
		if (memcmp(guid, other_types[i].guid, 16) == 0)
			return other_types[i].name;
	return "other";
}

/* One of the two headers with its table; false: it is not whole. */
static bool read_gpt(
    const struct media *m, struct parts *p, uint64_t lba, uint32_t sector)
{
	uint8_t head[SECTOR];
	char name[16];

	if (lba > m->size / sector ||
	    media_read(m, lba * sector, head, sizeof(head)) != 0 ||
	    memcmp(head, "EFI PART", 8) != 0)
		return false;
	uint32_t size = get32(head + 12), crc = get32(head + 16);
	uint32_t n = get32(head + 80), each = get32(head + 84);
	uint64_t table = get64(head + 72);
	memset(head + 16, 0, 4);
	if (size < 92 || size > sizeof(head) || crc32(head, size) != crc ||
	    get64(head + 24) != lba || n == 0 || n > GPT_ENTRIES || each < 128 ||
	    each > 4096 || table > m->size / sector)
		return false;
	uint8_t *entries = malloc((size_t)n * each);
	bool whole =
	    entries != NULL &&
	    media_read(m, table * sector, entries, (size_t)n * each) == 0 &&
	    crc32(entries, (size_t)n * each) == get32(head + 88);
	for (uint32_t i = 0; whole && i < n; i++) {
		const uint8_t *e = entries + (size_t)i * each;
		static const uint8_t unused[16];
		uint64_t first = get64(e + 32), last = get64(e + 40);

		if (memcmp(e, unused, 16) == 0)
			continue;
		if (first > last || last > UINT64_MAX / sector - 1) {
			p->damage = "a partition does not lie on the disk";
			continue;
		}
		snprintf(name, sizeof(name), "p%u", i + 1);
		add(p, m, guid_type(e), first * sector, (last - first + 1) * sector,
		    name);
	}
	free(entries);
	return whole;
}

static bool find_gpt(const struct media *m, struct parts *p)
{
	static const uint32_t sectors[] = { 512, 4096 };
	uint8_t magic[8];

	for (size_t i = 0; i < ARRAY_SIZE(sectors); i++) {
		uint32_t sector = sectors[i];
		if (read_gpt(m, p, 1, sector)) {
			p->scheme = "GPT";
			return true;
		}
		p->count = 0;
		if (m->size >= 4 * sector &&
		    read_gpt(m, p, m->size / sector - 1, sector)) {
			p->scheme = "GPT";
			p->damage = "the first GPT header is damaged, the copy at "
				    "the disk's end is used";
			return true;
		}
		p->count = 0;
		if (media_read(m, sector, magic, 8) == 0 &&
		    memcmp(magic, "EFI PART", 8) == 0)
			p->damage = "both GPT headers are damaged";
	}
	return false;
}

static const char *label_type(uint8_t type)
{
	switch (type) {
	case 1:
		return "freebsd-swap";
	case 7:
		return "freebsd-ufs";
	case 27:
		return "freebsd-zfs";
	default:
		return "other";
	}
}

/* A disklabel in the slice's second sector. */
static bool read_label(const struct media *m, struct parts *p, uint64_t start,
    uint64_t size, const char *slice)
{
	uint8_t d[SECTOR];
	char name[16];

	if (size < 2 * SECTOR || start > m->size ||
	    media_read(m, start + SECTOR, d, sizeof(d)) != 0 ||
	    get32(d) != LABEL_MAGIC || get32(d + 132) != LABEL_MAGIC)
		return false;
	unsigned n = get16(d + 138);
	uint32_t sector = get32(d + 40);
	if (n > LABEL_MAX || (sector != 512 && sector != 2048 && sector != 4096)) {
		p->damage = "a disklabel makes no sense";
		return false;
	}
	uint16_t sum = 0;
	for (unsigned i = 0; i < LABEL_PARTS + 16 * n; i += 2)
		sum ^= get16(d + i);
	if (sum != 0) {
		p->damage = "a disklabel's checksum is wrong";
		return false;
	}
	/* Offsets count from the disk's start when those of "c" do. */
	uint64_t base =
	    n > LABEL_RAW ? get32(d + LABEL_PARTS + 16 * LABEL_RAW + 4) : 0;
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *e = d + LABEL_PARTS + 16 * i;
		uint64_t len = get32(e), off = get32(e + 4);

		if (len == 0 || i == LABEL_RAW)
			continue;
		if (off < base || (off - base) * sector >= size) {
			p->damage = "a disklabel's partition does not lie in its "
				    "slice";
			continue;
		}
		off = (off - base) * sector;
		snprintf(name, sizeof(name), "%s%c", slice, 'a' + (int)i);
		add(p, m, label_type(e[12]), start + off,
		    MIN(len * sector, size - off), name);
	}
	return true;
}

static void add_slice(struct parts *p, const struct media *m, unsigned number,
    uint8_t type, uint64_t lba, uint64_t sectors)
{
	char name[16];

	snprintf(name, sizeof(name), "s%u", number);
	add(p, m, type == MBR_FREEBSD ? "freebsd" : "other", lba * SECTOR,
	    sectors * SECTOR, name);
	if (type == MBR_FREEBSD)
		read_label(m, p, lba * SECTOR, sectors * SECTOR, name);
}

static bool is_extended(uint8_t type)
{
	return type == MBR_EXTENDED || type == MBR_EXT_LBA || type == MBR_EXT_LINUX;
}

static void read_logical(const struct media *m, struct parts *p, uint64_t base)
{
	uint8_t d[SECTOR];
	uint64_t at = base;

	for (unsigned i = 0; i < LOGICAL_MAX; i++) {
		if (media_read(m, at * SECTOR, d, sizeof(d)) != 0 ||
		    get16(d + 510) != 0xaa55) {
			p->damage = "the chain of logical partitions is broken";
			return;
		}
		const uint8_t *e = d + 446;
		if (e[4] != MBR_EMPTY && !is_extended(e[4]))
			add_slice(
			    p, m, 5 + i, e[4], at + get32(e + 8), get32(e + 12));
		if (!is_extended(e[16 + 4]) || get32(e + 16 + 8) == 0)
			return;
		at = base + get32(e + 16 + 8);
	}
	p->damage = "the chain of logical partitions has no end";
}

static bool read_mbr(const struct media *m, struct parts *p)
{
	uint8_t d[SECTOR];
	bool found = false;

	if (media_read(m, 0, d, sizeof(d)) != 0 || get16(d + 510) != 0xaa55)
		return false;
	/* A file system's boot sector ends the same way: its "table" is code. */
	for (unsigned i = 0; i < 4; i++) {
		const uint8_t *e = d + 446 + 16 * i;
		if ((e[0] & 0x7f) != 0)
			return false;
		if (e[4] != MBR_EMPTY && e[4] != MBR_GPT &&
		    get32(e + 8) < m->size / SECTOR && get32(e + 12) != 0)
			found = true;
	}
	for (unsigned i = 0; found && i < 4; i++) {
		const uint8_t *e = d + 446 + 16 * i;
		if (e[4] == MBR_EMPTY || e[4] == MBR_GPT)
			continue;
		if (is_extended(e[4]))
			read_logical(m, p, get32(e + 8));
		else
			add_slice(p, m, i + 1, e[4], get32(e + 8), get32(e + 12));
	}
	if (found)
		p->scheme = "MBR";
	return found;
}

void part_read(const struct media *m, struct parts *p)
{
	*p = (struct parts){ .count = 0 };
	if (find_gpt(m, p))
		return;
	if (read_label(m, p, 0, m->size, "")) {
		p->scheme = "BSD";
		return;
	}
	(void)read_mbr(m, p);
}
