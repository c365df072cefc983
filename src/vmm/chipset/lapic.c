/*
 * The local APIC: SDM vol. 3 ch. 11 - registers, priorities, delivery and IPIs.
 *
 * A LAPIC's lock is taken alone: whatever reaches another LAPIC, the IOAPIC or the
 * 8259 pair (IPIs, EOI of level interrupts, ExtINT) happens after it was dropped.
 * The vCPU is notified (EV_INTR) whenever an interrupt may have become deliverable.
 */
#include "vmm/chipset/chipset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/config.h"
#include "lib/util.h"
#include "vmm/chipset/lapic_regs.h"
#include "vmm/clock.h"
#include "vmm/machine.h"

static int highest(const uint32_t *bits)
{
	for (int i = 7; i >= 0; i--)
		if (bits[i] != 0)
			return i * 32 + 31 - __builtin_clz(bits[i]);
	return -1;
}

static void set_bit(uint32_t *bits, uint8_t n)
{
	bits[n / 32] |= BIT(n % 32);
}

static void clear_bit(uint32_t *bits, uint8_t n)
{
	bits[n / 32] &= ~BIT(n % 32);
}

static bool test_bit(const uint32_t *bits, uint8_t n)
{
	return bits[n / 32] & BIT(n % 32);
}

bool lapic_x2(const struct lapic *l)
{
	return l->base & BASE_EXTD;
}

static bool hw_enabled(const struct lapic *l)
{
	return l->base & BASE_EN;
}

static bool sw_enabled(const struct lapic *l)
{
	return hw_enabled(l) && (l->svr & SVR_ENABLE);
}

static uint32_t ppr(const struct lapic *l)
{
	int isrv = highest(l->isr);
	uint32_t in_service = isrv < 0 ? 0 : (uint32_t)isrv & 0xf0;

	return (l->tpr & 0xf0) >= in_service ? l->tpr : in_service;
}

/* The vector that could be delivered now, -1: none. */
static int deliverable(const struct lapic *l)
{
	int vector;

	if (!hw_enabled(l))
		return -1;
	vector = highest(l->irr);
	return vector >= 0 && ((uint32_t)vector & 0xf0) > (ppr(l) & 0xf0) ? vector
									  : -1;
}

/*
 * What the 8259 pair's output reaches: LINT0 as ExtINT, or the CPU's INTR pin
 * itself.
 */
