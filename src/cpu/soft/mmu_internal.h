/* What mmu.c and access.c share: the private state behind soft_cpu.mmu. */
#pragma once

#include "cpu/soft/mmu.h"

/* PCIDs with a TLB of their own; Linux uses 6, or 12 with page-table isolation. */
#define CONTEXTS 12

/* Filled slots: idx << TLB_BITS | index. */
struct tlb_log {
	unsigned n;
	uint16_t slot[MMU_COUNT * TLB_SIZE];
};

enum { LOG_LOCAL, LOG_GLOBAL, LOGS }; /* by struct tlb_entry's global */

struct context {
	struct tlb tlb;
	uint64_t pcid;
	uint64_t used; /* clock of the last switch to it */
	/* Where large pages were filled, by half of the address space. */
	uint64_t large_lo[2], large_hi[2];
	struct tlb_log log[LOGS];
};

struct mmu {
	struct context *context[CONTEXTS];
	unsigned count;
	struct context *current;
	uint64_t clock;
	bool watching; /* a data breakpoint is armed */
	uint8_t *wrote; /* a bit a page: some entry may have a tag_w for it */
};

/*
 * Translates for one access (kind 'r', 'w', 'x') or raises. The entry, filled, or
 * NULL when gpa is not RAM. Its tag for the kind may still be invalid: see mmu.c.
 */
struct tlb_entry *mmu_resolve(
    struct soft_cpu *cpu, uint64_t lin, enum mmu_idx idx, char kind, uint64_t *gpa);
