/*
 * The bzImage loader: header checks, placement, zero page, entry states, command
 * line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/util.h"
#include "load/linux.h"
#include "vmm/state.h"
#include "vmm/vmfile.h"

#define SETUP_LEN   (5 * 512)
#define PAYLOAD_LEN 0x4000

static char dir[] = "/tmp/linux_test.XXXXXX";
static uint8_t image[SETUP_LEN + PAYLOAD_LEN];

static void put(size_t off, unsigned bytes, uint64_t v)
{
	memcpy(image + off, &v, bytes);
}

/* A kernel as Linux 6.x for x86-64 describes itself. */
static void make_image(void)
{
	memset(image, 0, sizeof(image));
	image[0x1f1] = SETUP_LEN / 512 - 1;
	put(0x1f4, 4, PAYLOAD_LEN / 16);
	put(0x1fe, 2, 0xaa55);
	put(0x200, 2, 0x6aeb);
	memcpy(image + 0x202, "HdrS", 4);
	put(0x206, 2, 0x20f);
	image[0x211] = 1;
	put(0x22c, 4, 0x7fffffff);
	put(0x230, 4, 0x200000);
	image[0x234] = 1;
	image[0x235] = 21;
	put(0x236, 2, 0x7f);
	put(0x238, 4, 2047);
	put(0x258, 8, 0x1000000);
	put(0x260, 4, 0x800000);
	for (size_t i = 0; i < PAYLOAD_LEN; i++)
		image[SETUP_LEN + i] = (uint8_t)(i * 7 + i / 256);
}

static int setup(void **state)
{
	(void)state;
	if (mkdtemp(dir) == NULL)
		return -1;
	return setenv("VMM_DIR", dir, 1);
}

static int teardown(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void test_accepts(void **state)
{
	struct linux_kernel k;
	struct load_error e;

	(void)state;
	make_image();
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), 0);
	assert_int_equal(k.version, 0x20f);
	assert_int_equal(k.payload, SETUP_LEN);
	assert_int_equal(k.payload_len, PAYLOAD_LEN);
	assert_true(k.entry64);
	assert_true(k.relocatable);
	assert_int_equal(k.preferred, 0x1000000);
	assert_int_equal(k.init_size, 0x800000);
	assert_int_equal(k.initrd_max, 0x7fffffff);
	assert_int_equal(k.cmdline_max, 2047);

	put(0x236, 2, 0x7e);
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), 0);
	assert_false(k.entry64);

	/* An old kernel: fixed address, no 64-bit entry, short command line. */
	put(0x206, 2, 0x203);
	image[0x1f1] = 0;
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), 0);
	assert_int_equal(k.preferred, 0x100000);
	assert_int_equal(k.cmdline_max, 255);
	assert_false(k.relocatable);
	put(0x206, 2, 0x202);
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), 0);
	assert_int_equal(k.initrd_max, 0x37ffffff);

	/* The last 16 bytes may be cut, a signature may follow. */
	make_image();
	assert_int_equal(linux_parse(&k, image, sizeof(image) - 15, &e), 0);
	assert_int_equal(k.payload_len, PAYLOAD_LEN - 15);
	put(0x1f4, 4, PAYLOAD_LEN / 16 - 4);
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), 0);
	assert_int_equal(k.payload_len, PAYLOAD_LEN - 64);
}

struct bad {
	size_t off;
	unsigned bytes;
	uint64_t value;
	const char *says;
};

