/*
 * What a virtio device is made of: queues (split rings, virtio 1.2 ch. 2.7, and the
 * same rings in the layout of 0.9.5) and the transitional PCI transport (ch. 4.1).
 *
 * A device fills in struct virtio_dev and calls virtio_pci_create(). Its
 * callbacks run with the machine lock held. A chain that vq_pop() returned is
 * fully checked: its pieces are guest RAM, its descriptors were read once.
 * The device answers each chain with vq_push() and, after a batch, vq_notify().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "bhyve/pci/pci.h"

#define VIRTIO_F_NOTIFY_ON_EMPTY BIT64(24)
#define VIRTIO_F_INDIRECT_DESC   BIT64(28)
#define VIRTIO_F_EVENT_IDX       BIT64(29)
#define VIRTIO_F_VERSION_1       BIT64(32)
#define VIRTIO_NO_VECTOR         0xffffu
#define VIRTIO_MAX_QUEUES        8
#define VIRTIO_MAX_CHAIN         1024 /* descriptors; the largest ring we offer */

struct virtio_dev;

struct virtq {
	struct virtio_dev *dev;
	unsigned index;
	uint16_t max;  /* largest size, a power of two */
	uint16_t size; /* as negotiated */
	uint16_t vector;
	bool enabled;
	bool broken; /* the guest broke the ring's rules: dead until reset */
	uint64_t desc_gpa, avail_gpa, used_gpa;
	/* Private to queue.c; valid while enabled. */
	const uint8_t *desc, *avail;
	uint8_t *used;
	uint16_t last_avail, used_idx, signalled_used;
	uint16_t filled; /* by vq_fill() since the last vq_publish() */
	bool signalled_valid;
	bool posted; /* virtio_kick_later() is under way */
	/* changes when the rings do: late answers are dropped */
	uint32_t generation;
	unsigned inflight;
};

struct virtq_chain {
	uint16_t head;
	uint32_t generation;
	struct iovec *iov;   /* nread pieces to read, then nwrite to write */
	uint64_t *gpa;	     /* of each piece */
	unsigned max;	     /* room in both */
	unsigned nread, nwrite;
	uint64_t read_len, write_len;
};

struct virtio_ops {
	const char *name;
	uint16_t type; /* virtio device number: 2 = block */
	/* A kick of queue q; also called when the driver gets ready. */
	void (*kick)(struct virtio_dev *v, struct virtq *q);
	/* Let go of every chain (vq_push() drops them by itself). */
	void (*reset)(struct virtio_dev *v);
	/* Optional: the driver has settled on v->features. */
	void (*negotiated)(struct virtio_dev *v);
	/* Optional: the driver wrote config space. */
	void (*config_write)(
	    struct virtio_dev *v, unsigned off, unsigned size, uint32_t value);
};

struct virtio_dev {
	/* Set by the device before virtio_pci_create(). */
	const struct virtio_ops *ops;
	struct pci_dev *pci;
	unsigned nqueues;
	struct virtq queue[VIRTIO_MAX_QUEUES]; /* .max */
	uint64_t host_features;                /* the transport's own are added */
	const uint8_t *config;
	unsigned config_len;
	uint8_t pci_class, pci_subclass;
	uint16_t pci_device, pci_subdevice; /* transitional ids */

	/* State. */
	uint64_t features; /* accepted by the driver */
	uint8_t status, isr, generation;
	bool modern;     /* the driver speaks 1.x */
	bool complained;     /* one line in the log a reset ... */
	unsigned complaints; /* ... and not more than a few in all */
	uint16_t config_vector;
	uint16_t select; /* queue */
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint8_t cfg_cap; /* offset of the PCI configuration access capability */
};

/* virtio_pci.c */
int virtio_pci_create(struct virtio_dev *v);
uint64_t virtio_pci_bar_read(
    struct virtio_dev *v, int bar, uint64_t off, unsigned size);
void virtio_pci_bar_write(
    struct virtio_dev *v, int bar, uint64_t off, unsigned size, uint64_t value);
bool virtio_pci_cfg_read(
    struct virtio_dev *v, unsigned off, unsigned size, uint32_t *value);
bool virtio_pci_cfg_write(
    struct virtio_dev *v, unsigned off, unsigned size, uint32_t value);
/* The device changed its configuration space: tell the driver. */
void virtio_config_changed(struct virtio_dev *v);
void virtio_interrupt(struct virtio_dev *v, uint16_t vector, uint8_t isr);
/*
 * Calls kick() again from the event loop: for a device that has served a ring's
 * worth of chains at one go, so that a guest which keeps filling the ring does not
 * hold the machine lock for ever.
 */
void virtio_kick_later(struct virtq *q);
/* The driver broke a rule of ring q: stop it, and say so as the spec does. */
void virtio_broken(struct virtio_dev *v, struct virtq *q, const char *why);

/* queue.c */
/* Takes the ring addresses into use. 0, or -EINVAL: not RAM or misaligned. */
int vq_enable(struct virtq *q);
void vq_disable(struct virtq *q);
/* Sets the three addresses from a legacy page frame number. */
void vq_set_legacy(struct virtq *q, uint32_t pfn);
/* True: chain holds the next one. False: none (or the ring is broken). */
bool vq_pop(struct virtq *q, struct virtq_chain *chain);
/* Whether there is a next one; if not, the driver will kick when there is. */
bool vq_pending(struct virtq *q);
/* Puts the chain into the used ring; written: bytes the device wrote to it. */
void vq_push(struct virtq *q, const struct virtq_chain *chain, uint32_t written);
/*
 * The same in two steps, for several chains that the driver must see at once: each
 * is filled in, then all are published.
 */
void vq_fill(struct virtq *q, const struct virtq_chain *chain, uint32_t written);
void vq_publish(struct virtq *q);
/*
 * Interrupts the driver if chains were pushed since the last time and it wants to
 * know.
 */
void vq_notify(struct virtq *q);
/* Copies from the readable part; bytes copied. */
uint64_t vq_read(
    const struct virtq_chain *c, uint64_t off, void *buf, uint64_t len);
/* Copies to the writable part; bytes copied. */
uint64_t vq_write(struct virtq *q, const struct virtq_chain *c, uint64_t off,
    const void *buf, uint64_t len);
