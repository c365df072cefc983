/*
 * A network backend for tests, "-s N,device,wireN": what the guest sends is kept, and
 * the test says what comes in and what the wire can do. One at a time.
 */
#pragma once

#include "bhyve/net/net.h"

#define WIRE_FRAMES 64

struct wire_frame {
	struct net_hdr hdr;
	uint32_t len; /* without hdr */
	uint8_t data[NET_FRAME_MAX];
};

struct wire {
	struct net net;
	bool listening;
	unsigned offloads; /* as the device asked */
	unsigned nsent, nin;
	struct wire_frame sent[WIRE_FRAMES]; /* the last ones, by nsent % WIRE_FRAMES */
	struct wire_frame in[WIRE_FRAMES];   /* to the guest, oldest first */
};

/* Capabilities of wires opened from now on: offloads of both ways. */
extern unsigned wire_offloads;
extern bool wire_quick;
/* The one that is open, or NULL. */
extern struct wire *wire;

/* A frame of len bytes that begins with data; tells the device when it listens. */
void wire_put(const struct net_hdr *hdr, const void *data, uint32_t len);
/* The last frame but back. */
const struct wire_frame *wire_sent(unsigned back);
