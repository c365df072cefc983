/*
 * virtio-blk end to end on a real file, through both register layouts, and the
 * classes of attacks on queues that have hit other VMMs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "virtio_driver.h"

#define HDR    0x200000u
#define DATA   0x210000u
#define STATUS 0x208000u
#define MIB    (1024 * 1024)

static char image[] = "/tmp/blk_test.XXXXXX";

struct env {
	struct fake f;
	struct vdriver d;
	int fd;
};

static struct env *start(const char *options)
{
	struct env *e = calloc(1, sizeof(*e));
	char text[128];

	assert_non_null(e);
	strcpy(image + sizeof(image) - 7, "XXXXXX");
	e->fd = mkstemp(image);
	assert_true(e->fd >= 0);
	assert_int_equal(ftruncate(e->fd, 8 * MIB), 0);
	assert_int_equal(fake_create(&e->f, 16 * MIB), 0);
	snprintf(text, sizeof(text), "3,virtio-blk,%s%s", image, options);
	assert_int_equal(fake_slot(&e->f, text), 0);
	assert_int_equal(fake_start(&e->f), 0);
	return e;
}

static void stop(struct env *e)
{
	fake_destroy(&e->f);
	close(e->fd);
	unlink(image);
	free(e);
}

static void header(struct env *e, uint32_t type, uint64_t sector)
{
	uint32_t *h = fake_ram(&e->f, HDR);

	h[0] = type;
	h[1] = 0;
	memcpy(&h[2], &sector, 8);
	*(uint8_t *)fake_ram(&e->f, STATUS) = 0xaa;
}

/* One request of header, data (when len > 0) and status; returns the status. */
static uint8_t request(
    struct env *e, uint32_t type, uint64_t sector, uint32_t len, bool in)
{
	uint16_t used = e->d.used16[1];

	header(e, type, sector);
	vd_desc(&e->d, 0, HDR, 16, VD_NEXT, len > 0 ? 1 : 2);
	vd_desc(&e->d, 1, DATA, len, VD_NEXT | (in ? VD_WRITE : 0), 2);
	vd_desc(&e->d, 2, STATUS, 1, VD_WRITE, 0);
	vd_offer(&e->d, 0);
	vd_kick(&e->d);
	if (!vd_wait_used(&e->d, (uint16_t)(used + 1)))
		return 0xee;
	return *(uint8_t *)fake_ram(&e->f, STATUS);
}

static uint32_t used_len(struct env *e)
{
	return e->d.used[(uint16_t)(e->d.used16[1] - 1) % e->d.size * 2 + 1];
}

static void read_write(struct env *e)
{
	uint8_t *data = fake_ram(&e->f, DATA), back[4096];

	memset(data, 0x5a, 4096);
	assert_int_equal(request(e, 1, 8, 4096, false), 0);
	assert_int_equal(used_len(e), 1);
	assert_int_equal(pread(e->fd, back, 4096, 4096), 4096);
	assert_memory_equal(back, data, 4096);
	assert_int_equal(request(e, 4, 0, 0, false), 0);
	memset(data, 0, 4096);
	assert_int_equal(request(e, 0, 8, 4096, true), 0);
	assert_int_equal(used_len(e), 4097);
	assert_memory_equal(back, data, 4096);
	assert_int_equal(request(e, 8, 0, 20, true), 0);
	assert_memory_equal(data, "BHYVE-", 6);
	/* Outside the disk, across its end, wrapping, not a whole sector. */
	assert_int_equal(request(e, 0, 16384, 512, true), 1);
	assert_int_equal(request(e, 0, 16383, 1024, true), 1);
	assert_int_equal(request(e, 0, UINT64_MAX, 512, true), 1);
	assert_int_equal(request(e, 0, UINT64_MAX / 512 + 1, 512, true), 1);
	assert_int_equal(request(e, 0, 0, 511, true), 1);
	/* Types nobody offered; the SCSI pass-through among them. */
	assert_int_equal(request(e, 2, 0, 512, true), 2);
	assert_int_equal(request(e, 0xffffffff, 0, 512, true), 2);
}

