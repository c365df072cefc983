/*
 * The I/O APIC: Intel 82093AA with 32 pins, version 0x11 (no EOI register).
 *
 * Its lock is its own because EOIs come from vCPU threads without the machine's
 * lock; order: see machine.h. A pin's level is "asserted", whatever the polarity
 * bit says: the machine's lines have no voltage.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/machine.h"

#define IOAPIC_BASE    UINT64_C(0xfec00000)
#define IOAPIC_LEN     0x1000u
#define IOAPIC_PINS    MACHINE_GSIS
#define IOAPIC_VERSION (0x11u | (IOAPIC_PINS - 1) << 16)

#define REG_ID         0u
#define REG_VERSION    1u
#define REG_ARB        2u
#define REG_RTE        0x10u

#define RTE_MODE       0x700u
#define RTE_LOGICAL    0x800u
#define RTE_REMOTE_IRR 0x4000u
#define RTE_LEVEL      0x8000u
#define RTE_MASKED     0x10000u
#define RTE_READONLY   0x5000u /* delivery status, remote IRR */
#define RTE_WRITABLE   UINT64_C(0xffff00000001ffff)

enum { MODE_FIXED = 0, MODE_LOWEST = 1, MODE_NMI = 4, MODE_INIT = 5 };

struct ioapic {
	struct machine *m;
	pthread_mutex_t lock;
	uint32_t id, select;
	uint32_t source[2]; /* pins asserted by the machine and by the HPET */
	uint32_t lines;     /* either */
	uint64_t rte[IOAPIC_PINS];
	uint8_t owed[IOAPIC_PINS]; /* ticks yet to be sent, at EOIs */
	_Atomic uint32_t owing;    /* pins whose owed is not 0 */
};

static unsigned rte_mode(uint64_t rte)
{
	return (unsigned)(rte & RTE_MODE) >> 8;
}

/* Only fixed and lowest-priority interrupts can be level-triggered. */
static bool rte_level(uint64_t rte)
{
	return (rte & RTE_LEVEL) && rte_mode(rte) <= MODE_LOWEST;
}

/* Bits 49-55 extend the destination, as CPUID 0x40000001 announces. */
static uint32_t rte_dest(uint64_t rte)
{
	return (uint32_t)(rte >> 56) | (uint32_t)(rte >> 49 & 0x7f) << 8;
}

static void send(struct ioapic *io, unsigned pin)
{
	uint64_t rte = io->rte[pin];

	if (rte_level(rte))
		io->rte[pin] |= RTE_REMOTE_IRR;
	lapic_message(io->m, rte_dest(rte), rte & RTE_LOGICAL, rte_mode(rte),
	    (uint8_t)rte, rte_level(rte), true);
}

/* A level interrupt that is asserted, open and not in service. */
static void service_level(struct ioapic *io, unsigned pin)
{
	uint64_t rte = io->rte[pin];

	if (rte_level(rte) && !(rte & (RTE_MASKED | RTE_REMOTE_IRR)) &&
	    (io->lines & BIT(pin)))
		send(io, pin);
}

static void set_locked(struct ioapic *io, unsigned source, unsigned pin, bool level)
{
	bool was = io->lines & BIT(pin);

	if (level)
		io->source[source] |= BIT(pin);
	else
		io->source[source] &= ~BIT(pin);
	io->lines = io->source[0] | io->source[1];
	level = io->lines & BIT(pin);
	if (rte_level(io->rte[pin]))
		service_level(io, pin);
	else if (level && !was && !(io->rte[pin] & RTE_MASKED))
		send(io, pin);
}

static void set_source(struct ioapic *io, unsigned source, unsigned pin, bool level)
{
	if (pin >= IOAPIC_PINS)
		return;
	pthread_mutex_lock(&io->lock);
	set_locked(io, source, pin, level);
	pthread_mutex_unlock(&io->lock);
}

void ioapic_set(struct ioapic *io, unsigned pin, bool level)
{
	set_source(io, 0, pin, level);
}

void ioapic_set_hpet(struct ioapic *io, unsigned pin, bool level)
{
	set_source(io, 1, pin, level);
}

/* Whether the pin sends edges that a LAPIC's one bit of a vector may merge. */
static bool counts_ticks(const struct ioapic *io, unsigned pin)
{
	uint64_t rte = io->rte[pin];

	return !(rte & (RTE_MASKED | RTE_LEVEL)) && rte_mode(rte) <= MODE_LOWEST;
}

static bool waits(struct ioapic *io, unsigned pin)
{
	uint64_t rte = io->rte[pin];

	return lapic_waits(io->m, rte_dest(rte), rte & RTE_LOGICAL, (uint8_t)rte);
}

