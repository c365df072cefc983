/*
 * Split virtqueues (virtio 1.2 ch. 2.7).
 *
 * The guest may write to the rings and descriptors at any time, so each value is
 * read once, into a local, and then checked. A ring's sizes and addresses are
 * fixed from vq_enable() to vq_disable(). What the guest does wrong ends in
 * virtio_broken(): no host memory is taken for a chain beyond what the caller
 * gave, and no chain can be longer than the ring.
 */
#include <errno.h>
#include <string.h>

#include "bhyve/virtio/virtio.h"
#include "vmm/machine.h"

#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u
#define NO_INTERRUPT  1u
#define LEGACY_PAGE   4096u

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static uint16_t load16(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static void store16(uint8_t *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)p, v, __ATOMIC_RELEASE);
}

/* One copy of what the guest may change under our eyes. */
static struct desc load_desc(const uint8_t *table, unsigned i)
{
	const volatile uint64_t *p =
	    (const volatile uint64_t *)(const void *)(table + i * 16);
	uint64_t raw[2] = { p[0], p[1] };
	struct desc d;

	memcpy(&d, raw, sizeof(d));
	return d;
}

static uint64_t avail_len(const struct virtq *q)
{
	return 6 + 2 * (uint64_t)q->size;
}

static uint64_t used_len(const struct virtq *q)
{
	return 6 + 8 * (uint64_t)q->size;
}

void vq_set_legacy(struct virtq *q, uint32_t pfn)
{
	q->size = q->max;
	q->desc_gpa = (uint64_t)pfn * LEGACY_PAGE;
	q->avail_gpa = q->desc_gpa + 16 * (uint64_t)q->size;
	q->used_gpa = ROUND_UP(q->avail_gpa + avail_len(q), (uint64_t)LEGACY_PAGE);
}

int vq_enable(struct virtq *q)
{
	struct memory *mem = &q->dev->pci->m->mem;

	vq_disable(q);
	if (q->size == 0 || q->size > q->max || (q->size & (q->size - 1)) != 0 ||
	    (q->desc_gpa & 15) != 0 || (q->avail_gpa & 1) != 0 ||
	    (q->used_gpa & 3) != 0)
		return -EINVAL;
	q->desc = memory_ptr(mem, q->desc_gpa, 16 * (uint64_t)q->size);
	q->avail = memory_ptr(mem, q->avail_gpa, avail_len(q));
	q->used = memory_ptr(mem, q->used_gpa, used_len(q));
	if (q->desc == NULL || q->avail == NULL || q->used == NULL)
		return -EINVAL;
	q->last_avail = q->used_idx = q->signalled_used = q->filled = 0;
	q->signalled_valid = false;
	q->enabled = true;
	return 0;
}

void vq_disable(struct virtq *q)
{
	q->enabled = false;
	q->broken = false;
	q->desc = q->avail = NULL;
	q->used = NULL;
	q->inflight = 0;
	q->generation++;
}

static bool event_idx(const struct virtq *q)
{
	return (q->dev->features & VIRTIO_F_EVENT_IDX) != 0;
}

/* The available index; when nothing new is there, with a kick asked for. */
static uint16_t avail_index(struct virtq *q)
{
	uint16_t idx = load16(q->avail + 2);

	if (idx == q->last_avail && event_idx(q)) {
		/* Ask for a kick at the next one, then look again. */
		store16(q->used + 4 + 8 * q->size, q->last_avail);
		pci_dma_written(q->dev->pci, q->used_gpa + 4 + 8 * q->size, 2);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		idx = load16(q->avail + 2);
	}
	return idx;
}

bool vq_pending(struct virtq *q)
{
	return q->enabled && !q->broken && pci_bus_master(q->dev->pci) &&
	       avail_index(q) != q->last_avail;
}

/* Takes the next head off the available ring. False: there is none. */
static bool next_head(struct virtq *q, uint16_t *head)
{
	uint16_t idx = avail_index(q);

	if (idx == q->last_avail)
		return false;
	if ((uint16_t)(idx - q->last_avail) > q->size) {
		virtio_broken(
		    q->dev, q, "the available index jumped by more than the ring");
		return false;
	}
	/*
	 * Else one chain in the ring twice could hold more than a ring of requests.
	 */
	if (q->inflight >= q->size) {
		virtio_broken(
		    q->dev, q, "more chains are outstanding than the ring holds");
		return false;
	}
	*head = load16(q->avail + 4 + 2 * (q->last_avail & (q->size - 1)));
	if (*head >= q->size) {
		virtio_broken(q->dev, q, "a chain's head is outside the ring");
		return false;
	}
	q->last_avail++;
	return true;
}

/* Adds one buffer to the chain. NULL, or what is wrong with it. */
static const char *add_buffer(
    struct virtq *q, struct virtq_chain *c, const struct desc *d)
{
	bool write = (d->flags & DESC_WRITE) != 0;
	unsigned n = c->nread + c->nwrite;
	void *p;

	if (!write && c->nwrite > 0)
		return "a readable buffer follows a writable one";
	if (d->len == 0)
		return NULL;
	if (n >= c->max)
		return "a chain has more buffers than the device takes";
	p = memory_ptr(&q->dev->pci->m->mem, d->addr, d->len);
	if (p == NULL)
		return "a buffer is not in memory";
	c->iov[n].iov_base = p;
	c->iov[n].iov_len = d->len;
	c->gpa[n] = d->addr;
	if (write) {
		c->nwrite++;
		c->write_len += d->len;
	} else {
		c->nread++;
		c->read_len += d->len;
	}
	return NULL;
}

