/*
 * The process that keeps a pair: the masters of two pseudo terminals, and a ring of
 * bytes on the way to each end.
 *
 * What nmdm(4) gives and how:
 * - Closed ends. A master polls as hung up while nobody has its terminal open;
 *   inotify tells when somebody opens it. Bytes for a closed end wait in its ring
 *   and not in its terminal, whose queue the next program may flush when it sets
 *   its modes: that program gets SETTLE_MS for it.
 * - Nobody attached must not stop a guest: when the ring of a closed end is full,
 *   its oldest bytes go. An open end that reads slowly stops the writer instead.
 * - Hang-up. When an end stays closed the other gets one, unless CLOCAL is set
 *   there: its pseudo terminal is replaced by a new one. A guest that reboots is
 *   back before that, so its terminal program stays.
 * - Modes start raw, and again after the last close: an echo would type the
 *   guest's output back to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "lib/event.h"
#include "lib/log.h"
#include "lib/util.h"
#include "nmdm/nmdm.h"

#define RING_SIZE  65536u /* power of two */
#define SETTLE_MS  100
#define AWAY_MS    10000 /* closed for longer, an end is gone for good */
#define RECHECK_MS 200   /* only where inotify does not work */
#define TTY_USER   "uucp"
#define TTY_GROUP  "dialout"

struct end {
	char link[PATH_MAX];
	char tty[64];
	int master, watch;
	bool open;
	bool drained;     /* closed, and all it wrote was read */
	uint64_t settled; /* when bytes may go to it */
	uint64_t hang_up; /* when it is to be, as the other end is closed; 0: not */
	uint8_t *ring;    /* on the way to this end */
	uint32_t head, count;
};

struct pair {
	const struct nmdm_path *path;
	struct end ends[NMDM_ENDS];
	char state[PATH_MAX];
	int state_fd, inotify, signals;
	bool temporary;
	bool ending; /* temporary and told to end: once an end is closed */
	uint64_t closed_since; /* both ends, 0: one is open */
};

static uint64_t now_ms(void)
{
	return event_now_ns() / 1000000;
}

static struct end *peer_of(struct pair *p, struct end *e)
{
	return &p->ends[e == &p->ends[NMDM_A] ? NMDM_B : NMDM_A];
}

/* Modes of the terminal, through its master. */
static void reset_modes(int fd)
{
	struct termios modes;

	if (tcgetattr(fd, &modes) != 0)
		return;
	cfmakeraw(&modes);
	modes.c_cflag &= ~(tcflag_t)CLOCAL;
	tcsetattr(fd, TCSANOW, &modes);
}

/*
 * As FreeBSD's: cu becomes uucp when root starts it, and who may use serial ports
 * may use these.
 */
static void set_rights(const char *tty)
{
	const struct passwd *u = geteuid() == 0 ? getpwnam(TTY_USER) : NULL;
	const struct group *g = geteuid() == 0 ? getgrnam(TTY_GROUP) : NULL;

	if (g != NULL && chown(tty, u != NULL ? u->pw_uid : 0, g->gr_gid) == 0)
		(void)chmod(tty, 0660);
	else
		(void)chmod(tty, 0600);
}

