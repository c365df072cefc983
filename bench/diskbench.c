/*
 * diskbench DEVICE [SECONDS] - disk figures from inside a guest (or on the host
 * with a file): 4 KiB random reads and writes with 8 in flight, 1 MiB sequential
 * reads and writes, all with O_DIRECT. Prints BENCH <name> <value> <unit>, higher
 * is better. Threads instead of io_uring so that old guest kernels can run it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH = 8, SMALL = 4096, LARGE = 1 << 20 };

struct load {
	int fd;
	int write;
	size_t block;
	uint64_t blocks; /* on the device */
	double until;
	uint64_t *next; /* sequential: shared position; NULL: random */
};

struct worker {
	pthread_t thread;
	const struct load *load;
	uint64_t seed, done;
	int failed;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	const struct load *l = w->load;
	void *buf;

	if (posix_memalign(&buf, SMALL, l->block)) {
		w->failed = 1;
		return NULL;
	}
	for (size_t i = 0; i < l->block; i++)
		((uint8_t *)buf)[i] = (uint8_t)(i * 31 + w->seed);
	while (now() < l->until) {
		uint64_t at;
		ssize_t n;

		if (l->next) {
			at = __atomic_fetch_add(l->next, 1, __ATOMIC_RELAXED) %
			     l->blocks;
		} else {
			w->seed =
			    w->seed * 6364136223846793005u + 1442695040888963407u;
			at = (w->seed >> 20) % l->blocks;
		}
		n = l->write ? pwrite(l->fd, buf, l->block, (off_t)(at * l->block))
			     : pread(l->fd, buf, l->block, (off_t)(at * l->block));
		if (n != (ssize_t)l->block) {
			w->failed = 1;
			break;
		}
		w->done++;
	}
	free(buf);
	return NULL;
}

static int measure(const char *name, int fd, uint64_t size, int write, size_t block,
    int sequential, double seconds)
{
	struct worker w[DEPTH];
	uint64_t next = 0, done = 0;
	struct load l = { fd, write, block, size / block, 0,
		sequential ? &next : NULL };
	int threads = sequential ? 2 : DEPTH, failed = 0;
	double start = now(), t;

	l.until = start + seconds;
	for (int i = 0; i < threads; i++) {
		w[i] = (struct worker){ .load = &l, .seed = 12345u * (i + 1) };
		if (pthread_create(&w[i].thread, NULL, work, &w[i]))
			return 1;
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(w[i].thread, NULL);
		done += w[i].done;
		failed |= w[i].failed;
	}
	t = now() - start;
	if (failed) {
		printf("BENCH %s failed\n", name);
		return 1;
	}
	if (sequential)
		printf("BENCH %s %.1f MiB/s\n", name,
		    done * (double)block / LARGE / t);
	else
		printf("BENCH %s %.0f IOPS\n", name, done / t);
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	double seconds = argc > 2 ? atof(argv[2]) : 1.0;
	uint64_t size = 0;
	struct stat st;
	int fd, failed = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: diskbench DEVICE [SECONDS]\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_DIRECT);
	if (fd < 0 || fstat(fd, &st)) {
		perror(argv[1]);
		return 1;
	}
	size = st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &size)) {
		perror(argv[1]);
		return 1;
	}
	if (size < LARGE) {
		fprintf(stderr, "%s: smaller than 1 MiB\n", argv[1]);
		return 1;
	}
	failed |= measure("seqwrite", fd, size, 1, LARGE, 1, seconds);
	failed |= measure("seqread", fd, size, 0, LARGE, 1, seconds);
	failed |= measure("randread", fd, size, 0, SMALL, 0, seconds);
	failed |= measure("randwrite", fd, size, 1, SMALL, 0, seconds);
	return failed;
}
