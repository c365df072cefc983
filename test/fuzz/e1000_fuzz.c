/*
 * e1000 under a driver that does anything with registers, rings and memory while
 * frames come in. Whatever it does, a reset must bring a card back that sends and
 * receives.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/net/e1000.h"
#include "fuzz.h"
#include "net_wire.h"

#define RX_RING 0x1000u
#define TX_RING 0x2000u
#define DESCS   8u

static void wr(struct fake *f, uint32_t at, uint32_t v)
{
	fake_write(f, 0xc0020000 + at, 4, v);
}

static uint32_t rd(struct fake *f, uint32_t at)
{
	return (uint32_t)fake_read(f, 0xc0020000 + at, 4);
}

static void set_up(struct fake *f)
{
	for (unsigned i = 0; i < DESCS; i++) {
		uint64_t addr = 0x10000 + i * 0x800;

		memcpy(fake_ram(f, RX_RING + i * 16), &addr, 8);
	}
	wr(f, R_RDBAL, RX_RING);
	wr(f, R_RDLEN, DESCS * 16);
	wr(f, R_RDT, DESCS - 1);
	wr(f, R_TDBAL, TX_RING);
	wr(f, R_TDLEN, DESCS * 16);
	wr(f, R_TCTL, 2);
	wr(f, R_RCTL, 1u << 1 | 1u << 3 | 1u << 5 | 1u << 15);
	wr(f, R_RXCSUM, 0x300);
	wr(f, R_IMS, 0xffff);
}

static void reset(struct fake *f)
{
	fake_cfg_write(f, 0, 3, 0, 4, 2, 7);
	fake_cfg_write(f, 0, 3, 0, 0x10, 4, 0xc0020000);
	fake_cfg_write(f, 0, 3, 0, 0x14, 4, 0xc0040000);
	fake_cfg_write(f, 0, 3, 0, 0x18, 4, 0x2000);
	wr(f, R_CTRL, CTRL_RST);
	wire->nin = 0;
	net_link_changed(&wire->net, true);
	memset(fake_ram(f, 0), 0, FUZZ_RAM);
}

/* A descriptor as drivers write them, more or less; sent when it says so. */
static void transmit(struct fake *f, struct input *in)
{
	uint32_t tdt = rd(f, R_TDT);
	struct e1000_desc d;

	if (take(in, 1) & 1) {
		d.addr = take(in, 8);
		d.w2 = 0x20u << 24 | (uint32_t)take(in, 1) << 24;
		d.w3 = (uint32_t)take(in, 4);
	} else {
		d.addr = fuzz_address(in);
		d.w2 = (uint32_t)take(in, 4) & 0xff9fffff;
		d.w3 = (uint32_t)take(in, 4);
	}
	memcpy(fake_ram(f, TX_RING + tdt % DESCS * 16), &d, 16);
	wr(f, R_TDT, (tdt + 1) % DESCS);
}

static void receive(struct input *in, uint8_t op)
{
	static uint8_t frame[NET_FRAME_MAX];
	struct net_hdr hdr = { 0 };
	uint32_t len = (uint32_t)take(in, op & 64 ? 2 : 1);

	take_bytes(in, frame, 48);
	/* Mostly IPv4. */
	if ((op & 32) == 0)
		memcpy(frame + 12, "\x08\x00\x45", 3);
	wire_put(&hdr, frame, len);
}

static void step(struct fake *f, struct input *in)
{
	static const uint16_t often[] = { R_CTRL, R_EECD, R_EERD, R_MDIC, R_ICR, R_ITR,
		R_ICS, R_IMS, R_IMC, R_RCTL, R_TCTL, R_RDBAL, R_RDLEN, R_RDH, R_RDT,
		R_TDBAL, R_TDLEN, R_TDH, R_TDT, R_VET, R_RXCSUM, R_RDBAH };
	uint8_t op = (uint8_t)take(in, 1);
	unsigned i;
	uint8_t buf[64];

	switch (op % 8) {
	case 0:
		transmit(f, in);
		break;
	case 1:
		receive(in, op);
		break;
	case 2:
		i = often[take(in, 1) % ARRAY_SIZE(often)];
		wr(f, i, (uint32_t)take(in, (op & 64) != 0 ? 4 : 1));
		rd(f, i);
		break;
	case 3:
		i = (unsigned)take(in, 3) & 0x1ffff;
		fake_write(f, 0xc0020000 + i, 1u << (op >> 6), take(in, 4));
		fake_read(f, 0xc0020000 + i, 1u << (op >> 6));
		break;
	case 4:
		i = (unsigned)fuzz_address(in) % (FUZZ_RAM - sizeof(buf));
		take_bytes(in, fake_ram(f, i), take(in, 1) % sizeof(buf));
		break;
	case 5:
		fake_out(f, (uint16_t)(0x2000 + (op >> 6) * 4), 4,
		    (uint32_t)take(in, 4));
		fake_in(f, 0x2004, 4);
		break;
	case 6:
		if ((op & 64) != 0)
			net_link_changed(&wire->net, op >> 7);
		else
			fake_cfg_write(f, 0, 3, 0, take(in, 1) & 0xfc, 4,
			    (uint32_t)take(in, 4));
		break;
	case 7:
		event_loop_poll(f->m.loop, 0);
		break;
	}
}

static void fail(const char *what)
{
	fprintf(stderr, "after a reset the card does not %s\n", what);
	abort();
}

static void check_alive(struct fake *f)
{
	struct e1000_desc d = { 0x20000, 60 | 9u << 24, 0 };
	unsigned sent;

	reset(f);
	event_loop_poll(f->m.loop, 0);
	set_up(f);
	memcpy(fake_ram(f, TX_RING), &d, sizeof(d));
	sent = wire->nsent;
	wr(f, R_TDT, 1);
	for (unsigned i = 0; i < 10 && rd(f, R_TDH) != 1; i++)
		event_loop_poll(f->m.loop, 0);
	if (wire->nsent != sent + 1 || *(uint8_t *)fake_ram(f, TX_RING + 12) != 1)
		fail("send");
	wire_put(NULL, fake_ram(f, 0x20000), 60);
	if ((*(uint8_t *)fake_ram(f, RX_RING + 12) & 3) != 3)
		fail("receive");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const slots[] = { "3,e1000,wire0" };
	struct input in = { data, size };
	struct fake *f = fuzz_machine(slots, 1);

	reset(f);
	wire->net.quick_send = (take(&in, 1) & 1) != 0;
	set_up(f);
	for (unsigned n = 0; n < 500 && in.left > 0; n++)
		step(f, &in);
	check_alive(f);
	return 0;
}
