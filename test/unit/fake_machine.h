/*
 * A machine without CPUs for device tests: real memory, buses, event loop and
 * configuration; interrupts are recorded. Ports and MMIO are reached through the
 * buses, as a guest would.
 */
#pragma once

#include "bhyve/pci/pci.h"
#include "lib/config.h"
#include "lib/event.h"
#include "vmm/bus.h"
#include "vmm/machine.h"

struct fake {
	struct machine m;
	struct pci_bus *pci;
	bool gsi[MACHINE_GSIS], isa[16];
	unsigned gsi_edges, msis;
	uint64_t msi_addr; /* the last */
	uint32_t msi_data;
	uint64_t written; /* calls of the code-page callback */
	uint8_t reset_control;
};

/* RAM of that size, no devices yet. 0 or -errno. */
int fake_create(struct fake *f, uint64_t ram);
/* -s options, as on the command line. 0 or -1. */
int fake_slot(struct fake *f, const char *text);
int fake_start(struct fake *f);
void fake_destroy(struct fake *f);
/* Runs the event loop until *flag is not old, at most ten seconds. */
bool fake_wait8(struct fake *f, const volatile uint8_t *flag, uint8_t old);
bool fake_wait32(struct fake *f, const volatile uint32_t *flag, uint32_t old);
void fake_poll(struct fake *f);

uint32_t fake_in(struct fake *f, uint16_t port, unsigned size);
void fake_out(struct fake *f, uint16_t port, unsigned size, uint32_t v);
uint64_t fake_read(struct fake *f, uint64_t addr, unsigned size);
void fake_write(struct fake *f, uint64_t addr, unsigned size, uint64_t v);
uint32_t fake_cfg_read(struct fake *f, unsigned b, unsigned s, unsigned fn,
    unsigned off, unsigned size);
void fake_cfg_write(struct fake *f, unsigned b, unsigned s, unsigned fn,
    unsigned off, unsigned size, uint32_t v);
/* The address a BAR of function 0 holds. */
uint64_t fake_bar(struct fake *f, unsigned slot, int bar);
void *fake_ram(struct fake *f, uint64_t gpa);
