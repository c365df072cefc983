/* Names of null modems and where their links and state files are. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"
#include "nmdm/nmdm.h"

#define PREFIX    "nmdm"
#define DEV       "/dev"
#define RUN_STATE "/run/nmdm"

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

bool nmdm_is_path(const char *path)
{
	return strchr(path, '/') != NULL &&
	       strncmp(base_name(path), PREFIX, strlen(PREFIX)) == 0;
}

/* One of ours that nobody else can write to; made when missing. */
static int own_dir(const char *path)
{
	struct stat st;

	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return -errno;
	if (lstat(path, &st) != 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	return st.st_uid == geteuid() && (st.st_mode & 022) == 0 ? 0 : -EPERM;
}

/* What "/dev" stands for. */
static int default_dir(char *dir, size_t len)
{
	const char *env = getenv("NMDM_DIR"), *runtime = getenv("XDG_RUNTIME_DIR");
	char user[64];
	int n, error;

	if (env != NULL && env[0] != '\0') {
		n = snprintf(dir, len, "%s", env);
	} else if (access(DEV, W_OK | X_OK) == 0) {
		snprintf(dir, len, "%s", DEV);
		return 0;
	} else {
		if (runtime == NULL || runtime[0] != '/') {
			snprintf(user, sizeof(user), "/run/user/%u",
			    (unsigned)geteuid());
			runtime = user;
		}
		n = snprintf(dir, len, "%s/nmdm", runtime);
	}
	if (n >= (int)len)
		error = -ENAMETOOLONG;
	else
		error = own_dir(dir);
	if (error == -EPERM)
		log_error("%s cannot hold null modems: others may write to it, or "
			  "it is not yours; set NMDM_DIR to a directory of yours",
		    dir);
	else if (error != 0)
		log_error("no directory for null modems: %s cannot be made (%s); "
			  "set NMDM_DIR to a directory of yours",
		    dir, strerror(-error));
	return error;
}

/* The pair's name: at least one character after "nmdm", none that misleads. */
static const char *pair_error(const char *pair, size_t len)
{
	if (len <= strlen(PREFIX))
		return "has nothing between \"nmdm\" and its last letter";
	if (len > NMDM_PAIR_MAX)
		return "is longer than a null modem's name may be";
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)pair[i] <= ' ' || pair[i] == 0x7f)
			return "has a blank or a control character in it";
	}
	return NULL;
}

/* The absolute path of a directory that the user named. */
static int given_dir(const char *name, char *dir, size_t len, const char *option)
{
	char path[PATH_MAX];
	int error = 0;

	if (realpath(name, path) == NULL)
		error = -errno;
	else if (snprintf(dir, len, "%s", path) >= (int)len)
		error = -ENAMETOOLONG;
	if (error != 0)
		log_error(
		    "%s: the directory %s: %s", option, name, strerror(-error));
	return error;
}

int nmdm_parse(struct nmdm_path *p, const char *path, const char *option)
{
	const char *base = base_name(path), *why;
	char dir[PATH_MAX];
	size_t len = strlen(base), dirlen = (size_t)(base - path);
	char last = len > 0 ? base[len - 1] : '\0';

	if (last != 'A' && last != 'B')
		why = "does not end in A or B";
	else
		why = pair_error(base, len - 1);
	if (why != NULL) {
		log_error(
		    "%s: the null modem %s %s; the two ends of one are called "
		    "/dev/nmdm0A and /dev/nmdm0B",
		    option, path, why);
		return -EINVAL;
	}
	snprintf(p->pair, sizeof(p->pair), "%.*s", (int)(len - 1), base);
	p->end = last == 'A' ? NMDM_A : NMDM_B;
	if (dirlen == strlen(DEV "/") && strncmp(path, DEV "/", dirlen) == 0)
		return default_dir(p->dir, sizeof(p->dir));
	snprintf(dir, sizeof(dir), "%.*s", (int)dirlen, path);
	return given_dir(dir, p->dir, sizeof(p->dir), option);
}

int nmdm_parse_pair(struct nmdm_path *p, const char *name, const char *dir)
{
	bool whole = strncmp(name, PREFIX, strlen(PREFIX)) == 0;
	const char *why = NULL;
	size_t len = strlen(name) + (whole ? 0 : strlen(PREFIX));

	snprintf(p->pair, sizeof(p->pair), "%s", whole ? "" : PREFIX);
	strncat(p->pair, name, sizeof(p->pair) - 1 - strlen(p->pair));

	if (strchr(name, '/') != NULL)
		why = "has a '/' in it";
	else if (len > NMDM_PAIR_MAX)
		why = "is too long";
	else
		why = pair_error(p->pair, len);
	if (why != NULL) {
		log_error(
		    "\"%s\" cannot name a null modem: it %s; use a number or a "
		    "word, as in \"nmdm create 0\"",
		    name, why);
		return -EINVAL;
	}
	p->end = NMDM_A;
	if (dir != NULL)
		return given_dir(dir, p->dir, sizeof(p->dir), "-d");
	return default_dir(p->dir, sizeof(p->dir));
}

void nmdm_link(const struct nmdm_path *p, enum nmdm_end end, char *buf)
{
	snprintf(
	    buf, PATH_MAX, "%s/%s%c", p->dir, p->pair, end == NMDM_A ? 'A' : 'B');
}

int nmdm_state_dir(const struct nmdm_path *p, char *buf)
{
	int error;

	if (strcmp(p->dir, DEV) == 0)
		snprintf(buf, PATH_MAX, "%s", RUN_STATE);
	else
		snprintf(buf, PATH_MAX, "%s/.nmdm", p->dir);
	error = own_dir(buf);
	if (error != 0)
		log_error("the directory of null modems' state, %s: %s", buf,
		    error == -EPERM ? "it is not yours alone; remove it"
				    : strerror(-error));
	return error;
}

int nmdm_state_file(const struct nmdm_path *p, char *buf)
{
	char dir[PATH_MAX];
	int error = nmdm_state_dir(p, dir);

	if (error == 0 &&
	    snprintf(buf, PATH_MAX, "%s/%s", dir, p->pair) >= PATH_MAX)
		error = -ENAMETOOLONG;
	return error;
}