static void test_refuses(void **state)
{
	static const struct bad table[] = {
		{ 0x1fe, 2, 0, "no Linux boot header" },
		{ 0x202, 4, 0, "no Linux boot header" },
		{ 0, 4, 0x464c457f, NULL }, /* the first bytes do not matter */
		{ 0x206, 2, 0x201, "protocol 2.01" },
		{ 0x211, 1, 0, "zImage" },
		{ 0x1f4, 4, PAYLOAD_LEN / 16 + 1, "truncated" },
		{ 0x1f4, 4, 0xffffffff, "truncated" },
		{ 0x1f1, 1, 255, "truncated" },
		{ 0x230, 4, 3, "alignment" },
		{ 0x230, 4, 0, "alignment" },
	};
	struct linux_kernel k;
	struct load_error e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		make_image();
		put(table[i].off, table[i].bytes, table[i].value);
		int err = linux_parse(&k, image, sizeof(image), &e);
		if (table[i].says == NULL) {
			assert_int_equal(err, 0);
			continue;
		}
		assert_int_equal(err, -EINVAL);
		assert_non_null(strstr(e.text, table[i].says));
	}
	make_image();
	for (size_t len = 0; len < SETUP_LEN + PAYLOAD_LEN - 15; len += 97)
		assert_int_equal(linux_parse(&k, image, len, &e), -EINVAL);
	assert_int_equal(linux_parse(&k, "", 0, &e), -EINVAL);
	assert_non_null(strstr(e.text, "empty"));
	memset(image, 0, sizeof(image));
	memcpy(image, "\177ELF", 4);
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), -EINVAL);
	assert_non_null(strstr(e.text, "vmlinux"));
	memset(image, 0, sizeof(image));
	memcpy(image, "MZ", 2);
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), -EINVAL);
	assert_non_null(strstr(e.text, "EFI"));

	make_image();
	image[0x234] = 0;
	put(0x258, 8, 0xffff000000000000);
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), -EINVAL);
}

static void expect_cmdline(char *const argv[], bool no_console, const char *want)
{
	int argc = 0;

	while (argv[argc] != NULL)
		argc++;
	char *line = linux_cmdline(argc, argv, no_console);
	assert_non_null(line);
	assert_string_equal(line, want);
	free(line);
}

static void test_cmdline(void **state)
{
	(void)state;
	expect_cmdline((char *[]){ "/vmlinuz", NULL }, false,
	    "console=ttyS0 BOOT_IMAGE=/vmlinuz");
	expect_cmdline((char *[]){ "/vmlinuz", NULL }, true, "BOOT_IMAGE=/vmlinuz");
	expect_cmdline((char *[]){ "/v", "ro", "console=tty0", NULL }, false,
	    "BOOT_IMAGE=/v ro console=tty0");
	expect_cmdline((char *[]){ "/v", "xconsole=1", NULL }, false,
	    "console=ttyS0 BOOT_IMAGE=/v xconsole=1");
	expect_cmdline((char *[]){ "/v", "a=b c", "d\\e", "f'g", "h\"i", "", NULL },
	    true, "BOOT_IMAGE=/v \"a=b c\" d\\\\e f\\'g h\\\"i ");
	expect_cmdline((char *[]){ NULL }, true, "BOOT_IMAGE=");
}

static int check(
    uint64_t memory, size_t initrd_len, const char *cmdline, struct load_error *e)
{
	struct linux_kernel k;

	assert_int_equal(linux_parse(&k, image, sizeof(image), e), 0);
	struct linux_boot b = { &k, cmdline, image, initrd_len, memory, false };
	return linux_check(&b, e);
}

