/*
 * A debugger's breakpoints, watchpoints and steps, which the guest does not see.
 *
 *   soft_debug_test interp | jit
 */
#include <errno.h>
#include <string.h>

#include "lib/config.h"
#include "soft_fixture.h"

#define P    1u
#define W    2u
#define DATA 0x300000u

static struct fixture f;
static struct config *config;
static const char *tier;
static const struct engine_ops *const ops = &engine_soft;

static int setup(void **state)
{
	(void)state;
	config = config_new();
	assert_non_null(config);
	assert_int_equal(config_set(config, "cpu.tier", tier), 0);
	assert_int_equal(config_set(config, "cpu.threshold", "1"), 0);
	fixture_new_with(&f, 2, config);
	if (ops->thread_start != NULL)
		assert_int_equal(ops->thread_start(f.vcpu[0]), 0);
	fixture_state(&f, 0, LONG);
	for (uint64_t a = 0; a < RAM_SIZE; a += 0x200000)
		fixture_map(&f, a, a, 21, P | W);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (ops->thread_stop != NULL)
		ops->thread_stop(f.vcpu[0]);
	fixture_free(&f);
	config_free(config);
	return 0;
}

#define CODE_AT(gpa, ...)                                                          \
	fixture_code(&f, gpa, (const uint8_t[]){ __VA_ARGS__ },                    \
	    sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void start_at(uint64_t rip)
{
	f.cpu->halted = false;
	f.cpu->rip = rip;
}

static void halts(void)
{
	assert_int_equal(ops->run(f.vcpu[0]), ENGINE_HALT);
	f.cpu->halted = false;
}

static void stops(uint64_t rip, enum engine_point kind, uint64_t gla)
{
	uint64_t at = 0;

	assert_int_equal(ops->run(f.vcpu[0]), ENGINE_DEBUG);
	assert_true(f.cpu->rip == rip);
	assert_int_equal(ops->stopped_at(f.vcpu[0], &at), kind);
	if (kind != POINT_NONE)
		assert_true(at == gla);
}

static void steps_to(uint64_t rip)
{
	ops->step(f.vcpu[0], true);
	stops(rip, POINT_NONE, 0);
	ops->step(f.vcpu[0], false);
}

static int point(enum engine_point kind, uint64_t gla, uint64_t len, bool set)
{
	return ops->point(f.engine, kind, gla, len, set);
}

static int breakpoint(uint64_t gla, bool set)
{
	return point(POINT_EXECUTE, gla, 1, set);
}

static void install_handler(unsigned vector)
{
	uint64_t at = CODE + 0x1000, idt = DATA + 0x8000 + vector * 16;

	fixture_write(&f, DATA + 0x9008, 8, 0x00af9b000000ffff);
	f.cpu->gdt_base = DATA + 0x9000;
	f.cpu->gdt_limit = 0xff;
	f.cpu->idt_base = DATA + 0x8000;
	f.cpu->idt_limit = 0xfff;
	fixture_write(&f, idt, 8,
	    (at & 0xffff) | 8u << 16 | UINT64_C(0x8e00) << 32 | (at >> 16) << 48);
	fixture_write(&f, idt + 8, 8, at >> 32);
	CODE_AT(at, 0x90, 0xf4);
}

static void test_breakpoints(void **state)
{
	(void)state;
	/* 1: inc eax ; dec ecx ; jnz 1 ; hlt - warm, so that it is translated */
	CODE_AT(CODE, 0xff, 0xc0, 0xff, 0xc9, 0x75, 0xfa, 0xf4);
	f.cpu->gpr[GPR_RCX] = 100;
	start_at(CODE);
	halts();
	f.cpu->gpr[GPR_RAX] = 0;
	f.cpu->gpr[GPR_RCX] = 3;
	start_at(CODE);
	assert_int_equal(breakpoint(CODE + 2, true), 0);
	assert_int_equal(breakpoint(CODE + 2, true), -EEXIST);
	assert_int_equal(breakpoint(CODE + 3, false), -ENOENT);
	for (unsigned i = 1; i <= 3; i++) {
		stops(CODE + 2, POINT_EXECUTE, CODE + 2);
		assert_int_equal(f.cpu->gpr[GPR_RAX], i);
		/* It stays there until stepped past. */
		stops(CODE + 2, POINT_EXECUTE, CODE + 2);
		assert_int_equal(f.cpu->gpr[GPR_RAX], i);
		steps_to(CODE + 4);
	}
	halts();
	assert_int_equal(breakpoint(CODE + 2, false), 0);
	f.cpu->gpr[GPR_RCX] = 2;
	start_at(CODE);
	halts();
	assert_int_equal(f.cpu->gpr[GPR_RAX], 5);
	for (unsigned i = 0; i < POINTS; i++)
		assert_int_equal(breakpoint(i, true), 0);
	assert_int_equal(breakpoint(1000, true), -ENOSPC);
	assert_int_equal(point(POINT_WRITE, 0, 0, true), -EINVAL);
}

/* One physical page at two addresses: only the one meant stops, whoever decodes it.
 */
static void test_breakpoint_at_one_of_two_addresses(void **state)
{
	uint64_t lin[] = { 0x40000000, 0x40005000 };

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		fixture_map(&f, lin[i], CODE, 12, P | W);
	/* inc eax ; inc eax ; hlt */
	CODE_AT(CODE, 0xff, 0xc0, 0xff, 0xc0, 0xf4);
	assert_int_equal(breakpoint(lin[1] + 2, true), 0);
	for (unsigned i = 0; i < 10; i++) {
		start_at(lin[0]);
		halts();
		start_at(lin[1]);
		stops(lin[1] + 2, POINT_EXECUTE, lin[1] + 2);
	}
}

/* The rest of the program runs as fast as ever: its blocks are translated. */
static void test_breakpoints_elsewhere(void **state)
{
	(void)state;
	CODE_AT(CODE, 0xff, 0xc0, 0xff, 0xc9, 0x75, 0xfa, 0xf4);
	assert_int_equal(breakpoint(CODE + 0x800, true), 0);
	f.cpu->gpr[GPR_RAX] = 0;
	f.cpu->gpr[GPR_RCX] = 1000000;
	start_at(CODE);
	halts();
	assert_int_equal(f.cpu->gpr[GPR_RAX], 1000000);
	if (f.cpu->jit)
		assert_true(f.cpu->stats.insns < 1000);
	/* And the loop that is running then stops when one comes into it. */
	f.cpu->gpr[GPR_RAX] = 0;
	f.cpu->gpr[GPR_RCX] = 2;
	assert_int_equal(breakpoint(CODE + 4, true), 0);
	start_at(CODE);
	stops(CODE + 4, POINT_EXECUTE, CODE + 4);
	assert_int_equal(f.cpu->gpr[GPR_RAX], 1);
}

static void test_breakpoint_with_faults_and_crossing(void **state)
{
	uint64_t lin = 0x40000000;

	(void)state;
	install_handler(EXC_PF);
	fixture_map(&f, lin, CODE, 12, P | W);
	/* mov eax, 5, of which one byte lies in a page that is not there */
	CODE_AT(CODE + 0xffc, 0xb8, 5, 0, 0);
	assert_int_equal(breakpoint(lin + 0xffc, true), 0);
	start_at(lin + 0xffc);
	halts(); /* in the handler: the fetch comes first */
	fixture_map(&f, lin + 0x1000, CODE + 0x2000, 12, P | W);
	CODE_AT(CODE + 0x2000, 0, 0xf4);
	start_at(lin + 0xffc);
	stops(lin + 0xffc, POINT_EXECUTE, lin + 0xffc);
	steps_to(lin + 0x1001);
	assert_int_equal(f.cpu->gpr[GPR_RAX], 5);
}

static void test_steps_are_unseen(void **state)
{
	(void)state;
	/* pushf ; pop rax ; ud2 */
	CODE_AT(CODE, 0x9c, 0x58, 0x0f, 0x0b);
	install_handler(EXC_UD);
	start_at(CODE);
	steps_to(CODE + 1);
	steps_to(CODE + 2);
	assert_int_equal(f.cpu->gpr[GPR_RAX] & RF_TF, 0);
	/* A fault: the step ends before the handler's first instruction. */
	steps_to(CODE + 0x1000);
	assert_int_equal(f.cpu->dr6 & 0x4000, 0);
	halts();
}

static void test_steps_hold_interrupts_off(void **state)
{
	(void)state;
	/* nop ; nop ; hlt */
	CODE_AT(CODE, 0x90, 0x90, 0xf4);
	install_handler(0x40);
	start_at(CODE);
	f.cpu->rflags |= RF_IF;
	f.vector = 0x40;
	atomic_fetch_or(&f.link[0]->events, EV_INTR);
	steps_to(CODE + 1);
	assert_int_equal(ops->run(f.vcpu[0]), ENGINE_HALT);
	assert_int_equal(f.cpu->rip, CODE + 0x1002);
}

static void test_step_of_a_halted_cpu(void **state)
{
	(void)state;
	/* hlt ; nop */
	CODE_AT(CODE, 0xf4, 0x90);
	install_handler(0x40);
	start_at(CODE);
	f.cpu->rflags |= RF_IF;
	steps_to(CODE + 1);
	assert_true(f.cpu->halted);
	ops->step(f.vcpu[0], true);
	assert_int_equal(ops->run(f.vcpu[0]), ENGINE_HALT);
	f.vector = 0x40;
	atomic_fetch_or(&f.link[0]->events, EV_INTR);
	stops(CODE + 0x1000, POINT_NONE, 0);
	assert_false(f.cpu->halted);
	ops->step(f.vcpu[0], false);
	halts();
}

static void test_watchpoints(void **state)
{
	(void)state;
	/* mov [rbx], eax ; mov edx, [rbx] ; mov [rbx+8], eax ; hlt */
	CODE_AT(CODE, 0x89, 0x03, 0x8b, 0x13, 0x89, 0x43, 8, 0xf4);
	f.cpu->gpr[GPR_RBX] = DATA;
	for (unsigned i = 0; i < 5; i++) { /* accesses are on their fast path */
		start_at(CODE);
		halts();
	}
	assert_int_equal(point(POINT_WRITE, DATA + 3, 1, true), 0);
	f.cpu->gpr[GPR_RAX] = 77;
	start_at(CODE);
	stops(CODE + 2, POINT_WRITE, DATA + 3);
	assert_int_equal(fixture_read(&f, DATA, 4), 77);
	halts();
	assert_int_equal(point(POINT_WRITE, DATA + 3, 1, false), 0);
	assert_int_equal(point(POINT_READ, DATA, 4, true), 0);
	start_at(CODE);
	stops(CODE + 4, POINT_READ, DATA);
	assert_int_equal(point(POINT_READ, DATA, 4, false), 0);
	assert_int_equal(point(POINT_ACCESS, DATA, 12, true), 0);
	start_at(CODE);
	stops(CODE + 2, POINT_ACCESS, DATA);
	stops(CODE + 4, POINT_ACCESS, DATA);
	stops(CODE + 7, POINT_ACCESS, DATA + 8);
	halts();
	assert_int_equal(point(POINT_ACCESS, DATA, 12, false), 0);
	start_at(CODE);
	halts();
}

static void test_watchpoint_in_a_string(void **state)
{
	(void)state;
	/* rep stosb ; hlt */
	CODE_AT(CODE, 0xf3, 0xaa, 0xf4);
	assert_int_equal(point(POINT_WRITE, DATA + 100, 2, true), 0);
	f.cpu->gpr[GPR_RDI] = DATA;
	f.cpu->gpr[GPR_RCX] = 0x200;
	start_at(CODE);
	stops(CODE, POINT_WRITE, DATA + 100);
	assert_true(f.cpu->gpr[GPR_RDI] == DATA + 101);
	stops(CODE, POINT_WRITE, DATA + 101);
	halts();
	assert_true(f.cpu->gpr[GPR_RCX] == 0);
}

/* The access of an instruction that faults did not happen. */
static void test_watchpoint_of_an_undone_instruction(void **state)
{
	(void)state;
	/* movsb to nowhere */
	CODE_AT(CODE, 0xa4, 0xf4);
	install_handler(EXC_PF);
	f.cpu->gpr[GPR_RSI] = DATA;
	f.cpu->gpr[GPR_RDI] = 0x40000000;
	assert_int_equal(point(POINT_READ, DATA, 8, true), 0);
	start_at(CODE);
	halts();
	assert_true(f.cpu->rip == CODE + 0x1002);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_breakpoints),
		TEST(test_breakpoint_at_one_of_two_addresses),
		TEST(test_breakpoints_elsewhere),
		TEST(test_breakpoint_with_faults_and_crossing),
		TEST(test_steps_are_unseen),
		TEST(test_steps_hold_interrupts_off),
		TEST(test_step_of_a_halted_cpu),
		TEST(test_watchpoints),
		TEST(test_watchpoint_in_a_string),
		TEST(test_watchpoint_of_an_undone_instruction),
	};

	tier = argc > 1 ? argv[1] : "interp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
