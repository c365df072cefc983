/*
 * Guest-physical memory: RAM at [0, low) and [4 GiB, 4 GiB + high).
 *
 * Both parts live in one reserved stretch of host address space, so that
 * host = base + gpa holds for all RAM; what lies between is PROT_NONE.
 * Nothing outside this file turns a guest address into a host pointer without
 * memory_ptr()'s check, except the engine, which uses base after checking
 * against memory_is_ram().
 *
 * Code pages: the engine marks pages that hold code it has translated; who
 * writes guest memory from outside the CPU (devices, loaders, debuggers) calls
 * memory_written() after the write so that such code is dropped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEMORY_LOW_LIMIT UINT64_C(0xC0000000)
#define MEMORY_HIGH_BASE UINT64_C(0x100000000)
#define MEMORY_PAGE      4096u

struct memory {
	uint8_t *base;
	uint64_t low;  /* bytes of RAM from 0 */
	uint64_t high; /* bytes of RAM from 4 GiB */
	uint64_t span; /* reserved bytes from base */
	/*
	 * One byte a guest page (index gpa / 4096): non-zero = may hold translated
	 * code.
	 */
	_Atomic uint8_t *code;
	void (*code_written)(void *arg, uint64_t gpa, uint64_t len);
	void *code_arg;
};

/* size: total RAM in bytes, multiple of 4 KiB. 0 or -errno (-ENOMEM: too much). */
int memory_create(struct memory *mem, uint64_t size, bool wired, bool in_core);
void memory_destroy(struct memory *mem);

static inline bool memory_is_ram(
    const struct memory *mem, uint64_t gpa, uint64_t len)
{
	if (gpa < mem->low)
		return len <= mem->low - gpa;
	return gpa >= MEMORY_HIGH_BASE && gpa - MEMORY_HIGH_BASE < mem->high &&
	       len <= mem->high - (gpa - MEMORY_HIGH_BASE);
}

/* Host pointer to [gpa, gpa+len) when all of it is one part of RAM, else NULL. */
static inline void *memory_ptr(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	return memory_is_ram(mem, gpa, len) ? mem->base + gpa : NULL;
}

/* 0, or -EFAULT when not all of it is RAM (then nothing is copied). */
int memory_read(const struct memory *mem, uint64_t gpa, void *buf, size_t len);
int memory_write(struct memory *mem, uint64_t gpa, const void *buf, size_t len);
/* [gpa, gpa+len) (in RAM) was written behind the CPU's back: drop its code. */
void memory_written(struct memory *mem, uint64_t gpa, uint64_t len);
