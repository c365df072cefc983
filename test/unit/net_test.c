/*
 * Network backends: what users type, checksums, and slirp as its guest sees it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bhyve/net/net.h"
#include "lib/config.h"
#include "lib/event.h"
#include "lib/util.h"

#define NODE "pci.0.3.0"

/* -s, and then opening. */
static int try_open(const char *text)
{
	static const struct net_client client;
	struct config *cfg = config_new();
	struct event_loop *loop;
	struct net *net;
	int error = net_parse(cfg, NODE, text);

	assert_int_equal(event_loop_new(&loop, NULL), 0);
	if (error == 0)
		error = net_open(&net, loop, cfg, NODE, "dev", &client, NULL);
	if (error == 0)
		net_close(net);
	event_loop_free(loop);
	config_free(cfg);
	return error;
}

static void test_backends(void **state)
{
	static const char *const bad[] = { NULL, "", ",mac=1:2:3:4:5:6", "tapx",
		"tap", "vmnet", "tap0,ifname=tap1", "tap,ifname=a/b",
		"tap,ifname=tap%d", "tap,ifname=sixteen-letters-", "tap0123456789012",
		"netgraph,path=x", "netmap:em0", "vale0:1", "ngd0", "slirpx", "br0",
		"slirp,open=maybe", "slirp,colour=red", "slirp,mtu=67",
		"slirp,mtu=65536", "slirp,mtu=many", "slirp,hostfwd=x",
		"slirp,hostfwd=tcp::80", "br0,type=bridge",
		"0123456789012345678901234567890123456789012345678901234567890123" };
	static const char *const good[] = { "slirp", "slirp,open", "slirp,open=on",
		"slirp,mtu=65535", "any,type=slirp" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(try_open(bad[i]), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(try_open(good[i]), 0);
}

static int try_mac(const char *text, uint8_t mac[6])
{
	struct config *cfg = config_new();
	int error;

	config_set(cfg, "name", "vm");
	if (text != NULL)
		assert_int_equal(config_set(cfg, NODE ".mac", text), 0);
	error = net_mac(cfg, NODE, 3, 0, mac);
	config_free(cfg);
	return error;
}

static void test_mac(void **state)
{
	static const char *const bad[] = { "x", "1:2:3:4:5", "1:2:3:4:5:6:7",
		"1:2:3:4:5:6:", "1:2:3:4:5:", ":1:2:3:4:5", "001:2:3:4:5:6",
		"2-0-0-0-0-1", "1:2:3:4:5:g", "2:0:0:0:0:1 ", "1:0:0:0:0:1",
		"0:0:0:0:0:0", "ff:ff:ff:ff:ff:ff", "2:0:0:0:0", "020000000001" };
	uint8_t mac[6];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(try_mac(bad[i], mac), -EINVAL);
	assert_int_equal(try_mac("2:0A:b:0:ff:1", mac), 0);
	assert_memory_equal(mac, ((const uint8_t[]){ 2, 10, 11, 0, 255, 1 }), 6);
	/* The MD5 of "3-0-vm" begins with 04745a. */
	assert_int_equal(try_mac(NULL, mac), 0);
	assert_memory_equal(
	    mac, ((const uint8_t[]){ 0, 0xa0, 0x98, 4, 0x74, 0x5a }), 6);
}

static void test_hostfwd(void **state)
{
	static const struct {
		const char *text;
		struct net_hostfwd fwd;
	} good[] = {
		{ "tcp:127.0.0.1:2222-10.0.2.15:22",
		    { false, 0x7f000001, 0x0a00020f, 2222, 22 } },
		{ "udp::1-:65535", { true, 0, 0, 1, 65535 } },
	};
	static const char long_text[] = "tcp:127.0.0.1:22-10.0.2.15:00000000000000000000"
					"000000000000000000000000000000000000022";
	static const char *const bad[] = { "", "tcp", "tcp:", "sctp:1:2-3:4",
		"tcp:127.0.0.1:2222", "tcp:127.0.0.1-10.0.2.15:22",
		"tcp:1:22-10.0.2.15:22", "tcp:127.0.0.1:0-:22",
		"tcp:127.0.0.1:65536-:22", "tcp::22-:", "tcp::-:22", "tcp::022-:22",
		"tcp::0x16-:22", "tcp:: 22-:22", "tcp::22-:22 ", "tcp::22-x:22",
		"tcp::22--:22", "tcp:[::1]:22-:22",
		long_text };
	struct net_hostfwd fwd;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_null(
		    net_hostfwd_parse(good[i].text, strlen(good[i].text), &fwd));
		assert_int_equal(fwd.udp, good[i].fwd.udp);
		assert_int_equal(ntohl(fwd.host), good[i].fwd.host);
		assert_int_equal(ntohl(fwd.guest), good[i].fwd.guest);
		assert_int_equal(fwd.host_port, good[i].fwd.host_port);
		assert_int_equal(fwd.guest_port, good[i].fwd.guest_port);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_non_null(net_hostfwd_parse(bad[i], strlen(bad[i]), &fwd));
}

static void test_checksum(void **state)
{
	/* The header of RFC 1071's readers: Wikipedia's example, sum b861. */
	static const uint8_t ip[] = { 0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0,
		0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7 };
	struct net_hdr hdr = { .flags = 1, .csum_start = 3, .csum_offset = 10 };
	uint8_t frame[23 + 16];

	(void)state;
	for (unsigned tail = 0; tail < 16; tail++) {
		/* Zeros behind it change nothing, at any length. */
		memset(frame, 0, sizeof(frame));
		memcpy(frame + 3, ip, sizeof(ip));
		assert_true(net_checksum(&hdr, frame, 23 + tail));
		assert_int_equal(frame[13], 0xb8);
		assert_int_equal(frame[14], 0x61);
	}
	/* Ones in every word: the carries. */
	memset(frame, 0xff, sizeof(frame));
	assert_int_equal(net_sum_finish(net_sum(frame, 31, 0)), htons(0x00ff));
	/* Places outside the frame. */
	hdr.csum_offset = 19;
	assert_false(net_checksum(&hdr, frame, 23));
	hdr.csum_offset = 65535;
	assert_false(net_checksum(&hdr, frame, 23));
	hdr.csum_start = 23;
	hdr.csum_offset = 0;
	assert_false(net_checksum(&hdr, frame, 23));
	hdr.csum_start = 65535;
	assert_false(net_checksum(&hdr, frame, 23));
	hdr.flags = 0;
	assert_true(net_checksum(&hdr, frame, 23));
}

/* A guest of slirp. */
struct guest {
	struct event_loop *loop;
	struct config *cfg;
	struct net *net;
	unsigned readable;
	uint8_t frame[2048];
	ssize_t len;
};

static void on_readable(void *arg)
{
	struct guest *g = arg;
	struct net_hdr hdr;
	struct iovec iov[3] = { { &hdr, NET_HDR_LEN }, { g->frame, 7 },
		{ g->frame + 7, sizeof(g->frame) - 7 } };
	ssize_t n;

	g->readable++;
	while ((n = net_recv(g->net, iov, 3)) > 0)
		g->len = n - NET_HDR_LEN;
}

static void on_link(void *arg, bool up)
{
	(void)arg;
	(void)up;
}

static void guest_start(struct guest *g, const char *text)
{
	static const struct net_client client = { on_readable, on_link };

	memset(g, 0, sizeof(*g));
	g->cfg = config_new();
	assert_int_equal(event_loop_new(&g->loop, NULL), 0);
	assert_int_equal(net_parse(g->cfg, NODE, text), 0);
	assert_int_equal(
	    net_open(&g->net, g->loop, g->cfg, NODE, "dev", &client, g), 0);
}

static void guest_stop(struct guest *g)
{
	net_close(g->net);
	event_loop_free(g->loop);
	config_free(g->cfg);
}

static int guest_send(struct guest *g, const void *frame, size_t len)
{
	struct net_hdr hdr = { 0 };
	struct iovec iov[2] = { { &hdr, NET_HDR_LEN }, { (void *)frame, len } };
	int error = net_send(g->net, iov, 2);

	net_flush(g->net);
	return error;
}

static bool guest_wait(struct guest *g)
{
	uint64_t end = event_now_ns() + UINT64_C(10000000000);

	while (g->len == 0 && event_now_ns() < end)
		event_loop_poll(g->loop, 10);
	return g->len > 0;
}

static const uint8_t arp[42] = { 255, 255, 255, 255, 255, 255, 0, 0xa0, 0x98, 1, 2,
	3, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 0, 0xa0, 0x98, 1, 2, 3, 10, 0, 2, 15, 0, 0,
	0, 0, 0, 0, 10, 0, 2, 2 };

static void test_slirp_answers(void **state)
{
	struct guest g;

	(void)state;
	guest_start(&g, "slirp");
	/* While nobody listens the answer waits. */
	assert_int_equal(guest_send(&g, arp, sizeof(arp)), 0);
	event_loop_poll(g.loop, 10);
	assert_int_equal(g.readable, 0);
	net_listen(g.net, true);
	assert_true(guest_wait(&g));
	assert_true(g.len >= 42);
	assert_memory_equal(g.frame, arp + 6, 6);
	assert_int_equal(g.frame[21], 2);
	assert_memory_equal(g.frame + 28, ((const uint8_t[]){ 10, 0, 2, 2 }), 4);
	guest_stop(&g);
}

static void test_slirp_bounds(void **state)
{
	static uint8_t big[NET_FRAME_MAX + 1];
	struct guest g;
	unsigned sent = 0;

	(void)state;
	guest_start(&g, "slirp");
	assert_int_not_equal(guest_send(&g, big, sizeof(big)), 0);
	assert_int_not_equal(guest_send(&g, big, 13), 0);
	/* Answers to a guest that never reads: a bounded ring, then the floor. */
	for (unsigned i = 0; i < 50000; i++)
		assert_int_equal(guest_send(&g, arp, sizeof(arp)), 0);
	net_listen(g.net, true);
	assert_true(guest_wait(&g));
	/* Fragments that never become a packet: a bounded number. */
	memset(big, 0, sizeof(big));
	memcpy(big, "\x52\x55\x0a\x00\x02\x02\x00\xa0\x98\x01\x02\x03\x08\x00\x45", 15);
	big[20] = 0x20;
	for (unsigned i = 0; i < 1000; i++)
		sent += guest_send(&g, big, 60000) == 0;
	assert_int_equal(sent, 16 * MiB / (60000 + 2048));
	guest_stop(&g);
}

/* A socket that is bound to a free port; listens when it is TCP. */
static int bound(int type, unsigned *port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, type, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*port = ntohs(sin.sin_port);
	return fd;
}

static void test_port_taken(void **state)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	char text[128];
	unsigned port;
	int fd;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		fd = bound(types[i], &port);
		snprintf(text, sizeof(text), "slirp,hostfwd=%s:127.0.0.1:%u-:1",
		    i == 0 ? "tcp" : "udp", port);
		assert_int_equal(try_open(text), -EADDRINUSE);
		close(fd);
		assert_int_equal(try_open(text), 0);
		/* Twice the same in one list. */
		snprintf(text, sizeof(text),
		    "slirp,hostfwd=%s:127.0.0.1:%u-:1;%s:127.0.0.1:%u-:2",
		    i == 0 ? "tcp" : "udp", port, i == 0 ? "tcp" : "udp", port);
		assert_int_equal(try_open(text), -EADDRINUSE);
	}
	assert_int_equal(
	    try_open("slirp,hostfwd=tcp:192.0.2.77:7000-:1"), -EADDRNOTAVAIL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backends),
		cmocka_unit_test(test_mac),
		cmocka_unit_test(test_hostfwd),
		cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_slirp_answers),
		cmocka_unit_test(test_slirp_bounds),
		cmocka_unit_test(test_port_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
