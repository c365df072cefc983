/* SMBIOS 2.6 (DMTF DSP0134): entry point and the structures guests ask for. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bhyve/tables/tables_int.h"
#include "lib/config.h"
#include "lib/util.h"
#include "vmm/machine.h"

#define ENTRY_LEN   31u
#define TABLE_START 32u

enum {
	H_BIOS = 0,
	H_SYSTEM = 1,
	H_BOARD = 2,
	H_CHASSIS = 3,
	H_CPU = 0x10,
	H_ARRAY = 0x100,
	H_MEMORY = 0x101,
	H_MAPPED = 0x110,
	H_BOOT = 0x120,
	H_END = 0x7f00
};

struct smbios {
	struct out *o;
	const struct config *cfg;
	size_t start;          /* of the structure being written */
	const char *string[8]; /* its strings, numbered from 1 */
	unsigned strings, count, largest;
};

static void begin(struct smbios *s, unsigned type, unsigned handle)
{
	s->start = s->o->len;
	s->strings = 0;
	out8(s->o, (uint8_t)type);
	out8(s->o, 0);
	out16(s->o, (uint16_t)handle);
}

/* The number of a string; 0 means none. */
static void text(struct smbios *s, const char *value)
{
	if (*value == '\0' || s->strings == ARRAY_SIZE(s->string)) {
		out8(s->o, 0);
		return;
	}
	s->string[s->strings++] = value;
	out8(s->o, (uint8_t)s->strings);
}

static void key(struct smbios *s, const char *name, const char *dflt)
{
	const char *value = config_get(s->cfg, name);

	text(s, value != NULL ? value : dflt);
}

static void end(struct smbios *s)
{
	size_t size;

	out_put8(s->o, s->start + 1, (uint8_t)(s->o->len - s->start));
	for (unsigned i = 0; i < s->strings; i++)
		out_bytes(s->o, s->string[i], strlen(s->string[i]) + 1);
	out_zero(s->o, s->strings > 0 ? 1 : 2);
	s->count++;
	size = s->o->len - s->start;
	if (size > s->largest)
		s->largest = (unsigned)size;
}

static void bios(struct smbios *s)
{
	begin(s, 0, H_BIOS);
	key(s, "bios.vendor", "BHYVE");
	key(s, "bios.version", "14.0");
	out16(s->o, 0xf000); /* segment */
	key(s, "bios.release_date", "10/17/2021");
	out8(s->o, 0);                    /* 64 KiB */
	out64(s->o, BIT64(4) | BIT64(7)); /* ISA, PCI */
	out8(s->o, 0x01);                 /* ACPI */
	out8(s->o, 0x10);                 /* a virtual machine */
	out8(s->o, 0);                    /* release of system firmware */
	out8(s->o, 0);
	out8(s->o, 0xff); /* no embedded controller */
	out8(s->o, 0xff);
	end(s);
}

static void system_info(struct smbios *s, const struct machine *m)
{
	uint8_t uuid[16];
	/* The first three fields are little-endian since 2.6. */
	static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12,
		13, 14, 15 };

	uuid_get(m, uuid);
	begin(s, 1, H_SYSTEM);
	key(s, "system.manufacturer", "FreeBSD");
	key(s, "system.product_name", "BHYVE");
	key(s, "system.version", "1.0");
	key(s, "system.serial_number", "None");
	for (unsigned i = 0; i < 16; i++)
		out8(s->o, uuid[order[i]]);
	out8(s->o, 6); /* woken by the power switch */
	key(s, "system.sku", "None");
	key(s, "system.family_name", "Virtual Machine");
	end(s);
}

static void board(struct smbios *s)
{
	begin(s, 2, H_BOARD);
	key(s, "board.manufacturer", "FreeBSD");
	key(s, "board.product_name", "BHYVE");
	key(s, "board.version", "1.0");
	key(s, "board.serial_number", "None");
	key(s, "board.asset_tag", "None");
	out8(s->o, 1); /* hosts others */
	key(s, "board.location", "None");
	out16(s->o, H_CHASSIS);
	out8(s->o, 10); /* motherboard */
	out8(s->o, 0);
	end(s);
}

static void chassis(struct smbios *s)
{
	begin(s, 3, H_CHASSIS);
	key(s, "chassis.manufacturer", "FreeBSD");
	out8(s->o, 2); /* unknown */
	key(s, "chassis.version", "1.0");
	key(s, "chassis.serial_number", "None");
	key(s, "chassis.asset_tag", "None");
	for (unsigned i = 0; i < 3; i++)
		out8(s->o, 3); /* safe */
	out8(s->o, 2);         /* security unknown */
	out32(s->o, 0);
	out8(s->o, 0);
	out8(s->o, 0);
	out8(s->o, 0); /* no contained elements */
	out8(s->o, 0);
	key(s, "chassis.sku", "None");
	end(s);
}

