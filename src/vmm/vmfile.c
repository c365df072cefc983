/*
 * The VM object: a file in the VM directory (vmfile.h).
 *
 * Layout: a header page; one page for each possible vCPU's state; guest memory
 * from VMFILE_MEM_OFFSET on, address for address. All holes but what was
 * written.
 *
 * Invariants:
 * - A file under its final name has a complete header: it is made under a dotted
 *   name first, which no VM may have, and linked when ready.
 * - Who holds the lock holds the file that the name leads to (locked_path()),
 *   so that two programs never work on an old and a new object of one name.
 * - Status RUNNING in a file that nobody has locked is what a killed process
 *   left: it counts as USED.
 */
#include "vmm/vmfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/util.h"
#include "vmm/memory.h"

#define VMFILE_MAGIC       "bhyveVM"
#define VMFILE_VERSION     1u
#define VMFILE_HEADER_SIZE 4096u
#define VMFILE_STATE_SIZE  4096u
/* More than any guest has; keeps offset arithmetic far from overflow. */
#define VMFILE_MEMORY_MAX (UINT64_C(1) << 46)
/* A /dev smaller than this cannot hold what loaders write. */
#define VMFILE_DEV_MIN (UINT64_C(1) << 30)

#define DEV_DIR        "/dev/vmm"
#define CONTROL_DIR    "/run/bhyve"

struct header {
	char magic[8];
	uint32_t version;
	uint32_t header_size;
	uint32_t state_size;  /* sizeof(struct vcpu_state) of the writer */
	uint32_t state_count; /* slots of VMFILE_STATE_SIZE bytes */
	uint64_t mem_offset;
	uint64_t memory;
	uint32_t status;
	uint32_t ncpu;
	int64_t pid; /* of the lock's holder */
	uint64_t created, started;
	char loader[32];
};

struct vmfile {
	int fd;
	bool locked;
	char name[VMFILE_NAME_MAX + 1];
	struct header h;
	struct memory ram; /* only low and high are set: the shape of RAM */
};

_Static_assert(sizeof(struct header) <= VMFILE_HEADER_SIZE, "header fits its page");
_Static_assert(
    sizeof(struct vcpu_state) <= VMFILE_STATE_SIZE, "state fits its slot");
_Static_assert(
    VMFILE_HEADER_SIZE + VMFILE_CPU_MAX * VMFILE_STATE_SIZE <= VMFILE_MEM_OFFSET,
    "states end before memory");

const char *vmfile_name_error(const char *name)
{
	size_t len = strlen(name);

	if (len == 0)
		return "a VM's name may not be empty";
	if (len > VMFILE_NAME_MAX)
		return "a VM's name may have at most 200 characters";
	if (strchr(name, '/') != NULL)
		return "a VM's name may not contain '/'";
	if (name[0] == '.')
		return "a VM's name may not start with '.'";
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return "a VM's name may not contain control characters";
	}
	return NULL;
}

