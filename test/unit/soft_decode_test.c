/*
 * Decoding: fields of struct insn for each operand form and mode, and rejections.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Mnemonic.h>

#include "soft_fixture.h"

static int setup(void **state)
{
	static struct fixture f;

	fixture_new(&f, 1);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static int decode_rc(
    struct fixture *f, enum cpu_mode mode, const char *hex, struct insn *in)
{
	uint8_t b[16];
	unsigned n = 0;

	for (; *hex; hex += hex[2] ? 3 : 2)
		b[n++] = strtoul((char[]){ hex[0], hex[1], 0 }, NULL, 16);
	return insn_decode(f->cpu, in, b, n, mode);
}

static struct insn decode(struct fixture *f, enum cpu_mode mode, const char *hex)
{
	struct insn in;

	assert_int_equal(decode_rc(f, mode, hex, &in), 0);
	if (in.aux)
		native_release(f->cpu, &in);
	return in;
}

static void test_sizes_and_operands(void **state)
{
	static const struct {
		enum cpu_mode mode;
		const char *hex;
		uint8_t len, opsize, addrsize, stacksize, k0, r0, s0, k1, r1, s1;
	} t[] = {
		{ MODE_64, "48 01 d8", 3, 8, 8, 8, OPND_GPR, 0, 8, OPND_GPR, 3, 8 },
		{ MODE_64, "01 d8", 2, 4, 8, 8, OPND_GPR, 0, 4, OPND_GPR, 3, 4 },
		{ MODE_64, "66 01 d8", 3, 2, 8, 2, OPND_GPR, 0, 2, OPND_GPR, 3, 2 },
		{ MODE_64, "00 e7", 2, 1, 8, 8, OPND_GPR8H, 3, 1, OPND_GPR8H, 0,
		    1 },
		{ MODE_64, "40 00 e7", 3, 1, 8, 8, OPND_GPR, 7, 1, OPND_GPR, 4, 1 },
		{ MODE_64, "45 00 c8", 3, 1, 8, 8, OPND_GPR, 8, 1, OPND_GPR, 9, 1 },
		{ MODE_32, "01 d8", 2, 4, 4, 4, OPND_GPR, 0, 4, OPND_GPR, 3, 4 },
		{ MODE_16, "01 d8", 2, 2, 2, 2, OPND_GPR, 0, 2, OPND_GPR, 3, 2 },
		{ MODE_16, "66 01 d8", 3, 4, 2, 4, OPND_GPR, 0, 4, OPND_GPR, 3, 4 },
		{ MODE_64, "50", 1, 8, 8, 8, OPND_GPR, 0, 8, 0, 0, 0 },
		{ MODE_64, "66 50", 2, 2, 8, 2, OPND_GPR, 0, 2, 0, 0, 0 },
		{ MODE_32, "66 50", 2, 2, 4, 2, OPND_GPR, 0, 2, 0, 0, 0 },
		{ MODE_16, "66 50", 2, 4, 2, 4, OPND_GPR, 0, 4, 0, 0, 0 },
		{ MODE_64, "8e d8", 2, 4, 8, 8, OPND_SEG, SEG_DS, 2, OPND_GPR, 0,
		    2 },
		{ MODE_64, "44 0f 20 c0", 4, 8, 8, 8, OPND_GPR, 0, 8, OPND_CR, 8,
		    8 },
		{ MODE_64, "0f 6f c1", 3, 4, 8, 8, OPND_OTHER, 255, 8, OPND_OTHER,
		    255, 8 },
		{ MODE_64, "c4 e2 f9 f7 c1", 5, 8, 8, 8, OPND_GPR, 0, 8, OPND_GPR,
		    1, 8 },
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct insn in = decode(f, t[i].mode, t[i].hex);

		assert_int_equal(in.len, t[i].len);
		assert_int_equal(in.opsize, t[i].opsize);
		assert_int_equal(in.addrsize, t[i].addrsize);
		assert_int_equal(in.stacksize, t[i].stacksize);
		assert_int_equal(in.op[0].kind, t[i].k0);
		assert_int_equal(in.op[0].reg, t[i].r0);
		assert_int_equal(in.op[0].size, t[i].s0);
		assert_int_equal(in.op[1].kind, t[i].k1);
		assert_int_equal(in.op[1].reg, t[i].r1);
		assert_int_equal(in.op[1].size, t[i].s1);
	}
}

static void test_memory_operands(void **state)
{
	static const struct {
		enum cpu_mode mode;
		const char *hex;
		uint8_t seg, base, index, scale;
		int64_t disp;
		uint16_t flags; /* among those below */
	} t[] = {
		{ MODE_64, "8b 44 8b f0", SEG_DS, 3, 1, 4, -16,
		    INSN_FLAT | INSN_LOADS },
		{ MODE_64, "89 45 00", SEG_SS, 5, REG_NONE, 1, 0,
		    INSN_FLAT | INSN_STORES },
		{ MODE_64, "26 8b 03", SEG_DS, 3, REG_NONE, 1, 0,
		    INSN_FLAT | INSN_LOADS },
		{ MODE_64, "65 8b 03", SEG_GS, 3, REG_NONE, 1, 0, INSN_LOADS },
		{ MODE_64, "8b 05 00 10 00 00", SEG_DS, REG_NONE, REG_NONE, 1,
		    0x1000, INSN_RIPREL | INSN_LOADS },
		{ MODE_64, "67 8b 03", SEG_DS, 3, REG_NONE, 1, 0, INSN_LOADS },
		{ MODE_64, "8d 03", SEG_DS, 3, REG_NONE, 1, 0,
		    INSN_FLAT | INSN_NOSEG },
		{ MODE_64, "8b 04 25 00 00 00 80", SEG_DS, REG_NONE, REG_NONE, 1,
		    -0x80000000ll, INSN_FLAT | INSN_LOADS },
		{ MODE_64, "a1 88 77 66 55 44 33 22 11", SEG_DS, REG_NONE, REG_NONE,
		    1, 0x1122334455667788, INSN_FLAT | INSN_LOADS },
		{ MODE_64, "43 01 04 e5 00 00 00 00", SEG_DS, REG_NONE, 12, 8, 0,
		    INSN_FLAT | INSN_LOADS | INSN_STORES },
		{ MODE_16, "8b 40 02", SEG_DS, 3, 6, 1, 2, INSN_LOADS },
		{ MODE_16, "8b 03", SEG_SS, 5, 7, 1, 0, INSN_LOADS },
		{ MODE_16, "2e 8b 03", SEG_CS, 5, 7, 1, 0, INSN_LOADS },
		{ MODE_32, "8b 04 24", SEG_SS, 4, REG_NONE, 1, 0, INSN_LOADS },
		{ MODE_64, "64 48 a5", SEG_FS, REG_NONE, REG_NONE, 1, 0,
		    INSN_LOADS | INSN_STORES },
	};
	const uint16_t mask =
	    INSN_FLAT | INSN_LOADS | INSN_STORES | INSN_RIPREL | INSN_NOSEG;
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct insn in = decode(f, t[i].mode, t[i].hex);

		assert_int_equal(in.seg, t[i].seg);
		assert_int_equal(in.base, t[i].base);
		assert_int_equal(in.index, t[i].index);
		assert_int_equal(in.scale, t[i].scale);
		assert_true(in.disp == t[i].disp);
		assert_int_equal(in.flags & mask, t[i].flags);
	}
}