static void cpu(struct smbios *s, const struct machine *m, unsigned n)
{
	char name[16];
	unsigned mhz = (unsigned)MIN(m->tsc_hz / 1000000, UINT64_C(0xffff));
	unsigned cores = MIN(m->cores, 255u),
		 threads = MIN(m->cores * m->threads, 255u);

	snprintf(name, sizeof(name), "CPU #%u", n);
	begin(s, 4, H_CPU + n);
	text(s, name);
	out8(s->o, 3); /* central processor */
	out8(s->o, 2); /* unknown family */
	text(s, "");
	out64(s->o, 0); /* CPUID says it better */
	text(s, "");
	out8(s->o, 0); /* voltage */
	out16(s->o, 0);
	out16(s->o, (uint16_t)mhz);
	out16(s->o, (uint16_t)mhz);
	out8(s->o, 0x41); /* present and enabled */
	out8(s->o, 6);    /* no upgrade */
	for (unsigned i = 0; i < 3; i++)
		out16(s->o, 0xffff); /* no cache information */
	text(s, "");
	text(s, "");
	text(s, "");
	out8(s->o, (uint8_t)cores);
	out8(s->o, (uint8_t)cores);
	out8(s->o, (uint8_t)threads);
	out16(s->o, 0x04); /* 64 bits */
	out16(s->o, 2);
	end(s);
}

static void memory(struct smbios *s, const struct machine *m)
{
	uint64_t size = m->mem.low + m->mem.high, mib = size / MiB;

	begin(s, 16, H_ARRAY);
	out8(s->o, 3); /* system board */
	out8(s->o, 3); /* system memory */
	out8(s->o, 6); /* multi-bit ECC */
	out32(
	    s->o, size / KiB < 0x80000000u ? (uint32_t)(size / KiB) : 0x80000000u);
	out16(s->o, 0xfffe);
	out16(s->o, 1);
	end(s);

	begin(s, 17, H_MEMORY);
	out16(s->o, H_ARRAY);
	out16(s->o, 0xfffe);
	out16(s->o, 64);
	out16(s->o, 64);
	/* 0x7fff: 32 GiB and more than the field holds; bit 15 would mean KiB. */
	out16(s->o, mib == 0 ? (uint16_t)(0x8000 | size / KiB)
			     : (uint16_t)MIN(mib, UINT64_C(0x7fff)));
	out8(s->o, 2); /* form unknown */
	out8(s->o, 0);
	text(s, "DIMM 0");
	text(s, "");
	out8(s->o, 2);
	out16(s->o, 0x04);
	out16(s->o, 0);
	text(s, "");
	text(s, "");
	text(s, "");
	text(s, "");
	out8(s->o, 0);
	end(s);
}

static void mapped(struct smbios *s, unsigned handle, uint64_t base, uint64_t len)
{
	if (len == 0)
		return;
	begin(s, 19, handle);
	out32(s->o, (uint32_t)MIN(base / KiB, (uint64_t)UINT32_MAX));
	out32(s->o, (uint32_t)MIN((base + len) / KiB - 1, (uint64_t)UINT32_MAX));
	out16(s->o, H_ARRAY);
	out8(s->o, 1);
	end(s);
}

int smbios_build(struct machine *m, struct out *o)
{
	struct smbios s = { .o = o, .cfg = m->cfg };

	out_zero(o, TABLE_START);
	bios(&s);
	system_info(&s, m);
	board(&s);
	chassis(&s);
	for (unsigned i = 0; i < m->sockets; i++)
		cpu(&s, m, i);
	memory(&s, m);
	mapped(&s, H_MAPPED, 0, m->mem.low);
	mapped(&s, H_MAPPED + 1, MEMORY_HIGH_BASE, m->mem.high);
	begin(&s, 32, H_BOOT);
	out_zero(o, 7); /* no errors */
	end(&s);
	begin(&s, 127, H_END);
	end(&s);
	if (o->full)
		return -ENOSPC;

	struct out e = { .buf = o->buf, .room = ENTRY_LEN };

	out_bytes(&e, "_SM_", 4);
	out8(&e, 0);
	out8(&e, ENTRY_LEN);
	out8(&e, 2);
	out8(&e, 6);
	out16(&e, (uint16_t)s.largest);
	out_zero(&e, 6);
	out_bytes(&e, "_DMI_", 5);
	out8(&e, 0);
	out16(&e, (uint16_t)(o->len - TABLE_START));
	out32(&e, SMBIOS_ADDR + TABLE_START);
	out16(&e, (uint16_t)s.count);
	out8(&e, 0x26);
	out_put8(&e, 0x15, out_checksum(&e, 0x10, ENTRY_LEN));
	out_put8(&e, 4, out_checksum(&e, 0, ENTRY_LEN));
	return 0;
}
