/*
 * The backend "tap": an Ethernet interface of the host whose other end we hold
 * (/dev/net/tun, with virtio headers, so that checksums and segmentation cross it
 * undone).
 *
 * The kernel's queue towards us is bounded (txqueuelen) and drops; ours towards the
 * kernel is bounded by the send buffer, and then we drop. An interface that goes
 * away takes the guest's link down.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bhyve/net/net.h"
#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/util.h"

#define TUN       "/dev/net/tun"
#define SEND_BUFS (1024 * 1024)
#define OFFLOADS  (NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN)

struct tap {
	struct net net;
	int fd;
	struct event *event;
	char ifname[IFNAMSIZ];
};

static struct tap *of(struct net *net)
{
	return container_of(net, struct tap, net);
}

static void gone(struct tap *tap)
{
	if (!tap->net.link_up)
		return;
	log_warn("%s: %s was removed; the guest's link is down until the VM is "
		 "started again",
	    tap->net.name, tap->ifname);
	event_set_fd(tap->event, 0);
	net_link_changed(&tap->net, false);
}

static void on_ready(void *arg, uint32_t events)
{
	struct tap *tap = arg;

	if ((events & EPOLLIN) != 0)
		tap->net.client->readable(tap->net.arg);
	else
		gone(tap);
}

static ssize_t do_recv(struct net *net, const struct iovec *iov, int niov)
{
	struct tap *tap = of(net);
	ssize_t n = readv(tap->fd, iov, niov);

	if (n >= (ssize_t)(NET_HDR_LEN + NET_FRAME_MIN))
		return n;
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		gone(tap);
	return -EAGAIN;
}

static int do_send(struct net *net, const struct iovec *iov, int niov)
{
	struct tap *tap = of(net);

	if (writev(tap->fd, iov, niov) >= 0)
		return 0;
	if (errno == EBADFD)
		gone(tap);
	return -errno;
}

static void do_listen(struct net *net, bool on)
{
	event_set_fd(of(net)->event, on ? EPOLLIN : 0);
}

static int set_offload(int fd, unsigned offloads)
{
	unsigned long flags =
	    ((offloads & NET_CSUM) != 0 ? TUN_F_CSUM : 0u) |
	    ((offloads & NET_TSO4) != 0 ? TUN_F_TSO4 : 0u) |
	    ((offloads & NET_TSO6) != 0 ? TUN_F_TSO6 : 0u) |
	    ((offloads & NET_ECN) != 0 ? TUN_F_TSO_ECN : 0u);

	return ioctl(fd, TUNSETOFFLOAD, flags) == 0 ? 0 : -errno;
}

static void do_offload(struct net *net, unsigned offloads)
{
	struct tap *tap = of(net);

	if (set_offload(tap->fd, offloads) != 0)
		log_debug("%s: TUNSETOFFLOAD: %s", tap->net.name, strerror(errno));
}

static void do_close(struct net *net)
{
	struct tap *tap = of(net);

	event_del(tap->event);
	if (tap->fd >= 0)
		close(tap->fd);
	free(tap);
}

/* Why it cannot be opened, for the user. */

static const char *user_name(void)
{
	const struct passwd *pw = getpwuid(getuid());

	return pw != NULL ? pw->pw_name : "$USER";
}

/* Whether descriptor fd of process pid holds the interface. */
static bool holds(const char *pid, const char *fd, const char *ifname)
{
	char path[64], line[80], want[IFNAMSIZ + 8];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.12s/fdinfo/%.12s", pid, fd);
	snprintf(want, sizeof(want), "iff:\t%s\n", ifname);
	f = fopen(path, "re");
	if (f == NULL)
		return false;
	while (!found && fgets(line, sizeof(line), f) != NULL)
		found = strcmp(line, want) == 0;
	fclose(f);
	return found;
}

