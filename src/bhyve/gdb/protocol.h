/*
 * GDB's remote serial protocol, all-stop mode: what a client says, done to a target
 * that knows nothing of packets. vCPU n is thread n + 1.
 *
 * Between the client's "go on" and the next stop the target runs; then only
 * Control-C, "k" and "D" are listened to. The client's breakpoints are remembered,
 * so that a client that goes away leaves none behind.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/machine.h"

struct gdb_target {
	void *arg;
	unsigned ncpu; /* at most MACHINE_MAX_CPUS */
	/* All vCPUs stand still when it returns. */
	void (*stop)(void *arg);
	/* order[ncpu] */
	void (*resume)(void *arg, const enum vcpu_order *order);
	void (*kill)(void *arg);
	/* Whether the vCPU stopped by itself, and for what. */
	bool (*stopped)(
	    void *arg, unsigned cpu, enum engine_point *kind, uint64_t *gla);
	void (*read_regs)(void *arg, unsigned cpu, struct vcpu_state *s);
	/* 0 or -EINVAL: no CPU can be in that state. */
	int (*write_regs)(void *arg, unsigned cpu, const struct vcpu_state *s);
	/*
	 * Through the vCPU's page tables; may end early: how many bytes. read: into
	 * buf, else from it.
	 */
	size_t (*memory)(void *arg, unsigned cpu, uint64_t gla, void *buf,
	    size_t len, bool read);
	/* 0 or -errno, see engine.h. */
	int (*point)(void *arg, enum engine_point kind, uint64_t gla, uint64_t len,
	    bool set);
	/* What a thread is called. */
	void (*describe)(void *arg, unsigned cpu, char *text, size_t size);
	void (*send)(void *arg, const char *bytes, size_t len);
};

struct gdb;

/* NULL: no memory. The target outlives it. */
struct gdb *gdb_new(const struct gdb_target *target);
void gdb_free(struct gdb *g);
/* A client has come: everything stops. */
void gdb_attach(struct gdb *g);
/* It has gone: its breakpoints go, the guest goes on. */
void gdb_detach(struct gdb *g);
/* Whether it has gone by saying so. */
bool gdb_detached(const struct gdb *g);
/*
 * Bytes from the client, up to the one that made an answer; how many were taken.
 * More when the answer is sent.
 */
size_t gdb_input(struct gdb *g, const uint8_t *bytes, size_t len);
/* A vCPU may have stopped by itself. */
void gdb_target_stopped(struct gdb *g);
