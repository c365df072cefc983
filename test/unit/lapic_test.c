/* The local APIC: priorities, IPIs, timer, modes, hostile accesses. */
#include "chip_fake.h"

#include <errno.h>

#include "vmm/clock.h"
#include "vmm/machine_sync.h"

static const char *const two_cpus[] = { "cpus=2", NULL };
static const char *const x2_cpus[] = { "cpus=2", "x86.x2apic=true", NULL };

static int rdmsr(struct machine *m, unsigned cpu, uint32_t msr, uint64_t *v)
{
	return m->sync->host.msr_read(m, (int)cpu, msr, v);
}

static int wrmsr(struct machine *m, unsigned cpu, uint32_t msr, uint64_t v)
{
	return m->sync->host.msr_write(m, (int)cpu, msr, v);
}

static void ipi(struct machine *m, unsigned from, uint8_t dest, uint32_t low)
{
	chip_apic_set(m, from, 0x310, (uint32_t)dest << 24);
	chip_apic_set(m, from, 0x300, low);
}

static void test_priority_order(void **state)
{
	struct machine *m = chip_create(two_cpus);

	(void)state;
	chip_apic_enable(m, 0);
	chip_apic_enable(m, 1);
	ipi(m, 0, 1, 0x45);
	ipi(m, 0, 1, 0x41);
	ipi(m, 0, 1, 0x80);
	assert_int_equal(chip_events(m, 1), EV_INTR);
	assert_int_equal(chip_events(m, 0), 0);
	assert_int_equal(chip_take(m, 1), 0x80);
	assert_int_equal(
	    chip_take(m, 1), -1); /* the others are below the one in service */
	ipi(m, 0, 1, 0x85);
	assert_int_equal(chip_take(m, 1), -1); /* same class */
	ipi(m, 0, 1, 0x90);
	assert_int_equal(chip_take(m, 1), 0x90);
	chip_eoi(m, 1);
	assert_int_equal(chip_take(m, 1), -1);
	chip_events(m, 1);
	chip_eoi(m, 1);
	assert_int_equal(chip_events(m, 1), EV_INTR);
	assert_int_equal(chip_take(m, 1), 0x85);
	chip_eoi(m, 1);
	assert_int_equal(chip_take(m, 1), 0x45);
	chip_eoi(m, 1);
	assert_int_equal(chip_take(m, 1), 0x41);
	chip_eoi(m, 1);
	assert_int_equal(chip_take(m, 1), -1);
	chip_eoi(m, 1); /* nothing in service: no effect */
	chip_destroy(m);
}

static void test_tpr_holds_off(void **state)
{
	struct machine *m = chip_create(two_cpus);

	(void)state;
	chip_apic_enable(m, 0);
	m->sync->host.cr8_write(m, 0, 5);
	assert_int_equal(chip_apic(m, 0, 0x80), 0x50);
	assert_int_equal(chip_apic(m, 0, 0xa0), 0x50);
	ipi(m, 0, 0, 0x55);
	assert_int_equal(chip_events(m, 0), 0);
	assert_int_equal(chip_take(m, 0), -1);
	m->sync->host.cr8_write(m, 0, 4);
	assert_int_equal(chip_events(m, 0), EV_INTR);
	assert_int_equal(m->sync->host.cr8_read(m, 0), 4);
	assert_int_equal(chip_take(m, 0), 0x55);
	assert_int_equal(chip_apic(m, 0, 0xa0), 0x50);
	chip_destroy(m);
}

