/*
 * The x87's control instructions and environment images (SDM vol. 1, 8.1.10), and
 * the upkeep of the FPU image. What only reads or writes FCW, FSW and tags is
 * done here on the image; the host's unit is not needed for it.
 *
 * Invariant: an instruction reads and probes all its memory before it changes
 * the image.
 */
#include <string.h>

#include <Zydis/Zydis.h>

#include "cpu/soft/fpu.h"

void fpu_normalise(struct soft_cpu *cpu)
{
	struct fpu_image *f = fpu_image(cpu);

	if (!(f->xstate_bv & FPU_X87)) {
		memset(f, 0, offsetof(struct fpu_image, mxcsr));
		memset(f->st, 0, sizeof(f->st));
		f->fcw = FPU_FCW_INIT;
	}
	if (!(f->xstate_bv & FPU_SSE))
		memset(f->xmm, 0, sizeof(f->xmm));
	if (!(f->xstate_bv & FPU_AVX))
		memset(f->ymmh, 0, sizeof(f->ymmh));
	f->mxcsr &= FPU_MXCSR_MASK;
	f->mxcsr_mask = FPU_MXCSR_MASK;
	f->fcw = (f->fcw & FPU_FCW_BITS) | FPU_FCW_FIXED;
	f->fop &= 0x7ff;
	fpu_update_es(f);
	f->xstate_bv = FPU_ALL;
	f->xcomp_bv = 0;
}

static bool all_zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	return b[0] == 0 && memcmp(b, b + 1, n - 1) == 0;
}

uint64_t fpu_xinuse(struct soft_cpu *cpu)
{
	const struct fpu_image *f = fpu_ready(cpu);
	uint64_t inuse = 0;

	if (f->fcw != FPU_FCW_INIT || f->fsw != 0 || f->ftw != 0 || f->fop != 0 ||
	    f->fip != 0 || f->fdp != 0 || !all_zero(f->st, sizeof(f->st)))
		inuse |= FPU_X87;
	if (!all_zero(f->xmm, sizeof(f->xmm)))
		inuse |= FPU_SSE;
	if (!all_zero(f->ymmh, sizeof(f->ymmh)))
		inuse |= FPU_AVX;
	return inuse;
}

void fpu_set_top(struct fpu_image *f, unsigned top)
{
	unsigned by = (top - fpu_top(f)) & 7;
	uint8_t st[8][16];

	if (by == 0)
		return;
	memcpy(st, f->st, sizeof(st));
	for (unsigned i = 0; i < 8; i++)
		memcpy(f->st[i], st[(i + by) & 7], sizeof(st[0]));
	f->fsw = (f->fsw & ~(7u << FSW_TOP_SHIFT)) | top << FSW_TOP_SHIFT;
}

static void fpu_init(struct fpu_image *f)
{
	fpu_set_top(f, 0);
	f->fcw = FPU_FCW_INIT;
	f->fsw = 0;
	f->ftw = 0;
	f->fop = 0;
	f->fip = f->fdp = 0;
}

/* Two bits a physical register: valid, zero, special, empty. */
static uint16_t full_tags(const struct fpu_image *f)
{
	uint16_t tags = 0;

	for (unsigned i = 0; i < 8; i++) {
		const uint8_t *r = f->st[(i - fpu_top(f)) & 7];
		uint64_t mant;
		uint16_t exp;
		unsigned tag;

		memcpy(&mant, r, 8);
		memcpy(&exp, r + 8, 2);
		exp &= 0x7fff;
		if (!(f->ftw >> i & 1))
			tag = 3;
		else if (exp == 0 && mant == 0)
			tag = 1;
		else if (exp == 0 || exp == 0x7fff || !(mant >> 63))
			tag = 2;
		else
			tag = 0;
		tags |= tag << (2 * i);
	}
	return tags;
}

static uint8_t short_tags(uint16_t tags)
{
	uint8_t ftw = 0;

	for (unsigned i = 0; i < 8; i++) {
		if ((tags >> (2 * i) & 3) != 3)
			ftw |= BIT(i);
	}
	return ftw;
}

static void put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, 4);
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return v;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

