/*
 * virtio-net: frames of both directions through both register layouts, mergeable
 * buffers, what happens when there is no room, and drivers that break the rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "net_wire.h"
#include "virtio_driver.h"

#define MIB     (1024 * 1024)
#define RX_RING 0x100000u
#define TX_RING 0x120000u
#define RX_DATA 0x200000u
#define TX_DATA 0x300000u
#define V1      (UINT64_C(1) << 32)
#define MRG     (UINT64_C(1) << 15)
#define MTU     (UINT64_C(1) << 3)
#define OFFLOAD_FEATURES 0x3b83u /* checksums, TSO and ECN, both ways */

struct env {
	struct fake f;
	struct vdriver rx, tx;
	unsigned hdr;
};

static uint8_t pattern[NET_FRAME_MAX];

static struct env *make(const char *options, unsigned offloads)
{
	struct env *e = calloc(1, sizeof(*e));
	char text[128];

	assert_non_null(e);
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 7 + i / 256);
	wire_offloads = offloads;
	assert_int_equal(fake_create(&e->f, 16 * MIB), 0);
	assert_int_equal(config_set(e->f.m.cfg, "name", "vm"), 0);
	snprintf(text, sizeof(text), "3,virtio-net,wire0%s", options);
	assert_int_equal(fake_slot(&e->f, text), 0);
	assert_int_equal(fake_start(&e->f), 0);
	return e;
}

static void driver(struct env *e, bool modern, uint64_t features, unsigned size)
{
	assert_true(vd_begin(
	    &e->rx, &e->f, 3, modern, features | (modern ? V1 : 0)));
	e->tx = e->rx;
	assert_true(vd_queue(&e->rx, 0, RX_RING, size));
	assert_true(vd_queue(&e->tx, 1, TX_RING, size));
	vd_ready(&e->rx);
	e->hdr = modern || (features & MRG) != 0 ? 12 : 10;
}

static struct env *start(bool modern, uint64_t features)
{
	struct env *e = make("", 15);

	driver(e, modern, features, 64);
	return e;
}

static void stop(struct env *e)
{
	fake_destroy(&e->f);
	assert_null(wire);
	free(e);
}

/* The driver gives a buffer of len bytes, descriptor i. */
static void give(struct env *e, unsigned i, uint32_t len)
{
	memset(fake_ram(&e->f, RX_DATA + i * 0x20000), 0xee, len);
	vd_desc(&e->rx, i, RX_DATA + i * 0x20000, len, VD_WRITE, 0);
	vd_offer(&e->rx, (uint16_t)i);
}

/* Sends header and frame as two buffers, like most drivers. */
static void transmit(struct env *e, const struct net_hdr *hdr, uint32_t len)
{
	uint16_t used = e->tx.used16[1];

	memcpy(fake_ram(&e->f, TX_DATA), hdr, 12);
	memcpy(fake_ram(&e->f, TX_DATA + 64), pattern, len);
	vd_desc(&e->tx, 0, TX_DATA, e->hdr, VD_NEXT, 1);
	vd_desc(&e->tx, 1, TX_DATA + 64, len, 0, 0);
	vd_offer(&e->tx, 0);
	vd_kick(&e->tx);
	assert_true(vd_wait_used(&e->tx, (uint16_t)(used + 1)));
}

