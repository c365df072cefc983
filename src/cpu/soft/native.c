/*
 * Runs x87, MMX, SSE and AVX instructions on the host's own units (native.h).
 *
 * Order of events, as SDM vol. 2 tables 2-18 to 2-29 and vol. 3 6.9 want it:
 * #UD and #NM, pending #MF, address and alignment #GP, page faults, then the
 * instruction, then its own SIMD exception. A store probes its memory before
 * the instruction runs, so registers change only when nothing can fail.
 *
 * Vector forms touch only the registers they use; x87 and MMX forms exchange the
 * whole legacy image. SIMD exceptions: the host runs with all of them masked and
 * the flags clear; when a flag comes up that the guest has not masked, the
 * results are dropped and #XM raised. x87 exceptions need no such care: the
 * guest's own masks are loaded and the host's unit only records what waits.
 *
 * After an unmasked overflow or underflow, MXCSR.PE is that of the masked result
 * (rounded at the bounded exponent); a processor computes it at the unbounded one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/native.h"

#define MXCSR_MASKS 0x1f80u
#define MXCSR_UM    0x0800u
#define MXCSR_FZ    0x8000u
#define MXCSR_DAZ   0x0040u
#define MXCSR_RC    0x6000u
#define MXCSR_PRE   0x0007u /* IE DE ZE: found before anything is computed */
#define MXCSR_UE    0x0010u

int native_decode(
    const struct native *n, const struct insn *in, struct native_decoded *d)
{
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(
		&n->decoder[in->mode], in->bytes, in->len, &d->insn, d->op)))
		return -1;
	d->mem = -1;
	for (int i = 0; i < d->insn.operand_count; i++) {
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			d->mem = i;
	}
	return 0;
}

/*
 * Host address of [lin, lin + size) when the software TLB has it for this kind of
 * access and it lies in one page; NULL: use the bounce buffer.
 */
static inline void *direct(
    const struct soft_cpu *cpu, uint64_t lin, unsigned size, bool write)
{
	const struct tlb_entry *e = tlb_slot(cpu, cpu->mmu_idx, lin);

	return tlb_hit(write ? e->tag_w : e->tag_r, lin, size) ? tlb_host(e, lin)
							       : NULL;
}

static void load(struct soft_cpu *cpu, uint64_t lin, void *buf, unsigned size)
{
	uint64_t v;

	if (size > 8 || (size & (size - 1))) {
		mmu_load_bytes(cpu, lin, buf, size);
		return;
	}
	v = mmu_load(cpu, lin, size);
	memcpy(buf, &v, size);
}

static void store(
    struct soft_cpu *cpu, uint64_t lin, const void *buf, unsigned size)
{
	uint64_t v = 0;

	if (size > 8 || (size & (size - 1))) {
		mmu_store_bytes(cpu, lin, buf, size);
		return;
	}
	memcpy(&v, buf, size);
	mmu_store(cpu, lin, size, v);
}

static void check_units(struct soft_cpu *cpu, unsigned unit)
{
	if (unit & UNIT_AVX) {
		fpu_check_avx(cpu);
		return;
	}
	if (unit & UNIT_SSE)
		fpu_check_sse(cpu);
	if (unit & UNIT_MMX)
		fpu_check_mmx(cpu);
	if (unit & UNIT_X87) {
		fpu_check_x87(cpu);
		fpu_check_pending(cpu);
	}
}

/* Address of the memory operand, aligned as the instruction wants it. */
static uint64_t linear(
    struct soft_cpu *cpu, const struct insn *in, const struct native_stub *s)
{
	uint64_t lin = insn_linear(cpu, in, s->mem_size, s->attr & STUB_STORE);

	if (unlikely(lin & (s->align - 1u)))
		cpu_gp(cpu);
	return lin;
}

/*
 * Where the instruction finds its memory operand: the guest's own page or a copy.
 * keep: the result of a store must not become visible at once.
 */
static void *operand(
    struct soft_cpu *cpu, const struct native_stub *s, uint64_t lin, bool keep)
{
	bool write = s->attr & STUB_STORE;
	void *p;

