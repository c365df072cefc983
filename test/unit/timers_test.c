/* 8254, HPET, RTC, PM: time as the guest sees it, and hostile programming. */
#include "chip_fake.h"

#include "vmm/clock.h"

#define MS UINT64_C(1000000)

static unsigned ticks_of(struct machine *m, int vector, uint64_t ns, uint64_t step)
{
	unsigned n = 0;

	for (uint64_t t = 0; t < ns; t += step) {
		chip_advance(m, step);
		while (chip_take(m, 0) == vector) {
			n++;
			chip_out(m, 0xa0, 1, 0x20);
			chip_out(m, 0x20, 1, 0x20);
		}
	}
	return n;
}

static void pit_load(
    struct machine *m, unsigned channel, uint8_t control, uint16_t count)
{
	chip_out(m, 0x43, 1, control);
	chip_out(m, (uint16_t)(0x40 + channel), 1, count & 0xff);
	chip_out(m, (uint16_t)(0x40 + channel), 1, count >> 8);
}

static unsigned pit_read(struct machine *m, unsigned channel)
{
	unsigned lsb = chip_in(m, (uint16_t)(0x40 + channel), 1);

	return lsb | chip_in(m, (uint16_t)(0x40 + channel), 1) << 8;
}

static unsigned pit_status(struct machine *m, unsigned channel)
{
	chip_out(m, 0x43, 1, 0xe0 | 2u << channel);
	return chip_in(m, (uint16_t)(0x40 + channel), 1);
}

static void test_pit_rate(void **state)
{
	struct machine *m = chip_create(NULL);

	(void)state;
	chip_pic_setup(m);
	chip_take(m, 0);
	chip_out(m, 0x20, 1, 0x20);
	pit_load(m, 0, 0x34, 11932); /* 100 Hz nearly */
	assert_in_range(ticks_of(m, 0x20, 10000 * MS, MS), 999, 1000);
	pit_load(m, 0, 0x36, 1193); /* 1000.15 Hz */
	assert_in_range(ticks_of(m, 0x20, 10000 * MS, MS / 4), 10000, 10002);
	/* Stopped for a minute: no storm. */
	chip_jump(m, 60000 * MS);
	assert_in_range(ticks_of(m, 0x20, MS / 4, MS / 4), 0, 1);
	chip_destroy(m);
}

static void test_pit_oneshot(void **state)
{
	struct machine *m = chip_create(NULL);

	(void)state;
	chip_pic_setup(m);
	chip_take(m, 0);
	chip_out(m, 0x20, 1, 0x20);
	pit_load(m, 0, 0x30, 11932); /* mode 0: 10 ms */
	assert_int_equal(pit_status(m, 0) & 0xbf, 0x30);
	assert_int_equal(ticks_of(m, 0x20, 9 * MS, MS), 0);
	assert_int_equal(ticks_of(m, 0x20, 100 * MS, MS), 1);
	assert_int_equal(pit_status(m, 0), 0xb0);
	chip_out(m, 0x43, 1, 0x30); /* the first byte alone counts nothing */
	chip_out(m, 0x40, 1, 1);
	assert_int_equal(ticks_of(m, 0x20, 100 * MS, MS), 0);
	chip_destroy(m);
}

