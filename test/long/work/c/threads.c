/* Atomics of every width, locks, conditions, barriers, rings between threads. */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "sum.h"

#define THREADS 4
#define ROUNDS	100000

static _Atomic uint8_t c8;
static _Atomic uint16_t c16;
static _Atomic uint32_t c32;
static _Atomic uint64_t c64, bits, maximum;
static unsigned __int128 wide __attribute__((aligned(16)));
static uint64_t plain, guarded;
static atomic_flag spin = ATOMIC_FLAG_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
/* Atomic accesses that cross a cache line. */
static struct {
	char pad[62];
	uint32_t v;
} __attribute__((packed, aligned(64))) split;

static void add_wide(uint64_t n)
{
	uint64_t lo = (uint64_t)wide, hi = (uint64_t)(wide >> 64);
	bool done;

	do {
		unsigned __int128 next = ((unsigned __int128)hi << 64 | lo) + n +
		    ((unsigned __int128)n << 64);

		__asm__ volatile("lock cmpxchg16b %1"
		    : "=@ccz"(done), "+m"(wide), "+a"(lo), "+d"(hi)
		    : "b"((uint64_t)next), "c"((uint64_t)(next >> 64))
		    : "memory");
	} while (!done);
}

static void *count(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg;

	pthread_barrier_wait(&barrier);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t v = atomic_load(&maximum), mine = i * THREADS + me;

		c8++;
		c16 += 3;
		c32 ^= (uint32_t)(i * 2654435761u + me);
		atomic_fetch_add(&c64, i);
		if (i < 4096)
			atomic_fetch_or(&bits, UINT64_C(1) << (i * 7 + me) % 64);
		while (v < mine && !atomic_compare_exchange_weak(&maximum, &v, mine))
			;
		add_wide(me + 1);
		if (i % 8 == 0) {
			while (atomic_flag_test_and_set_explicit(&spin,
			    memory_order_acquire))
				__builtin_ia32_pause();
			plain += i;
			atomic_flag_clear_explicit(&spin, memory_order_release);
		}
		if (i % 64 == 0) {
			pthread_mutex_lock(&mutex);
			guarded += me;
			pthread_mutex_unlock(&mutex);
		}
		if (i % 1024 == 0)
			__asm__ volatile("lock addl $1, %0" : "+m"(split.v));
		if (i % 10000 == 0)
			pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void counters(void)
{
	pthread_t t[THREADS];

	pthread_barrier_init(&barrier, NULL, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, count, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	printf("%u %u %u %lu %lx %lu %u\n", c8, c16, c32, c64, bits, maximum, split.v);
	printf("%lx %lx\n", (uint64_t)wide, (uint64_t)(wide >> 64));

	printf("%lu %lu\n", plain, guarded);
}

/* Store buffering: with fences, one of the two sees the other. */
static _Atomic int x, y;
static int seen_x, seen_y;

static void *store_x(void *arg)
{
	(void)arg;
	for (int i = 0; i < 3000; i++) {
		pthread_barrier_wait(&barrier);
		atomic_store_explicit(&x, 1, memory_order_relaxed);
		atomic_thread_fence(memory_order_seq_cst);
		seen_y = atomic_load_explicit(&y, memory_order_relaxed);
		pthread_barrier_wait(&barrier);
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void ordering(void)
{
	pthread_t t;
	int bad = 0;

	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&t, NULL, store_x, NULL);
	for (int i = 0; i < 3000; i++) {
		x = y = 0;
		pthread_barrier_wait(&barrier);
		atomic_store_explicit(&y, 1, memory_order_relaxed);
		atomic_thread_fence(memory_order_seq_cst);
		seen_x = atomic_load_explicit(&x, memory_order_relaxed);
		pthread_barrier_wait(&barrier);
		bad += !seen_x && !seen_y;
		pthread_barrier_wait(&barrier);
	}
	pthread_join(t, NULL);
	printf("store buffering %d\n", bad);
}

/* Message passing through a ring: what comes before the index is there. */
#define RING 256
static uint64_t ring[RING][4];
static _Atomic unsigned head, tail;

static void *produce(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 300000; i++) {
		while (i - atomic_load_explicit(&tail, memory_order_acquire) >= RING)
			sched_yield();
		for (unsigned j = 0; j < 4; j++)
			ring[i % RING][j] = i * 5u + j;
		atomic_store_explicit(&head, i + 1, memory_order_release);
	}
	return NULL;
}

static void passing(void)
{
	pthread_t t;
	uint64_t bad = 0;

	pthread_create(&t, NULL, produce, NULL);
	for (unsigned i = 0; i < 300000; i++) {
		while (atomic_load_explicit(&head, memory_order_acquire) == i)
			sched_yield();
		for (unsigned j = 0; j < 4; j++)
			bad += ring[i % RING][j] != (uint64_t)(i * 5u + j);
		atomic_store_explicit(&tail, i + 1, memory_order_release);
	}
	pthread_join(t, NULL);
	printf("ring %lu\n", bad);
}

static sem_t ping, pong;

static void *answer(void *arg)
{
	(void)arg;
	for (int i = 0; i < 5000; i++) {
		sem_wait(&ping);
		plain = plain * 31 + (uint64_t)i;
		sem_post(&pong);
	}
	return NULL;
}

static void semaphores(void)
{
	pthread_t t;

	plain = 0;
	sem_init(&ping, 0, 0);
	sem_init(&pong, 0, 0);
	pthread_create(&t, NULL, answer, NULL);
	for (int i = 0; i < 5000; i++) {
		plain ^= (uint64_t)i << 7;
		sem_post(&ping);
		sem_wait(&pong);
	}
	pthread_join(t, NULL);
	printf("semaphores %lx\n", plain);
}

static void *nothing(void *arg)
{
	return arg;
}

int main(void)
{
	counters();
	ordering();
	passing();
	semaphores();
	for (int i = 0; i < 500; i++) {
		pthread_t t;

		plain = 0;
		pthread_create(&t, NULL, nothing, NULL);
		pthread_join(t, NULL);
	}
	printf("created\n");
	return 0;
}
