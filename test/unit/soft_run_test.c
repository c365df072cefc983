/*
 * Blocks and the loop: self-modifying code, writes by devices and other vCPUs, page
 * crossing, precise faults, interrupts and their shadow, strings, locked operands.
 */
#include <pthread.h>
#include <string.h>

#include "soft_fixture.h"

#define P 0x1u
#define W 0x2u

static int setup(void **state)
{
	static struct fixture f;

	fixture_new(&f, 2);
	fixture_state(&f, 0, LONG);
	for (uint64_t a = 0; a < RAM_SIZE; a += 0x200000)
		fixture_map(&f, a, a, 21, P | W);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

#define CODE_AT(f, gpa, ...)                                                       \
	fixture_code(f, gpa, (const uint8_t[]){ __VA_ARGS__ },                     \
	    sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void run_to_halt(struct fixture *f)
{
	assert_int_equal(engine_soft.run(f->vcpu[0]), ENGINE_HALT);
	f->cpu->halted = false;
}

static void run_at(struct fixture *f, uint64_t rip)
{
	f->cpu->rip = rip;
	run_to_halt(f);
}

static void test_store_into_own_block(void **state)
{
	struct fixture *f = *state;

	/* mov byte [rip+1], 2 ; mov al, 1 (the 1 becomes 2) ; hlt */
	CODE_AT(f, CODE, 0xc6, 0x05, 1, 0, 0, 0, 2, 0xb0, 1, 0xf4);
	run_at(f, CODE);
	assert_int_equal(f->cpu->gpr[GPR_RAX] & 0xff, 2);
}

static void test_store_into_other_code_and_back_to_fast(void **state)
{
	struct fixture *f = *state;

	CODE_AT(f, CODE, 0xb0, 1, 0xf4);
	run_at(f, CODE);
	assert_int_equal(f->mem.code[CODE >> 12], 1);
	/* A store beside the code leaves the block, one into it drops it. */
	mmu_store(f->cpu, CODE + 64, 8, 0);
	assert_int_equal(f->mem.code[CODE >> 12], 1);
	mmu_store(f->cpu, CODE + 1, 1, 7);
	assert_int_equal(f->mem.code[CODE >> 12], 0);
	mmu_store(f->cpu, CODE + 64, 8, 0);
	assert_true(mmu_rw_fast(f->cpu, CODE, 8) != NULL);
	run_at(f, CODE);
	assert_int_equal(f->cpu->gpr[GPR_RAX] & 0xff, 7);
	/* Fast writes went when the page became code again. */
	assert_null(mmu_rw_fast(f->cpu, CODE, 8));
	assert_null(mmu_rmw_ptr(f->cpu, CODE + 64, 8));
	assert_non_null(mmu_rmw_ptr(f->cpu, CODE, 4));
}

static void test_device_write_drops_code(void **state)
{
	struct fixture *f = *state;

	CODE_AT(f, CODE, 0xb0, 1, 0xf4);
	run_at(f, CODE);
	CODE_AT(f, CODE + 1, 9);
	run_at(f, CODE);
	assert_int_equal(f->cpu->gpr[GPR_RAX] & 0xff, 9);
}

static void test_string_store_over_code(void **state)
{
	struct fixture *f = *state;

	CODE_AT(f, CODE + 0x800, 0xb0, 1, 0xf4);
	run_at(f, CODE + 0x800);
	/* rep stosb ; jmp to it */
	CODE_AT(f, CODE + 0x2000, 0xf3, 0xaa, 0xff, 0xe6);
	f->cpu->gpr[GPR_RAX] = 0xf4;
	f->cpu->gpr[GPR_RCX] = 0x2000;
	f->cpu->gpr[GPR_RDI] = CODE;
	f->cpu->gpr[GPR_RSI] = CODE + 0x800;
	run_at(f, CODE + 0x2000);
	assert_int_equal(f->cpu->rip, CODE + 0x801);
	assert_int_equal(f->cpu->gpr[GPR_RCX], 0);
	assert_int_equal(f->cpu->gpr[GPR_RDI], CODE + 0x2000);
}

static void test_crossing_instruction_follows_its_second_page(void **state)
{
	struct fixture *f = *state;
	uint64_t lin = 0x40000000;

	/* mov eax, imm32 with its last two bytes on the next page, then hlt */
	fixture_map(f, lin, DATA, 12, P | W);
	fixture_map(f, lin + 0x1000, DATA + 0x1000, 12, P | W);
	CODE_AT(f, DATA + 0xffc, 0x90, 0xb8, 1, 2);
	CODE_AT(f, DATA + 0x1000, 3, 4, 0xf4);
	CODE_AT(f, DATA + 0x2000, 5, 6, 0xf4);
	run_at(f, lin + 0xffc);
	assert_int_equal(f->cpu->gpr[GPR_RAX], 0x04030201);
	/* The same first page with another second page. */
	fixture_map(f, lin + 0x1000, DATA + 0x2000, 12, P | W);
	mmu_flush_page(f->cpu, lin + 0x1000);
	run_at(f, lin + 0xffc);
	assert_int_equal(f->cpu->gpr[GPR_RAX], 0x06050201);
	/* A store to the second page reaches the instruction. */
	mmu_store(f->cpu, DATA + 0x2000, 1, 0x77);
	run_at(f, lin + 0xffc);
	assert_int_equal(f->cpu->gpr[GPR_RAX], 0x06770201);
}

/* An IDT whose #PF gate leads to a HLT at CODE + 0x1000. */
static void install_handler(struct fixture *f, unsigned vector)
{
	uint64_t at = CODE + 0x1000, idt = DATA + 0x8000 + vector * 16;

	fixture_write(f, DATA + 0x9008, 8, 0x00af9b000000ffff);
	f->cpu->gdt_base = DATA + 0x9000;
	f->cpu->gdt_limit = 0xff;
	f->cpu->idt_base = DATA + 0x8000;
	f->cpu->idt_limit = 0xfff;
	fixture_write(f, idt, 8,
	    (at & 0xffff) | 8u << 16 | UINT64_C(0x8e00) << 32 | (at >> 16) << 48);
	fixture_write(f, idt + 8, 8, at >> 32);
	CODE_AT(f, at, 0xf4);
}

static void test_fetch_fault_is_raised_when_reached(void **state)
{
	struct fixture *f = *state;
	uint64_t lin = 0x40000000;

	install_handler(f, EXC_PF);
	fixture_map(f, lin, DATA, 12, P | W);
	CODE_AT(f, DATA + 0xff8, 0xff, 0xc3, 0xff, 0xc3, 0xff, 0xc3, 0xb8, 1);
	f->cpu->gpr[GPR_RBX] = 0;
	run_at(f, lin + 0xff8);
	assert_int_equal(f->cpu->gpr[GPR_RBX], 3);
	assert_true(f->cpu->cr2 == lin + 0x1000);
	assert_true(fixture_read(f, f->cpu->gpr[GPR_RSP] + 8, 8) == lin + 0xffe);
	assert_int_equal(fixture_read(f, f->cpu->gpr[GPR_RSP], 8), PF_I);
}

static void test_faults_leave_registers(void **state)
{
	/*
	 * Each at RSP = RBX = an unmapped or half mapped address; nothing may
	 * change.
	 */
	static const uint8_t code[][4] = {
		{ 0x50 },             /* push rax */
		{ 0x58 },             /* pop rax */
		{ 0x8f, 0x03 },       /* pop [rbx] */
		{ 0xff, 0x33 },       /* push [rbx] */
		{ 0xc9 },             /* leave */
		{ 0xc3 },             /* ret */
		{ 0xff, 0x13 },       /* call [rbx] */
		{ 0x01, 0x03 },       /* add [rbx], eax */
		{ 0x0f, 0xc1, 0x03 }, /* xadd [rbx], eax */
		{ 0x0f, 0xb1, 0x0b }, /* cmpxchg [rbx], ecx */
		{ 0x87, 0x03 },       /* xchg [rbx], eax */
		{ 0xf0, 0xff, 0x03 }, /* lock inc [rbx] */
		{ 0xa5 },             /* movsd */
		{ 0xc8, 0, 0, 3 },    /* enter 0, 3 */
	};
	struct fixture *f = *state;

	install_handler(f, EXC_PF);
	for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
		uint64_t before[16], flags;

		fixture_code(f, CODE, code[i], sizeof(code[i]));
		for (unsigned r = 0; r < 16; r++)
			f->cpu->gpr[r] = 0x7f0000000000 + 0x10 * (r & 1);
		/*
		 * The handler's stack comes from the IST, as the guest's is no
		 * good.
		 */
		fixture_write(f, DATA + 0x8000 + EXC_PF * 16 + 4, 1, 1);
		f->cpu->seg[SEG_TR] = (struct soft_seg){
			.base = DATA + 0xa000, .limit = 0xff, .access = 0x8b
		};
		fixture_write(f, DATA + 0xa000 + 36, 8, STACK_TOP);
		memcpy(before, f->cpu->gpr, sizeof(before));
		f->cpu->rflags |= RF_STATUS;
		flags = f->cpu->rflags;
		run_at(f, CODE);
		before[GPR_RSP] = f->cpu->gpr[GPR_RSP];
		assert_memory_equal(before, f->cpu->gpr, sizeof(before));
		assert_true(fixture_read(f, before[GPR_RSP] + 8, 8) == CODE);
		assert_true((fixture_read(f, before[GPR_RSP] + 24, 8) &
				RF_STATUS) == (flags & RF_STATUS));
	}
}

static void test_interrupt_waits_for_if_and_shadow(void **state)
{
	struct fixture *f = *state;

	install_handler(f, 0x30);
	/* nop ; sti ; inc eax ; inc eax ; hlt */
	CODE_AT(f, CODE, 0x90, 0xfb, 0xff, 0xc0, 0xff, 0xc0, 0xf4);
	f->cpu->gpr[GPR_RAX] = 0;
	f->vector = 0x30;
	atomic_fetch_or(&f->link[0]->events, EV_INTR);
	run_at(f, CODE);
	assert_int_equal(f->cpu->gpr[GPR_RAX], 1);
	assert_int_equal(f->cpu->rip, CODE + 0x1001);
	assert_true(fixture_read(f, f->cpu->gpr[GPR_RSP], 8) == CODE + 4);
}

static void test_halt_wakes_by_interrupt_only_with_if(void **state)
{
	struct fixture *f = *state;

	install_handler(f, 0x30);
	CODE_AT(f, CODE, 0xf4, 0xff, 0xc0, 0xf4);
	assert_int_equal(engine_soft.run(f->vcpu[0]), ENGINE_HALT);
	f->vector = 0x30;
	atomic_fetch_or(&f->link[0]->events, EV_INTR);
	assert_int_equal(engine_soft.run(f->vcpu[0]), ENGINE_HALT);
	assert_int_equal(f->cpu->rip, CODE + 1);
	f->cpu->rflags |= RF_IF;
	assert_int_equal(engine_soft.run(f->vcpu[0]), ENGINE_HALT);
	assert_int_equal(f->cpu->rip, CODE + 0x1001);
}

static void test_machine_event_kicks(void **state)
{
	struct fixture *f = *state;

	CODE_AT(f, CODE, 0xeb, 0xfe);
	atomic_fetch_or(&f->link[0]->events, EV_PAUSE);
	assert_int_equal(engine_soft.run(f->vcpu[0]), ENGINE_KICKED);
	assert_int_equal(f->cpu->rip, CODE);
}

static void test_triple_fault(void **state)
{
	struct fixture *f = *state;

	f->cpu->idt_limit = 0;
	CODE_AT(f, CODE, 0x0f, 0x0b);
	f->cpu->rip = CODE;
	assert_int_equal(engine_soft.run(f->vcpu[0]), ENGINE_SHUTDOWN);
}

static void test_overlapping_copy_repeats_the_pattern(void **state)
{
	struct fixture *f = *state;

	CODE_AT(f, CODE, 0xf3, 0xa4, 0xf4); /* rep movsb */
	fixture_write(f, DATA, 4, 0x64636261);
	f->cpu->gpr[GPR_RSI] = DATA;
	f->cpu->gpr[GPR_RDI] = DATA + 4;
	f->cpu->gpr[GPR_RCX] = 0x1800;
	run_at(f, CODE);
	for (unsigned i = 0; i < 0x1804; i += 4)
		assert_int_equal(fixture_read(f, DATA + i, 4), 0x64636261);
	/* Downwards. */
	CODE_AT(f, CODE + 16, 0xfd, 0xf3, 0x48, 0xab, 0xfc,
	    0xf4); /* std rep stosq cld */
	f->cpu->gpr[GPR_RAX] = 0x1122334455667788;
	f->cpu->gpr[GPR_RDI] = DATA + 0x1000;
	f->cpu->gpr[GPR_RCX] = 3;
	run_at(f, CODE + 16);
	assert_int_equal(f->cpu->gpr[GPR_RDI], DATA + 0x1000 - 24);
	assert_true(fixture_read(f, DATA + 0x1000 - 16, 8) == 0x1122334455667788);
}

static void test_repeat_stops_at_the_faulting_element(void **state)
{
	struct fixture *f = *state;
	uint64_t lin = 0x40000000;

	install_handler(f, EXC_PF);
	fixture_map(f, lin, DATA, 12, P | W);
	CODE_AT(f, CODE, 0xf3, 0xab, 0xf4); /* rep stosd */
	f->cpu->gpr[GPR_RDI] = lin + 0xff8;
	f->cpu->gpr[GPR_RCX] = 10;
	run_at(f, CODE);
	assert_int_equal(f->cpu->gpr[GPR_RCX], 8);
	assert_true(f->cpu->gpr[GPR_RDI] == lin + 0x1000);
	assert_true(f->cpu->cr2 == lin + 0x1000);
	assert_true(fixture_read(f, f->cpu->gpr[GPR_RSP] + 8, 8) == CODE);
}

static void test_scan_and_compare_counts(void **state)
{
	struct fixture *f = *state;

	CODE_AT(f, CODE, 0xf2, 0xae, 0xf4); /* repne scasb */
	for (unsigned i = 0; i < 16; i++)
		fixture_write(f, DATA + i, 1, i);
	f->cpu->gpr[GPR_RAX] = 9;
	f->cpu->gpr[GPR_RDI] = DATA;
	f->cpu->gpr[GPR_RCX] = 100;
	run_at(f, CODE);
	assert_int_equal(f->cpu->gpr[GPR_RDI], DATA + 10);
	assert_int_equal(f->cpu->gpr[GPR_RCX], 90);
	assert_true(f->cpu->rflags & RF_ZF);
	CODE_AT(f, CODE, 0xf3, 0xa6, 0xf4); /* repe cmpsb */
	for (unsigned i = 0; i < 16; i++)
		fixture_write(f, DATA + 64 + i, 1, i == 5 ? 0xff : i);
	f->cpu->gpr[GPR_RSI] = DATA;
	f->cpu->gpr[GPR_RDI] = DATA + 64;
	f->cpu->gpr[GPR_RCX] = 16;
	run_at(f, CODE);
	assert_int_equal(f->cpu->gpr[GPR_RCX], 10);
	assert_true(!(f->cpu->rflags & RF_ZF) && f->cpu->rflags & RF_CF);
}

static void test_single_step(void **state)
{
	struct fixture *f = *state;

	install_handler(f, EXC_DB);
	CODE_AT(f, CODE, 0xff, 0xc0, 0xff, 0xc0, 0xf4);
	f->cpu->gpr[GPR_RAX] = 0;
	f->cpu->rflags |= RF_TF;
	run_at(f, CODE);
	assert_int_equal(f->cpu->gpr[GPR_RAX], 1);
	assert_true(f->cpu->dr6 & 0x4000);
	assert_true(fixture_read(f, f->cpu->gpr[GPR_RSP], 8) == CODE + 2);
}

static void test_data_breakpoint(void **state)
{
	struct fixture *f = *state;

	install_handler(f, EXC_DB);
	/* mov [rbx], eax ; mov [rbx+8], eax ; hlt */
	CODE_AT(f, CODE, 0x89, 0x03, 0x89, 0x43, 8, 0xf4);
	f->cpu->gpr[GPR_RBX] = DATA;
	mmu_store(f->cpu, DATA, 8, 0);
	f->cpu->dr[0] = DATA + 8;
	f->cpu->dr7 = 0x400 | 1 | 0xdu << 16; /* L0, write, 4 bytes */
	run_at(f, CODE);
	assert_true(fixture_read(f, f->cpu->gpr[GPR_RSP], 8) == CODE + 5);
	assert_int_equal(f->cpu->dr6 & 15, 1);
}

static void test_real_mode_limits(void **state)
{
	struct fixture *f = *state;

	fixture_state(f, 0, REAL);
	/* 16-bit: mov [bx], ax with BX = ffff goes beyond the limit: vector 13. */
	CODE_AT(f, 0x7c00, 0x89, 0x07);
	CODE_AT(f, 0x600, 0xf4);
	fixture_write(f, 13 * 4, 4, 0x600);
	f->cpu->gpr[GPR_RBX] = 0xffff;
	run_at(f, 0x7c00);
	assert_int_equal(f->cpu->rip, 0x601);
	assert_int_equal(fixture_read(f, f->cpu->gpr[GPR_RSP], 2), 0x7c00);
}

static void *run_second(void *arg)
{
	struct fixture *f = arg;

	return (void *)(uintptr_t)engine_soft.run(f->vcpu[1]);
}

/* vCPU 1 from rip in a thread of its own, vCPU 0 from CODE, until both halt. */
static void run_both(struct fixture *f, uint64_t rip, uint64_t rbx, uint64_t rsi)
{
	struct soft_cpu *other = (struct soft_cpu *)f->vcpu[1];
	pthread_t t;
	void *r;

	fixture_state(f, 1, LONG);
	other->rip = rip;
	other->gpr[GPR_RBX] = rbx;
	other->gpr[GPR_RSI] = rsi;
	assert_int_equal(pthread_create(&t, NULL, run_second, f), 0);
	run_at(f, CODE);
	pthread_join(t, &r);
	assert_int_equal((uintptr_t)r, ENGINE_HALT);
}

static void test_locked_adds_of_two_cpus(void **state)
{
	/* One counter crosses a cache line, the other a page. */
	static const uint64_t at[] = { DATA, DATA + 62, DATA + 0xffe };
	struct fixture *f = *state;

	/* mov ecx, 20000 ; 1: lock add dword [rbx], 1 ; dec ecx ; jnz 1b ; hlt */
	CODE_AT(f, CODE, 0xb9, 0x20, 0x4e, 0, 0, 0xf0, 0x83, 0x03, 1, 0xff, 0xc9,
	    0x75, 0xf8, 0xf4);
	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		fixture_write(f, at[i], 4, 0);
		f->cpu->gpr[GPR_RBX] = at[i];
		run_both(f, CODE, at[i], 0);
		assert_int_equal(fixture_read(f, at[i], 4), 40000);
	}
}

