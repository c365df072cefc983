/*
 * An end of a null modem for bhyve and loaders: nmdm(8) is started when the pair is
 * not there, and the end is locked, as two guests on one console would garble it.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/util.h"
#include "nmdm/nmdm.h"

/* The pair may vanish between looking for it and opening its end. */
#define TRIES 5

extern char **environ;

/* Beside the program, or in the build tree; else where it was to be installed. */
static int find_program(char *path)
{
	static const char *const places[] = { "nmdm", "../nmdm/nmdm",
		"../../nmdm/nmdm" };
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[MAX(n, (ssize_t)0)] = '\0';
	const char *dir = dirname(exe);
	for (size_t i = 0; n > 0 && i < ARRAY_SIZE(places); i++) {
		int len = snprintf(path, PATH_MAX, "%s/%s", dir, places[i]);

		if (len < PATH_MAX && access(path, X_OK) == 0)
			return 0;
	}
	snprintf(path, PATH_MAX, "%s/nmdm", NMDM_INSTALL_DIR);
	return access(path, X_OK) == 0 ? 0 : -errno;
}

/* It becomes a daemon by itself and returns once the pair can be used. */
static int start_keeper(const struct nmdm_path *p, const char *option)
{
	char program[PATH_MAX];
	char *argv[] = { "nmdm", "create", "-t", "-d", (char *)p->dir,
		(char *)p->pair, NULL };
	int status = 0, error = find_program(program);
	pid_t pid;

	if (error == 0)
		error = -posix_spawn(&pid, program, NULL, NULL, argv, environ);
	if (error != 0) {
		log_error("%s: null modems need the program nmdm, which cannot be "
			  "started: %s (%s)",
		    option, program, strerror(-error));
		return error;
	}
	while (waitpid(pid, &status, 0) < 0) {
		/* Children of a parent that ignores SIGCHLD leave no status. */
		if (errno != EINTR)
			return 0;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	log_error(
	    "%s: the null modem %s in %s cannot be made", option, p->pair, p->dir);
	return -EIO;
}

static int refuse(
    const char *path, const char *option, pid_t pid, enum nmdm_end end)
{
	char who[80];

	nmdm_say_process(pid, who, sizeof(who));
	log_error("%s: %s is in use by %s; end that, use another pair such as "
		  "/dev/nmdm1%c, or connect to the other end",
	    option, path, who, end == NMDM_A ? 'A' : 'B');
	return -EBUSY;
}

/* The end's lock; *lock is its descriptor. */
static int take_end(const struct nmdm_path *p, int *lock)
{
	char path[PATH_MAX];
	int error = nmdm_state_file(p, path);

	if (error != 0)
		return error;
	*lock = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (*lock < 0)
		return -errno;
	error = nmdm_lock(*lock, NMDM_USER + p->end);
	if (error != 0)
		close(*lock);
	return error;
}

static int open_end(const struct nmdm_path *p, int *fd, int *lock)
{
	char link[PATH_MAX];
	int error = take_end(p, lock);

	if (error != 0)
		return error;
	nmdm_link(p, p->end, link);
	*fd = open(link, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	error = -errno;
	close(*lock);
	return error;
}

int nmdm_open(const char *path, const char *option, int *fd, int *lock)
{
	struct nmdm_path p;
	char other[PATH_MAX];
	int error = nmdm_parse(&p, path, option);
	pid_t client;

	if (error != 0)
		return error;
	/* Both, so that stale locks of both go. */
	(void)nmdm_client(&p, p.end == NMDM_A ? NMDM_B : NMDM_A);
	client = nmdm_client(&p, p.end);
	if (client != 0)
		return refuse(path, option, client, p.end);
	for (int i = 0; i < TRIES; i++) {
		if (nmdm_holder(&p, NMDM_KEEPER) == 0) {
			error = start_keeper(&p, option);
			if (error != 0)
				return error;
		}
		error = open_end(&p, fd, lock);
		if (error == -EBUSY)
			return refuse(path, option,
			    nmdm_holder(&p, NMDM_USER + p.end), p.end);
		if (error == 0 || (error != -ENOENT && error != -EIO))
			break;
	}
	if (error != 0) {
		log_error("%s: cannot open %s in %s: %s", option, p.pair, p.dir,
		    strerror(-error));
		return error;
	}
	nmdm_link(&p, p.end == NMDM_A ? NMDM_B : NMDM_A, other);
	log_info("%s: the null modem's other end is %s; for example \"cu -l %s\"",
	    option, other, other);
	return 0;
}
