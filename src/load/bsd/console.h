/*
 * The terminal of the loader: text out, keys and lines in, a pager. Text may come
 * from a guest's disk, so control characters are not passed on, but by con_raw().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { CON_TIMEOUT = -1, CON_EOF = -2 };

#define KEY_ENTER   '\r'
#define KEY_ESCAPE  27

#define CON_LINE    1024
#define CON_HISTORY 32

struct console {
	int in, out;
	bool terminal; /* keys come from somebody who sees the output */
	bool eof;
	int pushed;    /* a key given back, 0: none */
	unsigned rows; /* of the pager, 0: it is off */
	unsigned row;
	bool stopped; /* the reader of a pager has enough */
	char *history[CON_HISTORY];
	unsigned histories;
};

void con_init(struct console *c, int in, int out);
void con_free(struct console *c);
__attribute__((format(printf, 2, 3))) void con_printf(
    struct console *c, const char *fmt, ...);
/* As it is, escape sequences too. */
void con_raw(struct console *c, const char *text);
/* A key, CON_TIMEOUT or CON_EOF; a negative time waits for ever. */
int con_key(struct console *c, int milliseconds);
void con_unkey(struct console *c, int key);
/* After KEY_ESCAPE: the last byte of "ESC [ A", or 0 when it was the key alone. */
int con_sequence(struct console *c);
/* A line without its end, edited on the terminal. 0 or CON_EOF. */
int con_line(struct console *c, const char *prompt, char line[CON_LINE]);
/* Output between these stops at each screen; con_stopped(): no more is wanted. */
void con_page_begin(struct console *c, unsigned rows);
bool con_stopped(const struct console *c);
void con_page_end(struct console *c);
