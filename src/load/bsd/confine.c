/* The loader's confinement (confine.h). */
#include "load/bsd/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/landlock.h>

#include "lib/util.h"

#define FS_ALL                                                                     \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |              \
	    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |           \
	    LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |       \
	    LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |           \
	    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |           \
	    LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |         \
	    LANDLOCK_ACCESS_FS_MAKE_SYM)
#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* Of the VM directory: an object that was not loaded is removed. */
#define FS_VMM                                                                     \
	(FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE)

static int allow(int ruleset, int fd, uint64_t access)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = access,
		.parent_fd = fd };

	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH,
		   &rule, 0) != 0
		   ? -errno
		   : 0;
}

/* 0 also where the kernel has no Landlock: the other walls must do. */
static int restrict_files(int host, const char *vmm)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = FS_ALL };
	int ruleset =
	    (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (ruleset < 0)
		return 0;
	int dir = open(vmm, O_PATH | O_CLOEXEC);
	int err = dir < 0 ? -errno : allow(ruleset, dir, FS_VMM);
	if (err == 0 && host >= 0)
		err = allow(ruleset, host, FS_READ);
	if (dir >= 0)
		close(dir);
	if (err == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
		err = -errno;
	close(ruleset);
	return err;
}

static int filter_syscalls(void)
{
	static const int allowed[] = { SCMP_SYS(read), SCMP_SYS(write),
		SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
		SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(fstat),
		SCMP_SYS(newfstatat), SCMP_SYS(stat), SCMP_SYS(lstat),
		SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2),
		SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(openat2),
		SCMP_SYS(getdents64), SCMP_SYS(unlink), SCMP_SYS(unlinkat),
		SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(ioctl), SCMP_SYS(fcntl),
		SCMP_SYS(flock), SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
		SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(mmap),
		SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect),
		SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(futex),
		SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep),
		SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time),
		SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(tgkill),
		SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getrandom),
		SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
		SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
		SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield), SCMP_SYS(exit),
		SCMP_SYS(exit_group), SCMP_SYS(readlink), SCMP_SYS(sysinfo),
		SCMP_SYS(mkdir), SCMP_SYS(uname), SCMP_SYS(prlimit64) };
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));

	if (ctx == NULL)
		return -ENOMEM;
	int err = 0;
	for (size_t i = 0; err == 0 && i < ARRAY_SIZE(allowed); i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	if (err == 0)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}

int confine(int host, const char *vmm)
{
	const struct rlimit none = { 0, 0 };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    setrlimit(RLIMIT_CORE, &none) != 0)
		return -errno;
	int err = restrict_files(host, vmm);
	return err != 0 ? err : filter_syscalls();
}
