/*
 * The loop between the user's terminal and GRUB's process (session.h).
 *
 * Only what the module says counts as a result: GRUB's own exit status is 0 for
 * everything. A message from GRUB's process that makes no sense ends the session.
 */
#include "load/grub/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/util.h"
#include "load/grub/guest.h"
#include "load/grub/proto.h"

#define OUT_PATIENCE_MS 200 /* how long a stuck console may hold GRUB up */
#define START_PATIENCE_MS                                                          \
	20000               /* until GRUB works; in its rescue shell it would not */
#define MESSAGE_PATIENCE 30 /* seconds for the rest of a message begun */
#define DRAIN_ROUNDS     64

struct loop {
	struct session *s;
	struct guest guest;
	int signals;
	bool ready;
	bool input_open;
	uint8_t keys[256]; /* read from the user, not yet taken by GRUB */
	size_t nkeys;
	uint8_t message[GRUB_MSG_MAX];
	bool ended;
	enum session_end end;
};

static void end(struct loop *l, enum session_end why)
{
	if (!l->ended)
		l->end = why;
	l->ended = true;
}

static void fail(struct loop *l, const char *why)
{
	log_error("%s", why);
	end(l, SESSION_FAILED);
}

/* A console nobody reads must not stop GRUB: what it does not take is lost. */
static void put_output(struct loop *l, const uint8_t *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(l->s->out, p, len);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			end(l, SESSION_SIGNAL); /* the user is gone */
			return;
		}
		struct pollfd pfd = { .fd = l->s->out, .events = POLLOUT };
		if (poll(&pfd, 1, OUT_PATIENCE_MS) <= 0)
			return;
	}
}

static void pass_output(struct loop *l)
{
	uint8_t buf[4096];
	ssize_t n = read(l->s->child->terminal, buf, sizeof(buf));

	if (n <= 0)
		return;
	put_output(l, buf, (size_t)n);
	/* Its first-aid shell reads no keys of ours: the error is on the screen. */
	if (!l->ready && memmem(buf, (size_t)n, "grub rescue>", 12) != NULL)
		fail(l, "GRUB does not start");
}

/* What GRUB printed last, once it has ended. */
static void drain_output(struct loop *l)
{
	struct pollfd pfd = { .fd = l->s->child->terminal, .events = POLLIN };

	for (int i = 0; i < DRAIN_ROUNDS; i++) {
		if (poll(&pfd, 1, 0) <= 0 || (pfd.revents & POLLIN) == 0)
			return;
		pass_output(l);
	}
}

static void end_keys(struct loop *l)
{
	shutdown(l->s->child->keys, SHUT_WR);
	l->input_open = false;
}

static void read_input(struct loop *l)
{
	ssize_t n = read(l->s->in, l->keys, sizeof(l->keys));

	if (n > 0)
		l->nkeys = (size_t)n;
	else if (n == 0 || (errno != EINTR && errno != EAGAIN))
		end_keys(l);
}

static void pass_keys(struct loop *l)
{
	ssize_t n =
	    send(l->s->child->keys, l->keys, l->nkeys, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EINTR && errno != EAGAIN) {
		l->nkeys = 0;
		end_keys(l);
	} else if (n > 0) {
		l->nkeys -= (size_t)n;
		memmove(l->keys, l->keys + n, l->nkeys);
	}
}

