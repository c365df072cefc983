/*
 * Instructions that move whole parts of the FPU state: FXSAVE and FXRSTOR
 * (SDM vol. 1, 10.5), the XSAVE family (vol. 1, 13.7-13.12), MXCSR, VZEROUPPER.
 *
 * The layout is the guest's XCR0, never the host's: x87, SSE and AVX in the
 * standard form, or AVX right after the header in the compacted one - which is
 * the same place, as it is the only extended component.
 *
 * Invariant: all memory is probed or read before the first byte or register of
 * the result is written. XINUSE is exact, so what we report never depends on
 * what ran on the host.
 */
#include <string.h>

#include <Zydis/Zydis.h>

#include "cpu/soft/fpu.h"

#define XCOMP_COMPACT BIT64(63)
#define HEADER_OFFSET 512u
#define HEADER_SIZE   64u
#define MXCSR_OFFSET  24u
#define ST_OFFSET     32u
#define XMM_OFFSET    160u

/* Only 8 registers exist outside 64-bit mode; the others' places stay untouched. */
static unsigned vector_regs(const struct soft_cpu *cpu)
{
	return cpu->mode == MODE_64 ? 16 : 8;
}

static bool is_wide(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVES64:
	case ZYDIS_MNEMONIC_XRSTOR64:
	case ZYDIS_MNEMONIC_XRSTORS64:
		return true;
	default:
		return false;
	}
}

/* Bytes 0-23: control, status, tags, pointers; selectors are zero (fpu.c). */
static void x87_control_write(const struct fpu_image *f, bool wide, uint8_t *p)
{
	memcpy(p, f, MXCSR_OFFSET);
	p[5] = 0;
	if (!wide) {
		memset(p + 12, 0, 4);
		memset(p + 20, 0, 4);
	}
}

static void x87_control_read(struct fpu_image *f, bool wide, const uint8_t *p)
{
	memcpy(f, p, MXCSR_OFFSET);
	f->pad0 = 0;
	f->fop &= 0x7ff;
	f->fcw = (f->fcw & FPU_FCW_BITS) | FPU_FCW_FIXED;
	if (!wide) {
		f->fip = (uint32_t)f->fip;
		f->fdp = (uint32_t)f->fdp;
	}
	fpu_update_es(f);
}

static void st_read(struct fpu_image *f, const uint8_t *p)
{
	memcpy(f->st, p, sizeof(f->st));
	for (unsigned i = 0; i < 8; i++)
		memset(f->st[i] + 10, 0, 6);
}

static void do_fxsave(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned nregs = vector_regs(cpu), n;
	struct fpu_image *f;
	uint8_t area[XMM_OFFSET + 256];
	uint64_t lin;

	fpu_check_x87(cpu);
	lin = insn_linear(cpu, in, FPU_LEGACY_SIZE, true);
	if (lin & 15)
		cpu_gp(cpu);
	f = fpu_ready(cpu);
	memcpy(area, f, sizeof(area));
	x87_control_write(f, is_wide(in), area);
	mmu_probe_write(cpu, lin, FPU_LEGACY_SIZE);
	/*
	 * Without OSFXSR the vector part may be left out (SDM: implementation's
	 * choice).
	 */
	n = XMM_OFFSET + (cpu->cr4 & CR4_OSFXSR ? nregs * 16 : 0);
	mmu_store_bytes(cpu, lin, area, n);
}