	if (!(write && keep) && !(s->attr & STUB_BOUNCE)) {
		p = direct(cpu, lin, s->mem_size, write);
		if (p != NULL)
			return p;
	}
	p = cpu->native->bounce;
	if (write)
		mmu_probe_write(cpu, lin, s->mem_size);
	if (s->attr & STUB_LOAD)
		load(cpu, lin, p, s->mem_size);
	return p;
}

static void io_in(
    const struct soft_cpu *cpu, const struct native_stub *s, struct native_io *io)
{
	if (s->attr & STUB_GPR_IN)
		io->rax = cpu->gpr[s->gpr];
	if (s->attr & STUB_STR_LEN) {
		io->rax = cpu->gpr[GPR_RAX];
		io->rdx = cpu->gpr[GPR_RDX];
	}
	if (s->attr & STUB_FLAGS_IN)
		io->flags = (cpu->rflags & RF_STATUS) | 2;
}

static void io_out(
    struct soft_cpu *cpu, const struct native_stub *s, const struct native_io *io)
{
	if (s->attr & STUB_GPR_OUT)
		cpu->gpr[s->gpr] = io->rax;
	if (s->attr & STUB_STR_INDEX)
		cpu->gpr[GPR_RCX] = io->rcx;
	if (s->attr & STUB_FLAGS_OUT)
		cpu->rflags =
		    (cpu->rflags & ~(uint64_t)RF_STATUS) | (io->flags & RF_STATUS);
}

/* The guest's rounding with every exception masked and no flag set. */
static uint32_t mxcsr_host(uint32_t guest)
{
	uint32_t v = (guest & (MXCSR_RC | MXCSR_FZ | MXCSR_DAZ)) | MXCSR_MASKS;

	/*
	 * FZ acts only while underflow is masked; unmasked, the flag must come up.
	 */
	if (!(guest & MXCSR_UM))
		v &= ~MXCSR_FZ;
	return v;
}

static void mxcsr_restore(uint32_t loaded)
{
	uint32_t v = FPU_MXCSR_INIT;

	if ((loaded & ~FPU_FLAGS) != FPU_MXCSR_INIT)
		__asm__ volatile("ldmxcsr %0" : : "m"(v));
}

