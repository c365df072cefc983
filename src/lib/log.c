/*
 * The log: one line, one write(2), so that lines of several threads do not mix.
 *
 * Invariant: control characters never reach the terminal; a message may quote
 * what a guest or a file said.
 */
#include "lib/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/util.h"

#define LINE_MAX_BYTES 2048

/* Process-wide by nature: there is one standard error. */
static struct {
	char program[32];
	_Atomic int level;
	atomic_bool raw;
} log_state = { .level = LOG_INFO };

void log_init(const char *program)
{
	snprintf(log_state.program, sizeof(log_state.program), "%s", program);
}

void log_set_level(enum log_level level)
{
	atomic_store(&log_state.level, level);
}

void log_set_raw(bool raw)
{
	atomic_store(&log_state.raw, raw);
}

void log_at(enum log_level level, const char *fmt, ...)
{
	char text[LINE_MAX_BYTES];
	char line[sizeof(log_state.program) + 2 * sizeof(text) + 4];
	bool raw = atomic_load(&log_state.raw);
	int saved_errno = errno;
	size_t len = 0;
	va_list ap;

	if ((int)level > atomic_load(&log_state.level))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);

	if (log_state.program[0] != '\0')
		len =
		    (size_t)snprintf(line, sizeof(line), "%s: ", log_state.program);
	for (const char *p = text; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;

		if (c == '\n' && raw)
			line[len++] = '\r';
		line[len++] =
		    ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) ? '?' : *p;
	}
	if (raw)
		line[len++] = '\r';
	line[len++] = '\n';

	for (size_t done = 0; done < len;) {
		ssize_t n = write(STDERR_FILENO, line + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break; /* nobody to tell */
		done += (size_t)n;
	}
	errno = saved_errno;
}