static void test_pit_counts(void **state)
{
	struct machine *m = chip_create(NULL);
	unsigned v;

	(void)state;
	pit_load(m, 1, 0x74, 50000);
	chip_advance(m, 10 * MS); /* 11931.8 ticks */
	assert_in_range(pit_read(m, 1), 50000 - 11933, 50000 - 11930);
	chip_out(m, 0x43, 1, 0x40); /* latch */
	chip_advance(m, 5 * MS);
	assert_in_range(pit_read(m, 1), 50000 - 11933, 50000 - 11930);
	assert_in_range(pit_read(m, 1), 50000 - 17899, 50000 - 17896);
	/* BCD. */
	pit_load(m, 1, 0x75, 0x9999);
	chip_advance(m, MS); /* 1193 ticks: 8806 */
	v = pit_read(m, 1);
	assert_in_range(v, 0x8804, 0x8808);
	/* Mode 3 counts in twos. */
	pit_load(m, 1, 0x76, 10000);
	chip_advance(m, MS);
	assert_in_range(pit_read(m, 1), 10000 - 2390, 10000 - 2380);
	assert_int_equal(pit_read(m, 1) & 1, 0);
	/* A count written during a period waits for its end. */
	pit_load(m, 1, 0x74, 50000);
	chip_advance(m, MS);
	chip_out(m, 0x41, 1, 0xe8);
	chip_out(m, 0x41, 1, 0x03);
	assert_in_range(pit_read(m, 1), 50000 - 1196, 50000 - 1192);
	chip_advance(m, 50 * MS);
	assert_in_range(pit_read(m, 1), 1, 1000);
	chip_destroy(m);
}

static void test_pit_gate(void **state)
{
	struct machine *m = chip_create(NULL);
	unsigned v;

	(void)state;
	chip_out(m, 0x61, 1, 1);
	pit_load(m, 2, 0xb0, 11932);
	chip_advance(m, 5 * MS);
	assert_int_equal(chip_in(m, 0x61, 1) & 0x21, 0x01);
	chip_out(m, 0x61, 1, 0); /* the gate holds the count */
	v = pit_read(m, 2);
	chip_advance(m, 100 * MS);
	assert_int_equal(pit_read(m, 2), v);
	chip_out(m, 0x61, 1, 1);
	chip_advance(m, 4 * MS);
	assert_int_equal(chip_in(m, 0x61, 1) & 0x20, 0);
	chip_advance(m, 2 * MS);
	/* An edge between polls far apart shows one poll late (see pit.c). */
	assert_int_equal(chip_in(m, 0x61, 1) & 0x20, 0);
	assert_int_equal(chip_in(m, 0x61, 1) & 0x20, 0x20);
	/* In a tight loop it shows at once. */
	pit_load(m, 2, 0xb0, 1193);
	for (v = 0; !(chip_in(m, 0x61, 1) & 0x20); v++)
		chip_advance(m, 1000);
	assert_in_range(v, 1000, 1001);
	/* Mode 1 starts with the gate's edge. */
	chip_out(m, 0x61, 1, 0);
	pit_load(m, 2, 0xb2, 11932);
	chip_advance(m, 100 * MS);
	chip_in(m, 0x61, 1);
	assert_int_equal(chip_in(m, 0x61, 1) & 0x20, 0x20);
	chip_out(m, 0x61, 1, 1);
	assert_int_equal(chip_in(m, 0x61, 1) & 0x20, 0);
	chip_advance(m, 11 * MS);
	chip_in(m, 0x61, 1);
	assert_int_equal(chip_in(m, 0x61, 1) & 0x20, 0x20);
	/* Refresh toggles. */
	v = chip_in(m, 0x61, 1) & 0x10;
	chip_advance(m, 15085);
	assert_int_not_equal(chip_in(m, 0x61, 1) & 0x10, v);
	chip_destroy(m);
}

#define HPET UINT64_C(0xfed00000)

static struct machine *hpet_machine(void)
{
	struct machine *m = chip_create(NULL);

	chip_apic_enable(m, 0);
	return m;
}

static void test_hpet_counter(void **state)
{
	struct machine *m = hpet_machine();
	uint64_t v;

	(void)state;
	assert_int_equal(chip_read(m, 0, HPET, 4), 0x8086a701);
	assert_int_equal(hpet_capabilities(), 0x8086a701);
	assert_int_equal(chip_read(m, 0, HPET + 4, 4), 59604645);
	chip_write(m, 0, HPET + 0xf0, 8, 1000);
	assert_int_equal(chip_read(m, 0, HPET + 0xf0, 8), 1000);
	chip_write(m, 0, HPET + 0x10, 4, 1);
	chip_advance(m, 1000 * MS);
	v = chip_read(m, 0, HPET + 0xf0, 8);
	assert_in_range(v, 1000 + (1 << 24) - 1, 1000 + (1 << 24) + 1);
	chip_write(m, 0, HPET + 0xf0, 8, 0); /* runs: ignored */
	assert_true(chip_read(m, 0, HPET + 0xf0, 8) >= v);
	chip_write(m, 0, HPET + 0x10, 4, 0);
	v = chip_read(m, 0, HPET + 0xf0, 8);
	chip_advance(m, 1000 * MS);
	assert_int_equal(chip_read(m, 0, HPET + 0xf0, 8), v);
	chip_destroy(m);
}

