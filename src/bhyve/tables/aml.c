/*
 * The SSDT: named values that the DSDT refers to, in AML (ACPI 5.0 ch. 20).
 * Only what is needed: Name of integers and of _PRT packages.
 */
#include "bhyve/pci/pci.h"
#include "bhyve/tables/tables_int.h"
#include "vmm/machine.h"

#define AML_ZERO    0x00u
#define AML_NAME    0x08u
#define AML_DWORD   0x0cu
#define AML_QWORD   0x0eu
#define AML_PACKAGE 0x12u
#define AML_ROOT    '\\'
#define AML_MULTI   0x2fu

#define MEM64_SIZE  (UINT64_C(32) * GiB)
#define PCI_PIRQS   8

static void name(struct out *o, const char *four)
{
	out8(o, AML_NAME);
	out8(o, AML_ROOT);
	out_bytes(o, four, 4);
}

static void integer(struct out *o, const char *four, uint64_t v)
{
	name(o, four);
	out8(o, AML_QWORD);
	out64(o, v);
}

static void dword(struct out *o, uint32_t v)
{
	out8(o, AML_DWORD);
	out32(o, v);
}

/*
 * A package's length counts itself and is written in four bytes (bits 0-3 and
 * three more bytes), so that it can be filled in afterwards.
 */
static size_t begin_length(struct out *o)
{
	size_t at = o->len;

	out32(o, 0);
	return at;
}

static void end_length(struct out *o, size_t at)
{
	uint32_t len = (uint32_t)(o->len - at);

	out_put32(o, at,
	    0xc0 | (len & 15) | (len >> 4 & 0xff) << 8 | (len >> 12 & 0xff) << 16 |
		(len >> 20 & 0xff) << 24);
}

struct routing {
	struct out *o;
	bool apic;
	unsigned entries;
};

/* Package () { slot, pin, link or 0, 0 or GSI } for bus 0. */
static void route(void *arg, int b, int slot, int pin, int gsi)
{
	struct routing *r = arg;
	struct out *o = r->o;
	size_t at;

	if (b != 0)
		return;
	out8(o, AML_PACKAGE);
	at = begin_length(o);
	out8(o, 4);
	dword(o, (uint32_t)slot << 16 | 0xffff);
	dword(o, (uint32_t)(pin - 1));
	if (r->apic) {
		out8(o, AML_ZERO);
		dword(o, (uint32_t)gsi);
	} else {
		char link[4] = { 'L', 'N', 'K',
			(char)('A' + (gsi - 16) % PCI_PIRQS) };

		out8(o, AML_ROOT);
		out8(o, AML_MULTI);
		out8(o, 3);
		out_bytes(o, "_SB_PC00", 8);
		out_bytes(o, link, 4);
		out8(o, AML_ZERO);
	}
	end_length(o, at);
	r->entries++;
}

/* A slot's pin appears once however many functions share it. */
struct unique {
	struct routing r;
	bool seen[32][4];
};

static void route_once(void *arg, int b, int slot, int pin, int gsi)
{
	struct unique *u = arg;

	if (b != 0 || slot < 0 || slot > 31 || pin < 1 || pin > 4 || gsi < 16 ||
	    u->seen[slot][pin - 1])
		return;
	u->seen[slot][pin - 1] = true;
	route(&u->r, b, slot, pin, gsi);
}

static void routing(struct out *o, struct pci_bus *bus, const char *four, bool apic)
{
	struct unique u = { .r = { .o = o, .apic = apic } };
	size_t at, count;

	name(o, four);
	out8(o, AML_PACKAGE);
	at = begin_length(o);
	count = o->len;
	out8(o, 0);
	pci_foreach_intx(bus, route_once, &u);
	out_put8(o, count, (uint8_t)u.r.entries); /* at most 32 * 4 */
	end_length(o, at);
}

void aml_ssdt(struct machine *m, struct pci_bus *bus, struct out *o)
{
	const struct pci_dev *lpc = pci_find(bus, "lpc");
	uint64_t base = pci_mem64_base(m);

	integer(o, "LPCP", lpc != NULL);
	/* No bridge: an address nothing has. */
	integer(
	    o, "LPCA", lpc != NULL ? (uint64_t)lpc->s << 16 | lpc->f : 0x1fffff);
	integer(o, "M64B", base);
	integer(o, "M64L", base + MEM64_SIZE - 1);
	integer(o, "M64S", MEM64_SIZE);
	routing(o, bus, "PRTP", false);
	routing(o, bus, "PRTA", true);
}
