/* See virtio_driver.h. */
#include "virtio_driver.h"

#include <string.h>

static void rings(struct vdriver *d)
{
	uint8_t *base = fake_ram(d->f, VD_RINGS);
	uint64_t used = (16 * d->size + 6 + 2 * d->size + 4095) & ~4095u;

	memset(base, 0, used + 6 + 8 * d->size);
	d->desc = (struct vdesc *)base;
	d->avail = (uint16_t *)(base + 16 * d->size);
	d->used16 = (uint16_t *)(base + used);
	d->used = (uint32_t *)(base + used + 4);
	d->avail_event = (uint16_t *)(base + used + 4 + 8 * d->size);
}

bool vd_start_legacy(
    struct vdriver *d, struct fake *f, unsigned slot, uint32_t features)
{
	memset(d, 0, sizeof(*d));
	d->f = f;
	d->slot = slot;
	d->io = (uint16_t)fake_bar(f, slot, 0);
	fake_out(f, d->io + 18, 1, 0);
	fake_out(f, d->io + 18, 1, 3);
	fake_out(f, d->io + 4, 4, features);
	fake_out(f, d->io + 14, 2, 0);
	d->size = fake_in(f, d->io + 12, 2);
	rings(d);
	fake_out(f, d->io + 8, 4, VD_RINGS >> 12);
	fake_out(f, d->io + 18, 1, 7);
	return fake_in(f, d->io + 8, 4) == VD_RINGS >> 12;
}

bool vd_start_modern(struct vdriver *d, struct fake *f, unsigned slot,
    uint64_t features, unsigned size)
{
	memset(d, 0, sizeof(*d));
	d->f = f;
	d->slot = slot;
	d->modern = true;
	d->mmio = fake_bar(f, slot, 4);
	fake_write(f, d->mmio + 0x14, 1, 0);
	fake_write(f, d->mmio + 0x14, 1, 3);
	for (unsigned i = 0; i < 2; i++) {
		fake_write(f, d->mmio + 0x08, 4, i);
		fake_write(f, d->mmio + 0x0c, 4, features >> (32 * i) & 0xffffffff);
	}
	fake_write(f, d->mmio + 0x14, 1, 11);
	if ((fake_read(f, d->mmio + 0x14, 1) & 8) == 0)
		return false;
	fake_write(f, d->mmio + 0x16, 2, 0);
	fake_write(f, d->mmio + 0x18, 2, size);
	d->size = (unsigned)fake_read(f, d->mmio + 0x18, 2);
	rings(d);
	uint64_t used =
	    VD_RINGS + (uint64_t)((uint8_t *)d->used16 - (uint8_t *)d->desc);

	fake_write(f, d->mmio + 0x20, 8, VD_RINGS);
	fake_write(f, d->mmio + 0x28, 4, VD_RINGS + 16 * d->size);
	fake_write(f, d->mmio + 0x2c, 4, 0);
	fake_write(f, d->mmio + 0x30, 8, used);
	fake_write(f, d->mmio + 0x1c, 2, 1);
	fake_write(f, d->mmio + 0x14, 1, 15);
	return fake_read(f, d->mmio + 0x1c, 2) == 1;
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
		fake_write(d->f, d->mmio + 0x3000, 2, 0);
	else
		fake_out(d->f, d->io + 16, 2, 0);
}

bool vd_wait_used(struct vdriver *d, uint16_t n)
{
	uint64_t end = event_now_ns() + UINT64_C(10000000000);

	while (*(volatile uint16_t *)&d->used16[1] != n && event_now_ns() < end)
		fake_poll(d->f);
	return d->used16[1] == n;
}
