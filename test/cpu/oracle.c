/*
 * Compares the host's CPU with the engine's. A mismatch is printed with all that is
 * needed to see it again: `oracle --seed N --count C --one`.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <Zydis/Zydis.h>

#include "oracle.h"

#define FLAGS_COMPARED (RF_STATUS | RF_DF | RF_NT | RF_AC | RF_ID)

static struct test tests[BATCH];
static struct outcome native_out[BATCH];
static bool translated; /* --tier=jit or lockstep */
static uint8_t kept[DATA_SIZE]; /* the data pages before a test */

static const char *const gpr_name[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
	"rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15" };

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void print_bytes(const char *name, unsigned i, const uint8_t *in,
    const uint8_t *host, const uint8_t *guest, unsigned n)
{
	const uint8_t *sets[] = { in, host, guest };
	static const char *const who[] = { "before", "host  ", "engine" };

	for (unsigned s = 0; s < 3; s++) {
		printf("  %s%-2u %s ", name, i, who[s]);
		for (unsigned k = n; k-- > 0;)
			printf("%02x", sets[s][k]);
		printf("\n");
	}
}

static bool same_fpu(const struct fpu_image *a, const struct fpu_image *b)
{
	if (a->fcw != b->fcw || a->fsw != b->fsw || a->ftw != b->ftw ||
	    a->mxcsr != b->mxcsr)
		return false;
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(a->st[i], b->st[i], 10) != 0)
			return false;
	return memcmp(a->xmm, b->xmm, sizeof(a->xmm)) == 0 &&
	       memcmp(a->ymmh, b->ymmh, sizeof(a->ymmh)) == 0;
}

/* MXCSR flags after #XM that the engine cannot know: see native.c. */
static uint32_t flags_unknown(const struct test *t, const struct outcome *h)
{
	uint32_t unknown = 0;

	if (h->vector != EXC_XM)
		return 0;
	if (t->in_steps)
		unknown |= FPU_FLAGS;
	if (h->out.fpu.mxcsr & 0x18)
		unknown |= 0x20;
	if (!(h->out.fpu.mxcsr & 0x800))
		unknown |= 0x10;
	return unknown;
}

/*
 * Linux tells user mode that every page of the kernel's half is present. For user
 * mode the engine's page tables have nothing there.
 */
#define LINUX_USER_END 0x7ffffffff000u

#ifdef __SANITIZE_ADDRESS__
#define HOST_FIRST UINT64_C(0x7fff7000) /* the sanitizer's shadow */
#else
#define HOST_FIRST UINT64_C(0x550000000000)
#endif

/*
 * Whether the x87 enters MMX state before a fault of an MMX instruction is not
 * defined.
 */
static bool mmx_faulted(const struct test *t, const struct outcome *h)
{
	return t->mmx && h->vector != EXC_BP && h->vector != EXC_DB;
}

static bool is_access_fault(unsigned vector)
{
	return vector == EXC_PF || vector == EXC_GP || vector == EXC_SS;
}

static bool same(const struct test *t, struct outcome *h, struct outcome *e)
{
	uint64_t mask = FLAGS_COMPARED & ~t->undefined;
	uint32_t unknown = flags_unknown(t, h);

	if (h->vector != EXC_BP)
		mask &= ~t->undefined_fault;

	h->out.fpu.mxcsr &= ~unknown;
	e->out.fpu.mxcsr &= ~unknown;
	/*
	 * Translated code does not keep flags alive that the rest of its block
	 * overwrites; those pushed for a fault in between are not defined.
	 */
	if (translated && h->vector != EXC_BP)
		mask &= ~RF_STATUS;
	if (t->several && h->out.rip == e->out.rip && is_access_fault(h->vector) &&
	    is_access_fault(e->vector)) {
		h->vector = e->vector;
		h->error = e->error;
		h->address = e->address;
	}
	/*
	 * Whether a misaligned stack address that is not canonical is #GP or #SS.
	 */
	if (h->vector == EXC_GP && e->vector == EXC_SS)
		h->vector = EXC_SS;
	if (h->vector != e->vector || h->out.rip != e->out.rip ||
	    h->address != e->address)
		return false;
	if (h->vector == EXC_PF && h->address >= LINUX_USER_END)
		h->error &= ~PF_P;
	if (mmx_faulted(t, h)) {
		h->out.fpu.fsw = e->out.fpu.fsw;
		h->out.fpu.ftw = e->out.fpu.ftw;
		memcpy(h->out.fpu.st, e->out.fpu.st, sizeof(h->out.fpu.st));
	}
	if ((h->vector == EXC_PF || h->vector == EXC_GP || h->vector == EXC_SS) &&
	    h->error != e->error)
		return false;
	if (t->ignore_dest)
		return true;
	return ((h->out.rflags ^ e->out.rflags) & mask) == 0 &&
	       memcmp(h->out.gpr, e->out.gpr, sizeof(h->out.gpr)) == 0 &&
	       h->memory == e->memory && same_fpu(&h->out.fpu, &e->out.fpu);
}

