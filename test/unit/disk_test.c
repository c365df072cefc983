/*
 * Disk images: options, kinds of files, locks between processes, both engines,
 * errors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/config.h"
#include "lib/disk_int.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/util.h"

static char image[] = "/tmp/disk_test.XXXXXX";
static struct event_loop *loop;
static struct config *cfg;
static unsigned ended;
static int last_error;

static int setup(void **state)
{
	int fd;

	(void)state;
	strcpy(image + sizeof(image) - 7, "XXXXXX");
	fd = mkstemp(image);
	if (fd < 0 || ftruncate(fd, MiB) != 0)
		return -1;
	close(fd);
	cfg = config_new();
	config_set(cfg, "d.path", image);
	return event_loop_new(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	event_loop_free(loop);
	config_free(cfg);
	unlink(image);
	return 0;
}

static struct disk *open_ok(void)
{
	struct disk *d;

	assert_int_equal(disk_open(&d, loop, cfg, "d", false), 0);
	return d;
}

static int open_error(void)
{
	struct disk *d;
	int error = disk_open(&d, loop, cfg, "d", false);

	assert_null(d);
	return error;
}

static void done(struct disk_req *req, int error)
{
	(void)req;
	ended++;
	last_error = error;
}

static int run(struct disk *d, enum disk_op op, uint64_t off, uint64_t len,
    struct iovec *iov, int niov)
{
	struct disk_req req = { .op = op,
		.off = off,
		.len = len,
		.iov = iov,
		.niov = niov,
		.done = done };
	uint64_t end = event_now_ns() + UINT64_C(10000000000);

	ended = 0;
	disk_submit(d, &req);
	assert_int_equal(ended, 0);
	while (ended == 0 && event_now_ns() < end)
		event_loop_poll(loop, 100);
	assert_int_equal(ended, 1);
	return last_error;
}

static int io(
    struct disk *d, enum disk_op op, uint64_t off, void *buf, uint64_t len)
{
	struct iovec iov = { buf, len };

	return run(d, op, off, len, &iov, 1);
}

static void test_options(void **state)
{
	static const char *const bad[] = { "0", "511", "513", "131072", "512/256",
		"x", "512/", "512/x", "4096/512", "-512", "512/4096/1" };
	struct disk *d;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		config_set(cfg, "d.sectorsize", bad[i]);
		assert_int_equal(open_error(), -EINVAL);
	}
	config_set(cfg, "d.sectorsize", "512/8192");
	d = open_ok();
	assert_int_equal(disk_sector(d), 512);
	assert_int_equal(disk_psector(d), 8192);
	disk_close(d);
	config_set(cfg, "d.sectorsize", "4096");
	d = open_ok();
	assert_int_equal(disk_sector(d), 4096);
	assert_int_equal(disk_psector(d), 4096);
	disk_close(d);
	config_set(cfg, "d.ro", "maybe");
	assert_int_equal(open_error(), -EINVAL);
	config_set(cfg, "d.ro", "true");
	d = open_ok();
	assert_true(disk_readonly(d));
	assert_false(disk_can_discard(d));
	disk_close(d);
	config_unset(cfg, "d.ro");
	config_set(cfg, "d.nodelete", "true");
	d = open_ok();
	assert_false(disk_can_discard(d));
	disk_close(d);
	config_set(cfg, "disk.engine", "magic");
	assert_int_equal(open_error(), -EINVAL);
}

static void test_kinds(void **state)
{
	char name[64];

	(void)state;
	config_set(cfg, "d.path", "/tmp");
	assert_int_equal(open_error(), -EISDIR);
	config_set(cfg, "d.path", "/dev/null");
	assert_int_equal(open_error(), -ENOTBLK);
	config_set(cfg, "d.path", "/no/such/file");
	assert_int_equal(open_error(), -ENOENT);
	/* A FIFO nobody writes to must not hang the start. */
	snprintf(name, sizeof(name), "%s.fifo", image);
	assert_int_equal(mkfifo(name, 0600), 0);
	config_set(cfg, "d.path", name);
	config_set(cfg, "d.ro", "true");
	assert_int_equal(open_error(), -ENOTBLK);
	unlink(name);
	config_unset(cfg, "d.path");
	assert_int_equal(open_error(), -EINVAL);
}

