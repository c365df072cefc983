/* The 8259 pair and the IOAPIC: order, EOI, levels, hostile programming. */
#include "chip_fake.h"

static struct machine *apic_machine(void)
{
	static const char *const two[] = { "cpus=2", NULL };
	struct machine *m = chip_create(two);

	chip_apic_enable(m, 0);
	chip_apic_enable(m, 1);
	return m;
}

static void isa(struct machine *m, unsigned irq, bool level)
{
	pthread_mutex_lock(&m->lock);
	machine_isa_irq(m, irq, level);
	pthread_mutex_unlock(&m->lock);
}

static void pulse(struct machine *m, unsigned irq)
{
	isa(m, irq, true);
	isa(m, irq, false);
}

static void test_ioapic_registers(void **state)
{
	struct machine *m = apic_machine();

	(void)state;
	chip_write(m, 0, 0xfec00000, 4, 1);
	assert_int_equal(chip_read(m, 0, 0xfec00010, 4), 0x1f0011);
	assert_int_equal(chip_read(m, 0, 0xfec00012, 2), 0x1f);
	chip_write(m, 0, 0xfec00000, 4, 0);
	chip_write(m, 0, 0xfec00010, 4, 0xffffffff);
	assert_int_equal(chip_read(m, 0, 0xfec00010, 4), 0x0f000000);
	for (unsigned pin = 0; pin < 32; pin++)
		assert_int_equal(chip_rte_get(m, pin), 0x10000);
	chip_rte(m, 31, 0xffffffff, 0xff); /* status bits are read-only */
	assert_int_equal(chip_rte_get(m, 31), UINT64_C(0xff0000000001afff));
	chip_destroy(m);
}

static void test_ioapic_edge(void **state)
{
	struct machine *m = apic_machine();

	(void)state;
	chip_line(m, 20, true); /* while masked: lost */
	chip_rte(m, 20, 0x50, 1);
	assert_int_equal(chip_take(m, 1), -1);
	chip_line(m, 20, false);
	chip_line(m, 20, true);
	chip_line(m, 20, true); /* no new edge */
	assert_int_equal(chip_take(m, 1), 0x50);
	chip_eoi(m, 1);
	assert_int_equal(chip_take(m, 1), -1);
	assert_int_equal(chip_take(m, 0), -1);
	chip_destroy(m);
}

static void test_ioapic_level(void **state)
{
	struct machine *m = apic_machine();

	(void)state;
	chip_rte(m, 17, 0x8061, 0);
	chip_line(m, 17, true);
	assert_int_equal(chip_take(m, 0), 0x61);
	assert_int_equal(chip_rte_get(m, 17) & 0x4000, 0x4000);
	assert_int_equal(chip_take(m, 0), -1);
	chip_eoi(m, 0); /* still asserted: again */
	assert_int_equal(chip_take(m, 0), 0x61);
	chip_line(m, 17, false);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	assert_int_equal(chip_rte_get(m, 17) & 0x4000, 0);
	/* Masked, then unmasked while asserted. */
	chip_rte(m, 17, 0x18061, 0);
	chip_line(m, 17, true);
	assert_int_equal(chip_take(m, 0), -1);
	chip_rte(m, 17, 0x8061, 0);
	assert_int_equal(chip_take(m, 0), 0x61);
	/* The switch to edge and back ends it without an EOI register. */
	chip_rte(m, 17, 0x10061, 0);
	assert_int_equal(chip_rte_get(m, 17) & 0x4000, 0);
	chip_destroy(m);
}

static void test_ioapic_nmi_and_dest(void **state)
{
	struct machine *m = apic_machine();

	(void)state;
	assert_false(ioapic_may_nmi(m->ioapic));
	chip_rte(m, 22, 0x400, 1);
	assert_true(ioapic_may_nmi(m->ioapic));
	chip_events(m, 0);
	chip_line(m, 22, true);
	assert_int_equal(chip_events(m, 1), EV_NMI);
	assert_int_equal(chip_events(m, 0), 0);
	chip_rte(m, 23, 0x70, 0x55); /* nobody */
	chip_line(m, 23, true);
	assert_int_equal(chip_take(m, 0), -1);
	assert_int_equal(chip_take(m, 1), -1);
	/* ISA interrupt 0 is pin 2. */
	chip_rte(m, 2, 0x31, 0);
	isa(m, 0, true);
	assert_int_equal(chip_take(m, 0), 0x31);
	chip_destroy(m);
}

