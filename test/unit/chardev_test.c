/* Console back ends on real pseudo terminals, sockets and files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "bhyve/console/console.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/tty.h"

struct fixture {
	struct event_loop *loop;
	struct chardev *c;
	unsigned readable, writable;
	char got[256];
	size_t len;
};

static void on_readable(void *arg)
{
	struct fixture *f = arg;

	f->readable++;
	f->len +=
	    chardev_read(f->c, (uint8_t *)f->got + f->len, sizeof(f->got) - f->len);
}

static void on_writable(void *arg)
{
	struct fixture *f = arg;

	f->writable++;
	chardev_poll(f->c, true, false);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return event_loop_new(&f->loop, NULL);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	chardev_close(f->c);
	event_loop_free(f->loop);
	free(f);
	return 0;
}

static void use(struct fixture *f, const char *spec)
{
	assert_int_equal(chardev_open(&f->c, f->loop, spec, "-l com1"), 0);
	chardev_set_callbacks(f->c, on_readable, on_writable, f);
	chardev_poll(f->c, true, false);
}

/* Turns the loop until len bytes came. */
static void want(struct fixture *f, size_t len)
{
	for (int i = 0; i < 1000 && f->len < len; i++)
		event_loop_poll(f->loop, 10);
	assert_int_equal(f->len, len);
}

static void tty_both_ways(void **state)
{
	struct fixture *f = *state;
	char name[64], buf[16] = { 0 };
	int master, slave;

	assert_int_equal(openpty(&master, &slave, name, NULL, NULL), 0);
	use(f, name);
	assert_int_equal(write(master, "in\003\r", 4), 4);
	want(f, 4);
	assert_memory_equal(
	    f->got, "in\003\r", 4); /* raw: no signal, no translation */
	assert_int_equal(chardev_write(f->c, (const uint8_t *)"out\n", 4), 4);
	assert_int_equal(read(master, buf, sizeof(buf)), 4);
	assert_string_equal(buf, "out\n");
	close(slave);
	close(master);
	/* The other end is gone: no spin, output vanishes. */
	for (int i = 0; i < 20; i++)
		event_loop_poll(f->loop, 1);
	assert_true(f->readable < 5);
	assert_int_equal(chardev_write(f->c, (const uint8_t *)"out\n", 4), 4);
}

static void full_tty_takes_nothing(void **state)
{
	struct fixture *f = *state;
	char name[64], buf[4096];
	size_t sent = 0, received = 0;
	int master, slave;

	assert_int_equal(openpty(&master, &slave, name, NULL, NULL), 0);
	fcntl(master, F_SETFL, O_NONBLOCK);
	use(f, name);
	memset(buf, 'x', sizeof(buf));
	for (;;) {
		size_t n = chardev_write(f->c, (uint8_t *)buf, 100);

		sent += n;
		if (n == 0)
			break;
		assert_true(sent < 1 << 20);
	}
	chardev_poll(f->c, true, true);
	event_loop_poll(f->loop, 5);
	assert_int_equal(f->writable, 0);
	for (int i = 0; i < 1000 && (received < sent || f->writable == 0); i++) {
		ssize_t n = read(master, buf, sizeof(buf));

		received += n > 0 ? (size_t)n : 0;
		event_loop_poll(f->loop, 5);
	}
	assert_int_equal(received, sent);
	assert_true(f->writable > 0);
	close(slave);
	close(master);
}

static void not_wanted_is_not_read(void **state)
{
	struct fixture *f = *state;
	char name[64];
	int master, slave;

	assert_int_equal(openpty(&master, &slave, name, NULL, NULL), 0);
	use(f, name);
	chardev_poll(f->c, false, false);
	assert_int_equal(write(master, "in", 2), 2);
	event_loop_poll(f->loop, 20);
	assert_int_equal(f->readable, 0);
	chardev_poll(f->c, true, false);
	want(f, 2);
	close(slave);
	close(master);
}

static int dial(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void tcp_one_client(void **state)
{
	struct fixture *f = *state;
	int port = 20000 + getpid() % 20000, one, two;
	char spec[64], buf[8];

	snprintf(spec, sizeof(spec), "tcp=127.0.0.1:%d", port);
	use(f, spec);
	/* Nobody there: output vanishes. */
	assert_int_equal(chardev_write(f->c, (const uint8_t *)"lost", 4), 4);
	one = dial(port);
	assert_int_equal(write(one, "hello", 5), 5);
	want(f, 5);
	two = dial(port);
	event_loop_poll(f->loop, 100);
	assert_int_equal(read(two, buf, sizeof(buf)), 0); /* turned away */
	assert_int_equal(chardev_write(f->c, (const uint8_t *)"hi", 2), 2);
	assert_int_equal(read(one, buf, sizeof(buf)), 2);
	close(one);
	close(two);
	one = dial(port); /* the next one is welcome, at once */
	assert_int_equal(write(one, "again", 5), 5);
	want(f, 10);
	close(one);
}

static void bad_specs(void **state)
{
	static const char *const specs[] = { "", "studio", "tcp=", "tcp=1.2.3.4",
		"tcp=:80", "tcp=::1:80", "tcp=[::1]", "tcp=[::1:80",
		"tcp=host.name:80", "tcp=127.0.0.1:x", "tcp=127.0.0.1:99999",
		"/nonexistent/tty", "/dev/nmdm0", "/dev/nmdmA", "/dev/null", "/etc/passwd", "/" };
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		int error = chardev_open(&f->c, f->loop, specs[i], "-l com1");

		if (error == 0)
			print_error("%s was taken\n", specs[i]);
		assert_true(error < 0);
	}
}

