/*
 * Hot system instructions that need no helper: at CPL 0 (a kernel's key means
 * exactly that) CLI, STI, SWAPGS, STAC, CLAC, reads of control registers; anywhere
 * RDTSC, RDTSCP, PUSHFQ, CLD, STD, reads of segment registers, the bases of FS and GS.
 *
 * STI holds interrupts off for one instruction. When no interrupt waits nobody can
 * tell, so only intr_waiting sends it to the interpreter.
 */
#include "cpu/soft/jit/tr.h"

static struct emem rflags_byte(const struct tr *c, unsigned n)
{
	return emem_at((const uint8_t *)&c->j->cpu->rflags + n);
}

static void flags_hold(struct tr *c)
{
	if (!c->live)
		return;
	emit_store(&c->j->hot, emem_at(&c->j->rax), H_RAX);
	emit_flags_get(&c->j->hot);
}

static void flags_release(struct tr *c)
{
	if (!c->live)
		return;
	emit_flags_put(&c->j->hot);
	emit_load(&c->j->hot, H_RAX, emem_at(&c->j->rax));
}

/* Sets or clears a bit of byte n of RFLAGS. */
static bool rflag(struct tr *c, unsigned n, uint8_t bit, bool set)
{
	struct emit *e = &c->j->hot;

	flags_hold(c);
	emit_m(e, 0, 0x80, set ? 1 : 4, rflags_byte(c, n), 1); /* or, and */
	emit8(e, set ? bit : (uint8_t)~bit);
	flags_release(c);
	return true;
}

static bool cli(struct tr *c)
{
	return rflag(c, 1, RF_IF >> 8, false);
}

/*
 * STAC, CLAC: what follows has another key, and its pairing stack. Without SMAP AC
 * means nothing to a kernel.
 */
static bool write_ac(struct tr *c, bool set)
{
	struct jit *j = c->j;
	struct emit *e = &j->hot;
	enum mmu_idx idx = set ? MMU_KERNEL : MMU_KERNEL_SMAP;
	unsigned k;

	if (!(cpu_policy(j->cpu)->cr4_mask & CR4_SMAP))
		return false;
	if (!(c->key & KEY_SMAP) || key_idx(c->key) == idx)
		return rflag(c, 2, RF_AC >> 16, set);
	k = key_number(j, (c->key & ~KEY_IDX_MASK) | idx);
	if (k == JIT_KEYS)
		return false;
	rflag(c, 2, RF_AC >> 16, set);
	emit_m(e, 0, 0xc6, 0, emem_at(&j->cpu->mmu_idx), 1), emit8(e, idx);
	emit_m(e, 0, 0xc7, 0, emem_at(&j->keyid), 4), emit32(e, k);
	emit_store(e, emem_at(&j->pair_rsp[c->keyid]), H_RSP);
	emit_load(e, H_RSP, emem_at(&j->pair_rsp[k]));
	return true;
}

static bool sti(struct tr *c)
{
	struct emit *e = &c->j->hot, *cold = &c->j->cold;
	const uint8_t *at = emit_pc(cold);

	emit_const(cold, H_T1, site_new(c));
	emit_jmp(cold, c->j->stub_interp);
	emit_byte_clear(e, emem_at(&c->j->cpu->intr_waiting), c->live != 0, at);
	return rflag(c, 1, RF_IF >> 8, true);
}

static bool swapgs(struct tr *c)
{
	struct soft_cpu *cpu = c->j->cpu;
	struct emit *e = &c->j->hot;

	emit_load(e, H_T0, emem_at(&cpu->seg[SEG_GS].base));
	emit_load(e, H_T1, emem_at(&cpu->kernel_gs_base));
	emit_store(e, emem_at(&cpu->kernel_gs_base), H_T0);
	emit_store(e, emem_at(&cpu->seg[SEG_GS].base), H_T1);
	return true;
}

/* EDX:EAX without touching flags: rotations and sums by LEA. */
static bool rdtsc(struct tr *c, bool aux)
{
	static const uint8_t read[] = {
		0x0f, 0x31,				/* rdtsc */
		0xc4, 0xe3, 0xfb, 0xf0, 0xd2, 0x20,	/* rorx rdx, rdx, 32 */
		0x48, 0x8d, 0x04, 0x10,			/* lea rax, [rax + rdx] */
	}, split[] = {
		0xc4, 0xe3, 0xfb, 0xf0, 0xd0, 0x20,	/* rorx rdx, rax, 32 */
		0x89, 0xd2, 0x89, 0xc0,			/* mov edx, edx; mov eax, eax */
	};
	struct emit *e = &c->j->hot;

	/* No two of them are the same: not to be compared. */
	if (c->j->lock)
		return false;
	if (c->key & KEY_TSD || !__builtin_cpu_supports("bmi2") ||
	    (aux && !cpu_policy(c->j->cpu)->rdtscp))
		return false;
	memcpy(e->p, read, sizeof(read));
	e->p += sizeof(read);
	emit_load(e, H_T0, emem_at(&c->j->cpu->tsc_offset));
	emit_lea(e, H_RAX, emem_sum(H_RAX, H_T0, 0));
	memcpy(e->p, split, sizeof(split));
	e->p += sizeof(split);
	if (aux)
		emit_m(e, 0, 0x8b, H_RCX, emem_at(&c->j->cpu->tsc_aux), 0);
	return true;
}

