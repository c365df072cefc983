/*
 * The loaders behind grub-bhyve's kopenbsd, knetbsd, kfreebsd and multiboot: what
 * commands say, where files may lie, what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/elf_image.h"
#include "load/flat.h"
#include "load/kernel.h"
#include "load/plan.h"

/* An ELF32 kernel of two segments, each with a page in the file. */
static struct elf32 {
	Elf32_Ehdr head;
	Elf32_Phdr seg[2];
	uint8_t pad[4096 - sizeof(Elf32_Ehdr) - 2 * sizeof(Elf32_Phdr)];
	uint8_t data[2][4096];
} elf;

static void make_elf(void)
{
	elf = (struct elf32){
		.head = {
			.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, 1 },
			.e_type = ET_EXEC,
			.e_machine = EM_386,
			.e_entry = 0xd0200010,
			.e_phoff = sizeof(Elf32_Ehdr),
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 2,
		},
	};
	for (unsigned i = 0; i < 2; i++)
		elf.seg[i] = (Elf32_Phdr){
			.p_type = PT_LOAD,
			.p_offset = 4096 * (i + 1),
			.p_vaddr = 0xd0200000 + i * 0x10000,
			.p_paddr = 0xd0200000 + i * 0x10000,
			.p_filesz = 4096,
			.p_memsz = 8192,
		};
}

static struct kernel k;

/* A command with its words and the file's bytes: the error, "" when it worked. */
static const char *run(const char *line, const void *data, size_t len)
{
	static struct load_error e;
	char text[256], *words[16], *rest = text;
	struct kernel_file f = { .name = NULL };
	int n = 0;

	e.text[0] = '\0';
	snprintf(text, sizeof(text), "%s", line);
	while (n < 16 && (words[n] = strsep(&rest, " ")) != NULL)
		n++;
	const struct kernel_command *c = kernel_find_command(words[0]);
	assert_non_null(c);
	int file = kernel_begin(&k, &f, c, n - 1, words + 1, &e);
	if (file < 0) {
		assert_int_equal(file, -EINVAL);
		assert_string_not_equal(e.text, "");
		kernel_free_file(&f);
		return e.text;
	}
	f.data = malloc(len + 1);
	memcpy(f.data, data, len);
	f.len = len;
	int err = kernel_add(&k, &f, &e);
	assert_int_equal(err != 0, e.text[0] != '\0');
	assert_null(f.data);
	return e.text;
}

static const char *run_elf(const char *line)
{
	return run(line, &elf, sizeof(elf));
}

static void refused(const char *got, const char *why)
{
	if (strstr(got, why) == NULL)
		fail_msg("\"%s\", not \"%s\"", got, why);
}

static int setup(void **state)
{
	(void)state;
	make_elf();
	k.memory = 16 * MiB;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kernel_free(&k);
	return 0;
}

static void test_options(void **state)
{
	(void)state;
	assert_null(kernel_find_command("linux"));
	assert_string_equal(
	    run_elf("kopenbsd -as -r sd1b -h com1,9600 (hd0)/bsd"), "");
	assert_int_equal(k.howto, 0x2003);
	assert_string_equal(k.root, "sd1b");
	assert_int_equal(k.serial.port, 0x2f8);
	assert_int_equal(k.serial.unit, 1);
	assert_string_equal(k.file[0].name, "/bsd");
	/* A word that is no port is the file. */
	assert_string_equal(run_elf("kopenbsd -h /bsd --legacy"), "");
	assert_true(k.serial.set && k.old_console);
	assert_int_equal(k.serial.port, 0x3f8);
	assert_int_equal(k.serial.speed, 9600);
	assert_string_equal(run_elf("kopenbsd --serial=0x3e8,38400 /bsd"), "");
	assert_int_equal(k.serial.port, 0x3e8);
	assert_int_equal(k.serial.speed, 38400);
	assert_string_equal(run_elf("knetbsd --root=wd0a --no-acpi /netbsd"), "");
	assert_int_equal(k.howto, 0x20000000);
	refused(run_elf("knetbsd -l /netbsd"), "unknown option -l");
	refused(run_elf("knetbsd -h"), "file is missing");
	refused(run_elf("knetbsd -hcom4 /n"), "not a serial port");
	refused(run_elf("knetbsd -hcom0, /n"), "not a serial port");
	refused(run_elf("knetbsd -h0x10000 /n"), "not a serial port");
	refused(run_elf("knetbsd -hcom0,0 /n"), "not a serial port");
	refused(run_elf("knetbsd -rxxxxxxxxxxxxxxxxxx /n"), "root device");
	refused(run_elf("knetbsd /n /m"), "another, /m");
	/* Nothing is left of the kernel before. */
	refused(run_elf("knetbsd_module /m"), "with the command knetbsd");
}

