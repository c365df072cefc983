/*
 * What grub-bhyve and its module inside GRUB's process say to each other, over a
 * stream socket that GRUB inherits. Host byte order; both ends are one machine.
 *
 * The module sends messages: struct grub_msg, then len bytes. To those marked R
 * the front answers with struct grub_reply and len bytes of text: no text means
 * done, else it is the error to show. Keys travel on a socket of their own;
 * its end means that there will be no more input.
 *
 * Freestanding: the module includes it too.
 */
#ifndef LOAD_GRUB_PROTO_H
#define LOAD_GRUB_PROTO_H

#include <stdint.h>

#define GRUB_FD_CONTROL 3
#define GRUB_FD_KEYS    4

#define GRUB_MSG_MAX    (64 * 1024)

enum grub_msg_type {
	GRUB_MSG_KERNEL =
	    1, /* a new kernel begins: its arguments, each ended by a zero */
	GRUB_MSG_INITRD,   /* a new initrd begins: replaces what was there */
	GRUB_MSG_DATA,     /* bytes of the file in hand */
	GRUB_MSG_FILE_END, /* that file is complete; another may follow (initrd) */
	GRUB_MSG_DONE,     /* R: the kernel or initrd is complete */
	GRUB_MSG_BOOT,     /* R: load it; no answer comes when that worked */
	GRUB_MSG_EXIT,     /* the user typed exit */
	GRUB_MSG_HALT,
	GRUB_MSG_REBOOT,
	GRUB_MSG_NO_INPUT, /* a key is wanted, but input has ended */
	GRUB_MSG_READY,    /* GRUB and the module work: the guest's turn */
	GRUB_MSG_NOTE,     /* text for the user of a verbose run */
	/*
	 * R: a command for another kernel than Linux, its name and its arguments,
	 * each ended by a zero. The answer says which argument names the file.
	 */
	GRUB_MSG_COMMAND,
	GRUB_MSG_VARIABLE, /* name=value, for the kernel's environment */
};

struct grub_msg {
	uint32_t type;
	uint32_t len;
};

struct grub_reply {
	uint32_t len;
	uint32_t file; /* to GRUB_MSG_COMMAND */
};

#endif
