/*
 * AHCI through hand-built command lists: a disk, a CD drive, and lists that no
 * sane driver would build.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_machine.h"

#define MIB    (1024 * 1024)
#define LIST   0x100000u
#define RXFIS  0x101000u
#define TABLE  0x110000u /* one each 0x10000 */
#define DATA   0x400000u

#define P(n)   (0x100 + 0x80 * (n))
#define P_IS   0x10
#define P_IE   0x14
#define P_CMD  0x18
#define P_TFD  0x20
#define P_SIG  0x24
#define P_SSTS 0x28
#define P_SCTL 0x2c
#define P_SACT 0x34
#define P_CI   0x38

struct env {
	struct fake f;
	uint64_t b;
	unsigned port;
	int fd;
	char image[32];
};

static uint32_t rd(struct env *e, unsigned off)
{
	return (uint32_t)fake_read(&e->f, e->b + off, 4);
}

static void wr(struct env *e, unsigned off, uint32_t v)
{
	fake_write(&e->f, e->b + off, 4, v);
}

static uint32_t prd(struct env *e, unsigned off)
{
	return rd(e, P(e->port) + off);
}

static void pwr(struct env *e, unsigned off, uint32_t v)
{
	wr(e, P(e->port) + off, v);
}

static void start_port(struct env *e)
{
	pwr(e, 0x00, LIST);
	pwr(e, 0x04, 0);
	pwr(e, 0x08, RXFIS);
	pwr(e, 0x0c, 0);
	pwr(e, P_IS, 0xffffffff);
	pwr(e, P_IE, 0xffffffff);
	pwr(e, P_CMD, 0x10);
	pwr(e, P_CMD, 0x11);
}

/* IMG in the options stands for the image. */
static struct env *start(const char *device, unsigned port)
{
	struct env *e = calloc(1, sizeof(*e));
	char text[160];

	assert_non_null(e);
	strcpy(e->image, "/tmp/ahci_test.XXXXXX");
	e->fd = mkstemp(e->image);
	assert_true(e->fd >= 0);
	assert_int_equal(ftruncate(e->fd, 8 * MIB), 0);
	assert_int_equal(fake_create(&e->f, 64 * MIB), 0);
	const char *at = strstr(device, "IMG");

	if (at != NULL)
		snprintf(text, sizeof(text), "4,%.*s%s%s", (int)(at - device),
		    device, e->image, at + 3);
	else
		snprintf(text, sizeof(text), "4,%s", device);
	assert_int_equal(fake_slot(&e->f, text), 0);
	assert_int_equal(fake_start(&e->f), 0);
	e->b = fake_bar(&e->f, 4, 5);
	e->port = port;
	wr(e, 4, 0x80000002);
	start_port(e);
	return e;
}

static void stop(struct env *e)
{
	fake_destroy(&e->f);
	close(e->fd);
	unlink(e->image);
	free(e);
}

/* Header of a slot; its table is zeroed. */
static uint8_t *header(struct env *e, unsigned slot, uint16_t flags, uint16_t prdtl)
{
	uint32_t *h = fake_ram(&e->f, LIST + slot * 32);
	uint8_t *t = fake_ram(&e->f, TABLE + slot * 0x10000);

	h[0] = 5u | flags | (uint32_t)prdtl << 16;
	h[1] = 0;
	h[2] = TABLE + slot * 0x10000;
	h[3] = 0;
	memset(t, 0, 0x80);
	t[0] = 0x27;
	t[1] = 0x80;
	return t;
}

static void set_prd(
    struct env *e, unsigned slot, unsigned i, uint64_t addr, uint32_t len)
{
	uint8_t *p =
	    (uint8_t *)fake_ram(&e->f, TABLE + slot * 0x10000 + 0x80) + i * 16;
	uint32_t dbc = len - 1;

	memcpy(p, &addr, 8);
	memcpy(p + 12, &dbc, 4);
}

