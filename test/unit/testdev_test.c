/* The PC test device as a guest sees it: exit port, storage, interrupt lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bhyve/testdev.h"
#include "fake_machine.h"

#define MEM 0xff000000u

static struct fake f;
static struct testdev *dev;

static void begin(const char *value)
{
	dev = NULL;
	assert_int_equal(fake_create(&f, 1 << 20), 0);
	if (value != NULL)
		assert_int_equal(
		    config_set(f.m.cfg, "lpc.pc-testdev", value), 0);
	assert_int_equal(fake_start(&f), 0);
	assert_int_equal(testdev_create(&f.m, &dev), 0);
}

static void end(void)
{
	testdev_destroy(dev);
	assert_int_equal(fake_in(&f, 0xe0, 4), 0xffffffff);
	assert_int_equal(fake_read(&f, MEM, 8), UINT64_MAX);
	fake_destroy(&f);
}

static void test_absent(void **state)
{
	(void)state;
	begin(NULL);
	assert_null(dev);
	end();
	begin("false");
	assert_null(dev);
	end();
}

static void test_storage(void **state)
{
	(void)state;
	begin("true");
	assert_int_equal(fake_in(&f, 0xe0, 4), 0);
	fake_out(&f, 0xe0, 4, 0x44332211);
	fake_out(&f, 0xe2, 1, 0xaa);
	assert_int_equal(fake_in(&f, 0xe0, 4), 0x44aa2211);
	assert_int_equal(fake_in(&f, 0xe3, 1), 0x44);
	assert_int_equal(fake_read(&f, MEM + 0xfff8, 8), 0);
	fake_write(&f, MEM + 0xfff8, 8, 0x1122334455667788);
	fake_write(&f, MEM + 0xffff, 1, 0xee);
	assert_int_equal(fake_read(&f, MEM + 0xfff8, 8), 0xee22334455667788);
	/* Across the end: what is past it belongs to nobody. */
	assert_int_equal(fake_read(&f, MEM + 0xfffe, 4), 0xffffee22);
	fake_write(&f, MEM + 0xfffe, 4, 0);
	assert_int_equal(fake_read(&f, MEM + 0xfff8, 8), 0x334455667788);
	end();
}

static void test_lines(void **state)
{
	(void)state;
	begin("true");
	fake_out(&f, 0x2000 + 5, 1, 1);
	fake_out(&f, 0x2000 + 23, 1, 1);
	assert_true(f.isa[5]);
	assert_true(f.gsi[23]);
	assert_false(f.gsi[22]);
	fake_out(&f, 0x2000 + 5, 4, 0);
	fake_out(&f, 0x2000 + 23, 1, 0);
	assert_false(f.isa[5]);
	assert_false(f.gsi[23]);
	end();
}

static void test_exit(void **state)
{
	(void)state;
	begin("true");
	assert_int_equal(fake_in(&f, 0xf4, 1), 0);
	fake_out(&f, 0xf4, 1, 0x15);
	assert_int_equal(f.m.suspend, SUSPEND_TESTDEV);
	assert_int_equal(testdev_status(dev), 0x2b);
	fake_out(&f, 0xf4, 1, 0x16);
	assert_int_equal(testdev_status(dev), 0x2b);
	end();
	begin("true");
	fake_out(&f, 0xf4, 4, 0xfffffff0);
	assert_int_equal(testdev_status(dev), 0xe1);
	end();
}

static void test_beside_bars(void **state)
{
	(void)state;
	dev = NULL;
	assert_int_equal(fake_create(&f, 1 << 20), 0);
	assert_int_equal(config_set(f.m.cfg, "lpc.pc-testdev", "true"), 0);
	assert_int_equal(fake_slot(&f, "3,virtio-rnd"), 0);
	assert_int_equal(fake_start(&f), 0);
	assert_int_equal(testdev_create(&f.m, &dev), 0);
	assert_true(fake_bar(&f, 3, 0) >= 0x2018);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_storage),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_exit),
		cmocka_unit_test(test_beside_bars),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
