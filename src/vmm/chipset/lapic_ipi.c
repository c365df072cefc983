/*
 * Messages between APICs (SDM vol. 3, 11.6 and 11.7): who is addressed, and what
 * each delivery mode does there. Runs without any LAPIC's lock and takes one at a
 * time.
 */
#include "vmm/chipset/chipset.h"

#include <stdatomic.h>

#include "lib/util.h"
#include "vmm/chipset/lapic_regs.h"
#include "vmm/machine.h"

#define ICR_LOGICAL 0x800u
#define ICR_ASSERT  0x4000u
#define ICR_LEVEL   0x8000u

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

/* 0xff and (x2APIC) 0xffffffff address everybody, in both destination modes. */
static bool matches(struct lapic *l, uint32_t dest, bool logical, bool wide)
{
	bool hit, x2;
	uint32_t id;

	if (dest == UINT32_MAX || (!wide && dest == 0xff))
		return true;
	if (!logical)
		return dest == l->id;
	pthread_mutex_lock(&l->lock);
	x2 = lapic_x2(l);
	if (x2) {
		id = l->id;
		hit = dest >> 16 == id >> 4 && (dest & BIT(id & 15)) != 0;
	} else if (wide && dest > 0xff) {
		hit = false;
	} else if (l->dfr >> 28 == 0xf) { /* flat */
		hit = ((l->ldr >> 24) & dest) != 0;
	} else if (l->dfr >> 28 == 0) { /* cluster */
		hit = (l->ldr >> 28) == (dest >> 4 & 15) &&
		      ((l->ldr >> 24) & dest & 15) != 0;
	} else {
		hit = false;
	}
	pthread_mutex_unlock(&l->lock);
	return hit;
}

static void deliver(struct vcpu *v, unsigned mode, uint8_t vector, bool level)
{
	struct lapic *l = v->lapic;
	bool wake;

	switch (mode) {
	case MODE_FIXED:
	case MODE_LOWEST:
		pthread_mutex_lock(&l->lock);
		wake = lapic_accept(l, vector, level);
		pthread_mutex_unlock(&l->lock);
		if (wake)
			vcpu_notify(v, EV_INTR);
		break;
	case MODE_NMI:
		vcpu_notify(v, EV_NMI);
		break;
	case MODE_INIT:
		vcpu_notify(v, EV_INIT);
		break;
	case MODE_SIPI:
		/* Software sends two: the second must not change the first. */
		if (!(atomic_load(&v->link->events) & EV_SIPI))
			atomic_store(&v->sipi_vector, vector);
		vcpu_notify(v, EV_SIPI);
		break;
	case MODE_EXTINT:
		atomic_store(&l->extint_sent, true);
		vcpu_notify(v, EV_INTR);
		break;
	default: /* SMI: there is no SMM */
		break;
	}
}

/*
 * Lowest priority: the least busy of those addressed; equals take turns by vector.
 */
static struct vcpu *arbitrate(
    struct machine *m, uint32_t dest, bool logical, bool wide, uint8_t vector)
{
	struct vcpu *best = NULL;
	uint32_t best_ppr = UINT32_MAX;

	for (unsigned i = 0; i < m->ncpu; i++) {
		struct vcpu *v = &m->vcpu[(i + vector) % m->ncpu];
		uint32_t priority;
		bool enabled;

		if (!matches(v->lapic, dest, logical, wide))
			continue;
		pthread_mutex_lock(&v->lapic->lock);
		enabled =
		    (v->lapic->base & BASE_EN) && (v->lapic->svr & SVR_ENABLE);
		lapic_reg_read(v->lapic, REG_PPR, &priority);
		pthread_mutex_unlock(&v->lapic->lock);
		if (enabled && priority < best_ppr) {
			best = v;
			best_ppr = priority;
		}
	}
	return best;
}

static void message(struct machine *m, uint32_t dest, bool logical, bool wide,
    unsigned mode, uint8_t vector, bool level)
{
	if (mode == MODE_LOWEST) {
		struct vcpu *v = arbitrate(m, dest, logical, wide, vector);

		if (v != NULL)
			deliver(v, mode, vector, level);
		return;
	}
	for (unsigned i = 0; i < m->ncpu; i++)
		if (matches(m->vcpu[i].lapic, dest, logical, wide))
			deliver(&m->vcpu[i], mode, vector, level);
}

bool lapic_waits(struct machine *m, uint32_t dest, bool logical, uint8_t vector)
{
	bool waits = false;

	for (unsigned i = 0; i < m->ncpu && !waits; i++) {
		struct lapic *l = m->vcpu[i].lapic;
		uint32_t irr;

		if (!matches(l, dest, logical, false))
			continue;
		pthread_mutex_lock(&l->lock);
		lapic_reg_read(l, REG_IRR + vector / 32 * 16u, &irr);
		pthread_mutex_unlock(&l->lock);
		waits = irr & BIT(vector % 32);
	}
	return waits;
}

void lapic_message(struct machine *m, uint32_t dest, bool logical, unsigned mode,
    uint8_t vector, bool level, bool assert)
{
	/* Only INIT has a de-assert message, and processors since P6 ignore it. */
	if (mode == MODE_INIT && level && !assert)
		return;
	if (mode == MODE_SIPI || mode == MODE_RESERVED)
		return;
	message(m, dest, logical, false, mode, vector, level);
}

void lapic_send_ipi(struct lapic *l, uint32_t lo, uint32_t dest)
{
	struct machine *m = l->m;
	unsigned mode = lo >> 8 & 7;
	enum shorthand to = (enum shorthand)(lo >> 18 & 3);
	uint8_t vector = (uint8_t)lo;
	bool wide, wake = false;

	if (mode == MODE_RESERVED || mode == MODE_EXTINT || mode == MODE_SMI)
		return;
	if (mode == MODE_INIT && (lo & ICR_LEVEL) && !(lo & ICR_ASSERT))
		return;
	pthread_mutex_lock(&l->lock);
	wide = lapic_x2(l);
	if ((mode == MODE_FIXED || mode == MODE_LOWEST) && vector < 16)
		lapic_error(l, ESR_SEND_ILLEGAL, &wake);
	pthread_mutex_unlock(&l->lock);
	if (wake)
		vcpu_notify(l->v, EV_INTR);
	if ((mode == MODE_FIXED || mode == MODE_LOWEST) && vector < 16)
		return;
	atomic_fetch_add_explicit(&l->v->stats.ipis, 1, memory_order_relaxed);

	/* Self and all-including-self are defined for fixed interrupts only. */
	switch (to) {
	case TO_SELF:
		if (mode == MODE_FIXED)
			deliver(l->v, mode, vector, false);
		break;
	case TO_ALL:
	case TO_OTHERS:
		if (to == TO_ALL && mode != MODE_FIXED && mode != MODE_NMI)
			break;
		for (unsigned i = 0; i < m->ncpu; i++)
			if (to == TO_ALL || &m->vcpu[i] != l->v)
				deliver(&m->vcpu[i], mode, vector, false);
		break;
	default:
		message(m, dest, lo & ICR_LOGICAL, wide, mode, vector, false);
	}
}