/* Runs fn in a child whose standard files are a new terminal; its exit status. */
static int on_terminal(
    void (*fn)(void), int *master, struct termios *before, struct termios *after)
{
	int slave, status;
	pid_t pid;

	assert_int_equal(openpty(master, &slave, NULL, NULL, NULL), 0);
	tcgetattr(slave, before);
	pid = fork();
	if (pid == 0) {
		/* The test's own handlers (cmocka, sanitizers) are not bhyve's. */
		for (int i = 1; i < 32; i++)
			signal(i, SIG_DFL);
		setsid();
		dup2(slave, 0);
		dup2(slave, 1);
		fn();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	tcgetattr(slave, after);
	close(slave);
	return status;
}

static struct event_loop *child_loop(void)
{
	/* Reachable at exit, for the leak checker. */
	static struct event_loop *loop;
	static struct chardev *c;
	struct termios modes;

	tty_guard();
	if (event_loop_new(&loop, NULL) != 0 ||
	    chardev_open(&c, loop, "stdio", "-l com1") != 0)
		_exit(99);
	tcgetattr(0, &modes);
	if ((modes.c_lflag & (ICANON | ECHO | ISIG)) != 0)
		_exit(98);
	/* The descriptors that others share stay blocking. */
	if ((fcntl(0, F_GETFL) & O_NONBLOCK) != 0 ||
	    (fcntl(1, F_GETFL) & O_NONBLOCK) != 0)
		_exit(97);
	return loop;
}

static void child_exits(void)
{
	child_loop();
	exit(5);
}

static void child_aborts(void)
{
	child_loop();
	abort();
}

static void child_faults(void)
{
	child_loop();
	raise(SIGSEGV);
}

static void child_is_terminated(void)
{
	child_loop();
	raise(SIGTERM);
}

static void child_second_user(void)
{
	struct chardev *c;

	exit(chardev_open(&c, child_loop(), "stdio", "-l com2") == -EBUSY ? 5 : 6);
}

static void terminal_is_restored(void **state)
{
	static const struct {
		void (*fn)(void);
		int status, signal;
	} cases[] = { { child_exits, 5, 0 }, { child_aborts, 0, SIGABRT },
		{ child_faults, 0, SIGSEGV }, { child_is_terminated, 0, SIGTERM },
		{ child_second_user, 5, 0 } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct termios before, after;
		int master, status;

		status = on_terminal(cases[i].fn, &master, &before, &after);
		if (cases[i].signal != 0)
			assert_int_equal(WTERMSIG(status), cases[i].signal);
		else
			assert_int_equal(WEXITSTATUS(status), cases[i].status);
		assert_int_equal(before.c_lflag, after.c_lflag);
		assert_int_equal(before.c_iflag, after.c_iflag);
		assert_int_equal(before.c_oflag, after.c_oflag);
		close(master);
	}
}

/* End of input stops reading, not the output. */
static void stdio_files(void **state)
{
	static const char *const inputs[] = { "/dev/null", NULL };
	struct fixture *f = *state;
	int saved[2] = { dup(0), dup(1) };

	for (size_t i = 0; i < 2; i++) {
		char in[] = "/tmp/chardev_in.XXXXXX",
		     out[] = "/tmp/chardev_out.XXXXXX";
		int ifd = mkstemp(in), ofd = mkstemp(out);
		char buf[8] = { 0 };
		unsigned calls;

		assert_int_equal(write(ifd, "typed", 5), 5);
		lseek(ifd, 0, SEEK_SET);
		if (inputs[i] != NULL)
			dup2(open(inputs[i], O_RDONLY), ifd);
		fflush(stdout);
		dup2(ifd, 0);
		dup2(ofd, 1);
		f->len = f->readable = 0;
		use(f, "stdio");
		for (int k = 0; k < 10; k++)
			event_loop_poll(f->loop, 5);
		calls = f->readable;
		assert_int_equal(
		    chardev_write(f->c, (const uint8_t *)"said", 4), 4);
		chardev_close(f->c);
		f->c = NULL;
		dup2(saved[0], 0);
		dup2(saved[1], 1);
		assert_true(calls <= 2);
		assert_int_equal(f->len, inputs[i] != NULL ? 0 : 5);
		assert_int_equal(pread(ofd, buf, sizeof(buf), 0), 4);
		close(ifd);
		close(ofd);
		unlink(in);
		unlink(out);
	}
	close(saved[0]);
	close(saved[1]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(tty_both_ways),
		TEST(full_tty_takes_nothing),
		TEST(not_wanted_is_not_read),
		TEST(tcp_one_client),
		TEST(bad_specs),
		TEST(terminal_is_restored),
		TEST(stdio_files),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
