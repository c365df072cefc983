/*
 * CPUID policy. Each feature word is the host's, masked by what the software CPU
 * runs, plus what is true of the software CPU whatever the host is (x2APIC, TSC
 * deadline, no speculation trouble, the hypervisor bit). Numbers of AMD and Intel
 * leaves: AMD APM vol. 3 appendix E, Intel SDM vol. 2 CPUID.
 *
 * Security: guest user and guest kernel share one host address space inside this
 * engine, whatever the guest does about it; mitigations in the guest would cost
 * and protect nothing. So the guest is told that it needs none; the walls are
 * those of the host process (design.md).
 *
 * Invariant: the host's CPUID runs once a process, not at a guest's request - our
 * own host may intercept it.
 */
#include <pthread.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/soft/mmu.h"
#include "vmm/clock.h"

#define XCR0_ALL        7u /* x87, SSE, AVX */
#define XSAVE_MIN       576u
#define XSAVE_AVX       832u
#define AVX_SIZE        256u
#define AVX_OFFSET      576u
#define VIRT_BITS       48u

#define BASIC_MAX       0x16u
#define HYPERVISOR_BASE 0x40000000u
#define HYPERVISOR_MAX  0x40000010u

struct host_cpu {
	uint32_t max, ext_max;
	bool amd;
	struct cpuid_regs vendor, l1, l7, ld1, ext_vendor, ext1, brand[3], ext5,
	    ext6, ext8;
	struct cpuid_regs cache[4]; /* of leaf 4 or 0x8000001D, in that form */
	unsigned caches;
};

/* Leaf 1 */
#define L1_ECX                                                                     \
	(BIT(0) /* SSE3 */ | BIT(1) /* PCLMULQDQ */ | BIT(9) /* SSSE3 */ |         \
	    BIT(12) /* FMA */ | BIT(13) /* CX16 */ | BIT(17) /* PCID */ |          \
	    BIT(19) /* SSE4.1 */ | BIT(20) /* SSE4.2 */ | BIT(22) /* MOVBE */ |    \
	    BIT(23) /* POPCNT */ | BIT(25) /* AES */ | BIT(26) /* XSAVE */ |       \
	    BIT(28) /* AVX */ | BIT(29) /* F16C */ | BIT(30) /* RDRAND */)
#define L1_ECX_X2APIC   BIT(21)
#define L1_ECX_DEADLINE BIT(24)
#define L1_ECX_OSXSAVE  BIT(27)
#define L1_ECX_HV       BIT(31)
#define L1_ECX_XSAVE    BIT(26)
#define L1_ECX_AVX      (BIT(12) | BIT(28) | BIT(29))
/*
 * FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX
 * FXSR SSE SSE2
 */
#define L1_EDX                                                                     \
	(BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) |   \
	    BIT(8) | BIT(9) | BIT(11) | BIT(12) | BIT(13) | BIT(14) | BIT(15) |    \
	    BIT(16) | BIT(17) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26))
#define L1_EDX_HTT BIT(28)

/* Leaf 7 */
#define L7_EBX                                                                     \
	(BIT(0) /* FSGSBASE */ | BIT(3) /* BMI1 */ | BIT(5) /* AVX2 */ |           \
	    BIT(7) /* SMEP */ | BIT(8) /* BMI2 */ | BIT(9) /* ERMS */ |            \
	    BIT(10) /* INVPCID */ | BIT(18) /* RDSEED */ | BIT(19) /* ADX */ |     \
	    BIT(20) /* SMAP */ | BIT(23) /* CLFLUSHOPT */ | BIT(29) /* SHA */)
#define L7_EBX_AVX2     BIT(5)
#define L7_EBX_TSC_ADJ  BIT(1)
#define L7_EBX_ZERO_FCS BIT(13)
#define L7_ECX                                                                     \
	(BIT(2) /* UMIP */ | BIT(8) /* GFNI */ | BIT(9) /* VAES */ |               \
	    BIT(10) /* VPCLMULQDQ */ | BIT(22) /* RDPID */)
