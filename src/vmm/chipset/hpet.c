/*
 * IA-PC HPET 1.0a: 8 timers at 2^24 Hz, 64 bits, periodic, level or edge, legacy
 * replacement routing; no FSB delivery.
 *
 * The main counter is a function of the host's monotonic clock while it is enabled.
 * A timer whose interrupt is enabled has an event-loop timer set to its next match;
 * the matches of others are counted when somebody looks. When it runs late the
 * comparator moves on by whole periods, and edges missed come one after another
 * (chipset.h); a level tells software to look at the counter.
 */
#include <errno.h>
#include <stdlib.h>

#include "lib/event.h"
#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/clock.h"
#include "vmm/machine.h"

#define HPET_BASE      UINT64_C(0xfed00000)
#define HPET_LEN       0x400u
#define HPET_HZ        (1u << 24)
#define HPET_PERIOD_FS 59604645u /* 10^15 / 2^24, rounded */
#define HPET_TIMERS    8u

/* Rev 1, 8 timers, 64-bit counter, legacy replacement, vendor. */
#define CAP_LOW     (0x80860000u | 0x8000u | 0x2000u | (HPET_TIMERS - 1) << 8 | 1u)

#define CFG_ENABLE  0x1u
#define CFG_LEGACY  0x2u

#define TN_LEVEL    0x0002u
#define TN_ENABLE   0x0004u
#define TN_PERIODIC 0x0008u
#define TN_CAPS     0x0030u /* can be periodic, has 64 bits */
#define TN_VAL_SET  0x0040u
#define TN_32BIT    0x0100u
#define TN_ROUTE    0x3e00u
#define TN_WRITABLE                                                                \
	(TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_VAL_SET | TN_32BIT | TN_ROUTE)
/* IOAPIC pins a timer may use; outside legacy mode. */
#define ROUTES 0x00f00000u

/* A guest may ask for more than the event loop should bear. */
#define MIN_INTERVAL_NS UINT64_C(20000)
#define FAR_TICKS       ((uint64_t)HPET_HZ * 3600)

struct timer {
	struct hpet *h;
	struct event *event;
	uint32_t cfg;
	uint64_t comparator, period;
	uint64_t due; /* counter value of the next match, not cut to 32 bits */
	bool armed;   /* a match lies ahead */
};

struct hpet {
	struct machine *m;
	uint64_t cfg, isr;
	uint64_t halted; /* the counter while it is disabled */
	uint64_t offset; /* counter - ticks while it is enabled */
	struct timer timer[HPET_TIMERS];
};

static uint64_t ticks(const struct hpet *h)
{
	return clock_muldiv(clock_ns() - h->m->start_ns, HPET_HZ, 1000000000);
}

static uint64_t counter(const struct hpet *h)
{
	return h->cfg & CFG_ENABLE ? h->offset + ticks(h) : h->halted;
}

bool hpet_legacy(const struct hpet *h)
{
	return h->cfg & CFG_LEGACY;
}

uint32_t hpet_capabilities(void)
{
	return CAP_LOW;
}

static unsigned index_of(const struct timer *t)
{
	return (unsigned)(t - t->h->timer);
}

static uint64_t width_mask(const struct timer *t)
{
	return t->cfg & TN_32BIT ? UINT32_MAX : UINT64_MAX;
}

static void set_line(struct timer *t, bool level)
{
	struct machine *m = t->h->m;
	unsigned n = index_of(t), route = (t->cfg & TN_ROUTE) >> 9;

	if (hpet_legacy(t->h) && n < 2)
		machine_isa_irq(m, n == 0 ? 0 : 8, level);
	else if (ROUTES & BIT(route))
		ioapic_set_hpet(m->ioapic, route, level);
}

/* n edges; 0: none is owed any more. */
static void tick(struct timer *t, unsigned n)
{
	struct machine *m = t->h->m;
	unsigned i = index_of(t), route = (t->cfg & TN_ROUTE) >> 9;

	if (hpet_legacy(t->h) && i < 2)
		machine_isa_tick(m, i == 0 ? 0 : 8, n);
	else if (ROUTES & BIT(route))
		ioapic_tick(m->ioapic, true, route, n);
	if (n != 0)
		set_line(t, false);
}

