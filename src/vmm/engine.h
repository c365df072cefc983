/*
 * The seam between the machine and what executes guest instructions.
 * The machine knows of an engine only this; the engine knows of the machine
 * only struct engine_host. One engine per VM, one engine_vcpu per vCPU.
 *
 * Threads: run() is called by the vCPU's own thread; notify() by any thread;
 * get/set_state only while that vCPU is outside run().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/util.h"

struct config;
struct memory;
struct vcpu_state;

/*
 * Reasons for a vCPU to look up, kept in vcpu_link.events. The engine polls the
 * word where it may be interrupted; 0 = nothing to do.
 */
#define EV_INTR    BIT(0) /* LAPIC or PIC may have an interrupt: ask intr_ack() */
#define EV_NMI     BIT(1) /* deliver one NMI when not blocked (engine clears) */
#define EV_INIT    BIT(2) /* machine's: makes run() return ENGINE_KICKED */
#define EV_SIPI    BIT(3) /* machine's */
#define EV_TIMER   BIT(4) /* machine's: the LAPIC timer's deadline passed */
#define EV_STOP    BIT(5) /* machine's: leave the run loop */
#define EV_PAUSE   BIT(6) /* machine's: hold at an instruction boundary */
#define EV_ENGINE  BIT(7) /* engine-private */
#define EV_MACHINE (EV_INIT | EV_SIPI | EV_TIMER | EV_STOP | EV_PAUSE)

/*
 * First member of the engine's vCPU, so that generated code reaches it at a
 * fixed place. Set bits only through vcpu_notify() (vmm/machine.h).
 */
struct vcpu_link {
	_Atomic uint32_t events;
	_Atomic uint32_t sleeping; /* the thread waits on events in a futex */
	/* Guest TSC - host TSC, kept up to date by the engine. */
	_Atomic uint64_t tsc_offset;
};

enum engine_exit {
	ENGINE_KICKED,   /* an EV_MACHINE bit is set (the machine clears it) */
	ENGINE_HALT,     /* RIP is past a HLT: wait for events, then run again */
	ENGINE_SHUTDOWN, /* triple fault */
	ENGINE_ERROR,    /* cannot go on; logged */
	ENGINE_DEBUG,    /* at a debugger's point, or its step is done */
};

/* What a debugger may have run() stop at. */
enum engine_point {
	POINT_EXECUTE, /* before the instruction that begins there */
	POINT_WRITE,   /* behind one that stored there */
	POINT_READ,
	POINT_ACCESS, /* either */
	POINT_NONE,
};

/* What an engine may ask of the machine. cpu is the vCPU's number. */
struct engine_host {
	void *arg;
	uint64_t (*io_read)(void *arg, int cpu, uint16_t port, unsigned size);
	void (*io_write)(
	    void *arg, int cpu, uint16_t port, unsigned size, uint64_t v);
	uint64_t (*mmio_read)(void *arg, int cpu, uint64_t gpa, unsigned size);
	void (*mmio_write)(
	    void *arg, int cpu, uint64_t gpa, unsigned size, uint64_t v);
	/*
	 * MSRs that belong to the machine: APIC base, x2APIC 0x800-0x8ff, TSC
	 * deadline. 0, or -EINVAL: #GP; -ENOENT: not the machine's (the engine's
	 * own rules apply).
	 */
	int (*msr_read)(void *arg, int cpu, uint32_t msr, uint64_t *v);
	int (*msr_write)(void *arg, int cpu, uint32_t msr, uint64_t v);
	uint8_t (*cr8_read)(void *arg, int cpu);
	void (*cr8_write)(void *arg, int cpu, uint8_t v);
	/* Highest deliverable vector, taken into service; -1: none (any more). */
	int (*intr_ack)(void *arg, int cpu);
	/* Whether intr_ack() would deliver. */
	bool (*intr_pending)(void *arg, int cpu);
};

struct engine_config {
	struct memory *mem;
	const struct engine_host *host;
	unsigned ncpu;
	unsigned sockets, cores, threads; /* product = ncpu */
	uint64_t tsc_hz;
	bool x2apic;     /* the guest may switch to x2APIC */
	bool strict_msr; /* unknown MSR: #GP, else reads 0 and ignores writes */
	bool hlt_exit;   /* informational: engines always sleep in HLT */
	const struct config *cfg; /* the engine's own keys: cpu.tier ... */
};

struct engine;
struct engine_vcpu;

typedef void engine_stat_fn(void *arg, const char *name, uint64_t value);

struct engine_ops {
	const char *name; /* "soft", "kvm" */
	/* 0 or -errno (logged). */
	int (*create)(struct engine **e, const struct engine_config *cfg);
	void (*destroy)(struct engine *e);
	int (*vcpu_create)(struct engine *e, unsigned id, struct engine_vcpu **cpu,
	    struct vcpu_link **link);
	/* Runs guest code until there is something for the machine to do. */
	enum engine_exit (*run)(struct engine_vcpu *cpu);
	void (*get_state)(struct engine_vcpu *cpu, struct vcpu_state *s);
	/* 0 or -EINVAL (state no CPU can be in). Drops every cached translation. */
	int (*set_state)(struct engine_vcpu *cpu, const struct vcpu_state *s);
	/* Guest-linear to guest-physical for debuggers; 0 or -EFAULT. */
	int (*translate)(struct engine_vcpu *cpu, uint64_t gla, uint64_t *gpa);
	/*
	 * For debuggers, unseen by the guest; every vCPU outside run(). An engine
	 * without leaves all three NULL.
	 * point(): run() of any vCPU returns ENGINE_DEBUG at [gla, gla + len); len
	 * is ignored for POINT_EXECUTE. 0, -EEXIST, -ENOENT, -ENOSPC.
	 */
	int (*point)(struct engine *e, enum engine_point kind, uint64_t gla,
	    uint64_t len, bool set);
	/*
	 * run() returns ENGINE_DEBUG after one instruction, or at the first one of
	 * the handler of what that raised. Interrupts wait meanwhile, unless the
	 * vCPU is halted: then the one that wakes it is the step.
	 */
	void (*step)(struct engine_vcpu *cpu, bool on);
	/* What the last ENGINE_DEBUG was for; POINT_NONE: a step. */
	enum engine_point (*stopped_at)(struct engine_vcpu *cpu, uint64_t *gla);
	void (*stats)(struct engine_vcpu *cpu, engine_stat_fn *fn, void *arg);
	/* The engine's vCPU thread starts / ends: per-thread set-up. */
	int (*thread_start)(struct engine_vcpu *cpu);
	void (*thread_stop)(struct engine_vcpu *cpu);
};

extern const struct engine_ops engine_soft;