static void do_fxrstor(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned nregs = vector_regs(cpu);
	struct fpu_image *f;
	uint8_t area[XMM_OFFSET + 256];
	uint64_t lin;
	uint32_t mxcsr;

	fpu_check_x87(cpu);
	lin = insn_linear(cpu, in, FPU_LEGACY_SIZE, false);
	if (lin & 15)
		cpu_gp(cpu);
	mmu_probe_read(cpu, lin, FPU_LEGACY_SIZE);
	mmu_load_bytes(cpu, lin, area, sizeof(area));
	memcpy(&mxcsr, area + MXCSR_OFFSET, 4);
	if (mxcsr & ~FPU_MXCSR_MASK)
		cpu_gp(cpu);
	f = fpu_ready(cpu);
	x87_control_read(f, is_wide(in), area);
	st_read(f, area + ST_OFFSET);
	if (cpu->cr4 & CR4_OSFXSR) {
		f->mxcsr = mxcsr;
		memcpy(f->xmm, area + XMM_OFFSET, nregs * 16);
	}
}

static void xsave_check(struct soft_cpu *cpu)
{
	if (!(cpu->cr4 & CR4_OSXSAVE))
		cpu_ud(cpu);
	if (cpu->cr0 & CR0_TS)
		cpu_raise(cpu, EXC_NM);
}

static uint64_t xsave_linear(
    struct soft_cpu *cpu, const struct insn *in, uint64_t rfbm, bool write)
{
	unsigned size = rfbm & FPU_AVX ? XSAVE_SIZE : HEADER_OFFSET + HEADER_SIZE;
	uint64_t lin = insn_linear(cpu, in, size, write);

	if (lin & 63)
		cpu_gp(cpu);
	return lin;
}

static uint64_t xsave_rfbm(const struct soft_cpu *cpu, uint64_t components)
{
	uint64_t want = (uint32_t)cpu->gpr[GPR_RAX] | cpu->gpr[GPR_RDX] << 32;

	return components & want & FPU_ALL;
}

/* The components of which in the area at lin; write permission is known. */
static void xsave_write(
    struct soft_cpu *cpu, uint64_t lin, uint64_t which, bool mxcsr, bool wide)
{
	const struct fpu_image *f = fpu_image(cpu);
	unsigned nregs = vector_regs(cpu);
	uint8_t control[MXCSR_OFFSET];

	if (which & FPU_X87) {
		x87_control_write(f, wide, control);
		mmu_store_bytes(cpu, lin, control, sizeof(control));
		mmu_store_bytes(cpu, lin + ST_OFFSET, f->st, sizeof(f->st));
	}
	if (mxcsr)
		mmu_store_bytes(cpu, lin + MXCSR_OFFSET, &f->mxcsr, 8);
	if (which & FPU_SSE)
		mmu_store_bytes(cpu, lin + XMM_OFFSET, f->xmm, nregs * 16);
	if (which & FPU_AVX)
		mmu_store_bytes(cpu, lin + FPU_AVX_OFFSET, f->ymmh, nregs * 16);
}

static void xsave_standard(
    struct soft_cpu *cpu, const struct insn *in, bool init_opt)
{
	uint64_t rfbm, lin, bv, inuse;

	xsave_check(cpu);
	rfbm = xsave_rfbm(cpu, cpu->xcr0);
	lin = xsave_linear(cpu, in, rfbm, true);
	mmu_probe_write(
	    cpu, lin, rfbm & FPU_AVX ? XSAVE_SIZE : HEADER_OFFSET + HEADER_SIZE);
	bv = mmu_load(cpu, lin + HEADER_OFFSET, 8);
	inuse = fpu_xinuse(cpu);
	xsave_write(cpu, lin, init_opt ? rfbm & inuse : rfbm,
	    rfbm & (FPU_SSE | FPU_AVX), is_wide(in));
	mmu_store(cpu, lin + HEADER_OFFSET, 8, (bv & ~rfbm) | (inuse & rfbm));
}

static void do_xsave(struct soft_cpu *cpu, const struct insn *in)
{
	xsave_standard(cpu, in, false);
}

static void do_xsaveopt(struct soft_cpu *cpu, const struct insn *in)
{
	xsave_standard(cpu, in, true);
}

static void xsave_compact(
    struct soft_cpu *cpu, const struct insn *in, uint64_t rfbm)
{
	uint64_t lin, inuse, header[2];