static void test_sizes(void **state)
{
	struct disk *d;

	(void)state;
	assert_int_equal(truncate(image, 0), 0);
	assert_int_equal(open_error(), -EINVAL);
	assert_int_equal(truncate(image, 511), 0);
	assert_int_equal(open_error(), -EINVAL);
	assert_int_equal(truncate(image, 1000), 0);
	d = open_ok();
	assert_int_equal(disk_size(d), 512);
	disk_close(d);
}

/* A child holds the image; we must be told who. */
static pid_t hold(bool ro, int *release)
{
	int ready[2], go[2];
	char c = 0;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(go), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct event_loop *l;
		struct disk *d;

		close(go[1]);
		config_set(cfg, "d.ro", ro ? "true" : "false");
		if (event_loop_new(&l, NULL) != 0 ||
		    disk_open(&d, l, cfg, "d", false) != 0)
			_exit(1);
		if (write(ready[1], &c, 1) != 1 || read(go[0], &c, 1) < 0)
			_exit(1);
		_exit(0);
	}
	close(go[0]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	*release = go[1];
	return pid;
}

static void assert_locked(bool ro, pid_t pid)
{
	char text[512] = "", want[64];
	int saved = dup(2), out[2];
	ssize_t n;

	config_set(cfg, "d.ro", ro ? "true" : "false");
	assert_int_equal(pipe(out), 0);
	dup2(out[1], 2);
	int error = open_error();

	dup2(saved, 2);
	close(saved);
	close(out[1]);
	n = read(out[0], text, sizeof(text) - 1);
	close(out[0]);
	assert_int_equal(error, -EBUSY);
	assert_true(n > 0);
	snprintf(want, sizeof(want), "process %d ", (int)pid);
	assert_non_null(strstr(text, want));
	assert_non_null(strstr(text, image));
}

