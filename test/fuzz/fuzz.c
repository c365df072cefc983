/* See fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/log.h"

uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	take_bytes(in, &v, bytes);
	return v;
}

size_t take_bytes(struct input *in, void *buf, size_t len)
{
	size_t n = MIN(len, in->left);

	memcpy(buf, in->p, n);
	in->p += n;
	in->left -= n;
	return n;
}

const char *fuzz_disk(void)
{
	static char name[64];
	int fd = memfd_create("disk", 0);

	if (fd < 0 || ftruncate(fd, FUZZ_DISK) != 0)
		abort();
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	return name;
}

struct fake *fuzz_machine(const char *const *slots, unsigned n)
{
	static struct fake f;

	if (f.pci != NULL)
		return &f;
	log_set_level(LOG_ERROR);
	if (fake_create(&f, FUZZ_RAM) != 0)
		abort();
	for (unsigned i = 0; i < n; i++)
		if (fake_slot(&f, slots[i]) != 0)
			abort();
	if (fake_start(&f) != 0)
		abort();
	return &f;
}

uint64_t fuzz_address(struct input *in)
{
	uint32_t v = (uint32_t)take(in, 3);

	switch (v >> 20) {
	case 14:
		return FUZZ_RAM - (v & 0xff);
	case 15:
		return take(in, 8);
	default:
		return v % FUZZ_RAM;
	}
}
