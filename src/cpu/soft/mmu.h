/*
 * The fast paths of the software MMU: one compare against the TLB entry, then a
 * single host access. Whatever does not match - miss, page crossing, MMIO, a
 * code page, a watched page, a non-canonical address - ends in mmu.c.
 *
 * The one compare also catches page crossing: the page of the last byte is
 * compared with the entry of the page of the first.
 */
#pragma once

#include "cpu/soft/soft.h"

/* Physical address width: what CPUID says, and where reserved PTE bits begin. */
#define MMU_PHYS_BITS 48
#define MMU_PHYS_MASK (BIT64(MMU_PHYS_BITS) - 1)
#define MMU_PAGE_MASK (~UINT64_C(0xfff))

/* Guest memory: any alignment, may alias anything, accessed exactly once. */
typedef volatile uint8_t guest8;
typedef volatile uint16_t __attribute__((aligned(1), may_alias)) guest16;
typedef volatile uint32_t __attribute__((aligned(1), may_alias)) guest32;
typedef volatile uint64_t __attribute__((aligned(1), may_alias)) guest64;

static inline uint64_t host_load(const void *p, unsigned size)
{
	switch (size) {
	case 1:
		return *(const guest8 *)p;
	case 2:
		return *(const guest16 *)p;
	case 4:
		return *(const guest32 *)p;
	default:
		return *(const guest64 *)p;
	}
}

static inline void host_store(void *p, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		*(guest8 *)p = v;
		break;
	case 2:
		*(guest16 *)p = v;
		break;
	case 4:
		*(guest32 *)p = v;
		break;
	default:
		*(guest64 *)p = v;
	}
}

static inline struct tlb_entry *tlb_slot(
    const struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin)
{
	return &cpu->tlb->e[idx][tlb_index(lin)];
}

static inline void *tlb_host(const struct tlb_entry *e, uint64_t lin)
{
	return (void *)(uintptr_t)(lin + e->delta);
}

static inline bool tlb_hit(uint64_t tag, uint64_t lin, unsigned size)
{
	return likely(((lin + size - 1) & MMU_PAGE_MASK) == tag);
}

static inline uint64_t mmu_ld(struct soft_cpu *cpu, uint64_t lin, unsigned size)
{
	const struct tlb_entry *e = tlb_slot(cpu, cpu->mmu_idx, lin);

	if (tlb_hit(e->tag_r, lin, size))
		return host_load(tlb_host(e, lin), size);
	return mmu_load(cpu, lin, size);
}

static inline void mmu_st(
    struct soft_cpu *cpu, uint64_t lin, unsigned size, uint64_t v)
{
	const struct tlb_entry *e = tlb_slot(cpu, cpu->mmu_idx, lin);

	if (tlb_hit(e->tag_w, lin, size))
		host_store(tlb_host(e, lin), size, v);
	else
		mmu_store(cpu, lin, size, v);
}

/*
 * Pointer to size bytes that may be read and written, or NULL: take the slow path.
 */
static inline void *mmu_rw_fast(struct soft_cpu *cpu, uint64_t lin, unsigned size)
{
	const struct tlb_entry *e = tlb_slot(cpu, cpu->mmu_idx, lin);

	return tlb_hit(e->tag_w, lin, size) ? tlb_host(e, lin) : NULL;
}

/* Code is fetched with the rights of the CPL; SMAP does not apply. */
static inline enum mmu_idx mmu_code_idx(const struct soft_cpu *cpu)
{
	return cpu->cpl == 3 ? MMU_USER : MMU_KERNEL;
}

static inline uint64_t mmu_code(struct soft_cpu *cpu, uint64_t lin)
{
	const struct tlb_entry *e = tlb_slot(cpu, mmu_code_idx(cpu), lin);

	if (tlb_hit(e->tag_x, lin, 1))
		return e->gpa | (lin & 0xfff);
	return mmu_code_gpa(cpu, lin);
}

/*
 * walk.c: what the guest's tables say about lin for one access. PF_W and PF_I in
 * access say which kind.
 */
enum walk_how {
	WALK_COMMIT, /* sets accessed and dirty bits when permitted */
	WALK_LOOK,
	WALK_PEEK, /* not even the bus notices: tables outside RAM map nothing */
};
struct walk {
	uint64_t gpa;
	uint32_t error; /* of the #PF, when mmu_walk() fails */
	uint8_t shift;  /* 12, 21, 22, 30 */
	bool user, writable, nx, global, dirty;
};
bool mmu_walk(struct soft_cpu *cpu, uint64_t lin, enum mmu_idx idx, uint32_t access,
    enum walk_how how, struct walk *w);
/*
 * Whether a mapping that was walked also permits a kind of access, A/D bits aside.
 */
bool mmu_permits(const struct soft_cpu *cpu, const struct walk *w, enum mmu_idx idx,
    uint32_t access);

/*
 * Physical reads and writes of 1, 2, 4, 8 bytes that lie in one page: RAM or MMIO.
 */
uint64_t phys_load(struct soft_cpu *cpu, uint64_t gpa, unsigned size);
void phys_store(struct soft_cpu *cpu, uint64_t gpa, unsigned size, uint64_t v);

/*
 * The page at gpa is about to hold translated code: no fast entry of this vCPU may
 * write it any more. (Other vCPUs: smp.h.)
 */
void mmu_drop_write(struct soft_cpu *cpu, uint64_t gpa);
/* Data breakpoints were armed or disarmed: fast entries exist only without them. */
void mmu_watch_changed(struct soft_cpu *cpu);
