/*
 * virtio-net between its two files: net.c has the registers and the way out,
 * net_rx.c the way in.
 */
#pragma once

#include "bhyve/net/net.h"
#include "bhyve/virtio/virtio.h"
#include "lib/util.h"

#define NET_RING 1024
/* Pieces a system call takes. */
#define NET_IOV_MAX 1024

enum { NET_RXQ, NET_TXQ, NET_QUEUES };

struct net_config {
	uint8_t mac[6];
	uint16_t status, max_pairs, mtu;
};

/*
 * Chains taken from the ring in advance, first..end, and their pieces, so that a
 * frame of unknown length can be read right into guest memory.
 */
struct net_held {
	struct virtq_chain chain[NET_RING];
	unsigned first, end;
	unsigned pieces;          /* in iov, of all chains from 0 on */
	uint64_t room;            /* bytes of first..end */
	struct iovec iov[2 * NET_RING];
	uint64_t gpa[2 * NET_RING];
};

struct virtio_net {
	struct virtio_dev virtio;
	struct net *net;
	struct net_config config;
	unsigned hdr_len;  /* of frames in guest memory: 10 or 12 bytes */
	bool mergeable;    /* a frame may take several chains */
	unsigned want;     /* bytes of room that any frame fits in */
	bool tx_posted;
	struct iovec tx_iov[NET_RING + 1];
	uint64_t tx_gpa[NET_RING];
	struct net_held held;
	uint64_t rx_ns; /* when frames came last */
	/* A frame that waits for room, with its header; bounce_len 0: none. */
	struct event *patience;
	size_t bounce_len;
	uint8_t bounce[NET_HDR_LEN + NET_FRAME_MAX];
	uint8_t tx_bounce[NET_HDR_LEN + NET_FRAME_MAX];
};

/* Frames may have come, or room for them. */
void net_rx_run(struct virtio_net *n);
void net_rx_reset(struct virtio_net *n);
/* 0 or -ENOMEM. */
int net_rx_init(struct virtio_net *n);
void net_rx_destroy(struct virtio_net *n);