static void test_hpet_oneshot(void **state)
{
	struct machine *m = hpet_machine();
	uint64_t now;

	(void)state;
	chip_rte(m, 20, 0x50, 0);
	chip_write(m, 0, HPET + 0x10, 4, 1);
	chip_write(m, 0, HPET + 0x140, 4, 20 << 9 | 4);
	assert_int_equal(chip_read(m, 0, HPET + 0x140, 4), (20 << 9 | 4 | 0x30));
	now = chip_read(m, 0, HPET + 0xf0, 8);
	chip_write(m, 0, HPET + 0x148, 8, now + (1 << 24) / 100);
	chip_advance(m, 9 * MS);
	assert_int_equal(chip_take(m, 0), -1);
	chip_advance(m, 2 * MS);
	assert_int_equal(chip_take(m, 0), 0x50);
	chip_eoi(m, 0);
	chip_advance(m, 100000 * MS);
	assert_int_equal(chip_take(m, 0), -1);
	/* A comparator behind the counter does not fire, not even an hour later. */
	chip_write(m, 0, HPET + 0x148, 8, 1);
	chip_advance(m, UINT64_C(8000) * 1000 * MS);
	assert_int_equal(chip_take(m, 0), -1);
	/* In 32 bits it comes round. */
	chip_write(m, 0, HPET + 0x140, 4, 20 << 9 | 4 | 0x100);
	now = chip_read(m, 0, HPET + 0xf0, 8);
	chip_write(m, 0, HPET + 0x148, 4, (uint32_t)now - 1000);
	chip_advance(m, 255000 * MS);
	assert_int_equal(chip_take(m, 0), -1);
	chip_advance(m, 2000 * MS);
	assert_int_equal(chip_take(m, 0), 0x50);
	/* A pin it does not have is not taken. */
	chip_write(m, 0, HPET + 0x140, 4, 5 << 9);
	assert_int_equal(chip_read(m, 0, HPET + 0x140, 4) >> 9 & 31, 20);
	chip_destroy(m);
}

static void test_hpet_periodic(void **state)
{
	struct machine *m = hpet_machine();
	unsigned n = 0;
	uint64_t now;

	(void)state;
	chip_rte(m, 21, 0x51, 0);
	chip_write(m, 0, HPET + 0x10, 4, 1);
	chip_write(m, 0, HPET + 0x120, 4, 21 << 9 | 4 | 8 | 0x40);
	now = chip_read(m, 0, HPET + 0xf0, 8);
	chip_write(m, 0, HPET + 0x128, 8, now + 16777);
	chip_write(m, 0, HPET + 0x128, 8, 16777); /* 1 ms */
	for (unsigned i = 0; i < 20000; i++) {
		chip_advance(m, MS / 2);
		if (chip_take(m, 0) == 0x51) {
			n++;
			chip_eoi(m, 0);
		}
	}
	assert_in_range(n, 9999, 10001);
	chip_jump(m, 60000 * MS);
	assert_int_equal(chip_take(m, 0), 0x51);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	assert_int_equal((chip_read(m, 0, HPET + 0x128, 8) - now) % 16777, 0);
	chip_destroy(m);
}