static void test_legacy(void **state)
{
	struct env *e = start("");

	(void)state;
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 0, 4), 0x10011af4);
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 0x2c, 4), 0x00021af4);
	assert_true(vd_start_legacy(&e->d, &e->f, 3, 0xffffffff));
	assert_int_equal(e->d.size, 128);
	assert_int_equal(fake_in(&e->f, e->d.io + 20, 4), 16384);
	read_write(e);
	/* INTx until the interrupt status is read. */
	assert_true(e->f.gsi[16]);
	assert_int_equal(fake_in(&e->f, e->d.io + 19, 1), 1);
	assert_false(e->f.gsi[16]);
	stop(e);
}

static void test_modern(void **state)
{
	struct env *e = start("");

	(void)state;
	assert_true(vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32, 64));
	assert_int_equal(e->d.size, 64);
	read_write(e);
	stop(e);
}

static void test_engines(void **state)
{
	static const char *const options[] = { ",nocache", ",sync", ",direct",
		",sectorsize=512/4096" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
		struct env *e = start(options[i]);

		assert_true(
		    vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32, 128));
		read_write(e);
		stop(e);
	}
}

static void test_discard(void **state)
{
	struct env *e = start("");
	struct stat before, after;
	struct {
		uint64_t sector;
		uint32_t count, flags;
	} * range;
	uint8_t *data = fake_ram(&e->f, DATA), back[4096];

	(void)state;
	range = fake_ram(&e->f, DATA);
	assert_true(
	    vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32 | 3 << 13, 128));
	memset(data, 0x77, 1 * MIB);
	assert_int_equal(request(e, 1, 0, 1 * MIB, false), 0);
	assert_int_equal(request(e, 4, 0, 0, false), 0);
	fstat(e->fd, &before);
	range->sector = 0;
	range->count = 1024;
	range->flags = 0;
	assert_int_equal(request(e, 11, 0, 16, false), 0);
	fstat(e->fd, &after);
	assert_true(after.st_blocks < before.st_blocks);
	assert_int_equal(after.st_size, 8 * MIB);
	range->sector = 1024;
	range->count = 8;
	assert_int_equal(request(e, 13, 0, 16, false), 0);
	assert_int_equal(pread(e->fd, back, 4096, 512 * 1024), 4096);
	assert_int_equal(back[0] | back[4095], 0);
	/* Too long, outside, reserved flags, odd lengths. */
	range->count = 32769;
	assert_int_equal(request(e, 11, 0, 16, false), 1);
	range->sector = 16380;
	range->count = 8;
	assert_int_equal(request(e, 11, 0, 16, false), 1);
	range->flags = 1;
	assert_int_equal(request(e, 11, 0, 16, false), 2);
	assert_int_equal(request(e, 11, 0, 15, false), 1);
	assert_int_equal(request(e, 11, 0, 32, false), 1);
	assert_int_equal(request(e, 11, 0, 0, false), 1);
	stop(e);
}

static void test_readonly(void **state)
{
	struct env *e = start(",ro");

	(void)state;
	assert_true(
	    vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32 | 1 << 5, 128));
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	assert_int_equal(request(e, 1, 0, 512, false), 1);
	assert_int_equal(request(e, 11, 0, 16, false), 2);
	stop(e);
}

/* The host cannot take more: the guest must hear of it. */
static void test_file_limit(void **state)
{
	struct rlimit old, small = { 64 * 1024, 64 * 1024 };
	struct env *e = start("");

	(void)state;
	assert_true(vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32, 128));
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	uint8_t status = request(e, 1, 2048, 4096, false);
	/* The first half fits: the short write is resumed and fails. */
	uint8_t split = request(e, 1, 120, 8192, false);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(status, 1);
	assert_int_equal(split, 1);
	assert_int_equal(request(e, 1, 2048, 4096, false), 0);
	stop(e);
}

/* What the host has in memory is there, and told, when the kick has returned. */
static void test_cached(void **state)
{
	struct env *e = start("");
	uint8_t page[4096], *data = fake_ram(&e->f, DATA);
	struct iovec iov = { page, sizeof(page) };

	(void)state;
	memset(page, 0x3c, sizeof(page));
	assert_int_equal(pwrite(e->fd, page, 4096, 4096), 4096);
	if (preadv2(e->fd, &iov, 1, 4096, RWF_NOWAIT) != 4096) {
		stop(e);
		skip();
	}
	assert_true(vd_start_legacy(&e->d, &e->f, 3, 0));
	header(e, 0, 8);
	vd_desc(&e->d, 0, HDR, 16, VD_NEXT, 1);
	vd_desc(&e->d, 1, DATA, 4096, VD_NEXT | VD_WRITE, 2);
	vd_desc(&e->d, 2, STATUS, 1, VD_WRITE, 0);
	vd_offer(&e->d, 0);
	vd_kick(&e->d);
	assert_int_equal(e->d.used16[1], 1);
	assert_int_equal(used_len(e), 4097);
	assert_int_equal(*(uint8_t *)fake_ram(&e->f, STATUS), 0);
	assert_memory_equal(data, page, 4096);
	assert_true(e->f.gsi[16]);
	stop(e);
}