static bool read_exactly(int fd, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = read(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static void reply(struct loop *l, const char *text, uint32_t file)
{
	struct {
		struct grub_reply head;
		char text[sizeof(struct load_error)];
	} r;

	r.head.len = (uint32_t)strnlen(text, sizeof(r.text));
	r.head.file = file;
	memcpy(r.text, text, r.head.len);
	size_t len = sizeof(r.head) + r.head.len;
	/* It waits for this and nothing else: the socket has room. */
	if (send(l->s->child->control, &r, len, MSG_NOSIGNAL) != (ssize_t)len)
		fail(l, "GRUB ended unexpectedly");
}

static void boot(struct loop *l)
{
	struct load_error e = { "" };

	if (guest_load(&l->guest, l->s->vf, &e) == 0)
		end(l, SESSION_BOOT);
	else
		reply(l, e.text, 0);
}

/* 0, or -errno when the message makes no sense. */
static int begin_command(struct loop *l, size_t len)
{
	struct load_error e = { "" };

	int file = guest_begin_command(&l->guest, (char *)l->message, len, &e);
	if (file < 0 && e.text[0] == '\0')
		return file;
	reply(l, e.text, file < 0 ? 0 : (uint32_t)file);
	return 0;
}

static void on_message(struct loop *l, const struct grub_msg *m)
{
	struct load_error e = { "" };
	int err = 0;

	switch (m->type) {
	case GRUB_MSG_KERNEL:
		err = guest_begin_kernel(&l->guest, (char *)l->message, m->len);
		break;
	case GRUB_MSG_COMMAND:
		err = begin_command(l, m->len);
		break;
	case GRUB_MSG_VARIABLE:
		err = guest_variable(&l->guest, (char *)l->message, m->len);
		break;
	case GRUB_MSG_INITRD:
		guest_begin_initrd(&l->guest);
		break;
	case GRUB_MSG_DATA:
		err = guest_data(&l->guest, l->message, m->len);
		break;
	case GRUB_MSG_FILE_END:
		err = guest_file_end(&l->guest);
		break;
	case GRUB_MSG_DONE:
		(void)guest_done(&l->guest, &e);
		reply(l, e.text, 0);
		break;
	case GRUB_MSG_BOOT:
		boot(l);
		break;
	case GRUB_MSG_EXIT:
		end(l, SESSION_EXIT);
		break;
	case GRUB_MSG_HALT:
	case GRUB_MSG_REBOOT:
		end(l, SESSION_HALT);
		break;
	case GRUB_MSG_NO_INPUT:
		end(l, SESSION_NO_INPUT);
		break;
	case GRUB_MSG_READY:
		l->ready = true;
		break;
	case GRUB_MSG_NOTE:
		if (l->s->verbose)
			log_info(
			    "configuration: %.*s", (int)m->len, (char *)l->message);
		break;
	default:
		err = -EINVAL;
	}
	if (err == -ENOMEM)
		fail(l, "out of memory for the guest's files");
	else if (err != 0)
		fail(l, "GRUB sent a message that makes no sense");
}

static void read_message(struct loop *l)
{
	struct grub_msg m;
	int fd = l->s->child->control;

	if (!read_exactly(fd, &m, sizeof(m))) {
		drain_output(l);
		fail(l, "GRUB ended unexpectedly");
		return;
	}
	if (m.len > sizeof(l->message) || !read_exactly(fd, l->message, m.len)) {
		fail(l, "GRUB sent a message that makes no sense");
		return;
	}
	on_message(l, &m);
}

static void on_signal(struct loop *l)
{
	struct signalfd_siginfo info;
	struct winsize size;

	if (read(l->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (info.ssi_signo != SIGWINCH)
		end(l, SESSION_SIGNAL);
	else if (ioctl(l->s->out, TIOCGWINSZ, &size) == 0 && size.ws_row > 0)
		ioctl(l->s->child->terminal, TIOCSWINSZ, &size);
}

static void run(struct loop *l)
{
	struct child *c = l->s->child;

	while (!l->ended) {
		bool pending = l->nkeys > 0;
		struct pollfd fds[] = {
			{ .fd = l->signals, .events = POLLIN },
			{ .fd = c->terminal, .events = POLLIN },
			{ .fd = c->control, .events = POLLIN },
			{ .fd = l->input_open && !pending ? l->s->in : -1,
			    .events = POLLIN },
			{ .fd = pending ? c->keys : -1, .events = POLLOUT },
		};
		int n =
		    poll(fds, ARRAY_SIZE(fds), l->ready ? -1 : START_PATIENCE_MS);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			fail(l,
			    n < 0
				? "poll failed"
				: "GRUB does not start; is its package complete?");
			return;
		}
		if (fds[0].revents != 0)
			on_signal(l);
		/* Output first: an error message precedes what it leads to. */
		if ((fds[1].revents & POLLIN) != 0)
			pass_output(l);
		else if (fds[2].revents != 0)
			read_message(l);
		if (fds[3].revents != 0)
			read_input(l);
		if (fds[4].revents != 0)
			pass_keys(l);
		if ((fds[1].revents & (POLLIN | POLLHUP)) == POLLHUP &&
		    fds[2].revents == 0)
			fail(l, "GRUB ended unexpectedly");
	}
	drain_output(l);
}

static void watched_signals(sigset_t *set)
{
	static const int watched[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGWINCH };

	sigemptyset(set);
	for (size_t i = 0; i < ARRAY_SIZE(watched); i++)
		sigaddset(set, watched[i]);
}

void session_block_signals(void)
{
	sigset_t set;

	watched_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

enum session_end session_run(struct session *s)
{
	struct loop *l = calloc(1, sizeof(*l));
	sigset_t set;

	if (l == NULL) {
		log_error("out of memory");
		return SESSION_FAILED;
	}
	l->s = s;
	l->input_open = true;
	guest_init(&l->guest, s->memory, s->no_console, s->no_screen);
	watched_signals(&set);
	l->signals = signalfd(-1, &set, SFD_CLOEXEC);
	const struct timeval patience = { .tv_sec = MESSAGE_PATIENCE };
	setsockopt(s->child->control, SOL_SOCKET, SO_RCVTIMEO, &patience,
	    sizeof(patience));
	if (l->signals < 0)
		fail(l, "cannot watch for signals");
	else
		run(l);
	enum session_end why = l->end;
	if (l->signals >= 0)
		close(l->signals);
	guest_free(&l->guest);
	free(l);
	return why;
}
