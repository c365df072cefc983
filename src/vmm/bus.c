/*
 * Address decoding for ports and MMIO.
 *
 * Readers take no lock: they look a range up in an immutable sorted table and
 * copy what they found. A change publishes a new table and waits until nobody
 * looks at the old one. A handler that needs the machine lock is called only
 * after the table proved unchanged with that lock held, because a range can only be
 * changed with it held once vCPUs run; so bus_remove() inside a handler is fine.
 * A BUS_UNLOCKED handler runs inside its reader section: it must neither change
 * the bus nor take the machine lock.
 */
#include "vmm/bus.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/util.h"

#define SLOTS 65u /* one a vCPU, the last for everybody else */

struct range {
	uint64_t base, len;
	const char *name;
	unsigned flags;
	bus_read_fn *read;
	bus_write_fn *write;
	void *arg;
};

struct table {
	unsigned n;
	struct range r[];
};

struct slot { /* of one reader thread, on its own cache line */
	_Alignas(64) _Atomic uint32_t inside;
	_Atomic uint64_t reads, writes, unclaimed;
};

struct bus {
	pthread_mutex_t *lock;
	pthread_mutex_t change; /* serialises writers */
	struct table *_Atomic table;
	struct slot slot[SLOTS];
};

static struct slot *slot_of(struct bus *bus, int vcpu)
{
	return &bus->slot[vcpu >= 0 && (unsigned)vcpu < SLOTS - 1 ? (unsigned)vcpu
								  : SLOTS - 1];
}

static struct table *table_new(unsigned n)
{
	struct table *t = calloc(1, sizeof(*t) + n * sizeof(t->r[0]));

	if (t != NULL)
		t->n = n;
	return t;
}

struct bus *bus_new(pthread_mutex_t *lock)
{
	struct bus *bus = aligned_alloc(64, ROUND_UP(sizeof(*bus), 64));
	struct table *t = table_new(0);

	if (bus == NULL || t == NULL) {
		free(bus);
		free(t);
		return NULL;
	}
	memset(bus, 0, sizeof(*bus));
	bus->lock = lock;
	pthread_mutex_init(&bus->change, NULL);
	atomic_init(&bus->table, t);
	return bus;
}

void bus_free(struct bus *bus)
{
	if (bus == NULL)
		return;
	free(atomic_load(&bus->table));
	pthread_mutex_destroy(&bus->change);
	free(bus);
}

/* Publishes the new table and frees the old one when its readers are gone. */
static void replace(struct bus *bus, struct table *t)
{
	struct table *old = atomic_exchange(&bus->table, t);

	for (unsigned i = 0; i < SLOTS; i++)
		while (atomic_load(&bus->slot[i].inside) != 0)
			sched_yield();
	free(old);
}

