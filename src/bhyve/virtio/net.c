/*
 * virtio-net (virtio 1.2 ch. 5.1) on a network backend.
 *
 * One pair of queues. Frames go out from the event loop in batches, right from guest
 * memory; while it works there the driver is not asked for kicks. Only the first
 * short frame of a quiet queue is sent by the vCPU that kicked, where the backend is
 * quick: a thread's wake-up would be most of a ping's time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/virtio/net_dev.h"
#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "vmm/machine.h"

#define F_CSUM       BIT64(0)
#define F_GUEST_CSUM BIT64(1)
#define F_MTU        BIT64(3)
#define F_MAC        BIT64(5)
#define F_GUEST_TSO4 BIT64(7)
#define F_GUEST_TSO6 BIT64(8)
#define F_GUEST_ECN  BIT64(9)
#define F_HOST_TSO4  BIT64(11)
#define F_HOST_TSO6  BIT64(12)
#define F_HOST_ECN   BIT64(13)
#define F_MRG_RXBUF  BIT64(15)
#define F_STATUS     BIT64(16)

#define LINK_UP      1u
#define LEGACY_HDR   10u
#define TX_FRAMES    128
#define TX_BYTES     (512 * KiB)
#define QUICK_BYTES  2048
#define QUIET_NS     UINT64_C(1000000)
/* More pieces than that are cheaper to copy together. */
#define TX_PIECES    64
#define OUT_OF_BAND  18u /* Ethernet with a VLAN header, beyond the MTU */

/* Sends one chain; bytes sent. */
static uint64_t transmit(struct virtio_net *n, const struct virtq_chain *c)
{
	struct net_hdr hdr = { 0 };
	struct iovec *iov = n->tx_iov;
	uint64_t skip = n->hdr_len, len = c->read_len - skip;
	unsigned pieces = 1;

	vq_read(c, 0, &hdr, n->hdr_len);
	hdr.num_buffers = 0;
	iov[0] = (struct iovec){ &hdr, NET_HDR_LEN };
	if (c->nread > TX_PIECES) {
		vq_read(c, skip, n->tx_bounce, len);
		iov[pieces++] = (struct iovec){ n->tx_bounce, len };
	} else {
		for (unsigned i = 0; i < c->nread; i++) {
			uint64_t have = c->iov[i].iov_len;

			if (skip >= have) {
				skip -= have;
				continue;
			}
			iov[pieces++] = (struct iovec){
				(uint8_t *)c->iov[i].iov_base + skip, have - skip
			};
			skip = 0;
		}
	}
	/* What cannot be sent is lost, as on a wire. */
	net_send(n->net, iov, (int)pieces);
	return len;
}

/* Sends until the ring is empty or a limit is reached. True: there is more. */
static bool transmit_some(struct virtio_net *n, unsigned frames, uint64_t bytes)
{
	struct virtq *q = &n->virtio.queue[NET_TXQ];
	struct iovec pieces[NET_RING];
	struct virtq_chain chain = {
		.iov = pieces, .gpa = n->tx_gpa, .max = NET_RING
	};
	uint64_t sent = 0;

	for (unsigned i = 0; i < frames && sent < bytes && vq_pop(q, &chain); i++) {
		if (chain.read_len < n->hdr_len) {
			virtio_broken(
			    &n->virtio, q, "a frame to be sent has no header");
			break;
		}
		if (chain.read_len >= n->hdr_len + NET_FRAME_MIN &&
		    chain.read_len <= n->hdr_len + NET_FRAME_MAX)
			sent += transmit(n, &chain);
		vq_push(q, &chain, 0);
	}
	net_flush(n->net);
	vq_notify(q);
	return vq_pending(q);
}

static void tx_posted(void *arg);

static void tx_post(struct virtio_net *n)
{
	if (!n->tx_posted &&
	    event_post(n->virtio.pci->m->loop, tx_posted, n) == 0)
		n->tx_posted = true;
}

static void tx_posted(void *arg)
{
	struct virtio_net *n = arg;

	n->tx_posted = false;
	if (transmit_some(n, TX_FRAMES, TX_BYTES))
		tx_post(n);
}

/*
 * The host answers a guest at once, before the call that sent returns: on a quiet
 * network the answer is fetched right here.
 */
static void transmit_quick(struct virtio_net *n)
{
	if (transmit_some(n, 1, QUICK_BYTES))
		tx_post(n);
	else if (event_now_ns() - n->rx_ns > QUIET_NS)
		net_rx_run(n);
}

static void kick(struct virtio_dev *v, struct virtq *q)
{
	struct virtio_net *n = container_of(v, struct virtio_net, virtio);

	if (q->index == NET_TXQ) {
		if (n->tx_posted)
			return;
		if (n->net->quick_send)
			transmit_quick(n);
		else
			tx_post(n);
	} else if (n->bounce_len != 0) {
		net_rx_run(n);
	} else {
		net_listen(n->net, true);
	}
}

static void reset(struct virtio_dev *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, virtio);

	net_rx_reset(n);
	net_offload(n->net, 0);
}

/* Which offloads a set of the guest's features stands for, of either direction. */
static unsigned offloads(uint64_t features, uint64_t csum, uint64_t tso4,
    uint64_t tso6, uint64_t ecn)
{
	unsigned o = (features & csum) != 0 ? NET_CSUM : 0;

	/* Segmentation without checksums is not allowed. */
	if (o == 0)
		return 0;
	o |= (features & tso4) != 0 ? NET_TSO4 : 0;
	o |= (features & tso6) != 0 ? NET_TSO6 : 0;
	if ((o & (NET_TSO4 | NET_TSO6)) != 0 && (features & ecn) != 0)
		o |= NET_ECN;
	return o;
}

