/*
 * Null modems, as FreeBSD's nmdm(4): a pair of terminal devices nmdmNAMEA and
 * nmdmNAMEB where what is written to one is read from the other.
 *
 * An end is a symbolic link to a pseudo terminal. A process of its own, nmdm(8),
 * holds the masters of both (pair.c), so that neither bhyve's nor the client's
 * restart is felt by the other. A state file tells that the pair is there:
 * locks on its bytes say who keeps it and who uses its ends, and die with their
 * processes.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define NMDM_PAIR_MAX 48

enum nmdm_end { NMDM_A, NMDM_B, NMDM_ENDS };

struct nmdm_path {
	char pair[NMDM_PAIR_MAX + 1]; /* "nmdm0" */
	enum nmdm_end end;
	char dir[PATH_MAX - 128]; /* where the links are */
};

/*
 * path.c - names.
 */
/* Whether a console's path asks for a null modem. */
bool nmdm_is_path(const char *path);
/*
 * Takes "/dev/nmdm0A" apart. Links lie in $NMDM_DIR, else in /dev, else - who may
 * not make them there - in $XDG_RUNTIME_DIR/nmdm; a path elsewhere is kept. option
 * begins messages. 0 or -errno (logged).
 */
int nmdm_parse(struct nmdm_path *p, const char *path, const char *option);
/* A pair by "0" or "nmdm0" in dir; NULL: in the one that "/dev" stands for. */
int nmdm_parse_pair(struct nmdm_path *p, const char *name, const char *dir);
/* buf is PATH_MAX bytes. */
void nmdm_link(const struct nmdm_path *p, enum nmdm_end end, char *buf);
/* The directory of state files, made when missing. 0 or -errno (logged). */
int nmdm_state_dir(const struct nmdm_path *p, char *buf);
int nmdm_state_file(const struct nmdm_path *p, char *buf);

/*
 * lock.c - who is there.
 */
/* Locks of the state file; the two ends follow each other. */
enum nmdm_byte { NMDM_KEEPER, NMDM_USER, NMDM_BYTES = NMDM_USER + NMDM_ENDS };

/* 0, -EBUSY or -errno. The lock lasts as long as fd. */
int nmdm_lock(int fd, enum nmdm_byte byte);
/* The process that holds the lock of this byte, 0: none, -1: not known. */
pid_t nmdm_holder(const struct nmdm_path *p, enum nmdm_byte byte);
/*
 * The process that says in cu's way (/var/lock/LCK..nmdm0B) that it uses an end.
 * A lock that a dead process left is removed with a warning. 0: nobody.
 */
pid_t nmdm_client(const struct nmdm_path *p, enum nmdm_end end);
/* "process 123 (bhyve)" */
void nmdm_say_process(pid_t pid, char *buf, size_t len);

/*
 * open.c - for bhyve and loaders.
 */
/*
 * Opens an end, with its pair made when it is not there; one user each. option
 * begins messages. lock is to be closed after fd. 0 or -errno (logged).
 */
int nmdm_open(const char *path, const char *option, int *fd, int *lock);

/*
 * pair.c - the process that keeps a pair.
 */
/*
 * Makes the pair and serves it until SIGTERM, or - temporary - until both ends
 * have been closed for a while. ready() is called once it can be used. 0 or -errno
 * (logged); -EEXIST: somebody keeps it already (not logged).
 */
int nmdm_serve(const struct nmdm_path *p, bool temporary, void (*ready)(void));