/* A timer that interrupts nobody counts on, and wakes no thread for it. */
static void test_hpet_quiet(void **state)
{
	struct machine *m = hpet_machine();
	uint64_t now;

	(void)state;
	chip_rte(m, 21, 0x51, 0);
	chip_write(m, 0, HPET + 0x10, 4, 1);
	chip_write(m, 0, HPET + 0x120, 4, 21 << 9 | 2 | 4 | 8 | 0x40);
	now = chip_read(m, 0, HPET + 0xf0, 8);
	chip_write(m, 0, HPET + 0x128, 8, now + 16777);
	chip_write(m, 0, HPET + 0x128, 8, 16777); /* 1 ms */
	assert_true(chip_timer_set(m));
	/* As Linux leaves it when the LAPICs' timers have taken over. */
	chip_write(m, 0, HPET + 0x120, 4, 21 << 9 | 2 | 8);
	assert_false(chip_timer_set(m));
	assert_int_equal(chip_read(m, 0, HPET + 0x20, 4), 0);
	chip_advance(m, 10 * MS + MS / 2);
	assert_false(chip_timer_set(m));
	assert_int_equal(chip_take(m, 0), -1);
	/* The comparator and the status have moved all the same. */
	assert_int_equal(chip_read(m, 0, HPET + 0x128, 8), now + 11 * 16777);
	assert_int_equal(chip_read(m, 0, HPET + 0x20, 4), 2);
	chip_advance(m, MS);
	chip_write(m, 0, HPET + 0x20, 4, 2);
	assert_int_equal(chip_read(m, 0, HPET + 0x20, 4), 0);
	/* Back on: from the next match. */
	chip_write(m, 0, HPET + 0x120, 4, 21 << 9 | 4 | 8);
	assert_true(chip_timer_set(m));
	assert_int_equal(chip_take(m, 0), -1);
	chip_advance(m, MS);
	assert_int_equal(chip_take(m, 0), 0x51);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	chip_destroy(m);
}

/* Ticks that find the CPU or the event loop late come one after another. */
static void test_late_ticks(void **state)
{
	struct machine *m = hpet_machine();
	unsigned n = 0;
	uint64_t now;

	(void)state;
	/* 8254 by the IOAPIC: the CPU takes nothing for 100 ms, then all of them.
	 */
	pit_load(m, 0, 0x34, 11932); /* the mode alone raises the line */
	chip_rte(m, 2, 0x53, 0);
	chip_advance(m, 105 * MS);
	for (n = 0; chip_take(m, 0) == 0x53; n++)
		chip_eoi(m, 0);
	assert_int_equal(n, 10);
	/* The timer runs late. */
	chip_jump(m, 50 * MS);
	for (n = 0; chip_take(m, 0) == 0x53; n++)
		chip_eoi(m, 0);
	assert_int_equal(n, 5);
	/* Not while the pin is closed, and not those of an earlier programming. */
	chip_rte(m, 2, 0x10053, 0);
	chip_advance(m, 100 * MS);
	chip_rte(m, 2, 0x53, 0);
	assert_int_equal(chip_take(m, 0), -1);
	chip_advance(m, 100 * MS);
	chip_out(m, 0x43, 1, 0x30);
	assert_int_equal(chip_take(m, 0), 0x53);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	/* Another vector's EOI is none. Four ticks: the mode raises the line, too.
	 */
	pit_load(m, 0, 0x34, 11932);
	chip_advance(m, 35 * MS);
	assert_int_equal(chip_take(m, 0), 0x53);
	chip_rte(m, 20, 0x93, 0);
	chip_line(m, 20, true);
	assert_int_equal(chip_take(m, 0), 0x93);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	chip_eoi(m, 0);
	for (n = 0; chip_take(m, 0) == 0x53; n++)
		chip_eoi(m, 0);
	assert_int_equal(n, 3);
	chip_rte(m, 2, 0x10053, 0);
	/* HPET. */
	chip_rte(m, 21, 0x51, 0);
	chip_write(m, 0, HPET + 0x10, 4, 1);
	chip_write(m, 0, HPET + 0x120, 4, 21 << 9 | 4 | 8 | 0x40);
	now = chip_read(m, 0, HPET + 0xf0, 8);
	chip_write(m, 0, HPET + 0x128, 8, now + 16777);
	chip_write(m, 0, HPET + 0x128, 8, 16777); /* 1 ms */
	chip_advance(m, 20 * MS + MS / 2);
	for (n = 0; chip_take(m, 0) == 0x51; n++)
		chip_eoi(m, 0);
	assert_int_equal(n, 20);
	chip_advance(m, 100000 * MS);
	chip_write(m, 0, HPET + 0x120, 4, 21 << 9 | 8);
	assert_int_equal(chip_take(m, 0), 0x51);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	chip_destroy(m);
	/* The 8259 pair. */
	m = chip_create(NULL);
	chip_pic_setup(m);
	chip_take(m, 0);
	chip_out(m, 0x20, 1, 0x20);
	pit_load(m, 0, 0x34, 11932);
	chip_advance(m, 105 * MS);
	for (n = 0; chip_take(m, 0) == 0x20; n++)
		chip_out(m, 0x20, 1, 0x20);
	assert_int_equal(n, 11);
	chip_advance(m, 105 * MS);
	chip_out(m, 0x21, 1, 0x01);
	chip_out(m, 0x21, 1, 0x00);
	assert_int_equal(chip_take(m, 0), 0x20);
	chip_out(m, 0x20, 1, 0x20);
	assert_int_equal(chip_take(m, 0), -1);
	chip_destroy(m);
}

