/* The software MMU: walks, rights, error codes, TLB contexts, slow accesses. */
#include "soft_fixture.h"

#define P   0x1u
#define W   0x2u
#define U   0x4u
#define A   0x20u
#define D   0x40u
#define G   0x100u
#define NX  BIT64(63)

#define LIN UINT64_C(0x7f0000401000)

static int setup(void **state)
{
	static struct fixture f;

	fixture_new(&f, 1);
	fixture_state(&f, 0, LONG);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static void test_load_maps_every_page_size(void **state)
{
	struct fixture *f = *state;

	fixture_map(f, LIN, DATA, 12, P | W);
	fixture_map(f, 0x40000000, 0x200000, 21, P | W);
	fixture_map(f, UINT64_C(0xffff888000000000), 0, 30, P | W);
	fixture_write(f, DATA + 0x123, 8, 0x1122334455667788);
	assert_true(mmu_load(f->cpu, LIN + 0x123, 8) == 0x1122334455667788);
	assert_int_equal(
	    mmu_load(f->cpu, 0x40000000 + DATA - 0x200000 + 0x123, 1), 0x88);
	assert_int_equal(
	    mmu_load(f->cpu, UINT64_C(0xffff888000000000) + DATA + 0x123, 4),
	    0x55667788);
}

static void test_rights_table(void **state)
{
	static const struct {
		uint64_t pte;
		enum mmu_idx idx;
		char kind;
		int error; /* -1: permitted */
		bool wp_off, smep;
	} t[] = {
		{ P, MMU_KERNEL, 'r', -1 },
		{ P, MMU_KERNEL, 'w', PF_P | PF_W },
		{ P, MMU_KERNEL, 'w', -1, .wp_off = true },
		{ P | W, MMU_KERNEL, 'w', -1 },
		{ P | W, MMU_KERNEL, 'x', -1 },
		{ P | W | NX, MMU_KERNEL, 'x', PF_P | PF_I },
		{ P | W | U, MMU_KERNEL, 'x', -1 },
		{ P | W | U, MMU_KERNEL, 'x', PF_P | PF_I, .smep = true },
		{ P | W | U, MMU_KERNEL, 'w', -1 },
		{ P | W | U, MMU_KERNEL_SMAP, 'r', PF_P },
		{ P | W | U, MMU_KERNEL_SMAP, 'w', PF_P | PF_W },
		{ P | W, MMU_KERNEL_SMAP, 'w', -1 },
		{ P | W, MMU_USER, 'r', PF_P | PF_U },
		{ P | W, MMU_USER, 'x', PF_P | PF_U | PF_I },
		{ P | U, MMU_USER, 'r', -1 },
		{ P | U, MMU_USER, 'w', PF_P | PF_W | PF_U },
		{ P | U, MMU_USER, 'w', PF_P | PF_W | PF_U, .wp_off = true },
		{ P | W | U, MMU_USER, 'w', -1 },
		{ P | U | NX, MMU_USER, 'r', -1 },
		{ P | U | NX, MMU_USER, 'x', PF_P | PF_U | PF_I },
		{ W | U, MMU_USER, 'r', PF_U },
		{ W | U, MMU_USER, 'w', PF_U | PF_W },
		{ 0, MMU_KERNEL, 'x', PF_I },
		{ P | BIT64(51), MMU_KERNEL, 'r', PF_P | PF_RSVD },
		{ P | W | BIT64(48), MMU_USER, 'w', PF_P | PF_RSVD | PF_W | PF_U },
	};
	struct fixture *f = *state;

	/* Outlives a longjmp(), as RAISED() makes. */
	for (volatile unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		fixture_state(f, 0, LONG);
		fixture_map(f, LIN, DATA, 12, t[i].pte);
		if (t[i].wp_off)
			f->cpu->cr0 &= ~(uint64_t)CR0_WP;
		if (t[i].smep)
			f->cpu->cr4 |= CR4_SMEP;
		if (t[i].error < 0)
			assert_int_equal(
			    RAISED(f, mmu_fill(f->cpu, LIN, t[i].idx, t[i].kind)),
			    -1);
		else
			assert_pf(f, LIN, t[i].error,
			    mmu_fill(f->cpu, LIN, t[i].idx, t[i].kind));
	}
}

static void test_nx_is_reserved_without_nxe(void **state)
{
	struct fixture *f = *state;

	fixture_map(f, LIN, DATA, 12, P | W | NX);
	f->cpu->efer &= ~(uint64_t)EFER_NXE;
	assert_pf(f, LIN, PF_P | PF_RSVD, mmu_load(f->cpu, LIN, 1));
	/* Without NXE and SMEP a fetch is not told apart. */
	assert_pf(f, LIN, PF_P | PF_RSVD, mmu_code_gpa(f->cpu, LIN));
}

static void test_large_page_reserved_bits(void **state)
{
	struct fixture *f = *state;

	fixture_map(f, 0x40000000, 0x200000 | BIT64(13), 21, P | W);
	assert_pf(f, 0x40000000, PF_P | PF_RSVD, mmu_load(f->cpu, 0x40000000, 1));
	fixture_map(f, 0x80000000, BIT64(20), 30, P | W);
	assert_pf(f, 0x80000000, PF_P | PF_RSVD, mmu_load(f->cpu, 0x80000000, 1));
}

static void test_accessed_and_dirty(void **state)
{
	struct fixture *f = *state;
	uint64_t slot = fixture_map(f, LIN, DATA, 12, P | W | U);

	f->cpu->cpl = 0;
	mmu_load(f->cpu, LIN, 4);
	assert_true(fixture_read(f, slot, 8) == (DATA | P | W | U | A));
	assert_true(fixture_read(f, TABLES + ((LIN >> 39) & 511) * 8, 8) & A);
	mmu_store(f->cpu, LIN, 4, 1);
	assert_true(fixture_read(f, slot, 8) == (DATA | P | W | U | A | D));
	/* A write that is refused leaves no trace. */
	slot = fixture_map(f, LIN + 0x1000, DATA, 12, P | U);
	assert_pf(
	    f, LIN + 0x1000, PF_P | PF_W, mmu_store(f->cpu, LIN + 0x1000, 1, 0));
	assert_true(fixture_read(f, slot, 8) == (DATA | P | U));
}

static void test_write_entry_waits_for_dirty(void **state)
{
	struct fixture *f = *state;
	struct tlb_entry *e;

	fixture_map(f, LIN, DATA, 12, P | W);
	e = mmu_fill(f->cpu, LIN, MMU_KERNEL, 'r');
	assert_true(e->tag_r == LIN && e->tag_w == TLB_INVALID);
	e = mmu_fill(f->cpu, LIN, MMU_KERNEL, 'w');
	assert_true(e->tag_w == LIN);
}

static void test_crossing_writes_all_or_nothing(void **state)
{
	struct fixture *f = *state;

	fixture_map(f, LIN, DATA, 12, P | W);
	fixture_map(f, LIN + 0x1000, DATA + 0x3000, 12, P);
	fixture_write(f, DATA + 0xffc, 4, 0x11111111);
	assert_pf(
	    f, LIN + 0x1000, PF_P | PF_W, mmu_store(f->cpu, LIN + 0xffc, 8, ~0ull));
	assert_int_equal(fixture_read(f, DATA + 0xffc, 4), 0x11111111);
	fixture_map(f, LIN + 0x1000, DATA + 0x3000, 12, P | W);
	mmu_flush_page(f->cpu, LIN + 0x1000);
	mmu_store(f->cpu, LIN + 0xffd, 8, 0x8877665544332211);
	assert_int_equal(fixture_read(f, DATA + 0xffd, 3), 0x332211);
	assert_true(fixture_read(f, DATA + 0x3000, 5) == 0x8877665544);
	assert_true(mmu_load(f->cpu, LIN + 0xffd, 8) == 0x8877665544332211);
	assert_null(mmu_rmw_ptr(f->cpu, LIN + 0xffd, 8));
	assert_non_null(mmu_rmw_ptr(f->cpu, LIN + 0xff8, 8));
}

static void test_non_canonical(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(
	    RAISED(f, mmu_load(f->cpu, UINT64_C(0x800000000000), 1)), EXC_GP);
	assert_int_equal(
	    RAISED(f, mmu_load(f->cpu, UINT64_C(0x7ffffffffffe), 8)), EXC_PF);
}

static void test_mmio_in_aligned_pieces(void **state)
{
	struct fixture *f = *state;

	fixture_map(f, LIN, MMIO_GPA, 12, P | W);
	assert_int_equal(mmu_load(f->cpu, LIN + 8, 4), MMIO_GPA + 8);
	assert_int_equal(f->mmio_count, 1);
	assert_int_equal(f->mmio_size, 4);
	mmu_store(f->cpu, LIN + 2, 4, 0xaabbccdd);
	assert_int_equal(f->mmio_count, 3);
	assert_int_equal(f->mmio_size, 2);
	assert_int_equal(f->mmio_value, 0xaabb);
	assert_null(mmu_fill(f->cpu, LIN, MMU_KERNEL, 'r'));
}

/* A load through whatever entry is cached, without a walk when there is one. */
static uint64_t cached(struct fixture *f, uint64_t lin)
{
	return mmu_load(f->cpu, lin, 1);
}

static void map_value(
    struct fixture *f, uint64_t lin, uint64_t gpa, uint64_t bits, uint8_t v)
{
	fixture_map(f, lin, gpa, 12, P | W | bits);
	fixture_write(f, gpa, 1, v);
}

static void test_cr3_write_keeps_globals(void **state)
{
	struct fixture *f = *state;

	map_value(f, LIN, DATA, G, 1);
	map_value(f, LIN + 0x1000, DATA + 0x1000, 0, 2);
	assert_int_equal(cached(f, LIN) + cached(f, LIN + 0x1000), 3);
	map_value(f, LIN, DATA + 0x2000, G, 3);
	map_value(f, LIN + 0x1000, DATA + 0x3000, 0, 4);
	mmu_cr3_written(f->cpu, false);
	assert_int_equal(cached(f, LIN), 1);
	assert_int_equal(cached(f, LIN + 0x1000), 4);
	mmu_flush_all(f->cpu);
	assert_int_equal(cached(f, LIN), 3);
}

static void test_invlpg(void **state)
{
	struct fixture *f = *state;

	map_value(f, LIN, DATA, G, 1);
	map_value(f, LIN + 0x1000, DATA + 0x1000, 0, 2);
	cached(f, LIN);
	cached(f, LIN + 0x1000);
	map_value(f, LIN, DATA + 0x2000, G, 3);
	map_value(f, LIN + 0x1000, DATA + 0x3000, 0, 4);
	mmu_flush_page(f->cpu, LIN + 0x234);
	assert_int_equal(cached(f, LIN), 3);
	assert_int_equal(cached(f, LIN + 0x1000), 2);
}

static void test_invlpg_drops_all_of_a_large_page(void **state)
{
	struct fixture *f = *state;
	uint64_t lin = 0x40000000;

	fixture_map(f, lin, 0x200000, 21, P | W);
	for (unsigned i = 0; i < 512; i += 73)
		cached(f, lin + i * 0x1000);
	fixture_map(f, lin, 0x400000, 21, P | W);
	mmu_flush_page(f->cpu, lin + 0x12345);
	for (unsigned i = 0; i < 512; i += 73) {
		fixture_write(f, 0x200000 + i * 0x1000, 1, 1);
		fixture_write(f, 0x400000 + i * 0x1000, 1, 2);
		assert_int_equal(cached(f, lin + i * 0x1000), 2);
	}
}

static void pcid_switch(struct fixture *f, unsigned pcid, bool noflush)
{
	f->cpu->cr3 = TABLES | pcid;
	mmu_cr3_written(f->cpu, noflush);
}

static void test_pcid_contexts(void **state)
{
	struct fixture *f = *state;

	f->cpu->cr4 |= CR4_PCIDE;
	pcid_switch(f, 1, false);
	map_value(f, LIN, DATA, 0, 1);
	assert_int_equal(cached(f, LIN), 1);
	pcid_switch(f, 2, false);
	map_value(f, LIN, DATA + 0x1000, 0, 2);
	assert_int_equal(cached(f, LIN), 2);
	/* PCID 1 still has its entry, until flushed. */
	pcid_switch(f, 1, true);
	assert_int_equal(cached(f, LIN), 1);
	pcid_switch(f, 1, false);
	assert_int_equal(cached(f, LIN), 2);
	/* INVLPG is for the current PCID and for globals. */
	map_value(f, LIN, DATA + 0x2000, 0, 3);
	mmu_flush_page(f->cpu, LIN);
	assert_int_equal(cached(f, LIN), 3);
	pcid_switch(f, 2, true);
	assert_int_equal(cached(f, LIN), 2);
}

static void test_invlpg_drops_globals_of_all_pcids(void **state)
{
	struct fixture *f = *state;

	f->cpu->cr4 |= CR4_PCIDE;
	map_value(f, LIN, DATA, G, 1);
	pcid_switch(f, 1, false);
	cached(f, LIN);
	pcid_switch(f, 2, false);
	cached(f, LIN);
	map_value(f, LIN, DATA + 0x1000, G, 2);
	mmu_flush_page(f->cpu, LIN);
	assert_int_equal(cached(f, LIN), 2);
	pcid_switch(f, 1, true);
	assert_int_equal(cached(f, LIN), 2);
}

static void test_invpcid_types(void **state)
{
	/*
	 * What remains stale after each type: {local of PCID 1, global, local of
	 * 2}.
	 */
	static const struct {
		unsigned type;
		bool stale1, stale_global, stale2;
	} t[] = {
		{ 0, false, true, true },
		{ 1, false, true, true },
		{ 2, false, false, false },
		{ 3, false, true, false },
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		fixture_state(f, 0, LONG);
		f->cpu->cr4 |= CR4_PCIDE;
		map_value(f, LIN, DATA, 0, 1);
		map_value(f, LIN + 0x1000, DATA + 0x1000, G, 1);
		pcid_switch(f, 2, false);
		cached(f, LIN);
		pcid_switch(f, 1, false);
		cached(f, LIN);
		cached(f, LIN + 0x1000);
		map_value(f, LIN, DATA + 0x2000, 0, 2);
		map_value(f, LIN + 0x1000, DATA + 0x3000, G, 2);
		mmu_invpcid(f->cpu, t[i].type, 1, LIN);
		assert_int_equal(cached(f, LIN), t[i].stale1 ? 1 : 2);
		assert_int_equal(
		    cached(f, LIN + 0x1000), t[i].stale_global ? 1 : 2);
		pcid_switch(f, 2, true);
		assert_int_equal(cached(f, LIN), t[i].stale2 ? 1 : 2);
	}
}

static void test_more_pcids_than_contexts(void **state)
{
	struct fixture *f = *state;

	f->cpu->cr4 |= CR4_PCIDE;
	for (unsigned i = 0; i < 100; i++) {
		map_value(f, LIN, DATA + (i & 15) * 0x1000, 0, i);
		pcid_switch(f, i, false);
		assert_int_equal(cached(f, LIN), i);
	}
}

static void test_legacy_paging(void **state)
{
	struct fixture *f = *state;

	fixture_state(f, 0, FLAT32);
	assert_int_equal(RAISED(f, mmu_store(f->cpu, DATA, 4, 7)), -1);
	assert_int_equal(fixture_read(f, DATA, 4), 7);
	/*
	 * 32-bit: a 4 MiB page with PSE, a 4 KiB page, a PSE-36 address beyond RAM.
	 */
	f->cpu->cr0 |= CR0_PG | CR0_WP;
	f->cpu->cr3 = TABLES;
	f->cpu->cr4 = CR4_PSE;
	mmu_flush_all(f->cpu);
	fixture_write(f, TABLES + 4 * 1, 4, 0 | P | W | 0x80);
	fixture_write(f, TABLES + 4 * 2, 4, (TABLES + 0x1000) | P | W | U);
	fixture_write(f, TABLES + 0x1000 + 4 * 3, 4, DATA | P | U);
	fixture_write(f, TABLES + 4 * 3, 4, 1 << 13 | P | W | 0x80);
	fixture_write(f, TABLES + 4 * 4, 4, 1 << 21 | P | W | 0x80);
	assert_int_equal(mmu_load(f->cpu, 0x400000 + DATA, 4), 7);
	assert_int_equal(mmu_load(f->cpu, 0x803000, 4), 7);
	assert_pf(f, 0x803004, PF_P | PF_W, mmu_store(f->cpu, 0x803004, 4, 1));
	assert_int_equal(mmu_load(f->cpu, 0xc00010, 4), 0x10);
	assert_true(f->mmio_gpa == BIT64(32) + 0x10);
	assert_pf(f, 0x1000000, PF_P | PF_RSVD, mmu_load(f->cpu, 0x1000000, 4));
	/* No PSE: bit 7 of a directory entry means nothing. */
	f->cpu->cr4 = 0;
	mmu_flush_all(f->cpu);
	assert_pf(f, 0x400000, 0, mmu_load(f->cpu, 0x400000, 4));
}

static void test_pae_paging(void **state)
{
	struct fixture *f = *state;

	fixture_state(f, 0, FLAT32);
	f->cpu->cr0 |= CR0_PG | CR0_WP;
	f->cpu->cr3 = TABLES + 0x20;
	f->cpu->cr4 = CR4_PAE;
	f->cpu->efer = EFER_NXE;
	mmu_flush_all(f->cpu);
	fixture_write(f, TABLES + 0x20 + 8 * 3, 8, (TABLES + 0x1000) | P);
	fixture_write(f, TABLES + 0x20 + 8 * 1, 8, (TABLES + 0x1000) | P | W);
	fixture_write(f, TABLES + 0x1000, 8, 0x200000 | P | W | U | 0x80 | NX);
	fixture_write(f, DATA, 4, 9);
	assert_int_equal(mmu_load(f->cpu, 0xc0000000 + DATA - 0x200000, 4), 9);
	assert_int_equal(
	    RAISED(f, mmu_store_idx(f->cpu, MMU_USER, 0xc0000000, 4, 1)), -1);
	assert_pf(f, 0xc0000000, PF_P | PF_I, mmu_code_gpa(f->cpu, 0xc0000000));
	assert_pf(f, 0x40000000, PF_P | PF_RSVD, mmu_load(f->cpu, 0x40000000, 4));
	assert_pf(f, 0x80000000, 0, mmu_load(f->cpu, 0x80000000, 4));
}

static void test_tables_outside_ram_are_reserved_ones(void **state)
{
	struct fixture *f = *state;

	f->cpu->cr3 = RAM_SIZE;
	mmu_cr3_written(f->cpu, false);
	assert_pf(f, LIN, PF_P | PF_RSVD, mmu_load(f->cpu, LIN, 1));
}

static void test_span_and_bytes(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[100];
	uint64_t len;
	uint8_t *p;

	fixture_map(f, LIN, DATA, 12, P | W);
	fixture_map(f, LIN + 0x1000, DATA + 0x5000, 12, P | W);
	p = mmu_span(f->cpu, LIN + 0xf00, true, 0x1000, &len);
	assert_non_null(p);
	assert_int_equal(len, 0x100);
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = i;
	mmu_store_bytes(f->cpu, LIN + 0xfd0, buf, sizeof(buf));
	assert_int_equal(fixture_read(f, DATA + 0xfff, 1), 0x2f);
	assert_int_equal(fixture_read(f, DATA + 0x5000, 1), 0x30);
	buf[0x30] = 0;
	mmu_load_bytes(f->cpu, LIN + 0xfd0, buf, sizeof(buf));
	assert_int_equal(buf[0x30], 0x30);
}

static void test_translate_has_no_side_effects(void **state)
{
	struct fixture *f = *state;
	uint64_t slot = fixture_map(f, LIN, DATA, 12, P | W | U), gpa;

	assert_int_equal(mmu_translate(f->cpu, LIN + 5, &gpa), 0);
	assert_true(gpa == DATA + 5);
	assert_true(fixture_read(f, slot, 8) == (DATA | P | W | U));
	assert_int_equal(mmu_translate(f->cpu, LIN + 0x1000, &gpa), -14);
	/* A table on a device: nobody asks the device. */
	fixture_write(f, f->cpu->cr3 + 8 * 5, 8, UINT64_C(0xfee00000) | P | W);
	f->mmio_count = 0;
	assert_int_equal(mmu_translate(f->cpu, UINT64_C(5) << 39, &gpa), -14);
	assert_int_equal(f->mmio_count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_load_maps_every_page_size),
		TEST(test_rights_table),
		TEST(test_nx_is_reserved_without_nxe),
		TEST(test_large_page_reserved_bits),
		TEST(test_accessed_and_dirty),
		TEST(test_write_entry_waits_for_dirty),
		TEST(test_crossing_writes_all_or_nothing),
		TEST(test_non_canonical),
		TEST(test_mmio_in_aligned_pieces),
		TEST(test_cr3_write_keeps_globals),
		TEST(test_invlpg),
		TEST(test_invlpg_drops_all_of_a_large_page),
		TEST(test_pcid_contexts),
		TEST(test_invlpg_drops_globals_of_all_pcids),
		TEST(test_invpcid_types),
		TEST(test_more_pcids_than_contexts),
		TEST(test_legacy_paging),
		TEST(test_pae_paging),
		TEST(test_tables_outside_ram_are_reserved_ones),
		TEST(test_span_and_bytes),
		TEST(test_translate_has_no_side_effects),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
