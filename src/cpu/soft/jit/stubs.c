/*
 * The ways in and out of generated code, made once per vCPU: entering, leaving,
 * calls of helpers, returns that do not match, and a translation's further entries.
 *
 * Slow stubs store all guest registers, call a helper on C's stack and go where
 * it says; fast ones keep what the integer-only C ABI preserves and save the rest.
 * Arguments: T1 = number of site or edge, T0 = address or target.
 */
#include "cpu/soft/jit/priv.h"

static struct emem gpr(const struct jit *j, unsigned n)
{
	return emem_at(&j->cpu->gpr[n]);
}

static const uint8_t kept[] = { 0, 1, 2, 3, 5, 6, 7, 8, 9, 12, 13, 14 };

static struct emem rflags_byte(const struct jit *j, unsigned n)
{
	return emem_at((const uint8_t *)&j->cpu->rflags + n);
}

/* Guest registers to cpu->gpr, arithmetic flags to cpu->rflags. RAX is lost. */
static void store_all(struct jit *j, struct emit *e)
{
	for (unsigned i = 0; i < sizeof(kept); i++)
		emit_store(e, gpr(j, kept[i]), kept[i]);
	emit_store(e, gpr(j, 4), H_GSP);
	emit_flags_get(e);
	emit8(e, 0x88);		/* mov [rflags], ah */
	emit_modrm(e, 4, &(struct emem){ -1, -1, 0, 0, &j->cpu->rflags }, 0);
	/* bit 3 of byte 1 = OF */
	emit_m(e, 0, 0x80, 4, rflags_byte(j, 1), 1), emit8(e, 0xf7);	/* and */
	emit8(e, 0xc0), emit8(e, 0xe0), emit8(e, 3);			/* shl al, 3 */
	emit_m(e, 0, 0x08, H_RAX, rflags_byte(j, 1), 0);		/* or */
}

static void load_all(struct jit *j, struct emit *e)
{
	emit_m(e, 0, 0x8a, H_RAX, rflags_byte(j, 1), 0);		/* mov al */
	emit8(e, 0xc0), emit8(e, 0xe8), emit8(e, 3);			/* shr al, 3 */
	emit8(e, 0x24), emit8(e, 1);					/* and al, 1 */
	emit8(e, 0x8a);							/* mov ah, [rflags] */
	emit_modrm(e, 4, &(struct emem){ -1, -1, 0, 0, &j->cpu->rflags }, 0);
	emit_flags_put(e);
	for (unsigned i = 0; i < sizeof(kept); i++)
		emit_load(e, kept[i], gpr(j, kept[i]));
	emit_load(e, H_GSP, gpr(j, 4));
}

static const uint8_t callee_saved[] = { H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15 };

static void push_pop(struct emit *e, uint8_t op, int reg)
{
	if (reg >= 8)
		emit8(e, 0x41);
	emit8(e, op | (reg & 7));
}

/* void enter(const uint8_t *host): T0 is loaded with the guest's RIP. */
static void make_enter(struct jit *j, struct emit *e)
{
	j->stub_enter = emit_pc(e);
	for (unsigned i = 0; i < sizeof(callee_saved); i++)
		push_pop(e, 0x50, callee_saved[i]);
	push_pop(e, 0x50, H_RAX); /* alignment */
	emit_mov(e, H_T1, H_RDI);
	emit_store(e, emem_at(&j->c_rsp), H_RSP);
	emit_load(e, H_RSP, emem_at(&j->rsp));
	load_all(j, e);
	emit_load(e, H_T0, emem_at(&j->cpu->rip));
	emit8(e, 0x41), emit8(e, 0xff), emit8(e, 0xe3); /* jmp r11 */
}

