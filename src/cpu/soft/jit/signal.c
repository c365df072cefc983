/*
 * Host faults in generated code: #DE, #XM and x87 exceptions (SIGFPE), misaligned
 * SSE operands and bad MXCSR values (SIGSEGV), the guard of the pairing stack.
 *
 * All guest state is in registers when a copied instruction faults, so the fault
 * becomes "interpret this instruction": the interpreter knows what the guest is to
 * see. Faults elsewhere go to whoever handled them before us.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "cpu/soft/jit/priv.h"

#define ALT_STACK (64 * KiB)

static __thread struct jit *current;
static struct sigaction old_segv, old_fpe, old_bus;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct trans *trans_at(struct jit *j, uint32_t code)
{
	uint32_t lo = 0, hi = j->ntrans;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		struct trans *t = &j->trans[mid];

		if (code < t->code)
			hi = mid;
		else if (code >= t->code_end)
			lo = mid + 1;
		else
			return t;
	}
	return NULL;
}

static bool to_interpreter(struct jit *j, ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	uint64_t off = (uint64_t)r[REG_RIP] - (uint64_t)(uintptr_t)j->code_rx;
	const uint32_t *pc;
	struct trans *t;
	unsigned i, n;

	if (off >= JIT_HOT_SIZE)
		return false;
	t = trans_at(j, off);
	if (!t || t->dead)
		return false;
	pc = t->pc, n = t->n;
	if (t->fast && off >= t->fast)
		pc = t->fast_pc, n *= t->copies;
	for (i = 0; i + 1 < n && pc[i + 1] <= off; i++)
		;
	i %= t->n;
	j->sites[SITE_FAULT] = (struct site){ .t = t, .insn = i };
	while (i-- > 0)
		j->sites[SITE_FAULT].off += t->b->insn[i].len;
	j->stats.signals++;
	r[REG_R11] = SITE_FAULT;
	r[REG_RIP] = (greg_t)(uintptr_t)j->stub_interp;
	return true;
}

static bool ours(int sig, const siginfo_t *si, ucontext_t *uc)
{
	struct jit *j = current;
	greg_t *r = uc->uc_mcontext.gregs;
	uint64_t at = (uint64_t)(uintptr_t)si->si_addr;

	if (!j || (uint64_t)r[REG_RIP] - (uint64_t)(uintptr_t)j->code_rx >=
	    JIT_HOT_SIZE + JIT_COLD_SIZE)
		return false;
	if (sig == SIGSEGV && at - (uint64_t)(uintptr_t)j->pairs <
	    JIT_KEYS * (JIT_PAIRS + JIT_GUARD) + JIT_GUARD) {
		/* Too deep: forget the pairs and push again. */
		r[REG_RSP] = j->pair_top[j->keyid];
		return true;
	}
	return to_interpreter(j, uc);
}

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	const struct sigaction *old = sig == SIGSEGV ? &old_segv :
	    sig == SIGFPE ? &old_fpe : &old_bus;

	if (ours(sig, si, ctx))
		return;
	/*
	 * Not called from here: a handler that raises the signal again, for its
	 * default action, would come back. A fault happens again on return, and is
	 * theirs then with all that belongs to it; what somebody sent does not.
	 */
	sigaction(sig, old, NULL);
	if (si->si_code <= 0)
		raise(sig);
}

static void install(void)
{
	struct sigaction sa = { .sa_sigaction = on_signal,
		.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGSEGV, &sa, &old_segv);
	sigaction(SIGFPE, &sa, &old_fpe);
	sigaction(SIGBUS, &sa, &old_bus);
}

int jit_signals_on(struct jit *j)
{
	stack_t ss = { .ss_size = ALT_STACK };

	ss.ss_sp = mmap(NULL, ALT_STACK, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ss.ss_sp == MAP_FAILED)
		return -ENOMEM;
	if (sigaltstack(&ss, NULL) < 0) {
		munmap(ss.ss_sp, ALT_STACK);
		return -errno;
	}
	j->alt_stack = ss.ss_sp;
	pthread_once(&once, install);
	current = j;
	return 0;
}

void jit_signals_off(struct jit *j)
{
	stack_t ss = { .ss_flags = SS_DISABLE };

	current = NULL;
	sigaltstack(&ss, NULL);
	if (j->alt_stack)
		munmap(j->alt_stack, ALT_STACK);
	j->alt_stack = NULL;
}