/*
 * 126 requests of 4 KiB in one kick: one interrupt a batch, in any order of
 * completion.
 */
static void test_batch(void **state)
{
	struct env *e = start("");

	(void)state;
	assert_true(
	    vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32 | 1 << 28, 128));
	for (unsigned i = 0; i < 42; i++) {
		uint32_t *h = fake_ram(&e->f, HDR + i * 16);

		h[0] = 1;
		h[2] = i * 8;
		h[3] = 0;
		*(uint8_t *)fake_ram(&e->f, STATUS + i) = 0xaa;
		memset(fake_ram(&e->f, DATA + i * 4096), (int)i + 1, 4096);
		vd_desc(
		    &e->d, 3 * i, HDR + i * 16, 16, VD_NEXT, (uint16_t)(3 * i + 1));
		vd_desc(&e->d, 3 * i + 1, DATA + i * 4096, 4096, VD_NEXT,
		    (uint16_t)(3 * i + 2));
		vd_desc(&e->d, 3 * i + 2, STATUS + i, 1, VD_WRITE, 0);
		vd_offer(&e->d, (uint16_t)(3 * i));
	}
	vd_kick(&e->d);
	assert_true(vd_wait_used(&e->d, 42));
	for (unsigned i = 0; i < 42; i++) {
		uint8_t byte;

		assert_int_equal(*(uint8_t *)fake_ram(&e->f, STATUS + i), 0);
		assert_int_equal(pread(e->fd, &byte, 1, i * 4096 + 4095), 1);
		assert_int_equal(byte, i + 1);
	}
	stop(e);
}

static void test_reset_in_flight(void **state)
{
	struct env *e = start("");

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		assert_true(
		    vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32, 128));
		for (unsigned i = 0; i < 10; i++) {
			header(e, 1, 0);
			vd_desc(
			    &e->d, 3 * i, HDR, 16, VD_NEXT, (uint16_t)(3 * i + 1));
			vd_desc(&e->d, 3 * i + 1, DATA, 65536, VD_NEXT,
			    (uint16_t)(3 * i + 2));
			vd_desc(&e->d, 3 * i + 2, STATUS, 1, VD_WRITE, 0);
			vd_offer(&e->d, (uint16_t)(3 * i));
		}
		vd_kick(&e->d);
		uint16_t at_reset = e->d.used16[1];

		vd_set_status(&e->d, 0);
		fake_poll(&e->f);
		/* What ends later must not touch the rings of the past. */
		assert_int_equal(e->d.used16[1], at_reset);
		assert_int_equal(vd_status(&e->d), 0);
	}
	stop(e);
}

/* What a hostile driver does: the device stops, says so, lives after a reset. */

static void assert_stopped(struct env *e)
{
	vd_kick(&e->d);
	fake_poll(&e->f);
	assert_int_equal(e->d.used16[1], 0);
	if (e->d.modern)
		assert_int_equal(vd_status(&e->d) & 0x40, 0x40);
	bool again = e->d.modern ? vd_start_modern(&e->d, &e->f, 3,
				       UINT64_C(1) << 32 | 1 << 28, 128)
				 : vd_start_legacy(&e->d, &e->f, 3, 1u << 28);

	assert_true(again);
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	vd_set_status(&e->d, 0);
	if (e->d.modern)
		vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32 | 1 << 28, 128);
	else
		vd_start_legacy(&e->d, &e->f, 3, 1u << 28);
}