static void lba48(uint8_t *t, uint64_t lba, uint16_t count)
{
	t[4] = (uint8_t)lba;
	t[5] = (uint8_t)(lba >> 8);
	t[6] = (uint8_t)(lba >> 16);
	t[7] = 0x40;
	t[8] = (uint8_t)(lba >> 24);
	t[9] = (uint8_t)(lba >> 32);
	t[10] = (uint8_t)(lba >> 40);
	t[12] = (uint8_t)count;
	t[13] = (uint8_t)(count >> 8);
}

/* Waits until the slot's bit has left reg, or the port failed. */
static bool wait_clear(struct env *e, unsigned reg, uint32_t bits)
{
	uint64_t end = event_now_ns() + UINT64_C(10000000000);

	while ((prd(e, reg) & bits) != 0 && (prd(e, P_IS) & BIT(30)) == 0 &&
	       event_now_ns() < end)
		fake_poll(&e->f);
	return (prd(e, reg) & bits) == 0;
}

/*
 * Runs one ATA command in slot 0 with len bytes of data at DATA; true when it went
 * well.
 */
static bool ata(struct env *e, uint8_t command, uint8_t feature, uint64_t lba,
    uint16_t count, uint32_t len)
{
	uint8_t *t = header(e, 0, 0, len > 0 ? 1 : 0);

	t[2] = command;
	t[3] = feature;
	lba48(t, lba, count);
	if (len > 0)
		set_prd(e, 0, 0, DATA, len);
	pwr(e, P_CI, 1);
	return wait_clear(e, P_CI, 1);
}

/* After an error, as a driver recovers. */
static void recover(struct env *e)
{
	pwr(e, P_CMD, 0x10);
	assert_int_equal(prd(e, P_CMD) & 0x8001, 0);
	assert_int_equal(prd(e, P_CI), 0);
	pwr(e, P_IS, 0xffffffff);
	pwr(e, P_CMD, 0x11);
}

static void assert_fails(struct env *e, bool ok, uint8_t error)
{
	assert_false(ok);
	assert_int_equal(prd(e, P_TFD) & 1, 1);
	assert_int_equal(prd(e, P_TFD) >> 8 & error, error);
	assert_int_equal(prd(e, P_IS) & BIT(30), BIT(30));
	recover(e);
}

static void test_registers(void **state)
{
	struct env *e = start("ahci,hd:IMG,ser=ABC", 0);

	(void)state;
	assert_int_equal(fake_cfg_read(&e->f, 0, 4, 0, 0, 4), 0x28218086);
	assert_int_equal(fake_cfg_read(&e->f, 0, 4, 0, 8, 4) >> 8, 0x010601);
	assert_int_equal(rd(e, 0) & 0x1f, 5);
	assert_int_equal(rd(e, 0xc), 1);
	assert_int_equal(rd(e, 0x10), 0x10300);
	assert_int_equal(prd(e, P_SSTS), 0x133);
	assert_int_equal(prd(e, P_SIG), 0x101);
	e->port = 1;
	assert_int_equal(prd(e, P_SSTS), 0);
	pwr(e, P_CMD, 0x11);
	pwr(e, P_CI, 1);
	e->port = 0;
	/* COMRESET. */
	pwr(e, P_CMD, 0x10);
	pwr(e, P_SCTL, 0x301);
	assert_int_equal(prd(e, P_SSTS) & 15, 1);
	pwr(e, P_SCTL, 0x300);
	assert_int_equal(prd(e, P_SSTS), 0x133);
	assert_int_equal(prd(e, P_TFD), 0x150);
	assert_int_equal(((uint8_t *)fake_ram(&e->f, RXFIS + 0x40))[0], 0x34);
	/* Reset of all. */
	wr(e, 4, 0x80000003);
	assert_int_equal(rd(e, 4), 0x80000000);
	assert_int_equal(prd(e, P_IE), 0);
	/* Every register, every width, with ones. */
	for (unsigned off = 0; off < 0x1000; off += 4)
		for (unsigned size = 1; size <= 8; size *= 2) {
			fake_write(&e->f, e->b + off, size, ~UINT64_C(0));
			fake_read(&e->f, e->b + off, size);
		}
	stop(e);
}

