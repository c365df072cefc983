/*
 * The host's side: a child process that runs tests natively.
 *
 * A test is entered by returning from a signal handler with its registers in the
 * signal frame, and left by the signal its fault, INT3 or trap flag raises; the
 * next one is entered from the same handler. So a test costs one signal, and the
 * kernel moves the whole state, FPU included. The handler runs on its own stack;
 * the test's RSP may be anything.
 *
 * The child shares only the batch and the data pages with its parent, which starts
 * another one when a test hangs or kills it.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <asm/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include "oracle.h"

#define MXCSR_OFFSET 24u

struct shared {
	struct test test[BATCH];
	struct outcome out[BATCH];
	unsigned n, done;
};

static struct {
	pid_t pid;
	int to_child, from_child;
	struct shared *shared;
	uint8_t *data; /* all data pages, writable, in both processes */
	int data_fd;
} host = { .data_fd = -1 };

/* The child's own: */
static struct {
	unsigned pos;
	uint8_t *code; /* writable alias of ORACLE_CODE */
	greg_t saved[NGREG];
} child;

static const int greg_of[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static void enter(ucontext_t *uc, const struct test *t)
{
	struct fpu_image *f = (struct fpu_image *)(void *)uc->uc_mcontext.fpregs;
	const struct fpu_image *in = &t->in.fpu;

	memset(child.code + CODE_OFFSET, 0xcc, CODE_MAX);
	memcpy(child.code + CODE_OFFSET, t->code, t->len);
	for (unsigned i = 0; i < 16; i++)
		uc->uc_mcontext.gregs[greg_of[i]] = (greg_t)t->in.gpr[i];
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)t->in.rip;
	uc->uc_mcontext.gregs[REG_EFL] = (greg_t)t->in.rflags;
	memcpy(f, in, MXCSR_OFFSET + 4);
	memcpy(f->st, in->st, sizeof(f->st) + sizeof(f->xmm));
	f->xstate_bv = FPU_ALL;
	memcpy(f->ymmh, in->ymmh, sizeof(f->ymmh));
}

static void record(const ucontext_t *uc, struct outcome *o)
{
	const struct fpu_image *f =
	    (const struct fpu_image *)(void *)uc->uc_mcontext.fpregs;
	struct fpu_image *out = &o->out.fpu;

	for (unsigned i = 0; i < 16; i++)
		o->out.gpr[i] = (uint64_t)uc->uc_mcontext.gregs[greg_of[i]];
	o->out.rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
	o->out.rflags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
	o->vector = (uint32_t)uc->uc_mcontext.gregs[REG_TRAPNO];
	o->error = (uint32_t)uc->uc_mcontext.gregs[REG_ERR];
	o->address =
	    o->vector == EXC_PF ? (uint64_t)uc->uc_mcontext.gregs[REG_CR2] : 0;
	o->memory = data_hash(host.data);
	memset(out, 0, sizeof(*out));
	out->mxcsr = f->mxcsr;
	if (f->xstate_bv & FPU_X87) {
		memcpy(out, f, MXCSR_OFFSET);
		memcpy(out->st, f->st, sizeof(out->st));
	} else {
		out->fcw = FPU_FCW_INIT;
	}
	if (f->xstate_bv & FPU_SSE)
		memcpy(out->xmm, f->xmm, sizeof(out->xmm));
	if (f->xstate_bv & FPU_AVX)
		memcpy(out->ymmh, f->ymmh, sizeof(out->ymmh));
}

/* Back to child_main(), with an FPU as C code expects it. */
static void leave(ucontext_t *uc)
{
	struct fpu_image *f = (struct fpu_image *)(void *)uc->uc_mcontext.fpregs;

	memcpy(uc->uc_mcontext.gregs, child.saved, sizeof(child.saved));
	f->fcw = FPU_FCW_INIT;
	f->fsw = 0;
	f->ftw = 0;
	f->mxcsr = FPU_MXCSR_INIT;
}

