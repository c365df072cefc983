/*
 * Lockstep: the interpreter runs a block - or the part of it up to an instruction
 * that must not happen twice - and its stores are taken back; then the translator
 * runs the same, and registers, flags, FPU state, exceptions and the bytes stored
 * must agree. See lockstep.h.
 *
 * Invariants
 * - Translated code leaves at each block's end: nothing is linked, the table leads
 *   to the dispatcher, and helpers.c leaves whenever there is a choice.
 * - What the translator hands to the interpreter's handlers by design (tr_fallback),
 *   accesses outside RAM and stores to pages with code happen once, by the handler,
 *   with a comparison before and a new part behind.
 * - Each side keeps its own dead flags from block to block, so that a flag wrongly
 *   held to be dead shows as soon as somebody reads it.
 *
 * Not seen: stores of the translator where the interpreter stored nothing. Devices
 * that read memory meanwhile may see a store, its undoing, and the store again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/soft/fpu.h"
#include "cpu/soft/jit/lockstep.h"
#include "cpu/soft/jit/tr.h"
#include "lib/log.h"

#define NOWHERE	  UINT64_C(0x8000000000000000)
#define STORE_MAX 64u
#define LOG_MAX	  (4 * BLOCK_MAX) /* two accesses, each perhaps in two pages */

struct note {			/* of one instruction: RF_STATUS bits */
	uint16_t live, read, undefined, defined;
	bool handed;		/* to the interpreter */
	bool idle;		/* a NOP or prefetch: its operand is not accessed */
};

struct view {			/* what is compared */
	uint8_t fpu[XSAVE_SIZE] __attribute__((aligned(64)));
	uint64_t gpr[16], rip, rflags, gs_base, kernel_gs_base;
	bool raised;
	int vector;
	uint32_t error;
	uint64_t cr2;
};

struct store {
	uint64_t lin;
	uint8_t *host;
	unsigned size;
	uint8_t old[STORE_MAX], new[STORE_MAX];
};

struct lockstep {
	struct view before, interp, trans;
	struct note *notes;	/* parallel to j->pcs */
	const struct trans *t;
	unsigned from, to;	/* instructions of the part */
	bool active;		/* a part awaits its comparison */
	bool carried;		/* it began with dead flags that differ */
	/* Behind the instruction that a handler does; ~0: translated code runs. */
	unsigned handled;
	/* Flags at the end of the part: the SDM's undefined, and still different. */
	uint32_t undefined, dead;
	jmp_buf outer;
	unsigned nstores;
	struct store store[LOG_MAX];
	/* The interpreter's dead flags: good while rip and the other side's are these. */
	uint64_t carry_rip, carry_flushes;
	const struct trans *carry_from;
	uint32_t carry_seen, carry;
};

int lockstep_create(struct jit *j)
{
	struct lockstep *k = aligned_alloc(64, ROUND_UP(sizeof(*k), 64));

	if (!k)
		return -ENOMEM;
	memset(k, 0, sizeof(*k));
	k->carry_rip = NOWHERE;
	k->notes = mmap(NULL, JIT_PCS * sizeof(*k->notes), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (k->notes == MAP_FAILED) {
		free(k);
		return -ENOMEM;
	}
	j->lock = k;
	return 0;
}

void lockstep_destroy(struct jit *j)
{
	if (!j->lock)
		return;
	munmap(j->lock->notes, JIT_PCS * sizeof(*j->lock->notes));
	free(j->lock);
	j->lock = NULL;
}

static struct note *note_of(const struct jit *j, const struct trans *t, unsigned i)
{
	return &j->lock->notes[t->pc - j->pcs + i];
}

/* A count of zero, known at run time only. */
static bool may_keep_flags(const struct insn *in)
{
	const struct operand *o = &in->op[in->nopnd - 1];

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return in->nopnd < 2 || o->kind != OPND_IMM || !(in->imm & 31);
	default:
		return false;
	}
}

static bool is_idle(const ZydisDecodedInstruction *zi)
{
	return zi->meta.category == ZYDIS_CATEGORY_PREFETCH ||
	    zi->meta.category == ZYDIS_CATEGORY_NOP ||
	    zi->meta.category == ZYDIS_CATEGORY_WIDENOP;
}

