/*
 * Loads and stores that left the fast path: page crossing, MMIO, code pages, data
 * breakpoints; and the forms that take buffers, spans or other privileges.
 *
 * Order of a store to a code page: the bytes first, then code_written(), so that
 * nobody can decode the old bytes after the invalidation.
 */
#include <string.h>

#include "cpu/soft/mmu_internal.h"

/* Linear addresses are 32 bits wide outside 64-bit mode. */
static uint64_t lin_next(const struct soft_cpu *cpu, uint64_t lin, unsigned n)
{
	uint64_t next = lin + n;

	return next == BIT64(32) && cpu->mode != MODE_64 ? 0 : next;
}

/* Bytes from lin to its page's end. */
static unsigned to_page_end(uint64_t lin)
{
	return MEMORY_PAGE - (lin & (MEMORY_PAGE - 1));
}

static bool crosses(uint64_t lin, unsigned n)
{
	return n > to_page_end(lin);
}

/* The largest piece the bus takes at gpa: 1, 2, 4 or 8 bytes, aligned. */
static unsigned bus_piece(uint64_t gpa, unsigned n)
{
	unsigned piece = 8;

	while (piece > n || gpa & (piece - 1))
		piece /= 2;
	return piece;
}

static void bus_read(struct soft_cpu *cpu, uint64_t gpa, void *buf, unsigned n)
{
	uint8_t *p = buf;

	cpu->stats.mmio++;
	while (n) {
		unsigned piece = bus_piece(gpa, n);
		uint64_t v =
		    cpu->host->mmio_read(cpu->host->arg, cpu->id, gpa, piece);

		memcpy(p, &v, piece);
		p += piece;
		gpa += piece;
		n -= piece;
	}
}

static void bus_write(
    struct soft_cpu *cpu, uint64_t gpa, const void *buf, unsigned n)
{
	const uint8_t *p = buf;

	cpu->stats.mmio++;
	while (n) {
		unsigned piece = bus_piece(gpa, n);
		uint64_t v = 0;

		memcpy(&v, p, piece);
		cpu->host->mmio_write(cpu->host->arg, cpu->id, gpa, piece, v);
		p += piece;
		gpa += piece;
		n -= piece;
	}
}

uint64_t phys_load(struct soft_cpu *cpu, uint64_t gpa, unsigned size)
{
	const void *p = memory_ptr(cpu->mem, gpa, size);
	uint64_t v = 0;

	if (p)
		return host_load(p, size);
	bus_read(cpu, gpa, &v, size);
	return v;
}

static void ram_written(struct soft_cpu *cpu, uint64_t gpa, unsigned n)
{
	if (atomic_load(&cpu->mem->code[gpa >> 12]))
		code_written(cpu, gpa, n);
}

void phys_store(struct soft_cpu *cpu, uint64_t gpa, unsigned size, uint64_t v)
{
	void *p = memory_ptr(cpu->mem, gpa, size);

	if (p) {
		host_store(p, size, v);
		ram_written(cpu, gpa, size);
	} else {
		bus_write(cpu, gpa, &v, size);
	}
}

static void watch(struct soft_cpu *cpu, uint64_t lin, unsigned n, bool write)
{
	if (unlikely(cpu->mmu->watching))
		cpu_data_breakpoints(cpu, lin, n, write);
}

/* n bytes inside one page, already known to be readable. */
static void page_read(
    struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin, void *buf, unsigned n)
{
	uint64_t gpa;
	const struct tlb_entry *e = mmu_resolve(cpu, lin, idx, 'r', &gpa);

	if (e)
		memcpy(buf, tlb_host(e, lin), n);
	else
		bus_read(cpu, gpa, buf, n);
}

static void page_write(struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin,
    const void *buf, unsigned n)
{
	uint64_t gpa;
	const struct tlb_entry *e = mmu_resolve(cpu, lin, idx, 'w', &gpa);

	if (e) {
		memcpy(tlb_host(e, lin), buf, n);
		ram_written(cpu, gpa, n);
	} else {
		bus_write(cpu, gpa, buf, n);
	}
}