static void hostile(struct env *e)
{
	struct vdriver *d = &e->d;
	uint64_t end = 16 * MIB;
	struct vdesc *inner = fake_ram(&e->f, DATA);

	header(e, 0, 0);
	/* avail.idx beyond the ring. */
	d->avail[1] = 129;
	assert_stopped(e);
	d->avail[1] = 0xffff;
	assert_stopped(e);
	/* Heads and next outside the ring. */
	vd_offer(d, 128);
	assert_stopped(e);
	vd_offer(d, 0xffff);
	assert_stopped(e);
	vd_desc(d, 0, HDR, 16, VD_NEXT, 128);
	vd_offer(d, 0);
	assert_stopped(e);
	/* Loops: on itself, and of all the ring. */
	vd_desc(d, 0, HDR, 16, VD_NEXT, 0);
	vd_offer(d, 0);
	assert_stopped(e);
	for (unsigned i = 0; i < 128; i++)
		vd_desc(d, i, HDR, 16, VD_NEXT, (uint16_t)((i + 1) % 128));
	vd_offer(d, 0);
	assert_stopped(e);
	/* Loop of empty buffers. */
	for (unsigned i = 0; i < 128; i++)
		vd_desc(d, i, HDR, 0, VD_NEXT, (uint16_t)((i + 1) % 128));
	vd_offer(d, 0);
	assert_stopped(e);
	/*
	 * Buffers outside RAM: behind it, across its end, wrapping, in a device's
	 * BAR.
	 */
	static const struct {
		uint64_t addr;
		uint32_t len;
	} bad[] = { { 16 * MIB, 1 }, { 16 * MIB - 1, 2 },
		{ 0xfffffffffffffff0, 0x20 }, { 0, 0xffffffff }, { 0xc0000000, 16 },
		{ 0xfee00000, 16 } };

	(void)end;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		vd_desc(d, 0, bad[i].addr, bad[i].len, VD_NEXT, 1);
		vd_desc(d, 1, STATUS, 1, VD_WRITE, 0);
		vd_offer(d, 0);
		assert_stopped(e);
	}
	vd_desc(d, 0, fake_bar(&e->f, 3, 4), 16, VD_WRITE, 1);
	vd_offer(d, 0);
	assert_stopped(e);
	/* Readable after writable. */
	vd_desc(d, 0, STATUS, 1, VD_WRITE | VD_NEXT, 1);
	vd_desc(d, 1, HDR, 16, 0, 0);
	vd_offer(d, 0);
	assert_stopped(e);
	/* No header, short header, no status. */
	vd_desc(d, 0, STATUS, 1, VD_WRITE, 0);
	vd_offer(d, 0);
	assert_stopped(e);
	vd_desc(d, 0, HDR, 15, VD_NEXT, 1);
	vd_desc(d, 1, STATUS, 1, VD_WRITE, 0);
	vd_offer(d, 0);
	assert_stopped(e);
	vd_desc(d, 0, HDR, 16, 0, 0);
	vd_offer(d, 0);
	assert_stopped(e);
	/*
	 * Indirect: in an indirect one, odd, empty, outside RAM, with a next, too
	 * long.
	 */
	inner[0] = (struct vdesc){ DATA, 16, VD_INDIRECT, 0 };
	vd_desc(d, 0, DATA, 16, VD_INDIRECT, 0);
	vd_offer(d, 0);
	assert_stopped(e);
	static const struct vdesc odd[] = { { DATA, 17, VD_INDIRECT, 0 },
		{ DATA, 0, VD_INDIRECT, 0 },
		{ 0xffffffffffffff00, 16, VD_INDIRECT, 0 },
		{ 16 * MIB - 8, 16, VD_INDIRECT, 0 },
		{ DATA, 16, VD_INDIRECT | VD_NEXT, 1 },
		{ DATA, 0xfffffff0, VD_INDIRECT, 0 } };

	for (unsigned i = 0; i < ARRAY_SIZE(odd); i++) {
		d->desc[0] = odd[i];
		vd_offer(d, 0);
		assert_stopped(e);
	}
	for (unsigned i = 0; i < 4096; i++)
		inner[i] = (struct vdesc){ HDR, 16, VD_NEXT, (uint16_t)(i + 1) };
	vd_desc(d, 0, DATA, 65536, VD_INDIRECT, 0);
	vd_offer(d, 0);
	assert_stopped(e);
	/*
	 * The same chain offered more often than the ring has entries, while in
	 * flight.
	 */
	vd_desc(d, 0, HDR, 16, VD_NEXT, 1);
	vd_desc(d, 1, STATUS, 1, VD_WRITE, 0);
	for (unsigned i = 0; i < 128; i++)
		vd_offer(d, 0);
	vd_kick(d);
	vd_set_status(d, 0);
}

