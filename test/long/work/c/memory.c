/* mmap, mremap, copy on write, string instructions of all sizes and overlaps, libc's own. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wchar.h>

#include "sum.h"

#define SIZE (256u * 1024)

static unsigned char *area;

static void strings(void)
{
	for (int i = 0; i < 3000; i++) {
		size_t n = rnd() % 9000, from = rnd() % (SIZE - 9000),
		       to = rnd() % (SIZE - 9000), c = n;
		unsigned char *d = area + to, *s = area + from;
		uint64_t v = rnd();

		if (i % 4 == 0)
			d = s + rnd() % 64; /* overlapping */
		switch (i % 8) {
		case 0:
			__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(c) : : "memory");
			break;
		case 1:
			c /= 8;
			__asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(c) : : "memory");
			break;
		case 2:
			__asm__ volatile("rep stosb" : "+D"(d), "+c"(c) : "a"(v) : "memory");
			break;
		case 3:
			c /= 4;
			__asm__ volatile("rep stosl" : "+D"(d), "+c"(c) : "a"(v) : "memory");
			break;
		case 4:
			d += n;
			s += n;
			__asm__ volatile("std; rep movsb; cld"
			    : "+D"(d), "+S"(s), "+c"(c) : : "memory");
			break;
		case 5:
			__asm__ volatile("repe cmpsb" : "+D"(d), "+S"(s), "+c"(c) : : "memory");
			break;
		case 6:
			__asm__ volatile("repne scasb" : "+D"(d), "+c"(c) : "a"(v) : "memory");
			break;
		case 7:
			c /= 2;
			__asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "+c"(c) : : "memory");
			break;
		}
		sum_value((uint32_t)c);
		sum_value((uint32_t)(d - area));
		if (i % 50 == 0)
			sum_bytes(area, SIZE);
	}
	sum_print("strings");
}

static void libc(void)
{
	for (int i = 0; i < 20000; i++) {
		size_t n = rnd() % 300, a = rnd() % 4096, b = rnd() % 4096;

		memmove(area + a, area + b, n);
		sum_value(memcmp(area + a, area + b, n) < 0);
		area[a + n] = 0;
		sum_value(strlen((char *)area + a));
		sum_value(!memchr(area + b, (int)(rnd() & 255), n));
		sum_value(strcmp((char *)area + a, (char *)area + a + 1) < 0);
		memset(area + b, (int)rnd(), n);
		sum_value(!memmem(area, 8192, area + a, 3));
	}
	sum_bytes(area, 16384);
	sum_print("libc");
}

static void mappings(void)
{
	size_t len = 64 * 4096;
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < 300; i++) {
		for (size_t j = 0; j < len; j += 4096)
			p[j + (size_t)i] = (char)(i + (int)(j >> 12));
		p = mremap(p, len, len + 4096, MREMAP_MAYMOVE);
		sum_bytes(p, len + 4096);
		p = mremap(p, len + 4096, len, MREMAP_MAYMOVE);
		if (i % 10 == 0)
			madvise(p + 8192, 16384, MADV_DONTNEED);
	}
	munmap(p, len);
	sum_print("mremap");
}

static void copies(void)
{
	for (int i = 0; i < 60; i++) {
		int fd[2], status;
		uint64_t theirs;

		if (pipe(fd) != 0)
			exit(1);
		if (fork() == 0) {
			for (size_t j = 0; j < SIZE; j += 512)
				area[j] ^= (unsigned char)i;
			sum_state = 1;
			sum_bytes(area, SIZE);
			exit(write(fd[1], &sum_state, 8) != 8);
		}
		for (size_t j = 256; j < SIZE; j += 1024)
			area[j] ^= (unsigned char)(i * 3);
		if (read(fd[0], &theirs, 8) != 8)
			printf("no answer\n");
		wait(&status);
		sum_value(theirs);
		sum_value(status);
		close(fd[0]);
		close(fd[1]);
	}
	sum_bytes(area, SIZE);
	sum_print("copies");
}

static void allocations(void)
{
	static char *p[500];
	static size_t size[500];

	for (int i = 0; i < 100000; i++) {
		unsigned k = (unsigned)(rnd() % 500);

		if (p[k]) {
			sum_bytes(p[k], size[k] < 16 ? size[k] : 16);
			free(p[k]);
		}
		size[k] = rnd() % (i % 100 ? 2000 : 300000) + 1;
		p[k] = calloc(size[k], 1);
		sum_value(p[k][size[k] - 1]);
		memset(p[k], (int)k, size[k]);
	}
	sum_print("malloc");
}

int main(void)
{
	area = mmap(NULL, SIZE + 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	    -1, 0);
	for (size_t i = 0; i < SIZE; i++)
		area[i] = (unsigned char)rnd();
	strings();
	libc();
	mappings();
	copies();
	allocations();
	return 0;
}
