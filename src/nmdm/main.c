/*
 * nmdm(8): makes, lists and removes null modems. "create" leaves a process behind
 * that keeps the pair.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/util.h"
#include "nmdm/nmdm.h"

#define WAIT_MS 2000 /* for another process that is about to make or remove it */

struct options {
	bool temporary, foreground;
	const char *dir;
};

static const char usage_text[] =
    "usage: nmdm create [-ft] [-d directory] NAME ...\n"
    "       nmdm destroy [-d directory] NAME ...\n"
    "       nmdm list [-d directory]\n"
    "       nmdm -h | --help | --version\n"
    "\n"
    "A null modem is a pair of terminals, /dev/nmdmNAMEA and /dev/nmdmNAMEB: what\n"
    "is written to one is read from the other. bhyve makes the pair it needs;\n"
    "\"create\" makes it before that, for a client that starts first.\n"
    "\n"
    "  -d directory   where the terminals are, in place of /dev\n"
    "  -f             keep the pair in the foreground, for systemd\n"
    "  -t             remove the pair once both ends have been closed for a while\n"
    "\n"
    "  nmdm create 0\n"
    "  cu -l /dev/nmdm0B\n";

/* The pipe on which the caller waits; there is one caller. */
static int ready_pipe = -1;

static int usage(void)
{
	fputs(usage_text, stderr);
	return EX_USAGE;
}

static void say_ready(void)
{
	int null;

	if (ready_pipe < 0)
		return;
	/* Whoever reads the caller's output must not wait for us. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		(void)dup2(null, fd);
	(void)!write(ready_pipe, "", 1);
	close(ready_pipe);
	ready_pipe = -1;
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

/* Another process is making the same pair: its links are there in a moment. */
static int wait_for_other(const struct nmdm_path *p)
{
	char a[PATH_MAX], b[PATH_MAX];

	nmdm_link(p, NMDM_A, a);
	nmdm_link(p, NMDM_B, b);
	for (int i = 0; i < WAIT_MS / 10; i++) {
		if (access(a, F_OK) == 0 && access(b, F_OK) == 0)
			return 0;
		pause_ms(10);
	}
	log_error("%s: another process keeps the pair, but %s is not there",
	    p->pair, access(a, F_OK) != 0 ? a : b);
	return -ENOENT;
}

/* In the child; leaves the caller's session, folder and files. */
static int keep(const struct nmdm_path *p, const struct options *o)
{
	if (setsid() < 0 || chdir("/") != 0)
		return -errno;
	close_range(STDERR_FILENO + 1, (unsigned)ready_pipe - 1, 0);
	close_range((unsigned)ready_pipe + 1, ~0u, 0);
	return nmdm_serve(p, o->temporary, say_ready);
}

/* 0, or -errno (logged). */
static int create_daemon(const struct nmdm_path *p, const struct options *o)
{
	char byte;
	int fds[2], error = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
		error = -errno;
		log_error("%s: %s", p->pair, strerror(-error));
		return error;
	}
	if (pid == 0) {
		close(fds[0]);
		ready_pipe = fds[1];
		error = keep(p, o);
		if (error == -EEXIST && wait_for_other(p) == 0) {
			say_ready();
			error = 0;
		}
		_exit(error == 0 ? 0 : 1);
	}
	close(fds[1]);
	do {
		n = read(fds[0], &byte, 1);
	} while (n < 0 && errno == EINTR);
	close(fds[0]);
	return n == 1 ? 0 : -EIO;
}

static int create(const struct nmdm_path *p, const struct options *o)
{
	int error;

	(void)nmdm_client(p, NMDM_A);
	(void)nmdm_client(p, NMDM_B);
	if (!o->foreground)
		return create_daemon(p, o);
	error = nmdm_serve(p, o->temporary, say_ready);
	if (error == -EEXIST) {
		char who[80];

		nmdm_say_process(nmdm_holder(p, NMDM_KEEPER), who, sizeof(who));
		log_error("%s is there already, kept by %s; remove it with \"nmdm "
			  "destroy %s\" first",
		    p->pair, who, p->pair);
	}
	return error;
}