	lin = xsave_linear(cpu, in, rfbm, true);
	mmu_probe_write(
	    cpu, lin, rfbm & FPU_AVX ? XSAVE_SIZE : HEADER_OFFSET + HEADER_SIZE);
	inuse = fpu_xinuse(cpu);
	if (fpu_image(cpu)->mxcsr != FPU_MXCSR_INIT)
		inuse |= FPU_SSE; /* MXCSR belongs to SSE in this form */
	xsave_write(cpu, lin, rfbm & inuse, rfbm & inuse & FPU_SSE, is_wide(in));
	header[0] = rfbm & inuse;
	header[1] = rfbm | XCOMP_COMPACT;
	mmu_store_bytes(cpu, lin + HEADER_OFFSET, header, sizeof(header));
}

static void do_xsavec(struct soft_cpu *cpu, const struct insn *in)
{
	xsave_check(cpu);
	xsave_compact(cpu, in, xsave_rfbm(cpu, cpu->xcr0));
}

/*
 * No supervisor component exists, so XSAVES differs from XSAVEC in privilege only.
 */
static void do_xsaves(struct soft_cpu *cpu, const struct insn *in)
{
	xsave_check(cpu);
	if (cpu->cpl != 0)
		cpu_gp(cpu);
	xsave_compact(cpu, in, xsave_rfbm(cpu, cpu->xcr0 | cpu->xss));
}

static bool header_reserved_clear(const uint64_t *header, unsigned from)
{
	for (unsigned i = from; i < HEADER_SIZE / 8; i++) {
		if (header[i] != 0)
			return false;
	}
	return true;
}

static void xrstor(struct soft_cpu *cpu, const struct insn *in, uint64_t components,
    bool must_compact)
{
	unsigned nregs = vector_regs(cpu);
	uint64_t rfbm, lin, load;
	struct fpu_image area, *f;
	const uint64_t *header = &area.xstate_bv;
	bool compact;
	uint32_t mxcsr;

	rfbm = xsave_rfbm(cpu, components);
	lin = xsave_linear(cpu, in, rfbm, false);
	mmu_load_bytes(cpu, lin + HEADER_OFFSET, &area.xstate_bv, HEADER_SIZE);
	compact = header[1] & XCOMP_COMPACT;
	if (header[0] & ~components)
		cpu_gp(cpu);
	if (compact) {
		if (header[1] & ~(components | XCOMP_COMPACT) ||
		    header[0] & ~header[1] || !header_reserved_clear(header, 2))
			cpu_gp(cpu);
	} else if (must_compact || header[1] != 0 || header[2] != 0) {
		cpu_gp(cpu);
	}
	load = rfbm & header[0];
	if (load & FPU_X87 || rfbm & (FPU_SSE | FPU_AVX))
		mmu_load_bytes(cpu, lin, &area, ST_OFFSET);
	if (load & FPU_X87)
		mmu_load_bytes(cpu, lin + ST_OFFSET, area.st, sizeof(area.st));
	if (load & FPU_SSE)
		mmu_load_bytes(cpu, lin + XMM_OFFSET, area.xmm, nregs * 16);
	if (load & FPU_AVX)
		mmu_load_bytes(cpu, lin + FPU_AVX_OFFSET, area.ymmh, nregs * 16);

	f = fpu_ready(cpu);
	mxcsr = f->mxcsr;
	if (compact) {
		if (rfbm & FPU_SSE)
			mxcsr = load & FPU_SSE ? area.mxcsr : FPU_MXCSR_INIT;
	} else if (rfbm & (FPU_SSE | FPU_AVX)) {
		mxcsr = area.mxcsr;
	}
	if (mxcsr & ~FPU_MXCSR_MASK)
		cpu_gp(cpu);
	f->mxcsr = mxcsr;
	if (load & FPU_X87) {
		x87_control_read(f, is_wide(in), (const uint8_t *)&area);
		st_read(f, (const uint8_t *)area.st);
	} else if (rfbm & FPU_X87) {
		memset(f, 0, MXCSR_OFFSET);
		memset(f->st, 0, sizeof(f->st));
		f->fcw = FPU_FCW_INIT;
	}
	if (load & FPU_SSE)
		memcpy(f->xmm, area.xmm, nregs * 16);
	else if (rfbm & FPU_SSE)
		memset(f->xmm, 0, nregs * 16);
	if (load & FPU_AVX)
		memcpy(f->ymmh, area.ymmh, nregs * 16);
	else if (rfbm & FPU_AVX)
		memset(f->ymmh, 0, nregs * 16);
}

