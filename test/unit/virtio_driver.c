/* See virtio_driver.h. */
#include "virtio_driver.h"

#include <string.h>

static uint64_t rings(struct vdriver *d, uint64_t at)
{
	uint8_t *base = fake_ram(d->f, at);
	uint64_t used = (16 * d->size + 6 + 2 * d->size + 4095) & ~4095u;

	memset(base, 0, used + 6 + 8 * d->size);
	d->desc = (struct vdesc *)base;
	d->avail = (uint16_t *)(base + 16 * d->size);
	d->used16 = (uint16_t *)(base + used);
	d->used = (uint32_t *)(base + used + 4);
	d->avail_event = (uint16_t *)(base + used + 4 + 8 * d->size);
	return at + used;
}

bool vd_begin(struct vdriver *d, struct fake *f, unsigned slot, bool modern,
    uint64_t features)
{
	memset(d, 0, sizeof(*d));
	d->f = f;
	d->slot = slot;
	d->modern = modern;
	if (modern)
		d->mmio = fake_bar(f, slot, 4);
	else
		d->io = (uint16_t)fake_bar(f, slot, 0);
	vd_set_status(d, 0);
	vd_set_status(d, 3);
	if (!modern) {
		fake_out(f, d->io + 4, 4, (uint32_t)features);
		return true;
	}
	for (unsigned i = 0; i < 2; i++) {
		fake_write(f, d->mmio + 0x08, 4, i);
		fake_write(f, d->mmio + 0x0c, 4, features >> (32 * i) & 0xffffffff);
	}
	vd_set_status(d, 11);
	return (vd_status(d) & 8) != 0;
}

bool vd_queue(struct vdriver *d, unsigned index, uint64_t at, unsigned size)
{
	struct fake *f = d->f;
	uint64_t used;

	d->queue = index;
	if (!d->modern) {
		fake_out(f, d->io + 14, 2, index);
		d->size = fake_in(f, d->io + 12, 2);
		rings(d, at);
		fake_out(f, d->io + 8, 4, (uint32_t)(at >> 12));
		return fake_in(f, d->io + 8, 4) == at >> 12;
	}
	fake_write(f, d->mmio + 0x16, 2, index);
	fake_write(f, d->mmio + 0x18, 2, size);
	d->size = (unsigned)fake_read(f, d->mmio + 0x18, 2);
	used = rings(d, at);
	fake_write(f, d->mmio + 0x20, 8, at);
	fake_write(f, d->mmio + 0x28, 4, at + 16 * d->size);
	fake_write(f, d->mmio + 0x2c, 4, 0);
	fake_write(f, d->mmio + 0x30, 8, used);
	fake_write(f, d->mmio + 0x1c, 2, 1);
	return fake_read(f, d->mmio + 0x1c, 2) == 1;
}

void vd_ready(struct vdriver *d)
{
	vd_set_status(d, d->modern ? 15 : 7);
}

bool vd_start_legacy(
    struct vdriver *d, struct fake *f, unsigned slot, uint32_t features)
{
	bool good = vd_begin(d, f, slot, false, features) &&
		    vd_queue(d, 0, VD_RINGS, 0);

	vd_ready(d);
	return good;
}

bool vd_start_modern(struct vdriver *d, struct fake *f, unsigned slot,
    uint64_t features, unsigned size)
{
	if (!vd_begin(d, f, slot, true, features))
		return false;
	bool good = vd_queue(d, 0, VD_RINGS, size);

	vd_ready(d);
	return good;
}

uint8_t vd_status(struct vdriver *d)
{
	return (uint8_t)(d->modern ? fake_read(d->f, d->mmio + 0x14, 1)
				   : fake_in(d->f, d->io + 18, 1));
}

void vd_set_status(struct vdriver *d, uint8_t v)
{
	if (d->modern)
		fake_write(d->f, d->mmio + 0x14, 1, v);
	else
		fake_out(d->f, d->io + 18, 1, v);
}

void vd_desc(struct vdriver *d, unsigned i, uint64_t addr, uint32_t len,
    uint16_t flags, uint16_t next)
{
	d->desc[i] = (struct vdesc){ addr, len, flags, next };
}

void vd_offer(struct vdriver *d, uint16_t head)
{
	d->avail[2 + d->avail[1] % d->size] = head;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	d->avail[1]++;
}

void vd_kick(struct vdriver *d)
{
	if (d->modern)
		fake_write(d->f, d->mmio + 0x3000 + 4 * d->queue, 2, d->queue);
	else
		fake_out(d->f, d->io + 16, 2, d->queue);
}

bool vd_wait_used(struct vdriver *d, uint16_t n)
{
	uint64_t end = event_now_ns() + UINT64_C(10000000000);

	while (*(volatile uint16_t *)&d->used16[1] != n && event_now_ns() < end)
		fake_poll(d->f);
	return d->used16[1] == n;
}