static void test_code_changed_by_another_cpu(void **state)
{
	struct fixture *f = *state;

	/*
	 * vCPU 1 spins on "mov al, 0 ; test al, al ; jz" until its code is changed
	 * by vCPU 0, which then waits for the answer.
	 */
	CODE_AT(
	    f, CODE + 0x2000, 0xb0, 0, 0x84, 0xc0, 0x74, 0xfa, 0xc6, 0x06, 1, 0xf4);
	/* spin 100000 ; mov byte [rdi], 1 ; 1: cmp byte [rsi], 1 ; jne 1b ; hlt */
	CODE_AT(f, CODE, 0xb9, 0xa0, 0x86, 1, 0, 0xff, 0xc9, 0x75, 0xfc, 0xc6, 0x07,
	    1, 0x80, 0x3e, 1, 0x75, 0xfb, 0xf4);
	fixture_write(f, DATA, 1, 0);
	f->cpu->gpr[GPR_RDI] = CODE + 0x2001;
	f->cpu->gpr[GPR_RSI] = DATA;
	run_both(f, CODE + 0x2000, 0, DATA);
	assert_int_equal(fixture_read(f, DATA, 1), 1);
}

static void test_set_state_refuses_nonsense(void **state)
{
	struct fixture *f = *state;
	struct vcpu_state good, s;

	fixture_state(f, 0, LONG);
	engine_soft.get_state(f->vcpu[0], &good);
	assert_int_equal(engine_soft.set_state(f->vcpu[0], &good), 0);
#define REFUSED(change)                                                            \
	s = good;                                                                  \
	change;                                                                    \
	assert_int_equal(engine_soft.set_state(f->vcpu[0], &s), -22)
	REFUSED(s.cr0 &= ~(uint64_t)CR0_PE);
	REFUSED(s.cr0 |= CR0_NW);
	REFUSED(s.cr4 &= ~(uint64_t)CR4_PAE);
	REFUSED(s.cr4 |= BIT64(40));
	REFUSED(s.efer &= ~(uint64_t)EFER_LMA);
	REFUSED(s.rflags = 0);
	REFUSED(s.rflags |= RF_VM);
	REFUSED(s.rip = BIT64(47));
	REFUSED(s.xcr0 = 5);
	REFUSED(s.cr3 = BIT64(52));
	REFUSED(s.seg[SEG_FS].base = BIT64(50));
	REFUSED(s.activity = 9);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_store_into_own_block),
		TEST(test_store_into_other_code_and_back_to_fast),
		TEST(test_device_write_drops_code),
		TEST(test_string_store_over_code),
		TEST(test_crossing_instruction_follows_its_second_page),
		TEST(test_fetch_fault_is_raised_when_reached),
		TEST(test_faults_leave_registers),
		TEST(test_interrupt_waits_for_if_and_shadow),
		TEST(test_halt_wakes_by_interrupt_only_with_if),
		TEST(test_machine_event_kicks),
		TEST(test_triple_fault),
		TEST(test_overlapping_copy_repeats_the_pattern),
		TEST(test_repeat_stops_at_the_faulting_element),
		TEST(test_scan_and_compare_counts),
		TEST(test_single_step),
		TEST(test_data_breakpoint),
		TEST(test_real_mode_limits),
		TEST(test_locked_adds_of_two_cpus),
		TEST(test_code_changed_by_another_cpu),
		TEST(test_set_state_refuses_nonsense),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