static void owe(struct ioapic *io, unsigned pin, unsigned n)
{
	io->owed[pin] = (uint8_t)MIN(n, TICKS_MAX);
	if (n != 0)
		atomic_fetch_or(&io->owing, BIT(pin));
	else
		atomic_fetch_and(&io->owing, ~BIT(pin));
}

void ioapic_tick(struct ioapic *io, bool hpet, unsigned pin, unsigned n)
{
	pthread_mutex_lock(&io->lock);
	if (n == 0 || !counts_ticks(io, pin))
		owe(io, pin, 0);
	else
		owe(io, pin, io->owed[pin] + n - !waits(io, pin));
	if (n != 0) {
		set_locked(io, hpet, pin, false);
		set_locked(io, hpet, pin, true);
	}
	pthread_mutex_unlock(&io->lock);
}

bool ioapic_owes(const struct ioapic *io)
{
	return atomic_load(&io->owing) != 0;
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
	pthread_mutex_lock(&io->lock);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		if ((uint8_t)io->rte[pin] != vector)
			continue;
		/* The vector may be another CPU's and mean something else there. */
		if (io->owed[pin] != 0 && !waits(io, pin)) {
			owe(io, pin, io->owed[pin] - 1u);
			send(io, pin);
		}
		if (!(io->rte[pin] & RTE_REMOTE_IRR))
			continue;
		io->rte[pin] &= ~(uint64_t)RTE_REMOTE_IRR;
		service_level(io, pin);
	}
	pthread_mutex_unlock(&io->lock);
}

bool ioapic_may_nmi(struct ioapic *io)
{
	bool may = false;

	pthread_mutex_lock(&io->lock);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		unsigned mode = rte_mode(io->rte[pin]);

		if (!(io->rte[pin] & RTE_MASKED) &&
		    (mode == MODE_NMI || mode == MODE_INIT))
			may = true;
	}
	pthread_mutex_unlock(&io->lock);
	return may;
}

static uint32_t reg_read(struct ioapic *io)
{
	unsigned i = io->select - REG_RTE;

	switch (io->select) {
	case REG_ID:
	case REG_ARB:
		return io->id;
	case REG_VERSION:
		return IOAPIC_VERSION;
	default:
		if (io->select < REG_RTE || i / 2 >= IOAPIC_PINS)
			return 0;
		return (uint32_t)(io->rte[i / 2] >> (i & 1 ? 32 : 0));
	}
}

static void reg_write(struct ioapic *io, uint32_t v)
{
	unsigned i = io->select - REG_RTE, pin = i / 2;
	uint64_t rte;

	if (io->select == REG_ID) {
		io->id = v & 0x0f000000;
		return;
	}
	if (io->select < REG_RTE || pin >= IOAPIC_PINS)
		return;
	rte = io->rte[pin];
	if (i & 1)
		rte = (rte & UINT32_MAX) | ((uint64_t)v << 32 & RTE_WRITABLE);
	else
		rte = (rte & ~(uint64_t)UINT32_MAX) |
		      (v & RTE_WRITABLE & ~RTE_READONLY) | (rte & RTE_READONLY);
	/*
	 * Software without an EOI register ends a level interrupt by making it
	 * edge.
	 */
	if (!rte_level(rte))
		rte &= ~(uint64_t)RTE_REMOTE_IRR;
	io->rte[pin] = rte;
	owe(io, pin, 0);
	service_level(io, pin);
}

static uint64_t mmio_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct ioapic *io = arg;
	uint64_t v = 0;

	(void)vcpu;
	pthread_mutex_lock(&io->lock);
	if (off < 0x04)
		v = io->select;
	else if (off >= 0x10 && off < 0x14)
		v = reg_read(io);
	pthread_mutex_unlock(&io->lock);
	(void)size;
	return v >> (off & 3) * 8;
}

static void mmio_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct ioapic *io = arg;

	(void)vcpu;
	pthread_mutex_lock(&io->lock);
	if (off == 0)
		io->select = (uint8_t)v;
	else if (off == 0x10 && size >= 4)
		reg_write(io, (uint32_t)v);
	pthread_mutex_unlock(&io->lock);
}

int ioapic_create(struct machine *m, struct ioapic **out)
{
	struct ioapic *io = calloc(1, sizeof(*io));
	int err;

	if (io == NULL)
		return -ENOMEM;
	io->m = m;
	pthread_mutex_init(&io->lock, NULL);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		io->rte[pin] = RTE_MASKED;
	err = bus_add(m->mmio, "IOAPIC", IOAPIC_BASE, IOAPIC_LEN, BUS_UNLOCKED,
	    mmio_read, mmio_write, io);
	if (err != 0) {
		ioapic_destroy(io);
		return err;
	}
	*out = io;
	return 0;
}

void ioapic_destroy(struct ioapic *io)
{
	if (io == NULL)
		return;
	pthread_mutex_destroy(&io->lock);
	free(io);
}