/* Virtual wire: the 8259 pair through LINT0, as firmware leaves it. */
static void test_pic_priorities(void **state)
{
	struct machine *m = chip_create(NULL);

	(void)state;
	chip_pic_setup(m);
	pulse(m, 5);
	pulse(m, 12);
	pulse(m, 1);
	assert_true(chip_events(m, 0) & EV_INTR);
	assert_int_equal(chip_take(m, 0), 0x21);
	assert_int_equal(chip_take(m, 0), -1);
	chip_out(m, 0x20, 1, 0x20);
	assert_true(chip_events(m, 0) & EV_INTR);
	assert_int_equal(chip_take(m, 0), 0x2c); /* the cascade beats 5 */
	assert_int_equal(chip_take(m, 0), -1);
	pulse(m, 8); /* beats 12, but the master serves its cascade */
	assert_int_equal(chip_take(m, 0), -1);
	chip_out(m, 0x20, 1, 0x20);
	assert_int_equal(chip_take(m, 0), 0x28);
	chip_out(m, 0xa0, 1, 0x20);
	chip_out(m, 0xa0, 1, 0x20);
	chip_out(m, 0x20, 1, 0x20);
	assert_int_equal(chip_take(m, 0), 0x25);
	chip_out(m, 0x20, 1, 0x0b);
	assert_int_equal(chip_in(m, 0x20, 1), 0x20); /* ISR */
	chip_out(m, 0x20, 1, 0x65);                  /* specific EOI of 5 */
	assert_int_equal(chip_in(m, 0x20, 1), 0);
	chip_destroy(m);
}

static void test_pic_mask_and_level(void **state)
{
	struct machine *m = chip_create(NULL);

	(void)state;
	chip_pic_setup(m);
	chip_out(m, 0x21, 1, 0x10);
	assert_int_equal(chip_in(m, 0x21, 1), 0x10);
	pulse(m, 4);
	assert_int_equal(chip_take(m, 0), -1);
	chip_out(m, 0x20, 1, 0x0a);
	assert_int_equal(chip_in(m, 0x20, 1), 0x10); /* IRR keeps the edge */
	chip_out(m, 0x21, 1, 0);
	assert_int_equal(chip_take(m, 0), 0x24);
	chip_out(m, 0x20, 1, 0x20);

	chip_out(m, 0x4d0, 2, 0xffff);
	assert_int_equal(chip_in(m, 0x4d0, 2), 0xdef8);
	isa(m, 10, true);
	assert_int_equal(chip_take(m, 0), 0x2a);
	chip_out(m, 0xa0, 1, 0x20);
	chip_out(m, 0x20, 1, 0x20);
	assert_int_equal(chip_take(m, 0), 0x2a); /* still asserted */
	isa(m, 10, false);
	chip_out(m, 0xa0, 1, 0x20);
	chip_out(m, 0x20, 1, 0x20);
	assert_int_equal(chip_take(m, 0), -1);
	chip_destroy(m);
}

static void test_pic_modes(void **state)
{
	struct machine *m = chip_create(NULL);

	(void)state;
	chip_pic_setup(m);
	/* Poll. */
	pulse(m, 3);
	chip_out(m, 0x20, 1, 0x0c);
	assert_int_equal(chip_in(m, 0x20, 1), 0x83);
	assert_int_equal(chip_take(m, 0), -1);
	chip_out(m, 0x20, 1, 0x20);
	/* Rotate on EOI: 1 becomes the lowest. */
	pulse(m, 1);
	assert_int_equal(chip_take(m, 0), 0x21);
	chip_out(m, 0x20, 1, 0xa0);
	pulse(m, 0);
	pulse(m, 3);
	assert_int_equal(chip_take(m, 0), 0x23);
	chip_out(m, 0x20, 1, 0x20);
	assert_int_equal(chip_take(m, 0), 0x20);
	chip_out(m, 0x20, 1, 0x20);
	chip_out(m, 0x20, 1, 0xc7); /* back to 7 */
	/* Special mask: a lower one may come while 1 is in service and masked. */
	pulse(m, 1);
	assert_int_equal(chip_take(m, 0), 0x21);
	chip_out(m, 0x21, 1, 0x02);
	pulse(m, 6);
	assert_int_equal(chip_take(m, 0), -1);
	chip_out(m, 0x20, 1, 0x68);
	assert_int_equal(chip_take(m, 0), 0x26);
	/* A non-specific EOI passes over the masked 1: 6 ends. */
	chip_out(m, 0x20, 1, 0x20);
	chip_out(m, 0x20, 1, 0x0b);
	assert_int_equal(chip_in(m, 0x20, 1), 0x02);
	chip_out(m, 0x20, 1, 0x48);
	/* Automatic EOI. */
	chip_out(m, 0x20, 1, 0x11);
	chip_out(m, 0x21, 1, 0x40);
	chip_out(m, 0x21, 1, 4);
	chip_out(m, 0x21, 1, 3);
	pulse(m, 5);
	assert_int_equal(chip_take(m, 0), 0x45);
	pulse(m, 6);
	assert_int_equal(chip_take(m, 0), 0x46);
	chip_destroy(m);
}