static void both_ways(bool modern, uint64_t features)
{
	struct env *e = start(modern, features);
	struct net_hdr hdr = { .flags = 1, .csum_start = 34, .csum_offset = 6 };
	const uint8_t *got = fake_ram(&e->f, RX_DATA);
	const struct net_hdr *h = (const struct net_hdr *)got;

	transmit(e, &hdr, 1514);
	assert_int_equal(wire->nsent, 1);
	assert_int_equal(wire_sent(0)->len, 1514);
	assert_int_equal(wire_sent(0)->hdr.csum_start, 34);
	assert_int_equal(wire_sent(0)->hdr.num_buffers, 0);
	assert_memory_equal(wire_sent(0)->data, pattern, 1514);

	/* A frame that came before there were buffers, then one after. */
	wire_put(NULL, pattern, 60);
	fake_poll(&e->f);
	assert_int_equal(e->rx.used16[1], 0);
	give(e, 0, 2048);
	give(e, 1, 2048);
	vd_kick(&e->rx);
	assert_true(wire->listening);
	wire_put(&(struct net_hdr){ .flags = 2, .num_buffers = 77 }, pattern, 1514);
	assert_int_equal(e->rx.used16[1], 2);
	assert_int_equal(e->rx.used[1], e->hdr + 60);
	assert_memory_equal(got + e->hdr, pattern, 60);
	assert_int_equal(e->rx.used[3], e->hdr + 1514);
	got += 0x20000;
	h = (const struct net_hdr *)got;
	assert_int_equal(h->flags, 2);
	if (e->hdr == 12)
		assert_int_equal(h->num_buffers, 1);
	assert_memory_equal(got + e->hdr, pattern, 1514);
	assert_int_equal(got[e->hdr + 1514], 0xee);
	stop(e);
}

static void test_legacy(void **state)
{
	(void)state;
	both_ways(false, 0);
	both_ways(false, MRG);
}

static void test_modern(void **state)
{
	(void)state;
	both_ways(true, 0);
	both_ways(true, MRG);
	both_ways(true, MRG | UINT64_C(1) << 29);
	wire_quick = true;
	both_ways(true, MRG | UINT64_C(1) << 29);
	wire_quick = false;
}

static void test_identity(void **state)
{
	struct env *e = make(",mac=2:0:5E:10:0:aB,mtu=9000", 0);
	uint64_t b = fake_bar(&e->f, 3, 4);
	static const uint8_t mac[] = { 2, 0, 0x5e, 0x10, 0, 0xab };

	(void)state;
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 0, 4), 0x10001af4);
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 8, 4) >> 16, 0x0200);
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 0x2c, 4), 0x00011af4);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(fake_read(&e->f, b + 0x2000 + i, 1), mac[i]);
	assert_int_equal(fake_read(&e->f, b + 0x2006, 2), 1);
	assert_int_equal(fake_read(&e->f, b + 0x200a, 2), 9000);
	/* No offloads in the backend, none offered. */
	fake_write(&e->f, b, 4, 0);
	assert_int_equal(fake_read(&e->f, b + 4, 4),
	    1u << 3 | 1u << 5 | 1u << 15 | 1u << 16 | 1u << 28 | 1u << 29);
	stop(e);
	/* bhyve's: 00:a0:98 and the MD5 of "3-0-vm". */
	e = make("", 15);
	b = fake_bar(&e->f, 3, 4);
	assert_int_equal(fake_read(&e->f, b + 0x2000, 4), 0x0498a000);
	assert_int_equal(fake_read(&e->f, b + 0x2004, 2), 0x5a74);
	fake_write(&e->f, b, 4, 0);
	assert_int_equal(fake_read(&e->f, b + 4, 4),
	    OFFLOAD_FEATURES | 1u << 5 | 1u << 15 | 1u << 16 | 1u << 28 |
		1u << 29);
	stop(e);
}

static void test_offloads(void **state)
{
	struct env *e = make("", 15);

	(void)state;
	driver(e, true, MRG | OFFLOAD_FEATURES, 64);
	assert_int_equal(wire->offloads, 15);
	vd_set_status(&e->rx, 0);
	assert_int_equal(wire->offloads, 0);
	/* Segmentation without checksums is none. */
	driver(e, true, MRG | (OFFLOAD_FEATURES & ~2u), 64);
	assert_int_equal(wire->offloads, 0);
	driver(e, false, 1u << 1 | 1u << 7, 64);
	assert_int_equal(wire->offloads, NET_CSUM | NET_TSO4);
	stop(e);
}