static void test_lock(void **state)
{
	int release, status;
	struct disk *d;
	pid_t pid = hold(false, &release);

	(void)state;
	assert_locked(false, pid);
	assert_locked(true, pid);
	/* Killed: the lock goes with it. */
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	close(release);
	config_set(cfg, "d.ro", "false");
	d = open_ok();
	/* Nor twice by one VM. */
	assert_int_equal(open_error(), -EBUSY);
	disk_close(d);
	/* Readers share; a writer stays out. */
	pid = hold(true, &release);
	assert_locked(false, pid);
	config_set(cfg, "d.ro", "true");
	d = open_ok();
	disk_close(d);
	close(release);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void engine(const char *name, const char *nocache)
{
	static uint8_t buf[65536 + 4096];
	uint8_t *out = (uint8_t *)ROUND_UP((uintptr_t)buf, 4096u) + 7;
	struct iovec iov[16];
	struct disk *d;
	uint8_t *big = aligned_alloc(4096, MiB);

	config_set(cfg, "disk.engine", name);
	config_set(cfg, "d.nocache", nocache);
	d = open_ok();
	/* Misaligned memory, through O_DIRECT as well. */
	for (unsigned i = 0; i < 8192; i++)
		out[i] = (uint8_t)(i * 7);
	assert_int_equal(io(d, DISK_WRITE, 4096, out, 8192), 0);
	memset(out, 0, 8192);
	assert_int_equal(io(d, DISK_READ, 4096, out, 8192), 0);
	for (unsigned i = 0; i < 8192; i++)
		assert_int_equal(out[i], (uint8_t)(i * 7));
	/* Odd pieces that make a whole. */
	memset(out, 0, 8192);
	unsigned at = 0;

	for (unsigned i = 0; i < 16; i++) {
		unsigned n = i == 15 ? 8192 - at : 13 + 37 * i;

		iov[i] = (struct iovec){ out + at, n };
		at += n;
	}
	assert_int_equal(run(d, DISK_READ, 4096, 8192, iov, 16), 0);
	for (unsigned i = 0; i < 8192; i++)
		assert_int_equal(out[i], (uint8_t)(i * 7));
	/* All of the disk, more than one bounce buffer's worth. */
	memset(big, 0x42, MiB);
	assert_int_equal(io(d, DISK_WRITE, 0, big, MiB), 0);
	assert_int_equal(run(d, DISK_FLUSH, 0, 0, NULL, 0), 0);
	assert_int_equal(run(d, DISK_ZERO, 4096, 4096, NULL, 0), 0);
	assert_int_equal(run(d, DISK_DISCARD, 8192, 4096, NULL, 0), 0);
	assert_int_equal(io(d, DISK_READ, 0, big, MiB), 0);
	assert_int_equal(big[4095], 0x42);
	assert_int_equal(big[4096] | big[8191] | big[8192] | big[12287], 0);
	assert_int_equal(big[12288], 0x42);
	/* Ranges that must be refused, never from within submit. */
	assert_int_equal(io(d, DISK_READ, 1, out, 512), EINVAL);
	assert_int_equal(io(d, DISK_READ, 0, out, 511), EINVAL);
	assert_int_equal(io(d, DISK_READ, MiB, out, 512), EINVAL);
	assert_int_equal(io(d, DISK_READ, MiB - 512, out, 1024), EINVAL);
	assert_int_equal(io(d, DISK_READ, UINT64_MAX - 511, out, 512), EINVAL);
	assert_int_equal(io(d, DISK_READ, 512, out, 0), EINVAL);
	assert_int_equal(run(d, DISK_READ, 0, 512, NULL, 0), EINVAL);
	assert_int_equal(
	    run(d, DISK_DISCARD, 0, UINT64_MAX - 511, NULL, 0), EINVAL);
	disk_close(d);
	free(big);
}

static void test_engines(void **state)
{
	(void)state;
	engine("threads", "false");
	engine("auto", "false");
	engine("auto", "true");
	engine("threads", "true");
}

static void test_readonly(void **state)
{
	struct disk *d;
	char buf[512];

	(void)state;
	config_set(cfg, "d.ro", "true");
	d = open_ok();
	assert_int_equal(io(d, DISK_WRITE, 0, buf, 512), EROFS);
	assert_int_equal(run(d, DISK_ZERO, 0, 512, NULL, 0), EROFS);
	assert_int_equal(run(d, DISK_DISCARD, 0, 512, NULL, 0), EROFS);
	assert_int_equal(io(d, DISK_READ, 0, buf, 512), 0);
	assert_int_equal(run(d, DISK_FLUSH, 0, 0, NULL, 0), 0);
	disk_close(d);
}

/* The image shrinks under us: an error, not zeros and not a hang. */
static void test_shrunk(void **state)
{
	static const char *const engines[] = { "auto", "threads" };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		char buf[8192];
		struct disk *d;

		assert_int_equal(truncate(image, MiB), 0);
		config_set(cfg, "disk.engine", engines[i]);
		d = open_ok();
		assert_int_equal(truncate(image, 4096), 0);
		assert_int_equal(io(d, DISK_READ, 0, buf, 8192), EIO);
		assert_int_equal(io(d, DISK_READ, 65536, buf, 512), EIO);
		assert_int_equal(io(d, DISK_READ, 0, buf, 4096), 0);
		disk_close(d);
	}
}

/* Writes stop at the limit in the middle: the rest is tried, and its error told. */
static void test_short_write(void **state)
{
	static const char *const engines[] = { "auto", "threads" };
	struct rlimit old, small;
	static char buf[8192];

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = 65536;
	for (unsigned i = 0; i < 2; i++) {
		struct disk *d;

		config_set(cfg, "disk.engine", engines[i]);
		d = open_ok();
		setrlimit(RLIMIT_FSIZE, &small);
		int error = io(d, DISK_WRITE, 65536 - 4096, buf, 8192);

		setrlimit(RLIMIT_FSIZE, &old);
		assert_int_equal(error, EFBIG);
		disk_close(d);
	}
}