static void on_signal(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	struct shared *s = host.shared;

	(void)si;
	/*
	 * NT and ID stay as they are here across sigreturn; AC would catch this
	 * very code.
	 */
	__asm__ volatile(
	    "leaq -128(%%rsp), %%rsp; pushfq; andq $~0x244000, (%%rsp); popfq; "
	    "leaq 128(%%rsp), %%rsp"
	    :
	    :
	    : "cc", "memory");
	if (sig == SIGUSR1) {
		memcpy(child.saved, uc->uc_mcontext.gregs, sizeof(child.saved));
		child.pos = 0;
		enter(uc, &s->test[0]);
		return;
	}
	data_mask(host.data, &s->test[child.pos]);
	record(uc, &s->out[child.pos]);
	s->done = ++child.pos;
	if (child.pos < s->n) {
		enter(uc, &s->test[child.pos]);
		return;
	}
	leave(uc);
}

static void map_data(int fd)
{
	for (unsigned i = 0; i < DATA_PAGES; i++) {
		int prot = i == DATA_RO ? PROT_READ : PROT_READ | PROT_WRITE;

		if (i == DATA_HOLE)
			continue;
		if (mmap((void *)(uintptr_t)(ORACLE_DATA + i * PAGE), PAGE, prot,
			MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd,
			(off_t)(i * PAGE)) == MAP_FAILED)
			_exit(10);
	}
}

static void child_main(int from_parent, int to_parent)
{
	static const int signals[] = { SIGUSR1, SIGSEGV, SIGBUS, SIGFPE, SIGILL,
		SIGTRAP };
	struct sigaction sa = { .sa_sigaction = on_signal };
	stack_t stack = { .ss_size = 256 * 1024 };
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	map_data(host.data_fd);
	fd = memfd_create("oracle-code", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, PAGE) < 0)
		_exit(11);
	child.code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (child.code == MAP_FAILED ||
	    mmap((void *)(uintptr_t)ORACLE_CODE, PAGE, PROT_READ | PROT_EXEC,
		MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd,
		0) == MAP_FAILED)
		_exit(12);
	memset(child.code, 0xcc, PAGE);
	stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) < 0 ||
	    syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)ORACLE_GS) < 0)
		_exit(13);
	sigfillset(&sa.sa_mask);
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, NULL);
	for (;;) {
		char c;

		if (read(from_parent, &c, 1) != 1)
			_exit(0);
		raise(SIGUSR1);
		if (write(to_parent, &c, 1) != 1)
			_exit(0);
	}
}

static int spawn(void)
{
	int down[2], up[2];

	if (pipe(down) < 0 || pipe(up) < 0)
		return -1;
	fflush(NULL);
	host.pid = fork();
	if (host.pid < 0)
		return -1;
	if (host.pid == 0) {
		close(down[1]);
		close(up[0]);
		child_main(down[0], up[1]);
	}
	close(down[0]);
	close(up[1]);
	host.to_child = down[1];
	host.from_child = up[0];
	return 0;
}

int host_start(void)
{
	host.shared = mmap(NULL, sizeof(*host.shared), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	host.data_fd = memfd_create("oracle-data", MFD_CLOEXEC);
	if (host.shared == MAP_FAILED || host.data_fd < 0 ||
	    ftruncate(host.data_fd, DATA_SIZE) < 0)
		return -1;
	host.data = mmap(
	    NULL, DATA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, host.data_fd, 0);
	if (host.data == MAP_FAILED)
		return -1;
	return spawn();
}

static void reap(void)
{
	if (host.pid > 0) {
		kill(host.pid, SIGKILL);
		waitpid(host.pid, NULL, 0);
		close(host.to_child);
		close(host.from_child);
		host.pid = 0;
	}
}

void host_stop(void)
{
	reap();
}

uint8_t *host_data(void)
{
	return host.data;
}

int host_run(const struct test *t, unsigned n, struct outcome *out)
{
	struct pollfd p = { .fd = host.from_child, .events = POLLIN };
	char c = 0;

	memcpy(host.shared->test, t, n * sizeof(*t));
	host.shared->n = n;
	host.shared->done = 0;
	if (write(host.to_child, &c, 1) != 1 || poll(&p, 1, 5000) != 1 ||
	    read(host.from_child, &c, 1) != 1) {
		fprintf(stderr,
		    "oracle: the native child died or hung after test %u of seed "
		    "%llu\n",
		    host.shared->done, (unsigned long long)t->id);
		reap();
		spawn();
		return -1;
	}
	memcpy(out, host.shared->out, n * sizeof(*out));
	return 0;
}
