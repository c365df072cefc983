/* See net_wire.h. */
#include "net_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"

unsigned wire_offloads;
bool wire_quick;
struct wire *wire;

static int do_open(struct net **net, struct event_loop *loop, const struct config *cfg,
    const char *node, const char *backend, unsigned mtu)
{
	(void)loop;
	(void)cfg;
	(void)node;
	(void)backend;
	(void)mtu;
	wire = calloc(1, sizeof(*wire));
	if (wire == NULL)
		return -ENOMEM;
	wire->net.send_offloads = wire->net.recv_offloads = wire_offloads;
	wire->net.quick_send = wire_quick;
	*net = &wire->net;
	return 0;
}

static void do_close(struct net *net)
{
	(void)net;
	free(wire);
	wire = NULL;
}

static int do_send(struct net *net, const struct iovec *iov, int niov)
{
	struct wire_frame *f = &wire->sent[wire->nsent % WIRE_FRAMES];

	(void)net;
	memcpy(&f->hdr, iov[0].iov_base, NET_HDR_LEN);
	f->len = 0;
	for (int i = 0; i < niov; i++) {
		size_t skip = i == 0 ? NET_HDR_LEN : 0, n = iov[i].iov_len - skip;

		/* More than a device may ever send. */
		if (n > sizeof(f->data) - f->len)
			abort();
		memcpy(f->data + f->len, (uint8_t *)iov[i].iov_base + skip, n);
		f->len += (uint32_t)n;
	}
	wire->nsent++;
	return 0;
}

static ssize_t do_recv(struct net *net, const struct iovec *iov, int niov)
{
	const struct wire_frame *f = &wire->in[0];
	uint32_t len = f->len, at = 0;

	(void)net;
	if (wire->nin == 0)
		return -EAGAIN;
	memcpy(iov[0].iov_base, &f->hdr, NET_HDR_LEN);
	for (int i = 0; i < niov && at < len; i++) {
		size_t skip = i == 0 ? NET_HDR_LEN : 0;
		size_t n = MIN(iov[i].iov_len - skip, (size_t)(len - at));

		memcpy((uint8_t *)iov[i].iov_base + skip, f->data + at, n);
		at += (uint32_t)n;
	}
	wire->nin--;
	for (unsigned i = 0; i < wire->nin; i++) {
		wire->in[i].hdr = wire->in[i + 1].hdr;
		wire->in[i].len = wire->in[i + 1].len;
		memcpy(wire->in[i].data, wire->in[i + 1].data, wire->in[i].len);
	}
	return NET_HDR_LEN + (ssize_t)len;
}

static void do_listen(struct net *net, bool on)
{
	(void)net;
	wire->listening = on;
}

static void do_offload(struct net *net, unsigned offloads)
{
	(void)net;
	wire->offloads = offloads;
}

void wire_put(const struct net_hdr *hdr, const void *data, uint32_t len)
{
	struct wire_frame *f = &wire->in[wire->nin];

	if (wire->nin == WIRE_FRAMES)
		return;
	wire->nin++;
	f->hdr = hdr != NULL ? *hdr : (struct net_hdr){ 0 };
	f->len = len;
	memcpy(f->data, data, len);
	if (wire->listening)
		wire->net.client->readable(wire->net.arg);
}

const struct wire_frame *wire_sent(unsigned back)
{
	return &wire->sent[(wire->nsent - 1 - back) % WIRE_FRAMES];
}

static const struct net_ops wire_ops = {
	.names = { "wire" },
	.numbered = true,
	.open = do_open,
	.close = do_close,
	.send = do_send,
	.recv = do_recv,
	.listen = do_listen,
	.offload = do_offload,
};
NET_BACKEND(wire_ops);