static void test_immediates_and_branches(void **state)
{
	struct fixture *f = *state;
	struct insn in;

	in = decode(f, MODE_64, "48 83 c0 ff");
	assert_true(in.imm == -1 && in.op[1].kind == OPND_IMM);
	in = decode(f, MODE_64, "48 b8 88 77 66 55 44 33 22 11");
	assert_true(in.imm == 0x1122334455667788);
	in = decode(f, MODE_64, "c8 10 00 03");
	assert_true(in.imm == 0x10 && in.imm2 == 3);
	in = decode(f, MODE_32, "ea 44 33 22 11 08 00");
	assert_true(
	    in.op[0].kind == OPND_FAR && in.imm == 0x11223344 && in.imm2 == 8);
	assert_int_equal(in.flags & (INSN_END | INSN_BRANCH), INSN_END);
	in = decode(f, MODE_64, "74 fe");
	assert_true(in.op[0].kind == OPND_REL && in.imm == -2 && in.cc == 4);
	assert_int_equal(
	    in.flags & (INSN_END | INSN_BRANCH), INSN_END | INSN_BRANCH);
	in = decode(f, MODE_64, "0f 9f c0");
	assert_int_equal(in.cc, 15);
	assert_int_equal(in.flags & INSN_END, 0);
	in = decode(f, MODE_64, "f3 a4");
	assert_int_equal(in.flags & (INSN_REP | INSN_REPNE), INSN_REP);
	in = decode(f, MODE_64, "f2 ae");
	assert_int_equal(in.flags & (INSN_REP | INSN_REPNE), INSN_REPNE);
	in = decode(f, MODE_64, "0f 05");
	assert_true(in.flags & INSN_END);
}