#define L7_ECX_AVX (BIT(9) | BIT(10))
#define L7_EDX     BIT(4) /* FSRM */
/* Intel: ARCH_CAPABILITIES, and the IBRS it promises to be enough */
#define L7_EDX_INTEL (BIT(29) | BIT(26))

/* Leaf 0xD, subleaf 1: XSAVEOPT XSAVEC XGETBV1 */
#define LD1_EAX (BIT(0) | BIT(1) | BIT(2))

/*
 * 0x80000001: LAHF64 LZCNT(ABM) PREFETCHW(3DNow!) TOPOEXT; CMP_LEGACY is topology's
 */
#define E1_ECX         (BIT(0) | BIT(5) | BIT(8))
#define E1_ECX_CMP     BIT(1)
#define E1_ECX_CR8     BIT(4)
#define E1_ECX_TOPOEXT BIT(22)
/* SYSCALL NX 1GB RDTSCP LM; and on AMD the copies of leaf 1's low bits */
#define E1_EDX      (BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29))
#define E1_EDX_COPY (L1_EDX & 0x0183f3ffu)

/* 0x80000008 EBX: XSAVEERPTR is the host's; SSB_NO and BTC_NO */
#define E8_EBX    BIT(2)
#define E8_EBX_NO (BIT(26) | BIT(29))
/*
 * 0x80000021 EAX: LFENCE serializes, null selector clears base, automatic IBRS,
 * SRSO_NO
 */
#define E21_EAX (BIT(2) | BIT(6) | BIT(8) | BIT(29))
/* ... ECX: TSA_SQ_NO, TSA_L1_NO */
#define E21_ECX (BIT(1) | BIT(2))

/* IA32_ARCH_CAPABILITIES (SDM vol. 4): immune to all that has a bit */
#define ARCH_CAPABILITIES                                                          \
	(BIT64(0) /* RDCL_NO */ | BIT64(1) /* IBRS_ALL */ |                        \
	    BIT64(4) /* SSB_NO */ | BIT64(3) /* SKIP_L1DFL_VMENTRY */ |            \
	    BIT64(5) /* MDS_NO */ | BIT64(6) /* PSCHANGE_MC_NO */ |                \
	    BIT64(8) /* TAA_NO */ | BIT64(13) /* SBDR_SSDP_NO */ |                 \
	    BIT64(14) /* FBSDP_NO */ | BIT64(15) /* PSDP_NO */ |                   \
	    BIT64(20) /* BHI_NO */ | BIT64(24) /* PBRSB_NO */ |                    \
	    BIT64(26) /* GDS_NO */ | BIT64(27) /* RFDS_NO */ |                     \
	    BIT64(62) /* ITS_NO */)

static pthread_once_t host_once = PTHREAD_ONCE_INIT;
static struct host_cpu host_cpu; /* written once, by host_read() */

static void host_leaf(
    uint32_t max, uint32_t leaf, uint32_t subleaf, struct cpuid_regs *r)
{
	memset(r, 0, sizeof(*r));
	if (leaf > max)
		return;
	__asm__("cpuid"
		: "=a"(r->eax), "=b"(r->ebx), "=c"(r->ecx), "=d"(r->edx)
		: "a"(leaf), "c"(subleaf));
}

