/*
 * What bhyvectl and a running bhyve say to each other.
 *
 * A UNIX stream socket, mode 0600, in a folder of mode 0700. The client sends one
 * line at a time, "COMMAND ARGUMENT...\n"; the answer is "ok\n" or "error TEXT\n",
 * then lines of data, then ".\n". Commands (N is a vCPU):
 *
 *	info			name=value lines
 *	stats N			"NAME VALUE" lines
 *	get-state N		one line: struct vcpu_state in hexadecimal
 *	set-field N FIELD VALUE	a field of the table below
 *	inject-nmi N, reset, poweroff, destroy, power-button
 *	assert-lvt N LINT
 *	rtc-get, rtc-set SECONDS, nvram-get OFFSET, nvram-set OFFSET VALUE
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CONTROL_LINE_MAX   512
#define CONTROL_ANSWER_MAX (64 * 1024)

struct vcpu_state;

/*
 * The socket's address. Long paths do not fit a sockaddr_un and go through a
 * descriptor of the folder: *dirfd (-1: none) stays open until after bind() or
 * connect(). 0 or -errno.
 */
int control_address(
    const char *name, struct sockaddr_un *address, socklen_t *len, int *dirfd);

/* A number in struct vcpu_state, as the register options of bhyvectl(8) name it. */
struct control_field {
	const char *name; /* "rax", "cr0", "cs.base" */
	uint16_t offset;
	uint8_t size;
};

const struct control_field *control_field(const char *name); /* NULL: none */
uint64_t control_field_get(
    const struct vcpu_state *s, const struct control_field *f);
/* 0 or -ERANGE (wider than the field). */
int control_field_set(
    struct vcpu_state *s, const struct control_field *f, uint64_t v);
