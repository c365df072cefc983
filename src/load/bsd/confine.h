/*
 * Gives up what reading disks does not need: new privileges, all files but the host
 * directory and the VM directory (Landlock), all system calls but a few (seccomp).
 */
#pragma once

/* host: directory that stays readable, -1: none; vmm: the VM directory. 0, -errno.
 */
int confine(int host, const char *vmm);
