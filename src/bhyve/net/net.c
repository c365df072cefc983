/*
 * Which backend a device's keys mean, and what all network devices have: a MAC
 * address, an MTU.
 */
#include "bhyve/net/net.h"

#include <ctype.h>
#include <errno.h>
#include <md5.h>
#include <stdio.h>
#include <string.h>

#include "bhyve/pci/pci.h"
#include "lib/config.h"
#include "lib/log.h"
#include "lib/util.h"

extern const struct net_ops *const __start_net_backends[];
extern const struct net_ops *const __stop_net_backends[];

static bool all_digits(const char *s)
{
	return s[strspn(s, "0123456789")] == '\0';
}

static bool means(const struct net_ops *ops, const char *name)
{
	for (size_t i = 0; ops->names[i] != NULL; i++) {
		size_t len = strlen(ops->names[i]);

		if (strncmp(name, ops->names[i], len) == 0 &&
		    (ops->numbered ? all_digits(name + len) : name[len] == '\0'))
			return true;
	}
	return false;
}

/* The backend that a type or a backend's own name means, or NULL. */
static const struct net_ops *find(const char *name)
{
	for (const struct net_ops *const *b = __start_net_backends;
	     b < __stop_net_backends; b++)
		if (means(*b, name))
			return *b;
	return NULL;
}

/* -EINVAL (logged) for the backends that only FreeBSD has. */
static int refuse_freebsd(const char *node, const char *name)
{
	static const char *const freebsd[] = { "netgraph", "netmap", "vale", "ngd" };

	for (size_t i = 0; i < ARRAY_SIZE(freebsd); i++) {
		if (strncmp(name, freebsd[i], strlen(freebsd[i])) != 0)
			continue;
		log_error("%s: the network backend \"%s\" needs FreeBSD's %s, which "
			  "Linux does not have; use tapN or slirp",
		    node, name, freebsd[i]);
		return -EINVAL;
	}
	return 0;
}

static int refuse(const char *node, const char *name)
{
	if (refuse_freebsd(node, name) == 0)
		log_error("%s: \"%s\" is not a network backend; use tapN (tap0), "
			  "tap,ifname=NAME for a tap interface with another name, or "
			  "slirp",
		    node, name);
	return -EINVAL;
}

int net_parse(struct config *cfg, const char *node, const char *text)
{
	const char *comma = text != NULL ? strchr(text, ',') : NULL;
	char backend[64];
	int n;

	if (text == NULL || *text == '\0' || *text == ',') {
		log_error("%s: a network device needs a backend, as in '-s "
			  "2,virtio-net,tap0' or '-s 2,virtio-net,slirp,open'",
		    node);
		return -EINVAL;
	}
	n = snprintf(backend, sizeof(backend), "%.*s",
	    comma != NULL ? (int)(comma - text) : (int)strlen(text), text);
	if (n < 0 || (size_t)n >= sizeof(backend))
		return refuse(node, text);
	/* Before their options, which we do not know. */
	if (refuse_freebsd(node, backend) != 0)
		return -EINVAL;
	if (config_setf(cfg, backend, "%s.backend", node) != 0)
		return -ENOMEM;
	return pci_parse_options(
	    cfg, node, NET_OPTIONS, comma != NULL ? comma + 1 : NULL);
}

int net_open(struct net **out, struct event_loop *loop, const struct config *cfg,
    const char *node, const char *dev, const struct net_client *client, void *arg)
{
	const char *backend = config_getf(cfg, "%s.backend", node);
	const char *type = config_getf(cfg, "%s.type", node);
	const struct net_ops *ops;
	struct net *net;
	uint16_t mtu;
	int error;

	if (backend == NULL) {
		log_error("%s: no network backend given; set %s.backend to tapN or "
			  "slirp",
		    dev, node);
		return -EINVAL;
	}
	ops = find(type != NULL ? type : backend);
	if (ops == NULL)
		return refuse(node, type != NULL ? type : backend);
	error = net_mtu(cfg, node, &mtu);
	if (error == 0)
		error = ops->open(&net, loop, cfg, node, backend,
		    mtu != 0 ? mtu : NET_MTU_DEFAULT);
	if (error != 0)
		return error;
	net->ops = ops;
	net->loop = loop;
	net->client = client;
	net->arg = arg;
	net->link_up = true;
	snprintf(net->name, sizeof(net->name), "%s", dev);
	*out = net;
	return 0;
}