static void test_destinations(void **state)
{
	static const char *const four[] = { "cpus=4", NULL };
	struct machine *m = chip_create(four);

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		chip_apic_enable(m, i);
		chip_apic_set(m, i, 0xd0, 1u << (24 + i));
	}
	ipi(m, 0, 0x0a, 0x800 | 0x31); /* logical flat: 1 and 3 */
	assert_int_equal(chip_take(m, 0), -1);
	assert_int_equal(chip_take(m, 1), 0x31);
	assert_int_equal(chip_take(m, 2), -1);
	assert_int_equal(chip_take(m, 3), 0x31);
	ipi(m, 2, 0, 0xc0000 | 0x51); /* others */
	assert_int_equal(chip_take(m, 2), -1);
	assert_int_equal(chip_take(m, 0), 0x51);
	assert_int_equal(chip_take(m, 3), 0x51);
	ipi(m, 2, 0, 0x40000 | 0x61); /* self */
	assert_int_equal(chip_take(m, 2), 0x61);
	assert_int_equal(chip_take(m, 0), -1);
	ipi(m, 1, 0, 0x80000 | 0x71); /* all */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(chip_take(m, i), 0x71);
	ipi(m, 1, 0xff, 0x81); /* physical broadcast */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(chip_take(m, i), 0x81);
	/* Cluster: CPUs 2 and 3 are members 0 and 1 of cluster 1. */
	for (unsigned i = 0; i < 4; i++) {
		chip_apic_set(m, i, 0xe0, 0);
		chip_apic_set(m, i, 0xd0, (i / 2 << 4 | 1u << (i & 1)) << 24);
	}
	assert_int_equal(chip_apic(m, 0, 0xe0), 0x0fffffff);
	ipi(m, 0, 0x12, 0x800 | 0x91);
	assert_int_equal(chip_take(m, 2), -1);
	assert_int_equal(chip_take(m, 1), -1);
	assert_int_equal(chip_take(m, 3), 0x91);
	/* Lowest priority: exactly one, the idlest. */
	chip_apic_set(m, 2, 0x80, 0);
	ipi(m, 0, 0x13, 0x900 | 0xa1);
	assert_int_equal(chip_take(m, 3), -1);
	assert_int_equal(chip_take(m, 2), 0xa1);
	chip_destroy(m);
}

static void test_init_sipi(void **state)
{
	struct machine *m = chip_create(two_cpus);

	(void)state;
	chip_apic_enable(m, 0);
	ipi(m, 0, 1, 0xc500); /* INIT, level, assert */
	assert_int_equal(chip_events(m, 1), EV_INIT);
	ipi(m, 0, 1, 0x8500); /* de-assert */
	assert_int_equal(chip_events(m, 1), 0);
	ipi(m, 0, 1, 0x699);
	assert_int_equal(chip_events(m, 1), EV_SIPI);
	assert_int_equal(m->vcpu[1].sipi_vector, 0x99);
	ipi(m, 0, 1, 0x400);
	assert_int_equal(chip_events(m, 1), EV_NMI);
	assert_int_equal(chip_events(m, 0), 0);
	chip_destroy(m);
}

static void test_errors(void **state)
{
	struct machine *m = chip_create(two_cpus);

	(void)state;
	chip_apic_enable(m, 0);
	chip_apic_enable(m, 1);
	chip_apic_set(m, 0, 0x370, 0xfe);
	ipi(m, 0, 1, 0x0f);
	assert_int_equal(chip_take(m, 0), 0xfe);
	assert_int_equal(chip_take(m, 1), -1);
	assert_int_equal(
	    chip_apic(m, 0, 0x280), 0); /* not before a write latches */
	chip_apic_set(m, 0, 0x280, 0);
	assert_int_equal(chip_apic(m, 0, 0x280), 0x20);
	chip_apic(m, 0, 0x3d0);
	chip_apic_set(m, 0, 0x280, 0);
	assert_int_equal(chip_apic(m, 0, 0x280), 0x80);
	/* An MSI with vector 3 is an error of the receiver. */
	machine_msi(m, 0xfee01000, 3);
	chip_apic_set(m, 1, 0x280, 0);
	assert_int_equal(chip_apic(m, 1, 0x280), 0x40);
	chip_destroy(m);
}

