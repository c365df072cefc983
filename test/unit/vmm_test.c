/* Buses, guest memory, reset states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "vmm/bus.h"
#include "vmm/memory.h"
#include "vmm/state.h"

struct dev {
	unsigned reads, writes, last_size;
	uint64_t last_off, last_value;
	uint8_t tag;
	struct bus *bus;
	uint64_t remove;
};

static uint64_t dev_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct dev *d = arg;

	(void)vcpu;
	d->reads++;
	d->last_off = off;
	d->last_size = size;
	return UINT64_C(0x1111111111111111) * d->tag;
}

static void dev_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct dev *d = arg;

	(void)vcpu;
	d->writes++;
	d->last_off = off;
	d->last_size = size;
	d->last_value = v;
	if (d->bus != NULL)
		bus_remove(d->bus, d->remove);
}

static void test_bus_ranges(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct bus *bus = bus_new(&lock);
	struct dev a = { .tag = 1 }, b = { .tag = 2 }, top = { .tag = 3 };
	struct bus_stats stats;
	uint64_t v;

	(void)state;
	assert_int_equal(
	    bus_add(bus, "b", 0x1004, 4, 0, dev_read, dev_write, &b), 0);
	assert_int_equal(
	    bus_add(bus, "a", 0x1000, 4, BUS_UNLOCKED, dev_read, dev_write, &a), 0);
	assert_int_equal(
	    bus_add(bus, "x", 0x1002, 1, 0, dev_read, dev_write, &a), -EEXIST);
	assert_int_equal(
	    bus_add(bus, "x", 0xfff, 2, 0, dev_read, dev_write, &a), -EEXIST);
	assert_int_equal(
	    bus_add(bus, "x", 0x0, 0x10000, 0, dev_read, dev_write, &a), -EEXIST);
	assert_int_equal(
	    bus_add(bus, "x", 0x0, 0, 0, dev_read, dev_write, &a), -EINVAL);
	assert_int_equal(
	    bus_add(bus, "x", UINT64_MAX, 2, 0, dev_read, dev_write, &a), -EINVAL);
	assert_int_equal(
	    bus_add(bus, "top", UINT64_MAX - 3, 4, 0, dev_read, dev_write, &top),
	    0);

	assert_true(bus_read(bus, 0, 0x1000, 4, &v));
	assert_int_equal(v, 0x11111111);
	assert_true(bus_read(bus, -1, 0x1005, 1, &v));
	assert_int_equal(v, 0x22);
	assert_int_equal(b.last_off, 1);
	/* Across two ranges: bytes. */
	assert_true(bus_read(bus, 70, 0x1002, 4, &v));
	assert_int_equal(v, 0x22221111);
	assert_int_equal(a.last_size, 1);
	/* Out of the end, and into the beginning. */
	assert_true(bus_read(bus, 0, 0x1006, 8, &v));
	assert_int_equal(v, UINT64_C(0xffffffffffff2222));
	assert_true(bus_write(bus, 0, 0xffe, 4, 0xaabbccdd));
	assert_int_equal(a.last_off, 1);
	assert_int_equal(a.last_value, 0xaa);
	/* The end of the address space. */
	assert_true(bus_read(bus, 0, UINT64_MAX - 1, 4, &v));
	assert_true(bus_read(bus, 0, UINT64_MAX, 1, &v));
	assert_int_equal(v, 0x33);
	assert_false(bus_read(bus, 0, 0x2000, 2, &v));
	assert_int_equal(v, 0xffff);
	assert_false(bus_write(bus, 0, 0x800, 8, 1));
	assert_false(bus_read(bus, 0, 0x1000, 16, &v));
	/* Values are cut to size. */
	assert_true(bus_write(bus, 0, 0x1000, 2, 0x12345678));
	assert_int_equal(a.last_value, 0x5678);
	bus_get_stats(bus, &stats);
	assert_int_equal(stats.unclaimed, 3);
	assert_int_equal(stats.writes, 3);

	bus_remove(bus, 0x1001); /* no range starts there */
	bus_remove(bus, 0x1000);
	assert_false(bus_read(bus, 0, 0x1000, 4, &v));
	assert_true(bus_read(bus, 0, 0x1004, 4, &v));
	bus_free(bus);
}

/* A device that unmaps itself while it is written, as a PCI BAR may. */
static void test_bus_remove_inside(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct bus *bus = bus_new(&lock);
	struct dev a = { .tag = 1, .bus = bus, .remove = 0x10 };

	(void)state;
	assert_int_equal(bus_add(bus, "a", 0x10, 4, 0, dev_read, dev_write, &a), 0);
	assert_true(bus_write(bus, 0, 0x10, 4, 1));
	assert_false(bus_write(bus, 0, 0x10, 4, 1));
	assert_int_equal(a.writes, 1);
	bus_free(bus);
}

struct churn {
	struct bus *bus;
	pthread_mutex_t lock;
	_Atomic bool stop;
	_Atomic uint64_t hits, misses;
	struct dev dev;
};

static void *reader(void *arg)
{
	struct churn *c = arg;
	uint64_t v;

	while (!atomic_load(&c->stop))
		if (bus_read(c->bus, 3, 0x3000, 4, &v))
			atomic_fetch_add(&c->hits, 1);
		else
			atomic_fetch_add(&c->misses, 1);
	return NULL;
}

