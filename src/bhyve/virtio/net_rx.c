/*
 * Frames from the backend into the guest's buffers.
 *
 * The backend writes a frame right into as many buffers as the driver gave, up to
 * what any frame needs; a last piece of our own catches what does not fit. Such a
 * frame waits for more buffers - one, and for PATIENCE at most: a driver that has no
 * larger buffers to give must not wait for ever. While there is no room, the backend
 * is not listened to, and its own bounded queue drops.
 *
 * With mergeable buffers the driver must see all chains of a frame at once.
 */
#include <errno.h>
#include <string.h>

#include "bhyve/virtio/net_dev.h"
#include "lib/event.h"
#include "vmm/machine.h"

#define PATIENCE     UINT64_C(20000000) /* ns */
#define BATCH_FRAMES 64
#define BATCH_BYTES  (256 * KiB)

static unsigned count(const struct net_held *h)
{
	return h->end - h->first;
}

static void clear(struct net_held *h)
{
	h->first = h->end = h->pieces = 0;
	h->room = 0;
}

/* Moves what is held to the arrays' start. */
static void compact(struct net_held *h)
{
	size_t from;

	if (h->first == 0)
		return;
	if (count(h) == 0) {
		clear(h);
		return;
	}
	from = (size_t)(h->chain[h->first].iov - h->iov);
	h->pieces -= (unsigned)from;
	memmove(h->iov, h->iov + from, h->pieces * sizeof(h->iov[0]));
	memmove(h->gpa, h->gpa + from, h->pieces * sizeof(h->gpa[0]));
	h->end -= h->first;
	memmove(h->chain, h->chain + h->first, h->end * sizeof(h->chain[0]));
	h->first = 0;
	for (unsigned i = 0; i < h->end; i++) {
		h->chain[i].iov -= from;
		h->chain[i].gpa -= from;
	}
}

/* Holds one chain more. False: the ring is empty. */
static bool hold(struct virtio_net *n, struct virtq *q)
{
	struct net_held *h = &n->held;
	struct virtq_chain *c;

	if (h->end == NET_RING || h->pieces > NET_RING)
		compact(h);
	if (h->end == NET_RING || h->pieces > NET_RING)
		return false;
	c = &h->chain[h->end];
	c->iov = h->iov + h->pieces;
	c->gpa = h->gpa + h->pieces;
	c->max = NET_RING;
	if (!vq_pop(q, c))
		return false;
	if (c->write_len < n->hdr_len) {
		virtio_broken(
		    &n->virtio, q, "a receive buffer is too small for a header");
		return false;
	}
	h->pieces += c->nread + c->nwrite;
	h->room += c->write_len;
	h->end++;
	return true;
}

/* Holds chains until want bytes fit, if the driver has given so much. */
static void top_up(struct virtio_net *n, struct virtq *q, uint64_t want)
{
	struct net_held *h = &n->held;

	if (!n->mergeable) {
		if (count(h) == 0)
			hold(n, q);
		return;
	}
	while (h->room < want && hold(n, q))
		;
}

/* Gives the first chain back with so many bytes written. */
static void give(struct virtio_net *n, struct virtq *q, uint64_t written)
{
	struct net_held *h = &n->held;
	const struct virtq_chain *c = &h->chain[h->first];
	uint64_t left = written;

	for (unsigned i = c->nread; i < c->nread + c->nwrite && left > 0; i++) {
		uint64_t len = MIN((uint64_t)c->iov[i].iov_len, left);

		pci_dma_written(n->virtio.pci, c->gpa[i], len);
		left -= len;
	}
	vq_fill(q, c, (uint32_t)written);
	h->room -= c->write_len;
	h->first++;
}

/*
 * The frame of len bytes behind the header lies in the held chains: completes and
 * publishes it.
 */
static void publish(
    struct virtio_net *n, struct virtq *q, struct net_hdr *hdr, uint64_t len)
{
	struct net_held *h = &n->held;
	uint64_t total = n->hdr_len + len, sum = 0;
	unsigned chains = 0;

	while (sum < total)
		sum += h->chain[h->first + chains++].write_len;
	hdr->num_buffers = (uint16_t)chains;
	vq_write(q, &h->chain[h->first], 0, hdr, n->hdr_len);
	while (total > 0) {
		uint64_t here = MIN(total, h->chain[h->first].write_len);

		give(n, q, here);
		total -= here;
	}
	vq_publish(q);
}

