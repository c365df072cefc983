/*
 * Host time. The TSC's frequency is measured against CLOCK_MONOTONIC because
 * guests compare their TSC with the PIT, HPET and PM timer, which follow that
 * clock: a nominal frequency (CPUID 0x15) may be tens of ppm away from it.
 *
 * A sample pairs both clocks: of many tries the one with the shortest time
 * between the surrounding TSC reads is kept. What is left of the error is the
 * same in both samples and cancels in their difference.
 */
#include "vmm/clock.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>
#include <x86intrin.h>

#define SAMPLE_TRIES 200
#define INTERVAL_MIN UINT64_C(20000000)
#define INTERVAL_MAX UINT64_C(50000000)

struct sample {
	uint64_t tsc, ns;
	uint64_t window; /* TSC ticks between the reads around the clock's */
};

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint64_t clock_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_ns(void)
{
	return read_clock(CLOCK_REALTIME);
}

uint64_t clock_tsc(void)
{
	return __rdtsc();
}

static struct sample take_sample(void)
{
	struct sample best = { .window = UINT64_MAX };

	for (int i = 0; i < SAMPLE_TRIES; i++) {
		unsigned aux;
		uint64_t before = __rdtscp(&aux);
		uint64_t ns = clock_ns();
		uint64_t after = __rdtscp(&aux);

		if (after > before && after - before < best.window) {
			best.window = after - before;
			best.tsc = before + (after - before) / 2;
			best.ns = ns;
		}
	}
	return best;
}

/* The interval's end in time, asleep: start-up should not cost CPU. */
static void wait_until(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / 1000000000),
		.tv_nsec = (long)(ns % 1000000000),
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0)
		;
}

static uint64_t rate(const struct sample *a, const struct sample *b)
{
	if (b->tsc <= a->tsc || b->ns <= a->ns)
		return 0;
	return clock_muldiv(b->tsc - a->tsc, 1000000000, b->ns - a->ns);
}

static uint64_t cpuid_tsc_hz(void)
{
	unsigned eax, ebx, ecx, edx;

	if (__get_cpuid(0x15, &eax, &ebx, &ecx, &edx) && eax && ebx && ecx)
		return clock_muldiv(ecx, ebx, eax);
	return 0;
}

static uint64_t measure(void)
{
	struct sample a = take_sample(), middle, b;
	uint64_t first, second, hz, told;

	if (a.window == UINT64_MAX)
		return 0;
	/*
	 * 1 ppm of the interval covers the window; 0.5 ns a tick is a safe guess.
	 */
	uint64_t interval = a.window * 500000;

	if (interval < INTERVAL_MIN)
		interval = INTERVAL_MIN;
	if (interval > INTERVAL_MAX)
		interval = INTERVAL_MAX;
	wait_until(a.ns + interval / 2);
	middle = take_sample();
	wait_until(a.ns + interval);
	b = take_sample();

	first = rate(&a, &middle);
	second = rate(&middle, &b);
	hz = rate(&a, &b);
	if (first == 0 || second == 0 || hz == 0)
		return 0;
	/* Half a per cent between the halves: the TSC follows the core's clock. */
	uint64_t diff = first > second ? first - second : second - first;

	if (diff > hz / 200)
		return 0;
	/*
	 * A clock read that takes microseconds (no vDSO): the nominal value is
	 * better.
	 */
	told = cpuid_tsc_hz();
	if (told != 0 && clock_muldiv(b.window, 1000000000, hz) > 1000)
		return told;
	return hz;
}

static pthread_once_t tsc_once = PTHREAD_ONCE_INIT;
static uint64_t tsc_hz;

static void tsc_init(void)
{
	tsc_hz = measure();
}

uint64_t clock_tsc_hz(void)
{
	pthread_once(&tsc_once, tsc_init);
	return tsc_hz;
}
