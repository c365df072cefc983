/*
 * OpenBSD kernels for i386 and amd64, as OpenBSD's boot(8) starts them: 32-bit
 * entry, nine words on the stack, a list of boot arguments (OpenBSD's
 * machine/biosvar.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/util.h"
#include "load/elf_image.h"
#include "load/kernel.h"
#include "load/plan.h"

#define KERNEL_MASK   UINT64_C(0x0fffffff)
#define STACK_WORDS   9u
#define STACK_ADDR    (UINT64_C(0x80000) - STACK_WORDS * 4)
#define ARGS_ADDR     UINT64_C(0x20000)
#define ARGS_MAX      512u
#define API_VERSION   0xeu /* vector, environment, memory map */
#define PT_RANDOMIZE  0x65a3dbe6u
#define RANDOM_MAX    (1u << 20)
#define RB_GOODRANDOM 0x10000u /* howto: the random data is worth its name */
#define BOOTARG_MAP   0u
#define BOOTARG_CONS  5u
#define BOOTARG_END   UINT32_MAX
#define MAP_FREE      1u
#define MAP_RESERVED  2u
#define DEV_MAGIC     0xa0000000u
#define MAJOR_WD      0u
#define MAJOR_SD      4u
#define DEV_COM       (8u << 8)
#define DEV_VGA       (12u << 8)
#define SPEED_DEFAULT 9600u

static const struct kernel_option options[] = {
	{ 'a', "askname", 0x1, OPTION_FLAG },
	{ 's', "single", 0x2, OPTION_FLAG },
	{ 'b', "halt", 0x8, OPTION_FLAG },
	{ 'd', "kdb", 0x40, OPTION_FLAG },
	{ 'c', "config", 0x400, OPTION_FLAG },
	{ 'h', "serial", 0x2000, OPTION_SERIAL },
	{ 'r', "root", 0, OPTION_ROOT },
	{ 'l', "legacy", 0, OPTION_OLD_CONSOLE },
};

/* "sd0a". */
static int boot_device(const char *root, uint32_t *dev, struct load_error *e)
{
	uint32_t major = MAJOR_WD;
	char *end;

	*dev = DEV_MAGIC;
	if (root[0] == '\0')
		return 0;
	if (strncmp(root, "sd", 2) == 0)
		major = MAJOR_SD;
	else if (strncmp(root, "wd", 2) != 0)
		major = UINT32_MAX;
	unsigned long unit = major == UINT32_MAX ? 0 : strtoul(root + 2, &end, 10);
	if (major == UINT32_MAX || end == root + 2 || unit > 15 || *end < 'a' ||
	    *end > 'p' || end[1] != '\0')
		return load_fail(e,
		    "-r %s: not a disk of OpenBSD; wanted is sd0a or wd0a, up to "
		    "unit 15 and partition p",
		    root);
	*dev |= (uint32_t)unit << 16 | (uint32_t)(*end - 'a') << 8 | major;
	return 0;
}

struct args {
	uint8_t *buf;
	size_t len;
};

static void put(struct args *a, const void *v, size_t len)
{
	memcpy(a->buf + a->len, v, len);
	a->len += len;
}

static void put32(struct args *a, uint32_t v)
{
	put(a, &v, sizeof(v));
}

/* An argument's head; returns where its size is to be filled in. */
static size_t begin(struct args *a, uint32_t type)
{
	size_t start = a->len;

	put32(a, type);
	put32(a, 0);
	put32(a, 0); /* next: the kernel's own */
	return start;
}

static void end(struct args *a, size_t start)
{
	uint32_t size = (uint32_t)(a->len - start);

	memcpy(a->buf + start + 4, &size, 4);
}

static void put_range(struct args *a, uint64_t base, uint64_t len, uint32_t type)
{
	put(a, &base, 8);
	put(a, &len, 8);
	put32(a, type);
}

static void put_map(struct args *a, const struct plan *p)
{
	struct plan_range map[PLAN_RANGES];
	unsigned n = plan_memory_map(p, map);
	size_t start = begin(a, BOOTARG_MAP);

	for (unsigned i = 0; i < n; i++) {
		put_range(a, map[i].base, map[i].len, MAP_FREE);
		if (i == 0 && map[0].len == PLAN_LOW_END)
			put_range(
			    a, PLAN_LOW_END, MiB - PLAN_LOW_END, MAP_RESERVED);
	}
	put_range(a, 0, 0, 0);
	end(a, start);
}

/* Before OpenBSD 7.1 it was shorter; longer ones were read as if it still were. */
static void put_console(struct args *a, const struct kernel *k)
{
	size_t start = begin(a, BOOTARG_CONS);
	uint32_t unit = k->serial.unit;

	put32(a, k->serial.set ? DEV_COM | unit : DEV_VGA);
	put32(a, k->serial.set ? k->serial.speed : SPEED_DEFAULT);
	put32(a, k->serial.set ? k->serial.port : UINT32_MAX);
	if (!k->old_console) {
		put32(a, k->serial.set ? 0 : UINT32_MAX); /* address, above */
		put32(a, 0);                              /* usual frequency */
		put32(a, 0);                              /* flags: a port */
		put32(a, 0); /* usual width of registers */
	}
	put32(a, 0); /* usual distance of registers; once: frequency */
	end(a, start);
}