static void test_soft_disable(void **state)
{
	struct machine *m = chip_create(two_cpus);

	(void)state;
	chip_apic_enable(m, 1);
	chip_apic_set(m, 1, 0x320, 0x40);
	chip_apic_set(m, 1, 0xf0, 0xff);
	assert_int_equal(chip_apic(m, 1, 0x320), 0x10040);
	chip_apic_set(m, 1, 0x320, 0x40); /* the mask cannot be cleared */
	assert_int_equal(chip_apic(m, 1, 0x320), 0x10040);
	machine_msi(m, 0xfee01000, 0x50);
	assert_int_equal(chip_take(m, 1), -1);
	chip_apic_set(m, 1, 0xf0, 0x1ff);
	assert_int_equal(chip_take(m, 1), -1); /* it was not accepted */
	chip_destroy(m);
}

static void test_timer_oneshot(void **state)
{
	struct machine *m = chip_create(two_cpus);

	(void)state;
	chip_apic_enable(m, 0);
	chip_apic_set(m, 0, 0x3e0, 0xb); /* by 1 */
	chip_apic_set(m, 0, 0x320, 0x60);
	chip_apic_set(m, 0, 0x380, 1000000);
	chip_advance(m, 400000);
	assert_int_equal(chip_apic(m, 0, 0x390), 600000);
	assert_int_equal(chip_take(m, 0), -1);
	/* A new divider keeps the count. */
	chip_apic_set(m, 0, 0x3e0, 0x0);
	assert_int_equal(chip_apic(m, 0, 0x390), 600000);
	chip_advance(m, 1199999);
	assert_int_equal(chip_take(m, 0), -1);
	assert_int_equal(chip_apic(m, 0, 0x390), 1);
	chip_advance(m, 1);
	assert_int_equal(chip_take(m, 0), 0x60);
	assert_int_equal(chip_apic(m, 0, 0x390), 0);
	chip_eoi(m, 0);
	chip_advance(m, 10000000);
	assert_int_equal(chip_take(m, 0), -1);
	assert_int_equal(lapic_timer_deadline(m->vcpu[0].lapic), 0);
	chip_destroy(m);
}

static void test_dividers(void **state)
{
	static const struct {
		uint32_t code;
		unsigned by;
	} all[] = { { 0, 2 }, { 1, 4 }, { 2, 8 }, { 3, 16 }, { 8, 32 }, { 9, 64 },
		{ 10, 128 }, { 11, 1 } };
	struct machine *m = chip_create(two_cpus);

	(void)state;
	chip_apic_enable(m, 0);
	for (unsigned i = 0; i < 8; i++) {
		chip_apic_set(m, 0, 0x3e0, all[i].code);
		chip_apic_set(m, 0, 0x380, 0xffffffff);
		chip_advance(m, 1280000);
		assert_int_equal(
		    chip_apic(m, 0, 0x390), 0xffffffff - 1280000 / all[i].by);
	}
	chip_destroy(m);
}

static void test_timer_periodic_no_drift(void **state)
{
	struct machine *m = chip_create(two_cpus);
	struct lapic *l = m->vcpu[0].lapic;
	uint64_t first;
	unsigned n = 0;

	(void)state;
	chip_apic_enable(m, 0);
	chip_apic_set(m, 0, 0x3e0, 0xb);
	chip_apic_set(m, 0, 0x380, 1000003);
	chip_apic_set(m, 0, 0x320, 0x20060);
	first = lapic_timer_deadline(l);
	/* Served late every time, by up to most of a period. */
	for (unsigned i = 0; i < 1000; i++) {
		chip_advance(m, 1000003);
		if (chip_take(m, 0) == 0x60)
			n++;
		chip_eoi(m, 0);
	}
	assert_int_equal(n, 1000);
	assert_int_equal(lapic_timer_deadline(l), first + 1000 * UINT64_C(1000003));
	/* A process stopped for ten seconds: one interrupt, same phase. */
	chip_jump(m, UINT64_C(10000000000));
	assert_int_equal(chip_take(m, 0), 0x60);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	chip_advance(m, 0); /* nor later: the missed ones are gone */
	assert_int_equal(chip_take(m, 0), -1);
	assert_int_equal((lapic_timer_deadline(l) - first) % 1000003, 0);
	chip_destroy(m);
}

