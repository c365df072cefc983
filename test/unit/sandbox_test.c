/* What a process may and may not do once it is in the sandbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "bhyve/sandbox.h"
#include "lib/config.h"
#include "vmm/vmfile.h"

static char dir[] = "/tmp/sandbox_test.XXXXXX";

/* Each returns 0 when all is as it should be, else the line of the fault. */
#define MUST(x)                                                                    \
	do {                                                                       \
		if (!(x))                                                          \
			return __LINE__;                                           \
	} while (0)

static void *thread(void *arg)
{
	return arg;
}

static int what_a_vm_needs(void)
{
	struct vmfile *vf;
	pthread_t t;
	void *result, *code;
	timer_t timer;
	struct itimerspec its = { { 0 }, { 0 } };
	int fd;

	MUST(pthread_create(&t, NULL, thread, dir) == 0);
	MUST(pthread_join(t, &result) == 0 && result == dir);
	code = mmap(
	    NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(code != MAP_FAILED);
	MUST(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
	fd = memfd_create("x", MFD_CLOEXEC);
	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	MUST(epoll_create1(0) >= 0);
	MUST(timerfd_create(CLOCK_MONOTONIC, 0) >= 0);
	MUST(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0);
	MUST(timer_settime(timer, 0, &its, NULL) == 0);
	MUST(timer_delete(timer) == 0);
	MUST(raise(0) == 0);
	/* The VM object can be read and removed. */
	MUST(vmfile_open(&vf, "vm", false) == 0);
	vmfile_close(vf);
	MUST(vmfile_destroy("vm") == 0);
	return 0;
}

static int what_it_may_not(void)
{
	char path[64];

	MUST(open("/etc/passwd", O_RDONLY) < 0);
	MUST(open("/tmp/sandbox_made", O_CREAT | O_WRONLY, 0600) < 0);
	snprintf(path, sizeof(path), "%s/new", dir);
	MUST(open(path, O_CREAT | O_WRONLY, 0600) < 0);
	MUST(fork() < 0 && errno == EPERM);
	MUST(execl("/bin/true", "true", NULL) < 0 && errno == EPERM);
	MUST(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EPERM);
	MUST(kill(getppid(), 0) < 0 && errno == EPERM);
	MUST(ioctl(0, TIOCSTI, "x") < 0 && errno == EPERM);
	MUST(setuid(0) < 0 && errno == EPERM);
	MUST(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	MUST(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
	return 0;
}

/* With the network backend slirp: sockets of the Internet, and nothing to listen on. */
static int what_slirp_may(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	MUST(fd >= 0);
	MUST(ioctl(fd, FIONBIO, &one) == 0);
	MUST(listen(fd, 1) < 0 && errno == EPERM);
	MUST(socket(AF_INET, SOCK_DGRAM, 0) >= 0);
	MUST(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0 && errno == EPERM);
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) < 0 && errno == EPERM);
	MUST(socket(AF_PACKET, SOCK_DGRAM, 0) < 0 && errno == EPERM);
	MUST(socket(AF_NETLINK, SOCK_DGRAM, 0) < 0 && errno == EPERM);
	MUST(open("/etc/passwd", O_RDONLY) < 0);
	MUST(access("/etc/resolv.conf", F_OK) != 0 ||
	     open("/etc/resolv.conf", O_RDONLY) >= 0);
	MUST(open("/etc/resolv.conf", O_WRONLY) < 0);
	return 0;
}

static int dumpable_with_c(void)
{
	MUST(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1);
	return 0;
}

static int switched_off(void)
{
	int fd = open("/etc/passwd", O_RDONLY);

	MUST(fd >= 0);
	return 0;
}

/* fn in a sandboxed child. */
static void inside(int (*fn)(void), const char *key, const char *value)
{
	struct config *cfg = config_new();
	int status;
	pid_t pid;

	config_set(cfg, "name", "vm");
	if (key != NULL)
		config_set(cfg, key, value);
	pid = fork();
	if (pid == 0) {
		int line;

		if (sandbox_early() != 0 || sandbox_enter(cfg) != 0)
			_exit(255);
		line = fn();
		if (line != 0)
			dprintf(2, "line %d: %s\n", line, strerror(errno));
		_exit(line != 0);
	}
	waitpid(pid, &status, 0);
	config_free(cfg);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void allows(void **state)
{
	(void)state;
	inside(what_a_vm_needs, NULL, NULL);
}

static void forbids(void **state)
{
	(void)state;
	inside(what_it_may_not, NULL, NULL);
	inside(what_it_may_not, "pci.0.3.0.backend", "tap0");
}

static void slirp(void **state)
{
	(void)state;
	inside(what_slirp_may, "pci.0.3.0.backend", "slirp");
	inside(what_slirp_may, "pci.255.31.7.type", "slirp");
}

static void options(void **state)
{
	(void)state;
	inside(dumpable_with_c, "memory.guest_in_core", "true");
	inside(switched_off, "sandbox", "false");
}

static int setup(void **state)
{
	struct vmfile *vf;

	(void)state;
	if (access(dir, F_OK) != 0 && mkdtemp(dir) == NULL)
		return -1;
	setenv("VMM_DIR", dir, 1);
	if (vmfile_create(&vf, "vm", 1 << 20, "test") != 0)
		return -1;
	vmfile_close(vf);
	return 0;
}

static int teardown(void **state)
{
	char path[64];

	(void)state;
	vmfile_destroy("vm");
	snprintf(path, sizeof(path), "%s/.control", dir);
	rmdir(path);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(allows),
		TEST(forbids),
		TEST(slirp),
		TEST(options),
	};

	return cmocka_run_group_tests(tests, NULL, remove_dir);
}
