/*
 * The flat descriptors that every kernel entered by GRUB's ways starts with: null,
 * null, code 0x10, data 0x18, task 0x20, in low memory that the memory map calls
 * usable.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct vcpu_state;

#define FLAT_GDT       UINT64_C(0x6000)
#define FLAT_TSS       UINT64_C(0x6800)
#define FLAT_GDT_WORDS 6

void flat_gdt(uint64_t gdt[FLAT_GDT_WORDS], bool code64);
/*
 * vCPU 0 with these segments, all registers 0, paging off; code64: only the code
 * segment is for 64 bits, the caller sets control registers.
 */
void flat_state(struct vcpu_state *s, bool code64);
