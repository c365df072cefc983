/* What the process gives up before guest code runs. */
#pragma once

struct config;

/* First thing: no new privileges. 0 or -errno (logged). */
int sandbox_early(void);
/*
 * Last thing: the system calls of a running VM, and no others. 0 or -errno
 * (logged).
 */
int sandbox_enter(const struct config *cfg);