/* Calls *fn(j, T1, T0) with all state stored. */
static uint8_t *make_slow(struct jit *j, struct emit *e, const uint64_t *fn)
{
	uint8_t *start = emit_pc(e), *stay;

	store_all(j, e);
	emit_store(e, emem_at(&j->rsp), H_RSP);
	emit_load(e, H_RSP, emem_at(&j->c_rsp));
	emit_lea(e, H_RDI, emem_at(j));
	emit_r(e, 0, 0x8b, H_RSI, H_T1);
	emit_mov(e, H_RDX, H_T0);
	emit_m(e, 0, 0xff, 2, emem_at(fn), 0); /* call */
	emit_r(e, 1, 0x85, H_RAX, H_RAX);
	stay = emit_short(e, 0x75);
	push_pop(e, 0x58, H_RCX);
	for (unsigned i = sizeof(callee_saved); i-- > 0;)
		push_pop(e, 0x58, callee_saved[i]);
	emit8(e, 0xc3);
	emit_here(e, stay);
	emit_mov(e, H_T1, H_RAX);
	load_all(j, e);
	emit_load(e, H_RSP, emem_at(&j->rsp));
	emit_load(e, H_T0, emem_at(&j->cpu->rip));
	emit8(e, 0x41), emit8(e, 0xff), emit8(e, 0xe3); /* jmp r11 */
	return start;
}

static const uint8_t caller_saved[] = {
	[SAVED_RAX] = H_RAX, [SAVED_RCX] = H_RCX, [SAVED_RDX] = H_RDX,
	[SAVED_RSI] = H_RSI, [SAVED_RDI] = H_RDI, [SAVED_R8] = H_R8, [SAVED_R9] = H_R9,
};

/* Calls *fn(j, T1, T0), which uses integer registers only. */
static uint8_t *make_fast(struct jit *j, struct emit *e, const uint64_t *fn)
{
	uint8_t *start = emit_pc(e);

	for (unsigned i = 0; i < sizeof(caller_saved); i++)
		emit_store(e, emem_at(&j->save[i]), caller_saved[i]);
	emit_flags_get(e);
	emit_store(e, emem_at(&j->save[SAVED_FLAGS]), H_RAX);
	emit_store(e, emem_at(&j->rsp), H_RSP);
	emit_load(e, H_RSP, emem_at(&j->c_rsp));
	emit_lea(e, H_RDI, emem_at(j));
	emit_r(e, 0, 0x8b, H_RSI, H_T1);
	emit_mov(e, H_RDX, H_T0);
	emit_m(e, 0, 0xff, 2, emem_at(fn), 0);
	emit_mov(e, H_T1, H_RAX);
	emit_load(e, H_RSP, emem_at(&j->rsp));
	emit_load(e, H_RAX, emem_at(&j->save[SAVED_FLAGS]));
	emit_flags_put(e);
	for (unsigned i = 0; i < sizeof(caller_saved); i++)
		emit_load(e, caller_saved[i], emem_at(&j->save[i]));
	return start;
}

static struct emem field(int base, size_t at)
{
	return emem_base(base, (int32_t)at);
}

static void movzx(struct emit *e, unsigned size, int reg, struct emem m)
{
	emit8(e, 0x0f), emit8(e, size == 1 ? 0xb6 : 0xb7);
	emit_modrm(e, reg, &m, 0);
}

static void shift(struct emit *e, int w, unsigned ext, int reg, unsigned count)
{
	emit_r(e, w, 0xc1, (int)ext, reg);
	emit8(e, count);
}

enum { SHL = 4, SHR = 5 };

static const uint8_t refill_saved[] = { H_RCX, H_RDX, H_RSI };

static void refill_restore(struct jit *j, struct emit *e)
{
	for (unsigned i = 0; i < sizeof(refill_saved); i++)
		emit_load(e, refill_saved[i], emem_at(&j->save[i]));
	emit_load(e, H_RAX, emem_at(&j->save[7]));
	emit_flags_put(e);
	emit_load(e, H_RAX, emem_at(&j->save[6]));
}

/*
 * A miss that j->range can serve: fills the slot (T1) for the address (T0) as
 * jit_slot_fill() would, and does the instruction again. slow: what else to do.
 */
