/* Host time for guest clocks. */
#pragma once

#include <stdint.h>

/*
 * Input clock of every LAPIC's timer (before its divider): one tick a nanosecond.
 */
#define CLOCK_LAPIC_HZ UINT64_C(1000000000)

uint64_t clock_ns(void); /* CLOCK_MONOTONIC */
uint64_t clock_realtime_ns(void);
uint64_t clock_tsc(void);
/*
 * Frequency of the host's TSC in Hz, in CLOCK_MONOTONIC seconds (good to about
 * 1 ppm); measured at the first call (some 25 ms), constant for the process. 0: the
 * TSC does not run at a constant rate.
 */
uint64_t clock_tsc_hz(void);
/* a * b / c without overflow; c != 0. */
static inline uint64_t clock_muldiv(uint64_t a, uint64_t b, uint64_t c)
{
	return (uint64_t)((unsigned __int128)a * b / c);
}