static void test_fits(void **state)
{
	struct load_error e;
	char longest[2049];

	(void)state;
	make_image();
	assert_int_equal(check(64 * MiB, 0, "", &e), 0);
	assert_int_equal(check(64 * MiB, 40 * MiB, "", &e), 0);
	assert_int_equal(check(64 * MiB, 40 * MiB + 1, "", &e), -EINVAL);
	assert_non_null(strstr(e.text, "initrd of 41 MiB"));
	assert_non_null(strstr(e.text, "-M"));
	assert_int_equal(check(64 * MiB, (size_t)5 * GiB, "", &e), -EINVAL);
	/* Too small for the preferred address: relocated to 2 MiB. */
	assert_int_equal(check(16 * MiB, 0, "", &e), 0);
	assert_int_equal(check(16 * MiB, 6 * MiB, "", &e), 0);
	assert_int_equal(check(16 * MiB, 7 * MiB, "", &e), -EINVAL);
	assert_int_equal(check(8 * MiB, 0, "", &e), -EINVAL);
	assert_non_null(strstr(e.text, "needs 10 MiB"));
	assert_int_equal(check(MiB, 0, "", &e), -EINVAL);
	assert_int_equal(check(4096, 0, "", &e), -EINVAL);
	/* mem= hides what is above it. */
	assert_int_equal(check(256 * MiB, 40 * MiB, "a mem=64M", &e), 0);
	assert_int_equal(check(256 * MiB, 41 * MiB, "a mem=64M", &e), -EINVAL);
	assert_int_equal(check(256 * MiB, 41 * MiB, "xmem=64M", &e), 0);
	/* initrd_addr_max counts, and memory above 3 GiB does not. */
	put(0x22c, 4, 0x3ffffff);
	assert_int_equal(check(8 * GiB, 40 * MiB, "", &e), 0);
	assert_int_equal(check(8 * GiB, 41 * MiB, "", &e), -EINVAL);
	put(0x22c, 4, 0xffffffff);
	assert_int_equal(check(8 * GiB, 3 * GiB - 24 * MiB, "", &e), 0);
	assert_int_equal(check(8 * GiB, 3 * GiB - 23 * MiB, "", &e), -EINVAL);

	memset(longest, 'x', sizeof(longest));
	longest[2048] = '\0';
	assert_int_equal(check(64 * MiB, 0, longest + 1, &e), 0);
	assert_int_equal(check(64 * MiB, 0, longest, &e), -EINVAL);
	assert_non_null(strstr(e.text, "2047"));
}

static uint64_t load_u(const uint8_t *p, size_t off, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, p + off, bytes);
	return v;
}

