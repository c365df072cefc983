/*
 * Page walks (SDM vol. 3 chapter 4): 32-bit with PSE and PSE-36, PAE, 4-level with
 * 4 KiB, 2 MiB and 1 GiB pages.
 *
 * Invariants
 * - Accessed and dirty bits are set only for an access that is permitted, with a
 *   locked compare-and-exchange; an entry that changed meanwhile restarts the walk.
 * - Table entries outside RAM read as what the bus says (ones: reserved bits).
 */
#include "cpu/soft/mmu.h"

#define PTE_P    BIT64(0)
#define PTE_W    BIT64(1)
#define PTE_U    BIT64(2)
#define PTE_A    BIT64(5)
#define PTE_D    BIT64(6)
#define PTE_PS   BIT64(7)
#define PTE_G    BIT64(8)
#define PTE_NX   BIT64(63)
#define PTE_ADDR (MMU_PHYS_MASK & MMU_PAGE_MASK)

#define LEVELS   4

struct level {
	uint64_t gpa, pte;
};

static bool nx_enabled(const struct soft_cpu *cpu)
{
	return cpu->cr4 & CR4_PAE && cpu->efer & EFER_NXE;
}

/* Bits that must be zero in an 8-byte entry; shift: what one entry of it maps. */
static uint64_t reserved_bits(const struct soft_cpu *cpu, unsigned shift, bool leaf)
{
	uint64_t r = cpu->long_mode ? BIT64(52) - BIT64(MMU_PHYS_BITS)
				    : BIT64(63) - BIT64(MMU_PHYS_BITS);

	if (!nx_enabled(cpu))
		r |= PTE_NX;
	if (shift == 39)
		r |= PTE_PS;
	else if (shift > 12 && leaf)
		r |= (BIT64(shift) - 1) & ~UINT64_C(0x1fff);
	if (shift == 30 && !cpu->long_mode)
		r |= PTE_NX | 0x1e6;
	return r;
}

bool mmu_permits(const struct soft_cpu *cpu, const struct walk *w, enum mmu_idx idx,
    uint32_t access)
{
	if (idx == MMU_USER) {
		if (!w->user)
			return false;
		if (access & PF_I)
			return !w->nx;
		return !(access & PF_W) || w->writable;
	}
	if (access & PF_I)
		return !w->nx && !(w->user && cpu->cr4 & CR4_SMEP);
	if (w->user && idx == MMU_KERNEL_SMAP)
		return false;
	return !(access & PF_W) || w->writable || !(cpu->cr0 & CR0_WP);
}

/* False: the entry is no longer what was read. */
static bool set_bits(
    struct soft_cpu *cpu, const struct level *l, unsigned width, uint64_t bits)
{
	void *p = memory_ptr(cpu->mem, l->gpa, width);
	uint64_t pte = l->pte;
	bool done;

	if ((pte & bits) == bits)
		return true;
	if (!p) {
		phys_store(cpu, l->gpa, width, pte | bits);
		return true;
	}
	if (width == 8) {
		done = __atomic_compare_exchange_n((uint64_t *)p, &pte, pte | bits,
		    false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else {
		uint32_t old = pte;

		done = __atomic_compare_exchange_n((uint32_t *)p, &old,
		    (uint32_t)(old | bits), false, __ATOMIC_SEQ_CST,
		    __ATOMIC_SEQ_CST);
	}
	if (done && atomic_load(&cpu->mem->code[l->gpa >> 12]))
		code_written(cpu, l->gpa, width);
	return done;
}

static bool fault(struct soft_cpu *cpu, struct walk *w, enum mmu_idx idx,
    uint32_t access, uint32_t why)
{
	w->error = why | (access & PF_W);
	if (idx == MMU_USER)
		w->error |= PF_U;
	if (access & PF_I && (nx_enabled(cpu) || cpu->cr4 & CR4_SMEP))
		w->error |= PF_I;
	return false;
}

enum outcome { WALK_OK, WALK_FAULT, WALK_AGAIN };

static enum outcome walk_once(struct soft_cpu *cpu, uint64_t lin, enum mmu_idx idx,
    uint32_t access, enum walk_how how, struct walk *w)
{
	bool wide = cpu->cr4 & CR4_PAE, pae = wide && !cpu->long_mode;
	unsigned width = wide ? 8 : 4, bits = wide ? 9 : 10;
	unsigned shift = cpu->long_mode ? 39 : wide ? 30 : 22, n = 0;
	uint64_t table = cpu->cr3 & (wide ? PTE_ADDR : 0xfffff000);
	struct level l[LEVELS];

	if (pae)
		table = cpu->cr3 & 0xffffffe0;
	w->user = w->writable = true;
	w->nx = false;
	for (;;) {
		unsigned index = (lin >> shift) & (BIT64(bits) - 1);
		bool top = pae && shift == 30, leaf;
		uint64_t pte;

		if (top)
			index &= 3;
		l[n].gpa = table + (uint64_t)index * width;
		if (how == WALK_PEEK && !memory_is_ram(cpu->mem, l[n].gpa, width))
			return WALK_FAULT;
		l[n].pte = pte = phys_load(cpu, l[n].gpa, width);
		n++;
		if (!(pte & PTE_P)) {
			fault(cpu, w, idx, access, 0);
			return WALK_FAULT;
		}
		leaf = shift == 12 ||
		       (pte & PTE_PS && !top && (wide || cpu->cr4 & CR4_PSE));
		if (wide ? pte & reserved_bits(cpu, shift, leaf)
			 : shift == 22 && leaf && pte & BIT(21)) {
			fault(cpu, w, idx, access, PF_P | PF_RSVD);
			return WALK_FAULT;
		}
		if (!top) {
			w->user &= !!(pte & PTE_U);
			w->writable &= !!(pte & PTE_W);
			w->nx |= wide && pte & PTE_NX;
		}
		if (leaf) {
			uint64_t addr = pte & PTE_ADDR;

			if (!wide)
				addr = (pte & 0xfffff000) |
				       (shift == 22 ? (pte & 0x1fe000) << 19 : 0);
			addr &= ~(BIT64(shift) - 1);
			w->gpa = addr | (lin & (BIT64(shift) - 1));
			break;
		}
		table = wide ? pte & PTE_ADDR : pte & 0xfffff000;
		shift -= bits;
	}
	w->shift = shift;
	w->global = l[n - 1].pte & PTE_G && cpu->cr4 & CR4_PGE;
	if (!mmu_permits(cpu, w, idx, access)) {
		fault(cpu, w, idx, access, PF_P);
		return WALK_FAULT;
	}
	w->dirty = l[n - 1].pte & PTE_D || access & PF_W;
	if (how != WALK_COMMIT)
		return WALK_OK;
	for (unsigned i = pae ? 1 : 0; i < n; i++) {
		bool last = i == n - 1;

		if (!set_bits(cpu, &l[i], width,
			PTE_A | (last && access & PF_W ? PTE_D : 0)))
			return WALK_AGAIN;
	}
	return WALK_OK;
}

bool mmu_walk(struct soft_cpu *cpu, uint64_t lin, enum mmu_idx idx, uint32_t access,
    enum walk_how how, struct walk *w)
{
	enum outcome o;

	if (!(cpu->cr0 & CR0_PG)) {
		*w = (struct walk){ .gpa = (uint32_t)lin,
			.shift = 12,
			.user = true,
			.writable = true,
			.dirty = true };
		return true;
	}
	cpu->stats.page_walks++;
	do
		o = walk_once(cpu, lin, idx, access, how, w);
	while (o == WALK_AGAIN);
	return o == WALK_OK;
}
