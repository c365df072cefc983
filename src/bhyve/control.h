/*
 * The control socket of a running VM, what bhyvectl talks to (protocol:
 * vmm/control.h). Served by the event loop; a client can neither block it nor
 * make it grow.
 */
#pragma once

struct control;
struct machine;

/* 0 or -errno (logged). */
int control_create(struct control **c, struct machine *m, const char *name);
/* Removes the socket. NULL is fine. */
void control_destroy(struct control *c);
