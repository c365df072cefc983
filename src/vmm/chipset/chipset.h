/*
 * The chipset's parts. Each is one file; machine.c creates them and the others
 * reach them through struct machine. Unless said otherwise: machine lock held.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct hpet;
struct ioapic;
struct machine;
struct pic;
struct pit;
struct pm;
struct rtc;
struct vcpu;
struct vcpu_state;

/*
 * Periodic timers. On a machine the CPU sees every tick; ours, or the event loop,
 * may have waited for the host's CPU meanwhile. What was missed comes one after
 * another, at most TICKS_MAX, and nothing when the whole process was stopped.
 */
#define TICKS_MAX 250u

/* Edges up to now of a timer whose next was due so many ticks of hz ago. */
static inline unsigned ticks_due(uint64_t late, uint64_t period, uint64_t hz)
{
	if (late > hz)
		return 1;
	return late / period < TICKS_MAX ? (unsigned)(late / period) + 1
					 : TICKS_MAX;
}

/*
 * lapic.c - SDM vol. 3 ch. 11 (xAPIC, x2APIC). Own lock; callable from any thread.
 */
struct lapic;
int lapic_create(struct machine *m, struct vcpu *v, struct lapic **l);
void lapic_destroy(struct lapic *l);
uint64_t lapic_read(struct lapic *l, unsigned off); /* xAPIC page offset */
void lapic_write(struct lapic *l, unsigned off, uint32_t v);
int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *v); /* as engine_host */
int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t v);
uint8_t lapic_cr8_read(struct lapic *l);
void lapic_cr8_write(struct lapic *l, uint8_t v);
int lapic_ack(struct lapic *l); /* as engine_host.intr_ack */
bool lapic_pending(struct lapic *l);
/* The vCPU's own thread: raise the timer's interrupt if its deadline has passed. */
void lapic_timer_poll(struct lapic *l);
/* CLOCK_MONOTONIC ns of the next timer event, 0: none. */
uint64_t lapic_timer_deadline(struct lapic *l);
void lapic_init(struct lapic *l);                            /* after INIT */
void lapic_get_state(struct lapic *l, struct vcpu_state *s); /* apic_base, cr8 */
void lapic_set_state(struct lapic *l, const struct vcpu_state *s);
/*
 * A message (IOAPIC or MSI): physical/logical destination, delivery mode as in MSI
 * data.
 */
void lapic_message(struct machine *m, uint32_t dest, bool logical, unsigned mode,
    uint8_t vector, bool level, bool assert);
/* Whether such a message would find the last one of its vector still waiting. */
bool lapic_waits(struct machine *m, uint32_t dest, bool logical, uint8_t vector);
void lapic_assert_lint(struct lapic *l, unsigned lint);
/* Whether the 8259 pair's output reaches this CPU. Any thread. */
bool lapic_takes_extint(const struct lapic *l);
/* Whether gpa lies in this vCPU's xAPIC page; its own thread. */
bool lapic_claims(const struct lapic *l, uint64_t gpa);
/* Before the vCPUs run: x2APIC on offer; LINT0/LINT1 as firmware leaves them. */
void lapic_set_x2apic_allowed(struct lapic *l, bool allowed);
void lapic_virtual_wire(struct lapic *l);

/* ioapic.c - 82093AA, 32 pins at 0xFEC00000. */
int ioapic_create(struct machine *m, struct ioapic **io);
void ioapic_destroy(struct ioapic *io);
void ioapic_set(struct ioapic *io, unsigned pin, bool level);
/* The HPET's own drivers of the pins, wired-or with the above. */
void ioapic_set_hpet(struct ioapic *io, unsigned pin, bool level);
/*
 * A periodic timer's n edges at once, the last of which leaves the line high: those
 * that found another one waiting follow as EOIs come. 0: none is owed any more.
 */
void ioapic_tick(struct ioapic *io, bool hpet, unsigned pin, unsigned n);
/* Whether EOIs of edge interrupts matter at present. Any thread. */
bool ioapic_owes(const struct ioapic *io);
void ioapic_eoi(
    struct ioapic *io, uint8_t vector); /* from the LAPIC's EOI, any thread */
/* Whether a pin is open that delivers NMI or INIT. Any thread. */
bool ioapic_may_nmi(struct ioapic *io);

/* pic.c - two 8259A, ELCR. Any thread for pic_ack/pic_pending. */
int pic_create(struct machine *m, struct pic **p);
void pic_destroy(struct pic *p);
void pic_set(struct pic *p, unsigned irq, bool level);
void pic_tick(struct pic *p, unsigned irq, unsigned n); /* as ioapic_tick() */
int pic_ack(struct pic *p);                             /* vector or -1 */
bool pic_pending(struct pic *p);

/* pit.c - 8254 and port 0x61. */
int pit_create(struct machine *m, struct pit **p);
void pit_destroy(struct pit *p);

/* hpet.c - IA-PC HPET 1.0a, 8 timers, 2^24 Hz at 0xFED00000. */
int hpet_create(struct machine *m, struct hpet **h);
void hpet_destroy(struct hpet *h);
/* Timers 0 and 1 have taken over IRQ 0 and 8: the PIT's and RTC's lines are cut. */
bool hpet_legacy(const struct hpet *h);
uint32_t hpet_capabilities(
    void); /* low half of the capability register, for ACPI */

/* rtc.c - MC146818 with 114 bytes NVRAM, ports 0x70/0x71, IRQ 8. */
int rtc_create(struct machine *m, struct rtc **r);
void rtc_destroy(struct rtc *r);
int rtc_nvram_read(struct rtc *r, unsigned off, uint8_t *v);
int rtc_nvram_write(struct rtc *r, unsigned off, uint8_t v);
int64_t rtc_time_get(
    struct rtc *r); /* seconds since 1970 as the guest's clock shows */
void rtc_time_set(struct rtc *r, int64_t secs);

/*
 * pm.c - ACPI PM1, PM timer, GPE0, SMI_CMD (0xB2), reset (0xCF9, see below), i8042
 * reset (0x64).
 */
int pm_create(struct machine *m, struct pm **p);
void pm_destroy(struct pm *p);
/*
 * ACPI power button. False when the guest has not enabled ACPI (nothing was done).
 */
bool pm_power_button(struct pm *p);
/*
 * Reset control, port 0xCF9. It lies within the doubleword of the PCI address
 * register, so pm does NOT put it on the bus: the PCI bus claims 0xCF8-0xCFB and
 * passes byte accesses to 0xCF9 on to these.
 */
uint8_t pm_reset_read(struct pm *p);
void pm_reset_write(struct pm *p, uint8_t v);