static void make_refill(struct jit *j, struct emit *e, const uint8_t *slow)
{
	emit_store(e, emem_at(&j->save[6]), H_RAX);
	emit_flags_get(e);
	emit_store(e, emem_at(&j->save[7]), H_RAX);
	for (unsigned i = 0; i < sizeof(refill_saved); i++)
		emit_store(e, emem_at(&j->save[i]), refill_saved[i]);
	/* rcx = slot */
	emit_r(e, 0, 0x8b, H_RAX, H_T1);
	shift(e, 1, SHL, H_RAX, 5);
	emit_lea(e, H_RCX, emem_at(j->slots));
	emit_r(e, 1, 0x03, H_RCX, H_RAX);
	/* rdx = tag, rsi = range */
	emit_mov(e, H_RDX, H_T0);
	shift(e, 1, SHR, H_RDX, 12);
	movzx(e, 2, H_RAX, field(H_RCX, offsetof(struct slot, kind)));
	emit_r(e, 0, 0x8b, H_RSI, H_RDX);
	emit_r(e, 0, 0x33, H_RSI, H_RAX);
	emit_r(e, 0, 0x81, 4, H_RSI), emit32(e, RANGE_COUNT - 1); /* and */
	shift(e, 0, SHL, H_RSI, 5);
	shift(e, 1, SHL, H_RDX, 28);
	emit_r(e, 1, 0x0b, H_RDX, H_RAX);
	emit_m(e, 1, 0x0b, H_RDX, emem_at(&j->range_gen), 0);
	emit_lea(e, H_RAX, emem_at(j->range));
	emit_r(e, 1, 0x03, H_RSI, H_RAX);
	emit_m(e, 1, 0x3b, H_RDX, field(H_RSI, offsetof(struct range, tag)), 0);
	emit_jcc(e, CC_NE, slow);
	/* rax = site */
	emit_r(e, 0, 0x8b, H_RAX, H_T1);
	shift(e, 1, SHL, H_RAX, SITE_SHIFT);
	emit_m(e, 1, 0x03, H_RAX, emem_at(&j->sites), 0);
	emit8(e, 0x66); /* sub word [], 1 */
	emit_m(e, 0, 0x83, 5, field(H_RAX, offsetof(struct site, refills)), 1), emit8(e, 1);
	emit_jcc(e, CC_E, slow);
	/* Already in the list it would be in, and not SLOT_ABS. */
	movzx(e, 1, H_RAX, field(H_RCX, offsetof(struct slot, listed)));
	emit_m(e, 0, 0x84, H_RAX, field(H_RSI, offsetof(struct range, list)), 0);
	emit_jcc(e, CC_E, slow);
	emit_m(e, 0, 0xf6, 0, field(H_RCX, SLOT_FLAGS_AT), 1), emit8(e, SLOT_ABS);
	emit_jcc(e, CC_NE, slow);
	/* rax = limit; the address must be below it */
	movzx(e, 2, H_RDX, field(H_RCX, offsetof(struct slot, size)));
	emit_m(e, 0, 0x8b, H_RAX, field(H_RSI, offsetof(struct range, len)), 0);
	emit_r(e, 1, 0x2b, H_RAX, H_RDX);
	emit_jcc(e, CC_B, slow);
	emit_r(e, 1, 0x83, 0, H_RAX), emit8(e, 1);
	emit_mov(e, H_RDX, H_T0);
	emit_m(e, 1, 0x2b, H_RDX, field(H_RSI, offsetof(struct range, start)), 0);
	emit_r(e, 1, 0x3b, H_RDX, H_RAX);
	emit_jcc(e, CC_AE, slow);
	emit_store(e, field(H_RCX, offsetof(struct slot, limit)), H_RAX);
	emit_load(e, H_RAX, field(H_RSI, offsetof(struct range, start)));
	emit_store(e, field(H_RCX, offsetof(struct slot, start)), H_RAX);
	emit_load(e, H_RAX, field(H_RSI, offsetof(struct range, delta)));
	emit_store(e, field(H_RCX, offsetof(struct slot, delta)), H_RAX);
	movzx(e, 1, H_RAX, field(H_RSI, offsetof(struct range, level)));
	emit_m(e, 0, 0x88, H_RAX, field(H_RCX, offsetof(struct slot, level)), 0);
	/* T1 = code_rx + sites[T1].retry */
	emit_r(e, 0, 0x8b, H_RAX, H_T1);
	shift(e, 1, SHL, H_RAX, SITE_SHIFT);
	emit_m(e, 1, 0x03, H_RAX, emem_at(&j->sites), 0);
	emit_m(e, 0, 0x8b, H_RAX, field(H_RAX, offsetof(struct site, retry)), 0);
	emit_lea(e, H_T1, emem_at(j->code_rx));
	emit_r(e, 1, 0x03, H_T1, H_RAX);
	refill_restore(j, e);
	emit8(e, 0x41), emit8(e, 0xff), emit8(e, 0xe3); /* jmp r11 */
}