static void host_read(void)
{
	struct host_cpu *h = &host_cpu;
	uint32_t leaf;

	host_leaf(~0u, 0, 0, &h->vendor);
	h->max = h->vendor.eax;
	host_leaf(~0u, 0x80000000u, 0, &h->ext_vendor);
	h->ext_max = h->ext_vendor.eax;
	/* "AuthenticAMD" or Hygon's "HygonGenuine" */
	h->amd = h->vendor.ebx == 0x68747541u || h->vendor.ebx == 0x6f677948u;
	host_leaf(h->max, 1, 0, &h->l1);
	host_leaf(h->max, 7, 0, &h->l7);
	host_leaf(h->max, 0xd, 1, &h->ld1);
	host_leaf(h->ext_max, 0x80000001u, 0, &h->ext1);
	for (unsigned i = 0; i < ARRAY_SIZE(h->brand); i++)
		host_leaf(h->ext_max, 0x80000002u + i, 0, &h->brand[i]);
	host_leaf(h->ext_max, 0x80000005u, 0, &h->ext5);
	host_leaf(h->ext_max, 0x80000006u, 0, &h->ext6);
	host_leaf(h->ext_max, 0x80000008u, 0, &h->ext8);
	leaf = h->amd ? 0x8000001du : 4;
	for (unsigned i = 0; i < ARRAY_SIZE(h->cache); i++) {
		host_leaf(h->amd ? h->ext_max : h->max, leaf, i, &h->cache[i]);
		if ((h->cache[i].eax & 0x1f) == 0)
			break;
		h->caches++;
	}
}

static const struct host_cpu *host(void)
{
	pthread_once(&host_once, host_read);
	return &host_cpu;
}

uint64_t cpuid_arch_capabilities(void)
{
	return host()->amd ? 0 : ARCH_CAPABILITIES;
}

