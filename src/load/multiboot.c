/*
 * Kernels after the Multiboot Specification 0.6.96: a header in the first 8 KiB,
 * ELF or its own addresses, 32-bit entry with EBX on the information structure.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/kernel.h"
#include "load/multiboot_info.h"
#include "load/plan.h"

#define SEARCH       8192u
#define MAGIC        0x1badb002u
#define BOOT_MAGIC   0x2badb002u
#define WANT_PAGES   0x1u
#define WANT_MEMORY  0x2u
#define WANT_VIDEO   0x4u
#define MUST         0xffffu
#define OWN_ADDRESS  0x10000u
#define INFO_LEN     116u
#define INFO_MEMORY  0x1u
#define INFO_CMDLINE 0x4u
#define INFO_MODULES 0x8u
#define INFO_MAP     0x40u
#define INFO_NAME    0x200u
#define AT_LOWER     4u
#define AT_UPPER     8u
#define AT_CMDLINE   16u
#define AT_MODULES   20u
#define AT_MODLIST   24u
#define AT_MAP_LEN   44u
#define AT_MAP       48u
#define AT_NAME      64u
#define MODULE_LEN   16u
#define MAP_LEN      24u
#define MAP_RAM      1u

static void put32(uint8_t *at, uint64_t v)
{
	const uint32_t word = (uint32_t)v;

	memcpy(at, &word, 4);
}

static int find_header(
    const struct kernel_file *f, uint32_t *at, struct load_error *e)
{
	uint32_t end = (uint32_t)MIN(f->len, (size_t)SEARCH);

	for (*at = 0; *at + 12 <= end; *at += 4) {
		const uint8_t *h = f->data + *at;
		if (get32(h) == MAGIC && MAGIC + get32(h + 4) + get32(h + 8) == 0)
			return 0;
	}
	return load_fail(e, "not a Multiboot kernel: no header in its first 8 KiB");
}

/* The structure's tables and texts are put one behind the other. */
struct info {
	uint8_t *buf;
	size_t len;
};

static uint32_t take(struct info *i, size_t len, struct load_error *e)
{
	size_t at = i->len;

	if (len > MULTIBOOT_ROOM - at) {
		load_fail(
		    e, "the kernel's and its modules' arguments are too long");
		return 0;
	}
	i->len += ROUND_UP(len, (size_t)8);
	return (uint32_t)(MULTIBOOT_INFO + at);
}

static uint32_t text(struct info *i, const char *s, struct load_error *e)
{
	uint32_t at = take(i, strlen(s) + 1, e);

	if (at != 0)
		memcpy(i->buf + (at - MULTIBOOT_INFO), s, strlen(s) + 1);
	return at;
}

static int add_modules(
    const struct kernel *k, struct plan *p, struct info *i, struct load_error *e)
{
	unsigned n = k->files - 1;
	uint32_t list = take(i, n * MODULE_LEN + 1, e);

	if (list == 0)
		return -EINVAL;
	for (unsigned j = 0; j < n; j++) {
		const struct kernel_file *f = &k->file[j + 1];
		uint8_t *m = i->buf + (list - MULTIBOOT_INFO) + j * MODULE_LEN;
		uint32_t args = text(i, f->args, e);
		uint64_t at;
		if (args == 0 ||
		    plan_append(p, "a module", f->data, f->len, &at, e) != 0)
			return -EINVAL;
		put32(m, at);
		put32(m + 4, at + f->len);
		put32(m + 8, args);
	}
	put32(i->buf + AT_MODULES, n);
	put32(i->buf + AT_MODLIST, list);
	return 0;
}

static int add_map(const struct plan *p, struct info *i, struct load_error *e)
{
	struct plan_range map[PLAN_RANGES];
	unsigned n = plan_memory_map(p, map);
	uint32_t at = take(i, n * MAP_LEN, e);

	if (at == 0)
		return -EINVAL;
	for (unsigned j = 0; j < n; j++) {
		uint8_t *m = i->buf + (at - MULTIBOOT_INFO) + j * MAP_LEN;
		put32(m, MAP_LEN - 4);
		memcpy(m + 4, &map[j].base, 8);
		memcpy(m + 12, &map[j].len, 8);
		put32(m + 20, MAP_RAM);
	}
	put32(i->buf + AT_MAP_LEN, n * MAP_LEN);
	put32(i->buf + AT_MAP, at);
	return 0;
}

static int add_info(const struct kernel *k, struct plan *p, struct load_error *e)
{
	struct info i = { plan_alloc(p, MULTIBOOT_ROOM + 8, e), INFO_LEN + 4 };

	if (i.buf == NULL)
		return -EINVAL;
	put32(i.buf,
	    INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_NAME);
	put32(i.buf + AT_LOWER, PLAN_LOW_END / KiB);
	put32(i.buf + AT_UPPER, (p->low - MiB) / KiB);
	uint32_t cmdline = text(&i, k->file[0].args, e);
	uint32_t name = text(&i, MULTIBOOT_NAME, e);
	if (cmdline == 0 || name == 0)
		return -EINVAL;
	put32(i.buf + AT_CMDLINE, cmdline);
	put32(i.buf + AT_NAME, name);
	int err = add_modules(k, p, &i, e);
	if (err == 0)
		err = add_map(p, &i, e);
	return err != 0 ? err
			: plan_add(p, "the boot information", MULTIBOOT_INFO, i.len,
			      i.buf, i.len, e);
}

static int plan(const struct kernel *k, struct plan *p, struct load_error *e)
{
	const struct kernel_file *f = &k->file[0];
	struct multiboot_address a;
	uint32_t at, entry = 0;

	int err = find_header(f, &at, e);
	if (err != 0)
		return err;
	uint32_t flags = get32(f->data + at + 4);
	if ((flags & WANT_VIDEO) != 0)
		return load_fail(e, "this kernel wants a graphics mode, which "
				    "grub-bhyve cannot set");
	if ((flags & MUST & ~(WANT_PAGES | WANT_MEMORY)) != 0)
		return load_fail(e,
		    "this kernel wants what Multiboot does not "
		    "know: flags %#x",
		    flags);
	if ((flags & OWN_ADDRESS) != 0) {
		if (f->len - at < 32)
			return load_fail(e, "truncated kernel: its header is cut");
		const uint8_t *h = f->data + at + 12;
		a = (struct multiboot_address){ get32(h), get32(h + 4),
			get32(h + 8), get32(h + 12) };
		entry = get32(h + 16);
	}
	err = multiboot_image(
	    k, p, (flags & OWN_ADDRESS) != 0 ? &a : NULL, at, &entry, e);
	if (err == 0)
		err = add_info(k, p, e);
	p->state.rip = entry;
	p->state.gpr[GPR_RAX] = BOOT_MAGIC;
	p->state.gpr[GPR_RBX] = MULTIBOOT_INFO;
	return err;
}

const struct kernel_system system_multiboot = {
	.command = "multiboot",
	.takes_args = true,
	.plan = plan,
};
