/*
 * Before guest code runs the process gives up what a running VM does not need:
 * gaining privileges, being dumped or traced, all files but the VM object's and
 * the control socket's folders (Landlock), all system calls but a list (seccomp);
 * sockets too, unless a network device has the backend slirp.
 *
 * Refused calls fail with EPERM instead of killing the process: nothing is gained
 * by a guest that gets so far, and a library's rare call does not end the VM.
 */
#include "bhyve/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "lib/config.h"
#include "lib/log.h"
#include "lib/util.h"
#include "vmm/vmfile.h"

/* By group, with what needs it. */
static const char *const allowed[] = {
	/* memory of the program and of generated code */
	"brk",
	"mmap",
	"munmap",
	"mprotect",
	"mremap",
	"madvise",
	"memfd_create",
	"ftruncate",
	"mlock",
	"mlock2",
	"munlock",
	"mincore",
	"membarrier",
	/* threads and their signals */
	"exit",
	"exit_group",
	"futex",
	"set_robust_list",
	"rseq",
	"gettid",
	"getpid",
	"rt_sigaction",
	"rt_sigprocmask",
	"rt_sigreturn",
	"rt_sigtimedwait",
	"sigaltstack",
	"restart_syscall",
	"sched_yield",
	"sched_getaffinity",
	"sched_setaffinity",
	"sched_getparam",
	"sched_getscheduler",
	"arch_prctl",
	"getcpu",
	"prctl",
	/* time */
	"clock_gettime",
	"clock_getres",
	"clock_nanosleep",
	"nanosleep",
	"gettimeofday",
	"time",
	"timerfd_create",
	"timerfd_settime",
	"timerfd_gettime",
	"timer_create",
	"timer_settime",
	"timer_delete",
	/* event loop */
	"epoll_create1",
	"epoll_wait",
	"epoll_pwait",
	"epoll_pwait2",
	"epoll_ctl",
	"poll",
	"ppoll",
	"eventfd2",
	"signalfd4",
	"pipe2",
	/* descriptors already open: consoles, images, control socket */
	"read",
	"write",
	"readv",
	"writev",
	"pread64",
	"pwrite64",
	"preadv",
	"pwritev",
	"preadv2",
	"pwritev2",
	"lseek",
	"fdatasync",
	"fsync",
	"fallocate",
	"fstat",
	"newfstatat",
	"fcntl",
	"close",
	"dup",
	"accept4",
	"sendto",
	"recvfrom",
	"sendmsg",
	"recvmsg",
	"shutdown",
	"setsockopt",
	"getsockopt",
	"io_uring_enter",
	"io_uring_register",
	/*
	 * the end: removing the VM object and the socket, within Landlock's bounds
	 */
	"unlink",
	"unlinkat",
	"open",
	"openat",
	"stat",
	"lstat",
	"access",
	"faccessat",
	"faccessat2",
	"mkdir",
	"mkdirat",
	"getdents64",
	"statfs",
	"fstatfs",
	"flock",
	/* harmless questions of libraries */
	"getrandom",
	"uname",
	"sysinfo",
	"getuid",
	"geteuid",
	"getgid",
	"getegid",
	"getrusage",
	"prlimit64",
	"readlink",
	"readlinkat",
};

int sandbox_early(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		return 0;
	log_error("sandbox: cannot give up new privileges: %s", strerror(errno));
	return -errno;
}

/* Landlock: its system calls have no wrappers in the C library. */

#define LANDLOCK_READ   (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define LANDLOCK_REMOVE LANDLOCK_ACCESS_FS_REMOVE_FILE
/*
 * Every right of the first version of the interface: what is not allowed is
 * refused.
 */
#define LANDLOCK_ALL ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

static int allow_below(int ruleset, const char *path, uint64_t rights)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = rights };
	long result;

	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return -errno;
	result = syscall(
	    SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	close(rule.parent_fd);
	return result == 0 ? 0 : -errno;
}

/* The folder of the control socket of the VM called name. */
static int control_dir(const char *name, char *dir, size_t len)
{
	int error = vmfile_control_path(name, dir, len);

	if (error == 0)
		*strrchr(dir, '/') = '\0';
	return error;
}

static int restrict_files(const char *name, bool sockets)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ALL };
	const char *dir = vmfile_dir();
	char control[4096];
	int ruleset, error;

	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset < 0) {
		/* A kernel without it, or with it off: seccomp remains. */
		log_debug("sandbox: no Landlock: %s", strerror(errno));
		return 0;
	}
	error = dir == NULL ? -ENOENT : control_dir(name, control, sizeof(control));
	if (error == 0)
		error = allow_below(ruleset, dir,
		    LANDLOCK_READ | LANDLOCK_REMOVE |
			LANDLOCK_ACCESS_FS_WRITE_FILE);
	if (error == 0)
		error =
		    allow_below(ruleset, control, LANDLOCK_READ | LANDLOCK_REMOVE);
	/* slirp asks the host's name servers; without the file it asks none. */
	if (error == 0 && sockets)
		allow_below(
		    ruleset, "/etc/resolv.conf", LANDLOCK_ACCESS_FS_READ_FILE);
	if (error == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
		error = -errno;
	close(ruleset);
	return error;
}