static void do_xrstor(struct soft_cpu *cpu, const struct insn *in)
{
	xsave_check(cpu);
	xrstor(cpu, in, cpu->xcr0, false);
}

static void do_xrstors(struct soft_cpu *cpu, const struct insn *in)
{
	xsave_check(cpu);
	if (cpu->cpl != 0)
		cpu_gp(cpu);
	xrstor(cpu, in, cpu->xcr0 | cpu->xss, true);
}

static void load_mxcsr(struct soft_cpu *cpu, const struct insn *in)
{
	uint32_t v = (uint32_t)mmu_load(cpu, insn_linear(cpu, in, 4, false), 4);

	if (v & ~FPU_MXCSR_MASK)
		cpu_gp(cpu);
	fpu_ready(cpu)->mxcsr = v;
}

static void do_ldmxcsr(struct soft_cpu *cpu, const struct insn *in)
{
	fpu_check_sse(cpu);
	load_mxcsr(cpu, in);
}

static void do_vldmxcsr(struct soft_cpu *cpu, const struct insn *in)
{
	fpu_check_avx(cpu);
	load_mxcsr(cpu, in);
}

static void do_stmxcsr(struct soft_cpu *cpu, const struct insn *in)
{
	fpu_check_sse(cpu);
	mmu_store(cpu, insn_linear(cpu, in, 4, true), 4, fpu_ready(cpu)->mxcsr);
}

static void do_vstmxcsr(struct soft_cpu *cpu, const struct insn *in)
{
	fpu_check_avx(cpu);
	mmu_store(cpu, insn_linear(cpu, in, 4, true), 4, fpu_ready(cpu)->mxcsr);
}

static void do_vzeroupper(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	fpu_check_avx(cpu);
	memset(fpu_ready(cpu)->ymmh, 0, vector_regs(cpu) * 16);
}

static void do_vzeroall(struct soft_cpu *cpu, const struct insn *in)
{
	do_vzeroupper(cpu, in);
	memset(fpu_image(cpu)->xmm, 0, vector_regs(cpu) * 16);
}

insn_fn *fpu_state_handler(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
		return do_fxsave;
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		return do_fxrstor;
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
		return do_xsave;
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
		return do_xsaveopt;
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
		return do_xsavec;
	case ZYDIS_MNEMONIC_XSAVES:
	case ZYDIS_MNEMONIC_XSAVES64:
		return do_xsaves;
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
		return do_xrstor;
	case ZYDIS_MNEMONIC_XRSTORS:
	case ZYDIS_MNEMONIC_XRSTORS64:
		return do_xrstors;
	case ZYDIS_MNEMONIC_LDMXCSR:
		return do_ldmxcsr;
	case ZYDIS_MNEMONIC_VLDMXCSR:
		return do_vldmxcsr;
	case ZYDIS_MNEMONIC_STMXCSR:
		return do_stmxcsr;
	case ZYDIS_MNEMONIC_VSTMXCSR:
		return do_vstmxcsr;
	case ZYDIS_MNEMONIC_VZEROUPPER:
		return do_vzeroupper;
	case ZYDIS_MNEMONIC_VZEROALL:
		return do_vzeroall;
	default:
		return NULL;
	}
}
