/* The VM object: life cycle, locks between processes, damaged files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/util.h"
#include "vmm/memory.h"
#include "vmm/vmfile.h"

static char dir[] = "/tmp/vmfile_test.XXXXXX";

static int setup(void **state)
{
	(void)state;
	strcpy(dir + sizeof(dir) - 7, "XXXXXX");
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

static int open_raw(const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	return fd;
}

static void test_names(void **state)
{
	char name[VMFILE_NAME_MAX + 2];

	(void)state;
	assert_null(vmfile_name_error("linuxguest"));
	assert_null(vmfile_name_error("a b-c_d.1"));
	assert_non_null(vmfile_name_error(""));
	assert_non_null(vmfile_name_error("a/b"));
	assert_non_null(vmfile_name_error("."));
	assert_non_null(vmfile_name_error("..x"));
	assert_non_null(vmfile_name_error("a\nb"));
	memset(name, 'n', sizeof(name));
	name[VMFILE_NAME_MAX + 1] = '\0';
	assert_non_null(vmfile_name_error(name));
	name[VMFILE_NAME_MAX] = '\0';
	assert_null(vmfile_name_error(name));

	struct vmfile *vf;
	assert_int_equal(vmfile_create(&vf, "../x", MiB, "test"), -EINVAL);
	assert_int_equal(vmfile_open(&vf, "a/b", false), -EINVAL);
	assert_int_equal(vmfile_destroy(".control"), -EINVAL);
}

static void test_life(void **state)
{
	struct vmfile *vf;
	struct vmfile_info info;
	struct vcpu_state s = { .rip = 0x1234 }, t;
	char buf[6];

	(void)state;
	assert_int_equal(vmfile_create(&vf, "vm", 64 * MiB, "test"), 0);
	vmfile_info(vf, &info);
	assert_string_equal(info.name, "vm");
	assert_int_equal(info.status, VMFILE_EMPTY);
	assert_int_equal(info.pid, getpid());
	assert_int_equal(info.memory, 64 * MiB);
	assert_string_equal(info.loader, "test");
	assert_true(info.created > 0);
	assert_int_equal(vmfile_holder("vm"), getpid());

	assert_int_equal(vmfile_write(vf, 0x100000, "hello", 6), 0);
	assert_int_equal(vmfile_loaded(vf, &s), 0);
	vmfile_close(vf);
	assert_int_equal(vmfile_holder("vm"), 0);

	struct stat st;
	int fd = open_raw("vm");
	assert_int_equal(fstat(fd, &st), 0);
	close(fd);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(st.st_blocks * 512 < (off_t)MiB); /* sparse */

	assert_int_equal(vmfile_open(&vf, "vm", true), 0);
	vmfile_info(vf, &info);
	assert_int_equal(info.status, VMFILE_LOADED);
	assert_int_equal(vmfile_get_state(vf, 0, &t), 0);
	assert_memory_equal(&s, &t, sizeof(s));
	assert_int_equal(vmfile_set_status(vf, VMFILE_RUNNING, 2), 0);
	assert_int_equal(vmfile_read(vf, 0x100000, buf, 6), 0);
	assert_memory_equal(buf, "\0\0\0\0\0", 6); /* dropped */
	vmfile_info(vf, &info);
	assert_int_equal(info.ncpu, 2);
	assert_true(info.started > 0);
	assert_int_equal(vmfile_set_status(vf, VMFILE_USED, 2), 0);
	vmfile_close(vf);
	assert_int_equal(vmfile_destroy("vm"), 0);
	assert_int_equal(vmfile_open(&vf, "vm", false), -ENOENT);
	assert_int_equal(vmfile_destroy("vm"), -ENOENT);
}