/* Sets the flags the instruction raised; raises #XM when one is not masked. */
static void mxcsr_finish(struct soft_cpu *cpu, struct fpu_image *f, uint32_t raised)
{
	uint32_t unmasked = raised & ~(f->mxcsr >> 7) & FPU_FLAGS;

	if (likely(!unmasked)) {
		f->mxcsr |= raised;
		return;
	}
	/*
	 * An unmasked exception found beforehand stops it before the others arise.
	 */
	if (unmasked & MXCSR_PRE)
		raised &= MXCSR_PRE;
	f->mxcsr |= raised;
	cpu_raise(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}

/* Register to register, nothing but vector registers: most of all instructions. */
static void native_vector(struct soft_cpu *cpu, const struct insn *in)
{
	const struct native_stub *s = in->aux;

	check_units(cpu, s->unit);
	s->code(NULL, fpu_ready(cpu), NULL, NULL);
}

static void native_vector_load(struct soft_cpu *cpu, const struct insn *in)
{
	const struct native_stub *s = in->aux;

	check_units(cpu, s->unit);
	s->code(
	    operand(cpu, s, linear(cpu, in, s), false), fpu_ready(cpu), NULL, NULL);
}

static void native_vector_store(struct soft_cpu *cpu, const struct insn *in)
{
	const struct native_stub *s = in->aux;
	uint64_t lin;
	void *p;

	check_units(cpu, s->unit);
	lin = linear(cpu, in, s);
	p = operand(cpu, s, lin, false);
	s->code(p, fpu_ready(cpu), NULL, NULL);
	if (p == cpu->native->bounce)
		store(cpu, lin, p, s->mem_size);
}

/*
 * A result that is tiny but exact raises unmasked underflow without a masked flag.
 */
static bool tiny_result(const struct fpu_image *f, const struct native_stub *s)
{
	unsigned mantissa = s->elem_size == 2 ? 10 : s->elem_size == 4 ? 23 : 52;

	for (unsigned i = 0; i < s->elem_count; i++) {
		unsigned at = i * s->elem_size;
		const uint8_t *p =
		    at < 16 ? f->xmm[s->dest] + at : f->ymmh[s->dest] + at - 16;
		uint64_t v = 0;

		memcpy(&v, p, s->elem_size);
		v &= ~BIT64(s->elem_size * 8 - 1);
		if (v != 0 && v >> mantissa == 0)
			return true;
	}
	return false;
}

/* Whether a denormal result comes from arithmetic, not from choosing an operand. */
static bool may_underflow(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MINPS: case ZYDIS_MNEMONIC_VMINPS:
	case ZYDIS_MNEMONIC_MINPD: case ZYDIS_MNEMONIC_VMINPD:
	case ZYDIS_MNEMONIC_MINSS: case ZYDIS_MNEMONIC_VMINSS:
	case ZYDIS_MNEMONIC_MINSD: case ZYDIS_MNEMONIC_VMINSD:
	case ZYDIS_MNEMONIC_MAXPS: case ZYDIS_MNEMONIC_VMAXPS:
	case ZYDIS_MNEMONIC_MAXPD: case ZYDIS_MNEMONIC_VMAXPD:
	case ZYDIS_MNEMONIC_MAXSS: case ZYDIS_MNEMONIC_VMAXSS:
	case ZYDIS_MNEMONIC_MAXSD: case ZYDIS_MNEMONIC_VMAXSD:
	case ZYDIS_MNEMONIC_RCPPS: case ZYDIS_MNEMONIC_VRCPPS:
	case ZYDIS_MNEMONIC_RCPSS: case ZYDIS_MNEMONIC_VRCPSS:
	case ZYDIS_MNEMONIC_RSQRTPS: case ZYDIS_MNEMONIC_VRSQRTPS:
	case ZYDIS_MNEMONIC_RSQRTSS: case ZYDIS_MNEMONIC_VRSQRTSS:
	case ZYDIS_MNEMONIC_CMPPS: case ZYDIS_MNEMONIC_VCMPPS:
	case ZYDIS_MNEMONIC_CMPPD: case ZYDIS_MNEMONIC_VCMPPD:
	case ZYDIS_MNEMONIC_CMPSS: case ZYDIS_MNEMONIC_VCMPSS:
	case ZYDIS_MNEMONIC_CMPSD: case ZYDIS_MNEMONIC_VCMPSD:
	case ZYDIS_MNEMONIC_ROUNDPS: case ZYDIS_MNEMONIC_VROUNDPS:
	case ZYDIS_MNEMONIC_ROUNDPD: case ZYDIS_MNEMONIC_VROUNDPD:
	case ZYDIS_MNEMONIC_ROUNDSS: case ZYDIS_MNEMONIC_VROUNDSS:
	case ZYDIS_MNEMONIC_ROUNDSD: case ZYDIS_MNEMONIC_VROUNDSD:
	case ZYDIS_MNEMONIC_VCVTPH2PS:
		return false;
	default:
		return true;
	}
}

/* General registers, flags, floating-point arithmetic. */
static void run_vector(
    struct soft_cpu *cpu, const struct insn *in, const struct native_stub *s)
{
	struct native *n = cpu->native;
	struct native_io io;
	struct fpu_image *f;
	uint64_t lin = 0;
	void *p = NULL;
	bool watch_tiny;

