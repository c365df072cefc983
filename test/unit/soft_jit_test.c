/* The translator's bookkeeping of code: links and what becomes of them. */
#include <string.h>

#include "cpu/soft/jit/priv.h"
#include "lib/config.h"
#include "soft_fixture.h"

static struct fixture f;
static struct config *config;

static int setup(void **state)
{
	(void)state;
	config = config_new();
	assert_non_null(config);
	assert_int_equal(config_set(config, "cpu.tier", "jit"), 0);
	assert_int_equal(config_set(config, "cpu.threshold", "1"), 0);
	fixture_new_with(&f, 1, config);
	assert_int_equal(engine_soft.thread_start(f.vcpu[0]), 0);
	fixture_state(&f, 0, LONG);
	for (uint64_t a = 0; a < RAM_SIZE; a += 0x200000)
		fixture_map(&f, a, a, 21, 3);
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

static void run(void)
{
	f.cpu->halted = false;
	f.cpu->rip = CODE;
	f.cpu->gpr[GPR_RAX] = f.cpu->gpr[GPR_RCX] = f.cpu->gpr[GPR_RDX] = 5;
	assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
	assert_int_equal(f.cpu->gpr[GPR_RAX], 0x1234567812345678);
	assert_int_equal(f.cpu->gpr[GPR_RCX], 0);
	assert_int_equal(f.cpu->gpr[GPR_RDX], 0);
}

/*
 * A block that follows its predecessor without a jump dies, and so does the one it
 * jumps to: its own jump must not be taken back where the predecessor's is now.
 */
static void test_short_block_between_two_others(void **state)
{
	static const uint8_t first[] = { /* mov rax, ... ; jmp second */
		0x48, 0xb8, 0x78, 0x56, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12,
		0xe9, 0x11, 0, 0, 0 };
	static const uint8_t second[] = { 0x31, 0xc9, 0xe9, 0x19, 0, 0, 0 };
	static const uint8_t third[] = { 0x31, 0xd2, 0xf4 };
	uint64_t inlined = 0;

	(void)state;
	fixture_code(&f, CODE, first, sizeof(first));
	fixture_code(&f, CODE + 0x20, second, sizeof(second));
	fixture_code(&f, CODE + 0x40, third, sizeof(third));
	for (int i = 0; i < 4; i++)
		run();
	for (uint32_t i = 0; i < f.cpu->jit->nedges; i++)
		inlined += f.cpu->jit->edges[i].inlined;
	assert_int_equal(inlined, 1);
	/* Not the bytes that a look ahead for flags makes others depend on. */
	fixture_code(&f, CODE + 0x22, second + 2, 5);
	run();
	fixture_code(&f, CODE + 0x42, third + 2, 1);
	for (int i = 0; i < 4; i++)
		run();
}

/*
 * The same with a jump that begins in the last byte of the predecessor's and had become
 * a NOP, because its target, translated on its own, lay right behind it.
 */
static void test_short_block_without_a_jump(void **state)
{
	static const uint8_t first[] = { /* mov rax, ... ; jmp second */
		0x48, 0xb8, 0x78, 0x56, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12,
		0xe9, 0x11, 0, 0, 0 };
	static const uint8_t second[] = { 0x31, 0xc9, 0x31, 0xc9, 0xe9, 0x17, 0, 0, 0 };
	static const uint8_t third[] = { 0x31, 0xd2, 0xf4 };
	uint64_t nops = 0;

	(void)state;
	f.cpu->jit->threshold = 2;
	fixture_code(&f, CODE, first, sizeof(first));
	fixture_code(&f, CODE + 0x20, second, sizeof(second));
	fixture_code(&f, CODE + 0x40, third, sizeof(third));
	run();
	fixture_code(&f, CODE + 0x42, third + 2, 1);
	run();
	f.cpu->halted = false;
	f.cpu->rip = CODE + 0x40;
	assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
	run();
	for (uint32_t i = 0; i < f.cpu->jit->nedges; i++)
		nops += f.cpu->jit->edges[i].nop;
	assert_int_equal(nops, 1);
	fixture_code(&f, CODE + 0x24, second + 4, 5);
	fixture_code(&f, CODE + 0x42, third + 2, 1);
	for (int i = 0; i < 4; i++)
		run();
}

/* String instructions move their registers: what was checked before does not count. */
static void test_access_behind_a_string_instruction(void **state)
{
	/* mov [rdi], rax ; scasq ; mov [rdi], rax ; hlt */
	static const uint8_t code[] = { 0x48, 0x89, 0x07, 0x48, 0xaf, 0x48, 0x89, 0x07, 0xf4 };
	const uint64_t page = 0x40000000;

	(void)state;
	fixture_map(&f, page, DATA, 12, 3);
	fixture_code(&f, CODE, code, sizeof(code));
	for (int i = 0; i < 4; i++) {
		f.cpu->halted = false;
		f.cpu->rip = CODE;
		f.cpu->gpr[GPR_RDI] = page + 256;
		assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
	}
	fixture_write(&f, DATA + MEMORY_PAGE, 8, 1);
	f.cpu->halted = false;
	f.cpu->rip = CODE;
	f.cpu->gpr[GPR_RAX] = 2;
	f.cpu->gpr[GPR_RDI] = page + MEMORY_PAGE - 8;
	/* A page fault without an IDT. */
	assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_SHUTDOWN);
	assert_true(f.cpu->cr2 == page + MEMORY_PAGE);
	assert_int_equal(fixture_read(&f, DATA + MEMORY_PAGE, 8), 1);
}