static void test_load64(void **state)
{
	static const char initrd[] = "initial ram disk";
	uint8_t zp[4096], page[4096];
	struct linux_kernel k;
	struct load_error e;
	struct vcpu_state s;
	struct vmfile *vf;

	(void)state;
	make_image();
	memset(image, 0xee, 0x1f1); /* must not reach the zero page */
	put(0x250, 8, 0x1234567);   /* nor must a chain of setup_data */
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), 0);
	struct linux_boot b = { &k, "hello", initrd, sizeof(initrd), 4 * GiB,
		false };
	assert_int_equal(vmfile_create(&vf, "g64", b.memory, "test"), 0);
	assert_int_equal(linux_load(vf, &b, &e), 0);

	assert_int_equal(vmfile_get_state(vf, 0, &s), 0);
	assert_int_equal(s.rip, 0x1000200);
	assert_int_equal(s.cr0, 0x80000031);
	assert_int_equal(s.efer, 0x500);
	assert_int_equal(s.cr4, 0x20);
	assert_int_equal(s.rflags, 2);
	assert_int_equal(s.seg[SEG_CS].sel, 0x10);
	assert_int_equal(s.seg[SEG_CS].access, 0xa09b);
	assert_int_equal(s.seg[SEG_SS].access, 0xc093);
	assert_int_equal(s.seg[SEG_LDTR].access, SEG_ACCESS_UNUSABLE);
	assert_int_equal(s.gpr[GPR_RBX] | s.gpr[GPR_RBP] | s.gpr[GPR_RDI], 0);

	assert_int_equal(vmfile_read(vf, s.gpr[GPR_RSI], zp, sizeof(zp)), 0);
	assert_int_equal(zp[0x1f0], 0);
	assert_int_equal(load_u(zp, 0x1fe, 2), 0xaa55);
	assert_int_equal(zp[0x210], 0x72);
	assert_int_equal(
	    load_u(zp, 0x70, 8), 0); /* acpi_rsdp_addr: the kernel scans */
	assert_int_equal(load_u(zp, 0x250, 8), 0);
	assert_int_equal(zp[0x1e8], 3);
	assert_int_equal(load_u(zp, 0x2d0, 8), 0);
	assert_int_equal(load_u(zp, 0x2d8, 8), 0x9fc00);
	assert_int_equal(load_u(zp, 0x2e4, 8), MiB);
	assert_int_equal(load_u(zp, 0x2ec, 8), 3 * GiB - MiB);
	assert_int_equal(load_u(zp, 0x2f8, 8), 4 * GiB);
	assert_int_equal(load_u(zp, 0x300, 8), GiB);
	assert_int_equal(load_u(zp, 0x308, 4), 1);
	assert_int_equal(zp[7], 80);
	assert_int_equal(zp[0xe], 25);

	uint64_t rd = load_u(zp, 0x218, 4);
	assert_int_equal(load_u(zp, 0x21c, 4), sizeof(initrd));
	assert_int_equal(rd % 4096, 0);
	assert_true(rd + sizeof(initrd) <= 0x80000000);
	assert_int_equal(vmfile_read(vf, rd, page, sizeof(initrd)), 0);
	assert_memory_equal(page, initrd, sizeof(initrd));
	assert_int_equal(vmfile_read(vf, load_u(zp, 0x228, 4), page, 6), 0);
	assert_string_equal((char *)page, "hello");
	for (size_t off = 0; off < PAYLOAD_LEN; off += 4096) {
		assert_int_equal(vmfile_read(vf, 0x1000000 + off, page, 4096), 0);
		assert_memory_equal(page, image + SETUP_LEN + off, 4096);
	}

	/* Every address below 4 GiB maps to itself. */
	for (uint64_t va = 0; va < 4 * GiB; va += 255 * 2 * MiB) {
		uint64_t table = s.cr3;
		static const unsigned shifts[] = { 39, 30, 21 };
		for (unsigned i = 0; i < 3; i++) {
			assert_true(table % 4096 == 0 && table < 0x9fc00);
			assert_int_equal(vmfile_read(vf, table, page, 4096), 0);
			table = load_u(page, (va >> shifts[i] & 511) * 8, 8);
			assert_int_equal(table & 3, 3);
			table &= ~UINT64_C(0xf7f);
		}
		assert_int_equal(table & 0x80, 0x80);
		assert_int_equal(table & ~UINT64_C(0x80), ROUND_DOWN(va, 2 * MiB));
	}
	assert_int_equal(vmfile_read(vf, s.gdtr.base + 0x10, page, 8), 0);
	assert_int_equal(load_u(page, 0, 8), 0x00af9b000000ffff);
	vmfile_close(vf);
}

static void test_load32(void **state)
{
	uint8_t zp[4096];
	struct linux_kernel k;
	struct load_error e;
	struct vcpu_state s;
	struct vmfile *vf;

	(void)state;
	make_image();
	put(0x236, 2, 0);
	assert_int_equal(linux_parse(&k, image, sizeof(image), &e), 0);
	struct linux_boot b = { &k, "x", NULL, 0, 64 * MiB, true };
	assert_int_equal(vmfile_create(&vf, "g32", b.memory, "test"), 0);
	assert_int_equal(linux_load(vf, &b, &e), 0);
	assert_int_equal(vmfile_get_state(vf, 0, &s), 0);
	assert_int_equal(s.rip, 0x1000000);
	assert_int_equal(s.cr0 & 0x80000001, 1);
	assert_int_equal(s.cr4, 0);
	assert_int_equal(s.efer, 0);
	assert_int_equal(s.seg[SEG_CS].access, 0xc09b);
	assert_int_equal(vmfile_read(vf, s.gpr[GPR_RSI], zp, sizeof(zp)), 0);
	assert_int_equal(zp[7], 0);
	assert_int_equal(zp[0x1e8], 2);
	assert_int_equal(load_u(zp, 0x214, 4), 0x1000000);
	assert_int_equal(load_u(zp, 0x218, 8), 0);
	vmfile_close(vf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_cmdline),
		cmocka_unit_test(test_fits),
		cmocka_unit_test(test_load64),
		cmocka_unit_test(test_load32),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
