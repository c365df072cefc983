/*
 * What the files of the integer interpreter share: flags, operands, the stack.
 *
 * Arithmetic runs on the host's own instruction, on whole 64-bit registers, so
 * that results, partial register writes and even the undefined flags are the
 * host's. FLAGS_IN and FLAGS_OUT carry the status flags through AX: LAHF's byte in
 * AH, OF in AL.
 */
#pragma once

#include <Zydis/Mnemonic.h>

#include "cpu/soft/mmu.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* AL 1 + 0x7f overflows, 0 + 0x7f does not; the rest comes from AH. */
#define FLAGS_IN  "addb $0x7f, %%al\n\tsahf\n\t"
#define FLAGS_OUT "\n\tlahf\n\tseto %%al"

/* RFLAGS in the form of AX above, and back. */
ALWAYS_INLINE uint32_t flags_pack(uint64_t rflags)
{
	return (rflags & 0xd5) << 8 | ((rflags >> 11) & 1);
}

ALWAYS_INLINE uint64_t flags_unpack(uint32_t f)
{
	return ((f >> 8) & 0xd5) | (f & 1) << 11;
}

ALWAYS_INLINE void set_flags(struct soft_cpu *cpu, uint32_t f)
{
	cpu->rflags = (cpu->rflags & ~(uint64_t)RF_STATUS) | flags_unpack(f);
}

/* INC and DEC leave CF alone. */
/* CMP a, b. */
static inline void compare_flags(
    struct soft_cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
	uint32_t f;

	switch (size) {
	case 1:
		__asm__("cmpb %b[b], %b[a]" FLAGS_OUT
			: "=&a"(f)
			: [a] "r"(a), [b] "r"(b)
			: "cc");
		break;
	case 2:
		__asm__("cmpw %w[b], %w[a]" FLAGS_OUT
			: "=&a"(f)
			: [a] "r"(a), [b] "r"(b)
			: "cc");
		break;
	case 4:
		__asm__("cmpl %k[b], %k[a]" FLAGS_OUT
			: "=&a"(f)
			: [a] "r"(a), [b] "r"(b)
			: "cc");
		break;
	default:
		__asm__("cmpq %[b], %[a]" FLAGS_OUT
			: "=&a"(f)
			: [a] "r"(a), [b] "r"(b)
			: "cc");
	}
	set_flags(cpu, f);
}

ALWAYS_INLINE void set_flags_keep_cf(struct soft_cpu *cpu, uint32_t f)
{
	const uint64_t mask = RF_STATUS & ~RF_CF;

	cpu->rflags = (cpu->rflags & ~mask) | (flags_unpack(f) & mask);
}

ALWAYS_INLINE void flag_assign(struct soft_cpu *cpu, uint64_t flag, bool on)
{
	cpu->rflags = (cpu->rflags & ~flag) | (on ? flag : 0);
}

/* Condition codes in the encoding's order. */
ALWAYS_INLINE bool cond(uint64_t f, unsigned cc)
{
	bool v;

	switch (cc >> 1) {
	case 0:
		v = f & RF_OF;
		break;
	case 1:
		v = f & RF_CF;
		break;
	case 2:
		v = f & RF_ZF;
		break;
	case 3:
		v = f & (RF_CF | RF_ZF);
		break;
	case 4:
		v = f & RF_SF;
		break;
	case 5:
		v = f & RF_PF;
		break;
	case 6:
		v = (f ^ f >> 4) & RF_SF; /* OF is bit 11, SF bit 7 */
		break;
	default:
		v = (f ^ f >> 4) & RF_SF || f & RF_ZF;
	}
	return v != (cc & 1);
}

/* Linear address of the memory operand. */
ALWAYS_INLINE uint64_t ea(
    struct soft_cpu *cpu, const struct insn *in, unsigned size, bool write)
{
	uint64_t lin = in->disp;

	if (unlikely(!(in->flags & INSN_FLAT) || cpu->rflags & RF_AC))
		return insn_linear(cpu, in, size, write);
	if (in->base != REG_NONE)
		lin += cpu->gpr[in->base];
	if (in->index != REG_NONE)
		lin += cpu->gpr[in->index] * in->scale;
	if (unlikely(!is_canonical(lin) || !is_canonical(lin + size - 1)))
		return insn_linear(cpu, in, size, write);
	return lin;
}

ALWAYS_INLINE uint64_t load_ea(
    struct soft_cpu *cpu, const struct insn *in, unsigned size)
{
	return mmu_ld(cpu, ea(cpu, in, size, false), size);
}