static void test_identify(void **state)
{
	struct env *e = start("ahci,hd:IMG,ser=ABC,nmrr=1,model=A disk", 0);
	uint16_t *id = fake_ram(&e->f, DATA);
	uint8_t sum = 0;

	(void)state;
	assert_true(ata(e, 0xec, 0, 0, 0, 512));
	assert_memory_equal(&id[10], "BA C", 4);
	assert_memory_equal(&id[27], " Aidks", 6);
	assert_int_equal(id[60] | (uint32_t)id[61] << 16, 16384);
	assert_int_equal(id[217], 1);
	for (unsigned i = 0; i < 512; i++)
		sum += ((uint8_t *)id)[i];
	assert_int_equal(sum, 0);
	assert_int_equal(((uint32_t *)fake_ram(&e->f, LIST))[1], 512);
	assert_true(e->f.gsi[16]);
	pwr(e, P_IS, 0xffffffff);
	wr(e, 8, 1);
	assert_false(e->f.gsi[16]);
	/* Room for 2 bytes only: cut, not beyond. */
	id[1] = 0x1234;
	uint8_t *t = header(e, 0, 0, 1);

	t[2] = 0xec;
	set_prd(e, 0, 0, DATA, 2);
	pwr(e, P_CI, 1);
	assert_int_equal(id[1], 0x1234);
	stop(e);
}

static void test_read_write(void **state)
{
	struct env *e = start("ahci-hd,IMG", 0);
	uint8_t *data = fake_ram(&e->f, DATA), back[8192];
	static const uint8_t writes[] = { 0x35, 0x3d, 0x34, 0x39, 0xce };
	static const uint8_t reads[] = { 0x25, 0x24, 0x29 };

	(void)state;
	for (unsigned i = 0; i < sizeof(writes); i++) {
		memset(data, 0x30 + (int)i, 8192);
		assert_true(ata(e, writes[i], 0, 16 * i, 16, 8192));
		assert_int_equal(pread(e->fd, back, 8192, 8192 * i), 8192);
		assert_memory_equal(back, data, 8192);
	}
	for (unsigned i = 0; i < sizeof(reads); i++) {
		memset(data, 0, 8192);
		assert_true(ata(e, reads[i], 0, 16 * i, 16, 8192));
		assert_int_equal(data[0], 0x30 + i);
		assert_int_equal(data[8191], 0x30 + i);
	}
	/* 28-bit commands; a count of 0 means 256. */
	assert_true(ata(e, 0xc8, 0, 0, 0, 131072));
	assert_true(ata(e, 0xca, 0, 0, 1, 512));
	assert_true(ata(e, 0x20, 0, 0, 1, 512));
	assert_true(ata(e, 0x30, 0, 0, 1, 512));
	assert_true(ata(e, 0xe7, 0, 0, 0, 0));
	assert_true(ata(e, 0xea, 0, 0, 0, 0));
	assert_true(ata(e, 0xe5, 0, 0, 0, 0));
	assert_int_equal(((uint8_t *)fake_ram(&e->f, RXFIS + 0x40))[12], 0xff);
	assert_true(ata(e, 0x40, 0, 0, 16, 0));
	assert_true(ata(e, 0xef, 0x82, 0, 0, 0));
	assert_true(ata(e, 0xca, 0, 0, 1, 512));
	assert_true(ata(e, 0xb0, 0xda, 0xc24f00, 0, 0));
	assert_true(ata(e, 0xe0, 0, 0, 0, 0));
	/* Beyond the end, unknown, PACKET to a disk, too little room. */
	assert_fails(e, ata(e, 0x25, 0, 16384, 1, 512), 0x10);
	assert_fails(e, ata(e, 0x25, 0, 16383, 2, 1024), 0x10);
	assert_fails(e, ata(e, 0x25, 0, 0xffffffffffff, 1, 512), 0x10);
	assert_fails(e, ata(e, 0xff, 0, 0, 0, 0), 4);
	assert_fails(e, ata(e, 0xa0, 0, 0, 0, 512), 4);
	assert_fails(e, ata(e, 0xa1, 0, 0, 0, 512), 4);
	assert_fails(e, ata(e, 0x25, 0, 0, 2, 512), 4);
	assert_fails(e, ata(e, 0x25, 0, 0, 1, 0), 4);
	assert_fails(e, ata(e, 0xef, 0x03, 0, 0x47, 0), 4);
	assert_fails(e, ata(e, 0xc6, 0, 0, 3, 0), 4);
	assert_true(ata(e, 0x25, 0, 0, 1, 512));
	stop(e);
}