/*
 * The environment: 14 bytes with 16-bit, 28 with 32-bit operand size. Selectors
 * are stored as zero, as CPUID says (leaf 7, EBX bit 13). In real and virtual
 * 8086 mode the pointers are linear and the opcode is stored too.
 */
static unsigned env_size(const struct insn *in)
{
	return in->op[0].size == 14 || in->op[0].size == 14 + 80 ? 14 : 28;
}

static void env_write(
    const struct soft_cpu *cpu, const struct fpu_image *f, bool wide, uint8_t *p)
{
	uint32_t fip = (uint32_t)f->fip, fdp = (uint32_t)f->fdp;
	bool prot = cpu->protected_mode;

	if (!wide) {
		put16(p, f->fcw);
		put16(p + 2, f->fsw);
		put16(p + 4, full_tags(f));
		put16(p + 6, (uint16_t)fip);
		put16(p + 8, prot ? 0 : (fip >> 16 & 0xf) << 12 | f->fop);
		put16(p + 10, (uint16_t)fdp);
		put16(p + 12, prot ? 0 : (fdp >> 16 & 0xf) << 12);
		return;
	}
	put32(p, 0xffff0000u | f->fcw);
	put32(p + 4, 0xffff0000u | f->fsw);
	put32(p + 8, 0xffff0000u | full_tags(f));
	if (prot) {
		put32(p + 12, fip);
		put32(p + 16, (uint32_t)f->fop << 16);
		put32(p + 20, fdp);
		put32(p + 24, 0xffff0000u);
	} else {
		put32(p + 12, 0xffff0000u | (fip & 0xffff));
		put32(p + 16, (fip >> 16) << 12 | f->fop);
		put32(p + 20, 0xffff0000u | (fdp & 0xffff));
		put32(p + 24, (fdp >> 16) << 12);
	}
}

static void env_read(
    const struct soft_cpu *cpu, struct fpu_image *f, bool wide, const uint8_t *p)
{
	bool prot = cpu->protected_mode;
	uint16_t tags;

	fpu_set_top(f, get16(p + (wide ? 4 : 2)) >> FSW_TOP_SHIFT & 7);
	if (!wide) {
		f->fcw = get16(p);
		f->fsw = get16(p + 2);
		tags = get16(p + 4);
		f->fip = get16(p + 6);
		f->fdp = get16(p + 10);
		if (!prot) {
			f->fip |= (uint32_t)(get16(p + 8) >> 12) << 16;
			f->fop = get16(p + 8) & 0x7ff;
			f->fdp |= (uint32_t)(get16(p + 12) >> 12) << 16;
		}
	} else {
		f->fcw = get16(p);
		f->fsw = get16(p + 4);
		tags = get16(p + 8);
		if (prot) {
			f->fip = get32(p + 12);
			f->fop = get16(p + 18) & 0x7ff;
			f->fdp = get32(p + 20);
		} else {
			f->fip = get16(p + 12) | (get32(p + 16) >> 12) << 16;
			f->fop = get32(p + 16) & 0x7ff;
			f->fdp = get16(p + 20) | (get32(p + 24) >> 12) << 16;
		}
	}
	f->fcw = (f->fcw & FPU_FCW_BITS) | FPU_FCW_FIXED;
	f->ftw = short_tags(tags);
	fpu_update_es(f);
}

static void do_fninit(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	fpu_check_x87(cpu);
	fpu_init(fpu_ready(cpu));
}

static void do_fnclex(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	fpu_check_x87(cpu);
	fpu_ready(cpu)->fsw &= ~(FPU_FLAGS | 0x40u | FSW_ES | FSW_B);
}

static void do_fnop_control(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	fpu_check_x87(cpu);
}

static void do_fwait(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		cpu_raise(cpu, EXC_NM);
	fpu_check_pending(cpu);
}

static void do_fnstcw(struct soft_cpu *cpu, const struct insn *in)
{
	fpu_check_x87(cpu);
	mmu_store(cpu, insn_linear(cpu, in, 2, true), 2, fpu_ready(cpu)->fcw);
}

