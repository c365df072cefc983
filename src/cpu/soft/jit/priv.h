/*
 * What the rooms of the translator share. See jit.h for the design.
 *
 * struct jit is mapped directly below the code it serves; everything generated
 * code touches lies in it, in the arrays behind it, or in struct soft_cpu.
 */
#pragma once

#include <stdio.h>

#include "cpu/soft/jit/emit.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/mmu.h"

#define JIT_HOT_SIZE  (24 * MiB) /* translated instructions */
#define JIT_COLD_SIZE (16 * MiB) /* what follows a miss */
#define JIT_SITES     (1u << 18)
#define JIT_TRANS     (1u << 18)
#define JIT_EDGES     (1u << 19)
#define JIT_TOKENS    (1u << 15)
#define JIT_PCS       (1u << 22)
#define JIT_KEYS      16
#define JIT_ICALLS    (1u << 16)
#define JIT_PAIRS     (64 * KiB) /* bytes of host stack a key, for paired returns */
#define JIT_GUARD     (64 * KiB)
#define JIT_TABLE     65536u	 /* indirect jump targets a key */

/* Shape of code: see jit_key(). */
#define KEY_IDX_MASK 3u
#define KEY_X87	     4u
#define KEY_SSE	     8u
#define KEY_AVX	     16u
#define KEY_TSD	     32u	/* RDTSC faults */
#define KEY_COMPAT   64u	/* 32-bit code; FS, GS: flat but for their base */
#define KEY_FS	     128u
#define KEY_GS	     256u
#define KEY_SMAP     512u	/* of kernels: AC decides about user pages */
#define KEY_NONE     0xffffffffu /* not for the translator */

struct slot {
	uint64_t start;
	uint64_t limit;		/* 0: matches nothing */
	uint64_t delta;
	uint8_t level;		/* of the guest's mapping, as a shift */
	uint8_t listed;		/* lists it is in, as bits */
	uint8_t kind;		/* 'r', 'w' */
	uint8_t idx;		/* enum mmu_idx, IDX_LOW */
	uint16_t size;		/* bytes reached from the checked address */
	uint8_t flags : 3;	/* SLOT_ */
	uint8_t lonely : 5;	/* refills that found no neighbours, at most 4 */
	uint8_t tries;		/* to find some since; look-ups of a sticky one */
};
_Static_assert(sizeof(struct slot) == 32, "two to a cache line");
/* For the stub, which reads kind and idx as one word and flags as bits of a byte. */
_Static_assert(offsetof(struct slot, idx) == offsetof(struct slot, kind) + 1, "a word");
#define SLOT_FLAGS_AT (offsetof(struct slot, size) + 2)

#define SITE_FAULT 0u	/* the site of whatever instruction a signal interrupted */

#define SLOT_ABS   1u	/* one constant address: delta is the host address itself */
#define SLOT_GROUP 2u	/* later accesses of the block rely on this check */

/* Of 32-bit code: addresses from 4 GiB on, to wrap, match neither slot nor range. */
#define IDX_LOW 4u
#define SLOT_STICKY 4u	/* see poly.c */

/*
 * A large page that the software TLB showed us, or as much of it as one kind of
 * access may reach: outlives the TLB's entries for its 4 KiB pieces, dropped by the
 * same flushes as slots.
 */
struct large {
	uint64_t tag;		/* start of the 2 MiB | idx << 1 | write; 0: none */
	uint64_t start, len, delta;
	uint8_t level, global;
};
#define LARGE_COUNT 256u
#define LARGE_SHIFT 21u

/*
 * What slots were filled with lately, by page and kind of access: lets the stub refill
 * a slot without C. Only for slots that are in the list named by the bit in list.
 */
struct range {
	uint64_t tag;		/* page number << 28 | generation << 16 | idx << 8 | kind */
	uint64_t start;
	uint64_t delta;
	uint32_t len;
	uint8_t level;
	uint8_t list;		/* one bit of slot.listed */
	uint16_t pad;
};
_Static_assert(sizeof(struct range) == 32, "the stub indexes by shifting");
#define RANGE_COUNT    512u
#define RANGE_GEN_STEP (1u << 16)
#define RANGE_GEN_END  (1u << 28)

#define LIST_GLOBAL 1u
#define LIST_WRITE  2u

struct trans;
struct tr;
struct lockstep;

