/*
 * The MSRs of the local APIC: IA32_APIC_BASE with its mode transitions, the
 * x2APIC registers and the TSC deadline (SDM vol. 3, 11.12). Reserved bits, missing
 * registers and writes to read-only ones are #GP, as there.
 */
#include "vmm/chipset/chipset.h"

#include <errno.h>

#include "vmm/chipset/lapic_regs.h"
#include "vmm/clock.h"
#include "vmm/machine.h"

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC       0x800u
#define MSR_X2APIC_END   0x8ffu

/* CPUID 0x80000008 tells guests no fewer; wider addresses reach no MMIO of ours. */
#define BASE_ADDR UINT64_C(0x000ffffffffff000)

static int base_write(struct lapic *l, uint64_t v)
{
	int err = -EINVAL;

	pthread_mutex_lock(&l->lock);
	bool was_x2 = l->base & BASE_EXTD, was_on = l->base & BASE_EN;
	bool x2 = v & BASE_EXTD, on = v & BASE_EN;

	if ((v & ~(BASE_ADDR | BASE_BSP | BASE_EXTD | BASE_EN)) != 0 ||
	    (x2 && (!l->x2apic_allowed || !on || !was_on)) || (was_x2 && on && !x2))
		goto out;
	/* A disabled APIC forgets its state: what comes back is as after reset. */
	l->base = (v & ~(uint64_t)BASE_BSP) | (l->base & BASE_BSP);
	if (was_on && !on) {
		l->svr &= ~SVR_ENABLE;
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->lvt[i] = LVT_MASKED;
		for (unsigned i = 0; i < 8; i++)
			l->isr[i] = l->irr[i] = l->tmr[i] = 0;
		l->tpr = l->icount = 0;
		l->expiry = l->tsc_deadline = 0;
	}
	if (x2 && !was_x2)
		l->icr_hi = 0;
	lapic_update_shadow(l);
	err = 0;
out:
	pthread_mutex_unlock(&l->lock);
	if (err == 0) {
		vcpu_notify(l->v, EV_INTR);
		vcpu_timer_changed(l->v);
	}
	return err;
}

static bool in_x2apic(struct lapic *l)
{
	return atomic_load_explicit(&l->base_now, memory_order_relaxed) & BASE_EXTD;
}

static int x2_read(struct lapic *l, unsigned reg, uint64_t *v)
{
	uint32_t low;
	bool ok;

	switch (reg) {
	case REG_CCOUNT:
		*v = lapic_read(l, reg);
		return 0;
	case REG_EOI:
	case REG_SELF:
	case REG_ICR_HI:
		return -EINVAL;
	default:
		break;
	}
	pthread_mutex_lock(&l->lock);
	ok = lapic_reg_read(l, reg, &low);
	*v = reg == REG_ICR ? (uint64_t)l->icr_hi << 32 | low : low;
	pthread_mutex_unlock(&l->lock);
	return ok ? 0 : -EINVAL;
}

/* Bits software may set in each writable register, 0: not writable. */
static uint64_t x2_writable(unsigned reg)
{
	switch (reg) {
	case REG_TPR:
		return 0xff;
	case REG_SVR:
		return 0x3ff;
	case REG_ICR:
		return UINT64_C(0xffffffff000ccfff);
	case REG_TIMER:
		return 0x700ff;
	case REG_THERMAL:
	case REG_PERF:
		return 0x107ff;
	case REG_LINT0:
	case REG_LINT1:
		return 0x1a7ff;
	case REG_ERROR:
		return 0x100ff;
	case REG_ICOUNT:
		return UINT32_MAX;
	case REG_DIVIDE:
		return 0xb;
	case REG_SELF:
		return 0xff;
	default:
		return 0;
	}
}

/* Read-only status bits of the LVTs: writable in the MSR, without effect. */
static uint64_t x2_ignored(unsigned reg)
{
	if (reg == REG_LINT0 || reg == REG_LINT1)
		return 0x5000;
	if (reg == REG_ICR || (reg >= REG_TIMER && reg <= REG_ERROR))
		return 0x1000;
	return 0;
}

static int x2_write(struct lapic *l, unsigned reg, uint64_t v)
{
	if (reg == REG_EOI || reg == REG_ESR) {
		if (v != 0)
			return -EINVAL;
		lapic_write(l, reg, 0);
		return 0;
	}
	if (x2_writable(reg) == 0 ||
	    (v & ~(x2_writable(reg) | x2_ignored(reg))) != 0)
		return -EINVAL;
	switch (reg) {
	case REG_ICR:
		pthread_mutex_lock(&l->lock);
		l->icr_lo = (uint32_t)v & 0xccfff;
		l->icr_hi = (uint32_t)(v >> 32);
		pthread_mutex_unlock(&l->lock);
		lapic_send_ipi(l, (uint32_t)v, (uint32_t)(v >> 32));
		return 0;
	case REG_SELF:
		lapic_send_ipi(l, (uint32_t)v | 1u << 18, 0);
		return 0;
	default:
		lapic_write(l, reg, (uint32_t)v);
		return 0;
	}
}

int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *v)
{
	bool wake = false;

	switch (msr) {
	case MSR_APIC_BASE:
		*v = atomic_load_explicit(&l->base_now, memory_order_relaxed);
		return 0;
	case MSR_TSC_DEADLINE:
		pthread_mutex_lock(&l->lock);
		if (lapic_timer_expire(l, clock_ns()))
			wake = lapic_accept(l, (uint8_t)l->lvt[LVT_TIMER], false);
		*v = l->tsc_deadline;
		pthread_mutex_unlock(&l->lock);
		if (wake)
			vcpu_notify(l->v, EV_INTR);
		return 0;
	default:
		break;
	}
	if (msr < MSR_X2APIC || msr > MSR_X2APIC_END)
		return -ENOENT;
	if (!in_x2apic(l) || msr - MSR_X2APIC > 0x3f)
		return -EINVAL;
	return x2_read(l, (msr - MSR_X2APIC) * 16, v);
}

int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t v)
{
	switch (msr) {
	case MSR_APIC_BASE:
		return base_write(l, v);
	case MSR_TSC_DEADLINE:
		pthread_mutex_lock(&l->lock);
		lapic_timer_set_tsc(l, v);
		pthread_mutex_unlock(&l->lock);
		vcpu_timer_changed(l->v);
		return 0;
	default:
		break;
	}
	if (msr < MSR_X2APIC || msr > MSR_X2APIC_END)
		return -ENOENT;
	if (!in_x2apic(l) || msr - MSR_X2APIC > 0x3f)
		return -EINVAL;
	return x2_write(l, (msr - MSR_X2APIC) * 16, v);
}
