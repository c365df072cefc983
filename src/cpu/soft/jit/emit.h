/*
 * Writing host instructions: a cursor into code memory and the few encodings the
 * translator makes itself (SDM vol. 2, chapter 2). Guest instructions are
 * re-encoded by insn.c on top of the same ModRM writer.
 *
 * Code is written through one mapping and runs at another (W^X): p is where
 * bytes go, p + x is where they will run, and RIP-relative operands are
 * relative to that.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { /* host registers by encoding number */
	H_RAX, H_RCX, H_RDX, H_RBX, H_RSP, H_RBP, H_RSI, H_RDI,
	H_R8, H_R9, H_R10, H_R11, H_R12, H_R13, H_R14, H_R15,
	H_NONE = -1,
};

#define H_T0  H_R10 /* scratch, never guest state between instructions */
#define H_T1  H_R11
#define H_GSP H_R15 /* the guest's RSP */

enum { /* condition codes */
	CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A,
};

struct emit {
	uint8_t *p;
	uint8_t *end;
	ptrdiff_t x;
	unsigned t1;		/* changes whenever T1 may */
};

/* A memory operand: [rip -> at] when at is set, else [base + index * scale + disp]. */
struct emem {
	int base, index;
	unsigned shift;
	int32_t disp;
	const void *at;
};

static inline uint8_t *emit_pc(const struct emit *e)
{
	return e->p + e->x;
}

static inline void emit8(struct emit *e, uint8_t v)
{
	*e->p++ = v;
}

static inline void emit32(struct emit *e, uint32_t v)
{
	memcpy(e->p, &v, 4);
	e->p += 4;
}

static inline void emit64(struct emit *e, uint64_t v)
{
	memcpy(e->p, &v, 8);
	e->p += 8;
}

static inline struct emem emem_at(const void *at)
{
	return (struct emem){ H_NONE, H_NONE, 0, 0, at };
}

static inline struct emem emem_base(int base, int32_t disp)
{
	return (struct emem){ base, H_NONE, 0, disp, NULL };
}

static inline struct emem emem_sum(int base, int index, int32_t disp)
{
	return (struct emem){ base, index, 0, disp, NULL };
}

static inline unsigned emem_rex(int reg, const struct emem *m)
{
	unsigned rex = (reg >> 3 & 1) << 2;

	if (m->index != H_NONE)
		rex |= (m->index >> 3 & 1) << 1;
	if (m->base != H_NONE)
		rex |= m->base >> 3 & 1;
	return rex;
}

/* ModRM, SIB, displacement. tail: immediate bytes that follow (for RIP-relative). */
void emit_modrm(struct emit *e, int reg, const struct emem *m, unsigned tail);

/* One-byte opcode with a memory operand; w: 64-bit. */
static inline void emit_m(struct emit *e, int w, uint8_t op, int reg, struct emem m,
    unsigned tail)
{
	unsigned rex = emem_rex(reg, &m) | (w ? 8 : 0);

	e->t1 += reg == H_T1;
	if (rex)
		emit8(e, 0x40 | rex);
	emit8(e, op);
	emit_modrm(e, reg, &m, tail);
}

/* One-byte opcode, register operands: reg field, rm field. */
static inline void emit_r(struct emit *e, int w, uint8_t op, int reg, int rm)
{
	unsigned rex = (w ? 8 : 0) | (reg >> 3 & 1) << 2 | (rm >> 3 & 1);

	e->t1 += reg == H_T1 || rm == H_T1;
	if (rex)
		emit8(e, 0x40 | rex);
	emit8(e, op);
	emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void emit_load(struct emit *e, int reg, struct emem m)
{
	emit_m(e, 1, 0x8b, reg, m, 0);
}

static inline void emit_store(struct emit *e, struct emem m, int reg)
{
	emit_m(e, 1, 0x89, reg, m, 0);
}

static inline void emit_lea(struct emit *e, int reg, struct emem m)
{
	emit_m(e, 1, 0x8d, reg, m, 0);
}

static inline void emit_mov(struct emit *e, int dst, int src)
{
	emit_r(e, 1, 0x8b, dst, src);
}

/* Shortest flag-preserving load of a constant. */
void emit_const(struct emit *e, int reg, uint64_t v);

static inline void emit_rel32(struct emit *e, const uint8_t *to)
{
	emit32(e, (uint32_t)(to - (emit_pc(e) + 4)));
}

static inline void emit_jmp(struct emit *e, const uint8_t *to)
{
	emit8(e, 0xe9);
	emit_rel32(e, to);
}

static inline void emit_call(struct emit *e, const uint8_t *to)
{
	emit8(e, 0xe8);
	emit_rel32(e, to);
}

static inline void emit_jcc(struct emit *e, unsigned cc, const uint8_t *to)
{
	emit8(e, 0x0f);
	emit8(e, 0x80 | cc);
	emit_rel32(e, to);
}

/* In the short form when it reaches. */
static inline void emit_jcc_near(struct emit *e, unsigned cc, const uint8_t *to)
{
	ptrdiff_t rel = to - (emit_pc(e) + 2);

	if (rel != (int8_t)rel) {
		emit_jcc(e, cc, to);
		return;
	}
	emit8(e, 0x70 | cc);
	emit8(e, (uint8_t)rel);
}

/* A short forward jump to be closed by emit_here(): returns where its byte is. */
static inline uint8_t *emit_short(struct emit *e, uint8_t op)
{
	emit8(e, op);
	emit8(e, 0);
	return e->p - 1;
}

static inline void emit_here(struct emit *e, uint8_t *at)
{
	*at = (uint8_t)(e->p - (at + 1));
}

#define OP_JRCXZ 0xe3
#define OP_JMP8	 0xeb

/* cmp [m], imm8 (sign-extended): 1, 4 or 8 bytes wide. */
static inline void emit_cmp_imm8(struct emit *e, unsigned size, struct emem m, int8_t imm)
{
	emit_m(e, size == 8, size == 1 ? 0x80 : 0x83, 7, m, 1);
	emit8(e, (uint8_t)imm);
}

/* Arithmetic flags into AH (SF ZF AF PF CF) and AL (OF), and back. */
static inline void emit_flags_get(struct emit *e)
{
	emit8(e, 0x9f);				/* lahf */
	emit8(e, 0x0f), emit8(e, 0x90), emit8(e, 0xc0); /* seto al */
}

static inline void emit_flags_put(struct emit *e)
{
	emit8(e, 0x04), emit8(e, 0x7f);		/* add al, 7fh: OF = old OF */
	emit8(e, 0x9e);				/* sahf */
}
