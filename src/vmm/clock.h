/* Host time for guest clocks. */
#pragma once

#include <stdint.h>

uint64_t clock_ns(void); /* CLOCK_MONOTONIC */
/*
 * Frequency of the host's TSC in Hz: CPUID 0x15/0x40000010 where told, else
 * measured once against CLOCK_MONOTONIC_RAW-disciplined time; constant for the
 * process. 0: no constant TSC.
 */
uint64_t clock_tsc_hz(void);
/* a * b / c without overflow; c != 0. */
static inline uint64_t clock_muldiv(uint64_t a, uint64_t b, uint64_t c)
{
	return (uint64_t)((unsigned __int128)a * b / c);
}
