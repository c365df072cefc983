/*
 * The oracle: random instructions run on the host's own CPU and in the engine
 * from the same state; registers, memory and faults must agree.
 *
 *   gen.c     one test: instruction bytes and a state that makes them interesting
 *   host.c    runs a batch of tests natively in a guarded child process
 *   guest.c   runs one test in the engine, in 64-bit user mode
 *   undef.c   what the architecture leaves undefined, not to be compared
 *   oracle.c  options, comparison, reproducers
 *
 * Both sides see the same addresses below 4 GiB, so that 32-bit addressing reaches
 * them too:
 *
 *   ORACLE_CODE	one page, read and execute, INT3 all over but for the test
 *   ORACLE_DATA	two pages read-write, one read-only, one not mapped, one
 *			read-write, then nothing
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cpu/soft/fpu.h"

#define PAGE        4096u
#define ORACLE_CODE 0x10000000u
#define ORACLE_DATA 0x20000000u
#define DATA_PAGES  5u
#define DATA_RO     2u /* index of the read-only page */
#define DATA_HOLE   3u /* index of the one not mapped */
#define DATA_SIZE   (DATA_PAGES * PAGE)
#define ORACLE_GS   (ORACLE_DATA + 0x800u) /* GS base on both sides */
#define CODE_OFFSET 0x7c0u                 /* of the test in its page */
#define CODE_MAX    256u
#define SEQ_MAX     16u
#define BATCH       128u

struct regs {
	uint64_t gpr[16];
	uint64_t rip, rflags;
	struct fpu_image fpu __attribute__((aligned(64)));
};

struct test {
	uint64_t id;
	uint8_t code[CODE_MAX];
	uint16_t len;
	uint16_t count;       /* instructions */
	uint16_t at[SEQ_MAX]; /* offset of each */
	bool trace;           /* by the trap flag, one instruction */
	uint64_t undefined;   /* RFLAGS bits not to be compared at the end ... */
	uint64_t undefined_fault; /* ... or when it ends early */
	uint32_t mask_at; /* where MXCSR_MASK was saved: the host's has more bits;
			     0: nowhere */
	bool mmx;         /* an instruction uses MMX registers */
	bool several;  /* one accesses memory more than once, in no fixed order */
	bool in_steps; /* one raises SIMD exceptions in steps */
	bool ignore_dest; /* undefined result: compare faults only */
	bool calm;        /* few operands at the edges of pages */
	uint32_t aimed;   /* registers that operands go through already, as bits */
	struct regs in;
};

struct outcome {
	uint32_t vector, error;
	uint64_t address; /* of a page fault */
	uint64_t memory;  /* hash of the data pages afterwards */
	struct regs out;
};

struct rng {
	uint64_t s;
};
static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}
static inline unsigned rng_below(struct rng *r, unsigned n)
{
	return (uint32_t)(rng_next(r) >> 32) % n;
}

/* Hides what mask_at names. */
static inline void data_mask(uint8_t *data, const struct test *t)
{
	for (unsigned i = 0; t->mask_at != 0 && i < 4; i++)
		data[t->mask_at - ORACLE_DATA + i] = 0;
}

/* gen.c */
#define GEN_STATE 0 /* count: saves and restores of the FPU state */
void gen_init(void);
/* One test from its own seed; count: instructions in it. */
void gen_test(struct test *t, uint64_t seed, unsigned count);
void gen_memory(uint8_t *data, uint64_t seed);

/* host.c: 0 or -1 (the child died or hung; it is started anew). */
int host_start(void);
void host_stop(void);
int host_run(const struct test *t, unsigned n, struct outcome *out);
/* The data pages as the child sees them. */
uint8_t *host_data(void);

/* guest.c */
int guest_start(const char *tier);
void guest_stop(void);
int guest_run(const struct test *t, struct outcome *out);
/* The same code from the same registers once more; cold: with an empty TLB. */
int guest_again(const struct test *t, struct outcome *out, bool cold);
uint8_t *guest_data(void);

static inline uint64_t data_hash(const uint8_t *data)
{
	const uint64_t *w = (const uint64_t *)(const void *)data;
	uint64_t h = 0;

	for (unsigned i = 0; i < DATA_SIZE / 8; i++)
		h = (h ^ w[i]) * 0x9fb21c651e98df25u + (h >> 29);
	return h;
}

/*
 * undef.c: flags that one instruction leaves undefined, given its operands' state.
 */
uint64_t undefined_flags(const void *zydis_insn, const void *zydis_operands,
    const struct regs *in, bool *ignore_dest);
