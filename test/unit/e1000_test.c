/*
 * e1000: what a driver finds (EEPROM, PHY), both rings, checksums, segmentation,
 * filters, interrupts, and drivers that set nonsense.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "bhyve/net/e1000.h"
#include "fake_machine.h"
#include "net_wire.h"

#define MIB     (1024 * 1024)
#define RX_RING 0x10000u
#define TX_RING 0x20000u
#define RX_DATA 0x100000u
#define TX_DATA 0x300000u
#define DESCS   16u
#define EOP     (1u << 24)
#define IFCS    (2u << 24)
#define RS      (8u << 24)
#define DEXT    (0x20u << 24)
#define DATA    (DEXT | 1u << 20)

struct env {
	struct fake f;
	uint64_t bar;
	uint32_t rdt, tdt;
};

static const uint8_t own[6] = { 0, 0xa0, 0x98, 1, 2, 3 };
static uint8_t pattern[NET_FRAME_MAX];

static uint32_t rd(struct env *e, uint32_t at)
{
	return (uint32_t)fake_read(&e->f, e->bar + at, 4);
}

static void wr(struct env *e, uint32_t at, uint32_t v)
{
	fake_write(&e->f, e->bar + at, 4, v);
}

static struct env *make(void)
{
	struct env *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 7 + i / 256);
	memcpy(pattern, own, 6);
	pattern[12] = 0x12;
	assert_int_equal(fake_create(&e->f, 8 * MIB), 0);
	assert_int_equal(
	    fake_slot(&e->f, "3,e1000,wire0,mac=00:a0:98:01:02:03"), 0);
	assert_int_equal(fake_start(&e->f), 0);
	e->bar = fake_bar(&e->f, 3, 0);
	return e;
}

/* Both rings of DESCS, receive buffers of 2048 bytes in all but one of them. */
static void driver(struct env *e)
{
	uint64_t *d = fake_ram(&e->f, RX_RING);

	memset(d, 0, DESCS * 16);
	memset(fake_ram(&e->f, TX_RING), 0, DESCS * 16);
	for (unsigned i = 0; i < DESCS; i++)
		d[2 * i] = RX_DATA + i * 2048;
	wr(e, R_RDBAL, RX_RING);
	wr(e, R_RDBAH, 0);
	wr(e, R_RDLEN, DESCS * 16);
	wr(e, R_RDH, 0);
	wr(e, R_RDT, e->rdt = DESCS - 1);
	wr(e, R_TDBAL, TX_RING);
	wr(e, R_TDBAH, 0);
	wr(e, R_TDLEN, DESCS * 16);
	wr(e, R_TDH, 0);
	wr(e, R_TDT, e->tdt = 0);
	wr(e, R_TCTL, 2);
	wr(e, R_RCTL, 1u << 1 | 1u << 15 | 1u << 26);
	wr(e, R_IMS, 0xffffffff);
	rd(e, R_ICR);
}

static struct env *start(void)
{
	struct env *e = make();

	driver(e);
	return e;
}

static void stop(struct env *e)
{
	fake_destroy(&e->f);
	assert_null(wire);
	free(e);
}

static void tx_desc(struct env *e, uint64_t addr, uint32_t w2, uint32_t w3)
{
	struct e1000_desc d = { addr, w2, w3 };

	memcpy(fake_ram(&e->f, TX_RING + e->tdt * 16), &d, 16);
	e->tdt = (e->tdt + 1) % DESCS;
}

/* Rings the bell; whether the ring was worked off. */
static bool go(struct env *e)
{
	wr(e, R_TDT, e->tdt);
	for (unsigned i = 0; i < 20 && rd(e, R_TDH) != e->tdt; i++)
		fake_poll(&e->f);
	return rd(e, R_TDH) == e->tdt;
}

static uint8_t *rx_desc(struct env *e, unsigned i)
{
	return fake_ram(&e->f, RX_RING + i * 16);
}