/* A fast stub whose function says where to go on. */
static uint8_t *make_going(struct jit *j, struct emit *e, const uint64_t *fn)
{
	uint8_t *start = make_fast(j, e, fn);

	emit_load(e, H_T0, emem_at(&j->miss_addr));
	emit_m(e, 0, 0x8b, H_T1, emem_at(&j->miss_site), 0);
	emit_m(e, 0, 0xff, 4, emem_at(&j->miss_to), 0);
	return start;
}

static void make_miss(struct jit *j, struct emit *e)
{
	const uint8_t *slow = emit_pc(e);

	refill_restore(j, e);
	make_going(j, e, &j->ptr_miss);
	j->stub_miss = emit_pc(e);
	make_refill(j, e, slow);
}

/* Where T0 leads, by the table. */
void emit_table_jump(struct jit *j, struct emit *e, unsigned keyid, bool call)
{
	/* movzx r11d, r10w; jmp [r11 * 8 + table] */
	struct emem m = { H_NONE, H_T1, 3,
		(int32_t)(uintptr_t)(j->table + (size_t)keyid * JIT_TABLE), NULL };

	emit8(e, 0x45), emit8(e, 0x0f), emit8(e, 0xb7), emit8(e, 0xda);
	emit_m(e, 0, 0xff, call ? 2 : 4, m, 0);
}

/* A return whose pairing is lost: forget the other pairs, go by the table. */
static void make_returns(struct jit *j, struct emit *e, unsigned k)
{
	j->stub_ret_miss[k] = emit_pc(e);
	j->stub_under[k] = emit_pc(e);
	emit_load(e, H_RSP, emem_at(&j->pair_top[k]));
	emit_poll(j, e, true, j->stub_dispatch);
	emit_table_jump(j, e, k, false);
}

void stubs_make(struct jit *j)
{
	struct emit *e = &j->hot;
	uint8_t *slow;

	j->ptr_miss = (uint64_t)(uintptr_t)jit_miss;
	j->ptr_slow = (uint64_t)(uintptr_t)jit_h_slow;
	j->ptr_interp = (uint64_t)(uintptr_t)jit_h_interp;
	j->ptr_link = (uint64_t)(uintptr_t)jit_h_link;
	j->ptr_dispatch = (uint64_t)(uintptr_t)jit_h_dispatch;
	j->ptr_poll = (uint64_t)(uintptr_t)jit_h_poll;
	j->ptr_icall = (uint64_t)(uintptr_t)jit_h_icall;
	j->ptr_exact = (uint64_t)(uintptr_t)jit_h_exact;
	j->ptr_gate = (uint64_t)(uintptr_t)jit_gate;
	j->ptr_string = (uint64_t)(uintptr_t)jit_string;
	j->ptr_fpu = (uint64_t)(uintptr_t)jit_fpu_load;
	make_enter(j, e);
	slow = make_slow(j, e, &j->ptr_slow);
	j->stub_slow = slow;
	j->stub_interp = make_slow(j, e, &j->ptr_interp);
	j->stub_link = make_slow(j, e, &j->ptr_link);
	j->stub_dispatch = make_slow(j, e, &j->ptr_dispatch);
	j->stub_poll = make_slow(j, e, &j->ptr_poll);
	j->stub_icall = make_slow(j, e, &j->ptr_icall);
	j->stub_exact = make_slow(j, e, &j->ptr_exact);
	make_miss(j, e);
	j->stub_gate = make_going(j, e, &j->ptr_gate);
	j->stub_string = make_going(j, e, &j->ptr_string);
	j->stub_fpu = make_fast(j, e, &j->ptr_fpu);
	emit8(e, 0xc3);
	for (unsigned k = 0; k < JIT_KEYS; k++) {
		make_returns(j, e, k);
		*(uint64_t *)j->pair_top[k] = (uint64_t)(uintptr_t)j->stub_under[k];
	}
	j->hot_start = j->hot.p;
	j->cold_start = j->cold.p;
}