/* Raises what an access to [lin, lin+n) would raise. */
static void probe(
    struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin, unsigned n, char kind)
{
	uint64_t gpa;

	while (n) {
		unsigned piece = MIN(n, to_page_end(lin));

		mmu_resolve(cpu, lin, idx, kind, &gpa);
		lin = lin_next(cpu, lin, piece);
		n -= piece;
	}
}

static void read_bytes(
    struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin, void *buf, unsigned n)
{
	uint8_t *p = buf;

	watch(cpu, lin, n, false);
	if (crosses(lin, n))
		probe(cpu, idx, lin, n, 'r');
	while (n) {
		unsigned piece = MIN(n, to_page_end(lin));

		page_read(cpu, idx, lin, p, piece);
		p += piece;
		lin = lin_next(cpu, lin, piece);
		n -= piece;
	}
}

static void write_bytes(struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin,
    const void *buf, unsigned n)
{
	const uint8_t *p = buf;

	if (crosses(lin, n))
		probe(cpu, idx, lin, n, 'w');
	watch(cpu, lin, n, true);
	while (n) {
		unsigned piece = MIN(n, to_page_end(lin));

		page_write(cpu, idx, lin, p, piece);
		p += piece;
		lin = lin_next(cpu, lin, piece);
		n -= piece;
	}
}

uint64_t mmu_load_idx(
    struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin, unsigned size)
{
	const struct tlb_entry *e = tlb_slot(cpu, idx, lin);
	uint64_t gpa, v = 0;

	if (tlb_hit(e->tag_r, lin, size))
		return host_load(tlb_host(e, lin), size);
	if (crosses(lin, size)) {
		read_bytes(cpu, idx, lin, &v, size);
		return v;
	}
	e = mmu_resolve(cpu, lin, idx, 'r', &gpa);
	watch(cpu, lin, size, false);
	if (e)
		return host_load(tlb_host(e, lin), size);
	bus_read(cpu, gpa, &v, size);
	return v;
}

void mmu_store_idx(
    struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin, unsigned size, uint64_t v)
{
	const struct tlb_entry *e = tlb_slot(cpu, idx, lin);
	uint64_t gpa;

	if (tlb_hit(e->tag_w, lin, size)) {
		host_store(tlb_host(e, lin), size, v);
		return;
	}
	if (crosses(lin, size)) {
		write_bytes(cpu, idx, lin, &v, size);
		return;
	}
	e = mmu_resolve(cpu, lin, idx, 'w', &gpa);
	watch(cpu, lin, size, true);
	if (e) {
		host_store(tlb_host(e, lin), size, v);
		ram_written(cpu, gpa, size);
	} else {
		bus_write(cpu, gpa, &v, size);
	}
}

uint64_t mmu_load(struct soft_cpu *cpu, uint64_t lin, unsigned size)
{
	return mmu_load_idx(cpu, cpu->mmu_idx, lin, size);
}

void mmu_store(struct soft_cpu *cpu, uint64_t lin, unsigned size, uint64_t v)
{
	mmu_store_idx(cpu, cpu->mmu_idx, lin, size, v);
}

/* Implicit accesses are supervisor's; EFLAGS.AC does not lift SMAP for them. */
static enum mmu_idx sys_idx(const struct soft_cpu *cpu)
{
	return cpu->cr4 & CR4_SMAP ? MMU_KERNEL_SMAP : MMU_KERNEL;
}

uint64_t mmu_load_sys(struct soft_cpu *cpu, uint64_t lin, unsigned size)
{
	return mmu_load_idx(cpu, sys_idx(cpu), lin, size);
}

void mmu_store_sys(struct soft_cpu *cpu, uint64_t lin, unsigned size, uint64_t v)
{
	mmu_store_idx(cpu, sys_idx(cpu), lin, size, v);
}

