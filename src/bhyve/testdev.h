/*
 * The PC test device (-l pc-testdev): lets test programs that run as guests end
 * the VM with a status of theirs and drive interrupt lines.
 */
#pragma once

struct machine;
struct testdev;

/* None (NULL) unless lpc.pc-testdev is true. 0 or -errno (logged). */
int testdev_create(struct machine *m, struct testdev **dev);
/* After the vCPUs stopped; NULL is fine. */
void testdev_destroy(struct testdev *dev);
/* The exit status the guest asked for when SUSPEND_TESTDEV ended the VM. */
int testdev_status(const struct testdev *dev);
