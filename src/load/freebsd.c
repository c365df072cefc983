/*
 * FreeBSD/amd64 kernels and modules for the command kfreebsd: what bhyveload's
 * loader makes of them (bsd/), with the environment that GRUB's variables
 * kFreeBSD.* hold.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/elf64.h"
#include "load/bsd/handover.h"
#include "load/bsd/preload.h"
#include "load/kernel.h"
#include "vmm/memory.h"
#include "vmm/vmfile.h"

#define TYPE_RAW "raw"

/* Bits as handover.h has them; handover_howto() reads the letters. */
static const struct kernel_option options[] = {
	{ 'a', "askname", RB_ASKNAME, OPTION_FLAG },
	{ 's', "single", RB_SINGLE, OPTION_FLAG },
	{ 'r', "dfltroot", RB_DFLTROOT, OPTION_FLAG },
	{ 'd', "kdb", RB_KDB, OPTION_FLAG },
	{ 'c', "config", RB_CONFIG, OPTION_FLAG },
	{ 'v', "verbose", RB_VERBOSE, OPTION_FLAG },
	{ 'h', "serial", RB_SERIAL, OPTION_FLAG },
	{ 'C', "cdrom", RB_CDROM, OPTION_FLAG },
	{ 'g', "gdb", RB_GDB, OPTION_FLAG },
	{ 'm', "mute", RB_MUTE, OPTION_FLAG },
	{ 'p', "pause", RB_PAUSE, OPTION_FLAG },
	{ 'q', "quiet", RB_QUIET, OPTION_FLAG },
	{ 'n', "nointr", RB_NOINTR, OPTION_FLAG },
	{ 'D', "dual", RB_MULTIPLE, OPTION_FLAG },
};

static char *flags(uint32_t howto)
{
	char text[ARRAY_SIZE(options) + 2] = "-", *p = text + 1;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if ((howto & options[i].bit) != 0)
			*p++ = options[i].letter;
	*p = '\0';
	return strdup(text);
}

static int load_image(const struct kernel *k, const struct kernel_file *f,
    struct preloads *l, struct preload *p, uint64_t low, const char **why)
{
	uint64_t at = ROUND_UP(l->end, (uint64_t)MEMORY_PAGE);
	bool module = f->kind == KERNEL_MODULE_ELF;

	p->type = strdup(f->kind == KERNEL_IMAGE ? PRELOAD_KERNEL
			 : module                ? PRELOAD_MODULE
			 : f->type != NULL       ? f->type
						 : TYPE_RAW);
	p->name = strdup(f->name);
	if (f->kind == KERNEL_IMAGE && k->howto != 0)
		p->args = flags(k->howto);
	else if (f->args[0] != '\0')
		p->args = strdup(f->args);
	if (p->name == NULL || p->type == NULL)
		return -ENOMEM;
	if (f->kind == KERNEL_MODULE) {
		if (at > low || f->len > low - at) {
			*why = "larger than the guest's memory";
			return -ENOMEM;
		}
		p->addr = at;
		p->size = f->len;
		uint8_t *copy = malloc(f->len + 1);
		if (copy == NULL)
			return -ENOMEM;
		if (f->len > 0)
			memcpy(copy, f->data, f->len);
		return preload_add_chunk(p, at, copy, f->len);
	}
	enum elf_kind kind = elf_kind(f->data, f->len, why);
	if (kind != (module ? ELF_MODULE : ELF_KERNEL)) {
		if (*why == NULL)
			*why = module ? "a kernel, not a module"
				      : "a module, not a kernel";
		return -EINVAL;
	}
	return module ? elf_load_module(p, f->data, f->len, at, low, why)
		      : elf_load_kernel(p, f->data, f->len, low, why);
}

static int load(const struct kernel *k, struct vmfile *vf, struct load_error *e)
{
	uint64_t low = MIN(k->memory, ELF_KERNEL_MASK);
	struct preloads l = { .count = 0 };
	int err = 0;

	for (unsigned i = 0; err == 0 && i < k->files; i++) {
		struct preload p = { .name = NULL };
		const char *why = NULL;
		err = load_image(k, &k->file[i], &l, &p, low, &why);
		if (err == 0)
			err = preloads_add(&l, &p);
		preload_discard(&p);
		if (err != 0)
			load_fail(e, "%.80s: %s", k->file[i].name,
			    why != NULL ? why : strerror(-err));
	}
	if (err == 0 && vf != NULL) {
		err = handover_write(vf, &l, &k->env, k->memory);
		if (err == -ENOMEM)
			load_fail(e,
			    "kernel, modules and variables do not fit into "
			    "the guest's memory; give it more with -M");
		else if (err != 0)
			load_write_failed(e, err);
	}
	preloads_cut(&l, 0);
	return err;
}

const struct kernel_system system_freebsd = {
	.command = "kfreebsd",
	.option = options,
	.options = ARRAY_SIZE(options),
	.load = load,
};
