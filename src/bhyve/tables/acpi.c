/*
 * ACPI 5.0 tables (ch. 5.2): RSDP, RSDT, XSDT, FADT, MADT, HPET, MCFG, FACS, SPCR,
 * DSDT (compiled from acpi/dsdt.asl) and the SSDT beside it.
 */
#include <errno.h>
#include <string.h>

#include "bhyve/pci/pci.h"
#include "bhyve/tables/tables_int.h"
#include "bhyve/tables/dsdt.hex"
#include "lib/config.h"
#include "vmm/chipset/chipset.h"
#include "vmm/machine.h"

#define HEADER_LEN  36u
#define ALIGN       16u
#define RSDP_LEN    36u
#define MAX_TABLES  8u
#define FADT_LEN    268u
#define SPACE_MEM   0u
#define SPACE_IO    1u
#define LAPIC_ADDR  0xfee00000u
#define IOAPIC_ADDR 0xfec00000u
#define HPET_ADDR   0xfed00000u
#define SCI         9u
#define COM1        0x3f8u

enum { DSDT_LEN = sizeof(dsdt_aml_code) };

/* FADT flags */
#define WBINVD      0x000001u
#define PROC_C1     0x000004u
#define SLP_BUTTON  0x000020u /* no fixed one; the power button is */
#define TMR_VAL_EXT 0x000100u
#define RESET_REG   0x000400u
#define HEADLESS    0x001000u
#define APIC_PHYS   0x080000u
/* Boot architecture */
#define NO_VGA  0x0004u
#define NO_ASPM 0x0010u

/* MPS INTI flags: high edge, low level. */
#define HIGH_EDGE 0x0005u
#define LOW_LEVEL 0x000fu

struct acpi {
	struct out *o;
	uint32_t table[MAX_TABLES]; /* addresses, for RSDT and XSDT */
	unsigned tables;
};

static uint32_t here(const struct acpi *a)
{
	return ACPI_ADDR + (uint32_t)a->o->len;
}

static size_t begin(
    struct acpi *a, const char *signature, uint8_t revision, const char *table_id)
{
	size_t at;

	out_align(a->o, ALIGN);
	at = a->o->len;
	out_bytes(a->o, signature, 4);
	out32(a->o, 0);
	out8(a->o, revision);
	out8(a->o, 0);
	out_text(a->o, "BHYVE", 6);
	out_text(a->o, table_id, 8);
	out32(a->o, 1);
	out_text(a->o, "BHYV", 4);
	out32(a->o, 1);
	return at;
}

static void end(struct acpi *a, size_t at)
{
	out_put32(a->o, at + 4, (uint32_t)(a->o->len - at));
	out_put8(a->o, at + 9, 0);
	out_put8(a->o, at + 9, out_checksum(a->o, at, a->o->len));
}

static void list(struct acpi *a, size_t at)
{
	if (a->tables < MAX_TABLES)
		a->table[a->tables++] = ACPI_ADDR + (uint32_t)at;
	end(a, at);
}

/* A generic address structure. */
static void gas(
    struct out *o, uint8_t space, uint8_t bits, uint8_t access, uint64_t addr)
{
	out8(o, space);
	out8(o, bits);
	out8(o, 0);
	out8(o, access);
	out64(o, addr);
}

