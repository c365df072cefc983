/*
 * virtio-blk under a driver that does anything: descriptors, rings, registers of
 * both layouts, configuration space and memory, in any order, with requests in
 * flight. Whatever it does, a reset must bring a working device back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "virtio_driver.h"

#define RINGS 0x1000u
#define QUEUE 16u

static void put16(struct fake *f, uint64_t at, uint16_t v)
{
	memcpy(fake_ram(f, at), &v, 2);
}

/* A device with a running queue, so that the input need not find the way there. */
static void set_up(struct fake *f, bool modern, uint64_t features)
{
	uint64_t b = fake_bar(f, 3, 4);
	uint16_t io = (uint16_t)fake_bar(f, 3, 0);

	if (!modern) {
		fake_out(f, io + 4, 4, (uint32_t)features);
		fake_out(f, io + 8, 4, RINGS >> 12);
		fake_out(f, io + 18, 1, 7);
		return;
	}
	features = (features & 0x30007064) | UINT64_C(1) << 32;
	fake_write(f, b + 0x14, 1, 3);
	for (unsigned i = 0; i < 2; i++) {
		fake_write(f, b + 0x08, 4, i);
		fake_write(f, b + 0x0c, 4, features >> (32 * i) & 0xffffffff);
	}
	fake_write(f, b + 0x14, 1, 11);
	fake_write(f, b + 0x18, 2, QUEUE);
	fake_write(f, b + 0x20, 8, RINGS);
	fake_write(f, b + 0x28, 8, RINGS + 0x800);
	fake_write(f, b + 0x30, 8, RINGS + 0xc00);
	fake_write(f, b + 0x1c, 2, 1);
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
	memset(fake_ram(f, 0), 0, FUZZ_RAM);
}

static void offer(struct fake *f, bool modern, uint16_t head)
{
	uint64_t avail = RINGS + 0x800;
	uint16_t i = *(uint16_t *)fake_ram(f, avail + 2);

	put16(f, avail + 4 + 2 * (i % (modern ? QUEUE : 128)), head);
	put16(f, avail + 2, (uint16_t)(i + 1));
}

static void request(struct fake *f, struct input *in, bool modern)
{
	static const uint8_t types[] = { 0, 1, 4, 8, 11, 13, 2, 255 };
	uint8_t n = (uint8_t)take(in, 1), how = (uint8_t)take(in, 1);
	uint32_t *h = fake_ram(f, 0x10000u + n * 16u);
	uint32_t len = (how & 8 ? 1 : 512) * (uint32_t)take(in, 1);
	bool write = (how & 16) != 0;
	uint16_t i = (uint16_t)(n % 5 * 3);
	struct vdesc d[3] = { { 0x10000u + n * 16u, 16, VD_NEXT,
				  (uint16_t)(i + 1) },
		{ 0x20000, len, (uint16_t)(VD_NEXT | (write ? VD_WRITE : 0)),
		    (uint16_t)(i + 2) },
		{ 0x11000u + n, 1, VD_WRITE, 0 } };

	h[0] = types[how & 7];
	h[2] = (uint32_t)take(in, 2);
	/* A range to discard or zero. */
	take_bytes(in, fake_ram(f, 0x20000), how & 32 ? 13 : 0);
	memcpy(fake_ram(f, RINGS + i * 16u), d, sizeof(d));
	offer(f, modern, i);
}

