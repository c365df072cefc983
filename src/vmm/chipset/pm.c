/*
 * ACPI fixed hardware (ACPI 5.0 ch. 4.8): PM1a event and control, the 32-bit PM
 * timer, GPE0, the SMI command port, and the reset control port 0xCF9.
 *
 * The SCI is GSI 9, level: asserted while ACPI is enabled and an enabled status
 * bit is set.
 */
#include <errno.h>
#include <stdlib.h>

#include "lib/event.h"
#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/chipset/kbc.h"
#include "vmm/clock.h"
#include "vmm/machine.h"

#define PM1_EVT     0x400u
#define PM1_CTL     0x404u
#define PM_TIMER    0x408u
#define GPE0        0x40cu
#define SMI_CMD     0xb2u
#define SCI_GSI     9u

#define PM_TIMER_HZ 3579545u

#define PM1_TMR     0x0001u
#define PM1_GBL     0x0020u
#define PM1_PWRBTN  0x0100u
#define PM1_SLPBTN  0x0200u
#define PM1_RTC     0x0400u
#define PM1_WAK     0x8000u
#define PM1_STS                                                                    \
	(PM1_TMR | 0x10u | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC | PM1_WAK)
#define PM1_EN       (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)

#define CTL_SCI_EN   0x0001u
#define CTL_BM_RLD   0x0002u
#define CTL_SLP      0x1c00u
#define CTL_SLP_EN   0x2000u
#define SLP_TYP_S5   5u

#define ACPI_ENABLE  0xa0u
#define ACPI_DISABLE 0xa1u

struct pm {
	struct machine *m;
	struct kbc *kbc;
	struct event *timer;
	uint16_t sts, en, ctl;
	uint8_t gpe_sts, gpe_en;
	uint8_t reset;
};

static uint64_t timer_ticks(const struct pm *p)
{
	return clock_muldiv(clock_ns() - p->m->start_ns, PM_TIMER_HZ, 1000000000);
}

static void update_sci(struct pm *p)
{
	bool level = (p->ctl & CTL_SCI_EN) &&
		     ((p->sts & p->en & PM1_EN) || (p->gpe_sts & p->gpe_en));

	machine_irq(p->m, SCI_GSI, level);
}

/*
 * TMR_STS follows the timer's most significant bit; only watched while it is
 * enabled.
 */
static void arm_timer(struct pm *p)
{
	uint64_t next = (timer_ticks(p) | 0x7fffffff) + 1;

	event_set_timer(p->timer,
	    p->en & PM1_TMR
		? p->m->start_ns + clock_muldiv(next, 1000000000, PM_TIMER_HZ) + 1
		: 0);
}

static void timer_fired(void *arg)
{
	struct pm *p = arg;

	p->sts |= PM1_TMR;
	update_sci(p);
	arm_timer(p);
}

static uint64_t evt_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pm *p = arg;
	uint32_t v = p->sts | (uint32_t)p->en << 16;

	(void)vcpu;
	(void)size;
	return v >> off * 8;
}

/* Bytes of a register that an access of size bytes at off covers. */
static uint32_t merge(uint32_t old, uint64_t off, unsigned size, uint64_t v)
{
	uint32_t mask = (uint32_t)(BIT64(size * 8) - 1) << off * 8;

	return (old & ~mask) | ((uint32_t)v << off * 8 & mask);
}

static void evt_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pm *p = arg;
	uint32_t clear = merge(0, off, size, v) & 0xffff;
	uint32_t all = merge((uint32_t)p->en << 16, off, size, v);

	(void)vcpu;
	p->sts &= (uint16_t) ~(clear & PM1_STS);
	p->en = (uint16_t)(all >> 16 & PM1_EN);
	arm_timer(p);
	update_sci(p);
}

static uint64_t ctl_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pm *p = arg;

	(void)vcpu;
	(void)size;
	return (uint64_t)p->ctl >> off * 8;
}

static void ctl_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pm *p = arg;
	uint32_t ctl = merge(p->ctl, off, size, v);

	(void)vcpu;
	/* SCI_EN belongs to the SMI command port; SLP_EN reads as zero. */
	p->ctl = (uint16_t)((p->ctl & CTL_SCI_EN) | (ctl & (CTL_BM_RLD | CTL_SLP)));
	if ((ctl & CTL_SLP_EN) && (ctl & CTL_SLP) >> 10 == SLP_TYP_S5)
		machine_suspend(p->m, SUSPEND_POWEROFF);
}

/* Unlocked: reads nothing that changes. */
static uint64_t timer_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pm *p = arg;

	(void)vcpu;
	(void)size;
	return (uint32_t)timer_ticks(p) >> off * 8;
}

static uint64_t gpe_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pm *p = arg;

	(void)vcpu;
	(void)size;
	return (uint64_t)(p->gpe_sts | p->gpe_en << 8) >> off * 8;
}

static void gpe_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pm *p = arg;
	uint32_t clear = merge(0, off, size, v),
		 all = merge((uint32_t)p->gpe_en << 8, off, size, v);

	(void)vcpu;
	p->gpe_sts &= (uint8_t)~clear;
	p->gpe_en = (uint8_t)(all >> 8);
	update_sci(p);
}

static uint64_t smi_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	(void)arg;
	(void)vcpu;
	(void)off;
	(void)size;
	return 0;
}

static void smi_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pm *p = arg;

	(void)vcpu;
	(void)off;
	(void)size;
	if ((uint8_t)v == ACPI_ENABLE)
		p->ctl |= CTL_SCI_EN;
	else if ((uint8_t)v == ACPI_DISABLE)
		p->ctl &= (uint16_t)~CTL_SCI_EN;
	update_sci(p);
}

uint8_t pm_reset_read(struct pm *p)
{
	return p->reset;
}

void pm_reset_write(struct pm *p, uint8_t v)
{
	p->reset = v & 0x0a; /* full reset, system reset; bit 2 is the trigger */
	if (v & 4)
		machine_suspend(p->m, SUSPEND_RESET);
}

bool pm_power_button(struct pm *p)
{
	if (!(p->ctl & CTL_SCI_EN))
		return false;
	p->sts |= PM1_PWRBTN;
	update_sci(p);
	return true;
}

int pm_create(struct machine *m, struct pm **out)
{
	struct pm *p = calloc(1, sizeof(*p));
	int err;

	if (p == NULL)
		return -ENOMEM;
	p->m = m;
	p->timer = event_add_timer(m->loop, timer_fired, p);
	err = p->timer == NULL ? -ENOMEM : 0;
	if (err == 0)
		err = bus_add(
		    m->io, "PM1a event", PM1_EVT, 4, 0, evt_read, evt_write, p);
	if (err == 0)
		err = bus_add(
		    m->io, "PM1a control", PM1_CTL, 2, 0, ctl_read, ctl_write, p);
	if (err == 0)
		err = bus_add(m->io, "PM timer", PM_TIMER, 4, BUS_UNLOCKED,
		    timer_read, NULL, p);
	if (err == 0)
		err = bus_add(m->io, "GPE0", GPE0, 2, 0, gpe_read, gpe_write, p);
	if (err == 0)
		err = bus_add(
		    m->io, "SMI command", SMI_CMD, 1, 0, smi_read, smi_write, p);
	if (err == 0)
		err = kbc_create(m, &p->kbc);
	if (err != 0) {
		pm_destroy(p);
		return err;
	}
	*out = p;
	return 0;
}

void pm_destroy(struct pm *p)
{
	if (p == NULL)
		return;
	kbc_destroy(p->kbc);
	event_del(p->timer);
	free(p);
}