static void print_code(const struct test *t)
{
	ZydisDisassembledInstruction di;
	unsigned pos = 0;

	while (pos < t->len &&
	       ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64,
		   ORACLE_CODE + CODE_OFFSET + pos, t->code + pos, t->len - pos,
		   &di))) {
		printf("  %08x ", ORACLE_CODE + CODE_OFFSET + pos);
		for (unsigned i = 0; i < di.info.length; i++)
			printf("%02x", t->code[pos + i]);
		printf("  %s\n", di.text);
		pos += di.info.length;
	}
}

static void print_memory(void)
{
	const uint8_t *h = host_data(), *e = guest_data();
	unsigned shown = 0;

	for (unsigned i = 0; i < DATA_SIZE && shown < 8; i += 8) {
		if (memcmp(h + i, e + i, 8) != 0) {
			printf("  [%#x] host ", ORACLE_DATA + i);
			for (unsigned k = 8; k-- > 0;)
				printf("%02x", h[i + k]);
			printf(" engine ");
			for (unsigned k = 8; k-- > 0;)
				printf("%02x", e[i + k]);
			printf("\n");
			shown++;
		}
	}
}

static void report(
    const struct test *t, const struct outcome *h, const struct outcome *e)
{
	const struct fpu_image *fi = &t->in.fpu, *fh = &h->out.fpu,
			       *fe = &e->out.fpu;

	printf("MISMATCH --seed %llu --count %u%s\n", (unsigned long long)t->id,
	    t->count, t->trace ? " (traced)" : "");
	print_code(t);
	printf(
	    "  vector host %u error %#x cr2 %#llx, engine %u error %#x cr2 %#llx\n",
	    h->vector, h->error, (unsigned long long)h->address, e->vector,
	    e->error, (unsigned long long)e->address);
	printf("  rip    host %#llx, engine %#llx\n",
	    (unsigned long long)h->out.rip, (unsigned long long)e->out.rip);
	printf("  rflags before %#llx host %#llx engine %#llx (undefined %#llx)\n",
	    (unsigned long long)t->in.rflags, (unsigned long long)h->out.rflags,
	    (unsigned long long)e->out.rflags, (unsigned long long)t->undefined);
	for (unsigned i = 0; i < 16; i++)
		printf("  %-4s before %016llx host %016llx engine %016llx%s\n",
		    gpr_name[i], (unsigned long long)t->in.gpr[i],
		    (unsigned long long)h->out.gpr[i],
		    (unsigned long long)e->out.gpr[i],
		    h->out.gpr[i] != e->out.gpr[i] ? " <--" : "");
	printf("  fcw %04x/%04x/%04x fsw %04x/%04x/%04x ftw %02x/%02x/%02x mxcsr "
	       "%05x/%05x/%05x\n",
	    fi->fcw, fh->fcw, fe->fcw, fi->fsw, fh->fsw, fe->fsw, fi->ftw, fh->ftw,
	    fe->ftw, fi->mxcsr, fh->mxcsr, fe->mxcsr);
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(fh->st[i], fe->st[i], 10) != 0)
			print_bytes("st", i, fi->st[i], fh->st[i], fe->st[i], 10);
	for (unsigned i = 0; i < 16; i++) {
		if (memcmp(fh->xmm[i], fe->xmm[i], 16) != 0)
			print_bytes(
			    "xmm", i, fi->xmm[i], fh->xmm[i], fe->xmm[i], 16);
		if (memcmp(fh->ymmh[i], fe->ymmh[i], 16) != 0)
			print_bytes(
			    "ymmh", i, fi->ymmh[i], fh->ymmh[i], fe->ymmh[i], 16);
	}
	if (h->memory != e->memory)
		print_memory();
	fflush(stdout);
}

/* The same memory on both sides. */
static void reset_memory(uint64_t seed)
{
	gen_memory(host_data(), seed);
	memcpy(guest_data(), host_data(), DATA_SIZE);
}

/*
 * In the engine. Translations run three times: their accesses miss, then hit, then
 * miss the TLB as well. 1: as native; 0: not, *e tells; -1.
 */
static int run_guest(const struct test *t, const struct outcome *native, struct outcome *e)
{
	struct outcome h = *native;

	memcpy(kept, guest_data(), DATA_SIZE);
	if (guest_run(t, e) < 0)
		return -1;
	for (unsigned i = 0; translated && i < 2; i++) {
		if (!same(t, &h, e))
			return 0;
		h = *native;
		memcpy(guest_data(), kept, DATA_SIZE);
		if (guest_again(t, e, i == 1) < 0)
			return -1;
	}
	return same(t, &h, e);
}

/* Instructions that were begun. */
static unsigned begun(const struct test *t, const struct outcome *h)
{
	unsigned n = 1;

	while (t->count > 1 && n < t->count &&
	       ORACLE_CODE + CODE_OFFSET + t->at[n] <= h->out.rip)
		n++;
	return n;
}

