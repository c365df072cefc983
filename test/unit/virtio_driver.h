/* A virtio driver for tests: builds rings by hand, rightly or wrongly. */
#pragma once

#include "fake_machine.h"

#define VD_RINGS    0x100000u
#define VD_NEXT     1
#define VD_WRITE    2
#define VD_INDIRECT 4

struct vdesc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
} __attribute__((packed));

struct vdriver {
	struct fake *f;
	unsigned slot;
	bool modern;
	uint16_t io;   /* legacy registers */
	uint64_t mmio; /* modern registers */
	unsigned queue; /* its index */
	unsigned size;
	struct vdesc *desc;
	uint16_t *avail;  /* flags, idx, ring, used_event */
	uint16_t *used16; /* flags, idx */
	uint32_t *used;   /* id, len pairs */
	uint16_t *avail_event;
};

/* Negotiates and sets up queue 0 with its rings at VD_RINGS. False: refused. */
bool vd_start_legacy(
    struct vdriver *d, struct fake *f, unsigned slot, uint32_t features);
bool vd_start_modern(struct vdriver *d, struct fake *f, unsigned slot,
    uint64_t features, unsigned size);
/*
 * The same in steps, for devices with several queues: begin, one vd_queue() for each
 * (the driver structure is that queue's from then on), ready.
 */
bool vd_begin(struct vdriver *d, struct fake *f, unsigned slot, bool modern,
    uint64_t features);
/* Queue index with its rings at that address; size matters to modern ones only. */
bool vd_queue(struct vdriver *d, unsigned index, uint64_t rings, unsigned size);
void vd_ready(struct vdriver *d);
uint8_t vd_status(struct vdriver *d);
void vd_set_status(struct vdriver *d, uint8_t v);
void vd_desc(struct vdriver *d, unsigned i, uint64_t addr, uint32_t len,
    uint16_t flags, uint16_t next);
/* Offers head in the available ring, without a kick. */
void vd_offer(struct vdriver *d, uint16_t head);
void vd_kick(struct vdriver *d);
/* Waits until the used index is n. */
bool vd_wait_used(struct vdriver *d, uint16_t n);