static bool pushfq(struct tr *c)
{
	struct emit *e = &c->j->hot;
	struct emem m;

	if (c->in->stacksize != 8)
		return false;
	stack_check(c, -8, 8, 'w', &m);
	emit_store(e, emem_at(&c->j->rax), H_RAX);
	emit_flags_get(e);
	emit8(e, 0x88); /* mov [rflags], ah */
	emit_modrm(e, 4, &(struct emem){ -1, -1, 0, 0, &c->j->cpu->rflags }, 0);
	emit_m(e, 0, 0x80, 4, rflags_byte(c, 1), 1), emit8(e, 0xf7);	/* and */
	emit8(e, 0xc0), emit8(e, 0xe0), emit8(e, 3);			/* shl al, 3 */
	emit_m(e, 0, 0x08, H_RAX, rflags_byte(c, 1), 0);		/* or [], al */
	emit8(e, 0xc0), emit8(e, 0xe8), emit8(e, 3);			/* shr al, 3 */
	emit_load(e, H_T0, emem_at(&c->j->cpu->rflags));
	emit_flags_put(e);
	emit_load(e, H_RAX, emem_at(&c->j->rax));
	emit_store(e, m, H_T0);
	emit_lea(e, H_GSP, emem_base(H_GSP, -8));
	return true;
}

/* Where the instruction's register operand is to be made: T0 if it is in memory. */
static int target(const struct tr *c)
{
	return spilled(c->in->op[0].reg) ? H_T0 : host_reg(c->in->op[0].reg);
}

static void target_put(struct tr *c)
{
	if (spilled(c->in->op[0].reg))
		guest_put(c, c->in->op[0].reg, H_T0);
}

static bool read_selector(struct tr *c)
{
	struct emem m = emem_at(&c->j->cpu->seg[c->in->op[1].reg].sel);
	struct emit *e = &c->j->hot;
	int r = target(c);

	if (c->in->op[1].reg > SEG_GS || c->in->opsize == 2)
		return false;
	if (r >= 8)
		emit8(e, 0x44);
	emit8(e, 0x0f), emit8(e, 0xb7);	/* movzx */
	emit_modrm(e, r, &m, 0);
	target_put(c);
	return true;
}

static bool read_control(struct tr *c)
{
	const struct soft_cpu *cpu = c->j->cpu;
	const uint64_t *cr[] = { &cpu->cr0, NULL, &cpu->cr2, &cpu->cr3, &cpu->cr4 };
	unsigned n = c->in->op[1].reg;

	if (n >= ARRAY_SIZE(cr) || !cr[n])
		return false;
	emit_load(&c->j->hot, target(c), emem_at(cr[n]));
	target_put(c);
	return true;
}

static bool move(struct tr *c, bool kernel)
{
	if (c->word != 8 || c->in->op[0].kind != OPND_GPR)
		return false;
	if (c->in->op[1].kind == OPND_SEG)
		return read_selector(c);
	return c->in->op[1].kind == OPND_CR && kernel && read_control(c);
}

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE; the interpreter knows why not. */
static bool base(struct tr *c, unsigned seg, bool write)
{
	struct soft_cpu *cpu = c->j->cpu;
	struct emit *e = &c->j->hot, *cold = &c->j->cold;
	const uint8_t *at = emit_pc(cold);
	struct emem m = emem_at(&cpu->seg[seg].base);

	if (c->word != 8 || c->in->opsize != 8 || c->live)
		return false;
	emit_const(cold, H_T1, site_new(c));
	emit_jmp(cold, c->j->stub_interp);
	emit_m(e, 0, 0xf6, 0, emem_at((const uint8_t *)&cpu->cr4 + 2), 1); /* test */
	emit8(e, CR4_FSGSBASE >> 16);
	emit_jcc(e, CC_E, at);
	if (!write) {
		emit_load(e, target(c), m);
		target_put(c);
		return true;
	}
	/* Canonical: the same when its upper 16 bits are made from bit 47. */
	emit_mov(e, H_T0, guest_reg(c, c->in->op[0].reg, H_T0));
	emit_mov(e, H_T1, H_T0);
	emit_r(e, 1, 0xc1, 4, H_T1), emit8(e, 16); /* shl */
	emit_r(e, 1, 0xc1, 7, H_T1), emit8(e, 16); /* sar */
	emit_r(e, 1, 0x3b, H_T1, H_T0);
	emit_jcc(e, CC_NE, at);
	emit_store(e, m, H_T0);
	return true;
}

bool tr_system(struct tr *c)
{
	bool kernel = key_idx(c->key) != MMU_USER;

	switch (c->in->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		return move(c, kernel);
	case ZYDIS_MNEMONIC_RDFSBASE:
		return base(c, SEG_FS, false);
	case ZYDIS_MNEMONIC_RDGSBASE:
		return base(c, SEG_GS, false);
	case ZYDIS_MNEMONIC_WRFSBASE:
		return base(c, SEG_FS, true);
	case ZYDIS_MNEMONIC_WRGSBASE:
		return base(c, SEG_GS, true);
	case ZYDIS_MNEMONIC_CLI:
		return kernel && cli(c);
	case ZYDIS_MNEMONIC_STI:
		return kernel && sti(c);
	case ZYDIS_MNEMONIC_SWAPGS:
		return kernel && swapgs(c);
	case ZYDIS_MNEMONIC_STAC:
		return kernel && write_ac(c, true);
	case ZYDIS_MNEMONIC_CLAC:
		return kernel && write_ac(c, false);
	case ZYDIS_MNEMONIC_CLD:
		return rflag(c, 1, 1u << 2, false);
	case ZYDIS_MNEMONIC_STD:
		return rflag(c, 1, 1u << 2, true);
	case ZYDIS_MNEMONIC_RDTSC:
		return rdtsc(c, false);
	case ZYDIS_MNEMONIC_RDTSCP:
		return rdtsc(c, true);
	case ZYDIS_MNEMONIC_PUSHFQ:
		return pushfq(c);
	default:
		return false;
	}
}