ALWAYS_INLINE void store_ea(
    struct soft_cpu *cpu, const struct insn *in, unsigned size, uint64_t v)
{
	mmu_st(cpu, ea(cpu, in, size, true), size, v);
}

/* Any operand, for handlers that are not worth a form of their own. */
uint64_t opnd_get(
    struct soft_cpu *cpu, const struct insn *in, unsigned n, unsigned size);
void opnd_set(struct soft_cpu *cpu, const struct insn *in, unsigned n,
    unsigned size, uint64_t v);

/*
 * A read-modify-write of one operand: begin gives the old value, end stores the
 * new one. Between them nothing may raise. Atomic when the instruction is locked.
 */
struct rmw {
	uint64_t lin;
	void *p; /* NULL: memory by mmu_load and mmu_store, or a register */
	uint64_t old;
	bool exclusive;
};
void rmw_begin(struct soft_cpu *cpu, const struct insn *in, unsigned size,
    bool locked, struct rmw *m);
/* The same at a given address. */
void rmw_begin_at(
    struct soft_cpu *cpu, uint64_t lin, unsigned size, bool locked, struct rmw *m);
/* False: memory changed meanwhile, m->old is new; compute again (locked only). */
bool rmw_end(
    struct soft_cpu *cpu, unsigned size, bool locked, struct rmw *m, uint64_t v);

/* The stack pointer, as wide as the stack. */
ALWAYS_INLINE uint64_t sp_get(const struct soft_cpu *cpu)
{
	return gpr_get(cpu, GPR_RSP, cpu->stack_size);
}

ALWAYS_INLINE void sp_set(struct soft_cpu *cpu, uint64_t sp)
{
	gpr_set(cpu, GPR_RSP, cpu->stack_size, sp);
}

ALWAYS_INLINE uint64_t stack_linear(
    struct soft_cpu *cpu, uint64_t sp, unsigned size, bool write)
{
	if (likely(cpu->mode == MODE_64 && is_canonical(sp) &&
		   is_canonical(sp + size - 1) && !(cpu->rflags & RF_AC)))
		return sp;
	return seg_linear(cpu, SEG_SS, sp, cpu->stack_size, size, write);
}

ALWAYS_INLINE void push(struct soft_cpu *cpu, unsigned size, uint64_t v)
{
	uint64_t sp = sp_get(cpu) - size;

	mmu_st(cpu, stack_linear(cpu, sp, size, true), size, v);
	sp_set(cpu, sp);
}

/* Value on top; the caller commits the pointer. */
ALWAYS_INLINE uint64_t stack_top(struct soft_cpu *cpu, unsigned size)
{
	uint64_t sp = sp_get(cpu);

	return mmu_ld(cpu, stack_linear(cpu, sp, size, false), size);
}

/* Where a near branch of operand size opsize leads; raises #GP(0) if nowhere. */
ALWAYS_INLINE uint64_t branch_target(
    struct soft_cpu *cpu, uint64_t target, unsigned opsize)
{
	if (likely(cpu->mode == MODE_64)) {
		if (unlikely(!is_canonical(target)))
			cpu_gp(cpu);
		return target;
	}
	target &= size_mask(opsize);
	if (unlikely(target > cpu->seg[SEG_CS].limit))
		cpu_gp(cpu);
	return target;
}

/* 0-3 for operands of 1, 2, 4, 8 bytes. */
static inline unsigned size_index(unsigned size)
{
	return size == 8 ? 3 : size / 2;
}

static inline bool opnd_is(const struct insn *in, unsigned n, enum opnd_kind kind)
{
	return n < in->nopnd && in->op[n].kind == kind;
}

/* Handlers of each family, NULL when it does not know the instruction. */
insn_fn *interp_alu_handler(const struct insn *in);
insn_fn *interp_mov_handler(const struct insn *in);
insn_fn *interp_shift_handler(const struct insn *in);
insn_fn *interp_mul_handler(const struct insn *in);
insn_fn *interp_bit_handler(const struct insn *in);
insn_fn *interp_bmi_handler(const struct insn *in);
insn_fn *interp_atomic_handler(const struct insn *in);
insn_fn *interp_branch_handler(const struct insn *in);
insn_fn *interp_stack_handler(const struct insn *in);
insn_fn *interp_string_handler(const struct insn *in);
insn_fn *interp_misc_handler(const struct insn *in);
