/*
 * The user's terminal in raw mode: restored by tty_restore(), at exit, and on a
 * fatal signal. One terminal a process.
 */
#pragma once

#include <stdbool.h>

/*
 * Installs the handlers of fatal signals that have none yet: call it first
 * thing, so that handlers installed later stand before them.
 */
void tty_guard(void);
/* 0 or -errno; -EBUSY: a terminal is raw already. */
int tty_raw(int fd);
void tty_restore(void);
/* After the process was stopped and continued: raw again. */
void tty_continue(void);
/* Whether the terminal is raw now, so that ^C goes to the guest. */
bool tty_is_raw(void);