	check_units(cpu, s->unit);
	f = fpu_ready(cpu);
	if (s->mem_size != 0) {
		lin = linear(cpu, in, s);
		p = operand(cpu, s, lin, s->attr & STUB_MXCSR);
	}
	io_in(cpu, s, &io);
	watch_tiny = s->attr & STUB_MXCSR && !(f->mxcsr & MXCSR_UM) &&
		     s->elem_count != 0 && may_underflow(in);
	if (s->attr & STUB_MXCSR) {
		io.mxcsr_in = mxcsr_host(f->mxcsr);
		io.discard = ~(f->mxcsr >> 7) & FPU_FLAGS;
		if (unlikely(watch_tiny))
			n->fx_in = *f;
	}
	s->code(p, f, &io, NULL);
	if (s->attr & STUB_MXCSR) {
		uint32_t raised = io.mxcsr_out & FPU_FLAGS;

		mxcsr_restore(io.mxcsr_in);
		if (unlikely(watch_tiny) && !(raised & io.discard) &&
		    tiny_result(f, s)) {
			memcpy(f->xmm, n->fx_in.xmm, sizeof(f->xmm));
			memcpy(f->ymmh, n->fx_in.ymmh, sizeof(f->ymmh));
			raised |= MXCSR_UE;
		}
		mxcsr_finish(cpu, f, raised);
	}
	if (s->attr & STUB_STORE && p == n->bounce)
		store(cpu, lin, p, s->mem_size);
	io_out(cpu, s, &io);
}

static void native_vector_io(struct soft_cpu *cpu, const struct insn *in)
{
	run_vector(cpu, in, in->aux);
}

/* The host's x87 as C code expects it: registers empty, nothing pending. */
static void x87_restore(const struct fpu_image *left)
{
	if (left->fcw != FPU_FCW_INIT || left->fsw & FSW_ES)
		__asm__ volatile("fninit");
	else
		__asm__ volatile("emms");
}

/*
 * Runs the stub from one legacy image to fx_out and leaves the host's units clean.
 */
static void exchange(struct native *n, const struct native_stub *s, void *mem,
    struct fpu_image *from, struct native_io *io)
{
	s->code(mem, from, io, &n->fx_out);
	x87_restore(&n->fx_out);
	mxcsr_restore(s->attr & STUB_MXCSR ? io->mxcsr_in : from->mxcsr);
}

/*
 * An x87 store with an unmasked exception may not have stored. Found out by
 * running it again over a different filling.
 */
static bool x87_stored(struct native *n, const struct native_stub *s,
    struct fpu_image *from, struct native_io *io)
{
	uint8_t first[NATIVE_BOUNCE];

	memcpy(first, n->bounce, s->mem_size);
	memset(n->bounce, ~first[0], s->mem_size);
	exchange(n, s, n->bounce, from, io);
	return memcmp(first, n->bounce, s->mem_size) == 0;
}

static void run_legacy(
    struct soft_cpu *cpu, const struct insn *in, const struct native_stub *s)
{
	struct native *n = cpu->native;
	struct fpu_image *f, *from, *out = &n->fx_out;
	struct native_io io = { 0 };
	uint64_t lin = 0, fip, fdp;
	uint16_t fop;
	void *p = NULL;
	bool stores;

	check_units(cpu, s->unit);
	f = from = fpu_ready(cpu);
	if (s->mem_size != 0) {
		lin = linear(cpu, in, s);
		p = operand(cpu, s, lin, true);
		if (s->attr & STUB_STORE)
			memset(p, 0, s->mem_size);
	}
	stores = s->attr & STUB_STORE && p;
	if (unlikely(fpu_pending(f))) {
		/*
		 * Only with CR0.NE clear: goes on with all exceptions masked
		 * (fpu.h).
		 */
		n->fx_in = *f;
		from = &n->fx_in;
		from->fcw |= FPU_FLAGS;
	}
	io_in(cpu, s, &io);
	io.mxcsr_in = mxcsr_host(f->mxcsr);
	exchange(n, s, p, from, &io);
	if (stores && fpu_pending(out) && !fpu_pending(from))
		stores = x87_stored(n, s, from, &io);
	if (s->attr & STUB_MXCSR)
		mxcsr_finish(cpu, f, io.mxcsr_out & FPU_FLAGS);
	if (stores)
		store(cpu, lin, p, s->mem_size);

	fip = f->fip;
	fdp = f->fdp;
	fop = f->fop;
	if (s->attr & STUB_POINTERS) {
		fip = cpu->rip;
		fop = s->fop & 0x7ff;
		if (s->mem_size != 0)
			fdp = insn_offset(cpu, in);
		if (!cpu->protected_mode) {
			fip += cpu->seg[SEG_CS].base;
			fdp += s->mem_size != 0 ? cpu->seg[in->seg].base : 0;
		}
	}
	out->fcw = f->fcw;
	memcpy(f, out, offsetof(struct fpu_image, fop));
	f->fip = fip;
	f->fdp = fdp;
	f->fop = fop;
	memcpy(f->st, out->st, sizeof(f->st) + sizeof(f->xmm));
	fpu_update_es(f);
	io_out(cpu, s, &io);
}

