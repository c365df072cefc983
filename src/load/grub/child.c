/* Starts and confines GRUB's process (child.h). */
#include "load/grub/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/landlock.h>

#include "lib/log.h"
#include "lib/util.h"
#include "load/grub/proto.h"

#define NOBODY     65534
#define MEMORY_MAX (2 * GiB) /* files pass through it in pieces */

/* Every right that Landlock's first version knows; the rules grant few of them. */
#define FS_ALL                                                                     \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |              \
	    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |           \
	    LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |       \
	    LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |           \
	    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |           \
	    LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |         \
	    LANDLOCK_ACCESS_FS_MAKE_SYM)
#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

/* What is needed to start a program at all. */
static const char *const system_dirs[] = { "/usr/lib", "/lib", "/lib64" };
static const char *const system_files[] = { "/etc/ld.so.cache" };

static int allow(int ruleset, int fd, uint64_t access)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = access,
		.parent_fd = fd };

	return (int)syscall(
	    SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

static int allow_path(int ruleset, const char *path, uint64_t access)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	int r = allow(ruleset, fd, access);
	close(fd);
	return r;
}

/* A ruleset made while the process still may look everywhere; -1: no Landlock here.
 */
static int make_ruleset(const struct child_options *o)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = FS_ALL };
	int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (fd < 0)
		return -1;
	int r = 0;
	for (size_t i = 0; i < ARRAY_SIZE(system_dirs); i++)
		r |= allow_path(
		    fd, system_dirs[i], FS_READ | LANDLOCK_ACCESS_FS_EXECUTE);
	for (size_t i = 0; i < ARRAY_SIZE(system_files); i++)
		r |= allow_path(fd, system_files[i], LANDLOCK_ACCESS_FS_READ_FILE);
	r |= allow_path(fd, o->program,
	    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE);
	r |= allow_path(fd, o->tree->dir, FS_READ);
	r |= allow_path(fd, o->tree->modules, FS_READ);
	r |= allow_path(fd, o->tree->module, LANDLOCK_ACCESS_FS_READ_FILE);
	for (unsigned i = 0; i < o->map->count; i++)
		r |= allow(fd, o->map->entries[i].fd, LANDLOCK_ACCESS_FS_READ_FILE);
	/* GRUB lists "/" when it opens (host): names may be seen, files not read.
	 */
	r |= allow_path(
	    fd, "/", o->host_files ? FS_READ : LANDLOCK_ACCESS_FS_READ_DIR);
	if (r != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/*
 * Root's files stay readable (Landlock says which), nothing else of root remains.
 */
static int become_nobody(void)
{
	const uint32_t cap = BIT(CAP_DAC_READ_SEARCH);
	struct __user_cap_header_struct head = { .version =
						     _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { cap, cap, cap }, { 0, 0, 0 } };
	struct passwd *pw = getpwnam("nobody");
	uid_t uid = pw != NULL ? pw->pw_uid : NOBODY;
	gid_t gid = pw != NULL ? pw->pw_gid : NOBODY;

	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || setgroups(0, NULL) != 0 ||
	    setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
		return -errno;
	if (syscall(SYS_capset, &head, data) != 0 ||
	    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0,
		0) != 0)
		return -errno;
	return 0;
}

static int filter_syscalls(void)
{
	/* The network, other processes, and the kernel's more complicated doors. */
	static const int refused[] = { SCMP_SYS(socket), SCMP_SYS(connect),
		SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(sendmsg),
		SCMP_SYS(sendmmsg), SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv),
		SCMP_SYS(process_vm_writev), SCMP_SYS(kill), SCMP_SYS(tkill),
		SCMP_SYS(tgkill), SCMP_SYS(pidfd_open), SCMP_SYS(pidfd_getfd),
		SCMP_SYS(pidfd_send_signal), SCMP_SYS(fork), SCMP_SYS(vfork),
		SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(unshare),
		SCMP_SYS(setns), SCMP_SYS(mount), SCMP_SYS(umount2),
		SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(fsopen),
		SCMP_SYS(move_mount), SCMP_SYS(open_tree), SCMP_SYS(bpf),
		SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd),
		SCMP_SYS(io_uring_setup), SCMP_SYS(keyctl), SCMP_SYS(add_key),
		SCMP_SYS(request_key), SCMP_SYS(open_by_handle_at),
		SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(kexec_load),
		SCMP_SYS(kexec_file_load), SCMP_SYS(memfd_create), SCMP_SYS(shmget),
		SCMP_SYS(msgget), SCMP_SYS(semget), SCMP_SYS(mq_open) };
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);

	if (ctx == NULL)
		return -ENOMEM;
	int err = 0;
	for (size_t i = 0; err == 0 && i < ARRAY_SIZE(refused); i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
	if (err == 0)
		err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl),
		    1, SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, TIOCSTI));
	if (err == 0)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}

