/* The terminal of the loader (console.h). */
#include "load/bsd/console.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/tty.h"
#include "lib/util.h"

#define ESCAPE_WAIT 50 /* ms within which the rest of a key's sequence comes */

void con_init(struct console *c, int in, int out)
{
	*c = (struct console){
		.in = in, .out = out, .terminal = isatty(in) && isatty(out)
	};
}

void con_free(struct console *c)
{
	for (unsigned i = 0; i < c->histories; i++)
		free(c->history[i]);
	c->histories = 0;
}

static void write_all(struct console *c, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(c->out, p, len);
		if (n < 0 && errno == EAGAIN) {
			struct pollfd pfd = { .fd = c->out, .events = POLLOUT };
			(void)poll(&pfd, 1, 1000);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		p += n;
		len -= (size_t)n;
	}
}

void con_raw(struct console *c, const char *text)
{
	write_all(c, text, strlen(text));
}

static void ask_more(struct console *c)
{
	con_raw(c, "--more--  <space> page down <enter> line down <q> quit ");
	for (;;) {
		int key = con_key(c, -1);
		if (key == ' ')
			c->row = 0;
		else if (key == '\r' || key == '\n')
			c->row--;
		else if (key == 'q' || key == 'Q' || key == 3 || key < 0)
			c->stopped = true;
		else
			continue;
		break;
	}
	con_raw(c, "\r\033[K");
}

static void put_char(struct console *c, char ch)
{
	unsigned char u = (unsigned char)ch;

	if (ch == '\n') {
		write_all(c, "\r\n", 2);
		if (c->rows > 0 && ++c->row >= c->rows)
			ask_more(c);
	} else if (ch == '\t' || ch == '\r' ||
		   (u >= 0x20 && u != 0x7f && u != 0x9b)) {
		write_all(c, &ch, 1);
	} else {
		write_all(c, "?", 1);
	}
}

void con_printf(struct console *c, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (const char *p = text; *p != '\0' && !c->stopped;) {
		/* Runs of plain characters in one go. */
		size_t n = 0;
		while ((unsigned char)p[n] >= 0x20 && (unsigned char)p[n] < 0x7f)
			n++;
		if (n > 0) {
			write_all(c, p, n);
			p += n;
		} else {
			put_char(c, *p++);
		}
	}
}

int con_key(struct console *c, int milliseconds)
{
	struct pollfd pfd = { .fd = c->in, .events = POLLIN };
	unsigned char key;

	if (c->pushed != 0) {
		key = (unsigned char)c->pushed;
		c->pushed = 0;
		return key;
	}
	if (c->eof) {
		if (milliseconds > 0)
			(void)poll(NULL, 0, milliseconds);
		return milliseconds < 0 ? CON_EOF : CON_TIMEOUT;
	}
	for (;;) {
		int n = poll(&pfd, 1, milliseconds);
		if (n < 0 && errno == EINTR) {
			tty_continue();
			continue;
		}
		if (n == 0)
			return CON_TIMEOUT;
		ssize_t got = n < 0 ? -1 : read(c->in, &key, 1);
		if (got == 1)
			return key;
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		c->eof = true;
		return con_key(c, milliseconds);
	}
}

void con_unkey(struct console *c, int key)
{
	if (key > 0)
		c->pushed = key;
}

int con_sequence(struct console *c)
{
	int key = con_key(c, ESCAPE_WAIT);

	if (key != '[' && key != 'O') {
		con_unkey(c, key);
		return 0;
	}
	do
		key = con_key(c, ESCAPE_WAIT);
	while (key >= 0 && key < 0x40);
	return key;
}

static void remember(struct console *c, const char *line)
{
	if (line[0] == '\0')
		return;
	if (c->histories == CON_HISTORY) {
		free(c->history[0]);
		memmove(c->history, c->history + 1,
		    (CON_HISTORY - 1) * sizeof(c->history[0]));
		c->histories--;
	}
	char *copy = strdup(line);
	if (copy != NULL)
		c->history[c->histories++] = copy;
}

static void show_line(struct console *c, const char *prompt, const char *line)
{
	con_raw(c, "\r");
	con_printf(c, "%s%s", prompt, line);
	con_raw(c, "\033[K");
}

int con_line(struct console *c, const char *prompt, char line[CON_LINE])
{
	unsigned at = c->histories;
	size_t len = 0;

	line[0] = '\0';
	con_printf(c, "%s", prompt);
	for (;;) {
		int key = con_key(c, -1);
		if (key == CON_EOF || (key == 4 && len == 0)) {
			if (len > 0)
				break; /* a last line without its end */
			return CON_EOF;
		}
		if (key == '\r' || key == '\n')
			break;
		if (key == 3) {
			con_printf(c, "^C\n%s", prompt);
			line[len = 0] = '\0';
		} else if ((key == 8 || key == 0x7f) && len > 0) {
			line[--len] = '\0';
			con_raw(c, "\b \b");
		} else if (key == 21) {
			line[len = 0] = '\0';
			show_line(c, prompt, line);
		} else if (key == KEY_ESCAPE) {
			int which = con_sequence(c);
			if (which == 'A' && at > 0)
				at--;
			else if (which == 'B' && at < c->histories)
				at++;
			else
				continue;
			snprintf(line, CON_LINE, "%s",
			    at < c->histories ? c->history[at] : "");
			len = strlen(line);
			show_line(c, prompt, line);
		} else if (key >= 0x20 && key != 0x7f && len + 1 < CON_LINE) {
			line[len++] = (char)key;
			line[len] = '\0';
			if (c->terminal)
				con_printf(c, "%c", key);
		}
	}
	con_printf(c, "\n");
	remember(c, line);
	return 0;
}

void con_page_begin(struct console *c, unsigned rows)
{
	c->rows = c->terminal && rows > 2 ? rows - 1 : 0;
	c->row = 0;
	c->stopped = false;
}

bool con_stopped(const struct console *c)
{
	return c->stopped;
}

void con_page_end(struct console *c)
{
	c->rows = 0;
	c->stopped = false;
}