static void test_elf(void **state)
{
	static const struct {
		size_t at;
		unsigned bytes;
		uint32_t value;
		const char *why;
	} bad[] = {
		{ offsetof(Elf32_Ehdr, e_phnum), 2, 0, "program headers" },
		{ offsetof(Elf32_Ehdr, e_phnum), 2, 65, "program headers" },
		{ offsetof(Elf32_Ehdr, e_phentsize), 2, 56, "program headers" },
		{ offsetof(Elf32_Ehdr, e_phoff), 4, 0xfffffff0, "not in the file" },
		{ offsetof(Elf32_Ehdr, e_machine), 2, EM_X86_64,
		    "another machine" },
		{ EI_CLASS, 1, ELFCLASS64, "another machine" },
		{ EI_DATA, 1, ELFDATA2MSB, "another machine" },
		{ offsetof(Elf32_Ehdr, e_type), 2, ET_REL, "not an executable" },
		{ offsetof(struct elf32, seg[0].p_offset), 4, 0xfffff000,
		    "truncated" },
		{ offsetof(struct elf32, seg[1].p_filesz), 4, 4097, "truncated" },
		{ offsetof(struct elf32, seg[0].p_memsz), 4, 4095,
		    "larger in the" },
		{ offsetof(struct elf32, seg[0].p_memsz), 4, 0x10001, "lies over" },
		{ offsetof(struct elf32, seg[1].p_paddr), 4, 0xd0201000,
		    "lies over" },
		{ offsetof(struct elf32, seg[1].p_memsz), 4, 0xffffffff,
		    "more with -M" },
		{ offsetof(struct elf32, seg[1].p_paddr), 4, 0xdffff000,
		    "more with -M" },
		{ offsetof(struct elf32, seg[1].p_paddr), 4, 0xd00ff000,
		    "below 1 MiB" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		make_elf();
		memcpy((uint8_t *)&elf + bad[i].at, &bad[i].value, bad[i].bytes);
		refused(run_elf("knetbsd /n"), bad[i].why);
		refused(run_elf("kopenbsd /n"), bad[i].why);
		assert_int_equal(k.files, 0);
	}
	make_elf();
	for (size_t len = 0; len < sizeof(elf); len += len < 200 ? 1 : 100)
		refused(run("knetbsd /n", &elf, len),
		    len < 4 ? "not an ELF file" : "truncated kernel");
	elf.seg[0].p_type = elf.seg[1].p_type = PT_NOTE;
	refused(run_elf("knetbsd /n"), "nothing to load");
}

static void test_files(void **state)
{
	uint8_t *data = calloc(1, 8 * MiB);

	(void)state;
	assert_string_equal(run_elf("knetbsd /n"), "");
	assert_string_equal(run("knetbsd_module /m", data, 8 * MiB), "");
	refused(run("knetbsd_module /m", data, 8 * MiB), "more with -M");
	assert_int_equal(k.files, 2); /* what was there stays */
	/* 92 bytes each, and what else the kernel is told. */
	for (int i = 0; i < 41; i++)
		assert_string_equal(run("knetbsd_module_elf /m", data, 1), "");
	run("knetbsd_module_elf /m", data, 1);
	refused(run("knetbsd_module_elf /m", data, 1), "too many modules");
	refused(run("kopenbsd_ramdisk /m", data, 1), "with the command kopenbsd");
	assert_string_equal(run_elf("kopenbsd /n"), "");
	refused(run("kopenbsd_ramdisk /m", data, 1), "no room for a ram disk");
	assert_int_equal(k.files, 1);
	free(data);
}

static void put_header(uint32_t at, uint32_t flags, const uint32_t *more, size_t n)
{
	const uint32_t h[3] = { 0x1badb002, flags, -(0x1badb002 + flags) };

	memcpy((uint8_t *)&elf + at, h, sizeof(h));
	for (size_t i = 0; i < n; i++)
		memcpy((uint8_t *)&elf + at + 12 + i * 4, &more[i], 4);
}

static void test_multiboot(void **state)
{
	/* header, load, end of data, end of bss, entry */
	static const struct {
		uint32_t a[5];
		const char *why;
	} cases[] = {
		{ { 0x200400, 0x200000, 0x201000, 0x300000, 0x200000 }, "" },
		{ { 0x200400, 0x200000, 0, 0, 0x200000 }, "" },
		{ { 0x200400, 0x1000, 0, 0, 0x200000 }, "header is to lie" },
		{ { 0x200000, 0x200400, 0, 0, 0x200000 }, "header is to lie" },
		{ { 0x200400, 0x1ffff8, 0, 0, 0x200000 }, "header is to lie" },
		{ { 0x200400, 0x200000, 0x100000, 0, 0 }, "truncated" },
		{ { 0x200400, 0x200000, 0x204000, 0, 0 }, "truncated" },
		{ { 0x200400, 0x200000, 0x201000, 0x200800, 0 },
		    "before its image" },
		{ { 0x200400, 0x200000, 0x201000, 0xffffffff, 0 }, "more with -M" },
		{ { 0xfffff400, 0xfffff000, 0, 0, 0 }, "more with -M" },
	};

	(void)state;
	refused(run_elf("multiboot /k"), "not a Multiboot kernel");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put_header(0x400, 0x10003, cases[i].a, 5);
		const char *got = run_elf("multiboot --quirk-bad-kludge /k a");
		if (cases[i].why[0] == '\0')
			assert_string_equal(got, "");
		else
			refused(got, cases[i].why);
	}
	/* As ELF: physical addresses count in full. */
	put_header(0x400, 3, NULL, 0);
	refused(run_elf("multiboot /k"), "more with -M");
	elf.seg[0].p_paddr = 0x200000;
	elf.seg[1].p_paddr = 0x300000;
	assert_string_equal(run_elf("multiboot /k"), "");
	elf.head.e_entry = 0x10;
	refused(run_elf("multiboot /k"), "its entry");
	/* In the first 8 KiB and whole. */
	refused(run("multiboot /k", &elf, 0x40b), "not a Multiboot kernel");
	refused(run("module /m", "", 0), "with the command multiboot");
}