/* What a slot's or a fallback's instruction is. Same index as its slot. */
struct site {
	struct trans *t;
	uint16_t insn;
	uint16_t refills;	/* until the site gets its own look-up */
	uint32_t retry;		/* where the instruction begins, from code_rx */
	uint32_t jae;		/* the check's rel32, from code_rw; 0: none */
	int32_t disp;		/* the address, if base is not SITE_T0 */
	uint32_t since;		/* when counting refills began, in 1024 host cycles */
	uint8_t base;		/* host register */
	uint16_t off;		/* of the instruction from the block's first */
};
_Static_assert(sizeof(struct site) == 32, "the stub indexes by shifting");
#define SITE_SHIFT   5
#define SITE_T0	     0xffu	/* the address is in T0 */
#define SITE_REFILLS 32
#define SITE_BUSY    192	/* they took no longer: worth a look-up of its own */
/* So many crossings are worth a second translation. */
#define CROSSINGS_FEW 16u
/* So many within that time are worth the loss of the first one. */
#define CROSSINGS     64u
#define CROSSINGS_NS  UINT64_C(25000)

/* A direct jump: where its rel32 is and what it shows when it is not linked. */
struct edge {
	struct trans *from;
	struct trans *to;	/* NULL: not linked */
	struct edge *next_in;	/* of to */
	uint8_t *at;		/* the rel32, as written */
	uint8_t *cold;		/* where it goes unlinked */
	uint64_t rip;		/* target */
	bool inlined;		/* its jump is left out: to follows from */
	bool nop;		/* its jump would go to where it ends */
};

/*
 * An indirect call: the target it is linked to by its edge, compared at the site. Who
 * has many targets is sent to the table instead.
 */
struct icall {
	uint64_t rip;		/* target that may take the edge */
	uint8_t *miss;		/* the rel32, as written, that leads elsewhere */
	uint8_t *call;		/* the call through the edge */
	uint8_t *generic;	/* the call through the table */
	uint32_t edge;
	uint32_t tries;
};
#define ICALL_TRIES 4

struct token {
	uint64_t va, gpa;
	uint32_t keyid;
	int32_t next;		/* in its hash chain */
	uint8_t listed;		/* lists it is in, as bits */
};

struct trans {
	struct block *b;
	struct trans *next;	/* of b */
	struct trans *page_next[2];
	uint64_t rip;
	uint64_t page[2], lo[2], hi[2]; /* physical bytes it depends on */
	uint32_t *pc;		/* host address of each insn, from code; n + 1 */
	uint32_t *fast_pc;	/* of those of the copies without checks, n each: loop.c */
	struct trans *plain;	/* the same without groups, made when it is needed */
	uint32_t fast;		/* where the copies are, from code_rx; 0: there are none */
	uint8_t *entry;		/* in-page direct jumps */
	uint8_t *entry_tok;	/* any direct jump; NULL: not made yet */
	uint8_t *entry_ind;	/* with T0 = target; NULL: not made yet */
	struct edge *in;
	uint32_t code, code_end;/* offsets in the hot half */
	int32_t tok[2];		/* page tokens; -1: none */
	uint16_t n;
	uint8_t keyid;
	bool dead;
	bool headless;		/* dead, its beginning overwritten: cache.c, links */
	bool ungrouped, uses_fp;
	bool second;		/* the plain one of another */
	uint8_t copies;
	uint8_t crossings;	/* times that no slot held a group, since crossed_ns */
	uint64_t crossed_ns;
	uint32_t live_in;	/* RF_STATUS bits it may read */
};

struct list {
	uint32_t n, max;
	uint32_t *v;
};

struct jit_stats {
	uint64_t translations, insns, bytes, cold_bytes, chains, unchains, slot_misses,
	    slot_slow, fallbacks, dispatches, ret_misses,
	    token_misses, invalidations, flushes, fpu_loads, fpu_saves, time_ns,
	    exits, signals, interpreted, ungrouped, group_misses, compared, exact, sticky;
};

/* What fast stubs keep for their caller; flags as LAHF and SETO leave them in AX. */
enum {
	SAVED_RAX, SAVED_RCX, SAVED_RDX, SAVED_RSI, SAVED_RDI, SAVED_R8, SAVED_R9,
	SAVED_FLAGS,
};