static void test_trim(void **state)
{
	struct env *e = start("ahci-hd,IMG", 0);
	uint64_t *range = fake_ram(&e->f, DATA);
	uint8_t back[512];

	(void)state;
	memset(range, 0x55, 65536);
	assert_true(ata(e, 0x35, 0, 0, 128, 65536));
	memset(range, 0, 512);
	range[0] = UINT64_C(8) << 48 | 8;
	range[3] = UINT64_C(16) << 48 | 64;
	assert_true(ata(e, 0x06, 1, 0, 1, 512));
	assert_int_equal(pread(e->fd, back, 512, 8 * 512), 512);
	assert_int_equal(back[0], 0);
	assert_int_equal(pread(e->fd, back, 512, 64 * 512), 512);
	assert_int_equal(back[511], 0);
	assert_int_equal(pread(e->fd, back, 512, 0), 512);
	assert_int_equal(back[0], 0x55);
	range[1] = UINT64_C(1) << 48 | 16384;
	assert_fails(e, ata(e, 0x06, 1, 0, 1, 512), 0x10);
	assert_fails(e, ata(e, 0x06, 0, 0, 1, 512), 4);
	assert_fails(e, ata(e, 0x06, 1, 0, 0, 512), 4);
	assert_fails(e, ata(e, 0x06, 1, 0, 9, 4608), 4);
	stop(e);
}

static void queue(
    struct env *e, unsigned slot, bool write, uint64_t lba, uint16_t count)
{
	uint8_t *t = header(e, slot, 0, 1);

	t[2] = write ? 0x61 : 0x60;
	lba48(t, lba, (uint16_t)(slot << 3));
	t[3] = (uint8_t)count;
	t[11] = (uint8_t)(count >> 8);
	set_prd(e, slot, 0, DATA + slot * 0x10000, count * 512u);
}

static void test_ncq(void **state)
{
	struct env *e = start("ahci-hd,IMG", 0);

	(void)state;
	for (unsigned s = 0; s < 32; s++) {
		memset(fake_ram(&e->f, DATA + s * 0x10000), (int)s + 1, 4096);
		queue(e, s, true, s * 8, 8);
	}
	pwr(e, P_SACT, 0xffffffff);
	pwr(e, P_CI, 0xffffffff);
	assert_true(wait_clear(e, P_SACT, 0xffffffff));
	assert_int_equal(prd(e, P_CI), 0);
	for (unsigned s = 0; s < 32; s++) {
		uint8_t byte;

		assert_int_equal(pread(e->fd, &byte, 1, s * 4096 + 4095), 1);
		assert_int_equal(byte, s + 1);
		memset(fake_ram(&e->f, DATA + s * 0x10000), 0, 4096);
		queue(e, s, false, s * 8, 8);
	}
	assert_int_equal(prd(e, P_IS) & 8, 8);
	assert_int_equal(((uint8_t *)fake_ram(&e->f, RXFIS + 0x58))[0], 0xa1);
	pwr(e, P_SACT, 0xffffffff);
	pwr(e, P_CI, 0xffffffff);
	assert_true(wait_clear(e, P_SACT, 0xffffffff));
	for (unsigned s = 0; s < 32; s++)
		assert_int_equal(
		    *(uint8_t *)fake_ram(&e->f, DATA + s * 0x10000), s + 1);
	/* One fails; the log names it. */
	queue(e, 5, false, 99999999, 8);
	pwr(e, P_SACT, 1 << 5);
	pwr(e, P_CI, 1 << 5);
	wait_clear(e, P_SACT, 1 << 5);
	assert_int_equal(prd(e, P_IS) & BIT(30), BIT(30));
	assert_int_equal(prd(e, P_SACT), 1 << 5);
	recover(e);
	assert_int_equal(prd(e, P_SACT), 0);
	assert_true(ata(e, 0x2f, 0, 0x10, 1, 512));
	assert_int_equal(((uint8_t *)fake_ram(&e->f, DATA))[0], 5);
	assert_int_equal(((uint8_t *)fake_ram(&e->f, DATA))[3] & 0x10, 0x10);
	/* A tag that is not the slot's. */
	queue(e, 6, false, 0, 8);
	((uint8_t *)fake_ram(&e->f, TABLE + 6 * 0x10000))[12] = 7 << 3;
	pwr(e, P_SACT, 1 << 6);
	pwr(e, P_CI, 1 << 6);
	assert_fails(e, wait_clear(e, P_SACT, 1 << 6), 4);
	stop(e);
}