static void test_multiboot2(void **state)
{
	static const struct {
		uint32_t tag[6];
		uint32_t len; /* of the header */
		const char *why;
	} cases[] = {
		{ { 3, 12, 0x200000, 0, 0, 8 }, 16 + 24, "" },
		{ { 2, 24, 0, 0, 0, 0 }, 16 + 24, "has no entry" },
		{ { 2, 16, 0, 0, 0, 8 }, 16 + 24, "tag 2 is cut" },
		{ { 1, 7, 0, 0, 0, 8 }, 16 + 24, "no end" },
		{ { 1, 25, 0, 0, 0, 8 }, 16 + 24, "no end" },
		{ { 1, 16, 4, 8, 0, 8 }, 16 + 24, "type 8" },
		{ { 1 | 1 << 16, 16, 4, 8, 0, 8 }, 16 + 24, "" },
		{ { 4, 12, 1, 0, 0, 8 }, 16 + 24, "wants a screen" },
		{ { 99, 8, 0, 8, 0, 8 }, 16 + 24, "tag 99" },
		{ { 0, 8 }, 15, "header is cut" },
		{ { 0, 8 }, 0x80000000, "header is cut" },
	};

	(void)state;
	elf.seg[0].p_paddr = 0x200000;
	elf.seg[1].p_paddr = 0x300000;
	refused(run_elf("multiboot2 /k"), "not a Multiboot2 kernel");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const uint32_t h[4] = { 0xe85250d6, 0, cases[i].len,
			-(0xe85250d6 + cases[i].len) };
		memset((uint8_t *)&elf + 0x400, 0, 64);
		memcpy((uint8_t *)&elf + 0x400, h, sizeof(h));
		memcpy((uint8_t *)&elf + 0x410, cases[i].tag, 24);
		const char *got = run_elf("multiboot2 /k");
		if (cases[i].why[0] == '\0')
			assert_string_equal(got, "");
		else
			refused(got, cases[i].why);
	}
}

static void test_plan(void **state)
{
	struct load_error e = { "" };
	struct plan_range map[PLAN_RANGES];
	struct plan p;
	uint64_t at;

	(void)state;
	assert_int_equal(plan_init(&p, MiB, &e), -EINVAL);
	plan_free(&p);
	assert_int_equal(plan_init(&p, 5 * GiB, &e), 0);
	assert_int_equal(plan_memory_map(&p, map), 3);
	assert_int_equal(map[1].len, 3 * GiB - MiB);
	assert_int_equal(map[2].base, 4 * GiB);
	assert_int_equal(map[2].len, 2 * GiB);
	assert_int_equal(p.state.seg[SEG_CS].sel, 0x10);
	assert_int_equal(plan_add(&p, "x", 3 * GiB - 1, 2, NULL, 0, &e), -EINVAL);
	assert_int_equal(plan_add(&p, "x", UINT64_MAX, 2, NULL, 0, &e), -EINVAL);
	assert_int_equal(plan_add(&p, "x", 0, UINT64_MAX, NULL, 0, &e), -EINVAL);
	assert_int_equal(plan_add(&p, "x", FLAT_GDT, 1, NULL, 0, &e), -EINVAL);
	assert_int_equal(plan_add(&p, "x", 2 * MiB, 10, "abc", 3, &e), 0);
	assert_int_equal(plan_add(&p, "x", 2 * MiB + 9, 1, NULL, 0, &e), -EINVAL);
	assert_int_equal(plan_add(&p, "x", 2 * MiB + 10, 1, NULL, 0, &e), 0);
	assert_int_equal(plan_append(&p, "y", "abc", 3, &at, &e), 0);
	assert_int_equal(at, 2 * MiB + 4096);
	for (unsigned i = p.pieces; i < PLAN_PIECES_MAX; i++)
		assert_int_equal(plan_append(&p, "y", "abc", 3, &at, &e), 0);
	assert_int_equal(plan_append(&p, "y", "abc", 3, &at, &e), -EINVAL);
	plan_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_options, setup, teardown),
		cmocka_unit_test_setup_teardown(test_elf, setup, teardown),
		cmocka_unit_test_setup_teardown(test_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_multiboot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_multiboot2, setup, teardown),
		cmocka_unit_test(test_plan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
