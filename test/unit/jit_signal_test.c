/*
 * Faults that are not of translated code belong to whoever handled them before: with
 * their address, once, and a handler that raises the signal again ends the process.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpu/soft/jit/priv.h"

static char *no_access;

static void on_fault(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	_exit(sig == SIGSEGV && si->si_addr == no_access ? 42 : 1);
}

static void on_fatal(int sig)
{
	static int calls;

	if (++calls > 1)
		_exit(4);
	raise(sig);
}

/* Status of a child with this handler and a vCPU's that faults or sends itself SIGSEGV. */
static int child(const struct sigaction *sa, bool sent)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct jit *j = calloc(1, sizeof(*j));

		sigaction(SIGSEGV, sa, NULL);
		if (!j || jit_signals_on(j) < 0)
			_exit(2);
		if (sent)
			raise(SIGSEGV);
		else
			*(volatile char *)no_access = 0;
		_exit(3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_default(void **state)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };

	(void)state;
	for (int sent = 0; sent < 2; sent++) {
		int status = child(&sa, sent);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSEGV);
	}
}

static void test_handler(void **state)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	int status;

	(void)state;
	status = child(&sa, false);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	status = child(&sa, true);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
}

/* As tty.c's, which restores the terminal. */
static void test_raises_again(void **state)
{
	struct sigaction sa = { .sa_handler = on_fatal, .sa_flags = SA_RESETHAND };

	(void)state;
	for (int sent = 0; sent < 2; sent++) {
		int status = child(&sa, sent);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSEGV);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default),
		cmocka_unit_test(test_handler),
		cmocka_unit_test(test_raises_again),
	};

	no_access = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (no_access == MAP_FAILED)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