static int open_terminal(struct end *e, int inotify)
{
	int slave, error;

	e->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (e->master < 0 || grantpt(e->master) != 0 || unlockpt(e->master) != 0 ||
	    ptsname_r(e->master, e->tty, sizeof(e->tty)) != 0)
		goto fail;
	set_rights(e->tty);
	/* Opened and closed once, it polls as hung up. */
	slave = open(e->tty, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		goto fail;
	reset_modes(slave);
	close(slave);
	e->watch = inotify_add_watch(inotify, e->tty, IN_OPEN);
	e->open = false;
	e->drained = true;
	return 0;
fail:
	error = -errno;
	log_error("no pseudo terminal for %s: %s; is a devpts mounted on /dev/pts?",
	    e->link, strerror(-error));
	return error;
}

static bool is_symlink(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* At once in place of what was there: somebody may open it just now. */
static int make_link(const struct end *e)
{
	char temporary[PATH_MAX + 8];
	int error;

	if (access(e->link, F_OK) == 0 && !is_symlink(e->link)) {
		log_error("%s exists and is not a null modem; remove it, or use "
			  "another name",
		    e->link);
		return -EEXIST;
	}
	snprintf(temporary, sizeof(temporary), "%s.new", e->link);
	(void)unlink(temporary);
	if (symlink(e->tty, temporary) == 0 && rename(temporary, e->link) == 0)
		return 0;
	error = -errno;
	(void)unlink(temporary);
	log_error("cannot make %s: %s", e->link, strerror(-error));
	return error;
}

/* Bytes on the way to an end. */

static void ring_put(struct end *e, const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		e->ring[(e->head + e->count) % RING_SIZE] = buf[i];
		if (e->count < RING_SIZE)
			e->count++;
		else
			e->head = (e->head + 1) % RING_SIZE;
	}
}

/* How much may come for it now; a closed one takes all. */
static size_t room(const struct end *e)
{
	return e->open ? RING_SIZE - e->count : RING_SIZE;
}

static void read_end(struct pair *p, struct end *e)
{
	struct end *to = peer_of(p, e);
	uint8_t buf[4096];
	size_t want = MIN(sizeof(buf), room(to));
	ssize_t n = want > 0 ? read(e->master, buf, want) : 0;

	if (n > 0)
		ring_put(to, buf, (size_t)n);
	else if (n < 0 && errno == EIO && !e->open)
		e->drained = true;
}

static void write_end(struct end *e)
{
	while (e->count > 0) {
		size_t run = MIN(e->count, RING_SIZE - e->head);
		ssize_t n = write(e->master, e->ring + e->head, run);

		if (n <= 0)
			break;
		e->head = (e->head + (uint32_t)n) % RING_SIZE;
		e->count -= (uint32_t)n;
	}
}

/* Opening, closing, hanging up. */

static bool wants_carrier(const struct end *e)
{
	struct termios modes;

	return tcgetattr(e->master, &modes) == 0 && (modes.c_cflag & CLOCAL) == 0;
}

static void update_open(struct pair *p, struct end *e)
{
	struct pollfd pfd = { .fd = e->master };
	struct end *peer = peer_of(p, e);
	bool open = poll(&pfd, 1, 0) == 0 || (pfd.revents & POLLHUP) == 0;

	if (open == e->open)
		return;
	e->open = open;
	if (open) {
		e->settled = now_ms() + SETTLE_MS;
		e->drained = false;
		/* Who was to hear of the end's absence has it back. */
		peer->hang_up = 0;
		return;
	}
	reset_modes(e->master);
	e->hang_up = 0;
	peer->hang_up = peer->open ? now_ms() + AWAY_MS : 0;
}

/* Closing the master is what hangs a pseudo terminal up. */
static int hang_up(struct pair *p, struct end *e)
{
	int old = e->master, watch = e->watch, error;

	e->hang_up = 0;
	if (!wants_carrier(e))
		return 0;
	error = open_terminal(e, p->inotify);
	if (error == 0)
		error = make_link(e);
	(void)inotify_rm_watch(p->inotify, watch);
	close(old);
	return error;
}

/* The loop. */

static int timeout_of(const struct pair *p)
{
	uint64_t now = now_ms(), when = UINT64_MAX;

	for (size_t i = 0; i < NMDM_ENDS; i++) {
		const struct end *e = &p->ends[i];

		if (e->hang_up != 0)
			when = MIN(when, e->hang_up);
		if (e->open && e->count > 0 && now < e->settled)
			when = MIN(when, e->settled);
		if (!e->open && e->watch < 0)
			when = MIN(when, now + RECHECK_MS);
	}
	if (p->closed_since != 0)
		when = MIN(when, p->closed_since + AWAY_MS);
	if (when == UINT64_MAX)
		return -1;
	return when > now ? (int)(when - now) : 0;
}

static void forget_events(int fd)
{
	char buf[4096];

	while (read(fd, buf, sizeof(buf)) > 0)
		continue;
}

/* What to wait for at an end. */
static void prepare(struct pair *p, struct end *e, struct pollfd *pfd)
{
	bool reads = room(peer_of(p, e)) > 0;

	*pfd = (struct pollfd){ .fd = e->master };
	if (reads)
		pfd->events |= POLLIN;
	if (e->open && e->count > 0 && now_ms() >= e->settled)
		pfd->events |= POLLOUT;
	/* A closed one always polls as hung up. */
	if (!e->open && (e->drained || !reads))
		pfd->fd = -1;
}

static void note_closed(struct pair *p)
{
	if (p->ends[NMDM_A].open || p->ends[NMDM_B].open || !p->temporary)
		p->closed_since = 0;
	else if (p->closed_since == 0)
		p->closed_since = now_ms();
}

static int step(struct pair *p)
{
	struct pollfd pfd[NMDM_ENDS + 2];
	int error = 0;

	for (size_t i = 0; i < NMDM_ENDS; i++)
		prepare(p, &p->ends[i], &pfd[i]);
	pfd[NMDM_ENDS] = (struct pollfd){ .fd = p->inotify, .events = POLLIN };
	pfd[NMDM_ENDS + 1] = (struct pollfd){ .fd = p->signals, .events = POLLIN };
	if (poll(pfd, ARRAY_SIZE(pfd), timeout_of(p)) < 0 && errno != EINTR)
		return -errno;
	if (pfd[NMDM_ENDS].revents != 0)
		forget_events(p->inotify);
	for (size_t i = 0; i < NMDM_ENDS; i++)
		update_open(p, &p->ends[i]);
	for (size_t i = 0; i < NMDM_ENDS; i++) {
		if ((pfd[i].revents & (POLLIN | POLLHUP)) != 0)
			read_end(p, &p->ends[i]);
	}
	for (size_t i = 0; i < NMDM_ENDS && error == 0; i++) {
		struct end *e = &p->ends[i];

		if (e->open && now_ms() >= e->settled)
			write_end(e);
		if (e->hang_up != 0 && now_ms() >= e->hang_up)
			error = hang_up(p, e);
	}
	return error;
}

/*
 * SIGTERM also comes when systemd stops the unit of a guest, which then shuts down
 * and still speaks: its pair goes after it.
 */
static bool told_to_end(struct pair *p)
{
	bool both = p->ends[NMDM_A].open && p->ends[NMDM_B].open;
	struct signalfd_siginfo si;

	while (read(p->signals, &si, sizeof(si)) > 0) {
		if (si.ssi_signo == SIGINT || !p->temporary)
			return true;
		p->ending = true;
	}
	return p->ending && !both &&
	       nmdm_holder(p->path, NMDM_USER + NMDM_A) == 0 &&
	       nmdm_holder(p->path, NMDM_USER + NMDM_B) == 0;
}

static int serve(struct pair *p)
{
	int error = 0;

	while (error == 0) {
		note_closed(p);
		error = step(p);
		if (told_to_end(p) ||
		    (p->closed_since != 0 && now_ms() >= p->closed_since + AWAY_MS))
			break;
	}
	return error;
}

/* Beginning and end. */

/*
 * The state file, locked, and still the one that its name leads to: the last
 * keeper removes it when it ends.
 */
static int take_state(struct pair *p)
{
	for (;;) {
		struct stat ours, there;
		int error = nmdm_state_file(p->path, p->state);

		if (error != 0)
			return error;
		p->state_fd =
		    open(p->state, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (p->state_fd < 0) {
			error = -errno;
			log_error("%s: %s", p->state, strerror(-error));
			return error;
		}
		error = nmdm_lock(p->state_fd, NMDM_KEEPER);
		if (error == 0 && fstat(p->state_fd, &ours) == 0 &&
		    stat(p->state, &there) == 0 && ours.st_ino == there.st_ino)
			return 0;
		close(p->state_fd);
		p->state_fd = -1;
		if (error == -EBUSY)
			return -EEXIST;
		if (error != 0) {
			log_error(
			    "%s: cannot be locked: %s", p->state, strerror(-error));
			return error;
		}
	}
}

static int make_end(struct pair *p, enum nmdm_end i)
{
	struct end *e = &p->ends[i];
	int error;

	nmdm_link(p->path, i, e->link);
	e->ring = malloc(RING_SIZE);
	if (e->ring == NULL)
		return -ENOMEM;
	error = open_terminal(e, p->inotify);
	return error == 0 ? make_link(e) : error;
}

static int make(struct pair *p)
{
	sigset_t set;
	int error;

	p->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_SETMASK, &set, NULL);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	p->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (p->inotify < 0 || p->signals < 0) {
		error = -errno;
		log_error("%s: %s", p->path->pair, strerror(-error));
		return error;
	}
	error = make_end(p, NMDM_A);
	return error == 0 ? make_end(p, NMDM_B) : error;
}

/* Only what is ours goes: a link may have been replaced by the user. */
static void remove_link(const struct end *e)
{
	char target[64];
	ssize_t n = readlink(e->link, target, sizeof(target) - 1);

	if (n < 0)
		return;
	target[n] = '\0';
	if (strcmp(target, e->tty) == 0)
		(void)unlink(e->link);
}

int nmdm_serve(const struct nmdm_path *path, bool temporary, void (*ready)(void))
{
	struct pair p = { .path = path,
		.state_fd = -1,
		.inotify = -1,
		.signals = -1,
		.temporary = temporary,
		.ends = { { .master = -1 }, { .master = -1 } } };
	int error = take_state(&p);

	if (error == 0)
		error = make(&p);
	if (error == 0) {
		ready();
		error = serve(&p);
	}
	for (size_t i = 0; i < NMDM_ENDS; i++) {
		remove_link(&p.ends[i]);
		free(p.ends[i].ring);
		if (p.ends[i].master >= 0)
			close(p.ends[i].master);
	}
	if (p.state_fd >= 0) {
		(void)unlink(p.state);
		close(p.state_fd);
	}
	if (p.inotify >= 0)
		close(p.inotify);
	if (p.signals >= 0)
		close(p.signals);
	return error;
}
