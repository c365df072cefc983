/*
 * Bytes of a disk image or block device, or of a window into one (a partition).
 * Read only; a read outside the window fails.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct media {
	int fd;
	uint64_t start, size; /* bytes */
};

/* 0, -errno; -EINVAL: neither a file nor a block device, or below one sector. */
int media_open(struct media *m, const char *path);
void media_close(struct media *m);
/* [off, off + len) of m, cut where m ends; -EINVAL when it starts behind the end.
 */
int media_window(
    const struct media *m, uint64_t off, uint64_t len, struct media *window);
/* All of it or nothing: 0, -EIO. */
int media_read(const struct media *m, uint64_t off, void *buf, size_t len);
