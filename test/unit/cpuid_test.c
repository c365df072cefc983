/* CPUID policy: never more than the host, and leaves that agree with each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "lib/util.h"
#include "vmm/clock.h"
#include "vmm/engine.h"

static const struct engine_config cfg = {
	.ncpu = 12, .sockets = 2, .cores = 3, .threads = 2, .tsc_hz = 2600000000,
	.x2apic = true,
};

static struct cpuid_regs guest_of(
    const struct engine_config *c, unsigned cpu, uint32_t leaf, uint32_t sub)
{
	struct cpuid_context ctx = {
		.cpu = cpu, .cr4 = 0, .xcr0 = 7, .apic_enabled = true
	};
	struct cpuid_regs r;

	cpuid_guest(c, &ctx, leaf, sub, &r);
	return r;
}

static struct cpuid_regs guest(uint32_t leaf, uint32_t sub)
{
	return guest_of(&cfg, 0, leaf, sub);
}

static struct cpuid_regs host(uint32_t leaf, uint32_t sub)
{
	struct cpuid_regs r;

	__asm__("cpuid"
		: "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
		: "a"(leaf), "c"(sub));
	return r;
}

static void test_subset(void **state)
{
	struct cpuid_regs g = guest(1, 0), h = host(1, 0);

	(void)state;
	/*
	 * The engine's own: x2APIC, TSC deadline, OSXSAVE, hypervisor; HTT is
	 * topology.
	 */
	assert_int_equal(
	    g.ecx & ~h.ecx & ~(BIT(21) | BIT(24) | BIT(27) | BIT(31)), 0);
	assert_int_equal(g.edx & ~h.edx & ~BIT(28), 0);
	/* MONITOR, VMX, SMX, EIST, TM2, PDCM; ACPI thermal */
	assert_int_equal(
	    g.ecx & (BIT(3) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(15)), 0);
	assert_int_equal(g.edx & (BIT(18) | BIT(21) | BIT(22)), 0);
	assert_true(g.ecx & BIT(31));

	g = guest(7, 0);
	h = host(7, 0);
	/* TSC_ADJUST and zero FCS/FDS are the engine's. */
	assert_int_equal(g.ebx & ~h.ebx & ~(BIT(1) | BIT(13)), 0);
	assert_int_equal(g.ecx & ~h.ecx, 0);
	/* HLE, MPX, RTM, PT, AVX-512 F DQ IFMA CD BW VL */
	assert_int_equal(
	    g.ebx & (BIT(4) | BIT(14) | BIT(11) | BIT(25) | BIT(16) | BIT(17) |
			BIT(21) | BIT(28) | BIT(30) | BIT(31)),
	    0);
	/* PKU, CET, LA57, AVX-512 VBMI, WAITPKG */
	assert_int_equal(
	    g.ecx & (BIT(3) | BIT(4) | BIT(7) | BIT(16) | BIT(1) | BIT(5)), 0);

	g = guest(0xd, 1);
	assert_int_equal(g.eax & ~host(0xd, 1).eax, 0);
	g = guest(0x80000001, 0);
	h = host(0x80000001, 0);
	assert_int_equal(g.edx & ~h.edx, 0);
	assert_int_equal(g.ecx & BIT(2), 0); /* SVM */
}

static void test_identity(void **state)
{
	struct cpuid_regs g = guest(0x40000000, 0);
	char sig[13] = { 0 };

	(void)state;
	memcpy(sig, &g.ebx, 4);
	memcpy(sig + 4, &g.ecx, 4);
	memcpy(sig + 8, &g.edx, 4);
	assert_string_equal(sig, "bhyve bhyve ");
	assert_int_equal(g.eax, 0x40000010);
	g = guest(0x40000010, 0);
	assert_int_equal(g.eax, 2600000);
	assert_int_equal(g.ebx, CLOCK_LAPIC_HZ / 1000);
	assert_int_equal(guest(0, 0).ebx, host(0, 0).ebx);
	assert_int_equal(guest(1, 0).eax, host(1, 0).eax);
	g = guest(0x15, 0);
	assert_int_equal((uint64_t)g.ecx * g.ebx / g.eax, 2600000000);
	assert_int_equal(guest(0x16, 0).eax, 2600);
	assert_true(guest(0x80000007, 0).edx & BIT(8));
	assert_int_equal(guest(0x4fffffff, 0).eax, 0);
	assert_int_equal(guest(0xffffffff, 0).eax, 0);
}

static void test_topology(void **state)
{
	(void)state;
	for (unsigned cpu = 0; cpu < cfg.ncpu; cpu++) {
		struct cpuid_regs thread = guest_of(&cfg, cpu, 0xb, 0);
		struct cpuid_regs core = guest_of(&cfg, cpu, 0xb, 1);

		assert_int_equal(guest_of(&cfg, cpu, 1, 0).ebx >> 24, cpu);
		assert_int_equal(thread.edx, cpu);
		assert_int_equal(core.edx, cpu);
		assert_int_equal(thread.ebx, 2);
		assert_int_equal(thread.eax, 1);
		assert_int_equal(thread.ecx >> 8, 1);
		assert_int_equal(core.ebx, 6);
		assert_int_equal(core.ecx >> 8, 2);
	}
	assert_int_equal(guest(1, 0).ebx >> 16 & 0xff, 6);
	assert_true(guest(1, 0).edx & BIT(28));
	assert_int_equal(guest(0xb, 2).ecx, 2);
	assert_int_equal(guest(0xb, 2).ebx, 0);
}

static void test_xsave(void **state)
{
	struct cpuid_context ctx = { .xcr0 = 3 };
	struct cpuid_regs g = guest(0xd, 0), small;

	(void)state;
	if (!(guest(1, 0).ecx & BIT(26)))
		skip();
	cpuid_guest(&cfg, &ctx, 0xd, 0, &small);
	assert_int_equal(small.ebx, 576);
	assert_int_equal(guest(1, 0).ecx & BIT(27), 0);
	ctx.cr4 = BIT(18);
	cpuid_guest(&cfg, &ctx, 1, 0, &small);
	assert_true(small.ecx & BIT(27));
	if (guest(1, 0).ecx & BIT(28)) {
		assert_int_equal(g.eax, 7);
		assert_int_equal(g.ebx, 832);
		assert_int_equal(g.ecx, 832);
		assert_int_equal(guest(0xd, 2).eax, 256);
		assert_int_equal(guest(0xd, 2).ebx, 576);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_subset),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_topology),
		cmocka_unit_test(test_xsave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
