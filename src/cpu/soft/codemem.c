/*
 * Memory for generated code. One sealed memfd is mapped twice, once writable and
 * once executable, so that no mapping is ever both (W^X).
 *
 * Space is handed out in granules of 64 bytes - a cache line, so two pieces of
 * code never share one - recorded in a bitmap that lies outside the mappings: a
 * stray write to code cannot corrupt the allocator. Free space is filled with
 * INT3, so a jump to code that was released traps instead of running on.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/soft/soft.h"

#define GRANULE       64u
#define WORD          64u
#define INT3          0xcc
#define SIZE_MAX_CODE (1024 * MiB)

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

struct codemem {
	uint8_t *rw, *rx;
	size_t size;
	size_t words;
	size_t hint; /* word where the next search starts */
	pthread_mutex_t lock;
	uint64_t used[]; /* one bit a granule */
};

static int codemem_fd(size_t size)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	/*
	 * Kernels since 6.3 want to be told that it will be executed; older refuse
	 * the flag.
	 */
	int fd = memfd_create("bhyve-code", flags | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("bhyve-code", flags);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

int codemem_new(struct codemem **out, size_t size)
{
	struct codemem *cm;
	size_t words;
	int fd, err;

	if (size == 0 || size > SIZE_MAX_CODE)
		return -EINVAL;
	size = ROUND_UP(size, (size_t)(GRANULE * WORD));
	words = size / GRANULE / WORD;
	cm = calloc(1, sizeof(*cm) + words * sizeof(cm->used[0]));
	if (cm == NULL)
		return -ENOMEM;
	fd = codemem_fd(size);
	if (fd < 0) {
		free(cm);
		return fd;
	}
	cm->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cm->rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	err = -errno;
	close(fd);
	if (cm->rw == MAP_FAILED || cm->rx == MAP_FAILED) {
		if (cm->rw != MAP_FAILED)
			munmap(cm->rw, size);
		if (cm->rx != MAP_FAILED)
			munmap(cm->rx, size);
		free(cm);
		return err;
	}
	cm->size = size;
	cm->words = words;
	pthread_mutex_init(&cm->lock, NULL);
	*out = cm;
	return 0;
}

void codemem_free(struct codemem *cm)
{
	if (cm == NULL)
		return;
	munmap(cm->rw, cm->size);
	munmap(cm->rx, cm->size);
	pthread_mutex_destroy(&cm->lock);
	free(cm);
}

static bool granule_used(const struct codemem *cm, size_t g)
{
	return cm->used[g / WORD] >> (g % WORD) & 1;
}

static void granules_mark(struct codemem *cm, size_t first, size_t n, bool used)
{
	for (size_t g = first; g < first + n; g++) {
		if (used)
			cm->used[g / WORD] |= BIT64(g % WORD);
		else
			cm->used[g / WORD] &= ~BIT64(g % WORD);
	}
}

/* First free run of n granules in [from, to); to when there is none. */
static size_t granules_find(
    const struct codemem *cm, size_t from, size_t to, size_t n)
{
	size_t run = 0;

	for (size_t g = from; g < to;) {
		uint64_t w = cm->used[g / WORD];

		if (g % WORD == 0 && w == ~UINT64_C(0)) {
			run = 0;
			g += WORD;
			continue;
		}
		if (g % WORD == 0 && w == 0 && run + WORD < n) {
			run += WORD;
			g += WORD;
			continue;
		}
		run = granule_used(cm, g) ? 0 : run + 1;
		g++;
		if (run == n)
			return g - n;
	}
	return to;
}

int codemem_alloc(struct codemem *cm, size_t len, uint8_t **rw, uint8_t **rx)
{
	size_t total = cm->words * WORD, n, start, at;

	if (len == 0 || len > cm->size)
		return -ENOMEM;
	n = (len + GRANULE - 1) / GRANULE;
	pthread_mutex_lock(&cm->lock);
	start = cm->hint * WORD;
	at = granules_find(cm, start, total, n);
	if (at == total) {
		at = granules_find(cm, 0, total, n);
		if (at == total) {
			pthread_mutex_unlock(&cm->lock);
			return -ENOMEM;
		}
	}
	granules_mark(cm, at, n, true);
	cm->hint = at / WORD;
	pthread_mutex_unlock(&cm->lock);
	*rw = cm->rw + at * GRANULE;
	*rx = cm->rx + at * GRANULE;
	return 0;
}

void codemem_release(struct codemem *cm, uint8_t *rx, size_t len)
{
	size_t at = (size_t)(rx - cm->rx) / GRANULE;
	size_t n = (len + GRANULE - 1) / GRANULE;

	memset(cm->rw + at * GRANULE, INT3, n * GRANULE);
	pthread_mutex_lock(&cm->lock);
	granules_mark(cm, at, n, false);
	if (at / WORD < cm->hint)
		cm->hint = at / WORD;
	pthread_mutex_unlock(&cm->lock);
}

uint8_t *codemem_rx_to_rw(struct codemem *cm, const uint8_t *rx)
{
	return cm->rw + (rx - cm->rx);
}