static void test_reset_in_flight(void **state)
{
	struct env *e = start("ahci-hd,IMG", 0);

	(void)state;
	for (unsigned round = 0; round < 12; round++) {
		for (unsigned s = 0; s < 32; s++)
			queue(e, s, s & 1, s * 8, 120);
		pwr(e, P_SACT, 0xffffffff);
		pwr(e, P_CI, 0xffffffff);
		if (round % 3 == 0) {
			pwr(e, P_CMD, 0x10);
		} else if (round % 3 == 1) {
			pwr(e, P_SCTL, 1);
			pwr(e, P_SCTL, 0);
		} else {
			wr(e, 4, 0x80000001);
			wr(e, 4, 0x80000002);
		}
		assert_int_equal(prd(e, P_SACT), 0);
		pwr(e, P_IS, 0xffffffff);
		fake_poll(&e->f);
		assert_int_equal(prd(e, P_IS), 0);
		start_port(e);
		assert_true(ata(e, 0x25, 0, 0, 8, 4096));
	}
	stop(e);
}

static void test_hostile(void **state)
{
	struct env *e = start("ahci-hd,IMG", 0);
	static const struct {
		uint64_t addr;
		uint32_t len;
	} bad[] = { { 64 * MIB, 512 }, { 64 * MIB - 256, 512 },
		{ UINT64_MAX - 15, 512 }, { 0xc0000000, 512 },
		{ 0xfee00000, 512 } };

	(void)state;
	/* Data outside memory, and in a BAR of our own. */
	for (unsigned i = 0; i <= ARRAY_SIZE(bad); i++) {
		uint8_t *t = header(e, 0, 0, 1);

		t[2] = 0x25;
		lba48(t, 0, 1);
		if (i < ARRAY_SIZE(bad))
			set_prd(e, 0, 0, bad[i].addr, bad[i].len);
		else
			set_prd(e, 0, 0, e->b, 512);
		pwr(e, P_CI, 1);
		assert_int_equal(prd(e, P_IS) & BIT(28), BIT(28));
		assert_fails(e, wait_clear(e, P_CI, 1), 4);
	}
	/* 65535 pieces of a byte; more pieces than fit below the end of memory. */
	uint8_t *t = header(e, 0, 0, 65535);

	t[2] = 0x25;
	lba48(t, 0, 16384);
	for (unsigned i = 0; i < 65535; i++)
		set_prd(e, 0, i, DATA, 1);
	pwr(e, P_CI, 1);
	assert_fails(e, wait_clear(e, P_CI, 1), 4);
	/* List, tables and FIS area outside memory. */
	pwr(e, 0x04, 0x10);
	pwr(e, P_CI, 1);
	assert_int_equal(prd(e, P_IS) & BIT(29), BIT(29));
	pwr(e, 0x04, 0);
	recover(e);
	header(e, 0, 0, 0);
	((uint32_t *)fake_ram(&e->f, LIST))[3] = 0xffffffff;
	pwr(e, P_CI, 1);
	assert_int_equal(prd(e, P_IS) & BIT(29), BIT(29));
	recover(e);
	pwr(e, 0x0c, 0xffffffff);
	ata(e, 0xec, 0, 0, 0, 512);
	assert_int_equal(prd(e, P_IS) & BIT(29), BIT(29));
	pwr(e, 0x0c, 0);
	recover(e);
	/* The list in its own data: it overwrites itself while it runs. */
	t = header(e, 0, 0, 1);
	t[2] = 0x25;
	lba48(t, 0, 8);
	set_prd(e, 0, 0, LIST, 4096);
	pwr(e, P_CI, 1);
	wait_clear(e, P_CI, 1);
	recover(e);
	/* Bus mastering off: no memory is touched. */
	fake_cfg_write(&e->f, 0, 4, 0, 4, 2, 2);
	header(e, 0, 0, 0);
	pwr(e, P_CI, 1);
	assert_int_equal(prd(e, P_IS) & BIT(29), BIT(29));
	fake_cfg_write(&e->f, 0, 4, 0, 4, 2, 6);
	recover(e);
	/* Every command and feature. */
	for (unsigned command = 0; command < 256; command++)
		for (unsigned feature = 0; feature < 256; feature += 5) {
			ata(e, (uint8_t)command, (uint8_t)feature, feature * 77, 1,
			    512);
			recover(e);
		}
	assert_true(ata(e, 0xec, 0, 0, 0, 512));
	stop(e);
}