/* Pieces for a frame: header, guest memory behind the header's place, bounce. */
static int pieces(struct virtio_net *n, struct net_hdr *hdr, struct iovec *iov,
    uint64_t *room)
{
	const struct net_held *h = &n->held;
	uint64_t skip = n->hdr_len;
	int count_iov = 1;

	iov[0] = (struct iovec){ hdr, NET_HDR_LEN };
	*room = 0;
	for (unsigned k = h->first; k < h->end; k++) {
		const struct virtq_chain *c = &h->chain[k];

		for (unsigned i = c->nread; i < c->nread + c->nwrite; i++) {
			uint64_t len = c->iov[i].iov_len;

			if (skip >= len) {
				skip -= len;
				continue;
			}
			/* The rest stays unused: frames are not that long. */
			if (count_iov == NET_IOV_MAX - 1)
				goto full;
			iov[count_iov++] = (struct iovec){
				(uint8_t *)c->iov[i].iov_base + skip, len - skip
			};
			*room += len - skip;
			skip = 0;
		}
	}
full:
	*room = MIN(*room, (uint64_t)NET_FRAME_MAX);
	iov[count_iov++] = (struct iovec){ n->bounce + NET_HDR_LEN + *room,
		NET_FRAME_MAX - *room };
	return count_iov;
}

/* A frame of len bytes filled the room and went on in the bounce buffer. */
static void keep(
    struct virtio_net *n, const struct iovec *iov, int niov, uint64_t len)
{
	uint8_t *to = n->bounce;

	/* A single chain that is too small stays so. */
	if (!n->mergeable || len > NET_FRAME_MAX)
		return;
	/* The last piece is where it should be. */
	for (int i = 0; i < niov - 1; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
	n->bounce_len = NET_HDR_LEN + len;
	event_set_timer(n->patience, event_now_ns() + PATIENCE);
}

static void drop_kept(struct virtio_net *n)
{
	n->bounce_len = 0;
	event_set_timer(n->patience, 0);
}

/* Delivers the frame that waits. False: there is still no room. */
static bool deliver_kept(struct virtio_net *n, struct virtq *q)
{
	uint64_t len = n->bounce_len - NET_HDR_LEN, at = 0;
	struct net_held *h = &n->held;
	struct net_hdr hdr;

	top_up(n, q, n->hdr_len + len);
	if (h->room < n->hdr_len + len)
		return false;
	memcpy(&hdr, n->bounce, sizeof(hdr));
	for (unsigned k = h->first; at < len; k++) {
		uint64_t off = k == h->first ? n->hdr_len : 0;

		at += vq_write(q, &h->chain[k], off, n->bounce + NET_HDR_LEN + at,
		    len - at);
	}
	publish(n, q, &hdr, len);
	drop_kept(n);
	return true;
}

/* Reads one frame. Its length, 0: there is none or no room. */
static uint64_t receive(struct virtio_net *n, struct virtq *q)
{
	struct iovec iov[NET_IOV_MAX];
	struct net_hdr hdr;
	uint64_t room;
	ssize_t got;
	int niov;

	top_up(n, q, n->want);
	if (count(&n->held) == 0) {
		net_listen(n->net, false);
		return 0;
	}
	niov = pieces(n, &hdr, iov, &room);
	got = net_recv(n->net, iov, niov);
	if (got < 0)
		return 0;
	if ((uint64_t)got - NET_HDR_LEN <= room)
		publish(n, q, &hdr, (uint64_t)got - NET_HDR_LEN);
	else
		keep(n, iov, niov, (uint64_t)got - NET_HDR_LEN);
	return (uint64_t)got;
}

void net_rx_run(struct virtio_net *n)
{
	struct virtq *q = &n->virtio.queue[NET_RXQ];
	uint64_t bytes = 0, len;

	net_listen(n->net, true);
	for (unsigned i = 0; i < BATCH_FRAMES && bytes < BATCH_BYTES; i++) {
		if (n->bounce_len != 0 && !deliver_kept(n, q)) {
			net_listen(n->net, false);
			break;
		}
		len = receive(n, q);
		if (len == 0)
			break;
		bytes += len;
	}
	if (bytes > 0)
		n->rx_ns = event_now_ns();
	vq_notify(q);
}

static void out_of_patience(void *arg)
{
	struct virtio_net *n = arg;

	n->bounce_len = 0;
	net_rx_run(n);
}

void net_rx_reset(struct virtio_net *n)
{
	net_listen(n->net, false);
	clear(&n->held);
	drop_kept(n);
}

int net_rx_init(struct virtio_net *n)
{
	n->patience = event_add_timer(n->virtio.pci->m->loop, out_of_patience, n);
	return n->patience != NULL ? 0 : -ENOMEM;
}

void net_rx_destroy(struct virtio_net *n)
{
	event_del(n->patience);
}
