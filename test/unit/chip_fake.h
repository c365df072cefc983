/*
 * A machine for chipset tests: the real machine.c, buses and chips, an engine that
 * executes nothing, and a time that moves only when the test says so. clock.h and
 * event.h are ours here, so timers fire in order and exactly.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/config.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/machine.h"

#define CHIP_TSC_HZ UINT64_C(2000000000)

extern const struct engine_ops chip_engine;

/* keys: "name=value" strings up to a NULL. */
struct machine *chip_create(const char *const *keys);
void chip_destroy(struct machine *m);

/* Moves time on, running every timer on its way. */
void chip_advance(struct machine *m, uint64_t ns);
/* As a stopped process: time moves, timers run late, once. */
void chip_jump(struct machine *m, uint64_t ns);
/* Whether the event loop has to wake up at some time. */
bool chip_timer_set(struct machine *m);

uint32_t chip_in(struct machine *m, uint16_t port, unsigned size);
void chip_out(struct machine *m, uint16_t port, unsigned size, uint32_t v);
uint64_t chip_read(struct machine *m, unsigned cpu, uint64_t gpa, unsigned size);
void chip_write(
    struct machine *m, unsigned cpu, uint64_t gpa, unsigned size, uint64_t v);
/* xAPIC registers. */
uint32_t chip_apic(struct machine *m, unsigned cpu, unsigned reg);
void chip_apic_set(struct machine *m, unsigned cpu, unsigned reg, uint32_t v);
void chip_apic_enable(struct machine *m, unsigned cpu);
/* The next vector the CPU takes, -1: none. With EOI when taken. */
int chip_take(struct machine *m, unsigned cpu);
void chip_eoi(struct machine *m, unsigned cpu);
/* Events since the last call. */
uint32_t chip_events(struct machine *m, unsigned cpu);
void chip_rte(struct machine *m, unsigned pin, uint32_t low, uint8_t dest);
uint64_t chip_rte_get(struct machine *m, unsigned pin);
void chip_line(struct machine *m, unsigned gsi, bool level);
/* Initialises the 8259 pair as PC software does: bases 0x20 and 0x28, all open. */
void chip_pic_setup(struct machine *m);
