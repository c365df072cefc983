/*
 * The port and MMIO buses. Ranges do not overlap; an unclaimed read is all
 * ones and an unclaimed write is dropped (both counted).
 *
 * A handler runs with the machine lock held unless the range was added with
 * BUS_UNLOCKED (handlers that do their own locking and are hot: LAPIC, PM timer).
 * size is 1, 2, 4 or 8 (MMIO only). off is relative to the range's start and
 * off + size never leaves the range. Wider values than size are masked by the bus.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef uint64_t bus_read_fn(void *arg, int vcpu, uint64_t off, unsigned size);
typedef void bus_write_fn(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t value);

#define BUS_UNLOCKED 1u

struct bus;
struct bus_stats {
	uint64_t reads, writes, unclaimed;
};

struct bus *bus_new(pthread_mutex_t *lock); /* NULL: no memory */
void bus_free(struct bus *bus);

/* 0, -EEXIST (overlap; nothing added), -ENOMEM. name appears in messages. */
int bus_add(struct bus *bus, const char *name, uint64_t base, uint64_t len,
    unsigned flags, bus_read_fn *read, bus_write_fn *write, void *arg);
/* The range that starts at base; no-op when there is none. Waits for readers. */
void bus_remove(struct bus *bus, uint64_t base);

/*
 * From any vCPU thread, without the machine lock. An access that straddles a
 * range's end is split into bytes. False: unclaimed (value all ones).
 */
bool bus_read(
    struct bus *bus, int vcpu, uint64_t addr, unsigned size, uint64_t *value);
bool bus_write(
    struct bus *bus, int vcpu, uint64_t addr, unsigned size, uint64_t value);
void bus_get_stats(const struct bus *bus, struct bus_stats *stats);