static void test_hostile_modern(void **state)
{
	struct env *e = start("");

	(void)state;
	assert_true(
	    vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32 | 1 << 28, 128));
	hostile(e);
	stop(e);
}

static void test_hostile_legacy(void **state)
{
	struct env *e = start("");

	(void)state;
	assert_true(vd_start_legacy(&e->d, &e->f, 3, 1u << 28));
	hostile(e);
	stop(e);
}

/* Queue first, features after it, as NetBSD does; not while requests run. */
static void test_late_features(void **state)
{
	struct env *e = start("");
	uint16_t feat;

	(void)state;
	assert_true(vd_start_legacy(&e->d, &e->f, 3, 0));
	feat = (uint16_t)(e->d.io + 4);
	fake_out(&e->f, feat, 4, 1u << 28);
	assert_int_equal(fake_in(&e->f, feat, 4), 0); /* DRIVER_OK was said */

	assert_true(vd_begin(&e->d, &e->f, 3, false, 0));
	assert_true(vd_queue(&e->d, 0, VD_RINGS, 0));
	fake_out(&e->f, feat, 4, 1u << 28 | 1u << 1);
	assert_int_equal(fake_in(&e->f, feat, 4), 1u << 28);
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	fake_out(&e->f, feat, 4, 0);
	assert_int_equal(fake_in(&e->f, feat, 4), 1u << 28);
	stop(e);
}

static void test_notify_values(void **state)
{
	struct env *e = start("");

	(void)state;
	assert_true(vd_start_legacy(&e->d, &e->f, 3, 0));
	for (uint32_t v = 0; v < 0x10000; v++)
		fake_out(&e->f, e->d.io + 16, 2, v);
	for (uint32_t v = 0; v < 0x10000; v += 7) {
		fake_out(&e->f, e->d.io + 14, 2, v);
		fake_out(&e->f, e->d.io + 22, 2, v);
		fake_out(&e->f, e->d.io + 8, 4, v);
		fake_in(&e->f, e->d.io + 12, 2);
	}
	for (unsigned off = 0; off < 0x4000; off += 2)
		fake_write(&e->f, fake_bar(&e->f, 3, 4) + off, 2, 0xffff);
	stop(e);
}

/* A Firecracker CVE of 2026: registers changed after they were checked. */
/*
 * A guest that breaks its ring and resets in a loop does not fill the host's log.
 */
static void test_log_bounded(void **state)
{
	struct env *e = start("");
	int saved = dup(STDERR_FILENO), lines = 0, c;
	FILE *log = tmpfile();

	(void)state;
	assert_non_null(log);
	dup2(fileno(log), STDERR_FILENO);
	for (unsigned i = 0; i < 100; i++) {
		if (!vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32, 128))
			break;
		vd_offer(&e->d, 0xffff);
		vd_kick(&e->d);
		vd_set_status(&e->d, 0);
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(log);
	while ((c = fgetc(log)) != EOF)
		lines += c == '\n';
	fclose(log);
	assert_in_range(lines, 1, 10);
	assert_true(vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32, 128));
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	stop(e);
}

static void test_frozen_after_ok(void **state)
{
	struct env *e = start("");

	(void)state;
	assert_true(vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32, 16));
	uint64_t b = e->d.mmio;

	fake_write(&e->f, b + 0x18, 2, 128);
	assert_int_equal(fake_read(&e->f, b + 0x18, 2), 16);
	fake_write(&e->f, b + 0x20, 8, 0xfffffffffffff000);
	assert_int_equal(fake_read(&e->f, b + 0x20, 8), VD_RINGS);
	fake_write(&e->f, b + 0x30, 4, 0);
	assert_int_not_equal(fake_read(&e->f, b + 0x30, 4), 0);
	fake_write(&e->f, b + 0x08, 4, 0);
	fake_write(&e->f, b + 0x0c, 4, 0xffffffff);
	assert_int_equal(fake_read(&e->f, b + 0x0c, 4), 0);
	/* Nor can the old layout's page register move it. */
	fake_out(&e->f, (uint16_t)fake_bar(&e->f, 3, 0) + 8, 4, 1);
	fake_out(&e->f, (uint16_t)fake_bar(&e->f, 3, 0) + 8, 4, 0);
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	stop(e);
}