static void test_identity(void **state)
{
	struct env *e = make();
	uint16_t word[64], sum = 0;

	(void)state;
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 0, 4), 0x100f8086);
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 8, 4) >> 16, 0x0200);
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 0x2c, 4), 0x10088086);
	assert_int_equal(fake_cfg_read(&e->f, 0, 3, 0, 0x18, 4) & 1, 1);
	for (unsigned i = 0; i < 64; i++) {
		wr(e, R_EERD, i << 8 | 1);
		assert_int_equal(rd(e, R_EERD) & 0xffff, i << 8 | 0x10);
		word[i] = (uint16_t)(rd(e, R_EERD) >> 16);
		sum = (uint16_t)(sum + word[i]);
	}
	assert_int_equal(sum, 0xbaba);
	assert_memory_equal(word, own, 6);
	/* The same, bit by bit: start and opcode 110, the address, the word. */
	for (unsigned i = 0; i < 64; i++) {
		uint32_t command = 6u << 6 | i, got = 0;

		wr(e, R_EECD, 0x40);
		assert_int_equal(rd(e, R_EECD), 0x1c0);
		wr(e, R_EECD, 0x42);
		for (unsigned b = 0; b < 9; b++) {
			uint32_t in = command >> (8 - b) & 1 ? 4 : 0;

			wr(e, R_EECD, 0x42 | in);
			wr(e, R_EECD, 0x43 | in);
			wr(e, R_EECD, 0x42 | in);
		}
		assert_int_equal(rd(e, R_EECD) & 8, 0);
		for (unsigned b = 0; b < 16; b++) {
			wr(e, R_EECD, 0x43);
			got = got << 1 | (rd(e, R_EECD) >> 3 & 1);
			wr(e, R_EECD, 0x42);
		}
		assert_int_equal(got, word[i]);
	}
	/* The PHY: Marvell's, with link; at other addresses there is none. */
	wr(e, R_MDIC, 1u << 27 | 1u << 21 | 2u << 16);
	assert_int_equal(rd(e, R_MDIC) & 0x5000ffff, 0x10000141);
	wr(e, R_MDIC, 1u << 27 | 1u << 21 | 1u << 16);
	assert_int_equal(rd(e, R_MDIC) & 0x24, 0x24);
	wr(e, R_MDIC, 1u << 27 | 2u << 21 | 2u << 16);
	assert_int_equal(rd(e, R_MDIC) >> 30 & 1, 1);
	assert_int_equal(rd(e, R_STATUS) & 0x83, 0x83);
	/* Through the two ports. */
	uint16_t io = (uint16_t)fake_bar(&e->f, 3, 2);

	fake_out(&e->f, io, 4, R_RAL);
	assert_int_equal(fake_in(&e->f, (uint16_t)(io + 4), 4), 0x0198a000);
	stop(e);
}

