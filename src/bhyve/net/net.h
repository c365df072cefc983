/*
 * Network backends: where a network device's frames go to and come from.
 *
 * Frames travel as vectors whose first NET_HDR_LEN bytes are a struct net_hdr, the
 * header of virtio 1.2 ch. 5.1.6, whatever the device; the header lies in one piece.
 * All functions need the machine lock. Nothing here blocks, and nothing is kept
 * beyond bounds fixed when the backend is opened: what finds no room is dropped,
 * as on a wire.
 *
 * A device calls net_listen(true) when it can take frames; then readable() is called
 * from the event loop, and the device calls net_recv() until it gives -EAGAIN or the
 * device has done enough for one turn (readable() comes again).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define NET_HDR_LEN   12u
#define NET_FRAME_MIN 14u /* an Ethernet header */
/* Ethernet and two VLAN headers around the longest IP packet. */
#define NET_FRAME_MAX   (14u + 8u + 65535u)
#define NET_MTU_DEFAULT 1500u
/* Keys of every network device, for pci_parse_options(). */
#define NET_OPTIONS "type ifname mac mtu open hostfwd"

/* What the receiver of a frame finishes, so that its sender need not. */
#define NET_CSUM 0x1u
#define NET_TSO4 0x2u
#define NET_TSO6 0x4u
#define NET_ECN  0x8u /* of TSO */

#define NET_HDR_NEEDS_CSUM 1u
#define NET_HDR_DATA_VALID 2u

struct net_hdr {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

struct config;
struct event_loop;
struct net;
struct net_ops;

struct net_client {
	/* There may be frames; only after net_listen(true). */
	void (*readable)(void *arg);
	/* The link went up or down. */
	void (*link)(void *arg, bool up);
};

/* What backends share; each has it as its first member. */
struct net {
	const struct net_ops *ops;
	struct event_loop *loop;
	const struct net_client *client;
	void *arg;
	char name[32]; /* of the device, for messages */
	bool link_up;
	/* What net_send() takes, and what net_recv() can be asked to give. */
	unsigned send_offloads, recv_offloads;
	/*
	 * Sending is one short system call: a device may do it in a vCPU's thread
	 * where latency counts. Else only from the event loop.
	 */
	bool quick_send;
};

struct net_ops {
	/* First words of -s that mean it; NULL ends them. */
	const char *names[3];
	bool numbered; /* or such a word with a number */
	/* 0 or -errno (logged); the common part is filled in by net_open(). */
	int (*open)(struct net **net, struct event_loop *loop,
	    const struct config *cfg, const char *node, const char *backend,
	    unsigned mtu);
	void (*close)(struct net *net);
	int (*send)(struct net *net, const struct iovec *iov, int niov);
	void (*flush)(struct net *net); /* optional */
	ssize_t (*recv)(struct net *net, const struct iovec *iov, int niov);
	void (*listen)(struct net *net, bool on);
	void (*offload)(struct net *net, unsigned offloads); /* optional */
};

/* Puts the backend into the one table of them (a linker section). */
#define NET_BACKEND(b)                                                             \
	static const struct net_ops *const b##_entry                               \
	    __attribute__((used, section("net_backends"), aligned(8))) = &(b)

/*
 * "backend[,option...]", the text of -s behind the device, into keys. 0 or -EINVAL
 * (logged).
 */
int net_parse(struct config *cfg, const char *node, const char *text);
/*
 * Opens what the keys under node ask for; the link is up, nobody listens. 0 or
 * -errno (logged). dev is the device's name in messages.
 */
int net_open(struct net **net, struct event_loop *loop, const struct config *cfg,
    const char *node, const char *dev, const struct net_client *client, void *arg);
void net_close(struct net *net);

/* One frame. 0, or -errno: dropped. Takes nothing with it that it does not copy. */
int net_send(struct net *net, const struct iovec *iov, int niov);
/* After a batch of net_send(). */
void net_flush(struct net *net);
/*
 * The next frame into iov, its header first; num_buffers is not filled in. Its
 * length with the header: more than iov holds means that the rest is lost. -EAGAIN:
 * none.
 */
ssize_t net_recv(struct net *net, const struct iovec *iov, int niov);
void net_listen(struct net *net, bool on);
/* Which offloads frames from net_recv() may need from now on. */
void net_offload(struct net *net, unsigned offloads);

/* For backends. */
void net_link_changed(struct net *net, bool up);

/* mac=, or the address bhyve gives a device of this VM. 0 or -EINVAL (logged). */
int net_mac(const struct config *cfg, const char *node, unsigned slot, unsigned func,
    uint8_t mac[6]);
/* mtu=, 0 when not set. 0 or -EINVAL (logged). */
int net_mtu(const struct config *cfg, const char *node, uint16_t *mtu);

/* checksum.c: the Internet checksum (RFC 1071). */
/* Sum of len bytes added to sum; pieces but the last have even lengths. */
uint64_t net_sum(const void *data, size_t len, uint64_t sum);
/* The sum, folded and inverted, in network byte order. */
uint16_t net_sum_finish(uint64_t sum);
/* Fills in what hdr says is missing; frame is without hdr. False: nonsense. */
bool net_checksum(const struct net_hdr *hdr, uint8_t *frame, size_t len);

/* hostfwd.c: one forwarding of slirp. */
struct net_hostfwd {
	bool udp;
	uint32_t host, guest; /* network byte order; 0: any, the first guest */
	uint16_t host_port, guest_port;
};
/*
 * "proto:haddr:hport-gaddr:gport" of len bytes. NULL, or what is wrong with it.
 */
const char *net_hostfwd_parse(const char *text, size_t len, struct net_hostfwd *fwd);