/* Three hundred at once, more than the ring holds; drain ends them all. */
static void test_many(void **state)
{
	static const char *const engines[] = { "auto", "threads" };
	static struct disk_req req[300];
	static struct iovec iov[300];
	static char buf[300][512];

	(void)state;
	for (unsigned e = 0; e < 2; e++) {
		struct disk *d;

		config_set(cfg, "disk.engine", engines[e]);
		d = open_ok();
		ended = 0;
		disk_plug(d);
		for (unsigned i = 0; i < 300; i++) {
			memset(buf[i], (int)i, 512);
			iov[i] = (struct iovec){ buf[i], 512 };
			req[i] = (struct disk_req){ .op = DISK_WRITE,
				.off = i * 512,
				.len = 512,
				.iov = &iov[i],
				.niov = 1,
				.done = done };
			if (i % 50 == 49)
				req[i].off = UINT64_MAX;
			disk_submit(d, &req[i]);
		}
		disk_drain(d);
		assert_int_equal(ended, 300);
		disk_unplug(d);
		assert_int_equal(io(d, DISK_READ, 298 * 512, buf[0], 512), 0);
		assert_int_equal((uint8_t)buf[0][100], 298 & 0xff);
		disk_close(d);
	}
}

/*
 * A request of 64 GiB, as a guest may make, ends at a drain after the step it is
 * in.
 */
static void test_drain_huge(void **state)
{
	static const char *const engines[] = { "auto", "threads" };
	static struct iovec iov[64 * 128];
	static char buf[8 * MiB];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(iov); i++)
		iov[i] = (struct iovec){ buf, sizeof(buf) };
	for (unsigned e = 0; e < 2; e++) {
		struct disk_req req = { .op = DISK_READ,
			.len = ARRAY_SIZE(iov) * sizeof(buf),
			.iov = iov,
			.niov = ARRAY_SIZE(iov),
			.done = done };
		uint64_t began = event_now_ns();
		struct disk *d;

		assert_int_equal(truncate(image, (off_t)req.len), 0);
		config_set(cfg, "disk.engine", engines[e]);
		d = open_ok();
		ended = 0;
		disk_submit(d, &req);
		disk_drain(d);
		assert_int_equal(ended, 1);
		assert_int_equal(last_error, ECANCELED);
		assert_true(event_now_ns() - began < UINT64_C(5000000000));
		/* The next one is not cut. */
		assert_int_equal(io(d, DISK_READ, 0, buf, sizeof(buf)), 0);
		disk_close(d);
	}
}

static bool try(struct disk *d, enum disk_op op, uint64_t off, void *buf, uint64_t len)
{
	struct iovec iov = { buf, len };
	struct disk_req req = { .op = op,
		.off = off,
		.len = len,
		.iov = &iov,
		.niov = 1,
		.done = done };
	bool tried = disk_try(d, &req);

	assert_int_equal(ended, 0);
	return tried;
}

/* As if the host had just told that it has room for so many bytes. */
static void fresh(struct disk *d, uint64_t credit)
{
	d->try.allowed = true;
	d->try.fresh_until = event_now_ns() + UINT64_C(60000000000);
	d->try.credit = credit;
	d->try.pause_until = 0;
}

static void test_try_read(void **state)
{
	static char buf[MiB] __attribute__((aligned(4096)));
	struct disk *d = open_ok();
	struct iovec iov = { buf, 4096 };

	(void)state;
	ended = 0;
	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(pwrite(d->fd, buf, 8192, 4096), 8192);
	/* What the file system cannot do is not to be promised. */
	if (preadv2(d->fd, &iov, 1, 4096, RWF_NOWAIT) == 4096) {
		memset(buf, 0, 4096);
		assert_true(try(d, DISK_READ, 4096, buf, 4096));
		assert_int_equal(buf[0] & buf[4095], 0x5a);
		assert_true(try(d, DISK_READ, 4608, buf, 512));
	}
	/* A long read is the engine's, unless that is at one already. */
	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(pwrite(d->fd, buf, MiB, 0), MiB);
	assert_false(try(d, DISK_READ, 0, buf, MiB / 2));
	if (preadv2(d->fd, &iov, 1, 4096, RWF_NOWAIT) == 4096) {
		static char other[MiB / 2];
		struct iovec long_iov = { other, sizeof(other) };
		struct disk_req long_read = { .op = DISK_READ,
			.len = sizeof(other),
			.iov = &long_iov,
			.niov = 1,
			.done = done };

		disk_submit(d, &long_read);
		memset(buf, 0, MiB / 2);
		assert_true(try(d, DISK_READ, MiB / 2, buf, MiB / 2));
		disk_drain(d);
		assert_int_equal(last_error, 0);
		assert_int_equal(other[0] & other[MiB / 2 - 1], 0x5a);
		assert_int_equal(buf[0] & buf[MiB / 2 - 1], 0x5a);
		ended = 0;
	}
	assert_false(try(d, DISK_READ, 4097, buf, 512));
	assert_false(try(d, DISK_READ, MiB, buf, 4096));
	assert_false(try(d, DISK_READ, MiB - 512, buf, 4096));
	assert_false(try(d, DISK_FLUSH, 0, buf, 0));
	assert_false(try(d, DISK_DISCARD, 0, NULL, 0));
	/* The image has shrunk: the engine is to find out. */
	assert_int_equal(truncate(image, 6144), 0);
	assert_false(try(d, DISK_READ, 4096, buf, 4096));
	disk_close(d);
}