static void negotiated(struct virtio_dev *v)
{
	struct virtio_net *n = container_of(v, struct virtio_net, virtio);
	uint64_t f = v->features;
	unsigned mtu = n->config.mtu != 0 ? n->config.mtu : NET_MTU_DEFAULT;
	unsigned o = offloads(
	    f, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN);

	n->mergeable = (f & F_MRG_RXBUF) != 0;
	n->hdr_len = n->mergeable || (f & VIRTIO_F_VERSION_1) != 0 ? NET_HDR_LEN
								   : LEGACY_HDR;
	n->want = n->hdr_len + ((o & (NET_TSO4 | NET_TSO6)) != 0
				       ? NET_FRAME_MAX
				       : mtu + OUT_OF_BAND);
	net_offload(n->net, o);
}

/* Drivers of 0.9 set their address so; we only remember it. */
static void config_write(
    struct virtio_dev *v, unsigned off, unsigned size, uint32_t value)
{
	struct virtio_net *n = container_of(v, struct virtio_net, virtio);

	if (!v->modern && off + size <= sizeof(n->config.mac))
		memcpy(n->config.mac + off, &value, size);
}

static void readable(void *arg)
{
	net_rx_run(arg);
}

static void link_changed(void *arg, bool up)
{
	struct virtio_net *n = arg;

	n->config.status = up ? LINK_UP : 0;
	virtio_config_changed(&n->virtio);
}

static const struct net_client client = {
	.readable = readable,
	.link = link_changed,
};

static const struct virtio_ops ops = {
	.name = "virtio-net",
	.type = 1,
	.kick = kick,
	.reset = reset,
	.negotiated = negotiated,
	.config_write = config_write,
};

static uint64_t get_bar(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size)
{
	struct virtio_net *n = dev->priv;

	(void)vcpu;
	return virtio_pci_bar_read(&n->virtio, bar, off, size);
}

static void set_bar(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size, uint64_t v)
{
	struct virtio_net *n = dev->priv;

	(void)vcpu;
	virtio_pci_bar_write(&n->virtio, bar, off, size, v);
}

static bool cfg_read(struct pci_dev *dev, unsigned off, unsigned size, uint32_t *v)
{
	struct virtio_net *n = dev->priv;

	return virtio_pci_cfg_read(&n->virtio, off, size, v);
}

static bool cfg_write(struct pci_dev *dev, unsigned off, unsigned size, uint32_t v)
{
	struct virtio_net *n = dev->priv;

	return virtio_pci_cfg_write(&n->virtio, off, size, v);
}

static void set_features(struct virtio_net *n)
{
	unsigned out = n->net->send_offloads, in = n->net->recv_offloads;
	uint64_t f = F_MAC | F_STATUS | F_MRG_RXBUF;

	f |= (out & NET_CSUM) != 0 ? F_CSUM : 0;
	f |= (out & NET_TSO4) != 0 ? F_HOST_TSO4 : 0;
	f |= (out & NET_TSO6) != 0 ? F_HOST_TSO6 : 0;
	f |= (out & NET_ECN) != 0 ? F_HOST_ECN : 0;
	f |= (in & NET_CSUM) != 0 ? F_GUEST_CSUM : 0;
	f |= (in & NET_TSO4) != 0 ? F_GUEST_TSO4 : 0;
	f |= (in & NET_TSO6) != 0 ? F_GUEST_TSO6 : 0;
	f |= (in & NET_ECN) != 0 ? F_GUEST_ECN : 0;
	f |= n->config.mtu != 0 ? F_MTU : 0;
	n->virtio.host_features = f;
}

/* What comes after the backend was opened. */
static int set_up(struct virtio_net *n)
{
	struct virtio_dev *v = &n->virtio;
	int error;

	set_features(n);
	n->config.status = LINK_UP;
	n->config.max_pairs = 1;
	negotiated(v);
	v->ops = &ops;
	v->nqueues = NET_QUEUES;
	v->queue[NET_RXQ].max = NET_RING;
	v->queue[NET_TXQ].max = NET_RING;
	v->config = (const uint8_t *)&n->config;
	v->config_len = sizeof(n->config);
	v->pci_class = 0x02;
	v->pci_device = 0x1000;
	v->pci_subdevice = 1;
	error = virtio_pci_create(v);
	return error == 0 ? net_rx_init(n) : error;
}

static int create(struct pci_dev *dev, const char *node)
{
	struct virtio_net *n = calloc(1, sizeof(*n));
	int error;

	if (n == NULL)
		return -ENOMEM;
	dev->priv = n;
	n->virtio.pci = dev;
	error = net_mac(dev->cfg, node, dev->s, dev->f, n->config.mac);
	if (error == 0)
		error = net_mtu(dev->cfg, node, &n->config.mtu);
	if (error == 0)
		error = net_open(
		    &n->net, dev->m->loop, dev->cfg, node, dev->name, &client, n);
	if (error == 0)
		error = set_up(n);
	if (error != 0) {
		net_close(n->net);
		free(n);
	}
	return error;
}

static void destroy(struct pci_dev *dev)
{
	struct virtio_net *n = dev->priv;

	net_rx_destroy(n);
	net_close(n->net);
	free(n);
}

static const struct pci_class virtio_net = {
	.name = "virtio-net",
	.help = "tapN|tap,ifname=NAME|slirp[,open][,hostfwd=...][,mac=ADDRESS]"
		"[,mtu=N]",
	.parse = net_parse,
	.create = create,
	.destroy = destroy,
	.bar_read = get_bar,
	.bar_write = set_bar,
	.cfg_read = cfg_read,
	.cfg_write = cfg_write,
};
PCI_CLASS(virtio_net);
