/*
 * Lockstep finds what a translator may do wrong: a register, a store, a load, an
 * exception that does not come - here made wrong by hand, in finished translations.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/jit/priv.h"
#include "lib/config.h"
#include "soft_fixture.h"

#define LOOPS 100

/* again: mov [rdi], rax; mov rdx, [rsi]; lea rax, [rax+1]; dec ecx; jnz again; hlt */
static const uint8_t code[] = { 0x48, 0x89, 0x07, 0x48, 0x8b, 0x16, 0x48, 0x8d, 0x40, 1,
	0xff, 0xc9, 0x75, 0xf2, 0xf4 };

static struct fixture f;
static struct config *config;

static int setup(void **state)
{
	(void)state;
	config = config_new();
	assert_non_null(config);
	assert_int_equal(config_set(config, "cpu.tier", "jit"), 0);
	assert_int_equal(config_set(config, "cpu.lockstep", "true"), 0);
	fixture_new_with(&f, 1, config);
	assert_int_equal(engine_soft.thread_start(f.vcpu[0]), 0);
	fixture_state(&f, 0, LONG);
	for (uint64_t a = 0; a < RAM_SIZE; a += 0x200000)
		fixture_map(&f, a, a, 21, 3);
	fixture_code(&f, CODE, code, sizeof(code));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	engine_soft.thread_stop(f.vcpu[0]);
	fixture_free(&f);
	config_free(config);
	return 0;
}

static enum engine_exit run(void)
{
	f.cpu->halted = false;
	f.cpu->rip = CODE;
	f.cpu->gpr[GPR_RCX] = LOOPS;
	f.cpu->gpr[GPR_RSI] = DATA + 128;
	f.cpu->gpr[GPR_RDI] = DATA;
	return engine_soft.run(f.vcpu[0]);
}

static void run_right(void)
{
	assert_int_equal(run(), ENGINE_HALT);
	assert_true(f.cpu->jit->stats.compared > LOOPS / 2);
}

static struct slot *slot_of(char kind)
{
	for (uint32_t i = 1; i < f.cpu->jit->nsites; i++)
		if (f.cpu->jit->slots[i].limit && f.cpu->jit->slots[i].kind == kind)
			return &f.cpu->jit->slots[i];
	fail_msg("no slot of kind %c", kind);
	return NULL;
}

static void test_right(void **state)
{
	(void)state;
	run_right();
	assert_int_equal(fixture_read(&f, DATA, 8), LOOPS - 1);
	run_right();
}

static void test_wrong_register(void **state)
{
	static const uint8_t lea[] = { 0x48, 0x8d, 0x40, 1 };
	struct jit *j = f.cpu->jit;
	uint8_t *p;

	(void)state;
	run_right();
	p = memmem(j->hot_start, j->hot.p - j->hot_start, lea, sizeof(lea));
	assert_non_null(p);
	p[3] = 2;
	assert_int_equal(run(), ENGINE_ERROR);
}

static void test_lost_store(void **state)
{
	(void)state;
	run_right();
	slot_of('w')->delta += 64;
	assert_int_equal(run(), ENGINE_ERROR);
}

static void test_stale_load(void **state)
{
	(void)state;
	run_right();
	fixture_write(&f, DATA + 256, 8, 5);
	slot_of('r')->delta += 128;
	assert_int_equal(run(), ENGINE_ERROR);
}

static void test_missed_fault(void **state)
{
	(void)state;
	run_right();
	/* Not told to the translator, which goes on reading there. */
	fixture_map(&f, DATA & ~0x1fffffu, 0, 21, 0);
	for (unsigned i = 0; i < MMU_COUNT; i++)
		for (unsigned k = 0; k < TLB_SIZE; k++)
			f.cpu->tlb->e[i][k].tag_r = f.cpu->tlb->e[i][k].tag_w = TLB_INVALID;
	assert_int_equal(run(), ENGINE_ERROR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_right, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_register, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_store, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale_load, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missed_fault, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
