/*
 * Who keeps a pair and who uses its ends.
 *
 * Each byte of the state file has an OFD lock, which belongs to the open file and
 * is what counts, and a POSIX lock further behind, which tells the process. cu,
 * screen and picocom do not know of these: they leave lock files in UUCP's way
 * (Filesystem Hierarchy Standard 3.0, 5.9.1), whose process may be dead.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/log.h"
#include "nmdm/nmdm.h"

#define TAG_BYTE 64 /* of the first POSIX lock */
#define UUCP_DIR "/var/lock"

int nmdm_lock(int fd, enum nmdm_byte byte)
{
	struct flock fl = { .l_type = F_WRLCK, .l_start = byte, .l_len = 1 };
	struct flock tag = {
		.l_type = F_WRLCK,
		.l_start = TAG_BYTE + byte,
		.l_len = 1,
	};

	if (fcntl(fd, F_OFD_SETLK, &fl) != 0)
		return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	return fcntl(fd, F_SETLK, &tag) == 0 ? 0 : -errno;
}

pid_t nmdm_holder(const struct nmdm_path *p, enum nmdm_byte byte)
{
	struct flock fl = { .l_type = F_WRLCK, .l_start = byte, .l_len = 1 };
	struct flock tag = {
		.l_type = F_WRLCK,
		.l_start = TAG_BYTE + byte,
		.l_len = 1,
	};
	char path[PATH_MAX];
	pid_t pid = 0;
	int fd;

	if (nmdm_state_file(p, path) != 0)
		return -1;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	if (fcntl(fd, F_OFD_GETLK, &fl) != 0)
		pid = -1;
	else if (fl.l_type != F_UNLCK)
		pid = fcntl(fd, F_GETLK, &tag) == 0 && tag.l_type != F_UNLCK &&
			      tag.l_pid > 0
			  ? tag.l_pid
			  : -1;
	close(fd);
	return pid;
}

/* The process named in a lock file, in digits or as an int. 0: none. */
static pid_t read_lock(const char *path)
{
	char buf[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), n;
	pid_t pid = 0;
	const char *s = buf;

	if (fd < 0)
		return 0;
	n = (int)read(fd, buf, sizeof(buf) - 1);
	close(fd);
	while (isspace((unsigned char)*s))
		s++;
	if (isdigit((unsigned char)*s))
		pid = (pid_t)strtol(s, NULL, 10);
	else if (n == sizeof(pid))
		memcpy(&pid, buf, sizeof(pid));
	return pid > 0 ? pid : 0;
}

pid_t nmdm_client(const struct nmdm_path *p, enum nmdm_end end)
{
	char path[PATH_MAX];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/LCK..%s%c", UUCP_DIR, p->pair,
	    end == NMDM_A ? 'A' : 'B');
	pid = read_lock(path);
	if (pid == 0 || kill(pid, 0) == 0 || errno != ESRCH)
		return pid;
	if (unlink(path) == 0)
		log_warn("removed %s: process %ld, which locked the terminal with "
			 "it, is gone",
		    path, (long)pid);
	else
		log_warn("%s is a stale lock: process %ld is gone; programs may "
			 "refuse the terminal until it is removed (%s)",
		    path, (long)pid, strerror(errno));
	return 0;
}

void nmdm_say_process(pid_t pid, char *buf, size_t len)
{
	char path[64], comm[32] = "";
	FILE *f;

	if (pid <= 0) {
		snprintf(buf, len, "another program");
		return;
	}
	snprintf(path, sizeof(path), "/proc/%ld/comm", (long)pid);
	f = fopen(path, "re");
	if (f != NULL) {
		if (fgets(comm, sizeof(comm), f) != NULL)
			comm[strcspn(comm, "\n")] = '\0';
		fclose(f);
	}
	snprintf(buf, len, "process %ld%s%s%s", (long)pid,
	    comm[0] != '\0' ? " (" : "", comm, comm[0] != '\0' ? ")" : "");
}