struct jit {
	/* Touched by generated code. */
	uint64_t rsp;		/* pairing stack while C runs */
	uint64_t c_rsp;		/* C's stack while generated code runs */
	uint64_t save[8];	/* of fast stubs, by SAVED_ */
	uint64_t rax;		/* while flags are held in AX */
	uint64_t rounds;	/* to go, of loop.c */
	uint64_t ptr_miss, ptr_slow, ptr_interp, ptr_link, ptr_dispatch, ptr_poll,
	    ptr_fpu, ptr_icall, ptr_exact, ptr_gate, ptr_string;
	uint8_t fpu_loaded;
	uint8_t pad[7];
	uint32_t miss_site;
	uint32_t pad2;
	uint64_t range_gen;	/* in place in a tag */
	uint64_t miss_addr, miss_to; /* where the miss helper sends us, with T1, T0 */

	struct soft_cpu *cpu;
	uint32_t keyid;
	uint32_t nkeys;
	uint32_t key[JIT_KEYS];
	uint64_t pair_top[JIT_KEYS], pair_rsp[JIT_KEYS];
	uint8_t *pairs;
	uint8_t **table;	/* JIT_KEYS * JIT_TABLE, below 2 GiB */

	uint8_t *stub_enter, *stub_miss, *stub_slow, *stub_interp, *stub_link,
	    *stub_dispatch, *stub_poll, *stub_under[JIT_KEYS], *stub_ret_miss[JIT_KEYS],
	    *stub_fpu, *stub_icall, *stub_exact, *stub_gate, *stub_string;

	uint8_t *region;	/* reserved stretch */
	size_t region_size;
	int fd;
	uint8_t *code_rx, *code_rw;
	struct emit hot, cold;
	uint8_t *hot_start, *cold_start; /* rw, after the stubs */

	uint8_t *tok_valid;	/* JIT_TOKENS bytes */
	struct token *tokens;
	uint32_t ntokens;
	int32_t tok_hash[4096];
	struct slot *slots;
	struct icall *icalls;
	uint32_t nicalls;
	bool exact[JIT_KEYS];	/* flags pass calls and returns: see plan.c */
	struct site *sites;
	uint32_t nsites;
	struct trans *trans;
	uint32_t ntrans;
	struct edge *edges;
	uint32_t nedges;
	uint32_t linking;	/* the edge somebody looks for a target of, or EDGE_NONE */
	uint32_t *pcs;
	uint32_t npcs;
	struct trans **by_page;	/* hashes of first and second physical pages */
	struct large large[LARGE_COUNT];
	uint8_t *large_wrote;	/* by 2 MiB of memory: some large[] or slot may write there */
	struct range range[RANGE_COUNT];
	struct list filled[4];	/* slots with limit != 0, by LIST_ bits */
	bool low_globals;	/* a global page in the lower half was seen */
	struct list toks[2];	/* valid tokens, likewise */
	struct tr *tr;		/* the translation in the making */
	uint8_t ungroup[8192];	/* hash of blocks to be translated without groups */
	uint64_t epoch;		/* changes when a slot or token may have been taken away */
	void *alt_stack;
	FILE *perfmap;

	unsigned threshold;
	uint32_t shake, shake_left; /* every so many calls of helpers; 0: never */
	uint64_t shake_seed;
	struct lockstep *lock;	/* NULL: nothing is compared */
	struct jit_stats stats;
};

#define BY_PAGE 16384u
#define EDGE_NONE 0xffffffffu

static inline bool spilled(unsigned guest)
{
	return guest == 10 || guest == 11 || guest == 15;
}

/* Host register of a guest register that has one. */
static inline int host_reg(unsigned guest)
{
	return guest == 4 ? H_GSP : (int)guest;
}

static inline unsigned key_idx(uint32_t key)
{
	return key & KEY_IDX_MASK;
}

/* cache.c */
int cache_create(struct soft_cpu *cpu);
void cache_destroy(struct jit *j);
void cache_flush(struct jit *j);
bool cache_room(const struct jit *j);
int32_t token_get(struct jit *j, uint64_t va, uint64_t gpa, unsigned keyid);
void token_validate(struct jit *j, int32_t tok, bool global);
void token_drop(struct jit *j, uint32_t tok);
void trans_kill(struct jit *j, struct trans *t);
void edge_link(struct jit *j, struct edge *e, struct trans *to);
void edge_unlink(struct jit *j, struct edge *e);
/* Code memory is written where it does not run. */
static inline void code_patch(const struct jit *j, uint8_t *rel32, const uint8_t *to)
{
	int32_t rel = (int32_t)(to - (rel32 + j->hot.x + 4));

	__atomic_store_n((int32_t *)(void *)rel32, rel, __ATOMIC_RELAXED);
}
/* Whether `to` follows the edge being linked; then it takes the place of its jump. */
bool edge_inline(struct jit *j, const struct trans *to);

