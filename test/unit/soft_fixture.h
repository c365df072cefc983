/*
 * A software CPU with RAM, a host that records, and a page-table builder: what the
 * unit tests of cpu/soft share.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/soft/mmu.h"

#define RAM_SIZE  (16 * MiB)
#define CODE      0x100000u
#define STACK_TOP 0x200000u
#define DATA      0x300000u
#define TABLES    0x10000u /* fixture's page tables, upwards */
#define MMIO_GPA  0xfe000000u

struct fixture {
	struct memory mem;
	struct engine_host host;
	struct engine *engine;
	struct soft_cpu *cpu; /* vCPU 0 */
	struct engine_vcpu *vcpu[4];
	struct vcpu_link *link[4];
	uint64_t next_table;
	/* The last MMIO access, and how many there were. */
	uint64_t mmio_gpa, mmio_value;
	unsigned mmio_size, mmio_count;
	int vector; /* what intr_ack gives, once; -1: nothing */
};

void fixture_new(struct fixture *f, unsigned ncpu);
/* With the engine's keys, which outlive it. */
void fixture_new_with(struct fixture *f, unsigned ncpu, const struct config *config);
void fixture_free(struct fixture *f);

enum fixture_mode { REAL, FLAT32, LONG };
/* Flat segments, empty page tables (LONG), CPL 0, RIP at CODE, RSP at STACK_TOP. */
void fixture_state(struct fixture *f, unsigned cpu, enum fixture_mode mode);
void fixture_code(struct fixture *f, uint64_t gpa, const void *bytes, size_t n);
/* Maps one 4-level page (shift 12, 21, 30) with the given low and high PTE bits. */
uint64_t fixture_map(
    struct fixture *f, uint64_t lin, uint64_t gpa, unsigned shift, uint64_t bits);
uint64_t fixture_read(struct fixture *f, uint64_t gpa, unsigned size);
void fixture_write(struct fixture *f, uint64_t gpa, unsigned size, uint64_t v);

/* The vector an expression raises, or -1. */
#define RAISED(f, expr)                                                            \
	({                                                                         \
		volatile int v_ = -1;                                              \
                                                                                   \
		if (setjmp((f)->cpu->env))                                         \
			v_ = (f)->cpu->raise_vector;                               \
		else                                                               \
			(void)(expr);                                              \
		v_;                                                                \
	})

#define assert_pf(f, cr2, error, expr)                                             \
	do {                                                                       \
		assert_int_equal(RAISED(f, expr), EXC_PF);                         \
		assert_true((f)->cpu->raise_has_error);                            \
		assert_int_equal((f)->cpu->raise_error, error);                    \
		assert_true((f)->cpu->raise_cr2 == (cr2));                         \
	} while (0)