static void test_hpet_level_and_legacy(void **state)
{
	struct machine *m = hpet_machine();
	uint64_t now;

	(void)state;
	chip_rte(m, 22, 0x8052, 0);
	chip_write(m, 0, HPET + 0x10, 4, 1);
	chip_write(m, 0, HPET + 0x160, 4, 22 << 9 | 4 | 2);
	now = chip_read(m, 0, HPET + 0xf0, 8);
	chip_write(m, 0, HPET + 0x168, 8, now + 1000);
	chip_advance(m, MS);
	assert_int_equal(chip_read(m, 0, HPET + 0x20, 4), 8);
	assert_int_equal(chip_take(m, 0), 0x52);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), 0x52);
	chip_write(m, 0, HPET + 0x20, 4, 8);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	/* Legacy replacement: timer 0 is ISA interrupt 0, the 8254 is cut off. */
	chip_rte(m, 2, 0x53, 0);
	pit_load(m, 0, 0x34, 11932);
	chip_advance(m, 20 * MS);
	assert_int_equal(chip_take(m, 0), 0x53);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), 0x53);
	chip_eoi(m, 0);
	chip_write(m, 0, HPET + 0x10, 4, 3);
	chip_advance(m, 20 * MS);
	assert_int_equal(chip_take(m, 0), -1);
	chip_write(m, 0, HPET + 0x100, 4, 4);
	now = chip_read(m, 0, HPET + 0xf0, 8);
	chip_write(m, 0, HPET + 0x108, 8, now + 1000);
	chip_advance(m, MS);
	assert_int_equal(chip_take(m, 0), 0x53);
	chip_destroy(m);
}

static unsigned cmos(struct machine *m, unsigned i)
{
	chip_out(m, 0x70, 1, i);
	return chip_in(m, 0x71, 1);
}

static void cmos_set(struct machine *m, unsigned i, unsigned v)
{
	chip_out(m, 0x70, 1, i);
	chip_out(m, 0x71, 1, v);
}