static void fadt(struct acpi *a, uint32_t facs, uint32_t dsdt)
{
	struct out *o = a->o;
	size_t at = begin(a, "FACP", 5, "BVFACP");

	out32(o, facs);
	out32(o, dsdt);
	out8(o, 0);
	out8(o, 4); /* profile: enterprise server */
	out16(o, SCI);
	out32(o, 0xb2); /* SMI command port: enable, disable */
	out8(o, 0xa0);
	out8(o, 0xa1);
	out16(o, 0);     /* S4BIOS, P-states */
	out32(o, 0x400); /* PM1a event, PM1b */
	out32(o, 0);
	out32(o, 0x404); /* PM1a control, PM1b */
	out32(o, 0);
	out32(o, 0);     /* PM2 */
	out32(o, 0x408); /* PM timer */
	out32(o, 0x40c); /* GPE0 */
	out32(o, 0);
	out8(o, 4); /* lengths: PM1 event, control, PM2, timer, GPE0, GPE1, base */
	out8(o, 2);
	out8(o, 0);
	out8(o, 4);
	out8(o, 2);
	out16(o, 0);
	out8(o, 0);       /* C-states by _CST: none */
	out16(o, 0xffff); /* no C2, no C3 */
	out16(o, 0xffff);
	out32(o, 0); /* flush size and stride: WBINVD works */
	out16(o, 0); /* duty */
	out8(o, 0);  /* alarm: day, month; century */
	out8(o, 0);
	out8(o, 0x32);
	out16(o, NO_VGA | NO_ASPM);
	out8(o, 0);
	out32(o, WBINVD | PROC_C1 | SLP_BUTTON | TMR_VAL_EXT | RESET_REG |
		     HEADLESS | APIC_PHYS);
	gas(o, SPACE_IO, 8, 1, 0xcf9);
	out8(o, 6);
	out_zero(o, 3);
	out64(o, 0); /* the FACS has its 32-bit pointer, and one must be zero */
	out64(o, dsdt);
	gas(o, SPACE_IO, 32, 2, 0x400);
	gas(o, SPACE_IO, 0, 0, 0);
	gas(o, SPACE_IO, 16, 2, 0x404);
	gas(o, SPACE_IO, 0, 0, 0);
	gas(o, SPACE_IO, 0, 0, 0);
	gas(o, SPACE_IO, 32, 3, 0x408);
	gas(o, SPACE_IO, 16, 1, 0x40c);
	gas(o, SPACE_IO, 0, 0, 0);
	gas(o, SPACE_IO, 8, 1, 0); /* sleep control and status: not this kind */
	gas(o, SPACE_IO, 8, 1, 0);
	list(a, at);
}

static void override(struct out *o, unsigned irq, unsigned gsi, unsigned flags)
{
	out8(o, 2);
	out8(o, 10);
	out8(o, 0);
	out8(o, (uint8_t)irq);
	out32(o, gsi);
	out16(o, (uint16_t)flags);
}

static void madt(struct acpi *a, const struct machine *m)
{
	struct out *o = a->o;
	size_t at = begin(a, "APIC", 3, "BVMADT");

	out32(o, LAPIC_ADDR);
	out32(o, 1); /* there is an 8259 pair, too */
	for (unsigned i = 0; i < m->ncpu; i++) {
		out8(o, 0);
		out8(o, 8);
		out8(o, (uint8_t)i);
		out8(o, (uint8_t)i);
		out32(o, 1);
	}
	out8(o, 1);
	out8(o, 12);
	out8(o, 0); /* id */
	out8(o, 0);
	out32(o, IOAPIC_ADDR);
	out32(o, 0);
	override(o, 0, 2, HIGH_EDGE);
	override(o, SCI, SCI, LOW_LEVEL);
	out8(o, 4); /* LINT1 of all is NMI */
	out8(o, 6);
	out8(o, 0xff);
	out16(o, HIGH_EDGE);
	out8(o, 1);
	list(a, at);
}

static void hpet(struct acpi *a)
{
	size_t at = begin(a, "HPET", 1, "BVHPET");

	out32(a->o, hpet_capabilities());
	gas(a->o, SPACE_MEM, 0, 0, HPET_ADDR);
	out8(a->o, 0);
	out16(a->o, 0);
	out8(a->o, 1); /* nothing else in its 4 KiB page */
	list(a, at);
}

static void mcfg(struct acpi *a)
{
	size_t at = begin(a, "MCFG", 1, "BVMCFG");

	out64(a->o, 0);
	out64(a->o, PCI_ECAM_BASE);
	out16(a->o, 0);
	out8(a->o, 0);
	out8(a->o, 255);
	out32(a->o, 0);
	list(a, at);
}

