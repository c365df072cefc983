/*
 * The local APIC's timer (SDM vol. 3, 11.5.4): one-shot, periodic, TSC deadline.
 *
 * Nothing ticks: the timer is its next expiry on the host's monotonic clock and
 * the counter is computed when read. A periodic expiry moves on by whole periods,
 * so it never drifts, and a late one counts once however many periods were missed.
 * The deadline mode compares guest TSC values, so that a guest that writes its TSC
 * gets what it asked for.
 */
#include "vmm/chipset/lapic_regs.h"

#include "lib/util.h"
#include "vmm/clock.h"
#include "vmm/machine.h"

/* Look again this long before a far deadline; keeps conversions within 64 bits. */
#define FAR_NS UINT64_C(3600000000000)

static unsigned divisor(const struct lapic *l)
{
	unsigned code = (l->divide & 3) | (l->divide >> 1 & 4);

	return 1u << ((code + 1) & 7);
}

static uint32_t timer_mode(const struct lapic *l)
{
	return l->lvt[LVT_TIMER] & LVT_TIMER_MODE;
}

static uint64_t period(const struct lapic *l)
{
	return (uint64_t)l->icount * divisor(l) * (1000000000 / CLOCK_LAPIC_HZ);
}

uint64_t lapic_guest_tsc(const struct lapic *l)
{
	return clock_tsc() +
	       atomic_load_explicit(&l->v->link->tsc_offset, memory_order_relaxed);
}

bool lapic_timer_expire(struct lapic *l, uint64_t now)
{
	bool masked = l->lvt[LVT_TIMER] & LVT_MASKED;

	if (timer_mode(l) == LVT_TSC_DEADLINE) {
		if (l->tsc_deadline == 0 || lapic_guest_tsc(l) < l->tsc_deadline)
			return false;
		l->tsc_deadline = 0;
		return !masked;
	}
	if (l->expiry == 0 || now < l->expiry)
		return false;
	if (timer_mode(l) == LVT_PERIODIC && period(l) != 0)
		l->expiry += ((now - l->expiry) / period(l) + 1) * period(l);
	else
		l->expiry = 0;
	return !masked;
}

/* The caller has expired the timer up to now. */
uint32_t lapic_timer_count(struct lapic *l, uint64_t now)
{
	uint64_t tick = divisor(l) * (1000000000 / CLOCK_LAPIC_HZ);

	if (l->expiry <= now)
		return 0;
	return (uint32_t)MIN((l->expiry - now + tick - 1) / tick, l->icount);
}

void lapic_timer_start(struct lapic *l, uint32_t count, uint64_t now)
{
	if (timer_mode(l) == LVT_TSC_DEADLINE)
		return;
	l->icount = count;
	l->expiry = count == 0 ? 0 : now + period(l);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t v, uint64_t now)
{
	uint64_t left = lapic_timer_count(l, now);

	l->divide = v & 0xb;
	if (l->expiry != 0)
		l->expiry = now + left * divisor(l) * (1000000000 / CLOCK_LAPIC_HZ);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t v)
{
	uint32_t old = timer_mode(l);

	if ((v & LVT_TIMER_MODE) == LVT_TIMER_MODE) /* reserved */
		v &= ~LVT_TIMER_MODE;
	l->lvt[LVT_TIMER] = v;
	/* A change to or from deadline mode disarms (SDM vol. 3, 11.5.4.1). */
	if (timer_mode(l) != old &&
	    (old == LVT_TSC_DEADLINE || timer_mode(l) == LVT_TSC_DEADLINE)) {
		l->expiry = 0;
		l->icount = 0;
		l->tsc_deadline = 0;
	}
}

void lapic_timer_set_tsc(struct lapic *l, uint64_t v)
{
	if (timer_mode(l) == LVT_TSC_DEADLINE)
		l->tsc_deadline = v;
}

uint64_t lapic_timer_next(struct lapic *l)
{
	uint64_t now, tsc, left;

	if (l->lvt[LVT_TIMER] & LVT_MASKED)
		return 0;
	if (timer_mode(l) != LVT_TSC_DEADLINE)
		return l->expiry;
	if (l->tsc_deadline == 0)
		return 0;
	now = clock_ns();
	tsc = lapic_guest_tsc(l);
	if (tsc >= l->tsc_deadline)
		return now;
	left = l->tsc_deadline - tsc;
	if (left / l->m->tsc_hz >= FAR_NS / 1000000000)
		return now + FAR_NS;
	return now + clock_muldiv(left, 1000000000, l->m->tsc_hz) + 1;
}