/* Jumps to miss when the byte is zero. Clobbers flags or T1. */
void emit_byte_check(struct emit *e, struct emem m, bool live, const uint8_t *miss)
{
	uint8_t *zero, *over;

	if (!live) {
		emit_cmp_imm8(e, 1, m, 0);
		emit_jcc(e, CC_E, miss);
		return;
	}
	emit_mov(e, H_T1, H_RCX);
	emit8(e, 0x0f), emit8(e, 0xb6);	/* movzx ecx, byte */
	emit_modrm(e, H_RCX, &m, 0);
	zero = emit_short(e, OP_JRCXZ);
	emit_mov(e, H_RCX, H_T1);
	over = emit_short(e, OP_JMP8);
	emit_here(e, zero);
	emit_mov(e, H_RCX, H_T1);
	emit_jmp(e, miss);
	emit_here(e, over);
}

void emit_token_check(struct jit *j, struct emit *e, int32_t tok, bool live,
    const uint8_t *miss)
{
	emit_byte_check(e, emem_at(&j->tok_valid[tok]), live, miss);
}

static void check_tokens(struct jit *j, struct emit *e, const struct trans *t, bool live)
{
	for (int i = 0; i < 2; i++)
		if (t->tok[i] >= 0)
			emit_token_check(j, e, t->tok[i], live, j->stub_dispatch);
}

/*
 * Made when first needed. When cold memory is short they are not made, and their users
 * go the long way until the next translation empties the cache.
 */
void entry_tok_make(struct jit *j, struct trans *t)
{
	struct emit *e = &j->cold;

	if (e->end - e->p < ENTRY_MAX)
		return;
	t->entry_tok = emit_pc(e);
	emit_const(e, H_T0, t->rip);
	check_tokens(j, e, t, t->live_in != 0);
	emit_jmp(e, t->entry);
}

/* Jumps to miss when T0 is not rip. Clobbers T1, and flags unless live. */
void emit_expect(struct emit *e, uint64_t rip, bool live, const uint8_t *miss)
{
	uint8_t *equal;

	if (live) {
		emit_mov(e, H_T1, H_RCX);
		emit_const(e, H_RCX, -rip);
		emit_lea(e, H_RCX, emem_sum(H_RCX, H_T0, 0));
		equal = emit_short(e, OP_JRCXZ);
		emit_mov(e, H_RCX, H_T1);
		emit_jmp(e, miss);
		emit_here(e, equal);
		emit_mov(e, H_RCX, H_T1);
	} else if ((int64_t)rip == (int32_t)rip) {
		emit_r(e, 1, 0x81, 7, H_T0);
		emit32(e, (uint32_t)rip);
		emit_jcc(e, CC_NE, miss);
	} else {
		emit_const(e, H_T1, rip);
		emit_r(e, 1, 0x3b, H_T0, H_T1);
		emit_jcc(e, CC_NE, miss);
	}
}

/* Jumps to at when the byte (or doubleword) is not zero. */
static void nonzero(struct emit *e, unsigned size, struct emem m, bool live,
    const uint8_t *at)
{
	uint8_t *none;

	if (!live) {
		emit_cmp_imm8(e, size, m, 0);
		emit_jcc(e, CC_NE, at);
		return;
	}
	emit_mov(e, H_T1, H_RCX);
	if (size == 1) {
		emit8(e, 0x0f), emit8(e, 0xb6);	/* movzx ecx, byte */
		emit_modrm(e, H_RCX, &m, 0);
	} else {
		emit_m(e, 0, 0x8b, H_RCX, m, 0);
	}
	none = emit_short(e, OP_JRCXZ);
	emit_mov(e, H_RCX, H_T1);
	emit_jmp(e, at);
	emit_here(e, none);
	emit_mov(e, H_RCX, H_T1);
}

void emit_byte_clear(struct emit *e, struct emem m, bool live, const uint8_t *at)
{
	nonzero(e, 1, m, live, at);
}

/* Jumps to at when there are events. */
void emit_poll(struct jit *j, struct emit *e, bool live, const uint8_t *at)
{
	nonzero(e, 4, emem_at(&j->cpu->link.events), live, at);
}

void entry_ind_make(struct jit *j, struct trans *t)
{
	struct emit *e = &j->cold;

	if (e->end - e->p < ENTRY_MAX)
		return;
	t->entry_ind = emit_pc(e);
	/* Whoever is meant if it is not t may read flags, whatever t does. */
	emit_expect(e, t->rip, true, j->stub_dispatch);
	check_tokens(j, e, t, true);
	emit_jmp(e, t->entry);
}