static void do_fnstsw(struct soft_cpu *cpu, const struct insn *in)
{
	fpu_check_x87(cpu);
	mmu_store(cpu, insn_linear(cpu, in, 2, true), 2, fpu_ready(cpu)->fsw);
}

static void do_fnstsw_ax(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	fpu_check_x87(cpu);
	gpr_set(cpu, GPR_RAX, 2, fpu_ready(cpu)->fsw);
}

static void do_fldcw(struct soft_cpu *cpu, const struct insn *in)
{
	struct fpu_image *f;
	uint16_t v;

	fpu_check_x87(cpu);
	fpu_check_pending(cpu);
	v = (uint16_t)mmu_load(cpu, insn_linear(cpu, in, 2, false), 2);
	f = fpu_ready(cpu);
	f->fcw = (v & FPU_FCW_BITS) | FPU_FCW_FIXED;
	fpu_update_es(f);
}

static void do_fnstenv(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned n = env_size(in);
	struct fpu_image *f;
	uint8_t env[28];

	fpu_check_x87(cpu);
	f = fpu_ready(cpu);
	env_write(cpu, f, n == 28, env);
	mmu_store_bytes(cpu, insn_linear(cpu, in, n, true), env, n);
	f->fcw |= FPU_FLAGS;
	fpu_update_es(f);
}

static void do_fldenv(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned n = env_size(in);
	uint8_t env[28];

	fpu_check_x87(cpu);
	fpu_check_pending(cpu);
	mmu_load_bytes(cpu, insn_linear(cpu, in, n, false), env, n);
	env_read(cpu, fpu_ready(cpu), n == 28, env);
}

static void do_fnsave(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned n = env_size(in);
	struct fpu_image *f;
	uint8_t area[28 + 80];

	fpu_check_x87(cpu);
	f = fpu_ready(cpu);
	env_write(cpu, f, n == 28, area);
	for (unsigned i = 0; i < 8; i++)
		memcpy(area + n + 10 * i, f->st[i], 10);
	mmu_store_bytes(cpu, insn_linear(cpu, in, n + 80, true), area, n + 80);
	fpu_init(f);
}

static void do_frstor(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned n = env_size(in);
	struct fpu_image *f;
	uint8_t area[28 + 80];

	fpu_check_x87(cpu);
	fpu_check_pending(cpu);
	mmu_load_bytes(cpu, insn_linear(cpu, in, n + 80, false), area, n + 80);
	f = fpu_ready(cpu);
	env_read(cpu, f, n == 28, area);
	memset(f->st, 0, sizeof(f->st));
	for (unsigned i = 0; i < 8; i++)
		memcpy(f->st[i], area + n + 10 * i, 10);
}

static void do_emms(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	fpu_check_mmx(cpu);
	fpu_set_top(fpu_ready(cpu), 0);
	fpu_ready(cpu)->ftw = 0;
}

insn_fn *fpu_control_handler(const struct insn *in, bool mem)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_FNINIT:
		return do_fninit;
	case ZYDIS_MNEMONIC_FNCLEX:
		return do_fnclex;
	case ZYDIS_MNEMONIC_FENI8087_NOP:
	case ZYDIS_MNEMONIC_FDISI8087_NOP:
	case ZYDIS_MNEMONIC_FSETPM287_NOP:
		return do_fnop_control;
	case ZYDIS_MNEMONIC_FWAIT:
		return do_fwait;
	case ZYDIS_MNEMONIC_FNSTCW:
		return do_fnstcw;
	case ZYDIS_MNEMONIC_FNSTSW:
		return mem ? do_fnstsw : do_fnstsw_ax;
	case ZYDIS_MNEMONIC_FLDCW:
		return do_fldcw;
	case ZYDIS_MNEMONIC_FNSTENV:
		return do_fnstenv;
	case ZYDIS_MNEMONIC_FLDENV:
		return do_fldenv;
	case ZYDIS_MNEMONIC_FNSAVE:
		return do_fnsave;
	case ZYDIS_MNEMONIC_FRSTOR:
		return do_frstor;
	case ZYDIS_MNEMONIC_EMMS:
		return do_emms;
	default:
		return NULL;
	}
}