void lockstep_note(struct jit *j, const struct tr *c)
{
	for (unsigned i = 0; i <= c->b->n; i++) {
		const ZydisAccessedFlags *f =
		    i < c->b->n && c->z[i].ok ? c->z[i].zi.cpu_flags : NULL;
		const struct insn *in = &c->b->insn[i];
		struct note *n = note_of(j, c->t, i);

		*n = (struct note){ .live = c->live_at[i] };
		if (i < c->b->n) {
			n->handed = c->handed >> i & 1;
			n->idle = is_idle(&c->z[i].zi);
		}
		if (!f)
			continue;
		n->read = in->mnemonic == ZYDIS_MNEMONIC_PUSHFQ ? RF_STATUS : in->flags_read;
		n->undefined = f->undefined & RF_STATUS;
		if (!may_keep_flags(in))
			n->defined = (f->modified | f->set_0 | f->set_1) & RF_STATUS;
	}
}

/* States. */

static void view_take(struct lockstep *k, struct soft_cpu *cpu, struct view *v)
{
	memcpy(v->gpr, cpu->gpr, sizeof(v->gpr));
	v->rip = cpu->rip;
	v->rflags = cpu->rflags;
	v->gs_base = cpu->seg[SEG_GS].base;
	v->kernel_gs_base = cpu->kernel_gs_base;
	v->raised = false;
	if (k->t->uses_fp)
		memcpy(v->fpu, fpu_ready(cpu), sizeof(v->fpu));
}

static void view_raised(struct soft_cpu *cpu, struct view *v)
{
	v->raised = true;
	v->vector = cpu->raise_vector;
	v->error = cpu->raise_has_error ? cpu->raise_error : 0;
	v->cr2 = v->vector == EXC_PF ? cpu->raise_cr2 : 0;
}

static void view_put(const struct lockstep *k, struct soft_cpu *cpu, const struct view *v)
{
	memcpy(cpu->gpr, v->gpr, sizeof(v->gpr));
	cpu->rip = cpu->next_rip = v->rip;
	cpu->rflags = v->rflags;
	cpu_update_mode(cpu);
	cpu->seg[SEG_GS].base = v->gs_base;
	cpu->kernel_gs_base = v->kernel_gs_base;
	if (k->t->uses_fp)
		memcpy(cpu->fpu, v->fpu, sizeof(v->fpu));
}

/* Memory. */

/*
 * Notes what an access of the next instruction overwrites. False: outside RAM, or
 * into code.
 */
static bool access_note(struct lockstep *k, struct soft_cpu *cpu, uint64_t lin,
    unsigned size, bool write)
{
	while (size) {
		const struct tlb_entry *e = tlb_slot(cpu, cpu->mmu_idx, lin);
		unsigned piece = MIN(size, 4096 - (unsigned)(lin & 0xfff));
		uint64_t gpa = e->gpa | (lin & 0xfff);
		struct store *s = &k->store[k->nstores];

		if (e->tag_r != (lin & MMU_PAGE_MASK) &&
		    mmu_translate(cpu, lin, &gpa) < 0)
			return true;	/* it will fault */
		if (!memory_is_ram(cpu->mem, gpa, piece))
			return false;
		if (write && atomic_load(&cpu->mem->code[gpa >> 12]))
			return false;
		if (write) {
			s->lin = lin;
			s->host = cpu->mem->base + gpa;
			s->size = piece;
			memcpy(s->old, s->host, piece);
			k->nstores++;
		}
		lin += piece;
		size -= piece;
	}
	return true;
}

static uint64_t operand_linear(const struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t lin = in->disp;

	if (in->flags & INSN_RIPREL)
		lin += cpu->rip + in->len;
	else if (in->base != REG_NONE)
		lin += cpu->gpr[in->base];
	if (in->index != REG_NONE)
		lin += cpu->gpr[in->index] * in->scale;
	if (tr_is_bit_string(in))
		lin += tr_bit_offset(cpu, in);
	if (in->addrsize == 4)
		lin = (uint32_t)lin;
	if (in->seg == SEG_FS || in->seg == SEG_GS)
		lin += cpu->seg[in->seg].base;
	return in->mode == MODE_64 ? lin : (uint32_t)lin;
}

/* The accesses of an instruction that the translator does itself. */
static bool accesses_note(struct lockstep *k, struct soft_cpu *cpu, const struct insn *in)
{
	unsigned word = in->mode == MODE_64 ? 8 : 4;
	uint64_t sp = cpu->gpr[GPR_RSP], mask = size_mask(word);
	bool ok = true;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_CALL:
		ok = access_note(k, cpu, (sp - word) & mask, word, true);
		break;
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_RET:
		ok = access_note(k, cpu, sp & mask, word, false);
		break;
	case ZYDIS_MNEMONIC_LEAVE:
		ok = access_note(k, cpu, cpu->gpr[GPR_RBP] & mask, word, false);
		break;
	default:
		break;
	}
	if (!(in->flags & (INSN_LOADS | INSN_STORES)))
		return ok;
	for (unsigned i = 0; ok && i < in->nopnd; i++)
		if (in->op[i].kind == OPND_MEM && in->op[i].size <= STORE_MAX)
			ok = access_note(k, cpu, operand_linear(cpu, in), in->op[i].size,
			    in->flags & INSN_STORES);
	return ok;
}