static void test_mergeable(void **state)
{
	struct env *e = start(true, MRG | OFFLOAD_FEATURES);
	const uint8_t *got = fake_ram(&e->f, RX_DATA);

	(void)state;
	for (unsigned i = 0; i < 40; i++)
		give(e, i, 2000);
	vd_kick(&e->rx);
	/* 12 + 5000 bytes: three buffers, seen by the driver at once. */
	wire_put(NULL, pattern, 5000);
	assert_int_equal(e->rx.used16[1], 3);
	assert_int_equal(((const struct net_hdr *)got)->num_buffers, 3);
	assert_int_equal(e->rx.used[1], 2000);
	assert_int_equal(e->rx.used[3], 2000);
	assert_int_equal(e->rx.used[5], 1012);
	assert_memory_equal(got + 12, pattern, 1988);
	assert_memory_equal(got + 0x20000, pattern + 1988, 2000);
	assert_memory_equal(got + 0x40000, pattern + 3988, 1012);
	/* 37 left: the longest frame takes 33. */
	wire_put(NULL, pattern, 65549);
	assert_int_equal(e->rx.used16[1], 36);
	assert_int_equal(
	    ((const struct net_hdr *)(got + 3 * 0x20000))->num_buffers, 33);
	stop(e);
}

static void test_waits_for_room(void **state)
{
	struct env *e = start(true, MRG | OFFLOAD_FEATURES);
	const uint8_t *got = fake_ram(&e->f, RX_DATA);

	(void)state;
	give(e, 0, 2000);
	vd_kick(&e->rx);
	wire_put(NULL, pattern, 5000);
	wire_put(NULL, pattern, 100);
	/* Neither delivered nor lost, nor is anything more taken. */
	assert_int_equal(e->rx.used16[1], 0);
	assert_false(wire->listening);
	assert_int_equal(wire->nin, 1);
	give(e, 1, 2000);
	vd_kick(&e->rx);
	assert_int_equal(e->rx.used16[1], 0);
	give(e, 2, 2000);
	give(e, 3, 2000);
	vd_kick(&e->rx);
	assert_int_equal(e->rx.used16[1], 4);
	assert_int_equal(((const struct net_hdr *)got)->num_buffers, 3);
	assert_memory_equal(got + 12, pattern, 1988);
	assert_memory_equal(got + 0x20000, pattern + 1988, 2000);
	assert_memory_equal(got + 0x40000, pattern + 3988, 1012);
	assert_memory_equal(got + 0x60000 + 12, pattern, 100);
	/* A driver that has no more: the frame is given up, the next one comes. */
	give(e, 4, 2000);
	vd_kick(&e->rx);
	wire_put(NULL, pattern, 5000);
	wire_put(NULL, pattern, 60);
	assert_true(vd_wait_used(&e->rx, 5));
	assert_int_equal(e->rx.used[9], 72);
	stop(e);
}

static void test_too_long(void **state)
{
	struct env *e = start(true, 0);

	(void)state;
	/* Without mergeable buffers a long frame is lost, and the buffer is not. */
	give(e, 0, 1000);
	vd_kick(&e->rx);
	wire_put(NULL, pattern, 1514);
	assert_int_equal(e->rx.used16[1], 0);
	wire_put(NULL, pattern, 900);
	assert_int_equal(e->rx.used16[1], 1);
	assert_int_equal(e->rx.used[1], 912);
	stop(e);
}

