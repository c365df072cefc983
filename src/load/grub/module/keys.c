/*
 * bhyve - GRUB's side of grub-bhyve
 * Copyright (C) 2026 The bhyve for Linux authors
 *
 * This program is free software: you can redistribute it and/or modify it under
 * the terms of the GNU General Public License as published by the Free Software
 * Foundation, either version 3 of the License, or (at your option) any later
 * version. It comes WITHOUT ANY WARRANTY; see COPYING in this folder.
 *
 *
 * Keys: a terminal input that waits for the front instead of spinning, and knows
 * when there will be no more of them.
 */
#include "bhyve.h"

#define POLL_MS    20
#define ESCAPE_MS  50  /* an escape sequence arrives at once, a person does not */
#define SPARE_POLL 100 /* two seconds */

struct sequence {
	const char *text; /* after ESC */
	int key;
};

/* What terminals of the xterm, VT220 and Linux kinds send. */
static const struct sequence sequences[] = {
	{ "[A", GRUB_TERM_EXTENDED | 0x48 }, /* up */
	{ "OA", GRUB_TERM_EXTENDED | 0x48 },
	{ "[B", GRUB_TERM_EXTENDED | 0x50 }, /* down */
	{ "OB", GRUB_TERM_EXTENDED | 0x50 },
	{ "[C", GRUB_TERM_EXTENDED | 0x4d }, /* right */
	{ "OC", GRUB_TERM_EXTENDED | 0x4d },
	{ "[D", GRUB_TERM_EXTENDED | 0x4b }, /* left */
	{ "OD", GRUB_TERM_EXTENDED | 0x4b },
	{ "[H", GRUB_TERM_EXTENDED | 0x47 }, /* home */
	{ "OH", GRUB_TERM_EXTENDED | 0x47 }, { "[1~", GRUB_TERM_EXTENDED | 0x47 },
	{ "[7~", GRUB_TERM_EXTENDED | 0x47 },
	{ "[F", GRUB_TERM_EXTENDED | 0x4f }, /* end */
	{ "OF", GRUB_TERM_EXTENDED | 0x4f }, { "[4~", GRUB_TERM_EXTENDED | 0x4f },
	{ "[8~", GRUB_TERM_EXTENDED | 0x4f },
	{ "[2~", GRUB_TERM_EXTENDED | 0x52 }, /* insert */
	{ "[3~", GRUB_TERM_EXTENDED | 0x53 }, /* delete */
	{ "[5~", GRUB_TERM_EXTENDED | 0x49 }, /* page up */
	{ "[6~", GRUB_TERM_EXTENDED | 0x51 }, /* page down */
	{ "OP", GRUB_TERM_EXTENDED | 0x3b },  /* F1 ... */
	{ "OQ", GRUB_TERM_EXTENDED | 0x3c }, { "OR", GRUB_TERM_EXTENDED | 0x3d },
	{ "OS", GRUB_TERM_EXTENDED | 0x3e }, { "[15~", GRUB_TERM_EXTENDED | 0x3f },
	{ "[17~", GRUB_TERM_EXTENDED | 0x40 },
	{ "[18~", GRUB_TERM_EXTENDED | 0x41 },
	{ "[19~", GRUB_TERM_EXTENDED | 0x42 },
	{ "[20~", GRUB_TERM_EXTENDED | 0x43 },
	{ "[21~", GRUB_TERM_EXTENDED | 0x44 }, /* F10 */
};

static int ended;
static unsigned idle_polls;
static unsigned long last_timeout;

/*
 * Input has ended and a key is asked for. A running countdown needs none: GRUB
 * keeps what is left of it in $timeout.
 */
static int no_key(void)
{
	const char *value = grub_env_get("timeout");
	unsigned long timeout = 0;

	if (value != NULL && value[0] != '-' && value[0] != '\0')
		timeout = grub_strtoul(value, NULL, 10);
	grub_errno = GRUB_ERR_NONE;
	if (timeout != last_timeout) {
		last_timeout = timeout;
		idle_polls = 0;
	}
	if (idle_polls++ >= timeout * (1000 / POLL_MS) + SPARE_POLL) {
		channel_send(GRUB_MSG_NO_INPUT, NULL, 0);
		channel_wait_end();
	}
	/* F12: nothing to menu and prompt, but "any key" after an error message. */
	return idle_polls == SPARE_POLL / 2 && timeout == 0
		   ? GRUB_TERM_EXTENDED | 0x58
		   : GRUB_TERM_NO_KEY;
}

/* 0: none within ms. Waits that time also when input has ended. */
static int next_byte(int ms, unsigned char *c)
{
	if (ended) {
		channel_poll(-1, ms);
		return 0;
	}
	if (!channel_poll(GRUB_FD_KEYS, ms))
		return 0;
	if (channel_read(GRUB_FD_KEYS, c, 1) == 1)
		return 1;
	ended = 1;
	return 0;
}

static int escape(void)
{
	char text[8];
	unsigned n = 0;
	unsigned char c;

	while (n < sizeof(text) - 1 && next_byte(ESCAPE_MS, &c)) {
		text[n++] = (char)c;
		text[n] = '\0';
		for (unsigned i = 0; i < sizeof(sequences) / sizeof(sequences[0]);
		     i++) {
			if (grub_strcmp(text, sequences[i].text) == 0)
				return sequences[i].key;
		}
		if (n > 1 && c >= 0x40 && c <= 0x7e)
			return GRUB_TERM_NO_KEY; /* a whole sequence, none of ours
						  */
		if (n == 1 && c != '[' && c != 'O')
			return GRUB_TERM_NO_KEY; /* Alt and a key */
	}
	return n == 0 ? 27 : GRUB_TERM_NO_KEY;
}

/* The rest of a UTF-8 sequence; GRUB's keys are code points. */
static int utf8(unsigned char first)
{
	unsigned more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
	int point = first & (0x3f >> more);
	unsigned char c;

	while (more-- > 0) {
		if (!next_byte(ESCAPE_MS, &c) || (c & 0xc0) != 0x80)
			return GRUB_TERM_NO_KEY;
		point = point << 6 | (c & 0x3f);
	}
	return point;
}

static int getkey(struct grub_term_input *term)
{
	unsigned char c;

	(void)term;
	if (!next_byte(POLL_MS, &c))
		return ended ? no_key() : GRUB_TERM_NO_KEY;
	if (c == 27)
		return escape();
	if (c == 0x7f)
		return '\b';
	if (c >= 0xc0)
		return utf8(c);
	if (c >= 0x80)
		return GRUB_TERM_NO_KEY;
	if (c < 0x20 && c != '\b' && c != '\t' && c != '\n' && c != '\r')
		return GRUB_TERM_CTRL | (c - 1 + 'a');
	return c;
}

static struct grub_term_input keys = { .name = "bhyve", .getkey = getkey };

void keys_register(void)
{
	grub_list_push(&grub_term_inputs_disabled, &keys);
}

void keys_unregister(void)
{
	grub_list_remove(&keys);
}