/* Two accesses: what the first one finds is no good when the second one had to look. */
static void test_push_of_memory(void **state)
{
	/* mov [rsi], rax ; mov rax, [rdi] ; mov rcx, [rdi + 8] ; push [rdi + 16] ; hlt */
	static const uint8_t code[] = { 0x48, 0x89, 0x06, 0x48, 0x8b, 0x07, 0x48, 0x8b, 0x4f,
		8, 0xff, 0x77, 16, 0xf4 };

	(void)state;
	fixture_code(&f, CODE, code, sizeof(code));
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(memory_write(&f.mem, 0x20000 + i * 8, &(uint64_t){ 7 + i },
				     8), 0);
	for (int i = 0; i < 3; i++) {
		f.cpu->halted = false;
		f.cpu->rip = CODE;
		f.cpu->gpr[GPR_RDI] = 0x20000;
		/* So that the software TLB knows the stack before the slot of PUSH does. */
		f.cpu->gpr[GPR_RSI] = 0x30800;
		f.cpu->gpr[GPR_RSP] = 0x31000;
		assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
		assert_int_equal(*(uint64_t *)memory_ptr(&f.mem, 0x30ff8, 8), 9);
	}
	assert_int_equal(f.cpu->jit->stats.signals, 0);
}

/* A return with flags, when no call is outstanding, leaves nothing for the next one. */
static void test_returns_without_calls(void **state)
{
	/*
	 * lea rax, [rip + 4]; push rax; cmp eax, eax; ret
	 * lea rax, [rip + 2]; push rax; ret; hlt
	 */
	static const uint8_t code[] = { 0x48, 0x8d, 0x05, 4, 0, 0, 0, 0x50, 0x39, 0xc0, 0xc3,
		0x48, 0x8d, 0x05, 2, 0, 0, 0, 0x50, 0xc3, 0xf4 };
	const uint64_t page = 0x40000000;

	(void)state;
	fixture_map(&f, page, DATA, 12, 3);
	fixture_code(&f, CODE, code, sizeof(code));
	for (int i = 0; i < 8; i++) {
		f.cpu->halted = false;
		f.cpu->rip = CODE;
		f.cpu->gpr[GPR_RSP] = page + 256;
		assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
		assert_int_equal(f.cpu->rip, CODE + sizeof(code));
	}
}

/*
 * PUSH and CALL of what lies in memory begin anew when there is no slot for the stack:
 * what led to the operand is lost then. The stack is on another page every time.
 */