/*
 * Follows descriptors from index i of a table of n entries. seen counts them over
 * the whole chain and bounds loops.
 */
static const char *walk(struct virtq *q, struct virtq_chain *c,
    const uint8_t *table, unsigned n, unsigned i, unsigned *seen, bool indirect)
{
	for (;;) {
		struct desc d;
		const char *why;

		if (i >= n)
			return "a descriptor's index is outside the table";
		if (++*seen > q->size)
			return "a chain is longer than the ring, or loops";
		d = load_desc(table, i);
		if ((d.flags & DESC_INDIRECT) != 0) {
			const uint8_t *inner;

			if (indirect)
				return "an indirect table refers to another";
			if ((q->dev->features & VIRTIO_F_INDIRECT_DESC) == 0)
				return "an indirect table, though not negotiated";
			if ((d.flags & DESC_NEXT) != 0)
				return "a descriptor is indirect and has a next";
			if (d.len == 0 || d.len % 16 != 0)
				return "an indirect table's length is not a "
				       "multiple of 16";
			inner = memory_ptr(&q->dev->pci->m->mem, d.addr, d.len);
			if (inner == NULL || (d.addr & 7) != 0)
				return "an indirect table is not in memory";
			--*seen; /* the reference is not a buffer */
			return walk(q, c, inner, d.len / 16, 0, seen, true);
		}
		why = add_buffer(q, c, &d);
		if (why != NULL || (d.flags & DESC_NEXT) == 0)
			return why;
		i = d.next;
	}
}

bool vq_pop(struct virtq *q, struct virtq_chain *c)
{
	const char *why;
	unsigned seen = 0;

	if (!q->enabled || q->broken || !pci_bus_master(q->dev->pci))
		return false;
	if (!next_head(q, &c->head))
		return false;
	c->generation = q->generation;
	c->nread = c->nwrite = 0;
	c->read_len = c->write_len = 0;
	why = walk(q, c, q->desc, q->size, c->head, &seen, false);
	if (why != NULL) {
		virtio_broken(q->dev, q, why);
		return false;
	}
	q->inflight++;
	return true;
}

void vq_fill(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	uint32_t elem[2] = { c->head, written };
	unsigned at = 4 + 8 * ((q->used_idx + q->filled) & (q->size - 1u));

	/* The ring it came from is gone. */
	if (!q->enabled || c->generation != q->generation)
		return;
	q->inflight--;
	q->filled++;
	memcpy(q->used + at, elem, sizeof(elem));
	pci_dma_written(q->dev->pci, q->used_gpa + at, sizeof(elem));
}

void vq_publish(struct virtq *q)
{
	if (!q->enabled || q->filled == 0)
		return;
	q->used_idx = (uint16_t)(q->used_idx + q->filled);
	q->filled = 0;
	store16(q->used + 2, q->used_idx);
	pci_dma_written(q->dev->pci, q->used_gpa, 4);
}

void vq_push(struct virtq *q, const struct virtq_chain *c, uint32_t written)
{
	vq_fill(q, c, written);
	vq_publish(q);
}

/* Whether the driver wants to hear of what was pushed since the last time. */
static bool wants_interrupt(struct virtq *q)
{
	uint16_t old = q->signalled_used, new = q->used_idx, event;

	/* The driver's wish must be read after it could see our index. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if ((q->dev->features & VIRTIO_F_NOTIFY_ON_EMPTY) != 0 &&
	    q->inflight == 0 && load16(q->avail + 2) == q->last_avail)
		return true;
	if (!event_idx(q))
		return (load16(q->avail) & NO_INTERRUPT) == 0;
	if (!q->signalled_valid)
		return true;
	event = load16(q->avail + 4 + 2 * q->size);
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

void vq_notify(struct virtq *q)
{
	if (!q->enabled ||
	    (q->signalled_valid && q->signalled_used == q->used_idx) ||
	    (!q->signalled_valid && q->used_idx == 0))
		return;
	bool wants = wants_interrupt(q);

	q->signalled_used = q->used_idx;
	q->signalled_valid = true;
	if (wants)
		virtio_interrupt(q->dev, q->vector, 1);
}

uint64_t vq_read(const struct virtq_chain *c, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *to = buf;
	uint64_t done = 0;

	for (unsigned i = 0; i < c->nread && done < len; i++) {
		uint64_t have = c->iov[i].iov_len, n;

		if (off >= have) {
			off -= have;
			continue;
		}
		n = MIN(have - off, len - done);
		memcpy(to + done, (const uint8_t *)c->iov[i].iov_base + off, n);
		done += n;
		off = 0;
	}
	return done;
}

uint64_t vq_write(struct virtq *q, const struct virtq_chain *c, uint64_t off,
    const void *buf, uint64_t len)
{
	const uint8_t *from = buf;
	uint64_t done = 0;

	for (unsigned i = c->nread; i < c->nread + c->nwrite && done < len; i++) {
		uint64_t have = c->iov[i].iov_len, n;

		if (off >= have) {
			off -= have;
			continue;
		}
		n = MIN(have - off, len - done);
		memcpy((uint8_t *)c->iov[i].iov_base + off, from + done, n);
		pci_dma_written(q->dev->pci, c->gpa[i] + off, n);
		done += n;
		off = 0;
	}
	return done;
}
