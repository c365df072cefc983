/*
 * The VM as one struct: memory, buses, vCPUs, chipset, event loop. Everything
 * a device may need is reached from here; there is no other global state.
 *
 * Locks, outermost first: machine.lock guards all device and chipset state and
 * is held by the event loop's callbacks and by bus handlers (unless
 * BUS_UNLOCKED). Inside it the 8259 pair, the IOAPIC and each LAPIC have locks
 * of their own, taken in that order, because vCPU threads reach them without
 * the machine's lock (acknowledge, EOI, IPIs); none of them is held while
 * another of the same kind is taken. machine_sync's lock is a leaf. Never call into
 * the engine's run() or wait for a vCPU with any of them held.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "vmm/engine.h"
#include "vmm/memory.h"
#include "vmm/state.h"

#define MACHINE_MAX_CPUS 64
#define MACHINE_GSIS     32 /* IOAPIC pins; 0-15 also reach the 8259 pair */

enum suspend_reason { /* values are bhyve's */
	SUSPEND_NONE,
	SUSPEND_RESET,
	SUSPEND_POWEROFF,
	SUSPEND_HALT,
	SUSPEND_TRIPLEFAULT,
	SUSPEND_DESTROY,
	SUSPEND_ERROR,
	SUSPEND_TESTDEV, /* ours: the guest wrote pc-testdev's exit port */
};

struct bus;
struct config;
struct event_loop;
struct machine_sync; /* private to machine.c and vcpu.c */
struct hpet;
struct ioapic;
struct lapic;
struct pic;
struct pit;
struct pm;
struct rtc;

struct vcpu_stats {
	_Atomic uint64_t halts, intr, nmi, io_reads, io_writes, mmio_reads,
	    mmio_writes, msr_reads, msr_writes, ipis, idle_ns;
};

struct vcpu {
	struct machine *m;
	unsigned id;
	struct lapic *lapic;
	struct engine_vcpu *engine;
	struct vcpu_link *link;
	struct vcpu_stats stats;
	pthread_t thread;
	_Atomic uint32_t run_state; /* enum vcpu_activity */
	_Atomic uint8_t sipi_vector;
	/*
	 * Private to vcpu_timer.c: the timer that interrupts guest code, and when
	 * it is due.
	 */
	timer_t timer;
	uint64_t timer_armed;
	bool running; /* inside the engine's run() */
	bool created; /* thread is valid */
	bool parked;  /* by the debugger: held even when others are let go */
	bool stopped; /* at a point, or after a step, since its last order */
};

struct machine {
	struct config *cfg;
	pthread_mutex_t lock;
	struct event_loop *loop;
	struct memory mem;
	struct bus *io, *mmio;

	const struct engine_ops *ops;
	struct engine *engine;
	unsigned ncpu, sockets, cores, threads;
	struct vcpu *vcpu;
	uint64_t tsc_hz;

	struct ioapic *ioapic;
	struct pic *pic;
	struct pit *pit;
	struct hpet *hpet;
	struct rtc *rtc;
	struct pm *pm;

	_Atomic uint32_t suspend; /* enum suspend_reason */
	bool strict_io;
	uint64_t start_ns;
	struct machine_sync *sync;
};

/*
 * Builds memory, buses, engine, vCPUs (reset state) and chipset from the keys of
 * bhyve_config(5). Errors are logged. 0 or -errno. cfg outlives the machine.
 */
int machine_create(
    struct machine **m, struct config *cfg, const struct engine_ops *ops);
/* After run() has returned. */
void machine_destroy(struct machine *m);
/*
 * Starts the vCPU threads (vCPU 0 in the state set with vcpu_set_state, others
 * as their state says), runs the event loop in the calling thread until the
 * machine is suspended, joins the threads. Returns why.
 */
enum suspend_reason machine_run(struct machine *m);
/* Any thread, with or without the lock; the first reason wins. */
void machine_suspend(struct machine *m, enum suspend_reason why);

/* vCPU outside run() (before machine_run, or between pause and resume). */
int vcpu_set_state(struct vcpu *v, const struct vcpu_state *s);
void vcpu_get_state(struct vcpu *v, struct vcpu_state *s);
/* Any thread: sets EV_ bits and wakes or interrupts the vCPU. */
void vcpu_notify(struct vcpu *v, uint32_t events);
/* The LAPIC timer's deadline changed; from the vCPU's own thread. */
void vcpu_timer_changed(struct vcpu *v);
/*
 * Brings every vCPU to an instruction boundary and holds it there / lets go.
 * From the event loop's thread, WITHOUT the machine lock (a vCPU may need it to
 * reach the boundary). Nests.
 */
void machine_pause(struct machine *m);
void machine_resume(struct machine *m);
/*
 * For a debugger, in the event loop's thread. -ENOTSUP: the engine has no part for
 * it. stopped() is called in the loop after a vCPU has come to a point or to the
 * end of a step; that vCPU is held. Before machine_run().
 */
int machine_set_debugger(struct machine *m, void (*stopped)(void *arg), void *arg);
enum vcpu_order { VCPU_STAY, VCPU_GO, VCPU_STEP };
/* Between pause and resume: what the vCPU does after machine_resume(). */
void vcpu_order(struct vcpu *v, enum vcpu_order order);
/* Whether it has come to a stop by itself since its last order. */
bool vcpu_stopped(struct vcpu *v);

/*
 * Interrupt lines; machine lock held. gsi < MACHINE_GSIS; level true = asserted
 * (active), whatever the electrical polarity. Shared lines: the caller ORs.
 */
void machine_irq(struct machine *m, unsigned gsi, bool level);
/*
 * ISA interrupt numbers: 0 goes to IOAPIC pin 2, others to the same pin; and to the
 * 8259.
 */
void machine_isa_irq(struct machine *m, unsigned irq, bool level);
/* Interrupt 0 or 8: n ticks of a periodic timer, see ioapic_tick(). */
void machine_isa_tick(struct machine *m, unsigned irq, unsigned n);
/* A message-signalled interrupt as the device wrote it. Any thread. */
void machine_msi(struct machine *m, uint64_t addr, uint32_t data);
