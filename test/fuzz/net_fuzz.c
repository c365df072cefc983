/*
 * What users type for a network device, and what a guest sends to slirp. Options that
 * are taken must open (ports of the host are not tried here); the library must take
 * any frame, and its answers must come in whole.
 */
#include <stdlib.h>
#include <string.h>

#include "bhyve/net/net.h"
#include "fuzz.h"
#include "lib/config.h"
#include "lib/log.h"

static void options(const char *text)
{
	struct config *cfg = config_new();
	struct net_hostfwd fwd;
	uint8_t mac[6];
	uint16_t mtu;

	if (net_hostfwd_parse(text, strlen(text), &fwd) == NULL &&
	    (fwd.host_port == 0 || fwd.guest_port == 0))
		abort();
	if (net_parse(cfg, "pci.0.3.0", text) == 0) {
		if (config_get(cfg, "pci.0.3.0.backend") == NULL)
			abort();
		if (net_mac(cfg, "pci.0.3.0", 3, 0, mac) == 0 && (mac[0] & 1) != 0)
			abort();
		net_mtu(cfg, "pci.0.3.0", &mtu);
	}
	config_free(cfg);
}

static void readable(void *arg)
{
	static uint8_t buf[NET_HDR_LEN + NET_FRAME_MAX];
	struct iovec iov = { buf, sizeof(buf) };
	struct net *const *net = arg;
	ssize_t n;

	while ((n = net_recv(*net, &iov, 1)) > 0)
		if (n < (ssize_t)(NET_HDR_LEN + NET_FRAME_MIN))
			abort();
}

static struct net *slirp(struct event_loop **loop)
{
	static const struct net_client client = { .readable = readable };
	static struct event_loop *l;
	static struct net *net;
	struct config *cfg;

	if (net == NULL) {
		cfg = config_new();
		if (event_loop_new(&l, NULL) != 0 ||
		    net_parse(cfg, "pci.0.3.0", "slirp") != 0 ||
		    net_open(&net, l, cfg, "pci.0.3.0", "dev", &client, &net) != 0)
			abort();
		net_listen(net, true);
		config_free(cfg);
	}
	*loop = l;
	return net;
}

/* Frames of the guest, behind a header that asks for a checksum now and then. */
static void frames(struct input *in)
{
	static uint8_t frame[NET_FRAME_MAX];
	struct event_loop *loop;
	struct net *net = slirp(&loop);

	while (in->left > 0) {
		struct net_hdr hdr = { .flags = (uint8_t)take(in, 1) };
		struct iovec iov[2] = { { &hdr, NET_HDR_LEN }, { frame, 0 } };
		size_t len = take(in, hdr.flags & 128 ? 2 : 1);

		hdr.csum_start = (uint16_t)take(in, 1);
		hdr.csum_offset = (uint16_t)take(in, 1);
		memset(frame, 0, len);
		take_bytes(in, frame, len);
		iov[1].iov_len = len;
		net_send(net, iov, 2);
	}
	net_flush(net);
	event_loop_poll(loop, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	char text[256];

	log_set_level(LOG_ERROR - 1);
	if (take(&in, 1) & 1) {
		frames(&in);
		return 0;
	}
	text[take_bytes(&in, text, sizeof(text) - 1)] = '\0';
	options(text);
	return 0;
}