static void native_legacy(struct soft_cpu *cpu, const struct insn *in)
{
	run_legacy(cpu, in, in->aux);
}

/* No memory for a stub of its own: builds one each time. */
static void native_spare(struct soft_cpu *cpu, const struct insn *in)
{
	struct native_decoded d;
	struct native_stub s;

	if (native_decode(cpu->native, in, &d) < 0 ||
	    stub_spare(cpu->native, &d, in->bytes, in->mode, &s) < 0)
		cpu_ud(cpu);
	if (s.unit & (UNIT_X87 | UNIT_MMX))
		run_legacy(cpu, in, &s);
	else
		run_vector(cpu, in, &s);
}

insn_fn *native_handler(struct soft_cpu *cpu, struct insn *in)
{
	struct native *n = cpu->native;
	struct native_stub *s;
	struct native_decoded d;
	insn_fn *fn;

	in->aux = NULL;
	if (n == NULL || native_decode(n, in, &d) < 0 ||
	    !n->isa[d.insn.meta.isa_set] || in->flags & INSN_LOCK)
		return NULL;
	fn = fpu_control_handler(in, d.mem >= 0);
	if (fn == NULL)
		fn = fpu_state_handler(in);
	if (fn == NULL)
		fn = native_mem_handler(in, &d);
	if (fn != NULL)
		return fn;
	switch (stub_get(n, &d, in->bytes, in->mode, &s)) {
	case 0:
		break;
	case -ENOMEM:
		return native_spare;
	default:
		return NULL;
	}
	in->aux = s;
	if (s->unit & (UNIT_X87 | UNIT_MMX))
		return native_legacy;
	if (s->attr & STUB_IO)
		return native_vector_io;
	if (s->attr & STUB_STORE)
		return native_vector_store;
	return s->attr & STUB_LOAD ? native_vector_load : native_vector;
}

void native_release(struct soft_cpu *cpu, struct insn *in)
{
	if (native_mem_owns(in->fn)) {
		free(in->aux);
		in->aux = NULL;
	} else if (in->aux != NULL &&
		   (in->fn == native_legacy || in->fn == native_vector_io ||
		       in->fn == native_vector_store ||
		       in->fn == native_vector_load || in->fn == native_vector)) {
		stub_put(cpu->native, in->aux);
		in->aux = NULL;
	}
}

/*
 * Instruction sets by the CPUID bit that promises them; bit 0-31 of the register.
 */
enum cpuid_word { L1_ECX, L1_EDX, L7_EBX, L7_ECX, LD1_EAX, WORDS };