/* The process that uses the interface, as far as we may see; 0: unknown. */
static long holder(const char *ifname)
{
	DIR *proc = opendir("/proc"), *fds;
	const struct dirent *p, *d;
	char path[64];
	long pid = 0;

	while (proc != NULL && pid == 0 && (p = readdir(proc)) != NULL) {
		if (p->d_name[0] < '1' || p->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%.12s/fdinfo", p->d_name);
		fds = opendir(path);
		while (fds != NULL && pid == 0 && (d = readdir(fds)) != NULL)
			if (holds(p->d_name, d->d_name, ifname))
				pid = strtol(p->d_name, NULL, 10);
		if (fds != NULL)
			closedir(fds);
	}
	if (proc != NULL)
		closedir(proc);
	return pid;
}

static int say_no_tun(const char *node, const char *ifname, int error)
{
	if (error == -EACCES || error == -EPERM)
		log_error("%s: %s: no right to open " TUN "; as root run \"chmod "
			  "0666 " TUN "\" and \"ip tuntap add dev %s mode tap user "
			  "%s\", or use the backend slirp, which needs no rights",
		    node, ifname, ifname, user_name());
	else if (error == -ENOENT || error == -ENODEV || error == -ENXIO)
		log_error("%s: %s: this host has no " TUN "; as root run \"modprobe "
			  "tun\" (into a container the device must be passed), or "
			  "use the backend slirp, which does not need it",
		    node, ifname);
	else
		log_error("%s: %s: cannot open " TUN ": %s", node, ifname,
		    strerror(-error));
	return error;
}

static int say_refused(const char *node, const char *ifname, bool existed, int error)
{
	char by[48] = "another process";
	long pid;

	switch (error) {
	case -EBUSY:
		pid = holder(ifname);
		if (pid != 0)
			snprintf(by, sizeof(by), "process %ld", pid);
		log_error("%s: %s is in use by %s; give each VM a tap interface of "
			  "its own",
		    node, ifname, by);
		break;
	case -EPERM:
		log_error("%s: %s; as root run \"ip tuntap add dev %s mode tap user "
			  "%s\" and \"ip link set %s up\", or use the backend slirp, "
			  "which needs no rights",
		    node,
		    existed ? "this user may not use the tap interface"
			    : "there is no such interface, and only root can make it",
		    ifname, user_name(), ifname);
		break;
	case -EINVAL:
		log_error("%s: %s %s", node, ifname,
		    existed ? "is an interface of the host, but not a tap "
			      "interface; use another name"
			    : "cannot name an interface; use a name as in tap0");
		break;
	default:
		log_error("%s: cannot open tap interface %s: %s", node, ifname,
		    strerror(-error));
		break;
	}
	return error;
}

/* Opening. */

static int attach(int fd, const char *ifname)
{
	struct ifreq ifr = { 0 };
	int size = NET_HDR_LEN, buf = SEND_BUFS;

	memcpy(ifr.ifr_name, ifname, strlen(ifname));
	ifr.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (ioctl(fd, TUNSETIFF, &ifr) != 0) {
		/* One that was made for several queues wants to be asked so. */
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
		if (errno != EINVAL || ioctl(fd, TUNSETIFF, &ifr) != 0)
			return -errno;
	}
	if (ioctl(fd, TUNSETVNETHDRSZ, &size) != 0)
		return -errno;
	ioctl(fd, TUNSETSNDBUF, &buf);
	return 0;
}

static void bring_up(int s, const char *node, const char *ifname)
{
	struct ifreq ifr = { 0 };

	memcpy(ifr.ifr_name, ifname, strlen(ifname));
	if (ioctl(s, SIOCGIFFLAGS, &ifr) != 0 || (ifr.ifr_flags & IFF_UP) != 0)
		return;
	ifr.ifr_flags |= IFF_UP;
	if (ioctl(s, SIOCSIFFLAGS, &ifr) != 0)
		log_warn("%s: %s is down, so nothing gets through it, and it cannot "
			 "be brought up: %s; as root run \"ip link set %s up\"",
		    node, ifname, strerror(errno), ifname);
}

/* The host must take what the guest is told it may send, and send no more. */
static void match_mtu(
    int s, const char *node, const char *ifname, bool made, unsigned mtu)
{
	struct ifreq ifr = { 0 };

	memcpy(ifr.ifr_name, ifname, strlen(ifname));
	if (ioctl(s, SIOCGIFMTU, &ifr) != 0 || ifr.ifr_mtu == (int)mtu)
		return;
	if (made) {
		ifr.ifr_mtu = (int)mtu;
		if (ioctl(s, SIOCSIFMTU, &ifr) == 0)
			return;
	}
	log_warn("%s: mtu=%u, but %s has an MTU of %d; make them equal, as root with "
		 "\"ip link set %s mtu %u\"",
	    node, mtu, ifname, ifr.ifr_mtu, ifname, mtu);
}

static bool exists(int s, const char *ifname)
{
	struct ifreq ifr = { 0 };

	memcpy(ifr.ifr_name, ifname, strlen(ifname));
	return ioctl(s, SIOCGIFINDEX, &ifr) == 0;
}

/* The interface's name: the backend itself, or ifname= of plain "tap". */
static int get_name(char *ifname, const struct config *cfg, const char *node,
    const char *backend)
{
	const char *name = config_getf(cfg, "%s.ifname", node);

	if (name != NULL && strcmp(backend, "tap") != 0) {
		log_error("%s: the backend \"%s\" names an interface already; write "
			  "tap,ifname=%s for the other",
		    node, backend, name);
		return -EINVAL;
	}
	if (name == NULL)
		name = backend;
	if (strcmp(name, "tap") == 0 || strcmp(name, "vmnet") == 0) {
		log_error("%s: which %s interface? Write %s0, or tap,ifname=NAME",
		    node, name, name);
		return -EINVAL;
	}
	/* The kernel replaces "%d" by a number of its choice. */
	if (strlen(name) >= IFNAMSIZ || strpbrk(name, "/%: \t\n") != NULL) {
		log_error("%s: \"%s\" cannot name a network interface; use at most "
			  "15 characters without blanks, '/', ':' and '%%'",
		    node, name);
		return -EINVAL;
	}
	snprintf(ifname, IFNAMSIZ, "%s", name);
	return 0;
}

static int open_interface(struct tap *tap, const struct config *cfg, const char *node,
    unsigned mtu)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), error = 0;
	bool existed = exists(s, tap->ifname);

	tap->fd = open(TUN, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap->fd < 0) {
		error = say_no_tun(node, tap->ifname, -errno);
		goto out;
	}
	error = attach(tap->fd, tap->ifname);
	if (error != 0) {
		error = say_refused(node, tap->ifname, existed, error);
		goto out;
	}
	if (!existed)
		log_info("%s: made %s, which goes away with this process; \"ip "
			 "tuntap add dev %s mode tap\" makes one that stays",
		    node, tap->ifname, tap->ifname);
	if (config_getf(cfg, "%s.mtu", node) != NULL)
		match_mtu(s, node, tap->ifname, !existed, mtu);
	bring_up(s, node, tap->ifname);