/* ExtINT through IOAPIC pin 0 with LINT0 masked. */
static void test_extint_by_ioapic(void **state)
{
	struct machine *m = apic_machine();

	(void)state;
	chip_pic_setup(m);
	pulse(m, 4);
	assert_int_equal(chip_take(m, 0), -1);
	chip_out(m, 0x20, 1, 0x0c);
	chip_in(m, 0x20, 1);
	chip_out(m, 0x20, 1, 0x20);
	chip_rte(m, 0, 0x700, 0);
	pulse(m, 4);
	assert_int_equal(chip_events(m, 0), EV_INTR);
	assert_int_equal(chip_take(m, 0), 0x24);
	assert_int_equal(chip_take(m, 0), -1);
	chip_out(m, 0x20, 1, 0x20);
	pulse(m, 4);
	assert_int_equal(chip_take(m, 0), 0x24);
	chip_destroy(m);
}

static void test_msi(void **state)
{
	struct machine *m = apic_machine();

	(void)state;
	machine_msi(m, 0xfee01000, 0x44);
	assert_int_equal(chip_take(m, 1), 0x44);
	assert_int_equal(chip_take(m, 0), -1);
	machine_msi(m, 0xfed01000, 0x45); /* not the window */
	machine_msi(m, UINT64_C(0x1fee01000), 0x45);
	assert_int_equal(chip_take(m, 1), -1);
	chip_events(m, 0);
	machine_msi(m, 0xfee00000, 0x400);
	assert_int_equal(chip_events(m, 0), EV_NMI);
	machine_msi(m, 0xfee00000, 0x600); /* no start-up by MSI */
	assert_int_equal(chip_events(m, 0), 0);
	chip_destroy(m);
}

static void test_hostile(void **state)
{
	static const uint16_t ports[] = { 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1 };
	struct machine *m = apic_machine();
	uint32_t seed = 1;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		seed = seed * 1103515245 + 12345;
		uint32_t r = seed >> 8, v = seed ^ r << 7;

		switch (r % 5) {
		case 0:
			chip_out(m, ports[r / 5 % 6], 1u << (r >> 4 & 1), v);
			break;
		case 1:
			chip_in(m, ports[r / 5 % 6], 1u << (r >> 4 & 1));
			break;
		case 2:
			isa(m, r >> 5 & 31, r >> 4 & 1);
			break;
		case 3:
			chip_write(m, 0, 0xfec00000 + (r >> 4 & 0x1f),
			    1u << (r >> 9 & 3), v);
			chip_read(m, 0, 0xfec00000 + (r >> 4 & 0xfff),
			    1u << (r >> 9 & 3));
			break;
		default:
			chip_line(m, r >> 4 & 63, r >> 10 & 1);
			chip_take(m, r >> 11 & 1);
			chip_eoi(m, r >> 11 & 1);
		}
	}
	chip_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ioapic_registers),
		cmocka_unit_test(test_ioapic_edge),
		cmocka_unit_test(test_ioapic_level),
		cmocka_unit_test(test_ioapic_nmi_and_dest),
		cmocka_unit_test(test_pic_priorities),
		cmocka_unit_test(test_pic_mask_and_level),
		cmocka_unit_test(test_pic_modes),
		cmocka_unit_test(test_extint_by_ioapic),
		cmocka_unit_test(test_msi),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