static void test_try_write(void **state)
{
	static char buf[MiB] __attribute__((aligned(4096))), back[4096];
	struct disk_req flush = { .op = DISK_FLUSH, .done = done };
	struct rlimit old, small;
	struct disk *d = open_ok();

	(void)state;
	ended = 0;
	memset(buf, 0x77, sizeof(buf));
	fresh(d, 8192);
	assert_true(try(d, DISK_WRITE, 4096, buf, 4096));
	assert_int_equal(pread(d->fd, back, 4096, 4096), 4096);
	assert_memory_equal(back, buf, 4096);
	assert_int_equal(d->try.credit, 4096);
	/* Parts of pages, much at once, more than the host has room for. */
	assert_false(try(d, DISK_WRITE, 512, buf, 4096));
	assert_false(try(d, DISK_WRITE, 4096, buf, 512));
	assert_false(try(d, DISK_WRITE, 0, buf, MiB));
	assert_false(try(d, DISK_WRITE, 0, buf, 8192));
	assert_true(try(d, DISK_WRITE, 8192, buf, 4096));
	assert_false(try(d, DISK_WRITE, 8192, buf, 4096));
	/* After one that had to wait. */
	fresh(d, MiB);
	d->try.pause_until = d->try.fresh_until;
	assert_false(try(d, DISK_WRITE, 0, buf, 4096));
	/* While a flush is under way. */
	fresh(d, MiB);
	disk_submit(d, &flush);
	assert_false(try(d, DISK_WRITE, 0, buf, 4096));
	disk_drain(d);
	ended = 0;
	assert_true(try(d, DISK_WRITE, 0, buf, 4096));
	/* Errors are the engine's to tell. */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = 65536;
	setrlimit(RLIMIT_FSIZE, &small);
	bool beyond = try(d, DISK_WRITE, 65536, buf, 4096),
	     half = try(d, DISK_WRITE, 65536 - 4096, buf, 8192);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_false(beyond);
	assert_false(half);
	/* What the host told is old: asked for anew. */
	fresh(d, MiB);
	d->try.fresh_until = 0;
	try(d, DISK_WRITE, 0, buf, 4096);
	assert_true(d->try.fresh_until > event_now_ns() - UINT64_C(10000000000));
	assert_int_not_equal(d->try.credit, MiB);
	disk_close(d);
}

/* Who asked for the disk itself, or may not write, gets no shortcut. */
static void test_try_options(void **state)
{
	static const char *const key[] = { "d.sync", "d.ro", "d.nocache" };
	static char buf[65536] __attribute__((aligned(4096)));

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(key); i++) {
		struct disk *d;

		config_set(cfg, key[i], "true");
		config_set(cfg, "d.sectorsize", "4096");
		/* A file system may know no nocache. */
		if (disk_open(&d, loop, cfg, "d", false) == 0) {
			ended = 0;
			assert_false(d->try.allowed);
			assert_false(try(d, DISK_WRITE, 0, buf, 4096));
			if (d->direct)
				assert_false(try(d, DISK_READ, 0, buf, 4096));
			disk_close(d);
		}
		config_unset(cfg, key[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_options, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_engines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_readonly, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shrunk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_short_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drain_huge, setup, teardown),
		cmocka_unit_test_setup_teardown(test_try_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_try_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_try_options, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
