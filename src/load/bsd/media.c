/* Reads disk images (media.h). */
#include "load/bsd/media.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "lib/util.h"

#define SECTOR 512

int media_open(struct media *m, const char *path)
{
	struct stat st;
	uint64_t size = 0;

	*m = (struct media){ .fd = -1 };
	/* O_NONBLOCK: a FIFO must not block. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	int err = fstat(fd, &st) != 0 ? -errno : 0;
	if (err == 0 && S_ISREG(st.st_mode))
		size = (uint64_t)st.st_size;
	else if (err == 0 && S_ISDIR(st.st_mode))
		err = -EISDIR;
	else if (err == 0 &&
		 (!S_ISBLK(st.st_mode) || ioctl(fd, BLKGETSIZE64, &size) != 0))
		err = -EINVAL;
	if (err == 0 && size < SECTOR)
		err = -EINVAL;
	if (err != 0) {
		close(fd);
		return err;
	}
	m->fd = fd;
	m->size = size;
	return 0;
}

void media_close(struct media *m)
{
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
}

int media_window(
    const struct media *m, uint64_t off, uint64_t len, struct media *window)
{
	if (off >= m->size || len == 0)
		return -EINVAL;
	*window = (struct media){ .fd = m->fd,
		.start = m->start + off,
		.size = MIN(len, m->size - off) };
	return 0;
}

int media_read(const struct media *m, uint64_t off, void *buf, size_t len)
{
	uint8_t *p = buf;

	if (off > m->size || len > m->size - off)
		return -EIO;
	for (off += m->start; len > 0;) {
		ssize_t n = pread(m->fd, p, MIN(len, (size_t)GiB), (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}
