/*
 * The control socket of a running machine: every command, and clients that send
 * nonsense, too much, half of it, or never read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bhyve/control.h"
#include "lib/config.h"
#include "lib/event.h"
#include "vmm/control.h"
#include "vmm/machine.h"
#include "vmm/vmfile.h"

struct fixture {
	struct config *cfg;
	struct machine *m;
	struct control *control;
	pthread_t thread;
	bool ended;
	enum suspend_reason why;
	char dir[32];
};

static void *run(void *arg)
{
	struct fixture *f = arg;

	f->why = machine_run(f->m);
	return NULL;
}

/* Two CPUs; the first executes "jmp ." at 0x7c00. */
static int setup(void **state)
{
	static const uint8_t code[] = { 0xeb, 0xfe };
	struct fixture *f = calloc(1, sizeof(*f));
	struct vcpu_state s;

	strcpy(f->dir, "/tmp/control_test.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	setenv("VMM_DIR", f->dir, 1);
	f->cfg = config_new();
	config_set(f->cfg, "memory.size", "2M");
	config_set(f->cfg, "cpus", "2");
	config_set(f->cfg, "sockets", "2");
	assert_int_equal(machine_create(&f->m, f->cfg, &engine_soft), 0);
	assert_int_equal(memory_write(&f->m->mem, 0x7c00, code, sizeof(code)), 0);
	vcpu_state_reset(&s, 0);
	s.seg[SEG_CS].base = s.seg[SEG_CS].sel = 0;
	s.rip = 0x7c00;
	assert_int_equal(vcpu_set_state(&f->m->vcpu[0], &s), 0);
	assert_int_equal(control_create(&f->control, f->m, "vm"), 0);
	pthread_create(&f->thread, NULL, run, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[64];

	if (!f->ended) {
		machine_suspend(f->m, SUSPEND_POWEROFF);
		pthread_join(f->thread, NULL);
	}
	control_destroy(f->control);
	machine_destroy(f->m);
	config_free(f->cfg);
	snprintf(path, sizeof(path), "%s/.control/vm", f->dir);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/.control", f->dir);
	rmdir(path);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static int dial(void)
{
	struct timeval timeout = { .tv_sec = 10 };
	struct sockaddr_un address;
	socklen_t len;
	int dirfd, fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(control_address("vm", &address, &len, &dirfd), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	assert_int_equal(connect(fd, (struct sockaddr *)&address, len), 0);
	return fd;
}

static char answer[CONTROL_ANSWER_MAX + 1];

/* One answer, without its closing line. */
static const char *take(int fd)
{
	size_t len = 0;

	for (;;) {
		ssize_t n = recv(fd, answer + len, 1, 0);

		if (n != 1)
			return NULL;
		answer[++len] = '\0';
		if (len >= 3 && strcmp(answer + len - 3, "\n.\n") == 0) {
			answer[len - 2] = '\0';
			return answer;
		}
	}
}

static const char *ask(int fd, const char *line)
{
	assert_int_equal(send(fd, line, strlen(line), MSG_NOSIGNAL), strlen(line));
	return take(fd);
}

static void commands(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	char path[64];
	int fd = dial();

	snprintf(path, sizeof(path), "%s/.control/vm", f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_non_null(strstr(ask(fd, "info\n"), "\ncpus=2\n"));
	assert_non_null(strstr(answer, "ok\nname=vm\n"));
	assert_non_null(strstr(ask(fd, "stats 0\n"), "\nport reads 0\n"));
	assert_int_equal(strlen(ask(fd, "get-state 1\n")),
	    3 + 2 * sizeof(struct vcpu_state) + 1);
	assert_string_equal(ask(fd, "set-field 0 rbx 0x1234\n"), "ok\n");
	assert_string_equal(ask(fd, "nvram-set 80 0xa5\n"), "ok\n");
	assert_string_equal(ask(fd, "nvram-get 80\n"), "ok\n165\n");
	assert_string_equal(ask(fd, "rtc-set 1000000000\n"), "ok\n");
	assert_non_null(strstr(ask(fd, "rtc-get\n"), "ok\n100000000"));
	assert_string_equal(ask(fd, "inject-nmi 1\n"), "ok\n");
	/* Several lines at once are answered one by one, in order. */
	assert_string_equal(
	    ask(fd, "nvram-get 80\nbogus\nnvram-get 80\n"), "ok\n165\n");
	assert_string_equal(take(fd), "error no such command\n");
	assert_string_equal(take(fd), "ok\n165\n");
	close(fd);
}

static void errors(void **state)
{
	static const char *const lines[] = { "\n", "x\n", " \n", "stats\n",
		"stats 2\n", "stats -1\n", "stats 0x\n",
		"get-state 99999999999999999999\n", "set-field\n", "set-field 0\n",
		"set-field 0 rax\n", "set-field 0 xyz 1\n",
		"set-field 0 cs 0x10000\n", "set-field 0 cr0 0x80000000\n",
		"nvram-get 128\n", "nvram-set 80 256\n", "nvram-set 80\n",
		"rtc-set x\n", "assert-lvt 0 2\n", "inject-nmi 2\n",
		"power-button\n", "info-\n" };
	int fd = dial();

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_non_null(strstr(ask(fd, lines[i]), "error "));
	close(fd);
}

static void long_lines_end_the_client(void **state)
{
	char line[CONTROL_LINE_MAX + 1];
	int fd = dial();

	(void)state;
	memset(line, 'a', sizeof(line));
	assert_int_equal(send(fd, line, sizeof(line), MSG_NOSIGNAL), sizeof(line));
	assert_null(take(fd));
	close(fd);
	/* The longest that fits is a command like others. */
	fd = dial();
	line[CONTROL_LINE_MAX - 1] = '\n';
	assert_int_equal(
	    send(fd, line, CONTROL_LINE_MAX, MSG_NOSIGNAL), CONTROL_LINE_MAX);
	assert_string_equal(take(fd), "error no such command\n");
	close(fd);
}

static void clients_that_never_read(void **state)
{
	static const char line[] = "get-state 0\n";
	int slow[4], fd;

	(void)state;
	/*
	 * Asks until its socket takes no more: the server must not take more
	 * either.
	 */
	for (size_t i = 0; i < 4; i++) {
		slow[i] = dial();
		for (int n = 0; n < 100000; n++) {
			if (send(slow[i], line, sizeof(line) - 1,
				MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
				break;
		}
	}
	fd = dial();
	assert_non_null(strstr(ask(fd, "info\n"), "ok\n"));
	close(fd);
	for (size_t i = 0; i < 4; i++)
		close(slow[i]);
}

static void many_clients(void **state)
{
	int fds[30], fd;

	(void)state;
	for (size_t i = 0; i < 30; i++) {
		fds[i] = dial();
		assert_non_null(strstr(ask(fds[i], "info\n"), "ok\n"));
	}
	/* The oldest made room, the newest are still served. */
	assert_null(take(fds[0]));
	assert_non_null(strstr(ask(fds[29], "info\n"), "ok\n"));
	for (size_t i = 0; i < 30; i++)
		close(fds[i]);
	/* Half a line and gone. */
	fd = dial();
	assert_int_equal(send(fd, "inf", 3, MSG_NOSIGNAL), 3);
	close(fd);
}

static void nonsense(void **state)
{
	static const char *const words[] = { "info", "stats", "get-state",
		"set-field", "nvram-get", "nvram-set", "rtc-get", "inject-nmi", "0",
		"1", "-1", "rip", "cs", "0x7c00", "efer", "cr4", "%s%n", "\x01\xff",
		"18446744073709551615" };
	char line[CONTROL_LINE_MAX];
	int fd = dial();

	(void)state;
	srandom(1);
	for (int i = 0; i < 3000; i++) {
		line[0] = '\0';
		for (long n = random() % 6; n > 0; n--) {
			strcat(line, words[(size_t)random() %
					   (sizeof(words) / sizeof(words[0]))]);
			strcat(line, random() % 8 == 0 ? "  " : " ");
		}
		strcat(line, "\n");
		assert_non_null(ask(fd, line));
		assert_true(strncmp(answer, "ok\n", 3) == 0 ||
			    strncmp(answer, "error ", 6) == 0);
	}
	for (int i = 0; i < 300; i++) {
		char junk[64];

		for (size_t k = 0; k < sizeof(junk); k++)
			junk[k] = (char)random();
		if (send(fd, junk, sizeof(junk), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
	}
	close(fd);
	fd = dial();
	assert_non_null(strstr(ask(fd, "info\n"), "ok\n"));
	close(fd);
}

static void destroy(void **state)
{
	struct fixture *f = *state;
	int fd = dial();

	/* The answer comes although the machine ends. */
	assert_string_equal(ask(fd, "destroy\n"), "ok\n");
	pthread_join(f->thread, NULL);
	assert_int_equal(f->why, SUSPEND_DESTROY);
	f->ended = true;
	close(fd);
}

static void reset(void **state)
{
	struct fixture *f = *state;
	int fd = dial();

	assert_string_equal(ask(fd, "reset\n"), "ok\n");
	pthread_join(f->thread, NULL);
	assert_int_equal(f->why, SUSPEND_RESET);
	f->ended = true;
	close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(commands),
		TEST(errors),
		TEST(long_lines_end_the_client),
		TEST(clients_that_never_read),
		TEST(many_clients),
		TEST(nonsense),
		TEST(destroy),
		TEST(reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