static void test_rtc_time(void **state)
{
	static const char *const memory[] = { "memory.size=3584M", NULL };
	struct machine *m = chip_create(memory);
	int64_t t = (int64_t)(clock_realtime_ns() / 1000000000);

	(void)state;
	assert_int_equal(rtc_time_get(m->rtc), t);
	cmos_set(m, 0x0b, 0x82); /* SET, BCD, 24 h */
	cmos_set(m, 0x00, 0x58);
	cmos_set(m, 0x02, 0x59);
	cmos_set(m, 0x04, 0x23);
	cmos_set(m, 0x07, 0x31);
	cmos_set(m, 0x08, 0x12);
	cmos_set(m, 0x09, 0x99);
	cmos_set(m, 0x32, 0x19);
	chip_advance(m, 60000 * MS); /* stands */
	assert_int_equal(cmos(m, 0), 0x58);
	cmos_set(m, 0x0b, 0x02);
	assert_int_equal(rtc_time_get(m->rtc), 946684798);
	chip_advance(m, 2000 * MS);
	assert_int_equal(cmos(m, 0x09), 0x00);
	assert_int_equal(cmos(m, 0x32), 0x20);
	assert_int_equal(cmos(m, 0x07), 0x01);
	assert_int_equal(cmos(m, 0x04), 0x00);
	/* 12 hours, binary: midnight is 12 am. */
	cmos_set(m, 0x0b, 0x04);
	assert_int_equal(cmos(m, 0x04), 12);
	assert_int_equal(cmos(m, 0x32), 20);
	chip_advance(m, 13 * 3600 * 1000 * MS);
	assert_int_equal(cmos(m, 0x04), 0x81);
	assert_int_equal(cmos(m, 0x0d), 0x80);
	cmos_set(m, 0x04, 12); /* midnight again */
	assert_int_equal(cmos(m, 0x04), 12);
	assert_int_equal((rtc_time_get(m->rtc) / 3600) % 24, 0);
	cmos_set(m, 0x04, 0x8c); /* noon */
	assert_int_equal((rtc_time_get(m->rtc) / 3600) % 24, 12);
	/* Garbage does not stop it. */
	cmos_set(m, 0x08, 0xff);
	cmos_set(m, 0x02, 0xff);
	assert_int_equal(cmos(m, 0x08), 1);
	/* NVRAM and memory sizes: 3 GiB below, 512 MiB above 4 GiB. */
	assert_int_equal(cmos(m, 0x34) | cmos(m, 0x35) << 8, (3072 - 16) * 16);
	assert_int_equal(
	    cmos(m, 0x5b) | cmos(m, 0x5c) << 8 | cmos(m, 0x5d) << 16, 512 * 16);
	cmos_set(m, 0x7f, 0xa5);
	assert_int_equal(cmos(m, 0xff), 0xa5);
	uint8_t v;

	assert_int_equal(rtc_nvram_read(m->rtc, 0x7f, &v), 0);
	assert_int_equal(v, 0xa5);
	assert_int_not_equal(rtc_nvram_read(m->rtc, 0x80, &v), 0);
	assert_int_not_equal(rtc_nvram_write(m->rtc, 4, 1), 0);
	chip_destroy(m);
}

/* The whole range of the calendar, and alarms that can and cannot be. */
static void test_rtc_extremes(void **state)
{
	struct machine *m = chip_create(NULL);

	(void)state;
	cmos_set(m, 0x0b, 0x82);
	cmos_set(m, 0x00, 0x50);
	cmos_set(m, 0x02, 0x59);
	cmos_set(m, 0x04, 0x23);
	cmos_set(m, 0x07, 0x31);
	cmos_set(m, 0x08, 0x12);
	cmos_set(m, 0x09, 0x99);
	cmos_set(m, 0x32, 0x99);
	cmos_set(m, 0x0b, 0x02);
	assert_int_equal(rtc_time_get(m->rtc), INT64_C(253402300790));
	assert_int_equal(cmos(m, 0x32), 0x99);
	cmos_set(m, 0x09, 0x00);
	cmos_set(m, 0x32, 0x00);
	assert_int_equal(cmos(m, 0x32), 0x00);
	assert_int_equal(cmos(m, 0x04), 0x23);
	rtc_time_set(m->rtc, INT64_C(253402300799));
	assert_int_equal(cmos(m, 0x32), 0x99);

	rtc_time_set(m->rtc, 1000000000); /* 01:46:40 */
	cmos_set(m, 0x01, 0xbf); /* no such second */
	cmos_set(m, 0x03, 0xff);
	cmos_set(m, 0x05, 0xff);
	cmos_set(m, 0x0b, 0x22);
	cmos(m, 0x0c);
	chip_advance(m, 120000 * MS);
	assert_int_equal(cmos(m, 0x0c) & 0x20, 0);
	cmos_set(m, 0x01, 0x00); /* each full hour: in 11 minutes and 20 seconds */
	cmos_set(m, 0x03, 0x00);
	chip_advance(m, 670000 * MS);
	assert_int_equal(cmos(m, 0x0c) & 0x20, 0);
	chip_advance(m, 12000 * MS);
	assert_int_equal(cmos(m, 0x0c) & 0x20, 0x20);
	chip_destroy(m);
}