/* Bits that hold n values. */
static unsigned width(unsigned n)
{
	unsigned bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

/*
 * APIC ids are vCPU numbers, without holes; so ids of a package are contiguous
 * but the shifts of leaf 0xB are exact only for powers of two, as everywhere.
 */
static unsigned threads_of(const struct engine_config *cfg)
{
	return cfg->threads ? cfg->threads : 1;
}

static unsigned package_of(const struct engine_config *cfg)
{
	return (cfg->cores ? cfg->cores : 1) * threads_of(cfg);
}

static bool has_xsave(const struct host_cpu *h)
{
	return h->l1.ecx & L1_ECX_XSAVE;
}

static bool has_avx(const struct host_cpu *h)
{
	return has_xsave(h) && h->l1.ecx & BIT(28);
}

static void leaf_1(const struct host_cpu *h, const struct engine_config *cfg,
    const struct cpuid_context *ctx, struct cpuid_regs *r)
{
	unsigned package = package_of(cfg);

	r->eax = h->l1.eax;
	/* Brand index 0, CLFLUSH line, ids in the package, APIC id. */
	r->ebx = (h->l1.ebx & 0xff00) | MIN(package, 255u) << 16 | ctx->cpu << 24;
	r->ecx = (h->l1.ecx & L1_ECX) | L1_ECX_HV | L1_ECX_DEADLINE;
	if (!has_avx(h))
		r->ecx &= ~L1_ECX_AVX;
	if (cfg->x2apic)
		r->ecx |= L1_ECX_X2APIC;
	if (has_xsave(h) && ctx->cr4 & CR4_OSXSAVE)
		r->ecx |= L1_ECX_OSXSAVE;
	r->edx = h->l1.edx & L1_EDX;
	if (!ctx->apic_enabled)
		r->edx &= ~BIT(9);
	if (package > 1)
		r->edx |= L1_EDX_HTT;
}

/*
 * Leaves 4 and 0x8000001D: the host's caches, shared by the guest's own neighbours.
 */
static void leaf_cache(const struct host_cpu *h, const struct engine_config *cfg,
    uint32_t subleaf, bool intel, struct cpuid_regs *r)
{
	unsigned level, sharing;

	if (subleaf >= h->caches)
		return;
	*r = h->cache[subleaf];
	level = r->eax >> 5 & 7;
	sharing = level >= 3 ? package_of(cfg) : threads_of(cfg);
	/* Type, level, self-initializing, associativity; then who shares it. */
	r->eax = (r->eax & 0x3ff) | (MIN(sharing, 4096u) - 1) << 14;
	if (intel)
		r->eax |=
		    (MIN((1u << width(package_of(cfg))) / threads_of(cfg), 64u) - 1)
		    << 26;
}

static void leaf_7(const struct host_cpu *h, uint32_t subleaf, struct cpuid_regs *r)
{
	if (subleaf != 0)
		return;
	r->ebx = (h->l7.ebx & L7_EBX) | L7_EBX_TSC_ADJ | L7_EBX_ZERO_FCS;
	r->ecx = h->l7.ecx & L7_ECX;
	r->edx = h->l7.edx & L7_EDX;
	if (!h->amd)
		r->edx |= L7_EDX_INTEL;
	if (!has_avx(h)) {
		r->ebx &= ~L7_EBX_AVX2;
		r->ecx &= ~L7_ECX_AVX;
	}
}

static void leaf_b(const struct engine_config *cfg, const struct cpuid_context *ctx,
    uint32_t subleaf, struct cpuid_regs *r)
{
	unsigned threads = threads_of(cfg), package = package_of(cfg);

	r->ecx = subleaf & 0xff;
	r->edx = ctx->cpu;
	if (subleaf == 0) {
		r->eax = width(threads);
		r->ebx = threads;
		r->ecx |= 1u << 8;
	} else if (subleaf == 1) {
		r->eax = width(package);
		r->ebx = package;
		r->ecx |= 2u << 8;
	}
}

static void leaf_d(const struct host_cpu *h, const struct cpuid_context *ctx,
    uint32_t subleaf, struct cpuid_regs *r)
{
	bool avx = has_avx(h);

	if (!has_xsave(h))
		return;
	switch (subleaf) {
	case 0:
		r->eax = avx ? XCR0_ALL : 3;
		r->ebx = ctx->xcr0 & 4 ? XSAVE_AVX : XSAVE_MIN;
		r->ecx = avx ? XSAVE_AVX : XSAVE_MIN;
		break;
	case 1:
		r->eax = h->ld1.eax & LD1_EAX;
		/*
		 * Size of the compacted area; without XSAVES no supervisor state
		 * adds to it.
		 */
		if (r->eax & BIT(1))
			r->ebx = ctx->xcr0 & 4 ? XSAVE_AVX : XSAVE_MIN;
		break;
	case 2:
		if (avx) {
			r->eax = AVX_SIZE;
			r->ebx = AVX_OFFSET;
		}
		break;
	default:
		break;
	}
}

static void basic(const struct host_cpu *h, const struct engine_config *cfg,
    const struct cpuid_context *ctx, uint32_t leaf, uint32_t subleaf,
    struct cpuid_regs *r)
{
	uint32_t mhz;

	switch (leaf) {
	case 0:
		*r = h->vendor;
		r->eax = BASIC_MAX;
		break;
	case 1:
		leaf_1(h, cfg, ctx, r);
		break;
	case 2:
		if (!h->amd)
			r->eax = 0x00feff01u; /* "see leaf 4", no TLB or prefetch
						 details */
		break;
	case 4:
		if (!h->amd)
			leaf_cache(h, cfg, subleaf, true, r);
		break;
	case 6:
		r->eax = BIT(2); /* ARAT: the APIC timer never stops */
		break;
	case 7:
		leaf_7(h, subleaf, r);
		break;
	case 0xb:
		leaf_b(cfg, ctx, subleaf, r);
		break;
	case 0xd:
		leaf_d(h, ctx, subleaf, r);
		break;
	case 0x15:
		/*
		 * TSC = crystal * EBX / EAX. The ratio 1 with the TSC itself as
		 * crystal states the frequency exactly and overflows nobody's
		 * 32-bit product; too large for 32 bits it is left to 0x16.
		 */
		if (cfg->tsc_hz != 0 && cfg->tsc_hz <= UINT32_MAX) {
			r->eax = 1;
			r->ebx = 1;
			r->ecx = (uint32_t)cfg->tsc_hz;
		}
		break;
	case 0x16:
		mhz = (uint32_t)((cfg->tsc_hz + 500000) / 1000000);
		r->eax = r->ebx = mhz & 0xffff;
		r->ecx = 100;
		break;
	default:
		break;
	}
}

static void hypervisor(
    const struct engine_config *cfg, uint32_t leaf, struct cpuid_regs *r)
{
	switch (leaf) {
	case HYPERVISOR_BASE:
		r->eax = HYPERVISOR_MAX;
		memcpy(&r->ebx, "bhyv", 4);
		memcpy(&r->ecx, "e bh", 4);
		memcpy(&r->edx, "yve ", 4);
		break;
	case HYPERVISOR_BASE + 1:
		r->eax = BIT(0); /* extended destination ids in MSI and IOAPIC */
		break;
	case HYPERVISOR_MAX:
		r->eax = (uint32_t)(cfg->tsc_hz / 1000);
		r->ebx = (uint32_t)(CLOCK_LAPIC_HZ / 1000);
		break;
	default:
		break;
	}
}

static uint32_t ext_max(const struct host_cpu *h)
{
	return h->amd ? 0x80000021u : 0x80000008u;
}

static void extended(const struct host_cpu *h, const struct engine_config *cfg,
    const struct cpuid_context *ctx, uint32_t leaf, uint32_t subleaf,
    struct cpuid_regs *r)
{
	unsigned package = package_of(cfg), threads = threads_of(cfg);

	switch (leaf) {
	case 0x80000000u:
		*r = h->ext_vendor;
		r->eax = ext_max(h);
		break;
	case 0x80000001u:
		r->eax = h->ext1.eax;
		r->ebx = h->ext1.ebx;
		r->ecx = h->ext1.ecx & E1_ECX;
		r->edx = h->ext1.edx & E1_EDX;
		if (h->amd) {
			r->ecx |= E1_ECX_CR8 | E1_ECX_TOPOEXT;
			if (package > 1)
				r->ecx |= E1_ECX_CMP;
			r->edx |= h->l1.edx & E1_EDX_COPY;
			if (!ctx->apic_enabled)
				r->edx &= ~BIT(9);
		}
		break;
	case 0x80000002u:
	case 0x80000003u:
	case 0x80000004u:
		*r = h->brand[leaf - 0x80000002u];
		break;
	case 0x80000005u:
		if (h->amd)
			*r = h->ext5;
		break;
	case 0x80000006u:
		*r = h->ext6;
		break;
	case 0x80000007u:
		r->edx = BIT(8); /* invariant TSC */
		break;
	case 0x80000008u:
		r->eax = MMU_PHYS_BITS | VIRT_BITS << 8;
		if (h->amd) {
			r->ebx = (h->ext8.ebx & E8_EBX) | E8_EBX_NO;
			r->ecx = (package - 1) | width(package) << 12;
		}
		break;
	case 0x8000001du:
		if (h->amd)
			leaf_cache(h, cfg, subleaf, false, r);
		break;
	case 0x8000001eu:
		if (h->amd) {
			r->eax = ctx->cpu;
			r->ebx = ctx->cpu % package / threads | (threads - 1) << 8;
			r->ecx = ctx->cpu / package;
		}
		break;
	case 0x80000021u:
		if (h->amd)
			*r = (struct cpuid_regs){ .eax = E21_EAX, .ecx = E21_ECX };
		break;
	default:
		break;
	}
}

void cpuid_guest(const struct engine_config *cfg, const struct cpuid_context *ctx,
    uint32_t leaf, uint32_t subleaf, struct cpuid_regs *out)
{
	const struct host_cpu *h = host();
	struct cpuid_regs r = { 0 };

	if (leaf >= 0x80000000u) {
		if (leaf <= ext_max(h))
			extended(h, cfg, ctx, leaf, subleaf, &r);
	} else if (leaf >= HYPERVISOR_BASE) {
		hypervisor(cfg, leaf, &r);
	} else {
		/*
		 * Beyond the last leaf, Intel answers with the last one, AMD with
		 * zeros.
		 */
		if (leaf > BASIC_MAX && !h->amd)
			leaf = BASIC_MAX;
		basic(h, cfg, ctx, leaf, subleaf, &r);
	}
	*out = r;
}