static int add_arguments(const struct kernel *k, struct plan *p, uint32_t howto,
    uint32_t dev, uint32_t entry, struct load_error *e)
{
	struct args a = { plan_alloc(p, ARGS_MAX, e), 0 };
	uint32_t *stack = plan_alloc(p, STACK_WORDS * 4, e);

	if (a.buf == NULL || stack == NULL)
		return -EINVAL;
	put_map(&a, p);
	put_console(&a, k);
	end(&a, begin(&a, BOOTARG_END));
	const uint32_t words[STACK_WORDS] = { entry, howto, dev, API_VERSION, 0,
		(uint32_t)((p->low - MiB) / KiB), (uint32_t)(PLAN_LOW_END / KiB),
		(uint32_t)a.len, (uint32_t)ARGS_ADDR };
	memcpy(stack, words, sizeof(words));
	int err =
	    plan_add(p, "the boot arguments", ARGS_ADDR, a.len, a.buf, a.len, e);
	return err != 0 ? err
			: plan_add(p, "the stack", STACK_ADDR, STACK_WORDS * 4,
			      stack, STACK_WORDS * 4, e);
}

/* Into the space that kernels built for it (bsd.rd) keep. */
static int put_ramdisk(const struct elf_image *f, uint8_t *image,
    const struct kernel_file *disk, struct load_error *e)
{
	uint64_t size_va, disk_va, size_at, disk_at;
	uint32_t room, len = (uint32_t)disk->len;

	if (!elf_symbol(f, "rd_root_size", &size_va) ||
	    !elf_symbol(f, "rd_root_image", &disk_va) ||
	    !elf_offset(f, size_va, 4, &size_at))
		return load_fail(e, "this kernel has no room for a ram disk "
				    "(rd_root_image); it is for bsd.rd");
	memcpy(&room, image + size_at, 4);
	if (disk->len > room || !elf_offset(f, disk_va, disk->len, &disk_at))
		return load_fail(e,
		    "the ram disk is %zu bytes long, this kernel has room for %u",
		    disk->len, room);
	memcpy(image + size_at, &len, 4);
	if (disk->len > 0)
		memcpy(image + disk_at, disk->data, disk->len);
	return 0;
}

/* Bytes that the kernel's canaries and its generator start from. */
static int put_random(const struct elf_image *f, uint8_t *image, uint32_t *howto,
    struct load_error *e)
{
	for (unsigned i = 0; i < f->segments; i++) {
		const struct elf_segment *s = &f->segment[i];
		if (s->type != PT_RANDOMIZE)
			continue;
		if (s->offset > f->len || s->filesz > f->len - s->offset ||
		    s->filesz > RANDOM_MAX)
			return load_fail(e, "truncated kernel: its random data is "
					    "not in the file");
		for (uint64_t at = 0; at < s->filesz;) {
			ssize_t n = getrandom(
			    image + s->offset + at, (size_t)(s->filesz - at), 0);
			if (n < 0 && errno != EINTR)
				return load_fail(e, "no random numbers");
			at += n > 0 ? (uint64_t)n : 0;
		}
		if (s->filesz > 0)
			*howto |= RB_GOODRANDOM;
	}
	return 0;
}

static int plan(const struct kernel *k, struct plan *p, struct load_error *e)
{
	const struct kernel_file *disk = kernel_ramdisk(k);
	struct elf_image f;
	uint32_t dev, howto = k->howto;

	int err = elf_parse(&f, k->file[0].data, k->file[0].len, e);
	if (err == 0)
		err = boot_device(k->root, &dev, e);
	uint8_t *image = err == 0 ? plan_alloc(p, f.len, e) : NULL;
	if (image == NULL)
		return -EINVAL;
	memcpy(image, f.data, f.len);
	f.data = image;
	/* The segments first: those of hostile files are refused before. */
	err = elf_plan(&f, KERNEL_MASK, p, e);
	if (err == 0)
		err = put_random(&f, image, &howto, e);
	if (err == 0 && disk != NULL)
		err = put_ramdisk(&f, image, disk, e);
	uint32_t entry = (uint32_t)(f.entry & KERNEL_MASK);
	if (err == 0)
		err = add_arguments(k, p, howto, dev, entry, e);
	p->state.rip = entry;
	p->state.gpr[GPR_RSP] = p->state.gpr[GPR_RBP] = STACK_ADDR;
	return err;
}

const struct kernel_system system_openbsd = {
	.command = "kopenbsd",
	.option = options,
	.options = ARRAY_SIZE(options),
	.plan = plan,
};
