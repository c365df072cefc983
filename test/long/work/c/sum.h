/* Checksums that the programs of this folder print: FNV-1a over what they computed. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

static uint64_t sum_state = 0xcbf29ce484222325u;

static inline void sum_bytes(const void *data, size_t n)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++)
		sum_state = (sum_state ^ p[i]) * 0x100000001b3u;
}

#define sum_value(v)                                                         \
	do {                                                                 \
		__typeof__(v) sum_v_ = (v);                                  \
		sum_bytes((const void *)(uintptr_t)&sum_v_, sizeof(sum_v_)); \
	} while (0)

static inline void sum_print(const char *name)
{
	printf("%-12s %016llx\n", name, (unsigned long long)sum_state);
	fflush(stdout);
	sum_state = 0xcbf29ce484222325u;
}

static uint64_t rnd_state = 0x9e3779b97f4a7c15u;

static inline uint64_t rnd(void)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state;
}
