/*
 * grub-bhyve's parts: device.map lines, and the guest put together from messages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/grub/devmap.h"
#include "load/grub/guest.h"

static int parse(struct devmap *map, const char *text)
{
	FILE *f = fmemopen((void *)text, strlen(text), "r");

	assert_non_null(f);
	int err = devmap_parse(map, f, "device.map");
	fclose(f);
	return err;
}

static void test_map(void **state)
{
	struct devmap map;

	(void)state;
	assert_int_equal(
	    parse(&map, "# disks\n\n  (hd0)\t./a b.img \r\n(cd0) /x#y\n(hd12)z"),
	    0);
	assert_int_equal(map.count, 3);
	assert_string_equal(map.entries[0].name, "hd0");
	assert_string_equal(map.entries[0].path, "./a b.img");
	assert_int_equal(map.entries[0].line, 3);
	assert_string_equal(map.entries[1].path, "/x#y");
	assert_string_equal(map.entries[2].name, "hd12");
	assert_string_equal(map.entries[2].path, "z");
	devmap_free(&map);
	assert_int_equal(parse(&map, "\n"), 0);
	assert_int_equal(map.count, 0);
}

static void test_bad_maps(void **state)
{
	static const char *const bad[] = { "hd0 a", "(hd0 a", "(hd0)", "(hd0)  ",
		"() a", "(hd0,1) a", "(hd) a", "(0) a", "(HD0) a", "(hd 0) a",
		"(hd0) a\n(hd0) b", "(hd0') a", "(h'0) a", "(host) a",
		"(hd000000000000000000000000000000000000000) a" };
	struct devmap map;
	char many[4096], *p = many;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse(&map, bad[i]), -EINVAL);
	for (unsigned i = 0; i <= DEVMAP_MAX; i++)
		p += sprintf(p, "(hd%u) x\n", i);
	assert_int_equal(parse(&map, many), -EINVAL);
	*strstr(many, "(hd64)") = '\0';
	assert_int_equal(parse(&map, many), 0);
	assert_int_equal(map.count, DEVMAP_MAX);
	devmap_free(&map);
}

/* The least that linux_parse() takes. */
static void make_kernel(uint8_t *k, size_t len)
{
	static const uint8_t start[] = { 0xeb, 0x62, 'H', 'd', 'r', 'S', 0x0f,
		0x02 };

	memset(k, 0, len);
	k[0x1f1] = 1;
	k[0x1fe] = 0x55;
	k[0x1ff] = 0xaa;
	memcpy(k + 0x200, start, sizeof(start));
	k[0x211] = 1;
	memset(k + 0x22c, 0x7f, 4);
	k[0x232] = 0x20; /* alignment */
	k[0x234] = 1;
	k[0x239] = 8;    /* command line */
	k[0x25a] = 0x10; /* preferred address 1 MiB */
}

static void test_guest(void **state)
{
	static const char argv[] = "/vmlinuz\0quiet";
	uint8_t kernel[2048];
	struct load_error e = { "" };
	struct guest g;

	(void)state;
	make_kernel(kernel, sizeof(kernel));
	guest_init(&g, 16 * MiB, false, false);
	assert_int_equal(guest_done(&g, &e), -EINVAL);
	guest_begin_initrd(&g);
	assert_int_equal(guest_data(&g, "x", 1), 0);
	assert_int_equal(guest_done(&g, &e), -EINVAL);
	assert_non_null(strstr(e.text, "kernel first"));

	assert_int_equal(guest_begin_kernel(&g, argv, sizeof(argv)), 0);
	assert_int_equal(guest_data(&g, kernel, 1000), 0);
	assert_int_equal(guest_data(&g, kernel + 1000, sizeof(kernel) - 1000), 0);
	assert_int_equal(guest_file_end(&g), 0);
	assert_int_equal(guest_done(&g, &e), 0);
	assert_string_equal(g.cmdline, "console=ttyS0 BOOT_IMAGE=/vmlinuz quiet");

	/*
	 * Two files, each filled up to four bytes; bytes after the end go nowhere.
	 */
	guest_begin_initrd(&g);
	assert_int_equal(guest_data(&g, "abcde", 5), 0);
	assert_int_equal(guest_file_end(&g), 0);
	assert_int_equal(guest_data(&g, "fg", 2), 0);
	assert_int_equal(guest_file_end(&g), 0);
	assert_int_equal(guest_done(&g, &e), 0);
	assert_int_equal(guest_data(&g, "late", 4), 0);
	assert_int_equal(g.initrd.len, 12);
	assert_memory_equal(g.initrd.data, "abcde\0\0\0fg\0\0", 12);

	/* An initrd that does not fit leaves none. */
	uint8_t *big = calloc(1, 16 * MiB);
	guest_begin_initrd(&g);
	assert_int_equal(guest_data(&g, big, 16 * MiB), 0);
	assert_int_equal(guest_done(&g, &e), -EINVAL);
	assert_non_null(strstr(e.text, "does not fit"));
	assert_int_equal(g.initrd.len, 0);
	guest_begin_initrd(&g);
	assert_int_equal(guest_data(&g, big, 16 * MiB), 0);
	assert_int_equal(guest_data(&g, big, 1), 0);
	assert_int_equal(g.initrd.len, 0); /* not even kept */
	assert_int_equal(guest_data(&g, big, 1), 0);
	assert_int_equal(guest_done(&g, &e), -EINVAL);
	assert_non_null(strstr(e.text, "larger than the guest's memory"));
	free(big);

	/* A bad kernel takes the place of a good one. */
	assert_int_equal(guest_begin_kernel(&g, argv, sizeof(argv)), 0);
	assert_int_equal(guest_data(&g, "text", 4), 0);
	assert_int_equal(guest_done(&g, &e), -EINVAL);
	assert_int_equal(guest_load(&g, NULL, &e), -EINVAL);
	assert_int_equal(guest_begin_kernel(&g, "unended", 7), -EINVAL);
	assert_int_equal(guest_begin_kernel(&g, "", 0), -EINVAL);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_bad_maps),
		cmocka_unit_test(test_guest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
