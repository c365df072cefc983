/*
 * Code that writes code: on its own page, on others, through a second mapping, under
 * mprotect, while another thread runs it.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sum.h"

typedef uint32_t fn(uint32_t);

/* mov eax, imm; add eax, edi; ret */
static size_t emit(uint8_t *p, uint32_t imm)
{
	p[0] = 0xb8;
	memcpy(p + 1, &imm, 4);
	memcpy(p + 5, "\x01\xf8\xc3", 3);
	return 8;
}

static uint32_t call(const void *p, uint32_t v)
{
	fn *volatile f;

	memcpy((void *)&f, &p, sizeof(p));
	return f(v);
}

static uint8_t *code_pages(size_t n)
{
	return mmap(NULL, n * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void rewritten(void)
{
	uint8_t *p = code_pages(4);

	for (uint32_t i = 0; i < 20000; i++) {
		size_t at = rnd() % (4 * 4096 - 8);

		emit(p + at, i);
		sum_value(call(p + at, 7));
		/* One byte of the immediate only. */
		p[at + 2] ^= 0x5a;
		sum_value(call(p + at, 1));
	}
	munmap(p, 4 * 4096);
	sum_print("rewritten");
}

/* A loop that changes the instruction right behind the store. */
static void own_block(void)
{
	/* mov [rip+1+..], dil ; mov eax, imm32 ; ret : the store hits the immediate */
	static const uint8_t code[] = { 0x40, 0x88, 0x3d, 0x01, 0, 0, 0, 0xb8, 0, 0, 0, 0,
		0xc3 };
	uint8_t *p = code_pages(1);

	memcpy(p, code, sizeof(code));
	for (uint32_t i = 0; i < 5000; i++) {
		uint32_t r = call(p, i);

		if (r != (i & 255))
			printf("stale: %u at %u\n", r, i);
		sum_value(r);
	}
	munmap(p, 4096);
	sum_print("own block");
}

static void aliased(void)
{
	char name[] = "/dev/shm/codeXXXXXX";
	int fd = mkstemp(name);
	uint8_t *w, *x;

	unlink(name);
	if (ftruncate(fd, 8192) != 0)
		exit(1);
	w = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	x = mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	for (uint32_t i = 0; i < 10000; i++) {
		size_t at = rnd() % 8184;
		uint8_t one[8];

		emit(w + at, i * 3);
		sum_value(call(x + at, 2));
		/* Through a system call. */
		emit(one, i * 7);
		if (pwrite(fd, one, 8, (off_t)at) != 8)
			exit(1);
		sum_value(call(x + at, 2));
	}
	close(fd);
	sum_print("aliased");
}

static void protected_pages(void)
{
	uint8_t *p = code_pages(1);

	for (uint32_t i = 0; i < 3000; i++) {
		mprotect(p, 4096, PROT_READ | PROT_WRITE);
		emit(p + (i % 500) * 8, i);
		mprotect(p, 4096, PROT_READ | PROT_EXEC);
		sum_value(call(p + (i % 500) * 8, 5));
		if (i % 3 == 0) {
			void *q = mmap(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

			if (q != p)
				exit(1);
			emit(p, i + 9);
			sum_value(call(p, 5));
		}
	}
	sum_print("mprotect");
	/* The same page in parent and child, each with code of its own. */
	mprotect(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
	emit(p, 100);
	sum_value(call(p, 1));
	for (uint32_t i = 0; i < 50; i++) {
		int status;
		pid_t pid;

		pid = fork();
		if (pid == 0) {
			emit(p, i);
			_exit((int)call(p, 3));
		}
		emit(p, i * 1000);
		sum_value(call(p, 4));
		waitpid(pid, &status, 0);
		sum_value(WEXITSTATUS(status));
	}
	sum_print("forked");
}

/* Cross-modifying code as the architecture allows it: the reader serialises. */
static uint8_t *shared;
static _Atomic uint32_t version, done;

static void serialise(void)
{
	uint32_t a = 0, b, c = 0, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

static void *runner(void *arg)
{
	uint64_t stale = 0;

	(void)arg;
	for (uint32_t i = 1; i <= 4000; i++) {
		while (atomic_load(&version) != i)
			__builtin_ia32_pause();
		serialise();
		stale += call(shared, 0) != i;
		stale += call(shared + 4096 - 4, 0) != i + 1;
		atomic_store(&done, i);
	}
	return (void *)(uintptr_t)stale;
}

static void crossed(void)
{
	pthread_t t;
	void *stale;

	shared = code_pages(2);
	pthread_create(&t, NULL, runner, NULL);
	for (uint32_t i = 1; i <= 4000; i++) {
		emit(shared, i);
		emit(shared + 4096 - 4, i + 1);
		atomic_store(&version, i);
		while (atomic_load(&done) != i)
			__builtin_ia32_pause();
	}
	pthread_join(t, &stale);
	printf("crossed: %lu stale\n", (unsigned long)(uintptr_t)stale);
}

/* What programs do in spite of the manual: no serialising, a jump through a pointer. */
static _Atomic(fn *) current;

static void *caller(void *arg)
{
	uint64_t stale = 0;

	(void)arg;
	for (uint32_t i = 1; i <= 4000; i++) {
		fn *f;

		while (atomic_load(&version) != i)
			__builtin_ia32_pause();
		f = atomic_load(&current);
		stale += f(0) != i;
		atomic_store(&done, i);
	}
	return (void *)(uintptr_t)stale;
}

static void published(void)
{
	pthread_t t;
	void *stale;

	version = done = 0;
	pthread_create(&t, NULL, caller, NULL);
	for (uint32_t i = 1; i <= 4000; i++) {
		uint8_t *at = shared + rnd() % 512 * 16;
		fn *f;

		emit(at, i);
		memcpy(&f, &at, sizeof(f));
		atomic_store(&current, f);
		atomic_store(&version, i);
		while (atomic_load(&done) != i)
			__builtin_ia32_pause();
	}
	pthread_join(t, &stale);
	printf("published: %lu stale\n", (unsigned long)(uintptr_t)stale);
}

int main(void)
{
	rewritten();
	own_block();
	aliased();
	protected_pages();
	crossed();
	published();
	return 0;
}
