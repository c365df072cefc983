/* The command line of bhyve(8): every option only sets keys of the tree. */
#pragma once

struct config;

enum { /* exit status of bhyve, as scripts know it */
	EXIT_RESET = 0,
	EXIT_POWEROFF = 1,
	EXIT_USAGE = 1,
	EXIT_HALT = 2,
	EXIT_TRIPLEFAULT = 3,
	EXIT_ERROR = 4,
};

#define OPTIONS_RUN (-1)

/*
 * Sets defaults, then options and files in the order given. OPTIONS_RUN, or the
 * status to exit with (help was shown, or the error is logged).
 */
int options_parse(struct config *cfg, int argc, char **argv);

/*
 * Checks what no single option can: name, topology, memory, what is not built.
 * Fills in cpus, sockets, cores and threads. OPTIONS_RUN or the exit status.
 */
int options_check(struct config *cfg);

/* lpc_options.c: -l device[,conf] into keys. 0 or -EINVAL (logged). */
int lpc_parse(struct config *cfg, const char *text);
void lpc_print_devices(void);

/* usage.c */
void usage_short(void); /* standard error */
void usage_long(void);  /* standard output, with examples */