static void test_rtc_interrupts(void **state)
{
	struct machine *m = chip_create(NULL);
	unsigned n = 0;

	(void)state;
	chip_pic_setup(m);
	chip_take(m, 0);
	chip_out(m, 0x20, 1, 0x20);
	/* 1024 Hz periodic: one a read of C. */
	cmos_set(m, 0x0b, 0x42);
	cmos(m, 0x0c);
	for (unsigned i = 0; i < 40000; i++) {
		chip_advance(m, MS / 4);
		if (chip_take(m, 0) == 0x28) {
			assert_int_equal(cmos(m, 0x0c) & 0xc0, 0xc0);
			chip_out(m, 0xa0, 1, 0x20);
			chip_out(m, 0x20, 1, 0x20);
			n++;
		}
	}
	assert_in_range(n, 10235, 10241);
	/* Without reading C no second one comes. */
	assert_in_range(ticks_of(m, 0x28, 1000 * MS, MS), 0, 1);
	cmos_set(m, 0x0b, 0x02);
	cmos(m, 0x0c);
	/* Update-ended, then alarm in five seconds. */
	cmos_set(m, 0x0b, 0x12);
	assert_int_equal(ticks_of(m, 0x28, 1000 * MS, MS), 1);
	assert_int_equal(cmos(m, 0x0c) & 0x90, 0x90);
	cmos_set(m, 0x0b, 0x06);
	rtc_time_set(m->rtc, 1000000000); /* 01:46:40 */
	cmos_set(m, 0x01, 45);
	cmos_set(m, 0x03, 46);
	cmos_set(m, 0x05, 0xff);
	cmos(m, 0x0c);
	cmos_set(m, 0x0b, 0x26);
	assert_int_equal(ticks_of(m, 0x28, 4900 * MS, MS), 0);
	assert_int_equal(ticks_of(m, 0x28, 200 * MS, MS), 1);
	assert_int_equal(cmos(m, 0x0c) & 0xa0, 0xa0);
	assert_int_equal(cmos(m, 0x0c), 0);
	chip_destroy(m);
}

static void test_pm(void **state)
{
	struct machine *m = chip_create(NULL);
	uint32_t before;

	(void)state;
	chip_apic_enable(m, 0);
	chip_rte(m, 9, 0x8059, 0);
	before = chip_in(m, 0x408, 4);
	chip_advance(m, 1000 * MS);
	assert_in_range(chip_in(m, 0x408, 4) - before, 3579544, 3579546);
	assert_false(pm_power_button(m->pm));
	assert_int_equal(chip_in(m, 0x404, 2), 0);
	chip_out(m, 0xb2, 1, 0xa0);
	assert_int_equal(chip_in(m, 0x404, 2), 1);
	/* Pressed before the guest wants to know: it learns when it does. */
	pthread_mutex_lock(&m->lock);
	assert_true(pm_power_button(m->pm));
	pthread_mutex_unlock(&m->lock);
	assert_int_equal(chip_take(m, 0), -1);
	chip_out(m, 0x402, 2, 0x100);
	assert_int_equal(chip_take(m, 0), 0x59);
	assert_int_equal(chip_in(m, 0x400, 4), 0x01000100);
	chip_out(m, 0x401, 1, 1); /* a byte of it */
	assert_int_equal(chip_in(m, 0x400, 2), 0);
	chip_eoi(m, 0);
	assert_int_equal(chip_take(m, 0), -1);
	/* The timer's carry. */
	chip_out(m, 0x402, 2, 0x101);
	chip_advance(m, 601000 * MS);
	assert_int_equal(chip_in(m, 0x400, 2), 1);
	assert_int_equal(chip_take(m, 0), 0x59);
	chip_out(m, 0x404, 2, 0x1c01);
	assert_int_equal(m->suspend, SUSPEND_NONE);
	chip_out(m, 0x404, 2, 5 << 10 | 0x2000);
	assert_int_equal(m->suspend, SUSPEND_POWEROFF);
	chip_destroy(m);
}

