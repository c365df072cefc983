/*
 * The four serial ports of the LPC bus, COM1 to COM4. All of them exist always;
 * those with a key lpc.comN.path have a back end.
 */
#pragma once

struct com_ports;
struct config;
struct machine;

/* 0 or -errno (logged). */
int com_create(struct machine *m, struct com_ports **com);
/* After the vCPUs stopped; sends the guest's last bytes. NULL is fine. */
void com_destroy(struct com_ports *com);