static void stores_undo(struct lockstep *k)
{
	for (unsigned i = 0; i < k->nstores; i++)
		memcpy(k->store[i].new, k->store[i].host, k->store[i].size);
	for (unsigned i = k->nstores; i-- > 0;)
		memcpy(k->store[i].host, k->store[i].old, k->store[i].size);
}

/* Comparison. */

static bool same_fpu(const struct view *a, const struct view *b)
{
	const struct fpu_image *f = (const void *)a->fpu, *g = (const void *)b->fpu;

	/* At #XM the interpreter does not know all flags (native.c), nor MMX state. */
	bool xm = a->raised && a->vector == EXC_XM;

	/* Instruction and operand pointers are kept by the interpreter only. */
	if (f->fcw != g->fcw || (f->mxcsr ^ g->mxcsr) & ~(xm ? FPU_FLAGS : 0))
		return false;
	if (!xm && (f->fsw != g->fsw || f->ftw != g->ftw))
		return false;
	for (unsigned i = 0; i < 8 && !xm; i++)
		if (memcmp(f->st[i], g->st[i], 10) != 0)
			return false;
	return !memcmp(f->xmm, g->xmm, sizeof(f->xmm)) &&
	    !memcmp(f->ymmh, g->ymmh, sizeof(f->ymmh));
}

static bool same_memory(const struct lockstep *k)
{
	for (unsigned i = 0; i < k->nstores; i++)
		if (memcmp(k->store[i].new, k->store[i].host, k->store[i].size) != 0)
			return false;
	return true;
}

/* What differs; NULL: nothing. flags: that count. */
static const char *difference(const struct lockstep *k, uint64_t flags)
{
	const struct view *a = &k->interp, *b = &k->trans;

	if (a->raised != b->raised || (a->raised &&
	    (a->vector != b->vector || a->error != b->error || a->cr2 != b->cr2)))
		return "the exception";
	if (a->rip != b->rip)
		return "rip";
	if (memcmp(a->gpr, b->gpr, sizeof(a->gpr)) != 0)
		return "registers";
	if ((a->rflags ^ b->rflags) & flags)
		return "flags";
	if (a->gs_base != b->gs_base || a->kernel_gs_base != b->kernel_gs_base)
		return "the base of GS";
	if (k->t->uses_fp && !same_fpu(a, b))
		return "the FPU's state";
	return same_memory(k) ? NULL : "memory";
}

/* The report. */

static void report_code(const struct trans *t, unsigned from, unsigned to)
{
	const struct block *b = t->b;
	uint64_t rip = t->rip;
	ZydisDisassembledInstruction di;
	ZydisMachineMode mode = b->mode == MODE_64 ? ZYDIS_MACHINE_MODE_LONG_64 :
	    ZYDIS_MACHINE_MODE_LEGACY_32;

	for (unsigned i = 0; i < b->n; i++) {
		bool ok = ZYAN_SUCCESS(ZydisDisassembleIntel(mode, rip,
		    b->insn[i].bytes, b->insn[i].len, &di));

		log_error("  %c %016llx  %s", i >= from && i < to ? '>' : ' ',
		    (unsigned long long)rip, ok ? di.text : "?");
		rip += b->insn[i].len;
	}
}

static void report_value(const char *name, uint64_t before, uint64_t a, uint64_t b)
{
	log_error("  %-8s %016llx %016llx %016llx%s", name, (unsigned long long)before,
	    (unsigned long long)a, (unsigned long long)b, a == b ? "" : "  <--");
}

