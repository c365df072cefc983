/* Memory sizes and numbers as typed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/size.h"

static void memory_sizes(void **state)
{
	static const struct {
		const char *text;
		int error;
		uint64_t bytes;
	} cases[] = {
		{ "256", 0, 256ull << 20 },
		{ "1024M", 0, 1ull << 30 },
		{ "1024m", 0, 1ull << 30 },
		{ "2g", 0, 2ull << 30 },
		{ "1T", 0, 1ull << 40 },
		{ "64K", 0, 64 << 10 },
		{ "1048575", 0, 1048575ull << 20 },
		{ "1048576", 0, 1048576 },
		{ "268435456", 0, 256ull << 20 },
		{ "0", 0, 0 },
		{ "0x10M", 0, 16 << 20 },
		{ "", -EINVAL, 0 },
		{ "M", -EINVAL, 0 },
		{ "-1M", -EINVAL, 0 },
		{ " 1M", -EINVAL, 0 },
		{ "1MB", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 },
		{ "1M ", -EINVAL, 0 },
		{ "16777216T", -ERANGE, 0 },
		{ "99999999999999999999", -ERANGE, 0 },
		{ "16777215T", 0, 16777215ull << 40 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 0;

		assert_int_equal(
		    size_parse_memory(cases[i].text, &bytes), cases[i].error);
		assert_true(bytes == cases[i].bytes);
	}
}

static void numbers(void **state)
{
	uint64_t n = 0;

	(void)state;
	assert_int_equal(number_parse("0x1f", 0, 31, &n), 0);
	assert_int_equal(n, 31);
	assert_int_equal(number_parse("32", 0, 31, &n), -ERANGE);
	assert_int_equal(number_parse("0", 1, 31, &n), -ERANGE);
	assert_int_equal(number_parse("3x", 0, 31, &n), -EINVAL);
	assert_int_equal(number_parse("+3", 0, 31, &n), -EINVAL);
	assert_int_equal(number_parse("", 0, 31, &n), -EINVAL);
	assert_int_equal(
	    number_parse("18446744073709551616", 0, UINT64_MAX, &n), -ERANGE);
	assert_int_equal(
	    number_parse("18446744073709551615", 0, UINT64_MAX, &n), 0);
	assert_int_equal(n, 31 + (UINT64_MAX - 31));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_sizes),
		cmocka_unit_test(numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
