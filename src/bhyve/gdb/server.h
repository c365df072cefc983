/*
 * bhyve's -G: GDB's remote protocol on a TCP port, one client at a time, served by
 * the event loop. The guest does not see it.
 */
#pragma once

struct gdb_server;
struct machine;

/*
 * As gdb.port, gdb.address and gdb.wait say, before machine_run(); *s is NULL
 * without a port. 0 or -errno (logged).
 */
int gdb_server_create(struct gdb_server **s, struct machine *m);
/* After machine_run(). NULL is fine. */
void gdb_server_destroy(struct gdb_server *s);