static void test_tsc_deadline(void **state)
{
	struct machine *m = chip_create(two_cpus);
	uint64_t v, tsc;

	(void)state;
	chip_apic_enable(m, 0);
	/* Not in this mode: writes are ignored. */
	assert_int_equal(wrmsr(m, 0, 0x6e0, 1), 0);
	assert_int_equal(rdmsr(m, 0, 0x6e0, &v), 0);
	assert_int_equal(v, 0);
	chip_apic_set(m, 0, 0x320, 0x40060);
	/* The guest's TSC is behind the host's by 1000 ticks. */
	m->vcpu[0].link->tsc_offset = (uint64_t)-1000;
	tsc = clock_tsc() - 1000 + 2000000;
	assert_int_equal(wrmsr(m, 0, 0x6e0, tsc), 0);
	chip_advance(m, 999999);
	assert_int_equal(chip_take(m, 0), -1);
	assert_int_equal(rdmsr(m, 0, 0x6e0, &v), 0);
	assert_int_equal(v, tsc);
	chip_advance(m, 1);
	assert_int_equal(chip_take(m, 0), 0x60);
	chip_eoi(m, 0);
	chip_apic_set(m, 0, 0x380, 1000); /* ignored here */
	assert_int_equal(chip_apic(m, 0, 0x390), 0);
	assert_int_equal(wrmsr(m, 0, 0x6e0, UINT64_MAX), 0);
	assert_true(lapic_timer_deadline(m->vcpu[0].lapic) != 0);
	assert_int_equal(wrmsr(m, 0, 0x6e0, 1), 0); /* long past */
	chip_advance(m, 1);
	assert_int_equal(chip_take(m, 0), 0x60);
	assert_int_equal(rdmsr(m, 0, 0x6e0, &v), 0);
	assert_int_equal(v, 0);
	chip_eoi(m, 0);
	/* Leaving the mode disarms. */
	assert_int_equal(wrmsr(m, 0, 0x6e0, UINT64_MAX), 0);
	chip_apic_set(m, 0, 0x320, 0x60);
	assert_int_equal(lapic_timer_deadline(m->vcpu[0].lapic), 0);
	chip_destroy(m);
}

