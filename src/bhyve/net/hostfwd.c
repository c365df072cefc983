/* "proto:haddr:hport-gaddr:gport", a forwarding from the host into a slirp guest. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "bhyve/net/net.h"
#include "lib/size.h"
#include "lib/util.h"

#define TEXT_MAX 80

/* "a.b.c.d" or nothing, a colon, a port; cuts text at the colon. */
static const char *parse_end(
    char *text, const char *what, uint32_t *addr, uint16_t *port)
{
	char *colon = strrchr(text, ':');
	struct in_addr in = { 0 };
	uint64_t n;

	if (colon == NULL)
		return strcmp(what, "host") == 0
			   ? "the host's port is missing; write haddr:hport before "
			     "the '-'"
			   : "the guest's port is missing; write gaddr:gport behind "
			     "the '-'";
	*colon = '\0';
	if (*text != '\0' && inet_pton(AF_INET, text, &in) != 1)
		return strcmp(what, "host") == 0
			   ? "the host's address is not an IPv4 address as in "
			     "127.0.0.1 (nothing: any)"
			   : "the guest's address is not an IPv4 address as in "
			     "10.0.2.15 (nothing: that one)";
	/* No octal ports: leading zeros are refused with the rest. */
	if (colon[1] < '1' || colon[1] > '9' ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
	    number_parse(colon + 1, 1, 65535, &n) != 0)
		return strcmp(what, "host") == 0
			   ? "the host's port is not a number from 1 to 65535"
			   : "the guest's port is not a number from 1 to 65535";
	*addr = in.s_addr;
	*port = (uint16_t)n;
	return NULL;
}

const char *net_hostfwd_parse(const char *text, size_t len, struct net_hostfwd *fwd)
{
	char buf[TEXT_MAX], *dash;
	const char *why;

	if (len >= sizeof(buf) || memchr(text, '\0', len) != NULL)
		return "too long";
	memcpy(buf, text, len);
	buf[len] = '\0';
	*fwd = (struct net_hostfwd){ 0 };
	if (strncmp(buf, "udp:", 4) == 0)
		fwd->udp = true;
	else if (strncmp(buf, "tcp:", 4) != 0)
		return "the protocol is not tcp or udp";
	dash = strchr(buf, '-');
	if (dash == NULL)
		return "there is no '-' between the host's and the guest's part";
	*dash = '\0';
	why = parse_end(buf + 4, "host", &fwd->host, &fwd->host_port);
	if (why == NULL)
		why = parse_end(dash + 1, "guest", &fwd->guest, &fwd->guest_port);
	return why;
}
