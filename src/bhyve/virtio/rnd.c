/*
 * virtio-rnd (virtio 1.2 ch. 5.4): fills the guest's buffers from getrandom(2).
 *
 * Bounded: a chain gets at most CHAIN_MAX bytes and a kick serves at most a ring
 * of chains, so a guest cannot keep the event loop busy with one write.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "bhyve/virtio/virtio.h"
#include "lib/log.h"

#define RING_SIZE 64
#define CHAIN_MAX 256 /* what getrandom(2) gives at once without failing */

struct rnd {
	struct virtio_dev virtio;
	struct iovec iov[RING_SIZE];
	uint64_t gpa[RING_SIZE];
};

static void kick(struct virtio_dev *v, struct virtq *q)
{
	struct rnd *rnd = container_of(v, struct rnd, virtio);
	struct virtq_chain chain = {
		.iov = rnd->iov, .gpa = rnd->gpa, .max = RING_SIZE
	};

	for (unsigned i = 0; vq_pop(q, &chain); i++) {
		uint8_t buf[CHAIN_MAX];
		ssize_t n = getrandom(buf, MIN(chain.write_len, sizeof(buf)), 0);

		if (n < 0)
			n = 0;
		vq_push(
		    q, &chain, (uint32_t)vq_write(q, &chain, 0, buf, (uint64_t)n));
		explicit_bzero(buf, sizeof(buf));
		if (i == RING_SIZE) {
			virtio_kick_later(q);
			break;
		}
	}
	vq_notify(q);
}

static void reset(struct virtio_dev *v)
{
	(void)v; /* chains are answered where they are taken */
}

static const struct virtio_ops ops = {
	.name = "virtio-rnd",
	.type = 4,
	.kick = kick,
	.reset = reset,
};

static uint64_t bar_read(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size)
{
	struct rnd *rnd = dev->priv;

	(void)vcpu;
	return virtio_pci_bar_read(&rnd->virtio, bar, off, size);
}

static void bar_write(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size, uint64_t v)
{
	struct rnd *rnd = dev->priv;

	(void)vcpu;
	virtio_pci_bar_write(&rnd->virtio, bar, off, size, v);
}

static bool cfg_read(struct pci_dev *dev, unsigned off, unsigned size, uint32_t *v)
{
	struct rnd *rnd = dev->priv;

	return virtio_pci_cfg_read(&rnd->virtio, off, size, v);
}

static bool cfg_write(struct pci_dev *dev, unsigned off, unsigned size, uint32_t v)
{
	struct rnd *rnd = dev->priv;

	return virtio_pci_cfg_write(&rnd->virtio, off, size, v);
}

static int create(struct pci_dev *dev, const char *node)
{
	struct rnd *rnd = calloc(1, sizeof(*rnd));
	int error;

	(void)node;
	if (rnd == NULL)
		return -ENOMEM;
	dev->priv = rnd;
	rnd->virtio.pci = dev;
	rnd->virtio.ops = &ops;
	rnd->virtio.nqueues = 1;
	rnd->virtio.queue[0].max = RING_SIZE;
	rnd->virtio.pci_class = 0x10;
	rnd->virtio.pci_device = 0x1005;
	rnd->virtio.pci_subdevice = 4;
	error = virtio_pci_create(&rnd->virtio);
	if (error != 0)
		free(rnd);
	return error;
}

static void destroy(struct pci_dev *dev)
{
	free(dev->priv);
}

static const struct pci_class virtio_rnd = {
	.name = "virtio-rnd",
	.help = "",
	.create = create,
	.destroy = destroy,
	.bar_read = bar_read,
	.bar_write = bar_write,
	.cfg_read = cfg_read,
	.cfg_write = cfg_write,
};
PCI_CLASS(virtio_rnd);
