/*
 * AHCI under a driver that does anything: command lists, FISes, packets, scatter
 * lists, registers and memory, on a disk and a CD drive. After a reset it must
 * work.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define LIST  0x1000u /* of port 0; port 1's follows */
#define RXFIS 0x2000u
#define TABLE 0x4000u /* 0x400 a slot and port */

static uint64_t b;

static void start_ports(struct fake *f)
{
	fake_write(f, b + 4, 4, 0x80000001);
	fake_write(f, b + 4, 4, 0x80000002);
	for (unsigned p = 0; p < 2; p++) {
		uint64_t r = b + 0x100 + p * 0x80;

		fake_write(f, r, 4, LIST + p * 0x400);
		fake_write(f, r + 8, 4, RXFIS + p * 0x100);
		fake_write(f, r + 0x14, 4, 0xffffffff);
		fake_write(f, r + 0x18, 4, 0x11);
	}
}

static void reset(struct fake *f)
{
	fake_cfg_write(f, 0, 4, 0, 0x24, 4, 0xc0100000);
	fake_cfg_write(f, 0, 4, 0, 0x42, 2, 0);
	fake_cfg_write(f, 0, 4, 0, 4, 2, 7);
	b = fake_bar(f, 4, 5);
	memset(fake_ram(f, 0), 0, FUZZ_RAM);
	start_ports(f);
}

static void command(struct fake *f, unsigned port, unsigned slot, struct input *in)
{
	uint32_t *h = fake_ram(f, LIST + port * 0x400 + slot * 32);
	uint8_t *t = fake_ram(f, TABLE + port * 0x8000 + slot * 0x400);
	uint8_t kind = (uint8_t)take(in, 1), prds = (uint8_t)take(in, 1) & 15;

	h[0] = 5u | (kind & 1 ? 0x20u : 0) | (uint32_t)prds << 16;
	h[2] = TABLE + port * 0x8000 + slot * 0x400;
	h[3] = 0;
	memset(t, 0, 0x80);
	t[0] = 0x27;
	t[1] = kind & 2 ? 0 : 0x80;
	t[2] = kind & 1 ? 0xa0 : (uint8_t)take(in, 1);
	t[3] = (uint8_t)take(in, 1);
	take_bytes(in, t + 4, 2);
	t[12] = kind & 4 ? (uint8_t)(slot << 3) : (uint8_t)take(in, 1);
	t[15] = (uint8_t)take(in, 1) & 4;
	if (kind & 1)
		take_bytes(in, t + 0x40, 12);
	for (unsigned i = 0; i < prds; i++) {
		uint64_t addr = fuzz_address(in);
		uint32_t dbc = (uint32_t)take(in, 2) << (kind & 8 ? 6 : 0);

		memcpy(t + 0x80 + 16 * i, &addr, 8);
		memcpy(t + 0x80 + 16 * i + 12, &dbc, 4);
	}
}

static void step(struct fake *f, struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1);
	unsigned port = op >> 7, i;

	switch (op % 8) {
	case 0:
	case 1:
		i = (unsigned)take(in, 1) & 31;
		command(f, port, i, in);
		if (op & 0x40)
			break;
		fake_write(f, b + 0x100 + port * 0x80 + 0x34, 4, BIT(i));
		fake_write(f, b + 0x100 + port * 0x80 + 0x38, 4, BIT(i));
		break;
	case 2: /* a port's register */
		i = (unsigned)take(in, 1) & 0x7c;
		fake_write(f, b + 0x100 + port * 0x80 + i, 4, take(in, 4));
		fake_read(f, b + 0x100 + port * 0x80 + i, 4);
		break;
	case 3:
		i = (unsigned)take(in, 2) & 0xfff;
		fake_write(f, b + i, 1u << (op >> 6), take(in, 4));
		fake_read(f, b + i, 1u << (op >> 6));
		break;
	case 4:
		i = (unsigned)fuzz_address(in) % (FUZZ_RAM - 64);
		take_bytes(in, fake_ram(f, i), take(in, 1) % 64);
		break;
	case 5:
		event_loop_poll(f->m.loop, 0);
		break;
	case 6: /* recover after an error */
		fake_write(f, b + 0x100 + port * 0x80 + 0x18, 4, 0x10);
		fake_write(f, b + 0x100 + port * 0x80 + 0x10, 4, 0xffffffff);
		fake_write(f, b + 0x100 + port * 0x80 + 0x18, 4, 0x11);
		break;
	case 7:
		i = (unsigned)take(in, 1) & 0xfc;
		fake_cfg_write(f, 0, 4, 0, i, 4, (uint32_t)take(in, 4));
		break;
	}
}

static void check_alive(struct fake *f)
{
	static const uint8_t identify[] = { 0xec, 0xa1 };

	reset(f);
	for (unsigned p = 0; p < 2; p++) {
		uint32_t *h = fake_ram(f, LIST + p * 0x400);
		uint8_t *t = fake_ram(f, TABLE + p * 0x8000);
		uint64_t addr = 0x20000;
		uint32_t dbc = 511;

		h[0] = 5 | 1 << 16;
		h[2] = TABLE + p * 0x8000;
		t[0] = 0x27;
		t[1] = 0x80;
		t[2] = identify[p];
		memcpy(t + 0x80, &addr, 8);
		memcpy(t + 0x8c, &dbc, 4);
		fake_write(f, b + 0x100 + p * 0x80 + 0x38, 4, 1);
		if (fake_read(f, b + 0x100 + p * 0x80 + 0x38, 4) != 0 ||
		    *(uint16_t *)fake_ram(f, 0x20000 + 98) == 0) {
			fprintf(stderr, "port %u is dead after a reset\n", p);
			abort();
		}
		memset(fake_ram(f, 0x20000), 0, 512);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char slot[160];
	const char *const slots[] = { slot };
	struct input in = { data, size };
	struct fake *f;

	if (slot[0] == '\0') {
		int n = snprintf(slot, sizeof(slot), "4,ahci,hd:%s", fuzz_disk());

		snprintf(slot + n, sizeof(slot) - (size_t)n, ",cd:%s", fuzz_disk());
	}
	f = fuzz_machine(slots, 1);
	reset(f);
	for (unsigned n = 0; n < 300 && in.left > 0; n++)
		step(f, &in);
	check_alive(f);
	return 0;
}