/* Not TIOCSTI: it types into the user's shell. */
static const unsigned long ioctls[] = { TCGETS, TCSETS, TCSETSW, TCSETSF,
	TIOCGWINSZ, FIONREAD, BLKDISCARD, BLKZEROOUT, TUNSETOFFLOAD };

/* What slirp needs for the guest's connections. It listens before. */
static const char *const socket_calls[] = { "connect", "bind", "accept",
	"getsockname", "getpeername" };

static int allow_sockets(scmp_filter_ctx ctx)
{
	static const int families[] = { AF_INET, AF_INET6 };
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	int error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
	    SCMP_A1(SCMP_CMP_EQ, FIONBIO));

	for (size_t i = 0; error == 0 && i < ARRAY_SIZE(socket_calls); i++)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW,
		    seccomp_syscall_resolve_name(socket_calls[i]), 0);
	for (size_t f = 0; f < ARRAY_SIZE(families); f++)
		for (size_t t = 0; error == 0 && t < ARRAY_SIZE(types); t++)
			error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW,
			    SCMP_SYS(socket), 2,
			    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[f]),
			    SCMP_A1(SCMP_CMP_MASKED_EQ,
				(scmp_datum_t) ~(SOCK_CLOEXEC | SOCK_NONBLOCK),
				(scmp_datum_t)types[t]));
	return error;
}

/* Calls that are allowed with some arguments only. */
static int restrict_arguments(scmp_filter_ctx ctx)
{
	int error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
	    SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));

	/* Its arguments lie in memory; the C library then uses clone(). */
	if (error == 0)
		error = seccomp_rule_add(
		    ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (error == 0)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
		    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	for (size_t i = 0; error == 0 && i < ARRAY_SIZE(ioctls); i++)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
		    SCMP_A1(SCMP_CMP_EQ, ioctls[i]));
	return error;
}

static int restrict_calls(bool sockets)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error = 0;

	if (ctx == NULL)
		return -ENOMEM;
	/* All threads; and no slower stores for generated code on older kernels. */
	error = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_SSB, 1);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (size_t i = 0; error == 0 && i < ARRAY_SIZE(allowed); i++) {
		int number = seccomp_syscall_resolve_name(allowed[i]);

		if (number != __NR_SCMP_ERROR)
			error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, number, 0);
	}
	if (error == 0)
		error = restrict_arguments(ctx);
	if (error == 0 && sockets)
		error = allow_sockets(ctx);
	if (error == 0)
		error = seccomp_load(ctx);
	seccomp_release(ctx);
	return error;
}

/* Whether a device under "pci.B.S.F" has the backend slirp. */
struct search {
	const struct config *cfg;
	const char *prefix;
	unsigned depth;
};

static int has_slirp(const char *name, void *arg)
{
	const struct search *s = arg;
	char node[128];
	struct search below = { s->cfg, node, s->depth + 1 };
	const char *value;

	if (snprintf(node, sizeof(node), "%s.%s", s->prefix, name) >=
	    (int)sizeof(node))
		return 0;
	if (s->depth < 3)
		return config_children(s->cfg, node, has_slirp, &below);
	if (strcmp(name, "backend") != 0 && strcmp(name, "type") != 0)
		return 0;
	value = config_get(s->cfg, node);
	return value != NULL && strcmp(value, "slirp") == 0;
}

int sandbox_enter(const struct config *cfg)
{
	struct search pci = { cfg, "pci", 0 };
	bool wanted, in_core, sockets;
	int error = 0;

	if (config_get_bool(cfg, "sandbox", true, &wanted) != 0 ||
	    config_get_bool(cfg, "memory.guest_in_core", false, &in_core) != 0)
		return -EINVAL;
	if (!wanted)
		return 0;
	/*
	 * Not before: it also closes /proc/self to us, which consoles are opened
	 * through.
	 */
	if (!in_core && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		error = -errno;
	sockets = config_children(cfg, "pci", has_slirp, &pci) != 0;
	if (error == 0)
		error = restrict_files(config_get(cfg, "name"), sockets);
	if (error == 0)
		error = restrict_calls(sockets);
	if (error != 0)
		log_error("cannot enter the sandbox: %s; -o sandbox=false runs "
			  "without it",
		    strerror(-error));
	return error;
}