static int make_dir(const char *path, mode_t mode)
{
	if (mkdir(path, mode) == 0)
		return chmod(path, mode) == 0 ? 0 : -errno; /* whatever the umask */
	if (errno != EEXIST)
		return -errno;
	struct stat st;
	if (stat(path, &st) != 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/*
 * systemd and container managers keep /dev to a few megabytes, which no initrd
 * fits: give the objects a file system of their own there. Where mounting is
 * not allowed the small one has to do; writes then report that it is full.
 */
static void enlarge_dev_dir(void)
{
	struct statvfs fs;

	if (statvfs(DEV_DIR, &fs) != 0 || fs.f_blocks == 0 ||
	    fs.f_blocks >= VMFILE_DEV_MIN / fs.f_frsize)
		return;
	if (mount("vmm", DEV_DIR, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		"mode=0755,size=50%") != 0)
		log_debug(
		    "cannot mount a tmpfs on %s: %s", DEV_DIR, strerror(errno));
}

static bool use_dev_dir(void)
{
	if (mkdir(DEV_DIR, 0755) == 0) {
		if (chmod(DEV_DIR, 0755) != 0)
			return false;
		enlarge_dev_dir();
	} else if (errno != EEXIST) {
		return false;
	}
	struct stat st;
	return stat(DEV_DIR, &st) == 0 && S_ISDIR(st.st_mode) &&
	       access(DEV_DIR, W_OK | X_OK) == 0;
}

const char *vmfile_dir(void)
{
	static _Thread_local char dir[PATH_MAX];
	const char *env = getenv("VMM_DIR");

	if (env != NULL && env[0] != '\0') {
		int err = make_dir(env, 0700);
		if (err == -EEXIST)
			err = 0;
		if (err != 0) {
			log_error("VMM_DIR: cannot make directory %s: %s", env,
			    strerror(-err));
			return NULL;
		}
		snprintf(dir, sizeof(dir), "%s", env);
		return dir;
	}
	if (use_dev_dir())
		return DEV_DIR;

	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char user[64];
	if (runtime == NULL || runtime[0] != '/') {
		snprintf(user, sizeof(user), "/run/user/%u", (unsigned)geteuid());
		runtime = user;
	}
	int n = snprintf(dir, sizeof(dir), "%s/vmm", runtime);
	int err = n < (int)sizeof(dir) ? make_dir(dir, 0700) : -ENAMETOOLONG;
	if (err != 0) {
		log_error(
		    "no directory for VM objects: %s is not writable and %s "
		    "cannot be made (%s); set VMM_DIR to a directory of yours",
		    DEV_DIR, dir, strerror(-err));
		return NULL;
	}
	return dir;
}

int vmfile_control_path(const char *name, char *buf, size_t len)
{
	char dir[PATH_MAX];

	if (vmfile_name_error(name) != NULL)
		return -EINVAL;
	const char *base = vmfile_dir();
	if (base == NULL)
		return -ENOENT;
	int n;
	if (strcmp(base, DEV_DIR) == 0)
		n = snprintf(dir, sizeof(dir), "%s", CONTROL_DIR);
	else
		n = snprintf(dir, sizeof(dir), "%s/.control", base);
	if (n >= (int)sizeof(dir))
		return -ENAMETOOLONG;
	int err = make_dir(dir, 0700);
	if (err != 0)
		return err;
	n = snprintf(buf, len, "%s/%s", dir, name);
	return n >= 0 && (size_t)n < len ? 0 : -ENAMETOOLONG;
}

/* 0 or -errno; buf is PATH_MAX bytes. */
static int object_path(const char *name, char *buf)
{
	if (vmfile_name_error(name) != NULL)
		return -EINVAL;
	const char *dir = vmfile_dir();
	if (dir == NULL)
		return -ENOENT;
	int n = snprintf(buf, PATH_MAX, "%s/%s", dir, name);
	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int write_all(int fd, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

static int read_all(int fd, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = pread(fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

static uint64_t file_size(uint64_t memory)
{
	uint64_t span = memory <= MEMORY_LOW_LIMIT
			    ? memory
			    : MEMORY_HIGH_BASE + (memory - MEMORY_LOW_LIMIT);

	return VMFILE_MEM_OFFSET + span;
}

static void set_shape(struct vmfile *vf)
{
	vf->ram.low = MIN(vf->h.memory, MEMORY_LOW_LIMIT);
	vf->ram.high = vf->h.memory - vf->ram.low;
}

static bool memory_size_valid(uint64_t memory)
{
	return memory > 0 && memory <= VMFILE_MEMORY_MAX &&
	       memory % MEMORY_PAGE == 0;
}

static bool header_valid(const struct header *h, uint64_t size)
{
	return memcmp(h->magic, VMFILE_MAGIC, sizeof(h->magic)) == 0 &&
	       h->version == VMFILE_VERSION &&
	       h->header_size == VMFILE_HEADER_SIZE &&
	       h->state_size == sizeof(struct vcpu_state) &&
	       h->state_count == VMFILE_CPU_MAX &&
	       h->mem_offset == VMFILE_MEM_OFFSET && memory_size_valid(h->memory) &&
	       file_size(h->memory) == size && h->status <= VMFILE_USED &&
	       h->ncpu <= VMFILE_CPU_MAX && h->pid >= 0 && h->pid <= INT_MAX &&
	       memchr(h->loader, 0, sizeof(h->loader)) != NULL;
}

static int read_header(int fd, struct header *h)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)VMFILE_HEADER_SIZE)
		return -EINVAL;
	int err = read_all(fd, h, sizeof(*h), 0);
	if (err != 0)
		return err;
	return header_valid(h, (uint64_t)st.st_size) ? 0 : -EINVAL;
}

static int write_header(struct vmfile *vf)
{
	return write_all(vf->fd, &vf->h, sizeof(vf->h), 0);
}

/* OFD locks: owned by the open file, so they survive threads and end with it. */
static int lock_file(int fd)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static bool is_locked(int fd)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

/* An OFD lock does not tell its owner's pid: the holder leaves it in the header. */
static pid_t lock_holder(int fd)
{
	for (int i = 0; i < 100 && is_locked(fd); i++) {
		struct header h;
		if (read_all(fd, &h, sizeof(h), 0) == 0 && h.pid > 0 &&
		    h.pid <= INT_MAX)
			return (pid_t)h.pid;
		sched_yield(); /* it is between locking and writing its pid */
	}
	return is_locked(fd) ? -1 : 0;
}

static bool same_file(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/*
 * Opens and locks what path names. The file may be unlinked or replaced between
 * the open and the lock; then the lock is on a file nobody can find any more.
 */
static int open_locked(const char *path)
{
	for (;;) {
		int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0)
			return errno == ELOOP ? -EINVAL : -errno;
		struct stat st;
		int err = fstat(fd, &st) != 0    ? -errno
			  : !S_ISREG(st.st_mode) ? -EINVAL
						 : lock_file(fd);
		if (err == 0 && same_file(fd, path))
			return fd;
		close(fd);
		if (err != 0)
			return err;
	}
}

/* A new, empty, locked file, linked as path. -EEXIST when path is there. */
static int create_locked(const char *path, const struct header *h)
{
	char tmp[PATH_MAX];
	const char *slash = strrchr(path, '/');

	int n = snprintf(
	    tmp, sizeof(tmp), "%.*s/.new.XXXXXX", (int)(slash - path), path);
	if (n >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	int fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int err = lock_file(fd);
	if (err == 0 && ftruncate(fd, (off_t)file_size(h->memory)) != 0)
		err = -errno;
	if (err == 0)
		err = write_all(fd, h, sizeof(*h), 0);
	if (err == 0 && link(tmp, path) != 0)
		err = -errno;
	unlink(tmp);
	if (err != 0) {
		close(fd);
		return err;
	}
	return fd;
}

static uint64_t wall_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec;
}

static int reinitialise(int fd, const struct header *h)
{
	/* Shrinking first drops states and memory of the VM that was. */
	if (ftruncate(fd, 0) != 0 ||
	    ftruncate(fd, (off_t)file_size(h->memory)) != 0)
		return -errno;
	return write_all(fd, h, sizeof(*h), 0);
}

static struct vmfile *new_vmfile(int fd, const char *name, bool locked)
{
	struct vmfile *vf = calloc(1, sizeof(*vf));

	if (vf == NULL)
		return NULL;
	vf->fd = fd;
	vf->locked = locked;
	snprintf(vf->name, sizeof(vf->name), "%s", name);
	return vf;
}

int vmfile_create(
    struct vmfile **out, const char *name, uint64_t memory, const char *loader)
{
	char path[PATH_MAX];

	*out = NULL;
	if (!memory_size_valid(memory))
		return -EINVAL;
	int err = object_path(name, path);
	if (err != 0)
		return err;

	struct header h = {
		.magic = VMFILE_MAGIC,
		.version = VMFILE_VERSION,
		.header_size = VMFILE_HEADER_SIZE,
		.state_size = sizeof(struct vcpu_state),
		.state_count = VMFILE_CPU_MAX,
		.mem_offset = VMFILE_MEM_OFFSET,
		.memory = memory,
		.status = VMFILE_EMPTY,
		.pid = getpid(),
		.created = wall_clock(),
	};
	snprintf(h.loader, sizeof(h.loader), "%s", loader);

	int fd;
	do {
		fd = open_locked(path);
		if (fd >= 0) {
			err = reinitialise(fd, &h);
			if (err != 0) {
				close(fd);
				return err;
			}
			break;
		}
		if (fd == -ENOENT)
			fd = create_locked(path, &h);
	} while (fd == -EEXIST);
	if (fd < 0)
		return fd;

	struct vmfile *vf = new_vmfile(fd, name, true);
	if (vf == NULL) {
		close(fd);
		return -ENOMEM;
	}
	vf->h = h;
	set_shape(vf);
	*out = vf;
	return 0;
}

int vmfile_open(struct vmfile **out, const char *name, bool lock)
{
	char path[PATH_MAX];

	*out = NULL;
	int err = object_path(name, path);
	if (err != 0)
		return err;
	int fd = lock ? open_locked(path)
		      : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return lock ? fd : errno == ELOOP ? -EINVAL : -errno;

	struct vmfile *vf = new_vmfile(fd, name, lock);
	if (vf == NULL) {
		close(fd);
		return -ENOMEM;
	}
	err = read_header(fd, &vf->h);
	if (err == 0 && lock) {
		if (vf->h.status == VMFILE_RUNNING)
			vf->h.status = VMFILE_USED;
		vf->h.pid = getpid();
		err = write_header(vf);
	}
	if (err != 0) {
		close(fd);
		free(vf);
		return err;
	}
	set_shape(vf);
	*out = vf;
	return 0;
}

void vmfile_close(struct vmfile *vf)
{
	if (vf == NULL)
		return;
	if (vf->locked) {
		vf->h.pid = 0;
		(void)write_header(
		    vf); /* a left-over pid means nothing without a lock */
	}
	close(vf->fd);
	free(vf);
}

int vmfile_destroy(const char *name)
{
	char path[PATH_MAX];

	int err = object_path(name, path);
	if (err != 0)
		return err;
	int fd = open_locked(path);
	if (fd < 0)
		return fd;
	if (unlink(path) != 0)
		err = -errno;
	close(fd);

	char control[PATH_MAX];
	if (err == 0 && vmfile_control_path(name, control, sizeof(control)) == 0)
		unlink(control);
	return err;
}

pid_t vmfile_holder(const char *name)
{
	char path[PATH_MAX];

	if (object_path(name, path) != 0)
		return 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return 0;
	pid_t pid = lock_holder(fd);
	close(fd);
	return pid;
}

void vmfile_info(const struct vmfile *vf, struct vmfile_info *info)
{
	memset(info, 0, sizeof(*info));
	snprintf(info->name, sizeof(info->name), "%s", vf->name);
	info->status = (enum vmfile_status)vf->h.status;
	info->pid = vf->locked ? (pid_t)vf->h.pid : lock_holder(vf->fd);
	if (info->status == VMFILE_RUNNING && info->pid == 0)
		info->status = VMFILE_USED;
	info->ncpu = vf->h.ncpu;
	info->memory = vf->h.memory;
	info->created = vf->h.created;
	info->started = vf->h.started;
	memcpy(info->loader, vf->h.loader, sizeof(info->loader));
}

/* What it lets through fits vmfile_info.name. */
static int is_object(const struct dirent *d)
{
	return vmfile_name_error(d->d_name) == NULL;
}

int vmfile_list(int (*fn)(const struct vmfile_info *info, void *arg), void *arg)
{
	const char *dir = vmfile_dir();
	struct dirent **entries;

	if (dir == NULL)
		return -ENOENT;
	int n = scandir(dir, &entries, is_object, alphasort);
	if (n < 0)
		return -errno;
	int err = 0;
	for (int i = 0; i < n; i++) {
		struct vmfile_info info = { .status = VMFILE_EMPTY };
		struct vmfile *vf;

		memcpy(
		    info.name, entries[i]->d_name, strlen(entries[i]->d_name) + 1);
		int e = err != 0 ? err : vmfile_open(&vf, info.name, false);
		if (e == 0) {
			vmfile_info(vf, &info);
			vmfile_close(vf);
		}
		if (err == 0 && e != -ENOENT) /* it went away meanwhile */
			err = fn(&info, arg);
		free(entries[i]);
	}
	free(entries);
	return err;
}

int vmfile_write(struct vmfile *vf, uint64_t gpa, const void *buf, size_t len)
{
	if (!memory_is_ram(&vf->ram, gpa, len))
		return -EFAULT;
	return write_all(vf->fd, buf, len, VMFILE_MEM_OFFSET + gpa);
}

int vmfile_read(struct vmfile *vf, uint64_t gpa, void *buf, size_t len)
{
	if (!memory_is_ram(&vf->ram, gpa, len))
		return -EFAULT;
	return read_all(vf->fd, buf, len, VMFILE_MEM_OFFSET + gpa);
}

int vmfile_loaded(struct vmfile *vf, const struct vcpu_state *bsp)
{
	int err = vmfile_set_state(vf, 0, bsp);

	return err != 0 ? err : vmfile_set_status(vf, VMFILE_LOADED, 0);
}

/* One data extent of the file into the RAM it belongs to. */
static int load_extent(
    struct vmfile *vf, struct memory *mem, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t gpa = from - VMFILE_MEM_OFFSET;
		uint64_t end =
		    gpa < mem->low ? mem->low : MEMORY_HIGH_BASE + mem->high;
		uint64_t len = MIN(to - from, end - gpa);

		if (gpa >= mem->low && gpa < MEMORY_HIGH_BASE) {
			/* Written by nobody of ours: no RAM lies there. */
			from = MIN(to, VMFILE_MEM_OFFSET + MEMORY_HIGH_BASE);
			continue;
		}
		void *p = memory_ptr(mem, gpa, len);
		if (p == NULL)
			return -EINVAL;
		int err = read_all(vf->fd, p, len, from);
		if (err != 0)
			return err;
		from += len;
	}
	return 0;
}

int vmfile_load_memory(struct vmfile *vf, struct memory *mem)
{
	uint64_t end = file_size(vf->h.memory);
	uint64_t pos = VMFILE_MEM_OFFSET;

	if (mem->low != vf->ram.low || mem->high != vf->ram.high)
		return -EINVAL;
	while (pos < end) {
		off_t data = lseek(vf->fd, (off_t)pos, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		off_t hole = lseek(vf->fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		int err =
		    load_extent(vf, mem, (uint64_t)data, MIN((uint64_t)hole, end));
		if (err != 0)
			return err;
		pos = (uint64_t)hole;
	}
	return 0;
}

static uint64_t state_offset(unsigned cpu)
{
	return VMFILE_HEADER_SIZE + (uint64_t)cpu * VMFILE_STATE_SIZE;
}

/*
 * What an engine would hand to the host's processor or use as an index. All
 * other registers hold what a guest could have put there itself.
 */
static bool state_valid(const struct vcpu_state *s)
{
	uint32_t mxcsr;
	uint64_t xstate[8]; /* the XSAVE header: SDM vol. 1, 13.4.2 */

	memcpy(&mxcsr, s->fpu + 24, sizeof(mxcsr));
	memcpy(xstate, s->fpu + 512, sizeof(xstate));
	for (unsigned i = 1; i < ARRAY_SIZE(xstate); i++) {
		if (xstate[i] != 0)
			return false;
	}
	return s->activity <= VCPU_SHUTDOWN && s->shadow <= 1 &&
	       s->nmi_blocked <= 1 && mxcsr <= 0xffff && xstate[0] <= 7;
}

int vmfile_get_state(struct vmfile *vf, unsigned cpu, struct vcpu_state *s)
{
	if (cpu >= VMFILE_CPU_MAX)
		return -EINVAL;
	int err = read_all(vf->fd, s, sizeof(*s), state_offset(cpu));
	if (err != 0)
		return err;
	return state_valid(s) ? 0 : -EINVAL;
}

int vmfile_set_state(struct vmfile *vf, unsigned cpu, const struct vcpu_state *s)
{
	if (cpu >= VMFILE_CPU_MAX || !state_valid(s))
		return -EINVAL;
	return write_all(vf->fd, s, sizeof(*s), state_offset(cpu));
}

static int drop_memory(struct vmfile *vf)
{
	off_t size = (off_t)file_size(vf->h.memory);

	if (fallocate(vf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		VMFILE_MEM_OFFSET, size - (off_t)VMFILE_MEM_OFFSET) == 0)
		return 0;
	/*
	 * A file system without holes ($VMM_DIR): cut the memory off and grow
	 * again.
	 */
	if (ftruncate(vf->fd, VMFILE_MEM_OFFSET) != 0 ||
	    ftruncate(vf->fd, size) != 0)
		return -errno;
	return 0;
}

int vmfile_set_status(struct vmfile *vf, enum vmfile_status status, uint32_t ncpu)
{
	if (ncpu > VMFILE_CPU_MAX || status > VMFILE_USED)
		return -EINVAL;
	vf->h.status = status;
	vf->h.ncpu = ncpu;
	if (status == VMFILE_RUNNING)
		vf->h.started = wall_clock();
	int err = write_header(vf);
	if (err == 0 && status == VMFILE_RUNNING)
		err = drop_memory(vf);
	return err;
}