void net_close(struct net *net)
{
	if (net != NULL)
		net->ops->close(net);
}

int net_send(struct net *net, const struct iovec *iov, int niov)
{
	return net->link_up ? net->ops->send(net, iov, niov) : -ENETDOWN;
}

void net_flush(struct net *net)
{
	if (net->ops->flush != NULL)
		net->ops->flush(net);
}

ssize_t net_recv(struct net *net, const struct iovec *iov, int niov)
{
	return net->link_up ? net->ops->recv(net, iov, niov) : -EAGAIN;
}

void net_listen(struct net *net, bool on)
{
	net->ops->listen(net, on && net->link_up);
}

void net_offload(struct net *net, unsigned offloads)
{
	if (net->ops->offload != NULL)
		net->ops->offload(net, offloads & net->recv_offloads);
}

void net_link_changed(struct net *net, bool up)
{
	if (net->link_up == up)
		return;
	net->link_up = up;
	net->client->link(net->arg, up);
}

/* Six bytes of one or two hexadecimal digits with colons between them. */
static bool parse_mac(const char *s, uint8_t mac[6])
{
	for (unsigned i = 0; i < 6; i++) {
		unsigned v = 0, n = 0;

		for (; isxdigit((unsigned char)*s) && n < 2; s++, n++)
			v = v * 16 + (unsigned)(isdigit((unsigned char)*s)
						    ? *s - '0'
						    : (*s | 0x20) - 'a' + 10);
		if (n == 0 || *s != (i < 5 ? ':' : '\0'))
			return false;
		s++;
		mac[i] = (uint8_t)v;
	}
	return true;
}

int net_mac(const struct config *cfg, const char *node, unsigned slot, unsigned func,
    uint8_t mac[6])
{
	const char *text = config_getf(cfg, "%s.mac", node);
	const char *vm = config_get(cfg, "name");
	static const uint8_t zero[6];
	uint8_t d[MD5_DIGEST_LENGTH];
	char seed[300];
	MD5_CTX md5;
	int n;

	if (text == NULL) {
		n = snprintf(seed, sizeof(seed), "%u-%u-%s", slot, func,
		    vm != NULL ? vm : "");
		MD5Init(&md5);
		MD5Update(&md5, (const uint8_t *)seed,
		    MIN((size_t)n, sizeof(seed) - 1));
		MD5Final(d, &md5);
		memcpy(mac, (const uint8_t[]){ 0x00, 0xa0, 0x98 }, 3);
		memcpy(mac + 3, d, 3);
		return 0;
	}
	if (!parse_mac(text, mac)) {
		log_error("%s: mac=%s is not a MAC address; write six hexadecimal "
			  "bytes with colons between them, as in 00:a0:98:12:34:56",
		    node, text);
		return -EINVAL;
	}
	if ((mac[0] & 1) != 0 || memcmp(mac, zero, 6) == 0) {
		log_error("%s: mac=%s is %s, which no network card can have as its "
			  "own; use an address with an even first byte, as in "
			  "00:a0:98:12:34:56",
		    node, text,
		    (mac[0] & 1) != 0 ? "a multicast address" : "all zeros");
		return -EINVAL;
	}
	return 0;
}

int net_mtu(const struct config *cfg, const char *node, uint16_t *mtu)
{
	uint64_t n;
	char key[64];
	int error;

	snprintf(key, sizeof(key), "%s.mtu", node);
	*mtu = 0;
	if (config_get(cfg, key) == NULL)
		return 0;
	/* The smallest is IPv4's (RFC 791). */
	error = config_get_num(cfg, key, 0, 68, UINT16_MAX, &n);
	if (error == 0)
		*mtu = (uint16_t)n;
	return error;
}