static void test_receive(void **state)
{
	struct env *e = start();
	uint8_t *d = rx_desc(e, 0);

	(void)state;
	assert_true(wire->listening);
	wire_put(NULL, pattern, 1000);
	assert_int_equal(d[12] & 3, 3);
	assert_int_equal(d[8] | d[9] << 8, 1000);
	assert_memory_equal(fake_ram(&e->f, RX_DATA), pattern, 1000);
	assert_int_equal(rd(e, R_RDH), 1);
	assert_int_equal(rd(e, R_ICR) & I_RXT0, I_RXT0);
	assert_int_equal(rd(e, R_GPRC), 1);
	assert_int_equal(rd(e, R_GPRC), 0);
	/* Short ones are filled up; the check sequence when it is asked for. */
	wire_put(NULL, pattern, 20);
	assert_int_equal(rx_desc(e, 1)[8], 60);
	wr(e, R_RCTL, 1u << 1 | 1u << 15);
	wire_put(NULL, pattern, 1514);
	assert_int_equal(rx_desc(e, 2)[8] | rx_desc(e, 2)[9] << 8, 1518);
	/* Long ones only if allowed, and in several buffers. */
	wire_put(NULL, pattern, 5000);
	assert_int_equal(rd(e, R_RDH), 3);
	wr(e, R_RCTL, 1u << 1 | 1u << 5 | 1u << 26);
	wire_put(NULL, pattern, 5000);
	assert_int_equal(rd(e, R_RDH), 6);
	assert_int_equal(rx_desc(e, 3)[12] & 3, 1);
	assert_int_equal(rx_desc(e, 4)[12] & 3, 1);
	assert_int_equal(rx_desc(e, 5)[12] & 3, 3);
	assert_int_equal(rx_desc(e, 5)[8] | rx_desc(e, 5)[9] << 8, 5000 - 4096);
	assert_memory_equal(fake_ram(&e->f, RX_DATA + 3 * 2048), pattern, 5000);
	/* Nine left: five go, four do not hold 16000 bytes; then the ring is empty. */
	wire_put(NULL, pattern, 10000);
	assert_int_equal(rd(e, R_RDH), 11);
	wire_put(NULL, pattern, 16000);
	assert_int_equal(rd(e, R_RDH), 11);
	assert_int_equal(rd(e, R_ICR) & I_RXO, I_RXO);
	assert_int_equal(rd(e, R_MPC), 1);
	for (unsigned i = 0; i < 10; i++)
		wire_put(NULL, pattern, 100);
	assert_int_equal(rd(e, R_RDH), 15);
	assert_false(wire->listening);
	assert_int_equal(wire->nin, 6);
	wr(e, R_RDT, 14);
	assert_true(wire->listening);
	wire_put(NULL, pattern, 100);
	assert_int_equal(rd(e, R_RDH), 6);
	stop(e);
}

static bool taken(struct env *e, const uint8_t *to)
{
	uint32_t head = rd(e, R_RDH);
	uint8_t f[64];

	memcpy(f, pattern, sizeof(f));
	memcpy(f, to, 6);
	wire_put(NULL, f, sizeof(f));
	wr(e, R_RDT, (rd(e, R_RDH) + DESCS - 1) % DESCS);
	return rd(e, R_RDH) != head;
}

static void test_filter(void **state)
{
	static const uint8_t other[6] = { 2, 0, 0, 0, 0, 1 },
			     all[6] = { 255, 255, 255, 255, 255, 255 },
			     group[6] = { 1, 0, 0x5e, 0, 0x12, 0x34 };
	struct env *e = start();

	(void)state;
	assert_true(taken(e, own));
	assert_true(taken(e, all));
	assert_false(taken(e, other));
	assert_false(taken(e, group));
	/* Bits 47:36 of the address: 0x341. */
	wr(e, R_MTA + 0x341 / 32 * 4, 1u << (0x341 % 32));
	assert_true(taken(e, group));
	wr(e, R_RCTL, 1u << 1 | 3u << 12);
	assert_false(taken(e, group));
	wr(e, R_RCTL, 1u << 1 | 1u << 4);
	assert_true(taken(e, group));
	wr(e, R_RAL + 8, 2);
	wr(e, R_RAL + 12, 1u << 31 | 0x100);
	assert_true(taken(e, other));
	wr(e, R_RAL + 12, 0x100);
	assert_false(taken(e, other));
	wr(e, R_RCTL, 1u << 1 | 1u << 3);
	assert_true(taken(e, other));
	wr(e, R_RCTL, 0);
	assert_false(taken(e, own));
	stop(e);
}

