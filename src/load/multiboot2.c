/*
 * Kernels after the Multiboot2 Specification 2.0: a header of tags in the first 32
 * KiB, ELF or its own addresses, 32-bit entry with EBX on a list of tags.
 */
#include <errno.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/kernel.h"
#include "load/multiboot_info.h"
#include "load/plan.h"

#define SEARCH         32768u
#define MAGIC          0xe85250d6u
#define BOOT_MAGIC     0x36d76289u
#define HEAD_END       0u
#define HEAD_REQUEST   1u
#define HEAD_ADDRESS   2u
#define HEAD_ENTRY     3u
#define HEAD_CONSOLE   4u
#define HEAD_ALIGN     6u
#define HEAD_EFI_FIRST 7u /* for EFI: no matter here */
#define HEAD_EFI_LAST  9u
#define HEAD_MOVABLE   10u
#define FLAG_OPTIONAL  1u
#define CONSOLE_NEEDED 1u
#define INFO_END       0u
#define INFO_CMDLINE   1u
#define INFO_NAME      2u
#define INFO_MODULE    3u
#define INFO_MEMORY    4u
#define INFO_MAP       6u
#define MAP_ENTRY      24u
#define MAP_RAM        1u

struct header {
	uint32_t at, len;
	struct multiboot_address address;
	bool own_address, own_entry;
	uint32_t entry;
};

static int find_header(
    const struct kernel_file *f, struct header *h, struct load_error *e)
{
	uint32_t end = (uint32_t)MIN(f->len, (size_t)SEARCH);

	for (h->at = 0; h->at + 16 <= end; h->at += 8) {
		const uint8_t *p = f->data + h->at;
		h->len = get32(p + 8);
		if (get32(p) != MAGIC ||
		    MAGIC + get32(p + 4) + h->len + get32(p + 12) != 0)
			continue;
		if (get32(p + 4) != 0)
			return load_fail(
			    e, "a Multiboot2 kernel for another machine than i386");
		if (h->len < 16 || h->len > end - h->at)
			return load_fail(
			    e, "truncated kernel: its Multiboot2 header is cut");
		return 0;
	}
	return load_fail(
	    e, "not a Multiboot2 kernel: no header in its first 32 KiB");
}

/* Whether what a required tag asks to be told is told. */
static int check_request(const uint8_t *tag, uint32_t size, struct load_error *e)
{
	for (uint32_t i = 8; i + 4 <= size; i += 4) {
		uint32_t type = get32(tag + i);
		if (type != INFO_CMDLINE && type != INFO_NAME &&
		    type != INFO_MODULE && type != INFO_MEMORY && type != INFO_MAP)
			return load_fail(e,
			    "this kernel wants boot information of type %u, which "
			    "grub-bhyve does not have",
			    type);
	}
	return 0;
}

static int read_tag(
    struct header *h, const uint8_t *tag, uint32_t size, struct load_error *e)
{
	unsigned type = get16(tag);
	bool optional = (get16(tag + 2) & FLAG_OPTIONAL) != 0;

	switch (type) {
	case HEAD_REQUEST:
		return optional ? 0 : check_request(tag, size, e);
	case HEAD_ADDRESS:
		if (size < 24)
			break;
		h->address = (struct multiboot_address){ get32(tag + 8),
			get32(tag + 12), get32(tag + 16), get32(tag + 20) };
		h->own_address = true;
		return 0;
	case HEAD_ENTRY:
		if (size < 12)
			break;
		h->entry = get32(tag + 8);
		h->own_entry = true;
		return 0;
	case HEAD_CONSOLE:
		if (size < 12)
			break;
		/* There is none but the serial port, which needs no telling. */
		return optional || (get32(tag + 8) & CONSOLE_NEEDED) == 0
			   ? 0
			   : load_fail(e, "this kernel wants a screen, which "
					  "grub-bhyve does not give it");
	case HEAD_ALIGN: /* modules always lie on pages */
	case HEAD_MOVABLE:
		return 0;
	default:
		if (optional || (type >= HEAD_EFI_FIRST && type <= HEAD_EFI_LAST))
			return 0;
		return load_fail(e,
		    "this kernel wants what grub-bhyve does not know: header tag "
		    "%u",
		    type);
	}
	return load_fail(e, "damaged kernel: header tag %u is cut", type);
}

static int read_tags(
    const struct kernel_file *f, struct header *h, struct load_error *e)
{
	const uint8_t *p = f->data + h->at;
	int err = 0;

	for (uint32_t at = 16; err == 0 && h->len - at >= 8;) {
		uint32_t size = get32(p + at + 4);
		if (size < 8 || size > h->len - at)
			return load_fail(
			    e, "damaged kernel: its header's tags have no end");
		if (get16(p + at) == HEAD_END)
			break;
		err = read_tag(h, p + at, size, e);
		at += MIN(ROUND_UP(size, 8u), h->len - at);
	}
	if (err == 0 && h->own_address && !h->own_entry)
		err = load_fail(e, "damaged kernel: its header has no entry");
	return err;
}

