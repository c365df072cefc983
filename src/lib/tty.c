/*
 * The user's terminal in raw mode, and its way back whatever happens.
 *
 * Invariant: while raw.active, raw.saved holds the modes to restore; the signal
 * handler uses only async-signal-safe calls (POSIX.1-2017, 2.4.3).
 */
#include "lib/tty.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/util.h"

/* Process-wide by nature: exit and signal handlers take no argument. */
static struct {
	int fd;
	struct termios saved;
	atomic_bool active;
} raw;

static int set_modes(int fd, const struct termios *modes)
{
	while (tcsetattr(fd, TCSANOW, modes) != 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static void on_fatal_signal(int signo)
{
	if (atomic_exchange(&raw.active, false))
		set_modes(raw.fd, &raw.saved);
	/* SA_RESETHAND: the default action now ends the process as it should. */
	raise(signo);
}

void tty_guard(void)
{
	static const int fatal[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT,
		SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGTRAP, SIGALRM,
		SIGVTALRM, SIGXCPU };
	struct sigaction sa = { .sa_handler = on_fatal_signal,
		.sa_flags = SA_RESETHAND };

	sigfillset(&sa.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++) {
		struct sigaction old;

		if (sigaction(fatal[i], NULL, &old) == 0 &&
		    (old.sa_flags & SA_SIGINFO) == 0 && old.sa_handler == SIG_DFL)
			sigaction(fatal[i], &sa, NULL);
	}
	atexit(tty_restore);
}

static int enter_raw(void)
{
	struct termios modes = raw.saved;
	int error;

	cfmakeraw(&modes);
	/*
	 * Marked first: a signal in between restores modes that were not changed.
	 */
	atomic_store(&raw.active, true);
	error = set_modes(raw.fd, &modes);
	if (error != 0)
		atomic_store(&raw.active, false);
	else
		log_set_raw(true);
	return error;
}

int tty_raw(int fd)
{
	if (atomic_load(&raw.active))
		return -EBUSY;
	if (tcgetattr(fd, &raw.saved) != 0)
		return -errno;
	raw.fd = fd;
	return enter_raw();
}

void tty_restore(void)
{
	if (!atomic_exchange(&raw.active, false))
		return;
	set_modes(raw.fd, &raw.saved);
	log_set_raw(false);
}

void tty_continue(void)
{
	if (atomic_load(&raw.active))
		enter_raw();
}

bool tty_is_raw(void)
{
	return atomic_load(&raw.active);
}