static void test_pieces(void **state)
{
	struct env *e = start(true, 0);
	struct net_hdr hdr = { 0 };

	(void)state;
	/* A buffer in four pieces, the header cut in the middle. */
	for (unsigned i = 0; i < 4; i++)
		vd_desc(&e->rx, i, RX_DATA + i * 100, i == 0 ? 5 : 40,
		    VD_WRITE | (i < 3 ? VD_NEXT : 0), (uint16_t)(i + 1));
	vd_offer(&e->rx, 0);
	vd_kick(&e->rx);
	wire_put(NULL, pattern, 100);
	assert_int_equal(e->rx.used16[1], 1);
	assert_int_equal(e->rx.used[1], 112);
	assert_memory_equal(fake_ram(&e->f, RX_DATA + 107), pattern, 33);
	assert_memory_equal(fake_ram(&e->f, RX_DATA + 200), pattern + 33, 40);
	assert_memory_equal(fake_ram(&e->f, RX_DATA + 300), pattern + 73, 27);
	/* A frame in one piece with its header, and one in 64 of one byte. */
	memcpy(fake_ram(&e->f, TX_DATA), &hdr, 12);
	memcpy(fake_ram(&e->f, TX_DATA + 12), pattern, 100);
	vd_desc(&e->tx, 0, TX_DATA, 112, 0, 0);
	vd_offer(&e->tx, 0);
	vd_kick(&e->tx);
	assert_true(vd_wait_used(&e->tx, 1));
	assert_int_equal(wire_sent(0)->len, 100);
	assert_memory_equal(wire_sent(0)->data, pattern, 100);
	for (unsigned i = 0; i < 64; i++)
		vd_desc(&e->tx, i, TX_DATA + i, 1, i < 63 ? VD_NEXT : 0,
		    (uint16_t)(i + 1));
	vd_offer(&e->tx, 0);
	vd_kick(&e->tx);
	assert_true(vd_wait_used(&e->tx, 2));
	assert_int_equal(wire_sent(0)->len, 52);
	assert_memory_equal(wire_sent(0)->data, pattern, 52);
	stop(e);
}

static void test_whole_ring(void **state)
{
	struct env *e = make("", 15);

	(void)state;
	/* Thousands of frames at once, in both directions, wrap everything. */
	driver(e, true, MRG, 1024);
	for (unsigned round = 0; round < 70; round++) {
		for (unsigned i = 0; i < 1024; i++) {
			vd_desc(&e->tx, i, TX_DATA, 12 + 60, 0, 0);
			vd_offer(&e->tx, (uint16_t)i);
		}
		vd_kick(&e->tx);
		assert_true(vd_wait_used(&e->tx, (uint16_t)((round + 1) * 1024)));
	}
	assert_int_equal(wire->nsent, 70 * 1024);
	for (unsigned n = 0; n < 5000; n++) {
		vd_desc(&e->rx, n % 1024, RX_DATA + n % 16 * 64, 64, VD_WRITE, 0);
		vd_offer(&e->rx, (uint16_t)(n % 1024));
		if (n < 20)
			continue;
		wire_put(NULL, pattern, n % 2 != 0 ? 40 : 100);
		vd_kick(&e->rx);
		if (n % 2 == 0)
			continue;
		vd_desc(&e->rx, n % 1024, RX_DATA, 64, VD_WRITE, 0);
		vd_offer(&e->rx, (uint16_t)(n % 1024));
	}
	assert_int_equal(vd_status(&e->rx), 15);
	assert_int_equal(e->rx.used16[1], (5000 - 20) / 2 * 3);
	stop(e);
}

static void test_link(void **state)
{
	struct env *e = start(true, MRG | UINT64_C(1) << 16);
	struct net_hdr hdr = { 0 };
	uint64_t b = e->rx.mmio;

	(void)state;
	fake_read(&e->f, b + 0x1000, 1);
	net_link_changed(&wire->net, false);
	assert_int_equal(fake_read(&e->f, b + 0x2006, 2), 0);
	assert_int_equal(fake_read(&e->f, b + 0x1000, 1) & 2, 2);
	/* Frames are lost, buffers come back. */
	transmit(e, &hdr, 60);
	assert_int_equal(wire->nsent, 0);
	give(e, 0, 2000);
	vd_kick(&e->rx);
	assert_false(wire->listening);
	net_link_changed(&wire->net, true);
	assert_int_equal(fake_read(&e->f, b + 0x2006, 2), 1);
	vd_kick(&e->rx);
	wire_put(NULL, pattern, 60);
	assert_int_equal(e->rx.used16[1], 1);
	stop(e);
}

