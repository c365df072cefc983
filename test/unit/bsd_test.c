/*
 * bhyveload's readers with input made here: partition tables, linker.hints,
 * loader.conf, variables, howto, ELF headers, names of devices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/util.h"
#include "load/bsd/elf64.h"
#include "load/bsd/handover.h"
#include "load/bsd/hints.h"
#include "load/bsd/loader.h"
#include "load/bsd/unpack.h"

#define DISK (1024 * 1024u)

static uint8_t disk[DISK];

static struct media disk_media(void)
{
	int fd = memfd_create("disk", 0);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, disk, DISK), DISK);
	return (struct media){ .fd = fd, .size = DISK };
}

static void put32(size_t at, uint32_t v)
{
	memcpy(disk + at, &v, 4);
}

static void mbr_entry(
    size_t sector, unsigned i, uint8_t type, uint32_t lba, uint32_t n)
{
	size_t at = sector * 512 + 446 + 16 * i;

	disk[at + 4] = type;
	put32(at + 8, lba);
	put32(at + 12, n);
	disk[sector * 512 + 510] = 0x55;
	disk[sector * 512 + 511] = 0xaa;
}

static void test_media(void **state)
{
	struct media m = disk_media(), w;
	uint8_t b[8];

	(void)state;
	assert_int_equal(media_read(&m, DISK - 8, b, 8), 0);
	assert_int_equal(media_read(&m, DISK - 7, b, 8), -EIO);
	assert_int_equal(media_read(&m, UINT64_MAX, b, 8), -EIO);
	assert_int_equal(media_window(&m, DISK - 16, UINT64_MAX, &w), 0);
	assert_int_equal(w.size, 16);
	assert_int_equal(media_read(&w, 8, b, 8), 0);
	assert_int_equal(media_read(&w, 9, b, 8), -EIO);
	assert_int_equal(media_window(&m, DISK, 1, &w), -EINVAL);
	media_close(&m);
}

static void test_mbr(void **state)
{
	struct parts p;

	(void)state;
	memset(disk, 0, sizeof(disk));
	mbr_entry(0, 0, 0x83, 63, 100);
	mbr_entry(0, 1, 0x05, 200, 1000);
	mbr_entry(0, 2, 0x83, 5000, 1); /* not on the disk */
	mbr_entry(200, 0, 0x07, 10, 20);
	mbr_entry(200, 1, 0x05, 100, 100);
	mbr_entry(300, 0, 0x83, 5, 0xffffffff);
	struct media m = disk_media();
	part_read(&m, &p);
	media_close(&m);
	assert_string_equal(p.scheme, "MBR");
	assert_int_equal(p.count, 3);
	assert_string_equal(p.part[0].name, "s1");
	assert_string_equal(p.part[1].name, "s5");
	assert_int_equal(p.part[1].start, 210 * 512);
	assert_string_equal(p.part[2].name, "s6");
	assert_int_equal(p.part[2].start + p.part[2].size, DISK);
	assert_non_null(p.damage);

	/* A chain of logical partitions that comes back to itself. */
	mbr_entry(300, 1, 0x05, 100, 100);
	mbr_entry(0, 2, 0, 0, 0);
	m = disk_media();
	part_read(&m, &p);
	media_close(&m);
	assert_true(p.count <= PART_MAX);
	assert_string_equal(p.damage, "the chain of logical partitions has no end");
}

static void test_label(void **state)
{
	struct parts p;
	uint16_t sum = 0;

	(void)state;
	memset(disk, 0, sizeof(disk));
	put32(512, 0x82564557);
	put32(512 + 40, 512);
	put32(512 + 132, 0x82564557);
	disk[512 + 138] = 8;
	put32(512 + 148, 100); /* a */
	put32(512 + 148 + 4, 16);
	disk[512 + 148 + 12] = 7;
	put32(512 + 148 + 16, 1); /* b: behind the end */
	put32(512 + 148 + 16 + 4, 0xfffffff0);
	put32(512 + 148 + 32, DISK / 512);
	for (unsigned i = 0; i < 148 + 16 * 8; i += 2)
		sum ^= (uint16_t)(disk[512 + i] | disk[512 + i + 1] << 8);
	disk[512 + 136] = (uint8_t)sum;
	disk[512 + 137] = (uint8_t)(sum >> 8);
	struct media m = disk_media();
	part_read(&m, &p);
	assert_string_equal(p.scheme, "BSD");
	assert_int_equal(p.count, 1);
	assert_string_equal(p.part[0].name, "a");
	assert_string_equal(p.part[0].type, "freebsd-ufs");
	assert_int_equal(p.part[0].start, 16 * 512);
	assert_non_null(p.damage);
	media_close(&m);
	disk[512 + 200] ^= 1;
	m = disk_media();
	part_read(&m, &p);
	assert_null(p.scheme);
	assert_non_null(p.damage);
	media_close(&m);
}

