/*
 * Instructions that run on the host's own x87 and vector units: the seam between
 * native.c (handlers), native_stub.c (code) and native_mem.c (masked memory forms).
 *
 * A stub is the guest's instruction with its memory operand replaced by [RDI] and
 * its general register by RAX, between loads and stores of the registers it
 * uses. Stubs depend on nothing but their patched bytes and are shared by all
 * instructions of a vCPU that look alike.
 */
#pragma once

#include <Zydis/Zydis.h>

#include "cpu/soft/fpu.h"

#define UNIT_X87 0x1u	/* registers in the 512-byte image: FXRSTOR, run, FXSAVE */
#define UNIT_MMX 0x2u
#define UNIT_SSE 0x4u
#define UNIT_AVX 0x8u

#define STUB_LOAD      0x001u /* reads memory */
#define STUB_STORE     0x002u /* writes memory */
#define STUB_MXCSR     0x004u /* may raise SIMD exceptions, obeys RC */
#define STUB_FLAGS_IN  0x008u
#define STUB_FLAGS_OUT 0x010u
#define STUB_GPR_IN    0x020u /* RAX from the general register */
#define STUB_GPR_OUT   0x040u
#define STUB_STR_LEN   0x080u /* PCMPESTRx: lengths in RAX and RDX */
#define STUB_STR_INDEX 0x100u /* PCMPxSTRI: result in RCX */
#define STUB_POINTERS  0x200u /* sets FIP, FDP and FOP */
#define STUB_YMM       0x400u /* leaves upper halves of host registers dirty */
#define STUB_BOUNCE                                                                \
	0x800u /* the host may want an alignment the guest need not have */
#define STUB_IO                                                                    \
	(STUB_MXCSR | STUB_FLAGS_IN | STUB_FLAGS_OUT | STUB_GPR_IN |               \
	    STUB_GPR_OUT | STUB_STR_LEN | STUB_STR_INDEX)

/*
 * What goes through registers other than the vector ones; at a fixed place in code.
 */
struct native_io {
	uint64_t rax, rcx, rdx, flags;
	uint32_t mxcsr_in, mxcsr_out;
	uint32_t discard; /* MXCSR bits of which any one set drops the results */
};

/* fx_out: where FXSAVE puts the state (UNIT_X87, UNIT_MMX). */
typedef void native_code(
    void *mem, void *image, struct native_io *io, void *fx_out);

#define STUB_KEY_MAX 18

struct native_stub {
	struct native_stub *next; /* in the hash chain */
	native_code *code;
	uint32_t code_len;
	uint32_t refs;
	uint32_t hash;
	uint16_t attr;
	uint16_t mem_size;
	uint8_t align; /* of the guest's address: 1, 16, 32 */
	uint8_t unit;
	uint8_t gpr;
	uint8_t dest; /* first vector register, for exact underflow */
	uint8_t elem_size, elem_count; /* its floating-point elements; 0: none */
	uint16_t fop;
	uint8_t key_len;
	uint8_t key[STUB_KEY_MAX]; /* patched bytes, general register */
};

#define STUB_BUCKETS  1024u
#define STUB_LIMIT    16384u /* bounds what a guest can make us keep */
#define NATIVE_BOUNCE 64u

struct native {
	struct codemem *codemem;
	ZydisDecoder decoder[3];                  /* by enum cpu_mode */
	uint8_t isa[ZYDIS_ISA_SET_MAX_VALUE + 1]; /* 1: the guest was promised it */
	uint8_t *spare_rw, *spare_rx; /* one stub, when memory is short */
	unsigned nstubs;
	struct native_stub *bucket[STUB_BUCKETS];
	struct fpu_image fx_in __attribute__((aligned(64)));
	struct fpu_image fx_out __attribute__((aligned(64)));
	uint8_t bounce[NATIVE_BOUNCE] __attribute__((aligned(64)));
};

struct native_decoded {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	int mem; /* index of the memory operand, or -1 */
};

/*
 * The stub for a decoded instruction, new or shared. 0; -EINVAL: it has no stub
 * form; -ENOMEM.
 */
int stub_get(struct native *n, const struct native_decoded *d, const uint8_t *bytes,
    enum cpu_mode mode, struct native_stub **out);
void stub_put(struct native *n, struct native_stub *s);
/* One in the spare place, valid until the next call. 0 or -EINVAL. */
int stub_spare(struct native *n, const struct native_decoded *d,
    const uint8_t *bytes, enum cpu_mode mode, struct native_stub *out);
void stub_sweep(struct native *n); /* frees those without users */
int stub_create(struct native *n);
void stub_destroy(struct native *n);

/*
 * native_mem.c: gathers and masked moves, with aux from malloc(); NULL: not one of
 * them.
 */
insn_fn *native_mem_handler(struct insn *in, const struct native_decoded *d);
bool native_mem_owns(insn_fn *fn);
/* Decodes in->bytes again; 0 or -1. */
int native_decode(
    const struct native *n, const struct insn *in, struct native_decoded *d);
