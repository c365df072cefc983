/* One translation in the making: shared by plan.c, memop.c, insn.c, branch.c. */
#pragma once

#include "cpu/soft/jit/priv.h"

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
	uint32_t live_at[BLOCK_MAX + 1];
	uint16_t off[BLOCK_MAX + 1]; /* of each instruction from the first */
	bool uses_fp;
};

/* plan.c */
void plan(struct tr *c);
/* Flags that code at rip may read before writing, as far as can be seen. */
uint32_t plan_live_at(struct tr *c, uint64_t rip, unsigned budget);

/* memop.c */
struct address {
	uint8_t base, index, scale, seg; /* as in struct insn */
	uint8_t addrsize;
	bool constant;
	uint64_t disp;		/* the address itself when constant */
};
void address_of(const struct tr *c, struct address *a);
uint32_t site_new(struct tr *c);
/*
 * Checks that size bytes at a may be accessed; *m is then the host's operand. Uses
 * T1; uses T0 as well when it returns true.
 */
bool mem_check(struct tr *c, const struct address *a, unsigned size, char kind,
    struct emem *m);
/* The same for [RSP + disp]. */
void stack_check(struct tr *c, int32_t disp, unsigned size, char kind, struct emem *m);
/* m becomes a single register, T0, so that T1 is free again. */
void mem_settle(struct tr *c, struct emem *m);

/* insn.c: false: leave it to the interpreter (nothing was emitted). */
bool tr_generic(struct tr *c);
bool tr_lea(struct tr *c);
/* Loads a guest register into a host one, or says which one holds it. */
int guest_reg(struct tr *c, unsigned guest, int scratch);
void guest_put(struct tr *c, unsigned guest, int host);

/* stack.c */
bool tr_push(struct tr *c);
bool tr_pop(struct tr *c);
bool tr_leave(struct tr *c);

/* branch.c: the last instruction of the block. */
bool tr_branch(struct tr *c);
void tr_edge_jmp(struct tr *c, uint64_t rip);
void tr_edge_jcc(struct tr *c, unsigned cc, uint64_t rip);

void tr_fallback(struct tr *c);