void mmu_load_bytes(struct soft_cpu *cpu, uint64_t lin, void *buf, unsigned n)
{
	read_bytes(cpu, cpu->mmu_idx, lin, buf, n);
}

void mmu_store_bytes(
    struct soft_cpu *cpu, uint64_t lin, const void *buf, unsigned n)
{
	write_bytes(cpu, cpu->mmu_idx, lin, buf, n);
}

void mmu_probe_write(struct soft_cpu *cpu, uint64_t lin, unsigned n)
{
	probe(cpu, cpu->mmu_idx, lin, n, 'w');
}

void mmu_probe_read(struct soft_cpu *cpu, uint64_t lin, unsigned n)
{
	probe(cpu, cpu->mmu_idx, lin, n, 'r');
}

/*
 * The entry for writing through a pointer. Blocks on a code page are dropped for
 * the bytes to be written; the pointer is handed out only if no vCPU then holds
 * code there, for nobody could tell the others after the write.
 */
static struct tlb_entry *writable_entry(
    struct soft_cpu *cpu, uint64_t lin, uint64_t n)
{
	uint64_t gpa;
	struct tlb_entry *e = mmu_resolve(cpu, lin, cpu->mmu_idx, 'w', &gpa);

	if (!e || cpu->mmu->watching)
		return NULL;
	if (e->tag_w != TLB_INVALID)
		return e;
	block_invalidate(cpu, gpa, n);
	return atomic_load(&cpu->mem->code[gpa >> 12]) ? NULL : e;
}

void *mmu_rmw_ptr(struct soft_cpu *cpu, uint64_t lin, unsigned size)
{
	const struct tlb_entry *e = tlb_slot(cpu, cpu->mmu_idx, lin);

	if (tlb_hit(e->tag_w, lin, size))
		return tlb_host(e, lin);
	if (crosses(lin, size)) {
		mmu_probe_write(cpu, lin, size);
		return NULL;
	}
	e = writable_entry(cpu, lin, size);
	return e ? tlb_host(e, lin) : NULL;
}

uint8_t *mmu_span(
    struct soft_cpu *cpu, uint64_t lin, bool write, uint64_t max, uint64_t *len)
{
	uint64_t gpa, n = MIN(max, (uint64_t)to_page_end(lin));
	const struct tlb_entry *e;

	e = write ? writable_entry(cpu, lin, n)
		  : mmu_resolve(cpu, lin, cpu->mmu_idx, 'r', &gpa);
	if (!e || cpu->mmu->watching)
		return NULL;
	*len = n;
	return tlb_host(e, lin);
}

unsigned mmu_fetch(
    struct soft_cpu *cpu, uint64_t lin, uint8_t *buf, unsigned n, uint64_t gpa[2])
{
	enum mmu_idx idx = mmu_code_idx(cpu);
	unsigned first = MIN(n, to_page_end(lin));
	const struct tlb_entry *e = mmu_resolve(cpu, lin, idx, 'x', &gpa[0]);
	uint64_t next = lin_next(cpu, lin, first);
	struct walk w;

	if (e)
		memcpy(buf, tlb_host(e, lin), first);
	else
		bus_read(cpu, gpa[0], buf, first);
	gpa[0] &= MMU_PAGE_MASK;
	gpa[1] = ~UINT64_C(0);
	if (first == n)
		return n;
	/* Whether the rest is needed is not known yet: look without raising. */
	if (!is_canonical(next) || !mmu_walk(cpu, next, idx, PF_I, WALK_LOOK, &w))
		return first;
	e = mmu_resolve(cpu, next, idx, 'x', &gpa[1]);
	if (e)
		memcpy(buf + first, tlb_host(e, next), n - first);
	else
		bus_read(cpu, gpa[1], buf + first, n - first);
	gpa[1] &= MMU_PAGE_MASK;
	return n;
}