static void test_flags(void **state)
{
	static const struct {
		const char *hex;
		uint16_t read, written;
	} t[] = {
		{ "01 d8", 0, RF_STATUS },
		{ "11 d8", RF_CF, RF_STATUS },
		{ "21 d8", 0, RF_STATUS }, /* AF undefined counts as written */
		{ "ff c0", 0, RF_STATUS & ~RF_CF },
		{ "89 d8", 0, 0 },
		{ "76 00", RF_CF | RF_ZF, 0 },
		{ "f5", RF_CF, RF_CF },
		{ "48 0f 44 c3", RF_ZF, 0 },
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct insn in = decode(f, MODE_64, t[i].hex);

		assert_int_equal(in.flags_read, t[i].read);
		assert_int_equal(in.flags_written, t[i].written);
	}
}

static void test_rejections(void **state)
{
	static const struct {
		enum cpu_mode mode;
		const char *hex;
		int rc, vector;
	} t[] = {
		{ MODE_64, "f0 01 d8", -EINVAL, EXC_UD }, /* LOCK with a register */
		{ MODE_64, "f0 8b 03", -EINVAL, EXC_UD }, /* LOCK MOV */
		{ MODE_64, "06", -EINVAL, EXC_UD }, /* PUSH ES in 64-bit mode */
		{ MODE_64, "0f ff", -EAGAIN, 0 },
		{ MODE_64, "62 f1 7c 48 58 c0", -EINVAL, EXC_UD }, /* EVEX */
		{ MODE_64, "48", -EAGAIN, 0 },
		{ MODE_64, "e8 00 00 00", -EAGAIN, 0 },
		{ MODE_64, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66", -EINVAL,
		    EXC_GP },
	};
	struct fixture *f = *state;

	fixture_state(f, 0, LONG);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct insn in;

		assert_int_equal(decode_rc(f, t[i].mode, t[i].hex, &in), t[i].rc);
		if (t[i].rc == -EINVAL)
			assert_int_equal(
			    RAISED(f, in.fn(f->cpu, &in)), t[i].vector);
	}
}

static void test_hint_space_is_nop(void **state)
{
	static const char *const hex[] = { "f3 0f 1e fa", "0f 1a c0", "0f 1b c0",
		"0f 1c 00", "f3 48 0f 1e c8", "0f 1f 44 00 00", "0f 0d 08", "90",
		"f3 90" };
	struct fixture *f = *state;

	fixture_state(f, 0, LONG);
	for (unsigned i = 0; i < ARRAY_SIZE(hex); i++) {
		struct insn in = decode(f, MODE_64, hex[i]);

		assert_int_equal(RAISED(f, in.fn(f->cpu, &in)), -1);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sizes_and_operands),
		TEST(test_memory_operands),
		TEST(test_immediates_and_branches),
		TEST(test_flags),
		TEST(test_rejections),
		TEST(test_hint_space_is_nop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