/* The console that bhyve's user sees is COM1. */
static void spcr(struct acpi *a)
{
	struct out *o = a->o;
	size_t at = begin(a, "SPCR", 1, "BVSPCR");

	out8(o, 0); /* 16550 */
	out_zero(o, 3);
	gas(o, SPACE_IO, 8, 1, COM1);
	out8(o, 3); /* through the 8259 pair and the IOAPIC */
	out8(o, 4);
	out32(o, 4);
	out8(o, 7); /* 115200 8n1 */
	out8(o, 0);
	out8(o, 1);
	out8(o, 3); /* hardware and software flow control */
	out8(o, 3); /* ANSI */
	out8(o, 0);
	out16(o, 0xffff); /* no PCI device */
	out16(o, 0xffff);
	out_zero(o, 3);
	out32(o, 0);
	out8(o, 0);
	out32(o, 0);
	list(a, at);
}

static void rsdp(struct acpi *a, uint32_t rsdt, uint32_t xsdt)
{
	struct out r = { .buf = a->o->buf, .room = RSDP_LEN };

	out_bytes(&r, "RSD PTR ", 8);
	out8(&r, 0);
	out_text(&r, "BHYVE", 6);
	out8(&r, 2);
	out32(&r, rsdt);
	out32(&r, RSDP_LEN);
	out64(&r, xsdt);
	out32(&r, 0);
	out_put8(&r, 8, out_checksum(&r, 0, 20));
	out_put8(&r, 32, out_checksum(&r, 0, RSDP_LEN));
}

int acpi_build(struct machine *m, struct pci_bus *bus, struct out *o)
{
	struct acpi a = { .o = o };
	bool com1 = pci_find(bus, "lpc") != NULL &&
		    config_get(m->cfg, "lpc.com1.path") != NULL;
	unsigned listed = com1 ? 6 : 5; /* FADT, MADT, HPET, MCFG, SSDT, SPCR */
	uint32_t facs, dsdt, rsdt, xsdt;
	size_t at, fadt_at;

	if (o->room < RSDP_LEN)
		return -ENOSPC;
	out_zero(o, RSDP_LEN);
	/* Root tables come first and point forward: their entries follow below. */
	rsdt = (uint32_t)begin(&a, "RSDT", 1, "BVRSDT");
	out_zero(o, (size_t)listed * 4);
	xsdt = (uint32_t)begin(&a, "XSDT", 1, "BVXSDT");
	out_zero(o, (size_t)listed * 8);

	/* The FADT's place is before the tables it points to. */
	out_align(o, ALIGN);
	fadt_at = o->len;
	out_zero(o, FADT_LEN);
	madt(&a, m);
	hpet(&a);
	mcfg(&a);
	while (here(&a) % 64 != 0 && !o->full)
		out8(o, 0);
	facs = here(&a);
	out_bytes(o, "FACS", 4);
	out32(o, 64);
	out_zero(o, 24);
	out8(o, 2);
	out_zero(o, 31);
	if (com1)
		spcr(&a);
	out_align(o, ALIGN);
	dsdt = here(&a);
	out_bytes(o, dsdt_aml_code, DSDT_LEN);
	at = begin(&a, "SSDT", 2, "BVSSDT");
	aml_ssdt(m, bus, o);
	list(&a, at);

	struct out f = { .buf = o->buf + fadt_at, .room = FADT_LEN };

	a.o = &f;
	fadt(&a, facs, dsdt);
	a.table[a.tables - 1] = ACPI_ADDR + (uint32_t)fadt_at;
	a.o = o;
	if (o->full || f.full || f.len != FADT_LEN || a.tables != listed)
		return -ENOSPC;

	/* The FADT first, as everybody expects. */
	for (unsigned i = 0; i < listed; i++) {
		uint32_t t = a.table[i == 0 ? listed - 1 : i - 1];

		out_put32(o, rsdt + HEADER_LEN + i * 4, t);
		out_put32(o, xsdt + HEADER_LEN + i * 8, t);
	}
	for (unsigned i = 0; i < 2; i++) {
		at = i == 0 ? rsdt : xsdt;
		size_t len = HEADER_LEN + (size_t)listed * (i == 0 ? 4 : 8);

		out_put32(o, at + 4, (uint32_t)len);
		out_put8(o, at + 9, out_checksum(o, at, at + len));
	}
	rsdp(&a, ACPI_ADDR + rsdt, ACPI_ADDR + xsdt);
	return 0;
}