void lapic_update_shadow(struct lapic *l)
{
	uint32_t lint0 = l->lvt[LVT_LINT0];

	atomic_store(&l->base_now, l->base);
	if (!hw_enabled(l))
		atomic_store(&l->takes_extint, l->id == 0);
	else
		atomic_store(&l->takes_extint,
		    !(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == MODE_EXTINT);
}

/* Reset leaves every LVT masked, the spurious vector 0xff, software-disabled. */
static void reset_regs(struct lapic *l)
{
	l->tpr = l->esr = l->esr_pending = l->icr_lo = l->icr_hi = 0;
	l->dfr = UINT32_MAX;
	l->svr = 0xff;
	l->ldr = 0;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	memset(l->isr, 0, sizeof(l->isr));
	memset(l->tmr, 0, sizeof(l->tmr));
	memset(l->irr, 0, sizeof(l->irr));
	l->icount = l->divide = 0;
	l->expiry = 0;
	l->tsc_deadline = 0;
	lapic_update_shadow(l);
}

int lapic_create(struct machine *m, struct vcpu *v, struct lapic **out)
{
	struct lapic *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return -ENOMEM;
	l->m = m;
	l->v = v;
	l->id = v->id;
	l->base = BASE_RESET | BASE_EN | (v->id == 0 ? BASE_BSP : 0);
	l->x2apic_allowed = true;
	pthread_mutex_init(&l->lock, NULL);
	reset_regs(l);
	*out = l;
	return 0;
}

void lapic_destroy(struct lapic *l)
{
	if (l == NULL)
		return;
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void lapic_set_x2apic_allowed(struct lapic *l, bool allowed)
{
	l->x2apic_allowed = allowed;
}

void lapic_virtual_wire(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
	l->svr = 0xff | SVR_ENABLE;
	l->lvt[LVT_LINT0] = MODE_EXTINT << 8;
	l->lvt[LVT_LINT1] = MODE_NMI << 8;
	lapic_update_shadow(l);
	pthread_mutex_unlock(&l->lock);
}

void lapic_init(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
	reset_regs(l);
	pthread_mutex_unlock(&l->lock);
	vcpu_timer_changed(l->v);
}

bool lapic_accept(struct lapic *l, uint8_t vector, bool level)
{
	bool wake = false;

	if (!sw_enabled(l))
		return false;
	if (vector < 16) {
		lapic_error(l, ESR_RECV_ILLEGAL, &wake);
		return wake;
	}
	set_bit(l->irr, vector);
	if (level)
		set_bit(l->tmr, vector);
	else
		clear_bit(l->tmr, vector);
	return deliverable(l) >= 0;
}

/*
 * Errors gather until software writes the ESR; each raises the error interrupt
 * once.
 */
void lapic_error(struct lapic *l, uint32_t bits, bool *wake)
{
	uint32_t lvt = l->lvt[LVT_ERROR];
	bool fresh = (l->esr_pending & bits) != bits;

	l->esr_pending |= bits;
	if (!fresh || (lvt & LVT_MASKED) || !sw_enabled(l))
		return;
	/* An illegal vector here would be an error of the error interrupt: stop. */
	if ((lvt & 0xff) >= 16 && lapic_accept(l, (uint8_t)lvt, false))
		*wake = true;
}

static void wake_if(struct lapic *l, bool wake)
{
	if (wake)
		vcpu_notify(l->v, EV_INTR);
}

static bool is_lvt(unsigned reg, enum lvt *lvt)
{
	if (reg < REG_TIMER || reg > REG_ERROR)
		return false;
	*lvt = (enum lvt)((reg - REG_TIMER) / 16);
	return true;
}

bool lapic_reg_read(struct lapic *l, unsigned reg, uint32_t *v)
{
	enum lvt lvt;

	*v = 0;
	if (reg >= REG_ISR && reg < REG_ESR) {
		const uint32_t *bits = reg < REG_TMR   ? l->isr
				       : reg < REG_IRR ? l->tmr
						       : l->irr;

		*v = bits[reg / 16 & 7];
		return true;
	}
	if (is_lvt(reg, &lvt)) {
		*v = l->lvt[lvt];
		return true;
	}
	switch (reg) {
	case REG_ID:
		*v = lapic_x2(l) ? l->id : l->id << 24;
		return true;
	case REG_VERSION:
		*v = LAPIC_VERSION;
		return true;
	case REG_TPR:
		*v = l->tpr;
		return true;
	case REG_PPR:
		*v = ppr(l);
		return true;
	case REG_LDR:
		*v = lapic_x2(l) ? l->id >> 4 << 16 | BIT(l->id & 15) : l->ldr;
		return true;
	case REG_SVR:
		*v = l->svr;
		return true;
	case REG_ESR:
		*v = l->esr;
		return true;
	case REG_ICR:
		*v = l->icr_lo;
		return true;
	case REG_ICR_HI:
		*v = l->icr_hi;
		return true;
	case REG_ICOUNT:
		*v = l->icount;
		return true;
	case REG_DIVIDE:
		*v = l->divide;
		return true;
	case REG_DFR:
		*v = l->dfr;
		return !lapic_x2(l);
	case REG_APR:
	case REG_RRD:
		return !lapic_x2(l);
	default:
		return false;
	}
}

uint64_t lapic_read(struct lapic *l, unsigned off)
{
	unsigned reg = off & 0xff0, shift = (off & 15) * 8;
	uint32_t v = 0;
	bool wake = false;

	/* Registers fill 4 of every 16 bytes; the rest reads as zero. */
	if (shift >= 32)
		return 0;
	pthread_mutex_lock(&l->lock);
	if (reg == REG_CCOUNT) {
		uint64_t now = clock_ns();

		if (lapic_timer_expire(l, now))
			wake = lapic_accept(l, (uint8_t)l->lvt[LVT_TIMER], false);
		v = lapic_timer_count(l, now);
	} else if (!lapic_reg_read(l, reg, &v) && !lapic_x2(l)) {
		lapic_error(l, ESR_ILLEGAL_REG, &wake);
	}
	pthread_mutex_unlock(&l->lock);
	wake_if(l, wake);
	return v >> shift;
}

static void write_eoi(struct lapic *l)
{
	int vector;
	bool level, wake;

	pthread_mutex_lock(&l->lock);
	vector = highest(l->isr);
	if (vector < 0) {
		pthread_mutex_unlock(&l->lock);
		return;
	}
	clear_bit(l->isr, (uint8_t)vector);
	level = test_bit(l->tmr, (uint8_t)vector);
	wake = deliverable(l) >= 0;
	pthread_mutex_unlock(&l->lock);
	wake_if(l, wake);
	if (l->m->ioapic != NULL && (level || ioapic_owes(l->m->ioapic)))
		ioapic_eoi(l->m->ioapic, (uint8_t)vector);
}

static void write_svr(struct lapic *l, uint32_t v)
{
	l->svr = v & 0x3ff;
	/* Software-disabled: all LVTs are masked and stay so. */
	if (!(v & SVR_ENABLE))
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->lvt[i] |= LVT_MASKED;
	lapic_update_shadow(l);
}

static void write_lvt(struct lapic *l, enum lvt lvt, uint32_t v)
{
	static const uint32_t writable[LVT_COUNT] = {
		[LVT_TIMER] = 0x700ff,
		[LVT_THERMAL] = 0x107ff,
		[LVT_PERF] = 0x107ff,
		[LVT_LINT0] = 0x1a7ff,
		[LVT_LINT1] = 0x1a7ff,
		[LVT_ERROR] = 0x100ff,
	};

	v &= writable[lvt];
	if (!(l->svr & SVR_ENABLE))
		v |= LVT_MASKED;
	if (lvt == LVT_TIMER)
		lapic_timer_set_lvt(l, v);
	else
		l->lvt[lvt] = v;
	lapic_update_shadow(l);
}

/* Registers without effects outside this LAPIC. */
static bool write_plain(struct lapic *l, unsigned reg, uint32_t v, uint64_t now)
{
	enum lvt lvt;

	if (is_lvt(reg, &lvt)) {
		write_lvt(l, lvt, v);
		return true;
	}
	switch (reg) {
	case REG_TPR:
		l->tpr = v & 0xff;
		return true;
	case REG_LDR:
		if (!lapic_x2(l))
			l->ldr = v & 0xff000000;
		return !lapic_x2(l);
	case REG_DFR:
		if (!lapic_x2(l))
			l->dfr = v | 0x0fffffff;
		return !lapic_x2(l);
	case REG_SVR:
		write_svr(l, v);
		return true;
	case REG_ESR:
		l->esr = l->esr_pending;
		l->esr_pending = 0;
		return true;
	case REG_ICR_HI:
		l->icr_hi = v & 0xff000000;
		return true;
	case REG_ICOUNT:
		lapic_timer_start(l, v, now);
		return true;
	case REG_DIVIDE:
		lapic_timer_set_divide(l, v, now);
		return true;
	case REG_ID: /* fixed, as on current processors */
		return true;
	default:
		return false;
	}
}

/* Also the x2APIC's writes, checked by lapic_msr.c. */
void lapic_write(struct lapic *l, unsigned off, uint32_t v)
{
	unsigned reg = off & 0xff0;
	bool wake = false, timer, extint;
	uint64_t now;
	uint32_t dest;

	if (off & 15)
		return;
	switch (reg) {
	case REG_EOI:
		write_eoi(l);
		return;
	case REG_ICR:
		pthread_mutex_lock(&l->lock);
		l->icr_lo = v & 0xccfff; /* delivery status always reads idle */
		dest = l->icr_hi >> 24;
		pthread_mutex_unlock(&l->lock);
		lapic_send_ipi(l, v, dest);
		return;
	default:
		break;
	}
	now = clock_ns();
	pthread_mutex_lock(&l->lock);
	timer = reg == REG_TIMER || reg == REG_ICOUNT || reg == REG_DIVIDE ||
		reg == REG_SVR;
	/* What was due under the old setting still counts under the old setting. */
	if (timer && lapic_timer_expire(l, now))
		wake = lapic_accept(l, (uint8_t)l->lvt[LVT_TIMER], false);
	if (!write_plain(l, reg, v, now) && !lapic_x2(l))
		lapic_error(l, ESR_ILLEGAL_REG, &wake);
	if (deliverable(l) >= 0)
		wake = true;
	extint = atomic_load(&l->takes_extint);
	pthread_mutex_unlock(&l->lock);
	/* The 8259 pair may have been waiting for its way to the CPU to open. */
	if (extint && (reg == REG_LINT0 || reg == REG_SVR))
		wake = true;
	wake_if(l, wake);
	if (timer)
		vcpu_timer_changed(l->v);
}

uint8_t lapic_cr8_read(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
	uint8_t v = (uint8_t)(l->tpr >> 4);

	pthread_mutex_unlock(&l->lock);
	return v;
}

void lapic_cr8_write(struct lapic *l, uint8_t v)
{
	pthread_mutex_lock(&l->lock);
	l->tpr = (uint32_t)(v & 15) << 4;
	bool wake = deliverable(l) >= 0;

	pthread_mutex_unlock(&l->lock);
	wake_if(l, wake);
}

/* Whether this CPU may acknowledge at the 8259 pair. */
static bool extint_open(struct lapic *l)
{
	return l->m->pic != NULL &&
	       (atomic_load(&l->takes_extint) || atomic_load(&l->extint_sent));
}

int lapic_ack(struct lapic *l)
{
	int vector;

	if (extint_open(l)) {
		/* Before the acknowledge: what still waits then sends anew. */
		atomic_store(&l->extint_sent, false);
		vector = pic_ack(l->m->pic);
		if (vector >= 0)
			return vector;
	}
	pthread_mutex_lock(&l->lock);
	vector = deliverable(l);
	if (vector >= 0) {
		clear_bit(l->irr, (uint8_t)vector);
		set_bit(l->isr, (uint8_t)vector);
	}
	pthread_mutex_unlock(&l->lock);
	return vector;
}

bool lapic_pending(struct lapic *l)
{
	if (extint_open(l) && pic_pending(l->m->pic))
		return true;
	pthread_mutex_lock(&l->lock);
	bool yes = deliverable(l) >= 0;

	pthread_mutex_unlock(&l->lock);
	return yes;
}

void lapic_timer_poll(struct lapic *l)
{
	bool wake = false;

	pthread_mutex_lock(&l->lock);
	if (lapic_timer_expire(l, clock_ns()))
		wake = lapic_accept(l, (uint8_t)l->lvt[LVT_TIMER], false);
	pthread_mutex_unlock(&l->lock);
	wake_if(l, wake);
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
	uint64_t when = lapic_timer_next(l);

	pthread_mutex_unlock(&l->lock);
	return when;
}

void lapic_assert_lint(struct lapic *l, unsigned lint)
{
	uint32_t lvt;
	bool wake = false;

	if (lint > 1)
		return;
	pthread_mutex_lock(&l->lock);
	lvt = l->lvt[lint == 0 ? LVT_LINT0 : LVT_LINT1];
	if (!hw_enabled(l)) /* the pins are the CPU's INTR and NMI then */
		lvt = lint == 1    ? MODE_NMI << 8
		      : l->id == 0 ? MODE_EXTINT << 8
				   : LVT_MASKED;
	if (!(lvt & LVT_MASKED) && (lvt >> 8 & 7) == MODE_FIXED)
		wake = lapic_accept(l, (uint8_t)lvt, false);
	pthread_mutex_unlock(&l->lock);
	if (!(lvt & LVT_MASKED)) {
		if ((lvt >> 8 & 7) == MODE_EXTINT)
			wake = true;
		else if ((lvt >> 8 & 7) == MODE_NMI)
			vcpu_notify(l->v, EV_NMI);
		else if ((lvt >> 8 & 7) == MODE_INIT)
			vcpu_notify(l->v, EV_INIT);
	}
	wake_if(l, wake);
}

bool lapic_takes_extint(const struct lapic *l)
{
	return atomic_load(&l->takes_extint);
}

/* Whether the xAPIC page of this vCPU lies at gpa's page. */
bool lapic_claims(const struct lapic *l, uint64_t gpa)
{
	uint64_t base = atomic_load_explicit(&l->base_now, memory_order_relaxed);

	return (base & (BASE_EN | BASE_EXTD)) == BASE_EN && (base ^ gpa) >> 12 == 0;
}

void lapic_get_state(struct lapic *l, struct vcpu_state *s)
{
	pthread_mutex_lock(&l->lock);
	s->apic_base = l->base;
	s->cr8 = l->tpr >> 4;
	pthread_mutex_unlock(&l->lock);
}

void lapic_set_state(struct lapic *l, const struct vcpu_state *s)
{
	pthread_mutex_lock(&l->lock);
	l->base =
	    (s->apic_base & ~(uint64_t)BASE_BSP) | (l->id == 0 ? BASE_BSP : 0);
	/* EXTD without EN is a state no APIC can be in. */
	if (!(l->base & BASE_EN) || !l->x2apic_allowed)
		l->base &= ~(uint64_t)BASE_EXTD;
	if (l->tpr >> 4 != s->cr8)
		l->tpr = (uint32_t)(s->cr8 & 15) << 4;
	lapic_update_shadow(l);
	pthread_mutex_unlock(&l->lock);
}