static void test_hints(void **state)
{
	/* version 1; {20, MDT_VERSION, "mod", 5, "m.ko"}; a record that is too long
	 */
	static const uint8_t h[] = { 1, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 3, 'm',
		'o', 'd', 5, 0, 0, 0, 4, 'm', '.', 'k', 'o', 0, 0, 0, 255, 0, 0, 0,
		3, 0, 0, 0 };
	struct module_version need = { "mod", 4, 6, 7 };
	char file[FS_NAME_MAX + 1];

	(void)state;
	assert_true(hints_find(h, sizeof(h), "mod", NULL, file));
	assert_string_equal(file, "m.ko");
	assert_true(hints_find(h, sizeof(h), "mod", &need, file));
	need.min = need.preferred = 6;
	assert_false(hints_find(h, sizeof(h), "mod", &need, file));
	assert_false(hints_find(h, sizeof(h), "mo", NULL, file));
	for (size_t n = 0; n < 25; n++)
		assert_false(hints_find(h, n, "mod", NULL, file));
}

static int null_console(struct loader *l)
{
	memset(l, 0, sizeof(*l));
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	con_init(&l->con, fd, fd);
	l->memory = 64 * MiB;
	return fd;
}

static void test_conf(void **state)
{
	static const char good[] =
	    "# comment\n  a=1  # more\nb=\"two words\"\r\nc = \"${b}-${a}-\\$\"\n"
	    "m_load=\"YES\"\nm_flags=\"-x\"\nexec=\"set d=4\"\n\nlast=end";
	static const char *const bad[] = { "nothing", "=1", "a=", "a=\"x", "a b=1",
		"a=1 2", "a=\"1\"x", "a=\"$\"", "a=\"${x\"", "a=\"\\\"", "-a=1",
		"exec=\"nothing\"" };
	static struct loader l;

	(void)state;
	int fd = null_console(&l);
	assert_int_equal(conf_parse(&l, "f", good, sizeof(good) - 1), 0);
	assert_string_equal(env_get(&l.env, "a"), "1");
	assert_string_equal(env_get(&l.env, "b"), "two words");
	assert_string_equal(env_get(&l.env, "c"), "two words-1-$");
	assert_string_equal(env_get(&l.env, "d"), "4");
	assert_string_equal(env_get(&l.env, "last"), "end");
	assert_int_equal(l.conf.count, 1);
	assert_string_equal(l.conf.module[0].name, "m");
	assert_string_equal(l.conf.module[0].flags, "-x");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (conf_parse(&l, "f", bad[i], strlen(bad[i])) == 0)
			fail_msg("accepted: %s", bad[i]);
	assert_int_equal(conf_parse(&l, "f", "a=\0b\n", 5), -1);
	loader_free(&l);
	close(fd);
}

static void test_env(void **state)
{
	struct env e = { NULL, 0 };
	char buf[32];

	(void)state;
	assert_int_equal(env_set(&e, "b", "2"), 0);
	assert_int_equal(env_set(&e, "a", "1"), 0);
	assert_int_equal(env_set(&e, "b", "x=y"), 0);
	assert_int_equal(env_set(&e, "", "1"), -EINVAL);
	assert_int_equal(env_set(&e, "a=b", "1"), -EINVAL);
	assert_int_equal(env_pack(&e, NULL), 11);
	assert_int_equal(env_pack(&e, buf), 11);
	assert_memory_equal(buf, "a=1\0b=x=y\0\0", 11);
	env_set(&e, "boot_verbose", "NO");
	env_set(&e, "boot_single", "YES");
	env_set(&e, "console", "nullconsole");
	assert_int_equal(handover_howto(NULL, &e), RB_SINGLE | RB_MUTE);
	assert_int_equal(handover_howto("x-a -vD kernel", &e),
	    RB_SINGLE | RB_MUTE | RB_VERBOSE | RB_MULTIPLE);
	env_unset(&e, "a");
	assert_null(env_get(&e, "a"));
	env_free(&e);
}