out:
	if (s >= 0)
		close(s);
	return error;
}

static int do_open(struct net **net, struct event_loop *loop, const struct config *cfg,
    const char *node, const char *backend, unsigned mtu)
{
	struct tap *tap = calloc(1, sizeof(*tap));
	int error;

	if (tap == NULL)
		return -ENOMEM;
	tap->fd = -1;
	error = get_name(tap->ifname, cfg, node, backend);
	if (error == 0)
		error = open_interface(tap, cfg, node, mtu);
	if (error == 0) {
		tap->net.quick_send = true;
		tap->net.send_offloads = OFFLOADS;
		if (set_offload(tap->fd, OFFLOADS) == 0)
			tap->net.recv_offloads = OFFLOADS;
		set_offload(tap->fd, 0);
		tap->event = event_add_fd(loop, tap->fd, 0, on_ready, tap);
		if (tap->event == NULL)
			error = -errno;
	}
	if (error != 0) {
		do_close(&tap->net);
		return error;
	}
	*net = &tap->net;
	return 0;
}

static const struct net_ops tap = {
	.names = { "tap", "vmnet" },
	.numbered = true,
	.open = do_open,
	.close = do_close,
	.send = do_send,
	.recv = do_recv,
	.listen = do_listen,
	.offload = do_offload,
};
NET_BACKEND(tap);