static void test_resets(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct machine *m = chip_create(NULL);

		assert_int_equal(chip_in(m, 0x64, 1) & 2, 0);
		switch (how) {
		case 0:
			chip_out(m, 0x64, 1, 0xfe);
			break;
		case 1:
			chip_out(m, 0x92, 1, 2);
			assert_int_equal(m->suspend, SUSPEND_NONE);
			chip_out(m, 0x92, 1, 1);
			break;
		case 2:
			pm_reset_write(m->pm, 2);
			assert_int_equal(m->suspend, SUSPEND_NONE);
			pm_reset_write(m->pm, 6);
			break;
		default:
			chip_out(m, 0x64, 1, 0xd1);
			chip_out(m, 0x60, 1, 0xfe);
		}
		assert_int_equal(m->suspend, SUSPEND_RESET);
		chip_destroy(m);
	}
}

static void test_strict_io(void **state)
{
	static const char *const strict[] = { "x86.strictio=true", NULL };
	struct machine *m = chip_create(NULL);

	(void)state;
	assert_int_equal(chip_in(m, 0x300, 4), 0xffffffff);
	assert_int_equal(m->suspend, SUSPEND_NONE);
	chip_destroy(m);
	m = chip_create(strict);
	assert_int_equal(chip_in(m, 0x70, 1), 0xff);
	assert_int_equal(m->suspend, SUSPEND_NONE);
	chip_out(m, 0x300, 1, 0);
	assert_int_equal(m->suspend, SUSPEND_ERROR);
	chip_destroy(m);
}

/* Random programming of everything, with time passing. */
static void test_hostile(void **state)
{
	static const uint16_t ports[] = { 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71,
		0x400, 0x402, 0x404, 0x408, 0x40c, 0xb2, 0x60, 0x64, 0x92 };
	struct machine *m = hpet_machine();
	uint32_t seed = 7;

	(void)state;
	for (unsigned i = 0; i < 300000; i++) {
		seed = seed * 1664525 + 1013904223;
		uint32_t r = seed >> 8, v = seed * 2654435761u;
		uint16_t port = ports[r % 16] + (r >> 4 & 3);

		switch (r >> 6 & 7) {
		case 0:
		case 1:
			chip_out(m, port, 1u << (r >> 9 & 1), v);
			break;
		case 2:
			chip_in(m, port, 1u << (r >> 9 & 3) & 7);
			break;
		case 3:
		case 4:
			chip_write(m, 0, HPET + (r >> 9 & 0x3fc) % 0x208,
			    r & 1 ? 8 : 4, r & 2 ? v : (uint64_t)v << 29);
			break;
		case 5:
			chip_read(m, 0, HPET + (r >> 9 & 0x3ff), 1u << (r & 3));
			break;
		default:
			chip_advance(m, r & 0xff ? r & 0xffff : MS * 50);
			chip_take(m, 0);
			chip_eoi(m, 0);
		}
	}
	chip_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pit_rate),
		cmocka_unit_test(test_pit_oneshot),
		cmocka_unit_test(test_pit_counts),
		cmocka_unit_test(test_pit_gate),
		cmocka_unit_test(test_hpet_counter),
		cmocka_unit_test(test_hpet_oneshot),
		cmocka_unit_test(test_hpet_periodic),
		cmocka_unit_test(test_hpet_quiet),
		cmocka_unit_test(test_late_ticks),
		cmocka_unit_test(test_hpet_level_and_legacy),
		cmocka_unit_test(test_rtc_time),
		cmocka_unit_test(test_rtc_extremes),
		cmocka_unit_test(test_rtc_interrupts),
		cmocka_unit_test(test_pm),
		cmocka_unit_test(test_resets),
		cmocka_unit_test(test_strict_io),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
