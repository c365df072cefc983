/* Code memory: never writable and executable at once, never handed out twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/soft/soft.h"

static void test_runs(void **state)
{
	static const uint8_t code[] = { 0xb8, 42, 0, 0, 0,
		0xc3 }; /* mov eax, 42; ret */
	struct codemem *cm;
	uint8_t *rw, *rx;

	(void)state;
	assert_int_equal(codemem_new(&cm, 1 * MiB), 0);
	assert_int_equal(codemem_alloc(cm, sizeof(code), &rw, &rx), 0);
	assert_ptr_not_equal(rw, rx);
	assert_ptr_equal(codemem_rx_to_rw(cm, rx), rw);
	memcpy(rw, code, sizeof(code));
	assert_int_equal(((int (*)(void))(void *)rx)(), 42);
	codemem_release(cm, rx, sizeof(code));
	assert_int_equal(*rx, 0xcc);
	codemem_free(cm);
}

static void test_mappings(void **state)
{
	struct codemem *cm;
	char line[512];
	unsigned seen = 0;
	FILE *f;

	(void)state;
	assert_int_equal(codemem_new(&cm, 64 * KiB), 0);
	f = fopen("/proc/self/maps", "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		char *perms = strchr(line, ' ') + 1;

		if (strstr(line, "bhyve-code") == NULL)
			continue;
		assert_false(perms[1] == 'w' && perms[2] == 'x');
		seen++;
	}
	fclose(f);
	assert_int_equal(seen, 2);
	codemem_free(cm);
}

#define PIECES 600

static void test_full(void **state)
{
	uint8_t *rx[PIECES], *rw;
	struct codemem *cm;
	unsigned n = 0;

	(void)state;
	assert_int_equal(codemem_new(&cm, 64 * KiB), 0);
	while (n < PIECES && codemem_alloc(cm, 100, &rw, &rx[n]) == 0) {
		memset(rw, (int)n, 100);
		n++;
	}
	assert_int_equal(n, 64 * KiB / 128);
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < 100; k++)
			assert_int_equal(rx[i][k], (uint8_t)i);
	assert_int_equal(codemem_alloc(cm, 1, &rw, &rx[n]), -12);
	/* Two neighbours make room for one of their joint size. */
	codemem_release(cm, rx[100], 100);
	codemem_release(cm, rx[101], 100);
	assert_int_equal(codemem_alloc(cm, 256, &rw, &rx[n]), 0);
	assert_ptr_equal(rx[n], rx[100]);
	assert_int_equal(codemem_alloc(cm, 1, &rw, &rx[n]), -12);
	codemem_free(cm);
}

static void test_refused(void **state)
{
	struct codemem *cm;
	uint8_t *rw, *rx;

	(void)state;
	assert_int_equal(codemem_new(&cm, 0), -22);
	assert_int_equal(codemem_new(&cm, SIZE_MAX), -22);
	assert_int_equal(codemem_new(&cm, 4096), 0);
	assert_int_equal(codemem_alloc(cm, 0, &rw, &rx), -12);
	assert_int_equal(codemem_alloc(cm, SIZE_MAX, &rw, &rx), -12);
	codemem_free(cm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