static void test_elf(void **state)
{
	struct {
		Elf64_Ehdr h;
		Elf64_Phdr p;
		uint8_t code[64];
	} k = { .h = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB,
			   1 },
		    .e_type = ET_EXEC,
		    .e_machine = EM_X86_64,
		    .e_entry = 0xffffffff80200000,
		    .e_phoff = sizeof(Elf64_Ehdr),
		    .e_phentsize = sizeof(Elf64_Phdr),
		    .e_phnum = 1 },
		.p = { .p_type = PT_LOAD,
		    .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
		    .p_vaddr = 0xffffffff80200000,
		    .p_filesz = 64,
		    .p_memsz = 4096 } };
	const uint8_t *image = (const uint8_t *)&k;
	struct preload p = { .name = NULL };
	const char *why;

	(void)state;
	assert_int_equal(elf_kind(image, sizeof(k), &why), ELF_KERNEL);
	assert_int_equal(elf_kind(image, 20, &why), ELF_OTHER);
	assert_int_equal(elf_kind(image, 3, &why), ELF_NONE);
	assert_int_equal(elf_load_kernel(&p, image, sizeof(k), 4 * MiB, &why), 0);
	assert_int_equal(p.addr, 2 * MiB);
	assert_int_equal(p.size, 4096);
	preload_discard(&p);
	assert_int_equal(
	    elf_load_kernel(&p, image, sizeof(k), 2 * MiB + 4095, &why), -ENOMEM);
	preload_discard(&p);
	for (size_t n = sizeof(k.h); n < sizeof(k); n++) {
		assert_int_not_equal(elf_load_kernel(&p, image, n, GiB, &why), 0);
		assert_non_null(why);
		preload_discard(&p);
	}
	k.p.p_memsz = 1;
	assert_int_not_equal(elf_load_kernel(&p, image, sizeof(k), GiB, &why), 0);
	preload_discard(&p);
	k.p.p_memsz = 4096;
	k.p.p_vaddr = k.h.e_entry = 0x7000; /* where the machine's own things lie */
	assert_int_not_equal(elf_load_kernel(&p, image, sizeof(k), GiB, &why), 0);
	preload_discard(&p);
	k.h.e_ident[EI_CLASS] = ELFCLASS32;
	k.h.e_machine = EM_386;
	assert_int_equal(elf_kind(image, sizeof(k), &why), ELF_OTHER);
	assert_non_null(strstr(why, "i386"));
}

static void test_paths(void **state)
{
	struct devices d = { .disks = 1, .current = "disk0p2" };
	char name[DEV_NAME];
	const char *rest;
	struct media m;

	(void)state;
	d.disk[0].media = (struct media){ .fd = -1, .size = DISK };
	d.disk[0].parts.count = 1;
	d.disk[0].parts.part[0] =
	    (struct part){ .name = "p2", .start = 4096, .size = 8192 };
	assert_int_equal(dev_split(&d, "/boot/x:y", name, &rest), 0);
	assert_string_equal(name, "disk0p2");
	assert_string_equal(rest, "/boot/x:y");
	assert_int_equal(dev_split(&d, "host0:/x", name, &rest), 0);
	assert_string_equal(name, "host0");
	assert_string_equal(rest, "/x");
	assert_int_equal(
	    dev_split(&d, "averyveryverylongdevicename:/x", name, &rest), -ENODEV);
	assert_int_equal(dev_media(&d, "disk0p2", &m), 0);
	assert_int_equal(m.start, 4096);
	assert_int_equal(dev_media(&d, "disk0", &m), 0);
	assert_int_equal(dev_media(&d, "disk0p3", &m), -ENODEV);
	assert_int_equal(dev_media(&d, "disk1", &m), -ENODEV);
	assert_int_equal(dev_media(&d, "disk-1", &m), -ENODEV);
	assert_int_equal(dev_media(&d, "disk99999999999999999999", &m), -ENODEV);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_media),
		cmocka_unit_test(test_mbr),
		cmocka_unit_test(test_label),
		cmocka_unit_test(test_hints),
		cmocka_unit_test(test_conf),
		cmocka_unit_test(test_env),
		cmocka_unit_test(test_elf),
		cmocka_unit_test(test_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
