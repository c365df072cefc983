/*
 * Intel MultiProcessor Specification 1.4: floating pointer and configuration
 * table, for guests without ACPI.
 */
#include <errno.h>

#include "bhyve/pci/pci.h"
#include "bhyve/tables/tables_int.h"
#include "vmm/machine.h"

#define FLOATING_LEN  16u
#define LAPIC_ADDR    0xfee00000u
#define LAPIC_VERSION 16u
#define IOAPIC_ADDR   0xfec00000u
#define IOAPIC_ID     0u
#define IOAPIC_VER    0x11u
/* Family 6, model 26, stepping 5. */
#define CPU_SIGNATURE 0x7a5u
#define CPU_FEATURES  0xbfebfbffu

enum { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_IOINT, ENTRY_LOCALINT };
enum { INT_INT, INT_NMI, INT_SMI, INT_EXT };
#define LEVEL_LOW 0x0fu

struct mp {
	struct out *o;
	unsigned entries;
	unsigned last_bus; /* PCI bus numbers go from 0 to this */
	unsigned isa_bus;
};

static void add_cpu(struct mp *mp, unsigned id)
{
	out8(mp->o, ENTRY_CPU);
	out8(mp->o, (uint8_t)id);
	out8(mp->o, LAPIC_VERSION);
	out8(mp->o, id == 0 ? 3 : 1); /* enabled, boot CPU */
	out32(mp->o, CPU_SIGNATURE);
	out32(mp->o, CPU_FEATURES);
	out_zero(mp->o, 8);
	mp->entries++;
}

static void add_bus(struct mp *mp, unsigned id, const char *type)
{
	out8(mp->o, ENTRY_BUS);
	out8(mp->o, (uint8_t)id);
	out_text(mp->o, type, 6);
	mp->entries++;
}

static void add_int(struct mp *mp, unsigned entry, unsigned type, unsigned flags,
    unsigned bus, unsigned irq, unsigned dest, unsigned pin)
{
	out8(mp->o, (uint8_t)entry);
	out8(mp->o, (uint8_t)type);
	out16(mp->o, (uint16_t)flags);
	out8(mp->o, (uint8_t)bus);
	out8(mp->o, (uint8_t)irq);
	out8(mp->o, (uint8_t)dest);
	out8(mp->o, (uint8_t)pin);
	mp->entries++;
}

static void find_last_bus(void *arg, int b, int slot, int pin, int gsi)
{
	struct mp *mp = arg;

	(void)slot;
	(void)pin;
	(void)gsi;
	if ((unsigned)b > mp->last_bus)
		mp->last_bus = (unsigned)b;
}

static void add_pci(void *arg, int b, int slot, int pin, int gsi)
{
	add_int(arg, ENTRY_IOINT, INT_INT, LEVEL_LOW, (unsigned)b,
	    (unsigned)slot << 2 | (unsigned)(pin - 1), IOAPIC_ID, (unsigned)gsi);
}

/* Interrupt 0 is the 8259 pair's on pin 0, the timer on pin 2; 9 is the SCI. */
static void add_isa(struct mp *mp)
{
	for (unsigned pin = 0; pin < 16; pin++) {
		unsigned type = pin == 0 ? INT_EXT : INT_INT,
			 irq = pin == 2 ? 0 : pin;

		add_int(mp, ENTRY_IOINT, type, pin == 9 ? LEVEL_LOW : 0,
		    mp->isa_bus, irq, IOAPIC_ID, pin);
	}
}

int mptable_build(struct machine *m, struct pci_bus *bus, struct out *o)
{
	struct mp mp = { .o = o };

	pci_foreach_intx(bus, find_last_bus, &mp);
	mp.isa_bus = mp.last_bus + 1;

	out_bytes(o, "_MP_", 4);
	out32(o, MPTABLE_ADDR + FLOATING_LEN);
	out8(o, 1); /* paragraphs */
	out8(o, 4); /* version 1.4 */
	out_zero(o, FLOATING_LEN - 10);
	out_put8(o, 10, out_checksum(o, 0, FLOATING_LEN));

	out_bytes(o, "PCMP", 4);
	out16(o, 0); /* length */
	out8(o, 4);
	out8(o, 0); /* checksum */
	out_text(o, "BHyVe", 8);
	out_text(o, "Hypervisor", 12);
	out_zero(o, 6);
	out16(o, 0); /* entries */
	out32(o, LAPIC_ADDR);
	out32(o, 0);

	for (unsigned i = 0; i < m->ncpu; i++)
		add_cpu(&mp, i);
	for (unsigned i = 0; i <= mp.last_bus; i++)
		add_bus(&mp, i, "PCI");
	add_bus(&mp, mp.isa_bus, "ISA");
	out8(o, ENTRY_IOAPIC);
	out8(o, IOAPIC_ID);
	out8(o, IOAPIC_VER);
	out8(o, 1);
	out32(o, IOAPIC_ADDR);
	mp.entries++;
	add_isa(&mp);
	pci_foreach_intx(bus, add_pci, &mp);
	add_int(&mp, ENTRY_LOCALINT, INT_EXT, 0, mp.isa_bus, 0, 0xff, 0);
	add_int(&mp, ENTRY_LOCALINT, INT_NMI, 0, mp.isa_bus, 0, 0xff, 1);

	out_put16(o, FLOATING_LEN + 4, (uint16_t)(o->len - FLOATING_LEN));
	out_put16(o, FLOATING_LEN + 34, (uint16_t)mp.entries);
	out_put8(o, FLOATING_LEN + 7, out_checksum(o, FLOATING_LEN, o->len));
	return o->full || mp.isa_bus > 255 ? -ENOSPC : 0;
}