/* Level: the line follows the status bit. Edge: only ever pulsed. */
static void update_line(struct timer *t)
{
	set_line(t, (t->cfg & TN_LEVEL) && (t->cfg & TN_ENABLE) &&
			(t->h->isr & BIT(index_of(t))));
}

/* Sets the event to the match at t->due; floor_ns: not before. */
static void set_event(struct timer *t, uint64_t floor_ns)
{
	struct hpet *h = t->h;
	uint64_t now = counter(h), left = t->due > now ? t->due - now : 0, when;

	if (!t->armed || !(h->cfg & CFG_ENABLE) || !(t->cfg & TN_ENABLE)) {
		event_set_timer(t->event, 0);
		return;
	}
	/* Far ones are looked at again: keeps the conversion within 64 bits. */
	when = h->m->start_ns +
	       clock_muldiv(ticks(h) + MIN(left, FAR_TICKS), 1000000000, HPET_HZ) +
	       1;
	event_set_timer(t->event, MAX(when, floor_ns));
}

/* The comparator, the counter or the width changed: when will they meet? */
static void arm(struct timer *t)
{
	uint64_t now = counter(t->h), left = (t->comparator - now) & width_mask(t);

	t->due = now + left;
	/* Behind a 64-bit counter: in some ten thousand years. */
	if (t->due < now)
		t->due = UINT64_MAX;
	set_event(t, 0);
}

/* The interrupt, and the next period. */
static void match(struct timer *t, uint64_t now)
{
	struct hpet *h = t->h;
	bool periodic = (t->cfg & TN_PERIODIC) && t->period != 0;
	uint64_t step;

	if (t->cfg & TN_LEVEL)
		h->isr |= BIT(index_of(t));
	if (t->cfg & TN_ENABLE) {
		if (periodic && !(t->cfg & TN_LEVEL)) {
			tick(t, ticks_due(now - t->due, t->period, HPET_HZ));
		} else {
			set_line(t, true);
			if (!(t->cfg & TN_LEVEL))
				set_line(t, false);
		}
	}
	if (!periodic) {
		t->armed = false;
		return;
	}
	step = ((now - t->due) / t->period + 1) * t->period;
	t->due += step;
	t->comparator = (t->comparator + step) & width_mask(t);
}

/* What was due under the old settings happens under the old settings. */
static void catch_up(struct timer *t)
{
	uint64_t now = counter(t->h);

	if (t->armed && (t->h->cfg & CFG_ENABLE) && now >= t->due)
		match(t, now);
}

static void catch_up_all(struct hpet *h)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		catch_up(&h->timer[i]);
}

static void fired(void *arg)
{
	struct timer *t = arg;

	catch_up(t);
	set_event(t, t->cfg & TN_PERIODIC ? clock_ns() + MIN_INTERVAL_NS : 0);
}

static uint64_t timer_config(const struct timer *t)
{
	return t->cfg | TN_CAPS | (uint64_t)ROUTES << 32;
}

static void write_config(struct timer *t, uint64_t v)
{
	uint32_t cfg = (uint32_t)v & TN_WRITABLE;

	catch_up(t);
	/* A route it cannot take is not taken: software reads back to find out. */
	if (!(ROUTES & BIT((cfg & TN_ROUTE) >> 9)))
		cfg = (cfg & ~TN_ROUTE) | (t->cfg & TN_ROUTE);
	if ((t->cfg ^ cfg) & (TN_ROUTE | TN_LEVEL | TN_ENABLE | TN_PERIODIC)) {
		set_line(t, false);
		tick(t, 0);
	}
	if (!(cfg & TN_LEVEL))
		t->h->isr &= ~(uint64_t)BIT(index_of(t));
	t->cfg = cfg;
	t->comparator &= width_mask(t);
	t->period &= width_mask(t);
	update_line(t);
	arm(t);
}

static void write_comparator(struct timer *t, uint64_t v)
{
	catch_up(t);
	v &= width_mask(t);
	if (t->cfg & TN_PERIODIC) {
		t->period = v;
		if (t->cfg & TN_VAL_SET)
			t->comparator = v;
	} else {
		t->comparator = v;
	}
	t->cfg &= ~TN_VAL_SET;
	t->armed = true;
	arm(t);
}

