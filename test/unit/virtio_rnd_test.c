/* virtio-rnd: fills buffers, takes none too large, survives odd chains. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "virtio_driver.h"

#define DATA 0x200000u

static struct fake f;
static struct vdriver d;

static void begin(bool modern)
{
	assert_int_equal(fake_create(&f, 16 * 1024 * 1024), 0);
	assert_int_equal(fake_slot(&f, "5,virtio-rnd"), 0);
	assert_int_equal(fake_start(&f), 0);
	assert_true(modern ? vd_start_modern(&d, &f, 5, UINT64_C(1) << 32, 64)
			   : vd_start_legacy(&d, &f, 5, 0));
	assert_int_equal(d.size, 64);
}

static void fill(bool modern)
{
	uint8_t *data;
	unsigned zeros = 0;

	begin(modern);
	data = fake_ram(&f, DATA);
	memset(data, 0, 4096);
	vd_desc(&d, 0, DATA, 100, VD_WRITE | VD_NEXT, 1);
	vd_desc(&d, 1, DATA + 1000, 100, VD_WRITE, 0);
	vd_offer(&d, 0);
	vd_kick(&d);
	assert_true(vd_wait_used(&d, 1));
	assert_int_equal(d.used[1], 200);
	for (unsigned i = 0; i < 100; i++)
		zeros += (data[i] == 0) + (data[1000 + i] == 0);
	assert_true(zeros < 20);
	assert_int_equal(data[100], 0);
	assert_int_equal(data[999], 0);
	assert_int_equal(data[1100], 0);
	fake_destroy(&f);
}

static void test_legacy(void **state)
{
	(void)state;
	fill(false);
}

static void test_modern(void **state)
{
	(void)state;
	fill(true);
}

static void test_bounds(void **state)
{
	(void)state;
	begin(true);
	/* A megabyte: answered with less. Then one that cannot be written to. */
	vd_desc(&d, 0, DATA, 1024 * 1024, VD_WRITE, 0);
	vd_offer(&d, 0);
	vd_kick(&d);
	assert_true(vd_wait_used(&d, 1));
	assert_true(d.used[1] > 0 && d.used[1] <= 256);
	vd_desc(&d, 1, DATA, 16, 0, 0);
	vd_offer(&d, 1);
	vd_kick(&d);
	assert_true(vd_wait_used(&d, 2));
	assert_int_equal(d.used[3], 0);
	/* The whole ring at once. */
	for (unsigned i = 0; i < 64; i++) {
		vd_desc(&d, i, DATA + i * 64, 64, VD_WRITE, 0);
		vd_offer(&d, (uint16_t)i);
	}
	vd_kick(&d);
	assert_true(vd_wait_used(&d, 66));
	fake_destroy(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_legacy),
		cmocka_unit_test(test_modern),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
