/* See soft_fixture.h. */
#include <stdlib.h>
#include <string.h>

#include "soft_fixture.h"

static uint64_t io_read(void *arg, int cpu, uint16_t port, unsigned size)
{
	(void)arg;
	(void)cpu;
	(void)port;
	return size_mask(size);
}

static void io_write(void *arg, int cpu, uint16_t port, unsigned size, uint64_t v)
{
	(void)arg;
	(void)cpu;
	(void)port;
	(void)size;
	(void)v;
}

static uint64_t mmio_read(void *arg, int cpu, uint64_t gpa, unsigned size)
{
	struct fixture *f = arg;

	(void)cpu;
	f->mmio_gpa = gpa;
	f->mmio_size = size;
	f->mmio_count++;
	return gpa >= MMIO_GPA ? gpa & size_mask(size) : size_mask(size);
}

static void mmio_write(void *arg, int cpu, uint64_t gpa, unsigned size, uint64_t v)
{
	struct fixture *f = arg;

	(void)cpu;
	f->mmio_gpa = gpa;
	f->mmio_size = size;
	f->mmio_value = v;
	f->mmio_count++;
}

static int msr_read(void *arg, int cpu, uint32_t msr, uint64_t *v)
{
	(void)arg;
	(void)cpu;
	*v = 0;
	return msr == 0x1b ? 0 : -2;
}

static int msr_write(void *arg, int cpu, uint32_t msr, uint64_t v)
{
	(void)arg;
	(void)cpu;
	(void)msr;
	(void)v;
	return -2;
}

static uint8_t cr8_read(void *arg, int cpu)
{
	(void)arg;
	(void)cpu;
	return 0;
}

static void cr8_write(void *arg, int cpu, uint8_t v)
{
	(void)arg;
	(void)cpu;
	(void)v;
}

static int intr_ack(void *arg, int cpu)
{
	struct fixture *f = arg;
	int v = f->vector;

	(void)cpu;
	f->vector = -1;
	return v;
}

static bool intr_pending(void *arg, int cpu)
{
	struct fixture *f = arg;

	(void)cpu;
	return f->vector >= 0;
}

void fixture_new_with(struct fixture *f, unsigned ncpu, const struct config *config)
{
	struct engine_config cfg = { .mem = &f->mem, .host = &f->host, .ncpu = ncpu,
		.cfg = config,
		.sockets = 1, .cores = ncpu, .threads = 1, .tsc_hz = 1000000000 };

	memset(f, 0, sizeof(*f));
	f->vector = -1;
	f->host = (struct engine_host){
		.arg = f, .io_read = io_read, .io_write = io_write,
		.mmio_read = mmio_read, .mmio_write = mmio_write,
		.msr_read = msr_read, .msr_write = msr_write,
		.cr8_read = cr8_read, .cr8_write = cr8_write,
		.intr_ack = intr_ack, .intr_pending = intr_pending,
	};
	assert_int_equal(memory_create(&f->mem, RAM_SIZE, false, false), 0);
	assert_int_equal(engine_soft.create(&f->engine, &cfg), 0);
	for (unsigned i = 0; i < ncpu; i++)
		assert_int_equal(
		    engine_soft.vcpu_create(f->engine, i, &f->vcpu[i], &f->link[i]),
		    0);
	f->cpu = (struct soft_cpu *)f->vcpu[0];
	f->next_table = TABLES + MEMORY_PAGE;
}

void fixture_new(struct fixture *f, unsigned ncpu)
{
	fixture_new_with(f, ncpu, NULL);
}

void fixture_free(struct fixture *f)
{
	engine_soft.destroy(f->engine);
	memory_destroy(&f->mem);
}

static void flat(struct vcpu_seg *s, uint16_t sel, uint32_t access)
{
	*s = (struct vcpu_seg){ .sel = sel, .limit = 0xffffffff, .access = access };
}

void fixture_state(struct fixture *f, unsigned cpu, enum fixture_mode mode)
{
	struct vcpu_state s;

	vcpu_state_reset(&s, 0);
	s.rip = CODE;
	s.gpr[GPR_RSP] = STACK_TOP;
	if (mode == REAL) {
		s.seg[SEG_CS].sel = 0;
		s.seg[SEG_CS].base = 0;
		s.rip = 0x7c00;
		s.gpr[GPR_RSP] = 0x7000;
	} else {
		flat(&s.seg[SEG_CS], 8, mode == LONG ? 0xa09b : 0xc09b);
		flat(&s.seg[SEG_SS], 16, 0xc093);
		flat(&s.seg[SEG_DS], 16, 0xc093);
		flat(&s.seg[SEG_ES], 16, 0xc093);
		flat(&s.seg[SEG_FS], 16, 0xc093);
		flat(&s.seg[SEG_GS], 16, 0xc093);
		s.cr0 = CR0_PE | CR0_ET | CR0_NE;
	}
	if (mode == LONG) {
		s.cr0 |= CR0_PG | CR0_WP;
		s.cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
		s.efer = EFER_LME | EFER_LMA | EFER_NXE;
		s.cr3 = TABLES;
	}
	assert_int_equal(engine_soft.set_state(f->vcpu[cpu], &s), 0);
}

void fixture_code(struct fixture *f, uint64_t gpa, const void *bytes, size_t n)
{
	assert_int_equal(memory_write(&f->mem, gpa, bytes, n), 0);
}

uint64_t fixture_read(struct fixture *f, uint64_t gpa, unsigned size)
{
	uint64_t v = 0;

	assert_int_equal(memory_read(&f->mem, gpa, &v, size), 0);
	return v;
}

void fixture_write(struct fixture *f, uint64_t gpa, unsigned size, uint64_t v)
{
	assert_int_equal(memory_write(&f->mem, gpa, &v, size), 0);
}

uint64_t fixture_map(
    struct fixture *f, uint64_t lin, uint64_t gpa, unsigned shift, uint64_t bits)
{
	uint64_t table = TABLES;

	for (unsigned level = 39;; level -= 9) {
		uint64_t slot = table + ((lin >> level) & 511) * 8;
		uint64_t pte = fixture_read(f, slot, 8);

		if (level == shift) {
			fixture_write(
			    f, slot, 8, gpa | bits | (shift > 12 ? 0x80 : 0));
			return slot;
		}
		if (!(pte & 1)) {
			pte = f->next_table | 7;
			f->next_table += MEMORY_PAGE;
			fixture_write(f, slot, 8, pte);
		}
		table = pte & 0xffffffffff000;
	}
}
