/* The terminal that a loader's -c names. */
#pragma once

/*
 * Standard input and output for NULL and "stdio", else a tty or an end of a null
 * modem; raw when it is a terminal. 0 or -errno (logged).
 */
int terminal_open(const char *path, int *in, int *out);