/* Index of the first range that ends above addr. */
static unsigned lower(const struct table *t, uint64_t addr)
{
	unsigned lo = 0, hi = t->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (t->r[mid].base + (t->r[mid].len - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int bus_add(struct bus *bus, const char *name, uint64_t base, uint64_t len,
    unsigned flags, bus_read_fn *read, bus_write_fn *write, void *arg)
{
	int err = 0;

	if (len == 0 || base + (len - 1) < base)
		return -EINVAL;
	pthread_mutex_lock(&bus->change);
	const struct table *old = atomic_load(&bus->table);
	unsigned at = lower(old, base);

	if (at < old->n && old->r[at].base <= base + (len - 1)) {
		log_debug("%s at 0x%llx: the range belongs to %s", name,
		    (unsigned long long)base, old->r[at].name);
		err = -EEXIST;
		goto out;
	}
	struct table *t = table_new(old->n + 1);

	if (t == NULL) {
		err = -ENOMEM;
		goto out;
	}
	memcpy(t->r, old->r, at * sizeof(t->r[0]));
	t->r[at] = (struct range){ base, len, name, flags, read, write, arg };
	memcpy(t->r + at + 1, old->r + at, (old->n - at) * sizeof(t->r[0]));
	replace(bus, t);
out:
	pthread_mutex_unlock(&bus->change);
	return err;
}

void bus_remove(struct bus *bus, uint64_t base)
{
	pthread_mutex_lock(&bus->change);
	struct table *old = atomic_load(&bus->table);
	unsigned at = lower(old, base);

	if (at < old->n && old->r[at].base == base) {
		struct table *t = table_new(old->n - 1);

		if (t != NULL) {
			memcpy(t->r, old->r, at * sizeof(t->r[0]));
			memcpy(t->r + at, old->r + at + 1,
			    (t->n - at) * sizeof(t->r[0]));
			replace(bus, t);
		} else {
			log_error(
			    "no memory to remove %s from the bus", old->r[at].name);
		}
	}
	pthread_mutex_unlock(&bus->change);
}

enum hit { MISS, HIT, STRADDLES };

static enum hit find(
    const struct table *t, uint64_t addr, unsigned size, struct range *out)
{
	unsigned at = lower(t, addr);

	if (at == t->n || addr + (size - 1) < addr)
		return at == t->n ? MISS : STRADDLES;
	if (t->r[at].base > addr)
		return t->r[at].base <= addr + (size - 1) ? STRADDLES : MISS;
	if (size > t->r[at].len - (addr - t->r[at].base))
		return STRADDLES;
	*out = t->r[at];
	return HIT;
}

static uint64_t mask_of(unsigned size)
{
	return size >= 8 ? ~UINT64_C(0) : BIT64(size * 8) - 1;
}

static void call(const struct range *r, int vcpu, uint64_t addr, unsigned size,
    uint64_t *value, bool write)
{
	if (write && r->write != NULL)
		r->write(r->arg, vcpu, addr - r->base, size, *value);
	else if (!write && r->read != NULL)
		*value =
		    r->read(r->arg, vcpu, addr - r->base, size) & mask_of(size);
}

/* One access inside one range, or none. */
static enum hit access_once(struct bus *bus, struct slot *slot, int vcpu,
    uint64_t addr, unsigned size, uint64_t *value, bool write)
{
	for (;;) {
		struct range r;

		atomic_fetch_add(&slot->inside, 1);
		struct table *t = atomic_load(&bus->table);
		enum hit hit = find(t, addr, size, &r);

		if (hit == HIT && (r.flags & BUS_UNLOCKED))
			call(&r, vcpu, addr, size, value, write);
		atomic_fetch_sub(&slot->inside, 1);
		if (hit != HIT || (r.flags & BUS_UNLOCKED))
			return hit;

		pthread_mutex_lock(bus->lock);
		/* An equal pointer may be a new table: look the range up again. */
		struct range again;
		struct table *now;

		atomic_fetch_add(&slot->inside, 1);
		now = atomic_load(&bus->table);
		bool same = find(now, addr, size, &again) == HIT &&
			    again.base == r.base && again.arg == r.arg &&
			    again.read == r.read && again.write == r.write;
		atomic_fetch_sub(&slot->inside, 1);
		if (same)
			call(&r, vcpu, addr, size, value, write);
		pthread_mutex_unlock(bus->lock);
		if (same)
			return HIT;
	}
}

static bool access_bus(struct bus *bus, int vcpu, uint64_t addr, unsigned size,
    uint64_t *value, bool write)
{
	struct slot *slot = slot_of(bus, vcpu);
	enum hit hit = STRADDLES;
	bool claimed = false;

	atomic_fetch_add_explicit(
	    write ? &slot->writes : &slot->reads, 1, memory_order_relaxed);
	if (size == 0 || size > 8) {
		hit = MISS;
	} else {
		if (write)
			*value &= mask_of(size);
		else
			*value = mask_of(size);
		if ((size & (size - 1)) == 0)
			hit =
			    access_once(bus, slot, vcpu, addr, size, value, write);
	}
	claimed = hit == HIT;
	if (hit == STRADDLES) {
		uint64_t all = *value, got = 0;

		for (unsigned i = 0; i < size; i++) {
			uint64_t byte = write ? all >> (i * 8) & 0xff : 0xff;

			if (access_once(
				bus, slot, vcpu, addr + i, 1, &byte, write) == HIT)
				claimed = true;
			got |= (byte & 0xff) << (i * 8);
		}
		if (!write)
			*value = got;
	}
	if (!claimed)
		atomic_fetch_add_explicit(
		    &slot->unclaimed, 1, memory_order_relaxed);
	return claimed;
}

bool bus_read(
    struct bus *bus, int vcpu, uint64_t addr, unsigned size, uint64_t *value)
{
	*value = ~UINT64_C(0);
	return access_bus(bus, vcpu, addr, size, value, false);
}

bool bus_write(
    struct bus *bus, int vcpu, uint64_t addr, unsigned size, uint64_t value)
{
	return access_bus(bus, vcpu, addr, size, &value, true);
}

void bus_get_stats(const struct bus *bus, struct bus_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	for (unsigned i = 0; i < SLOTS; i++) {
		stats->reads += bus->slot[i].reads;
		stats->writes += bus->slot[i].writes;
		stats->unclaimed += bus->slot[i].unclaimed;
	}
}