static void test_reset(void **state)
{
	struct env *e = start(true, MRG);

	(void)state;
	/* Chains are held and a frame waits; all that is forgotten. */
	give(e, 0, 2000);
	vd_kick(&e->rx);
	wire_put(NULL, pattern, 5000);
	vd_set_status(&e->rx, 0);
	assert_false(wire->listening);
	driver(e, true, 0, 64);
	give(e, 5, 2000);
	vd_kick(&e->rx);
	wire_put(NULL, pattern, 60);
	assert_int_equal(e->rx.used16[1], 1);
	assert_int_equal(e->rx.used[0], 5);
	/* A reset between the kick and the event loop. */
	vd_desc(&e->tx, 0, TX_DATA, 100, 0, 0);
	vd_offer(&e->tx, 0);
	vd_kick(&e->tx);
	vd_set_status(&e->rx, 0);
	fake_poll(&e->f);
	assert_int_equal(wire->nsent, 0);
	stop(e);
}

/* Offers descriptor 0 of queue q and kicks; whether the device asks for a reset. */
static bool breaks(struct env *e, struct vdriver *q)
{
	vd_offer(q, 0);
	vd_kick(q);
	for (unsigned i = 0; i < 3; i++)
		fake_poll(&e->f);
	wire_put(NULL, pattern, 60);
	return (vd_status(q) & 0x40) != 0;
}

static void test_hostile(void **state)
{
	struct env *e = start(true, MRG);

	(void)state;
	/* A frame without a whole header. */
	vd_desc(&e->tx, 0, TX_DATA, 11, 0, 0);
	assert_true(breaks(e, &e->tx));
	/* A receive buffer without room for a header. */
	driver(e, true, MRG, 64);
	vd_desc(&e->rx, 0, RX_DATA, 11, VD_WRITE, 0);
	assert_true(breaks(e, &e->rx));
	/* One that cannot be written to. */
	driver(e, true, MRG, 64);
	vd_desc(&e->rx, 0, RX_DATA, 2000, 0, 0);
	assert_true(breaks(e, &e->rx));
	/* Outside memory, and a chain that loops. */
	driver(e, true, MRG, 64);
	vd_desc(&e->rx, 0, 16 * MIB - 100, 2000, VD_WRITE, 0);
	assert_true(breaks(e, &e->rx));
	driver(e, true, MRG, 64);
	vd_desc(&e->tx, 0, TX_DATA, 100, VD_NEXT, 0);
	assert_true(breaks(e, &e->tx));
	/* Frames nobody can send are lost; the queue works on. */
	driver(e, true, MRG, 64);
	vd_desc(&e->tx, 0, TX_DATA, 12 + 13, 0, 0);
	assert_false(breaks(e, &e->tx));
	vd_desc(&e->tx, 0, TX_DATA, 12 + NET_FRAME_MAX + 1, 0, 0);
	assert_false(breaks(e, &e->tx));
	vd_desc(&e->tx, 0, TX_DATA, 12, 0, 0);
	assert_false(breaks(e, &e->tx));
	vd_desc(&e->tx, 0, TX_DATA, 2000, VD_WRITE, 0);
	assert_true(breaks(e, &e->tx));
	assert_int_equal(wire->nsent, 0);
	stop(e);
}

static void test_bus_master_off(void **state)
{
	struct env *e = start(true, MRG);

	(void)state;
	fake_cfg_write(&e->f, 0, 3, 0, 4, 2, 3);
	vd_desc(&e->tx, 0, TX_DATA, 100, 0, 0);
	vd_offer(&e->tx, 0);
	vd_kick(&e->tx);
	for (unsigned i = 0; i < 3; i++)
		fake_poll(&e->f);
	assert_int_equal(wire->nsent, 0);
	fake_cfg_write(&e->f, 0, 3, 0, 4, 2, 7);
	vd_kick(&e->tx);
	assert_true(vd_wait_used(&e->tx, 1));
	assert_int_equal(wire->nsent, 1);
	stop(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_legacy),
		cmocka_unit_test(test_modern),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_offloads),
		cmocka_unit_test(test_mergeable),
		cmocka_unit_test(test_waits_for_room),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_whole_ring),
		cmocka_unit_test(test_link),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_bus_master_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