struct info {
	uint8_t *buf;
	size_t len;
	bool full;
};

/* A tag with that many bytes behind its head; NULL: no room. */
static uint8_t *tag(struct info *i, uint32_t type, size_t len)
{
	const uint32_t head[2] = { type, (uint32_t)(8 + len) };

	if (len > MULTIBOOT_ROOM || i->len > MULTIBOOT_ROOM - 16 - len) {
		i->full = true;
		return NULL;
	}
	uint8_t *at = i->buf + i->len;
	memcpy(at, head, sizeof(head));
	i->len += ROUND_UP(8 + len, (size_t)8);
	return at + 8;
}

static void text(struct info *i, uint32_t type, const char *s)
{
	uint8_t *p = tag(i, type, strlen(s) + 1);

	if (p != NULL)
		memcpy(p, s, strlen(s) + 1);
}

static void words(struct info *i, uint32_t type, uint64_t a, uint64_t b)
{
	const uint32_t v[2] = { (uint32_t)a, (uint32_t)b };
	uint8_t *p = tag(i, type, sizeof(v));

	if (p != NULL)
		memcpy(p, v, sizeof(v));
}

static int add_modules(
    const struct kernel *k, struct plan *p, struct info *i, struct load_error *e)
{
	for (unsigned j = 1; j < k->files; j++) {
		const struct kernel_file *f = &k->file[j];
		uint64_t at;
		int err = plan_append(p, "a module", f->data, f->len, &at, e);
		if (err != 0)
			return err;
		const uint32_t place[2] = { (uint32_t)at, (uint32_t)(at + f->len) };
		uint8_t *m = tag(i, INFO_MODULE, 8 + strlen(f->args) + 1);
		if (m == NULL)
			return 0;
		memcpy(m, place, 8);
		memcpy(m + 8, f->args, strlen(f->args) + 1);
	}
	return 0;
}

static void add_map(const struct plan *p, struct info *i)
{
	struct plan_range map[PLAN_RANGES];
	unsigned n = plan_memory_map(p, map);
	uint8_t *m = tag(i, INFO_MAP, 8 + n * MAP_ENTRY);
	const uint32_t form[2] = { MAP_ENTRY, 0 }, ram[2] = { MAP_RAM, 0 };

	if (m == NULL)
		return;
	memcpy(m, form, 8);
	for (unsigned j = 0; j < n; j++) {
		memcpy(m + 8 + j * MAP_ENTRY, &map[j].base, 8);
		memcpy(m + 16 + j * MAP_ENTRY, &map[j].len, 8);
		memcpy(m + 24 + j * MAP_ENTRY, ram, 8);
	}
}

static int add_info(const struct kernel *k, struct plan *p, struct load_error *e)
{
	struct info i = { plan_alloc(p, MULTIBOOT_ROOM + 16, e), 8, false };

	if (i.buf == NULL)
		return -EINVAL;
	text(&i, INFO_CMDLINE, k->file[0].args);
	text(&i, INFO_NAME, MULTIBOOT_NAME);
	words(&i, INFO_MEMORY, PLAN_LOW_END / KiB, (p->low - MiB) / KiB);
	add_map(p, &i);
	int err = add_modules(k, p, &i, e);
	tag(&i, INFO_END, 0);
	if (err == 0 && i.full)
		err = load_fail(
		    e, "the kernel's and its modules' arguments are too long");
	const uint32_t total = (uint32_t)i.len;
	memcpy(i.buf, &total, 4);
	return err != 0 ? err
			: plan_add(p, "the boot information", MULTIBOOT_INFO, i.len,
			      i.buf, i.len, e);
}

static int plan(const struct kernel *k, struct plan *p, struct load_error *e)
{
	struct header h = { .at = 0 };
	uint32_t entry = 0;

	int err = find_header(&k->file[0], &h, e);
	if (err == 0)
		err = read_tags(&k->file[0], &h, e);
	if (err == 0)
		err = multiboot_image(
		    k, p, h.own_address ? &h.address : NULL, h.at, &entry, e);
	if (err == 0)
		err = add_info(k, p, e);
	p->state.rip = h.own_entry ? h.entry : entry;
	p->state.gpr[GPR_RAX] = BOOT_MAGIC;
	p->state.gpr[GPR_RBX] = MULTIBOOT_INFO;
	return err;
}

const struct kernel_system system_multiboot2 = {
	.command = "multiboot2",
	.takes_args = true,
	.plan = plan,
};
