/*
 * One run of GRUB: passes keys and output between the user's terminal and GRUB,
 * collects the kernel and initrd that GRUB reads, and loads the guest on "boot".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "load/grub/child.h"

struct vmfile;

struct session {
	struct child *child;
	struct vmfile *vf;
	uint64_t memory;
	int in, out;     /* the user's terminal, or files */
	bool no_console; /* -n */
	bool no_screen;  /* -e */
	bool verbose;
};

enum session_end {
	SESSION_BOOT,     /* the guest is loaded */
	SESSION_EXIT,     /* exit */
	SESSION_HALT,     /* halt or reboot */
	SESSION_NO_INPUT, /* input ended while GRUB waits for a key */
	SESSION_SIGNAL,   /* told to end */
	SESSION_FAILED,   /* GRUB ended by itself, or an error here (logged) */
};

/*
 * From here on the signals that end a program wait for session_run(), so that what
 * was made before it is also removed.
 */
void session_block_signals(void);
enum session_end session_run(struct session *s);
