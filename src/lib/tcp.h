/* TCP servers of one client at a time: consoles, the debugger's port. */
#pragma once

#include <stdbool.h>

struct addrinfo;

/* A non-blocking socket that listens there, or -errno. */
int tcp_listen(const struct addrinfo *ai);
/* The next client's non-blocking socket, without delays; negative: none. */
int tcp_accept(int listen_fd);
/* Whether a client has gone, though its end was not read yet. */
bool tcp_has_gone(int fd);