static void step(struct fake *f, struct input *in, bool modern)
{
	uint64_t desc = RINGS, avail = RINGS + 0x800;
	uint8_t op = (uint8_t)take(in, 1);
	uint64_t b = fake_bar(f, 3, 4);
	uint16_t io = (uint16_t)fake_bar(f, 3, 0);
	struct vdesc d;
	uint8_t buf[64];
	unsigned i;

	switch (op % 11) {
	case 0: /* a descriptor, in the table or an indirect one */
		i = (unsigned)take(in, 1);
		d.addr = fuzz_address(in);
		d.len = (uint32_t)take(in, (op & 0x80) != 0 ? 4 : 1);
		d.flags = (uint16_t)(take(in, 1) & 7);
		d.next = (uint16_t)(take(in, 1) & 31);
		memcpy(fake_ram(f, desc + (i & 31) * 16 + (i & 32 ? 0x8000 : 0)),
		    &d, 16);
		break;
	case 1: /* offer a chain */
		offer(f, modern, (uint16_t)(take(in, 1) & 31));
		break;
	case 2:
		if (modern)
			fake_write(f, b + 0x3000, 2, 0);
		else
			fake_out(f, io + 16, 2, 0);
		break;
	case 3: /* a request's header */
		i = (unsigned)fuzz_address(in) % (FUZZ_RAM - 16);
		memset(fake_ram(f, i), 0, 16);
		*(uint8_t *)fake_ram(f, i) = (uint8_t)(take(in, 1) & 15);
		*(uint8_t *)fake_ram(f, i + 8) = (uint8_t)take(in, 1);
		break;
	case 4: /* bytes anywhere */
		i = (unsigned)fuzz_address(in) % (FUZZ_RAM - sizeof(buf));
		take_bytes(in, fake_ram(f, i), take(in, 1) % sizeof(buf));
		break;
	case 5:
		i = (unsigned)take(in, 2) & 0x3fff;
		fake_write(f, b + i, 1u << (op >> 6), take(in, 4));
		fake_read(f, b + i, 1u << (op >> 6));
		break;
	case 6:
		i = (unsigned)take(in, 1) & 127;
		fake_out(f, (uint16_t)(io + i), 1u << (op >> 6) % 3,
		    (uint32_t)take(in, 4));
		fake_in(f, (uint16_t)(io + i), 1u << (op >> 6) % 3);
		break;
	case 7:
		i = (unsigned)take(in, 1);
		fake_cfg_write(f, 0, 3, 0, i & 0xfc, 4, (uint32_t)take(in, 4));
		fake_cfg_read(f, 0, 3, 0, i & 0xfc, 4);
		break;
	case 8:
		event_loop_poll(f->m.loop, 0);
		break;
	case 10: /* a request as drivers build it; type, place and sizes from the
		    input */
		request(f, in, modern);
		break;
	case 9: /* the available index goes where it likes */
		put16(f, avail + 2, (uint16_t)take(in, 2));
		break;
	}
}

/* The property: after a reset an honest driver is served. */
static void check_alive(struct fake *f)
{
	struct vdesc d[3] = { { 0x10000, 16, VD_NEXT, 1 },
		{ 0x11000, 512, VD_WRITE | VD_NEXT, 2 },
		{ 0x12000, 1, VD_WRITE, 0 } };

	reset(f);
	set_up(f, true, 0);
	memcpy(fake_ram(f, RINGS), d, sizeof(d));
	*(uint8_t *)fake_ram(f, 0x12000) = 0xaa;
	put16(f, RINGS + 0x802, 1);
	fake_write(f, fake_bar(f, 3, 4) + 0x3000, 2, 0);
	if (!fake_wait8(f, fake_ram(f, 0x12000), 0xaa) ||
	    *(uint8_t *)fake_ram(f, 0x12000) != 0) {
		fprintf(stderr, "the device is dead after a reset\n");
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char slot[96];
	const char *const slots[] = { slot };
	struct input in = { data, size };
	struct fake *f;
	bool modern;

	if (slot[0] == '\0')
		snprintf(slot, sizeof(slot), "3,virtio-blk,%s", fuzz_disk());
	f = fuzz_machine(slots, 1);
	reset(f);
	modern = take(&in, 1) & 1;
	set_up(f, modern, take(&in, 4));
	for (unsigned n = 0; n < 500 && in.left > 0; n++)
		step(f, &in, modern);
	check_alive(f);
	return 0;
}