/* Room that cold code made after its translation asks for. */
#define ENTRY_MAX 512

/* stubs.c */
void stubs_make(struct jit *j);
void entry_tok_make(struct jit *j, struct trans *t);
void entry_ind_make(struct jit *j, struct trans *t);
void emit_expect(struct emit *e, uint64_t rip, bool live, const uint8_t *miss);
void emit_token_check(struct jit *j, struct emit *e, int32_t tok, bool live,
    const uint8_t *miss);
void emit_byte_check(struct emit *e, struct emem m, bool live, const uint8_t *miss);
void emit_byte_clear(struct emit *e, struct emem m, bool live, const uint8_t *at);
void emit_poll(struct jit *j, struct emit *e, bool live, const uint8_t *at);
void emit_table_jump(struct jit *j, struct emit *e, unsigned keyid, bool call);

/* translate.c */
size_t translate_scratch(void);
/* Blocks that do better without groups: a hash, false positives do no harm. */
bool ungroup_has(const struct jit *j, const struct block *b);
void ungroup_set(struct jit *j, const struct block *b);
struct trans *translate(struct jit *j, struct block *b, uint64_t rip, unsigned keyid,
    bool second);

/* helpers.c: called by stubs; return where to go on, NULL: back to C with state stored. */
const uint8_t *jit_h_slow(struct jit *j, uint32_t site, uint64_t addr);
const uint8_t *jit_h_interp(struct jit *j, uint32_t site, uint64_t unused);
const uint8_t *jit_h_link(struct jit *j, uint32_t edge, uint64_t unused);
const uint8_t *jit_h_dispatch(struct jit *j, uint32_t unused, uint64_t rip);
const uint8_t *jit_h_poll(struct jit *j, uint32_t edge, uint64_t unused);
const uint8_t *jit_h_icall(struct jit *j, uint32_t icall, uint64_t rip);
const uint8_t *jit_h_exact(struct jit *j, uint32_t site, uint64_t unused);
void jit_fpu_save(struct jit *j);
uint64_t jit_now_ns(void);

/* poly.c: integer registers only. */
void poly_count(struct jit *j, uint32_t site);
/*
 * If the site has a look-up: fills its slot for the address and goes to hit, with T0
 * as it was; else to miss.
 */
void poly_lookup(struct jit *j, struct emit *e, uint32_t site, struct emem addr,
    const uint8_t *miss, const uint8_t *hit);

/* key.c */
uint32_t jit_key(const struct soft_cpu *cpu);
/* Its number, a new one if need be; JIT_KEYS: no room. */
unsigned key_number(struct jit *j, uint32_t key);
/* Makes the state's key current. False: not for us. */
bool jit_use_key(struct jit *j);
/* The run loop has something to do before the next instruction. */
bool jit_must_leave(const struct soft_cpu *cpu);
/*
 * Leaving 64-bit mode need not preserve the upper halves of registers (SDM vol. 1
 * 3.4.1.1), and translated 32-bit code has them zero.
 */
void jit_narrow(struct soft_cpu *cpu);

/* gate.c */
/* What could go wrong is left to the interpreter. Sets j->miss_to. */
void jit_gate(struct jit *j, uint32_t site, uint64_t unused);

/* string.c */
void jit_string(struct jit *j, uint32_t site, uint64_t unused);

/* fast.c: integer registers only. Sets j->miss_to. */
void range_drop_all(struct jit *j);
void jit_miss(struct jit *j, uint32_t site, uint64_t addr);
bool jit_slot_fill(struct jit *j, uint32_t site, uint64_t addr);
void jit_fpu_load(struct jit *j);

/* shake.c: between two blocks (true: edges are gone); after an instruction of t. */
bool shake_between(struct jit *j);
void shake_within(struct jit *j, struct trans *t);
/* Of fast.c: forgets some slots. */
void shake_slots(struct jit *j);
static inline bool shake_due(struct jit *j)
{
	if (likely(!j->shake) || --j->shake_left)
		return false;
	j->shake_left = j->shake;
	return true;
}

/* signal.c */
int jit_signals_on(struct jit *j);
void jit_signals_off(struct jit *j);