static void twice(const uint8_t *code, size_t n, uint64_t expect)
{
	const uint64_t page = 0x40000000;

	for (uint64_t i = 0; i < 3; i++)
		fixture_map(&f, page + i * 0x2000, DATA + i * MEMORY_PAGE, 12, 3);
	fixture_write(&f, DATA + 16, 8, CODE + 0x40);
	fixture_code(&f, CODE, code, n);
	fixture_code(&f, CODE + 0x40, "\xf4", 1);
	for (uint64_t i = 0; i < 12; i++) {
		f.cpu->halted = false;
		f.cpu->rip = CODE;
		f.cpu->gpr[GPR_RBX] = page;
		f.cpu->gpr[GPR_RSP] = page + (1 + i % 2) * 0x2000 + 256;
		assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
		assert_int_equal(fixture_read(&f, DATA + (1 + i % 2) * MEMORY_PAGE + 248, 8),
		    expect);
	}
}

static void test_push_and_call_begin_anew(void **state)
{
	/* mov rcx, [rbx]; push [rbx + 16]; xor eax, eax; hlt */
	static const uint8_t push[] = { 0x48, 0x8b, 0x0b, 0xff, 0x73, 0x10, 0x31, 0xc0, 0xf4 };
	/* mov rcx, [rbx]; call [rbx + 16] */
	static const uint8_t call[] = { 0x48, 0x8b, 0x0b, 0xff, 0x53, 0x10 };

	(void)state;
	twice(push, sizeof(push), CODE + 0x40);
	twice(call, sizeof(call), CODE + sizeof(call));
}

/* What a NOP or a prefetch names is not accessed, so it need not be there. */
static void test_operands_of_nops(void **state)
{
	/* nop [rax + rax]; nop [rax + rax + 8]; prefetchw [rax]; prefetchw [rax + 8]; hlt */
	static const uint8_t code[] = { 0x0f, 0x1f, 0x44, 0, 0, 0x0f, 0x1f, 0x44, 0, 8,
		0x0f, 0x0d, 0x08, 0x0f, 0x0d, 0x48, 8, 0xf4 };

	(void)state;
	fixture_code(&f, CODE, code, sizeof(code));
	for (int i = 0; i < 4; i++) {
		f.cpu->halted = false;
		f.cpu->rip = CODE;
		f.cpu->gpr[GPR_RAX] = 0x4000000000000000;
		assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
	}
	assert_true(f.cpu->jit->stats.translations > 0);
	assert_int_equal(f.cpu->jit->stats.slot_misses, 0);
}

/* Blocks that ran once make room for others, and come back when they run again. */
static void test_blocks_that_ran_once(void **state)
{
	enum { BLOCKS = 40000 };
	static uint8_t code[BLOCKS * 5 + 1];
	const uint64_t at = RAM_SIZE / 2;

	(void)state;
	f.cpu->jit->threshold = 1000;
	/* add eax, 1 ; jmp to the next; at the end hlt */
	for (size_t i = 0; i < BLOCKS; i++)
		memcpy(code + i * 5, (uint8_t[]){ 0x83, 0xc0, 1, 0xeb, 0 }, 5);
	code[BLOCKS * 5] = 0xf4;
	assert_true(at + sizeof(code) <= RAM_SIZE);
	fixture_code(&f, at, code, sizeof(code));
	for (unsigned n = 0; n < 3; n++) {
		f.cpu->halted = false;
		f.cpu->rip = at;
		f.cpu->gpr[GPR_RAX] = 0;
		assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
		assert_int_equal(f.cpu->gpr[GPR_RAX], BLOCKS);
		assert_true(f.cpu->stats.invalidations > 0);
	}
	/* What was written is not what was decoded, whether it was dropped or not. */
	for (size_t i = 0; i < BLOCKS; i += 7)
		fixture_write(&f, at + i * 5 + 2, 1, 2);
	f.cpu->halted = false;
	f.cpu->rip = at;
	f.cpu->gpr[GPR_RAX] = 0;
	memory_written(f.cpu->mem, at, sizeof(code));
	assert_int_equal(engine_soft.run(f.vcpu[0]), ENGINE_HALT);
	assert_int_equal(f.cpu->gpr[GPR_RAX], BLOCKS + (BLOCKS + 6) / 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
		    test_short_block_between_two_others, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_short_block_without_a_jump, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_access_behind_a_string_instruction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_push_of_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_returns_without_calls, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_push_and_call_begin_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(test_operands_of_nops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_blocks_that_ran_once, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