static void test_negotiation(void **state)
{
	struct env *e = start("");
	struct vdriver *d = &e->d;
	uint64_t b = fake_bar(&e->f, 3, 4);

	(void)state;
	/* A feature nobody offered; no VERSION_1. */
	assert_false(vd_start_modern(
	    d, &e->f, 3, UINT64_C(1) << 32 | UINT64_C(1) << 40, 16));
	assert_false(vd_start_modern(d, &e->f, 3, 1 << 28, 16));
	/* Sizes that are no power of two, zero, too large are ignored. */
	assert_true(vd_start_modern(d, &e->f, 3, UINT64_C(1) << 32, 16));
	fake_write(&e->f, b + 0x14, 1, 0);
	static const unsigned sizes[] = { 0, 3, 129, 256, 0x8000, 0xffff };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		fake_write(&e->f, b + 0x18, 2, sizes[i]);
		assert_int_equal(fake_read(&e->f, b + 0x18, 2), 128);
	}
	/* Rings outside memory: refused, and said so. */
	fake_write(&e->f, b + 0x14, 1, 3);
	fake_write(&e->f, b + 0x08, 4, 1);
	fake_write(&e->f, b + 0x0c, 4, 1);
	fake_write(&e->f, b + 0x14, 1, 11);
	fake_write(&e->f, b + 0x20, 8, 16 * MIB - 16);
	fake_write(&e->f, b + 0x1c, 2, 1);
	assert_int_equal(fake_read(&e->f, b + 0x1c, 2), 0);
	assert_int_equal(fake_read(&e->f, b + 0x14, 1) & 0x40, 0x40);
	stop(e);
}

static void test_event_idx(void **state)
{
	struct env *e = start("");

	(void)state;
	assert_true(
	    vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32 | 1 << 29, 16));
	uint16_t *used_event = &e->d.avail[2 + 16];

	*used_event = 0;
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	assert_int_equal(e->f.gsi_edges, 1);
	assert_int_equal(fake_read(&e->f, e->d.mmio + 0x1000, 1), 1);
	/* Wants to hear of the fourth only. */
	*used_event = 3;
	e->f.gsi_edges = 0;
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	assert_int_equal(e->f.gsi_edges, 0);
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	assert_int_equal(e->f.gsi_edges, 1);
	assert_int_equal(*e->d.avail_event, 4);
	stop(e);
}

static void test_msix(void **state)
{
	struct env *e = start("");
	uint64_t table = fake_bar(&e->f, 3, 1);

	(void)state;
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 0x40, 1), 0x11);
	fake_cfg_write(&e->f, 0, 3, 0, 0x42, 2, 0x8000);
	assert_true(vd_start_modern(&e->d, &e->f, 3, UINT64_C(1) << 32, 16));
	fake_write(&e->f, e->d.mmio + 0x1a, 2, 1);
	assert_int_equal(fake_read(&e->f, e->d.mmio + 0x1a, 2), 1);
	fake_write(&e->f, table + 16, 8, 0xfee01000);
	fake_write(&e->f, table + 24, 4, 0x41);
	/* Masked: it pends. */
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	assert_int_equal(e->f.msis, 0);
	assert_int_equal(fake_read(&e->f, table + 32, 8), 2);
	fake_write(&e->f, table + 28, 4, 0);
	assert_int_equal(e->f.msis, 1);
	assert_int_equal(e->f.msi_addr, 0xfee01000);
	assert_int_equal(e->f.msi_data, 0x41);
	assert_int_equal(fake_read(&e->f, table + 32, 8), 0);
	assert_int_equal(request(e, 0, 0, 512, true), 0);
	assert_int_equal(e->f.msis, 2);
	assert_int_equal(e->f.gsi_edges, 0);
	/* A vector that does not exist. */
	fake_write(&e->f, e->d.mmio + 0x1a, 2, 2);
	assert_int_equal(fake_read(&e->f, e->d.mmio + 0x1a, 2), 0xffff);
	stop(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_legacy),
		cmocka_unit_test(test_modern),
		cmocka_unit_test(test_engines),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_file_limit),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_reset_in_flight),
		cmocka_unit_test(test_hostile_modern),
		cmocka_unit_test(test_hostile_legacy),
		cmocka_unit_test(test_late_features),
		cmocka_unit_test(test_notify_values),
		cmocka_unit_test(test_log_bounded),
		cmocka_unit_test(test_frozen_after_ok),
		cmocka_unit_test(test_negotiation),
		cmocka_unit_test(test_event_idx),
		cmocka_unit_test(test_msix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