static void write_general(struct hpet *h, uint64_t v)
{
	uint64_t now, old = h->cfg;

	catch_up_all(h);
	now = counter(h);
	v &= CFG_ENABLE | CFG_LEGACY;
	if ((old ^ v) & CFG_LEGACY)
		for (unsigned i = 0; i < 2; i++) {
			set_line(&h->timer[i], false);
			machine_isa_tick(h->m, i * 8, 0);
		}
	h->cfg = v;
	if (v & CFG_ENABLE)
		h->offset = now - ticks(h);
	else
		h->halted = now;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		update_line(&h->timer[i]);
		arm(&h->timer[i]);
	}
}

static uint64_t reg_read(struct hpet *h, uint64_t reg)
{
	struct timer *t;

	switch (reg) {
	case 0x00:
		return (uint64_t)HPET_PERIOD_FS << 32 | CAP_LOW;
	case 0x10:
		return h->cfg;
	case 0x20:
		catch_up_all(h);
		return h->isr;
	case 0xf0:
		return counter(h);
	default:
		break;
	}
	if (reg < 0x100 || reg >= 0x100 + HPET_TIMERS * 0x20)
		return 0;
	t = &h->timer[(reg - 0x100) / 0x20];
	switch (reg & 0x18) {
	case 0x00:
		return timer_config(t);
	case 0x08:
		catch_up(t);
		return t->comparator;
	default:
		return 0;
	}
}

static void reg_write(struct hpet *h, uint64_t reg, uint64_t v)
{
	struct timer *t;

	switch (reg) {
	case 0x10:
		write_general(h, v);
		return;
	case 0x20:
		catch_up_all(h);
		h->isr &= ~v;
		for (unsigned i = 0; i < HPET_TIMERS; i++)
			if (v & BIT(i))
				update_line(&h->timer[i]);
		return;
	case 0xf0: /* only while it stands */
		if (!(h->cfg & CFG_ENABLE))
			h->halted = v;
		return;
	default:
		break;
	}
	if (reg < 0x100 || reg >= 0x100 + HPET_TIMERS * 0x20)
		return;
	t = &h->timer[(reg - 0x100) / 0x20];
	if ((reg & 0x18) == 0x00)
		write_config(t, v);
	else if ((reg & 0x18) == 0x08)
		write_comparator(t, v);
}

static uint64_t mmio_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	(void)vcpu;
	/*
	 * Registers are aligned quadwords; what crosses one reads as zero beyond.
	 */
	(void)size;
	return reg_read(arg, off & ~UINT64_C(7)) >> (off & 7) * 8;
}

static void mmio_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	uint64_t reg = off & ~UINT64_C(7), shift = (off & 7) * 8, mask, old;

	(void)vcpu;
	if ((off & 7) + size > 8)
		return;
	mask = (size == 8 ? UINT64_MAX : BIT64(size * 8) - 1) << shift;
	/* Status bits are cleared by ones: bytes not written must read as zeros. */
	old = reg == 0x20 ? 0 : reg_read(arg, reg);
	reg_write(arg, reg, (old & ~mask) | (v << shift & mask));
}

int hpet_create(struct machine *m, struct hpet **out)
{
	struct hpet *h = calloc(1, sizeof(*h));
	int err = 0;

	if (h == NULL)
		return -ENOMEM;
	h->m = m;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		struct timer *t = &h->timer[i];

		t->h = h;
		t->comparator = UINT64_MAX;
		t->event = event_add_timer(m->loop, fired, t);
		if (t->event == NULL)
			err = -ENOMEM;
	}
	if (err == 0)
		err = bus_add(m->mmio, "HPET", HPET_BASE, HPET_LEN, 0, mmio_read,
		    mmio_write, h);
	if (err != 0) {
		hpet_destroy(h);
		return err;
	}
	*out = h;
	return 0;
}

void hpet_destroy(struct hpet *h)
{
	if (h == NULL)
		return;
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		event_del(h->timer[i].event);
	free(h);
}