/* One test alone, from fresh memory: the form a reproducer has. */
static int run_one(uint64_t seed, unsigned count, bool print)
{
	struct outcome e;
	int rc = -1;

	reset_memory(seed);
	gen_test(&tests[0], seed, count);
	if (host_run(tests, 1, native_out) == 0)
		rc = run_guest(&tests[0], &native_out[0], &e);
	if (rc < 0) {
		print_code(&tests[0]);
		return -1;
	}
	if (rc && !getenv("ORACLE_SHOW"))
		return 0;
	if (print)
		report(&tests[0], &native_out[0], &e);
	return 1;
}

/*
 * A random address may hit what only the child has: its program, libraries, stack.
 */
static bool hit_host(const struct outcome *e)
{
	return e->vector == EXC_PF && e->address >= HOST_FIRST &&
	       e->address < LINUX_USER_END;
}

struct tally {
	unsigned long run, insns, faults, bad;
	unsigned long by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

static unsigned mnemonic_of(const struct test *t)
{
	ZydisDisassembledInstruction di;

	if (!ZYAN_SUCCESS(ZydisDisassembleIntel(
		ZYDIS_MACHINE_MODE_LONG_64, 0, t->code, t->len, &di)))
		return 0;
	return di.info.mnemonic;
}

/* 0, or -1 when a side could not run. */
static int run_batch(
    uint64_t seed, unsigned count, struct tally *tally, unsigned max_report)
{
	unsigned n;

	reset_memory(seed);
	for (n = 0; n < BATCH; n++)
		gen_test(&tests[n], seed + n, count);
	if (host_run(tests, n, native_out) < 0)
		return -1;
	for (unsigned i = 0; i < n; i++) {
		struct outcome e;
		int rc;

		/*
		 * AMD's MISALIGNSSE: LDMXCSR took a bit that the guest does not
		 * have.
		 */
		if (native_out[i].out.fpu.mxcsr & ~FPU_MXCSR_MASK)
			return 0;
		tally->run++;
		tally->faults += native_out[i].vector != EXC_BP &&
				 native_out[i].vector != EXC_DB;
		tally->insns += begun(&tests[i], &native_out[i]);
		rc = run_guest(&tests[i], &native_out[i], &e);
		if (rc < 0) {
			print_code(&tests[i]);
			printf("  --seed %llu\n", (unsigned long long)tests[i].id);
			return -1;
		}
		if (hit_host(&e))
			return 0;
		if (!rc) {
			unsigned m = mnemonic_of(&tests[i]);

			tally->bad++;
			/*
			 * Alone it has fresh memory; most show again. One of a kind
			 * is enough.
			 */
			if (tally->by_mnemonic[m]++ < max_report &&
			    run_one(tests[i].id, count, true) == 0) {
				printf("(only after the batch's other tests)\n");
				report(&tests[i], &native_out[i], &e);
			}
			return 0;
		}
	}
	return 0;
}

static void usage(void)
{
	fprintf(stderr,
	    "usage: oracle [--seed N] [--seconds N] [--count N] [--one]\n"
	    "              [--tier interp|jit|lockstep] [--reports N]\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "seconds", required_argument, NULL, 't' },
		{ "count", required_argument, NULL, 'c' },
		{ "reports", required_argument, NULL, 'r' },
		{ "tier", required_argument, NULL, 'T' },
		{ "one", no_argument, NULL, '1' },
		{ 0 },
	};
	static struct tally tally;
	uint64_t seed = 1;
	double seconds = 15, end;
	unsigned count = ~0u, reports = 1;
	const char *tier = "interp";
	bool one = false;
	int opt, rc = 0;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 't':
			seconds = strtod(optarg, NULL);
			break;
		case 'c':
			count = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'r':
			reports = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'T':
			tier = optarg;
			translated = strcmp(tier, "interp") != 0;
			break;
		case '1':
			one = true;
			break;
		default:
			usage();
		}
	}
	gen_init();
	if (host_start() < 0 || guest_start(tier) < 0) {
		fprintf(stderr, "oracle: cannot start\n");
		return 2;
	}
	if (one) {
		rc = run_one(seed, count != ~0u ? count : 1, true);
		printf("%s\n", rc == 0 ? "same" : "different");
		goto out;
	}
	end = now() + seconds;
	for (uint64_t batch = 0; now() < end; batch++) {
		/* Most batches: single instructions. */
		unsigned c = batch % 4 == 3 ? 2 + batch / 4 % 7 : 1;

		/* What the translator does wrong shows in blocks. */
		if (translated && batch % 4)
			c = 4 + batch % (SEQ_MAX - 3);

		if (batch % 16 == 8)
			c = GEN_STATE;
		if (count != ~0u)
			c = count;

		if (run_batch(seed + batch * BATCH, c, &tally, reports) < 0) {
			rc = 2;
			tally.bad++;
			if (tally.bad > 20)
				break;
		}
	}
	printf("oracle: %s, seed %llu: %lu tests, %lu instructions, %lu faults, %lu "
	       "mismatches\n",
	    tier, (unsigned long long)seed, tally.run, tally.insns, tally.faults, tally.bad);
	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
		if (tally.by_mnemonic[m])
			printf("  %5lu %s\n", tally.by_mnemonic[m],
			    ZydisMnemonicGetString(m));
	if (tally.bad)
		rc = 1;
out:
	host_stop();
	guest_stop();
	return rc;
}