/* What a keeper left that was killed. 0, or -EBUSY: the pair is kept. */
static int remove_stale(const struct nmdm_path *p)
{
	char state[PATH_MAX], link[PATH_MAX], target[16];
	int error = nmdm_state_file(p, state), fd;

	if (error != 0)
		return error;
	fd = open(state, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	error = nmdm_lock(fd, NMDM_KEEPER);
	for (int end = NMDM_A; error == 0 && end < NMDM_ENDS; end++) {
		nmdm_link(p, (enum nmdm_end)end, link);
		if (readlink(link, target, sizeof(target)) > 9 &&
		    strncmp(target, "/dev/pts/", 9) == 0)
			(void)unlink(link);
	}
	if (error == 0)
		(void)unlink(state);
	close(fd);
	return error;
}

static int destroy(const struct nmdm_path *p, const struct options *o)
{
	pid_t pid = nmdm_holder(p, NMDM_KEEPER);

	(void)o;
	if (pid == 0) {
		if (remove_stale(p) == 0)
			return 0;
		log_error(
		    "there is no null modem %s in %s; \"nmdm list\" shows those "
		    "that are there",
		    p->pair, p->dir);
		return -ENOENT;
	}
	if (pid < 0 || kill(pid, SIGINT) != 0) {
		log_error("%s: the process that keeps it cannot be ended: %s",
		    p->pair, pid < 0 ? "it is not known" : strerror(errno));
		return -EPERM;
	}
	for (int i = 0; i < WAIT_MS / 10; i++) {
		if (nmdm_holder(p, NMDM_KEEPER) != pid)
			return 0;
		pause_ms(10);
	}
	log_error("%s: process %ld does not end", p->pair, (long)pid);
	return -EBUSY;
}

static void list_end(const struct nmdm_path *p, enum nmdm_end end)
{
	char link[PATH_MAX], who[80] = "-";
	pid_t pid = nmdm_holder(p, NMDM_USER + end);

	if (pid == 0)
		pid = nmdm_client(p, end);
	if (pid != 0)
		nmdm_say_process(pid, who, sizeof(who));
	nmdm_link(p, end, link);
	printf("%-28s %s\n", link, who);
}

static void list_pair(const struct nmdm_path *p)
{
	if (nmdm_holder(p, NMDM_KEEPER) == 0)
		return;
	list_end(p, NMDM_A);
	list_end(p, NMDM_B);
}

static int list(struct nmdm_path *p)
{
	char path[PATH_MAX];
	const struct dirent *entry;
	DIR *dir;

	if (nmdm_state_dir(p, path) != 0)
		return -EIO;
	dir = opendir(path);
	if (dir == NULL) {
		log_error("%s: %s", path, strerror(errno));
		return -EIO;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' ||
		    strlen(entry->d_name) > NMDM_PAIR_MAX)
			continue;
		snprintf(
		    p->pair, sizeof(p->pair), "%.*s", NMDM_PAIR_MAX, entry->d_name);
		list_pair(p);
	}
	closedir(dir);
	return 0;
}

/* EX_OK: go on with the operands at optind. */
static int parse(struct options *o, int argc, char **argv)
{
	int c;

	optind = 2;
	while ((c = getopt(argc, argv, "d:ft")) != -1) {
		switch (c) {
		case 'd':
			o->dir = optarg;
			break;
		case 'f':
			o->foreground = true;
			break;
		case 't':
			o->temporary = true;
			break;
		default:
			return usage();
		}
	}
	return EX_OK;
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	struct nmdm_path p;
	const char *command = argc > 1 ? argv[1] : "";
	bool makes = strcmp(command, "create") == 0;
	bool lists = strcmp(command, "list") == 0;
	int status = 0;

	log_init("nmdm");
	umask(077);
	if (strcmp(command, "-h") == 0 || strcmp(command, "--help") == 0) {
		fputs(usage_text, stdout);
		return 0;
	}
	if (strcmp(command, "--version") == 0) {
		puts("nmdm " BHYVE_VERSION);
		return 0;
	}
	if (!makes && !lists && strcmp(command, "destroy") != 0) {
		log_error("\"%s\" is not a command", command);
		return usage();
	}
	status = parse(&o, argc, argv);
	if (status != EX_OK)
		return status;
	if (lists)
		return nmdm_parse_pair(&p, "0", o.dir) == 0 && list(&p) == 0 ? 0
									     : 1;
	if (optind == argc || (o.foreground && optind + 1 < argc)) {
		log_error("%s: %s", command,
		    optind == argc ? "no null modem is named"
				   : "-f keeps one null modem at a time");
		return usage();
	}
	for (int i = optind; i < argc; i++) {
		int error = nmdm_parse_pair(&p, argv[i], o.dir);

		if (error == 0)
			error = makes ? create(&p, &o) : destroy(&p, &o);
		if (error != 0)
			status = 1;
	}
	return status;
}
