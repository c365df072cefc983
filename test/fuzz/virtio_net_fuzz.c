/*
 * virtio-net under a driver that does anything: descriptors, rings, registers, memory,
 * while frames of all lengths come in and the link comes and goes. Whatever it does, a
 * reset must bring a card back that sends and receives.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "net_wire.h"
#include "virtio_driver.h"

#define RX_RING 0x1000u
#define TX_RING 0x4000u
#define QUEUE   16u

static void put16(struct fake *f, uint64_t at, uint16_t v)
{
	memcpy(fake_ram(f, at), &v, 2);
}

static void set_up(struct fake *f, bool modern, uint64_t features)
{
	uint64_t b = fake_bar(f, 3, 4);
	uint16_t io = (uint16_t)fake_bar(f, 3, 0);

	if (!modern) {
		fake_out(f, io + 4, 4, (uint32_t)features);
		for (unsigned q = 0; q < 2; q++) {
			fake_out(f, io + 14, 2, q);
			fake_out(f, io + 8, 4, (q == 0 ? 0x8000 : 0x10000) >> 12);
		}
		fake_out(f, io + 18, 1, 7);
		return;
	}
	features = (features & 0x3001bbab) | UINT64_C(1) << 32;
	fake_write(f, b + 0x14, 1, 3);
	for (unsigned i = 0; i < 2; i++) {
		fake_write(f, b + 0x08, 4, i);
		fake_write(f, b + 0x0c, 4, features >> (32 * i) & 0xffffffff);
	}
	fake_write(f, b + 0x14, 1, 11);
	for (unsigned q = 0; q < 2; q++) {
		uint64_t at = q == 0 ? RX_RING : TX_RING;

		fake_write(f, b + 0x16, 2, q);
		fake_write(f, b + 0x18, 2, QUEUE);
		fake_write(f, b + 0x20, 8, at);
		fake_write(f, b + 0x28, 8, at + 0x800);
		fake_write(f, b + 0x30, 8, at + 0xc00);
		fake_write(f, b + 0x1c, 2, 1);
	}
	fake_write(f, b + 0x14, 1, 15);
}

static void reset(struct fake *f)
{
	fake_cfg_write(f, 0, 3, 0, 4, 2, 7);
	for (unsigned i = 0; i < 6; i++) {
		static const uint32_t place[6] = { 0x2000, 0xc0010000, 0, 0,
			0xc0020000, 0 };

		fake_cfg_write(f, 0, 3, 0, 0x10 + 4 * i, 4, place[i]);
	}
	fake_cfg_write(f, 0, 3, 0, 0x42, 2, 0);
	fake_cfg_write(f, 0, 3, 0, 0x4e, 2, 0);
	fake_write(f, fake_bar(f, 3, 4) + 0x14, 1, 0);
	wire->nin = 0;
	net_link_changed(&wire->net, true);
	memset(fake_ram(f, 0), 0, FUZZ_RAM);
}

static void offer(struct fake *f, bool modern, unsigned q, uint16_t head)
{
	uint64_t avail = modern ? (q == 0 ? RX_RING : TX_RING) + 0x800
				: (q == 0 ? 0x8000u : 0x10000u) + 16 * 1024;
	uint16_t i = *(uint16_t *)fake_ram(f, avail + 2);

	put16(f, avail + 4 + 2 * (i % (modern ? QUEUE : 1024)), head);
	put16(f, avail + 2, (uint16_t)(i + 1));
}

static void kick(struct fake *f, bool modern, unsigned q)
{
	if (modern)
		fake_write(f, fake_bar(f, 3, 4) + 0x3000 + 4 * q, 2, q);
	else
		fake_out(f, (uint16_t)(fake_bar(f, 3, 0) + 16), 2, q);
}

static void descriptor(struct fake *f, struct input *in, bool modern, unsigned q)
{
	uint64_t table = modern ? (q == 0 ? RX_RING : TX_RING)
				: (q == 0 ? 0x8000u : 0x10000u);
	unsigned i = (unsigned)take(in, 1);
	struct vdesc d;

	d.addr = fuzz_address(in);
	d.len = (uint32_t)take(in, (i & 64) != 0 ? 4 : 2) & 0x3ffff;
	d.flags = (uint16_t)(take(in, 1) & 7);
	d.next = (uint16_t)(take(in, 1) & 31);
	memcpy(
	    fake_ram(f, (i & 32 ? 0x30000 : table) + (i & 31) * 16), &d, sizeof(d));
	if ((i & 128) != 0)
		offer(f, modern, q, (uint16_t)(i & 31));
}

static void step(struct fake *f, struct input *in, bool modern)
{
	static uint8_t frame[NET_FRAME_MAX];
	uint8_t op = (uint8_t)take(in, 1);
	unsigned q = op >> 7, i;
	uint8_t buf[32];
	struct net_hdr hdr = { 0 };

	switch (op % 11) {
	case 0:
	case 1:
		descriptor(f, in, modern, q);
		break;
	case 2:
		offer(f, modern, q, (uint16_t)(take(in, 1) & 31));
		kick(f, modern, q);
		break;
	case 3:
		kick(f, modern, q);
		break;
	case 4:
	case 5:
		take_bytes(in, &hdr, 4);
		i = (unsigned)take(in, op & 64 ? 2 : 1);
		wire_put(&hdr, frame, (op & 32) != 0 ? i % NET_FRAME_MAX : i);
		break;
	case 6:
		i = (unsigned)fuzz_address(in) % (FUZZ_RAM - sizeof(buf));
		take_bytes(in, fake_ram(f, i), take(in, 1) % sizeof(buf));
		break;
	case 7:
		i = (unsigned)take(in, 2) & 0x3fff;
		fake_write(f, fake_bar(f, 3, 4) + i, 1u << (op >> 6), take(in, 4));
		fake_read(f, fake_bar(f, 3, 4) + i, 1u << (op >> 6));
		break;
	case 8:
		i = (unsigned)take(in, 1) & 63;
		fake_out(f, (uint16_t)(fake_bar(f, 3, 0) + i), 1u << (op >> 6) % 3,
		    (uint32_t)take(in, 4));
		break;
	case 9:
		if ((op & 64) != 0)
			net_link_changed(&wire->net, q);
		else
			fake_cfg_write(f, 0, 3, 0, take(in, 1) & 0xfc, 4,
			    (uint32_t)take(in, 4));
		break;
	case 10:
		event_loop_poll(f->m.loop, 0);
		break;
	}
}

static void fail(const char *what)
{
	fprintf(stderr, "after a reset the card does not %s\n", what);
	abort();
}

/* The property: after a reset an honest driver is served. */
static void check_alive(struct fake *f)
{
	struct vdesc tx = { 0x20000, 72, 0, 0 }, rx = { 0x21000, 2048, VD_WRITE, 0 };
	unsigned sent;

	reset(f);
	/* What was posted before the reset. */
	event_loop_poll(f->m.loop, 0);
	set_up(f, true, 0);
	sent = wire->nsent;
	memcpy(fake_ram(f, TX_RING), &tx, sizeof(tx));
	memcpy(fake_ram(f, RX_RING), &rx, sizeof(rx));
	offer(f, true, 1, 0);
	kick(f, true, 1);
	for (unsigned i = 0; i < 10 && wire->nsent == sent; i++)
		event_loop_poll(f->m.loop, 0);
	if (wire->nsent != sent + 1)
		fail("send");
	offer(f, true, 0, 0);
	kick(f, true, 0);
	wire_put(NULL, fake_ram(f, 0x20000), 60);
	if (*(uint16_t *)fake_ram(f, RX_RING + 0xc02) != 1 ||
	    *(uint32_t *)fake_ram(f, RX_RING + 0xc08) != 72)
		fail("receive");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const slots[] = { "3,virtio-net,wire0,mtu=9000" };
	struct input in = { data, size };
	struct fake *f;
	bool modern;

	wire_offloads = 15;
	f = fuzz_machine(slots, 1);
	reset(f);
	modern = take(&in, 1) & 1;
	wire->net.quick_send = (take(&in, 1) & 1) != 0;
	set_up(f, modern, take(&in, 4));
	for (unsigned n = 0; n < 500 && in.left > 0; n++)
		step(f, &in, modern);
	check_alive(f);
	return 0;
}