static bool packet(struct env *e, const uint8_t *cdb, unsigned n, uint32_t len)
{
	uint8_t *t = header(e, 0, 1 << 5, len > 0 ? 1 : 0);

	t[2] = 0xa0;
	t[3] = 1;
	memcpy(t + 0x40, cdb, n);
	if (len > 0)
		set_prd(e, 0, 0, DATA, len);
	pwr(e, P_CI, 1);
	return wait_clear(e, P_CI, 1);
}

#define PACKET(e, len, ...) packet(e, (const uint8_t[16]){ __VA_ARGS__ }, 16, len)

static void assert_sense(struct env *e, bool ok, uint8_t key, uint8_t asc)
{
	uint8_t *d = fake_ram(&e->f, DATA);

	assert_false(ok);
	assert_int_equal(prd(e, P_TFD) >> 12 & 15, key);
	recover(e);
	assert_true(PACKET(e, 18, 0x03, 0, 0, 0, 18));
	assert_int_equal(d[2], key);
	assert_int_equal(d[12], asc);
}

static void test_cd(void **state)
{
	struct env *e = start("ahci,cd:IMG", 0);
	uint8_t *d = fake_ram(&e->f, DATA);

	(void)state;
	assert_int_equal(pwrite(e->fd, "CD001", 5, 16 * 2048 + 1), 5);
	assert_int_equal(prd(e, P_SIG), 0xeb140101);
	assert_true(ata(e, 0xa1, 0, 0, 0, 512));
	assert_int_equal(*(uint16_t *)d, 0x85c0);
	assert_fails(e, ata(e, 0xec, 0, 0, 0, 512), 4);
	assert_true(PACKET(e, 36, 0x12, 0, 0, 0, 36));
	assert_memory_equal(d + 8, "BHYVE   BHYVE DVD-ROM", 21);
	assert_true(PACKET(e, 0, 0x00));
	assert_true(PACKET(e, 8, 0x25));
	assert_memory_equal(d, "\0\0\x0f\xff\0\0\x08\0", 8);
	assert_true(PACKET(e, 4096, 0x28, 0, 0, 0, 0, 16, 0, 0, 2));
	assert_memory_equal(d + 1, "CD001", 5);
	assert_true(PACKET(e, 2048, 0xa8, 0, 0, 0, 0, 16, 0, 0, 0, 1));
	assert_true(PACKET(e, 0, 0x28));
	assert_true(PACKET(e, 20, 0x43, 0, 0, 0, 0, 0, 0, 0, 20));
	assert_int_equal(d[1], 18);
	assert_int_equal(d[14], 0xaa);
	assert_true(PACKET(e, 12, 0x43, 2, 1, 0, 0, 0, 0, 0, 12));
	assert_true(PACKET(e, 8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8));
	assert_int_equal(d[5], 2);
	assert_true(PACKET(e, 64, 0x46, 0, 0, 0, 0, 0, 0, 0, 64));
	assert_int_equal(d[7], 8);
	assert_true(PACKET(e, 64, 0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 64));
	assert_true(PACKET(e, 34, 0x51, 0, 0, 0, 0, 0, 0, 0, 34));
	assert_true(PACKET(e, 16, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16));
	/* Locked: stays in. Then out, and in again. */
	assert_true(PACKET(e, 0, 0x1e, 0, 0, 0, 1));
	assert_sense(e, PACKET(e, 0, 0x1b, 0, 0, 0, 2), 5, 0x53);
	assert_true(PACKET(e, 0, 0x1e, 0, 0, 0, 0));
	assert_true(PACKET(e, 0, 0x1b, 0, 0, 0, 2));
	assert_sense(e, PACKET(e, 0, 0x00), 2, 0x3a);
	assert_sense(e, PACKET(e, 2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), 2, 0x3a);
	assert_true(PACKET(e, 0, 0x1b, 0, 0, 0, 3));
	assert_true(PACKET(e, 0, 0x00));
	/* Out of range, wrapping, unknown, no room. */
	assert_sense(e, PACKET(e, 2048, 0x28, 0, 0, 0, 0x10, 0, 0, 0, 1), 5, 0x21);
	assert_sense(e,
	    PACKET(
		e, 2048, 0xa8, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
	    5, 0x21);
	assert_sense(e, PACKET(e, 0, 0xff), 5, 0x20);
	assert_fails(e, PACKET(e, 2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 2), 4);
	for (unsigned op = 0; op < 256; op++) {
		PACKET(e, 64, (uint8_t)op, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		    0xff, 0xff);
		recover(e);
		PACKET(e, 0, (uint8_t)op, 1, 1, 1, 1, 1, 1, 1, 1, 1);
		recover(e);
	}
	stop(e);
}

static void test_empty_drive(void **state)
{
	struct env *e = start("ahci-cd", 0);

	(void)state;
	assert_int_equal(prd(e, P_SIG), 0xeb140101);
	assert_sense(e, PACKET(e, 0, 0x00), 2, 0x3a);
	assert_sense(e, PACKET(e, 8, 0x25), 2, 0x3a);
	assert_sense(e, PACKET(e, 2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), 2, 0x3a);
	assert_true(ata(e, 0xe0, 0, 0, 0, 0));
	for (unsigned op = 0; op < 256; op++) {
		PACKET(e, 64, (uint8_t)op, 1, 0, 0, 64, 0, 0, 0, 64);
		recover(e);
		ata(e, (uint8_t)op, 0, 0, 1, 512);
		recover(e);
	}
	stop(e);
}

static void test_msi(void **state)
{
	struct env *e = start("ahci-hd,IMG", 0);

	(void)state;
	assert_int_equal(fake_cfg_read(&e->f, 0, 4, 0, 0x40, 1), 5);
	fake_cfg_write(&e->f, 0, 4, 0, 0x44, 4, 0xfee00000);
	fake_cfg_write(&e->f, 0, 4, 0, 0x4c, 2, 0x51);
	fake_cfg_write(&e->f, 0, 4, 0, 0x42, 2, 1);
	assert_true(ata(e, 0xec, 0, 0, 0, 512));
	assert_int_equal(e->f.msis, 1);
	assert_int_equal(e->f.msi_data, 0x51);
	/* Cleared at IS only while it still pends: it comes again. */
	wr(e, 8, 1);
	assert_int_equal(e->f.msis, 2);
	pwr(e, P_IS, 0xffffffff);
	wr(e, 8, 1);
	assert_int_equal(e->f.msis, 2);
	assert_int_equal(rd(e, 8), 0);
	assert_false(e->f.gsi[16]);
	stop(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_identify),
		cmocka_unit_test(test_read_write),
		cmocka_unit_test(test_trim),
		cmocka_unit_test(test_ncq),
		cmocka_unit_test(test_reset_in_flight),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_cd),
		cmocka_unit_test(test_empty_drive),
		cmocka_unit_test(test_msi),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