static void test_vlan(void **state)
{
	struct env *e = start();
	uint8_t f[100];

	(void)state;
	memcpy(f, pattern, sizeof(f));
	memcpy(f + 12, "\x81\x00\x20\x65\x12\x34", 6); /* VLAN 101 */
	wr(e, R_RCTL, 1u << 1 | 1u << 18 | 1u << 26);
	wire_put(NULL, f, sizeof(f));
	assert_int_equal(rd(e, R_RDH), 0);
	wr(e, R_VFTA + 101 / 32 * 4, 1u << (101 % 32));
	wire_put(NULL, f, sizeof(f));
	assert_int_equal(rx_desc(e, 0)[8], 100);
	assert_int_equal(rx_desc(e, 0)[12] & 8, 0);
	/* Taken out of the frame. */
	wr(e, R_CTRL, 1u << 30);
	wire_put(NULL, f, sizeof(f));
	assert_int_equal(rx_desc(e, 1)[8], 96);
	assert_int_equal(rx_desc(e, 1)[12] & 8, 8);
	assert_int_equal(rx_desc(e, 1)[14] | rx_desc(e, 1)[15] << 8, 0x2065);
	assert_memory_equal(fake_ram(&e->f, RX_DATA + 2048), f, 12);
	assert_memory_equal(fake_ram(&e->f, RX_DATA + 2048 + 12), f + 16, 84);
	/* And put in. */
	memcpy(fake_ram(&e->f, TX_DATA), pattern, 60);
	tx_desc(e, TX_DATA, 60 | EOP | RS | 0x40u << 24, 0x2065u << 16);
	assert_true(go(e));
	assert_int_equal(wire_sent(0)->len, 64);
	assert_memory_equal(wire_sent(0)->data, pattern, 12);
	assert_memory_equal(wire_sent(0)->data + 12, "\x81\x00\x20\x65", 4);
	assert_memory_equal(wire_sent(0)->data + 16, pattern + 12, 48);
	stop(e);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* An IPv4 TCP packet of so much data; checksums of the pseudo-header only. */
static uint32_t tcp(uint8_t *f, uint32_t data, bool for_tso)
{
	static const uint8_t ip[] = { 0x45, 0, 0, 0, 0x11, 0x22, 0x40, 0, 64, 6, 0, 0,
		10, 0, 2, 15, 10, 0, 2, 2 };
	uint16_t sum;
	uint8_t pseudo[4] = { 0, 6, 0, 0 };

	memcpy(f, pattern, 12);
	put16(f + 12, 0x0800);
	memcpy(f + 14, ip, 20);
	memset(f + 34, 0, 20);
	f[38 + 3] = 100; /* sequence number */
	f[46] = 0x50;
	f[47] = 0x19; /* FIN, PSH, ACK */
	for (uint32_t i = 0; i < data; i++)
		f[54 + i] = pattern[i];
	if (!for_tso) {
		put16(f + 16, 40 + data);
		put16(pseudo + 2, 20 + data);
	}
	sum = (uint16_t)~net_sum_finish(
	    net_sum(pseudo, 4, net_sum(f + 26, 8, 0)));
	memcpy(f + 50, &sum, 2);
	return 54 + data;
}

/* Whether both checksums of such a packet are right. */
static bool sums_right(const uint8_t *f, uint32_t len)
{
	uint8_t pseudo[4] = { 0, f[23], 0, 0 };

	put16(pseudo + 2, len - 34);
	return net_sum_finish(net_sum(f + 14, 20, 0)) == 0 &&
	       net_sum_finish(net_sum(f + 34, len - 34,
		   net_sum(pseudo, 4, net_sum(f + 26, 8, 0)))) == 0;
}

static void context(struct env *e, uint32_t cmd, uint32_t payload, unsigned hdr,
    unsigned mss)
{
	uint64_t offsets = 14 | 24 << 8 | 33 << 16 | UINT64_C(34) << 32 |
			   UINT64_C(50) << 40;

	tx_desc(e, offsets, payload | DEXT | cmd << 24, hdr << 8 | mss << 16);
}

static void test_transmit(void **state)
{
	struct env *e = start();
	uint8_t *f = fake_ram(&e->f, TX_DATA);
	uint32_t len;

	(void)state;
	memcpy(f, pattern, 1514);
	tx_desc(e, TX_DATA, 100, 0);
	tx_desc(e, TX_DATA + 100, 1414 | EOP | IFCS | RS, 0);
	assert_true(go(e));
	assert_int_equal(wire->nsent, 1);
	assert_int_equal(wire_sent(0)->len, 1514);
	assert_memory_equal(wire_sent(0)->data, pattern, 1514);
	assert_int_equal(((uint8_t *)fake_ram(&e->f, TX_RING))[12], 0);
	assert_int_equal(((uint8_t *)fake_ram(&e->f, TX_RING + 16))[12], 1);
	assert_int_equal(rd(e, R_ICR) & (I_TXDW | I_TXQE), I_TXDW | I_TXQE);
	/* A frame in two goes. */
	tx_desc(e, TX_DATA, 500, 0);
	assert_true(go(e));
	assert_int_equal(wire->nsent, 1);
	tx_desc(e, TX_DATA + 500, 500 | EOP, 0);
	assert_true(go(e));
	assert_int_equal(wire_sent(0)->len, 1000);
	/* Both checksums by a context; TCP's by the old descriptor. */
	len = tcp(f, 777, false);
	context(e, 3, 0, 0, 0);
	tx_desc(e, TX_DATA, len | DATA | EOP | RS, 3u << 8);
	assert_true(go(e));
	assert_int_equal(wire_sent(0)->len, len);
	assert_true(sums_right(wire_sent(0)->data, len));
	tx_desc(e, TX_DATA, len | 50u << 16 | EOP | 4u << 24, 34u << 8);
	assert_true(go(e));
	assert_false(sums_right(wire_sent(0)->data, len));
	assert_memory_equal(wire_sent(0)->data + 50, wire_sent(1)->data + 50, 2);
	stop(e);
}

static void test_segments(void **state)
{
	struct env *e = start();
	uint8_t *f = fake_ram(&e->f, TX_DATA);
	uint32_t len = tcp(f, 2500, true);

	(void)state;
	context(e, 3 | 4, 2500, 54, 1000);
	tx_desc(e, TX_DATA, 54 | DATA | 4u << 24, 3u << 8);
	tx_desc(e, TX_DATA + 54, (len - 54) | DATA | EOP | RS | 4u << 24, 0);
	assert_true(go(e));
	assert_int_equal(wire->nsent, 3);
	for (unsigned i = 0; i < 3; i++) {
		const struct wire_frame *w = wire_sent(2 - i);
		uint32_t data = i < 2 ? 1000 : 500, at = 100 + i * 1000;

		assert_int_equal(w->len, 54 + data);
		assert_true(sums_right(w->data, w->len));
		assert_int_equal(w->data[16] << 8 | w->data[17], 40 + data);
		assert_int_equal(w->data[18] << 8 | w->data[19], 0x1122 + i);
		assert_int_equal(w->data[40] << 8 | w->data[41], at);
		assert_int_equal(w->data[47], i < 2 ? 0x10 : 0x19);
		assert_memory_equal(w->data + 54, pattern + i * 1000, data);
	}
	assert_int_equal(rd(e, R_TSCTC), 1);
	/* IPv6 and UDP have other fields. */
	context(e, 4, 100, 54, 60);
	tx_desc(e, TX_DATA, 154 | DATA | EOP | 4u << 24, 0);
	assert_true(go(e));
	assert_int_equal(wire->nsent, 5);
	assert_int_equal(wire_sent(1)->data[18] << 8 | wire_sent(1)->data[19], 80);
	assert_int_equal(wire_sent(1)->data[38] << 8 | wire_sent(1)->data[39], 80);
	assert_int_equal(wire_sent(0)->data[38] << 8 | wire_sent(0)->data[39], 60);
	stop(e);
}

static void test_receive_sums(void **state)
{
	struct env *e = start();
	uint8_t f[200];
	uint32_t len = tcp(f, 100, false);
	uint16_t sum;

	(void)state;
	wire_put(NULL, f, len);
	assert_int_equal(rx_desc(e, 0)[12] & 0x64, 4);
	wr(e, R_RXCSUM, 1u << 8 | 1u << 9);
	wire_put(NULL, f, len);
	assert_int_equal(rx_desc(e, 1)[12] & 0x64, 0x60);
	assert_int_equal(rx_desc(e, 1)[13], 0x60);
	sum = net_sum_finish(net_sum(f + 14, 20, 0));
	memcpy(f + 24, &sum, 2);
	sum = net_sum_finish(net_sum(f + 34, len - 34, 0));
	memcpy(f + 50, &sum, 2);
	assert_true(sums_right(f, len));
	/* Padding behind the packet does not count. */
	memset(f + len, 0xee, 20);
	wire_put(NULL, f, len + 20);
	assert_int_equal(rx_desc(e, 2)[12] & 0x64, 0x60);
	assert_int_equal(rx_desc(e, 2)[13], 0);
	/* A fragment, and lengths that lie. */
	f[21] = 1;
	wire_put(NULL, f, len);
	assert_int_equal(rx_desc(e, 3)[12] & 0x64, 0x40);
	put16(f + 16, 1000);
	wire_put(NULL, f, len);
	assert_int_equal(rx_desc(e, 4)[12] & 0x64, 4);
	put16(f + 16, 19);
	wire_put(NULL, f, len);
	assert_int_equal(rx_desc(e, 5)[12] & 0x64, 4);
	f[14] = 0x4f;
	put16(f + 16, 60);
	wire_put(NULL, f, 70);
	assert_int_equal(rx_desc(e, 6)[12] & 0x64, 4);
	stop(e);
}

static void test_interrupts(void **state)
{
	struct env *e = start();

	(void)state;
	assert_false(e->f.gsi[16]);
	wr(e, R_IMC, 0xffffffff);
	wr(e, R_ICS, I_LSC);
	assert_false(e->f.gsi[16]);
	wr(e, R_IMS, I_LSC);
	assert_true(e->f.gsi[16]);
	assert_int_equal(rd(e, R_ICR), I_LSC);
	assert_false(e->f.gsi[16]);
	assert_int_equal(rd(e, R_ICR), 0);
	/* Throttled to one in 8 ms: the second comes late, not never. */
	wr(e, R_ITR, 31250);
	wr(e, R_ICS, I_LSC);
	assert_true(e->f.gsi[16]);
	rd(e, R_ICR);
	wr(e, R_ICS, I_LSC);
	assert_false(e->f.gsi[16]);
	for (unsigned i = 0; i < 100 && !e->f.gsi[16]; i++)
		fake_poll(&e->f);
	assert_true(e->f.gsi[16]);
	rd(e, R_ICR);
	/* The link. */
	wr(e, R_ITR, 0);
	net_link_changed(&wire->net, false);
	assert_true(e->f.gsi[16]);
	assert_int_equal(rd(e, R_STATUS) & 2, 0);
	assert_int_equal(rd(e, R_ICR), I_LSC);
	stop(e);
}

static void test_hostile(void **state)
{
	static const struct {
		uint32_t cmd, hdr, mss, len;
	} tso[] = { { 7, 54, 0, 200 }, { 7, 54, 1000, 54 }, { 7, 54, 1000, 20 },
		{ 7, 33, 1000, 200 }, { 7, 13, 1000, 200 }, { 7, 53, 1000, 200 },
		{ 6, 41, 1000, 200 }, { 7, 0, 1000, 200 } };
	struct env *e = start();
	uint64_t *d;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(tso); i++) {
		context(e, tso[i].cmd, 0, tso[i].hdr, tso[i].mss);
		tx_desc(e, TX_DATA, tso[i].len | DATA | EOP | 4u << 24, 3u << 8);
		assert_true(go(e));
		assert_int_equal(wire->nsent, 0);
	}
	/* Checksums outside the frame do nothing. */
	tx_desc(e, UINT64_MAX, DEXT, 0);
	tx_desc(e, TX_DATA, 60 | DATA | EOP, 3u << 8);
	tx_desc(e, TX_DATA, 60 | 255u << 16 | EOP | 4u << 24, 255u << 8);
	tx_desc(e, TX_DATA, 60 | 59u << 16 | EOP | 4u << 24, 59u << 8);
	assert_true(go(e));
	assert_int_equal(wire->nsent, 3);
	/* Not in memory, without end, too long, too short: lost; the next goes. */
	tx_desc(e, 8 * MIB - 10, 60 | EOP, 0);
	tx_desc(e, UINT64_MAX - 10, 60 | EOP, 0);
	tx_desc(e, TX_DATA, 13 | EOP, 0);
	tx_desc(e, TX_DATA, 0 | EOP, 0);
	assert_true(go(e));
	for (unsigned i = 0; i < 100; i++) {
		tx_desc(e, TX_DATA, 0xfffff | DATA, 0);
		assert_true(go(e));
	}
	tx_desc(e, TX_DATA, 60 | EOP, 0);
	assert_true(go(e));
	assert_int_equal(wire->nsent, 3);
	tx_desc(e, TX_DATA, 60 | EOP, 0);
	assert_true(go(e));
	assert_int_equal(wire->nsent, 4);
	/* One byte a segment: many frames, in pieces of time. */
	context(e, 7, 0, 54, 1);
	tcp(fake_ram(&e->f, TX_DATA), 3000, true);
	tx_desc(e, TX_DATA, 3054 | DATA | EOP | 4u << 24, 3u << 8);
	assert_true(go(e));
	assert_int_equal(wire->nsent, 3004);
	/* Rings that are not there: nothing moves. */
	wr(e, R_TDT, 16);
	fake_poll(&e->f);
	wr(e, R_TDLEN, 0);
	wr(e, R_TDT, 5);
	fake_poll(&e->f);
	wr(e, R_TDLEN, 0xffffffff);
	wr(e, R_TDBAL, 0xffffffff);
	wr(e, R_TDBAH, 0xffffffff);
	wr(e, R_TDT, 0xffff);
	for (unsigned i = 0; i < 5; i++)
		fake_poll(&e->f);
	assert_int_equal(wire->nsent, 3004);
	wr(e, R_RDT, 16);
	wire_put(NULL, pattern, 60);
	assert_int_equal(rd(e, R_RDH), 0);
	/* A buffer that is not in memory; a ring that is not. */
	driver(e);
	d = fake_ram(&e->f, RX_RING);
	d[0] = 8 * MIB - 10;
	d[2] = UINT64_MAX - 5;
	wire_put(NULL, pattern, 60);
	wire_put(NULL, pattern, 60);
	assert_int_equal(rx_desc(e, 0)[13] & 0x80, 0x80);
	wr(e, R_RDBAH, 0x1000);
	wire_put(NULL, pattern, 60);
	/* And after a reset all is well. */
	wr(e, R_CTRL, CTRL_RST);
	assert_int_equal(rd(e, R_RAL), 0x0198a000);
	assert_int_equal(rd(e, R_TDLEN), 0);
	assert_false(wire->listening);
	wire->nin = 0;
	driver(e);
	wire_put(NULL, pattern, 60);
	assert_int_equal(rx_desc(e, 0)[12] & 3, 3);
	tx_desc(e, TX_DATA, 60 | EOP, 0);
	assert_true(go(e));
	stop(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_receive),
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_vlan),
		cmocka_unit_test(test_transmit),
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_receive_sums),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