static void test_bus_churn(void **state)
{
	struct churn c = { .lock = PTHREAD_MUTEX_INITIALIZER, .dev = { .tag = 5 } };
	pthread_t t;

	(void)state;
	c.bus = bus_new(&c.lock);
	assert_int_equal(pthread_create(&t, NULL, reader, &c), 0);
	for (unsigned i = 0; i < 2000 || !c.hits || !c.misses; i++) {
		unsigned flags = i & 1 ? BUS_UNLOCKED : 0;

		pthread_mutex_lock(&c.lock);
		assert_int_equal(bus_add(c.bus, "c", 0x3000, 4, flags, dev_read,
				     dev_write, &c.dev),
		    0);
		pthread_mutex_unlock(&c.lock);
		pthread_mutex_lock(&c.lock);
		bus_remove(c.bus, 0x3000);
		pthread_mutex_unlock(&c.lock);
	}
	c.stop = true;
	pthread_join(t, NULL);
	assert_int_equal(c.dev.reads, c.hits);
	bus_free(c.bus);
}

static void written(void *arg, uint64_t gpa, uint64_t len)
{
	uint64_t *got = arg;

	got[0] = gpa;
	got[1] = len;
	got[2]++;
}

static void test_memory(void **state)
{
	struct memory mem;
	uint64_t got[3] = { 0 };
	char buf[8] = "1234567";

	(void)state;
	assert_int_equal(memory_create(&mem, 0, false, false), -EINVAL);
	assert_int_equal(memory_create(&mem, 4097, false, false), -EINVAL);
	assert_int_equal(
	    memory_create(&mem, UINT64_C(1) << 50, false, false), -ENOMEM);
	assert_int_equal(
	    memory_create(&mem, MEMORY_LOW_LIMIT + 0x100000, false, false), 0);
	assert_int_equal(mem.low, MEMORY_LOW_LIMIT);
	assert_int_equal(mem.high, 0x100000);
	mem.code_written = written;
	mem.code_arg = got;
	assert_int_equal(memory_write(&mem, MEMORY_LOW_LIMIT - 8, buf, 8), 0);
	assert_int_equal(memory_write(&mem, MEMORY_LOW_LIMIT - 7, buf, 8), -EFAULT);
	assert_int_equal(memory_write(&mem, MEMORY_HIGH_BASE - 1, buf, 1), -EFAULT);
	assert_int_equal(memory_write(&mem, MEMORY_HIGH_BASE + 0xffff8, buf, 8), 0);
	assert_int_equal(
	    memory_write(&mem, MEMORY_HIGH_BASE + 0xffff9, buf, 8), -EFAULT);
	assert_null(memory_ptr(&mem, UINT64_MAX, 2));
	assert_null(memory_ptr(&mem, UINT64_MAX - 4, 8));
	assert_null(memory_ptr(&mem, 0, UINT64_MAX));
	assert_null(
	    memory_ptr(&mem, MEMORY_HIGH_BASE, UINT64_MAX - MEMORY_HIGH_BASE + 1));
	memset(buf, 0, 8);
	assert_int_equal(memory_read(&mem, MEMORY_HIGH_BASE + 0xffff8, buf, 8), 0);
	assert_string_equal(buf, "1234567");
	assert_int_equal(got[2], 0);
	mem.code[2] = 1;
	assert_int_equal(memory_write(&mem, 0x1ffc, buf, 8), 0);
	assert_int_equal(got[0], 0x1ffc);
	assert_int_equal(got[1], 8);
	memory_written(&mem, 0x1ff0, 0x10); /* the page before */
	memory_written(&mem, 0x2000, 0);
	memory_written(&mem, MEMORY_LOW_LIMIT, 0x1000); /* not RAM */
	assert_int_equal(got[2], 1);
	memory_destroy(&mem);
}

static void test_states(void **state)
{
	struct vcpu_state s;

	(void)state;
	vcpu_state_reset(&s, 0);
	assert_int_equal(s.seg[SEG_CS].base + s.rip, 0xfffffff0);
	assert_int_equal(s.cr0, 0x60000010);
	assert_int_equal(s.apic_base, 0xfee00900);
	assert_int_equal(s.activity, VCPU_RUNNING);
	assert_int_equal(s.fpu[0] | s.fpu[1] << 8, 0x37f);
	vcpu_state_reset(&s, 1);
	assert_int_equal(s.activity, VCPU_WAIT_SIPI);
	assert_int_equal(s.apic_base, 0xfee00800);
	s.cr0 = 0x80050033;
	s.efer = 0xd01;
	s.gpr[GPR_RSP] = 5;
	s.fpu[0] = 0x55;
	s.mtrr_def = 0xc00;
	s.tsc_offset = 77;
	vcpu_state_init(&s);
	assert_int_equal(s.cr0, 0x10);
	assert_int_equal(s.efer, 0);
	assert_int_equal(s.gpr[GPR_RSP], 0);
	assert_int_equal(s.gpr[GPR_RDX], 0xf00);
	assert_int_equal(s.fpu[0], 0x55);
	assert_int_equal(s.mtrr_def, 0xc00);
	assert_int_equal(s.tsc_offset, 77);
	vcpu_state_sipi(&s, 0x9a);
	assert_int_equal(s.seg[SEG_CS].sel, 0x9a00);
	assert_int_equal(s.seg[SEG_CS].base, 0x9a000);
	assert_int_equal(s.rip, 0);
	assert_int_equal(s.activity, VCPU_RUNNING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bus_ranges),
		cmocka_unit_test(test_bus_remove_inside),
		cmocka_unit_test(test_bus_churn),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