static int set_limits(void)
{
	const struct rlimit none = { 0, 0 }, memory = { MEMORY_MAX, MEMORY_MAX };

	if (setrlimit(RLIMIT_CORE, &none) != 0 ||
	    setrlimit(RLIMIT_FSIZE, &none) != 0 ||
	    setrlimit(RLIMIT_AS, &memory) != 0)
		return -errno;
	return 0;
}

/* Each part is a wall of its own; where the host lacks one the others must do. */
static int confine(const struct child_options *o)
{
	int ruleset = make_ruleset(o);

	if (geteuid() == 0) {
		int err = become_nobody();
		if (err != 0)
			log_warn("GRUB keeps its user: %s", strerror(-err));
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -errno;
	if (ruleset < 0 || syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) {
		if (o->verbose)
			log_info("this kernel has no Landlock: GRUB may read the "
				 "host's files");
	}
	if (ruleset >= 0)
		close(ruleset);
	int err = filter_syscalls();
	if (err == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
		err = -errno;
	/* Last: a sanitizer's allocator has more address space than that already. */
	if (err == 0)
		err = set_limits();
	return err;
}

/* dup2 that also works where the descriptor has that number already. */
static int place(int fd, int number)
{
	if (fd == number)
		return fcntl(fd, F_SETFD, 0);
	return dup2(fd, number) < 0 ? -1 : 0;
}

static void __attribute__((noreturn)) run(const struct child_options *o,
    int control, int keys, int terminal, pid_t parent)
{
	char *const argv[] = { "grub-emu-lite", "-m", (char *)o->tree->map, "-r",
		"host", "-d", (char *)o->tree->dir, NULL };
	char *const env[] = { "LC_ALL=C", "HOME=/", NULL };
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (chdir("/") != 0)
		_exit(126);
	/* Above what they are to become, so that none is overwritten. */
	control = fcntl(control, F_DUPFD_CLOEXEC, 16);
	keys = fcntl(keys, F_DUPFD_CLOEXEC, 16);
	terminal = fcntl(terminal, F_DUPFD_CLOEXEC, 16);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int err = confine(o);
	if (err != 0) {
		log_error("cannot confine GRUB: %s", strerror(-err));
		_exit(126);
	}
	if (getppid() != parent) /* it died before PDEATHSIG was set */
		_exit(126);
	if (null < 0 || place(null, 0) != 0 || place(terminal, 1) != 0 ||
	    place(terminal, 2) != 0 || place(control, GRUB_FD_CONTROL) != 0 ||
	    place(keys, GRUB_FD_KEYS) != 0)
		_exit(126);
	/* Ours close by themselves; this is for what grub-bhyve itself inherited.
	 */
	(void)syscall(SYS_close_range, GRUB_FD_KEYS + 1, ~0u, CLOSE_RANGE_CLOEXEC);
	execve(o->program, argv, env);
	_exit(127);
}

/* A terminal for GRUB's output; it reads its keys elsewhere. */
static int open_terminal(const struct child_options *o, int *master, int *slave)
{
	struct winsize size = { .ws_row = o->rows, .ws_col = o->cols };
	struct termios modes;
	char name[64];

	*slave = -1;
	*master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*master < 0)
		return -errno;
	if (grantpt(*master) != 0 || unlockpt(*master) != 0 ||
	    ptsname_r(*master, name, sizeof(name)) != 0)
		return -errno;
	*slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0 || tcgetattr(*slave, &modes) != 0)
		return -errno;
	cfmakeraw(&modes);
	if (tcsetattr(*slave, TCSANOW, &modes) != 0 ||
	    ioctl(*slave, TIOCSWINSZ, &size) != 0)
		return -errno;
	return 0;
}

int child_start(struct child *c, const struct child_options *o)
{
	int control[2] = { -1, -1 }, keys[2] = { -1, -1 }, slave = -1;

	*c = (struct child){ .control = -1, .keys = -1, .terminal = -1 };
	int err = open_terminal(o, &c->terminal, &slave);
	if (err == 0 &&
	    (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, keys) != 0))
		err = -errno;
	pid_t parent = getpid();
	if (err == 0) {
		c->pid = fork();
		if (c->pid == 0)
			run(o, control[1], keys[1], slave, parent);
		if (c->pid < 0) {
			err = -errno;
			c->pid = 0;
		}
	}
	c->control = control[0];
	c->keys = keys[0];
	if (control[1] >= 0)
		close(control[1]);
	if (keys[1] >= 0)
		close(keys[1]);
	if (slave >= 0)
		close(slave);
	if (err != 0) {
		log_error("cannot start GRUB: %s", strerror(-err));
		child_end(c);
	}
	return err;
}

int child_end(struct child *c)
{
	int status = 0;

	if (c->pid > 0) {
		kill(c->pid, SIGKILL);
		while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	c->pid = 0;
	int *fds[] = { &c->control, &c->keys, &c->terminal };
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	return status;
}