static const struct {
	uint16_t isa;
	uint8_t word, bit;
} isa_bits[] = {
	{ ZYDIS_ISA_SET_X87, L1_EDX, 0 }, { ZYDIS_ISA_SET_PPRO, L1_EDX, 0 },
	{ ZYDIS_ISA_SET_FCMOV, L1_EDX, 0 }, { ZYDIS_ISA_SET_SSE3X87, L1_ECX, 0 },
	{ ZYDIS_ISA_SET_PENTIUMMMX, L1_EDX, 23 },
	{ ZYDIS_ISA_SET_FXSAVE, L1_EDX, 24 },
	{ ZYDIS_ISA_SET_FXSAVE64, L1_EDX, 24 }, { ZYDIS_ISA_SET_SSE, L1_EDX, 25 },
	{ ZYDIS_ISA_SET_SSEMXCSR, L1_EDX, 25 }, { ZYDIS_ISA_SET_SSE2, L1_EDX, 26 },
	{ ZYDIS_ISA_SET_SSE2MMX, L1_EDX, 26 }, { ZYDIS_ISA_SET_SSE3, L1_ECX, 0 },
	{ ZYDIS_ISA_SET_SSSE3, L1_ECX, 9 }, { ZYDIS_ISA_SET_SSSE3MMX, L1_ECX, 9 },
	{ ZYDIS_ISA_SET_SSE4, L1_ECX, 19 }, { ZYDIS_ISA_SET_SSE42, L1_ECX, 20 },
	{ ZYDIS_ISA_SET_AES, L1_ECX, 25 }, { ZYDIS_ISA_SET_PCLMULQDQ, L1_ECX, 1 },
	{ ZYDIS_ISA_SET_SHA, L7_EBX, 29 }, { ZYDIS_ISA_SET_GFNI, L7_ECX, 8 },
	{ ZYDIS_ISA_SET_AVX, L1_ECX, 28 }, { ZYDIS_ISA_SET_AVX2, L7_EBX, 5 },
	{ ZYDIS_ISA_SET_AVX2GATHER, L7_EBX, 5 }, { ZYDIS_ISA_SET_FMA, L1_ECX, 12 },
	{ ZYDIS_ISA_SET_F16C, L1_ECX, 29 }, { ZYDIS_ISA_SET_AVXAES, L1_ECX, 25 },
	{ ZYDIS_ISA_SET_VAES, L7_ECX, 9 }, { ZYDIS_ISA_SET_VPCLMULQDQ, L7_ECX, 10 },
	{ ZYDIS_ISA_SET_AVX_GFNI, L7_ECX, 8 }, { ZYDIS_ISA_SET_XSAVE, L1_ECX, 26 },
	{ ZYDIS_ISA_SET_XSAVEOPT, LD1_EAX, 0 },
	{ ZYDIS_ISA_SET_XSAVEC, LD1_EAX, 1 },
	{ ZYDIS_ISA_SET_XSAVES, LD1_EAX, 3 },
};

static void isa_init(struct native *n, const struct engine_config *cfg)
{
	struct cpuid_context ctx = { .xcr0 = FPU_ALL };
	struct cpuid_regs r;
	uint32_t w[WORDS];

	cpuid_guest(cfg, &ctx, 1, 0, &r);
	w[L1_ECX] = r.ecx;
	w[L1_EDX] = r.edx;
	cpuid_guest(cfg, &ctx, 7, 0, &r);
	w[L7_EBX] = r.ebx;
	w[L7_ECX] = r.ecx;
	cpuid_guest(cfg, &ctx, 0xd, 1, &r);
	w[LD1_EAX] = r.eax;
	for (unsigned i = 0; i < ARRAY_SIZE(isa_bits); i++)
		n->isa[isa_bits[i].isa] =
		    w[isa_bits[i].word] >> isa_bits[i].bit & 1;
}

int native_create(struct soft_cpu *cpu)
{
	static const ZydisMachineMode mode[] = {
		[MODE_16] = ZYDIS_MACHINE_MODE_LEGACY_16,
		[MODE_32] = ZYDIS_MACHINE_MODE_LEGACY_32,
		[MODE_64] = ZYDIS_MACHINE_MODE_LONG_64,
	};
	static const ZydisStackWidth width[] = {
		[MODE_16] = ZYDIS_STACK_WIDTH_16,
		[MODE_32] = ZYDIS_STACK_WIDTH_32,
		[MODE_64] = ZYDIS_STACK_WIDTH_64,
	};
	struct native *n;
	int err;

	if (cpu->engine->codemem == NULL)
		return -EINVAL;
	n = aligned_alloc(64, ROUND_UP(sizeof(*n), (size_t)64));
	if (n == NULL)
		return -ENOMEM;
	memset(n, 0, sizeof(*n));
	n->codemem = cpu->engine->codemem;
	for (unsigned i = 0; i < ARRAY_SIZE(mode); i++)
		ZydisDecoderInit(&n->decoder[i], mode[i], width[i]);
	isa_init(n, &cpu->engine->cfg);
	err = stub_create(n);
	if (err < 0) {
		free(n);
		return err;
	}
	cpu->native = n;
	return 0;
}

void native_destroy(struct soft_cpu *cpu)
{
	if (cpu->native == NULL)
		return;
	stub_destroy(cpu->native);
	free(cpu->native);
	cpu->native = NULL;
}
