/*
 * Several CPUs: locked operations of every kind and width, page-crossing and MMIO
 * ones included, spinlocks, message passing, TSO litmus tests, cross-modified code.
 */
#include "guest.h"

#define ROUNDS 20000u

static volatile u32 arrived, phase;
static u32 cpus; /* every CPU writes the same */
static volatile u32 counter32 __attribute__((aligned(64)));
static volatile u64 counter64 __attribute__((aligned(64)));
static volatile struct {
	u64 lo, hi;
} wide __attribute__((aligned(64)));
static volatile u32 lock __attribute__((aligned(64)));
static volatile u64 guarded[2] __attribute__((aligned(64)));
static u8 two_pages[8192] __attribute__((aligned(4096)));
static volatile u32 *const crossing = (volatile u32 *)(two_pages + 4094);
static volatile u32 *const device = (volatile u32 *)MMIO_PAGE;
static volatile u64 x __attribute__((aligned(64))), y __attribute__((aligned(64)));
static volatile u64 seen[2] __attribute__((aligned(64)));

static void barrier(void)
{
	u32 p = phase;

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == cpus) {
		arrived = 0;
		__atomic_add_fetch(&phase, 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (phase == p)
		asm volatile("pause");
}

static void add_wide(void)
{
	u64 lo = wide.lo, hi = wide.hi;
	bool ok;

	do {
		asm volatile("lock cmpxchg16b %1\n\tsetz %0"
			     : "=q"(ok), "+m"(wide), "+a"(lo), "+d"(hi)
			     : "b"(lo + 1), "c"(hi + (lo == 0xffff))
			     : "memory", "cc");
	} while (!ok);
}

static void counters(unsigned cpu)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		asm volatile("lock incl %0" : "+m"(counter32) : : "cc");
		asm volatile("lock xaddq %0, %1"
			     : "+r"((u64){ 3 }), "+m"(counter64)
			     :
			     : "cc");
		add_wide();
	}
	barrier();
	if (cpu == 0) {
		CHECK(counter32 == ROUNDS * cpus);
		CHECK(counter64 == 3ull * ROUNDS * cpus);
		CHECK(wide.lo == ROUNDS * cpus);
	}
	barrier();
	for (unsigned i = 0; i < ROUNDS / 10; i++) {
		asm volatile("lock addl $1, (%0)"
			     :
			     : "r"(crossing)
			     : "memory", "cc");
		asm volatile("lock addl $1, (%0)" : : "r"(device) : "memory", "cc");
	}
	barrier();
	if (cpu == 0) {
		CHECK(*crossing == ROUNDS / 10 * cpus);
		CHECK(!have_host() || *device == ROUNDS / 10 * cpus);
	}
}

static void spinlock(unsigned cpu)
{
	for (unsigned i = 0; i < ROUNDS / 4; i++) {
		u32 taken = 1;

		for (;;) {
			asm volatile("xchg %0, %1"
				     : "+r"(taken), "+m"(lock)
				     :
				     : "memory");
			if (!taken)
				break;
			while (lock)
				asm volatile("pause");
		}
		guarded[0]++;
		guarded[1] += guarded[0];
		lock = 0;
	}
	barrier();
	if (cpu == 0) {
		u64 n = ROUNDS / 4 * cpus;

		CHECK(guarded[0] == n && guarded[1] == n * (n + 1) / 2);
	}
}

/* Store buffering: with a locked instruction between, not both may read the old. */
static void store_buffer(unsigned cpu)
{
	for (unsigned i = 0; i < ROUNDS / 20; i++) {
		if (cpu == 0)
			x = y = 0;
		barrier();
		if (cpu == 0) {
			x = 1;
			asm volatile("mfence" : : : "memory");
			seen[0] = y;
		} else if (cpu == 1) {
			y = 1;
			asm volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
			seen[1] = x;
		}
		barrier();
		if (cpu == 0 && !seen[0] && !seen[1])
			CHECK(!"store buffering with fences");
	}
}

/* Message passing: data before flag, in that order on both sides. */
static void message(unsigned cpu)
{
	if (cpu > 1)
		return;
	for (u64 i = 1; i < ROUNDS / 4; i++) {
		if (cpu == 0) {
			guarded[0] = i;
			x = i;
			while (y != i)
				asm volatile("pause");
		} else {
			while (x != i)
				asm volatile("pause");
			if (guarded[0] != i)
				CHECK(!"message passing");
			y = i;
		}
	}
}

/* CPU 0 rewrites a function the other one keeps calling. */
static u8 code[64] __attribute__((aligned(4096)));

static void cross_code(unsigned cpu)
{
	u32 (*fn)(void) = (u32(*)(void))code;

	if (cpu == 0) {
		x = y = 0;
		code[0] = 0xb8; /* mov $imm32, %eax; ret */
		*(volatile u32 *)(code + 1) = 0;
		code[5] = 0xc3;
	}
	barrier();
	for (u32 i = 1; i < 300 && cpu < 2; i++) {
		if (cpu == 0) {
			*(volatile u32 *)(code + 1) = i;
			x = i;
			while (y != i)
				asm volatile("pause");
		} else {
			u32 last = 0;

			while (x != i) {
				u32 v = fn();

				if (v < last || v > i)
					CHECK(
					    !"cross-modified code runs backwards");
				last = v;
			}
			asm volatile("cpuid"
				     :
				     : "a"(0), "c"(0)
				     : "rbx", "rdx", "memory");
			if (fn() != i)
				CHECK(!"cross-modified code is seen");
			y = i;
		}
	}
}

/*
 * CPU 0 rewrites a function, then says so; the other one calls it through a pointer
 * without serialising. Programs that make code do that, and CPUs let them: whoever
 * sees the message also sees the code. The long way there holds no loop, where an
 * engine would look for news anyway.
 */
static void published(unsigned cpu)
{
	u32 (*volatile fn)(void) = (u32(*)(void))code;
	u32 stale = 0;

	if (cpu == 0)
		x = y = 0;
	barrier();
	for (u32 i = 1; i < 3000 && cpu < 2; i++) {
		if (cpu == 0) {
			*(volatile u32 *)(code + 1) = i;
			x = i;
			while (y != i)
				asm volatile("pause");
		} else {
			u64 seen_x, v = i;

			do {
				asm volatile(".rept 1000\n\timulq %0, %0\n\t.endr"
					     : "+r"(v));
				seen_x = x;
			} while (seen_x != i);
			stale += fn() != i;
			y = i;
		}
	}
	CHECK(stale == 0);
}

void guest_main(unsigned cpu)
{
	cpus = inb(PORT_CPUS);
	barrier();
	counters(cpu);
	barrier();
	spinlock(cpu);
	barrier();
	store_buffer(cpu);
	barrier();
	if (cpu == 0)
		x = y = 0;
	barrier();
	message(cpu);
	barrier();
	cross_code(cpu);
	barrier();
	published(cpu);
	barrier();
	if (cpu)
		for (;;)
			asm volatile("hlt");
}
