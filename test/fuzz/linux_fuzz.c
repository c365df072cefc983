/*
 * A kernel from anywhere: the first 8 bytes of input choose memory and initrd
 * sizes, the rest is the image. What the loader accepts must be written inside
 * the guest's RAM, kernel and initrd apart.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/linux.h"
#include "vmm/memory.h"
#include "vmm/state.h"
#include "vmm/vmfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Stands for the VM object: knows what was written where. */
struct vmfile {
	struct memory ram;
	struct {
		uint64_t from, to;
	} wrote[16];
	unsigned n;
};

int vmfile_write(struct vmfile *vf, uint64_t gpa, const void *buf, size_t len)
{
	static volatile uint8_t sink;

	if (len == 0)
		return 0;
	if (!memory_is_ram(&vf->ram, gpa, len))
		return -EFAULT;
	sink = ((const uint8_t *)buf)[0];
	sink = ((const uint8_t *)buf)[len - 1];
	(void)sink;
	for (unsigned i = 0; i < vf->n; i++) {
		if (gpa < vf->wrote[i].to && vf->wrote[i].from < gpa + len)
			abort();
	}
	if (vf->n == ARRAY_SIZE(vf->wrote))
		abort();
	vf->wrote[vf->n].from = gpa;
	vf->wrote[vf->n++].to = gpa + len;
	return 0;
}

int vmfile_loaded(struct vmfile *vf, const struct vcpu_state *bsp)
{
	if (!memory_is_ram(&vf->ram, bsp->rip, 1))
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t initrd[1 << 16];
	struct linux_kernel k;
	struct load_error e = { "" };

	if (len < 8)
		return 0;
	uint32_t pages, rd;
	memcpy(&pages, data, 4);
	memcpy(&rd, data + 4, 4);
	if (linux_parse(&k, data + 8, len - 8, &e) != 0) {
		if (e.text[0] == '\0')
			abort();
		return 0;
	}
	struct linux_boot b = { &k, "mem=1G x", initrd, rd % sizeof(initrd),
		((uint64_t)pages + 1) * MEMORY_PAGE, (rd & 1u << 31) != 0 };
	struct vmfile vf = { .ram.low = MIN(b.memory, MEMORY_LOW_LIMIT) };
	vf.ram.high = b.memory - vf.ram.low;
	int err = linux_load(&vf, &b, &e);
	if (err == -EFAULT || (err != 0 && e.text[0] == '\0'))
		abort();
	return 0;
}
