/*
 * Kernels and modules from anywhere: the first 8 bytes of input choose the command,
 * the guest's memory and where the file is cut into kernel and module; the rest are
 * the files. What is accepted must be written inside the guest's RAM; pieces of a
 * plan never overlap.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/kernel.h"
#include "load/plan.h"
#include "vmm/memory.h"
#include "vmm/state.h"
#include "vmm/vmfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Stands for the VM object: knows what was written where. */
struct vmfile {
	struct memory ram;
	bool apart; /* what is written must not overlap */
	struct {
		uint64_t from, to;
	} wrote[PLAN_PIECES_MAX];
	unsigned n;
};

int vmfile_write(struct vmfile *vf, uint64_t gpa, const void *buf, size_t len)
{
	static volatile uint8_t sink;

	if (len == 0)
		return 0;
	if (!memory_is_ram(&vf->ram, gpa, len))
		abort();
	for (size_t i = 0; i < len; i += 64)
		sink = ((const uint8_t *)buf)[i];
	sink = ((const uint8_t *)buf)[len - 1];
	(void)sink;
	if (!vf->apart)
		return 0;
	for (unsigned i = 0; i < vf->n; i++)
		if (gpa < vf->wrote[i].to && vf->wrote[i].from < gpa + len)
			abort();
	if (vf->n == ARRAY_SIZE(vf->wrote))
		abort();
	vf->wrote[vf->n].from = gpa;
	vf->wrote[vf->n++].to = gpa + len;
	return 0;
}

int vmfile_loaded(struct vmfile *vf, const struct vcpu_state *bsp)
{
	(void)vf;
	if (vf->apart && bsp->rip > UINT32_MAX)
		abort();
	return 0;
}

static int give(
    struct kernel *k, const char *command, const uint8_t *data, size_t len)
{
	char *words[] = { (char *)"-h", (char *)"com0", (char *)"/file" };
	const struct kernel_command *c = kernel_find_command(command);
	bool args = c->kind == KERNEL_IMAGE && !c->system->takes_args &&
		    c->system != &system_freebsd;
	struct load_error e = { "" };
	struct kernel_file f;

	int at = kernel_begin(k, &f, c, args ? 3 : 1, args ? words : words + 2, &e);
	if (at < 0)
		abort(); /* the words are fine */
	f.data = malloc(len + 1);
	if (f.data == NULL)
		abort();
	memcpy(f.data, data, len);
	f.len = len;
	int err = kernel_add(k, &f, &e);
	if ((err != 0) != (e.text[0] != '\0'))
		abort();
	return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const commands[][2] = {
		{ "kopenbsd", "kopenbsd_ramdisk" },
		{ "knetbsd", "knetbsd_module" },
		{ "knetbsd", "knetbsd_module_elf" },
		{ "kfreebsd", "kfreebsd_module" },
		{ "kfreebsd", "kfreebsd_module_elf" },
		{ "kfreebsd", "kfreebsd_loadenv" },
		{ "multiboot", "module" },
		{ "multiboot2", "module2" },
	};
	struct load_error e = { "" };
	struct kernel k = { .files = 0 };
	uint16_t pages;
	uint32_t cut;

	if (len < 8)
		return 0;
	unsigned which = data[0] % ARRAY_SIZE(commands);
	memcpy(&pages, data + 2, 2);
	memcpy(&cut, data + 4, 4);
	data += 8;
	len -= 8;
	k.memory = ((uint64_t)pages + 1) * 16 * MEMORY_PAGE;
	cut = (uint32_t)MIN((size_t)cut, len);
	if (give(&k, commands[which][0], data, cut) == 0) {
		(void)give(&k, commands[which][1], data + cut, len - cut);
		struct vmfile vf = { .ram.low = MIN(k.memory, MEMORY_LOW_LIMIT),
			.apart = k.system != &system_freebsd };
		vf.ram.high = k.memory - vf.ram.low;
		if (kernel_load(&k, &vf, &e) != 0 && e.text[0] == '\0')
			abort();
	}
	kernel_free(&k);
	return 0;
}