static void report_fpu(const struct lockstep *k)
{
	const struct fpu_image *o = (const void *)k->before.fpu;
	const struct fpu_image *f = (const void *)k->interp.fpu;
	const struct fpu_image *g = (const void *)k->trans.fpu;
	static const char *const half[] = { "", "h", "yl", "yh" };
	char name[16];

	report_value("fcw", o->fcw, f->fcw, g->fcw);
	report_value("fsw", o->fsw, f->fsw, g->fsw);
	report_value("ftw", o->ftw, f->ftw, g->ftw);
	report_value("mxcsr", o->mxcsr, f->mxcsr, g->mxcsr);
	for (unsigned i = 0; i < 8; i++)
		for (unsigned h = 0; h < 2; h++) {
			uint64_t v[3] = { 0 };

			memcpy(&v[0], o->st[i] + 8 * h, h ? 2 : 8);
			memcpy(&v[1], f->st[i] + 8 * h, h ? 2 : 8);
			memcpy(&v[2], g->st[i] + 8 * h, h ? 2 : 8);
			snprintf(name, sizeof(name), "st%u%s", i, half[h]);
			if (v[1] != v[2])
				report_value(name, v[0], v[1], v[2]);
		}
	for (unsigned i = 0; i < 64; i++) {
		unsigned r = i / 4, h = i % 4, at = h % 2 * 8;
		uint64_t v[3];

		memcpy(&v[0], (h < 2 ? o->xmm : o->ymmh)[r] + at, 8);
		memcpy(&v[1], (h < 2 ? f->xmm : f->ymmh)[r] + at, 8);
		memcpy(&v[2], (h < 2 ? g->xmm : g->ymmh)[r] + at, 8);
		snprintf(name, sizeof(name), "xmm%u%s", r, half[h]);
		if (v[1] != v[2])
			report_value(name, v[0], v[1], v[2]);
	}
}

static void report_memory(const struct lockstep *k)
{
	for (unsigned i = 0; i < k->nstores; i++) {
		const struct store *s = &k->store[i];

		for (unsigned at = 0; at < s->size; at += 8) {
			uint64_t v[3] = { 0 };
			unsigned n = MIN(8u, s->size - at);

			memcpy(&v[0], s->old + at, n);
			memcpy(&v[1], s->new + at, n);
			memcpy(&v[2], s->host + at, n);
			log_error("  [%016llx], %u bytes", (unsigned long long)s->lin + at, n);
			report_value("", v[0], v[1], v[2]);
		}
	}
}

static void report_exception(const char *who, const struct view *v)
{
	if (v->raised)
		log_error("  %s: exception %d, error %#x, address %#llx", who, v->vector,
		    v->error, (unsigned long long)v->cr2);
}

static void report(const struct jit *j, const char *what, uint64_t flags)
{
	static const char *const name[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
		"rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15" };
	const struct lockstep *k = j->lock;
	const struct view *o = &k->before, *a = &k->interp, *b = &k->trans;

	log_error("lockstep: translator and interpreter differ in %s", what);
	log_error("block at physical %#llx, key %u; compared: instructions %u to %u",
	    (unsigned long long)k->t->b->gpa, k->t->keyid, k->from, k->to);
	if (k->carried && k->carry_flushes == j->stats.flushes && !k->carry_from->dead) {
		log_error("after this one, dead flags %#x in the interpreter, %#x in the translator:",
		    k->carry, k->carry_seen);
		report_code(k->carry_from, 0, 0);
		log_error("in this one:");
	}
	report_code(k->t, k->from, k->to);
	log_error("  %-8s %-16s %-16s %-16s", "", "before", "interpreter", "translator");
	for (unsigned i = 0; i < 16; i++)
		report_value(name[i], o->gpr[i], a->gpr[i], b->gpr[i]);
	report_value("rip", o->rip, a->rip, b->rip);
	report_value("rflags", o->rflags, a->rflags, b->rflags);
	log_error("  flags compared: %#llx", (unsigned long long)flags);
	report_value("gs", o->gs_base, a->gs_base, b->gs_base);
	report_value("other gs", o->kernel_gs_base, a->kernel_gs_base, b->kernel_gs_base);
	if (k->t->uses_fp)
		report_fpu(k);
	report_memory(k);
	report_exception("interpreter", a);
	report_exception("translator", b);
}

static void compare(struct jit *j, bool raised)
{
	struct lockstep *k = j->lock;
	struct soft_cpu *cpu = j->cpu;
	uint64_t live = note_of(j, k->t, k->to)->live;
	uint64_t flags = ~(uint64_t)RF_STATUS | (live & ~(k->undefined | k->dead));
	const char *what;

	k->active = false;
	j->stats.compared++;
	view_take(k, cpu, &k->trans);
	if (raised)
		view_raised(cpu, &k->trans);
	what = difference(k, flags);
	if (!what)
		return;
	report(j, what, flags);
	memcpy(cpu->env, k->outer, sizeof(cpu->env));
	cpu_give_up(cpu);
}

/* The interpreter's run of a part. */