static void test_apic_base_rules(void **state)
{
	struct machine *m = chip_create(x2_cpus);
	uint64_t v;

	(void)state;
	assert_int_equal(rdmsr(m, 0, 0x1b, &v), 0);
	assert_int_equal(v, 0xfee00900);
	assert_int_equal(rdmsr(m, 1, 0x1b, &v), 0);
	assert_int_equal(v, 0xfee00800);
	assert_int_equal(rdmsr(m, 1, 0x803, &v), -EINVAL); /* not in x2APIC mode */
	assert_int_equal(rdmsr(m, 1, 0x10, &v), -ENOENT);
	assert_int_equal(
	    wrmsr(m, 1, 0x1b, 0xfee00400), -EINVAL); /* EXTD without EN */
	assert_int_equal(wrmsr(m, 1, 0x1b, 0xfee00801), -EINVAL);
	assert_int_equal(wrmsr(m, 1, 0x1b, UINT64_C(1) << 52), -EINVAL);
	assert_int_equal(wrmsr(m, 1, 0x1b, 0xfee00c00), 0);
	assert_int_equal(
	    wrmsr(m, 1, 0x1b, 0xfee00800), -EINVAL);         /* back to xAPIC */
	assert_int_equal(chip_apic(m, 1, 0x30), 0xffffffff); /* no page any more */
	assert_int_equal(rdmsr(m, 1, 0x803, &v), 0);
	assert_int_equal(v, 0x50014);
	assert_int_equal(rdmsr(m, 1, 0x802, &v), 0);
	assert_int_equal(v, 1);
	assert_int_equal(rdmsr(m, 1, 0x80d, &v), 0);
	assert_int_equal(v, 2);
	assert_int_equal(wrmsr(m, 1, 0x80d, 2), -EINVAL); /* LDR is read-only now */
	assert_int_equal(wrmsr(m, 1, 0x802, 1), -EINVAL);
	assert_int_equal(rdmsr(m, 1, 0x80e, &v), -EINVAL); /* no DFR */
	assert_int_equal(rdmsr(m, 1, 0x831, &v), -EINVAL);
	assert_int_equal(rdmsr(m, 1, 0x83f, &v), -EINVAL);
	assert_int_equal(rdmsr(m, 1, 0x8ff, &v), -EINVAL);
	assert_int_equal(wrmsr(m, 1, 0x80b, 1), -EINVAL);
	assert_int_equal(wrmsr(m, 1, 0x80f, 0x1ff), 0);
	assert_int_equal(wrmsr(m, 1, 0x80f, 0x10000), -EINVAL);
	assert_int_equal(wrmsr(m, 1, 0x83f, 0x77), 0);
	assert_int_equal(chip_take(m, 1), 0x77);
	assert_int_equal(wrmsr(m, 1, 0x80b, 0), 0);
	/* To CPU 0 (still xAPIC), physical and by everybody. */
	chip_apic_enable(m, 0);
	assert_int_equal(wrmsr(m, 1, 0x830, 0x31), 0);
	assert_int_equal(chip_take(m, 0), 0x31);
	assert_int_equal(wrmsr(m, 1, 0x830, UINT64_C(0xffffffff00000041)), 0);
	assert_int_equal(chip_take(m, 0), 0x41);
	assert_int_equal(chip_take(m, 1), 0x41);
	assert_int_equal(wrmsr(m, 1, 0x1b, 0xfee00000), 0); /* off */
	assert_int_equal(wrmsr(m, 1, 0x1b, 0xfee00c00), -EINVAL);
	assert_int_equal(wrmsr(m, 1, 0x1b, 0xfee00800), 0);
	assert_int_equal(chip_apic(m, 1, 0xf0), 0xff);
	/* Another page. */
	assert_int_equal(wrmsr(m, 1, 0x1b, 0xd0000800), 0);
	assert_int_equal(chip_apic(m, 1, 0x30), 0xffffffff);
	assert_int_equal(chip_read(m, 1, 0xd0000030, 4), 0x50014);
	assert_int_equal(chip_read(m, 0, 0xd0000030, 4), 0xffffffff);
	chip_destroy(m);

	m = chip_create(two_cpus); /* x2APIC not on offer */
	assert_int_equal(wrmsr(m, 1, 0x1b, 0xfee00c00), -EINVAL);
	chip_destroy(m);
}

/* Every offset, size and MSR with several values: no crash, still alive. */
static void test_hostile(void **state)
{
	static const uint64_t values[] = { 0, UINT64_MAX, 0x000c4500, 0xfee00800,
		0x55 };
	struct machine *m = chip_create(x2_cpus);
	uint64_t v;

	(void)state;
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < 5; i++) {
			for (unsigned off = 0; off < 0x1000; off++)
				for (unsigned size = 1; size <= 8; size *= 2) {
					chip_write(m, 0, 0xfee00000 + off, size,
					    values[i]);
					chip_read(m, 0, 0xfee00000 + off, size);
				}
			for (uint32_t msr = 0x800; msr < 0x900; msr++) {
				wrmsr(m, 1, msr, values[i]);
				rdmsr(m, 1, msr, &v);
			}
			chip_advance(m, 1000000);
			chip_take(m, 0);
			chip_take(m, 1);
		}
		wrmsr(m, 1, 0x1b, 0xfee00c00);
	}
	assert_int_equal(chip_apic(m, 0, 0x30), 0x50014);
	chip_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_priority_order),
		cmocka_unit_test(test_tpr_holds_off),
		cmocka_unit_test(test_destinations),
		cmocka_unit_test(test_init_sipi),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_soft_disable),
		cmocka_unit_test(test_timer_oneshot),
		cmocka_unit_test(test_dividers),
		cmocka_unit_test(test_timer_periodic_no_drift),
		cmocka_unit_test(test_tsc_deadline),
		cmocka_unit_test(test_apic_base_rules),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
