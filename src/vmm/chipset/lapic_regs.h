/*
 * The local APIC's registers and state, shared by lapic.c, lapic_timer.c and
 * lapic_msr.c.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* xAPIC page offsets; x2APIC MSR = 0x800 + offset / 16. */
#define REG_ID      0x020u
#define REG_VERSION 0x030u
#define REG_TPR     0x080u
#define REG_APR     0x090u
#define REG_PPR     0x0a0u
#define REG_EOI     0x0b0u
#define REG_RRD     0x0c0u
#define REG_LDR     0x0d0u
#define REG_DFR     0x0e0u
#define REG_SVR     0x0f0u
#define REG_ISR     0x100u
#define REG_TMR     0x180u
#define REG_IRR     0x200u
#define REG_ESR     0x280u
#define REG_ICR     0x300u
#define REG_ICR_HI  0x310u
#define REG_TIMER   0x320u
#define REG_THERMAL 0x330u
#define REG_PERF    0x340u
#define REG_LINT0   0x350u
#define REG_LINT1   0x360u
#define REG_ERROR   0x370u
#define REG_ICOUNT  0x380u
#define REG_CCOUNT  0x390u
#define REG_DIVIDE  0x3e0u
#define REG_SELF    0x3f0u

/*
 * An integrated APIC with LVT entries up to ERROR. Suppressing EOI broadcasts
 * (bit 24) is not offered: the IOAPIC's version 0x11 has no EOI register.
 */
#define LAPIC_VERSION    0x00050014u

#define BASE_BSP         0x100u
#define BASE_EXTD        0x400u
#define BASE_EN          0x800u
#define BASE_RESET       UINT64_C(0xfee00000)

#define SVR_ENABLE       0x100u
#define LVT_MASKED       0x10000u
#define LVT_TIMER_MODE   0x60000u
#define LVT_ONESHOT      0x00000u
#define LVT_PERIODIC     0x20000u
#define LVT_TSC_DEADLINE 0x40000u

#define ESR_SEND_ILLEGAL 0x20u
#define ESR_RECV_ILLEGAL 0x40u
#define ESR_ILLEGAL_REG  0x80u

enum {
	MODE_FIXED,
	MODE_LOWEST,
	MODE_SMI,
	MODE_RESERVED,
	MODE_NMI,
	MODE_INIT,
	MODE_SIPI,
	MODE_EXTINT
};

enum lvt {
	LVT_TIMER,
	LVT_THERMAL,
	LVT_PERF,
	LVT_LINT0,
	LVT_LINT1,
	LVT_ERROR,
	LVT_COUNT
};

struct machine;
struct vcpu;

struct lapic {
	struct machine *m;
	struct vcpu *v;
	uint32_t id;
	bool x2apic_allowed;

	pthread_mutex_t lock; /* all below */
	uint64_t base;        /* IA32_APIC_BASE */
	uint32_t tpr, ldr, dfr, svr, esr, esr_pending, icr_lo, icr_hi;
	uint32_t lvt[LVT_COUNT];
	uint32_t isr[8], tmr[8], irr[8];

	/* Timer: the next expiry in CLOCK_MONOTONIC ns, 0 when stopped. */
	uint32_t icount, divide;
	uint64_t expiry;
	uint64_t tsc_deadline; /* guest TSC, 0: disarmed */

	/* What others may ask without the lock. */
	_Atomic uint64_t base_now;
	_Atomic bool takes_extint;
	_Atomic bool extint_sent; /* by the IOAPIC's message; until acknowledged */
};

/* lapic.c; lock held unless said otherwise. */
bool lapic_x2(const struct lapic *l);
/* Accepts a vector into IRR; true: the CPU should look. */
bool lapic_accept(struct lapic *l, uint8_t vector, bool level);
void lapic_error(struct lapic *l, uint32_t bits, bool *wake);
void lapic_update_shadow(struct lapic *l);
/* ICR was written: without the lock. */
void lapic_send_ipi(struct lapic *l, uint32_t lo, uint32_t dest);
/* Register access by xAPIC offset; false: no such register. */
bool lapic_reg_read(struct lapic *l, unsigned reg, uint32_t *v);

/* lapic_timer.c; lock held. */
/*
 * Expires what is due at now; returns how many timer interrupts to raise: 0 or 1.
 */
bool lapic_timer_expire(struct lapic *l, uint64_t now);
uint32_t lapic_timer_count(struct lapic *l, uint64_t now);
void lapic_timer_start(struct lapic *l, uint32_t count, uint64_t now);
void lapic_timer_set_divide(struct lapic *l, uint32_t v, uint64_t now);
void lapic_timer_set_lvt(struct lapic *l, uint32_t v);
void lapic_timer_set_tsc(struct lapic *l, uint64_t v);
uint64_t lapic_timer_next(struct lapic *l);
uint64_t lapic_guest_tsc(const struct lapic *l);
