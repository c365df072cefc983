/* One translation in the making: shared by plan.c, memop.c, insn.c, branch.c. */
#pragma once

#include <Zydis/Zydis.h>

#include "cpu/soft/jit/priv.h"

/* Zydis' view of an instruction of the block. */
struct zinsn {
	bool ok;
	bool copy;		/* 64-bit code has the same encoding for it */
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand zo[ZYDIS_MAX_OPERAND_COUNT];
};

#define GROUPS_MAX 64u

/* Accesses under one check: see group.c. */
struct group {
	uint8_t base, index, scale, kind;
	uint8_t ver[2];
	uint8_t first, home;	/* instructions: first access, place of the check */
	uint8_t members;
	bool used;
	int32_t lo, hi;		/* from the base as it was when its version began */
	int32_t home_off;	/* of the base from there at home */
	uint32_t site;
};

struct member {
	uint8_t insn, base, index, scale, size, group;
	int32_t disp;
};

/* Base registers as constants from where their versions began, per instruction. */
struct track {
	uint8_t ver[16];
	int32_t off[16];
};

struct tr {
	struct jit *j;
	struct trans *t;
	struct block *b;
	const struct insn *in;	/* the instruction being translated */
	unsigned i;		/* its index */
	uint64_t rip, next;	/* of it, of the one after it */
	uint32_t live;		/* flags that must survive what is put before it */
	uint32_t live_after;	/* flags that must survive what is put after it */
	uint32_t key;
	unsigned keyid;
	unsigned word;		/* bytes of a pointer: 8, in compatibility mode 4 */
	uint64_t rip_mask;
	uint32_t live_at[BLOCK_MAX + 1];
	uint16_t off[BLOCK_MAX + 1]; /* of each instruction from the first */
	bool uses_fp;
	uint32_t site_of[BLOCK_MAX]; /* of each instruction's access; 0: none */
	bool fast;		/* the copies that need no checks: loop.c */
	uint32_t pinned[2];	/* there: sites whose deltas T0 and T1 hold; 0: none */
	uint32_t t1_site;	/* T1 holds the delta of its slot, if hot.t1 is still t1 */
	unsigned t1;
	uint64_t handed;	/* instructions left to the interpreter or a helper, as bits */
	unsigned ngroups, nmembers;
	struct group group[GROUPS_MAX];
	struct member member[2 * BLOCK_MAX];
	struct track track[BLOCK_MAX];
	struct zinsn z[BLOCK_MAX];
};

/* plan.c */
/* Ends a block without jumping, and leaves arithmetic flags alone. */
bool plan_transparent(const struct insn *in);
void plan(struct tr *c);
/* Flags that code at rip may read before writing, as far as can be seen. */
uint32_t plan_live_at(struct tr *c, uint64_t rip, unsigned budget);
bool plan_reads_at(struct tr *c, uint64_t rip);

/* group.c */
void group_plan(struct tr *c);
/* The group that covers an access of the current instruction, or NULL. */
const struct group *group_of(const struct tr *c, unsigned base, unsigned index,
    unsigned scale, int32_t disp, unsigned size, char kind);
/* The checks that belong before the current instruction. */
void group_checks(struct tr *c);

/* memop.c */
void mem_check_group(struct tr *c, struct group *g);
struct address {
	uint8_t base, index, scale, seg; /* as in struct insn */
	uint8_t addrsize;
	bool constant;
	uint64_t disp;		/* the address itself when constant */
};
/* False: the segment or the address size is none of ours. */
bool address_of(const struct tr *c, struct address *a);
/* Whether [base + disp] or a sum with an index is computed modulo 4 GiB. */
bool address_wraps(const struct tr *c, unsigned index, int64_t disp);
/* Whether it is a plain sum of registers, in the mode's width. */
bool mem_flat(const struct insn *in);
uint32_t site_new(struct tr *c);
/*
 * Checks that size bytes at a may be accessed; *m is then the host's operand. Uses
 * T1; uses T0 as well when it returns true.
 */
bool mem_check(struct tr *c, const struct address *a, unsigned size, char kind,
    struct emem *m);
/* Checks the address in T0. m may be NULL: the check alone. */
uint32_t mem_check_t0(struct tr *c, unsigned size, char kind, struct emem *m);
/* Whether mem_check() will use T0. */
bool mem_needs_t0(const struct tr *c, const struct address *a, unsigned size, char kind);
/* The same for [RSP + disp]. */
void stack_check(struct tr *c, int32_t disp, unsigned size, char kind, struct emem *m);
/* m becomes a single register, T0, so that T1 is free again. */
void mem_settle(struct tr *c, struct emem *m);

/* Moves of the width of a pointer. */
static inline void tr_load(struct tr *c, int reg, struct emem m)
{
	emit_m(&c->j->hot, c->word == 8, 0x8b, reg, m, 0);
}

static inline void tr_store(struct tr *c, struct emem m, int reg)
{
	emit_m(&c->j->hot, c->word == 8, 0x89, reg, m, 0);
}

/*
 * Before the first of an instruction's two accesses: a miss of the second begins the
 * instruction again, when T1 is not what the one before it left.
 */
static inline void tr_forget_t1(struct tr *c)
{
	c->j->hot.t1++;
}

/* The guest's stack pointer moves; flags stay. */
static inline void tr_add_sp(struct tr *c, int32_t n)
{
	emit_m(&c->j->hot, c->word == 8, 0x8d, H_GSP, emem_base(H_GSP, n), 0);
}

/* Number of a general register of 8 (low) to 64 bits, or -1. */
static inline int gpr_of(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_R15B)
		return r <= ZYDIS_REGISTER_BL ? r - ZYDIS_REGISTER_AL :
		    r - ZYDIS_REGISTER_AL - 4;
	if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
		return r - ZYDIS_REGISTER_AX;
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return r - ZYDIS_REGISTER_EAX;
	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return r - ZYDIS_REGISTER_RAX;
	return -1;
}

/* insn.c: false: leave it to the interpreter (nothing was emitted). */
/* What the instruction does is in its operands, and it may be copied at all. */
bool tr_may_copy(const ZydisDecodedInstruction *zi);
bool tr_generic(struct tr *c);
bool tr_lea(struct tr *c);
/* compat.c: an instruction that 64-bit code encodes differently; false as above. */
bool tr_compat(struct tr *c);
/* Loads a guest register into a host one, or says which one holds it. */
int guest_reg(struct tr *c, unsigned guest, int scratch);
void guest_put(struct tr *c, unsigned guest, int host);

/* stack.c */
bool tr_push(struct tr *c);
bool tr_pop(struct tr *c);
bool tr_leave(struct tr *c);

/* bit.c */
bool tr_is_bit_string(const struct insn *in);
/* From its operand to the word that holds the bit. */
int64_t tr_bit_offset(const struct soft_cpu *cpu, const struct insn *in);
bool tr_bit_string(struct tr *c);

/* system.c */
bool tr_system(struct tr *c);

/* loop.c: the rounds to come, to be emitted where a round ended and flags are dead. */
bool loop_fast(struct tr *c, unsigned cc, const uint8_t *again);

/* translate.c: c->i becomes the current instruction; and any but branches. */
void tr_enter(struct tr *c);
bool tr_middle(struct tr *c);

/* branch.c: the last instruction of the block. */
bool tr_branch(struct tr *c);
void tr_edge_jmp(struct tr *c, uint64_t rip);
void tr_edge_jcc(struct tr *c, unsigned cc, uint64_t rip);

void tr_fallback(struct tr *c);