/* False: no comparison makes sense. */
static bool interpret_part(struct jit *j)
{
	struct lockstep *k = j->lock;
	struct soft_cpu *cpu = j->cpu;
	const struct block *b = k->t->b;

	while (k->to < b->n) {
		const struct insn *in = &b->insn[k->to];
		const struct note *n = note_of(j, k->t, k->to);
		unsigned stores = k->nstores;

		if (n->handed)
			break;
		/* What it sees is not defined, and so is all that follows. */
		if (n->read & k->undefined)
			return false;
		if (!n->idle && !accesses_note(k, cpu, in)) {
			k->nstores = stores;
			break;
		}
		cpu->next_rip = (cpu->rip + in->len) & cpu->rip_mask;
		in->fn(cpu, in);
		cpu->rip = cpu->next_rip;
		k->undefined = (k->undefined & ~n->defined) | n->undefined;
		k->dead &= ~(n->defined | n->undefined);
		k->to++;
	}
	return true;
}

static void part_begin(struct jit *j, unsigned from)
{
	struct lockstep *k = j->lock;
	struct soft_cpu *cpu = j->cpu;
	bool shadow = cpu->shadow, waiting = cpu->intr_waiting;
	uint64_t rflags = cpu->rflags;
	jmp_buf env;

	k->active = true;
	memcpy(env, cpu->env, sizeof(env));
	k->from = k->to = from;
	k->nstores = 0;
	k->undefined = k->dead = 0;
	k->carried = from == 0 && cpu->rip == k->carry_rip &&
	    (rflags & RF_STATUS) == k->carry_seen;
	if (k->carried) {
		cpu->rflags = (rflags & ~(uint64_t)RF_STATUS) | k->carry;
		k->dead = k->carry ^ k->carry_seen;
	}
	view_take(k, cpu, &k->before);
	if (setjmp(cpu->env)) {
		cpu_update_mode(cpu);
		view_take(k, cpu, &k->interp);
		view_raised(cpu, &k->interp);
	} else {
		k->active = interpret_part(j);
		view_take(k, cpu, &k->interp);
	}
	memcpy(cpu->env, env, sizeof(env));
	stores_undo(k);
	view_put(k, cpu, &k->before);
	cpu->rflags = k->before.rflags;
	cpu->shadow = shadow;
	cpu->intr_waiting = waiting;
	cpu->stop_block = false;
}

void lockstep_insn(struct jit *j, unsigned i)
{
	struct lockstep *k = j->lock;

	k->handled = i + 1;
	if (k->active && i == k->to && !k->interp.raised)
		compare(j, false);
}

void lockstep_go_on(struct jit *j, unsigned i)
{
	j->lock->handled = ~0u;
	if (!j->lock->active)
		part_begin(j, i);
}

static uint64_t rip_of(const struct trans *t, unsigned i)
{
	uint64_t rip = t->rip;

	for (unsigned n = 0; n < i; n++)
		rip += t->b->insn[n].len;
	return rip;
}

/*
 * A handler may have changed so much that the translator does not go back into its
 * code: the interpreter does the rest.
 */
static void finish(struct jit *j)
{
	struct lockstep *k = j->lock;
	struct soft_cpu *cpu = j->cpu;
	const struct block *b = k->t->b;

	while (k->handled < k->to + k->interp.raised && k->handled < b->n &&
	    cpu->rip == rip_of(k->t, k->handled)) {
		const struct insn *in = &b->insn[k->handled++];

		cpu->next_rip = (cpu->rip + in->len) & cpu->rip_mask;
		in->fn(cpu, in);
		cpu->rip = cpu->next_rip;
	}
}

void lockstep_run(struct jit *j, struct block *b, struct trans *t)
{
	struct lockstep *k = j->lock;
	struct soft_cpu *cpu = j->cpu;
	uint64_t rflags = cpu->rflags;

	memcpy(k->outer, cpu->env, sizeof(cpu->env));
	k->t = t;
	k->handled = ~0u;
	part_begin(j, 0);
	k->carry_rip = NOWHERE;
	/* Each side has its own dead flags: see carry. */
	cpu->rflags = rflags;
	if (t->dead) {
		interp_block(cpu, b);
		return;
	}
	if (setjmp(cpu->env)) {
		memcpy(cpu->env, k->outer, sizeof(cpu->env));
		if (k->active)
			compare(j, true);
		longjmp(cpu->env, 1);
	}
	((void (*)(const uint8_t *))(uintptr_t)j->stub_enter)(t->entry);
	if (k->active) {
		finish(j);
		compare(j, false);
		k->carry_rip = cpu->rip;
		k->carry_from = t;
		k->carry_flushes = j->stats.flushes;
		k->carry_seen = cpu->rflags & RF_STATUS;
		k->carry = ((k->interp.rflags & ~k->undefined) | (cpu->rflags & k->undefined)) &
		    RF_STATUS;
	}
	memcpy(cpu->env, k->outer, sizeof(cpu->env));
}