static void test_memory(void **state)
{
	const uint64_t size = 3 * GiB + 16 * MiB;
	struct memory mem = { .low = 3 * GiB, .high = 16 * MiB };
	struct vmfile *vf;

	(void)state;
	assert_int_equal(vmfile_create(&vf, "big", size, "test"), 0);
	assert_int_equal(vmfile_write(vf, 3 * GiB - 2, "ab", 2), 0);
	assert_int_equal(vmfile_write(vf, 3 * GiB - 2, "abc", 3), -EFAULT);
	assert_int_equal(vmfile_write(vf, 3 * GiB, "a", 1), -EFAULT);
	assert_int_equal(vmfile_write(vf, 4 * GiB - 1, "ab", 2), -EFAULT);
	assert_int_equal(vmfile_write(vf, 4 * GiB, "hi", 2), 0);
	assert_int_equal(vmfile_write(vf, 4 * GiB + 16 * MiB - 1, "z", 1), 0);
	assert_int_equal(
	    vmfile_write(vf, 4 * GiB + 16 * MiB - 1, "zz", 2), -EFAULT);
	assert_int_equal(vmfile_write(vf, UINT64_MAX, "zz", 2), -EFAULT);
	assert_int_equal(vmfile_write(vf, 0, "0", 1), 0);

	mem.span = 4 * GiB + mem.high;
	mem.base = mmap(NULL, mem.span, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(mem.base, MAP_FAILED);
	assert_int_equal(mprotect(mem.base + mem.low, GiB, PROT_NONE), 0);
	assert_int_equal(vmfile_load_memory(vf, &mem), 0);
	assert_int_equal(mem.base[0], '0');
	assert_memory_equal(mem.base + 3 * GiB - 2, "ab", 2);
	assert_memory_equal(mem.base + 4 * GiB, "hi", 2);
	assert_int_equal(mem.base[4 * GiB + 16 * MiB - 1], 'z');
	mem.high -= 4096;
	assert_int_equal(vmfile_load_memory(vf, &mem), -EINVAL);
	munmap(mem.base, mem.span);
	vmfile_close(vf);

	assert_int_equal(vmfile_create(&vf, "bad", 0, "test"), -EINVAL);
	assert_int_equal(vmfile_create(&vf, "bad", 4097, "test"), -EINVAL);
	assert_int_equal(
	    vmfile_create(&vf, "bad", UINT64_MAX & ~UINT64_C(4095), "test"),
	    -EINVAL);
}

/* A child that holds the VM until it is killed. */
static pid_t spawn_holder(const char *name, bool running)
{
	int fds[2];
	char c;

	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct vmfile *vf;
		close(fds[0]);
		if (vmfile_create(&vf, name, 16 * MiB, "child") != 0)
			_exit(1);
		if (running)
			vmfile_set_status(vf, VMFILE_RUNNING, 1);
		if (write(fds[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &c, 1), 1);
	close(fds[0]);
	return pid;
}

static void kill_holder(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_lock(void **state)
{
	struct vmfile *vf;
	struct vmfile_info info;

	(void)state;
	pid_t pid = spawn_holder("held", true);
	assert_int_equal(vmfile_holder("held"), pid);
	assert_int_equal(vmfile_create(&vf, "held", MiB, "test"), -EBUSY);
	assert_int_equal(vmfile_open(&vf, "held", true), -EBUSY);
	assert_int_equal(vmfile_destroy("held"), -EBUSY);
	assert_int_equal(vmfile_open(&vf, "held", false), 0);
	vmfile_info(vf, &info);
	assert_int_equal(info.status, VMFILE_RUNNING);
	assert_int_equal(info.pid, pid);

	kill_holder(pid);
	vmfile_info(vf, &info);
	assert_int_equal(info.status, VMFILE_USED);
	assert_int_equal(info.pid, 0);
	vmfile_close(vf);
	assert_int_equal(vmfile_holder("held"), 0);

	assert_int_equal(vmfile_open(&vf, "held", true), 0);
	vmfile_info(vf, &info);
	assert_int_equal(info.status, VMFILE_USED);
	vmfile_close(vf);

	kill_holder(spawn_holder("held", true));
	assert_int_equal(vmfile_create(&vf, "held", 32 * MiB, "test"), 0);
	vmfile_info(vf, &info);
	assert_int_equal(info.status, VMFILE_EMPTY);
	assert_int_equal(info.memory, 32 * MiB);
	vmfile_close(vf);

	kill_holder(spawn_holder("held", true));
	assert_int_equal(vmfile_destroy("held"), 0);
}

static void test_reinit_drops(void **state)
{
	struct vmfile *vf;
	char c;

	(void)state;
	assert_int_equal(vmfile_create(&vf, "re", 16 * MiB, "test"), 0);
	assert_int_equal(vmfile_write(vf, 0x5000, "x", 1), 0);
	vmfile_close(vf);
	assert_int_equal(vmfile_create(&vf, "re", 8 * MiB, "test"), 0);
	assert_int_equal(vmfile_read(vf, 0x5000, &c, 1), 0);
	assert_int_equal(c, 0);
	vmfile_close(vf);
}

struct damage {
	off_t offset;
	uint8_t bytes[8];
	size_t len;
};

static void test_damaged(void **state)
{
	static const struct damage table[] = {
		{ 0, "x", 1 },                         /* magic */
		{ 8, { 2 }, 1 },                       /* version */
		{ 12, { 0, 32 }, 2 },                  /* header size */
		{ 16, { 1 }, 1 },                      /* state size */
		{ 20, { 0xff, 0xff, 0xff, 0xff }, 4 }, /* states */
		{ 24, { 1 }, 1 },                      /* memory offset */
		{ 32, { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 8 },
		{ 32, { 0 }, 8 },          /* memory */
		{ 40, { 9 }, 1 },          /* status */
		{ 44, { 0xff, 0xff }, 2 }, /* vCPUs */
		{ 55, { 0x80 }, 1 },       /* pid */
	};
	struct vmfile *vf;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_int_equal(vmfile_create(&vf, "dmg", 16 * MiB, "test"), 0);
		vmfile_close(vf);
		int fd = open_raw("dmg");
		assert_int_equal(
		    pwrite(fd, table[i].bytes, table[i].len, table[i].offset),
		    table[i].len);
		close(fd);
		assert_int_equal(vmfile_open(&vf, "dmg", false), -EINVAL);
		assert_int_equal(vmfile_open(&vf, "dmg", true), -EINVAL);
	}
	for (off_t size = 0; size < (off_t)(18 * MiB); size += MiB) {
		assert_int_equal(vmfile_create(&vf, "dmg", 16 * MiB, "test"), 0);
		vmfile_close(vf);
		int fd = open_raw("dmg");
		assert_int_equal(ftruncate(fd, size), 0);
		close(fd);
		assert_int_equal(vmfile_open(&vf, "dmg", true), -EINVAL);
	}
	assert_int_equal(vmfile_destroy("dmg"), 0);

	char path[100];
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(vmfile_open(&vf, "fifo", true), -EINVAL);
	assert_int_equal(vmfile_open(&vf, "fifo", false), -EINVAL);
	snprintf(path, sizeof(path), "%s/link", dir);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_equal(vmfile_open(&vf, "link", true), -EINVAL);
	assert_int_equal(vmfile_create(&vf, "link", MiB, "test"), -EINVAL);
}

static void test_bad_state(void **state)
{
	struct vcpu_state s = { 0 };
	struct vmfile *vf;

	(void)state;
	assert_int_equal(vmfile_create(&vf, "st", 16 * MiB, "test"), 0);
	assert_int_equal(vmfile_set_state(vf, VMFILE_CPU_MAX, &s), -EINVAL);
	assert_int_equal(vmfile_get_state(vf, VMFILE_CPU_MAX, &s), -EINVAL);
	s.activity = 77;
	assert_int_equal(vmfile_set_state(vf, 0, &s), -EINVAL);
	s.activity = 0;
	s.fpu[26] = 1; /* a reserved bit of MXCSR */
	assert_int_equal(vmfile_loaded(vf, &s), -EINVAL);
	s.fpu[26] = 0;
	s.fpu[520] = 1; /* XCOMP_BV */
	assert_int_equal(vmfile_set_state(vf, 0, &s), -EINVAL);
	vmfile_close(vf);
}

static int collect(const struct vmfile_info *info, void *arg)
{
	char *all = arg;

	strcat(all, info->name);
	strcat(all, info->memory == 0 ? "! " : " ");
	return 0;
}

static void test_list(void **state)
{
	struct vmfile *vf;
	char all[512] = "", path[PATH_MAX];

	(void)state;
	teardown(NULL);
	setup(NULL);
	assert_int_equal(vmfile_list(collect, all), 0);
	assert_string_equal(all, "");
	for (int i = 2; i >= 0; i--) {
		char name[] = { 'v', '0' + i, 0 };
		assert_int_equal(vmfile_create(&vf, name, MiB, "test"), 0);
		vmfile_close(vf);
	}
	int fd = open_raw("v1");
	assert_int_equal(ftruncate(fd, 10), 0);
	close(fd);
	assert_int_equal(vmfile_control_path("v1", path, sizeof(path)), 0);
	assert_int_equal(vmfile_list(collect, all), 0);
	assert_string_equal(all, "v0 v1! v2 ");
	assert_int_equal(vmfile_control_path("v1", path, 10), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_reinit_drops),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_bad_state),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
