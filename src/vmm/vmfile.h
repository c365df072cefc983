/*
 * The VM object, /dev/vmm/NAME: what a loader leaves for bhyve. A sparse file,
 * mode 0600: header, vCPU states, and at VMFILE_MEM_OFFSET + gpa the guest
 * memory the loader wrote. Directory: $VMM_DIR, else /dev/vmm when it can be
 * made, else $XDG_RUNTIME_DIR/vmm.
 *
 * A file is input from outside: every field is checked when it is opened.
 * The lock (OFD, exclusive) says that a program works with the VM or runs it; it
 * dies with the process, so a stale one never blocks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vmm/state.h"

#define VMFILE_NAME_MAX 200
#define VMFILE_CPU_MAX  256u
/* Where guest-physical address 0 lies in the file. */
#define VMFILE_MEM_OFFSET UINT64_C(0x200000)

struct memory;
struct vmfile;

enum vmfile_status {
	VMFILE_EMPTY,   /* created, nothing loaded */
	VMFILE_LOADED,  /* a loader finished: bhyve may run it */
	VMFILE_RUNNING, /* a process runs it (with the lock held) */
	VMFILE_USED,    /* has run; must be loaded again or destroyed */
};

struct vmfile_info {
	char name[VMFILE_NAME_MAX + 1];
	enum vmfile_status status;
	pid_t pid;       /* of the lock's holder, 0 when not locked, -1 unknown */
	uint32_t ncpu;   /* 0 before it ran */
	uint64_t memory; /* bytes */
	uint64_t created, started; /* CLOCK_REALTIME seconds, 0: never */
	char loader[32];           /* "grub-bhyve", "bhyveload", "bhyvectl" */
};

/*
 * NULL when fine, else a sentence: empty, too long, contains '/', starts with '.'.
 */
const char *vmfile_name_error(const char *name);
/* The directory in use (made if missing); NULL: none can be made (logged). */
const char *vmfile_dir(void);
/* Path of the control socket of a VM (its directory made, 0700). 0 or -errno. */
int vmfile_control_path(const char *name, char *buf, size_t len);

/*
 * Creates, or re-initialises an existing object nobody holds. Locked on return.
 * -EBUSY: held by another process (see vmfile_holder). Not logged.
 */
int vmfile_create(
    struct vmfile **vf, const char *name, uint64_t memory, const char *loader);
/*
 * Opens; lock as asked. -ENOENT, -EBUSY, -EINVAL (not a VM object or damaged). Not
 * logged.
 */
int vmfile_open(struct vmfile **vf, const char *name, bool lock);
void vmfile_close(struct vmfile *vf);
/* Removes the object; -EBUSY while a process holds it. */
int vmfile_destroy(const char *name);
/* pid holding the lock, 0: nobody, -1: somebody who did not leave a pid. */
pid_t vmfile_holder(const char *name);
void vmfile_info(const struct vmfile *vf, struct vmfile_info *info);
/*
 * Calls fn for every object, sorted by name; unreadable ones with status EMPTY and
 * memory 0.
 */
int vmfile_list(int (*fn)(const struct vmfile_info *info, void *arg), void *arg);

/* Loader side: 0, -EFAULT outside the guest's RAM, -errno (disk full ...). */
int vmfile_write(struct vmfile *vf, uint64_t gpa, const void *buf, size_t len);
int vmfile_read(struct vmfile *vf, uint64_t gpa, void *buf, size_t len);
/* Stores vCPU 0's state and marks the object LOADED. */
int vmfile_loaded(struct vmfile *vf, const struct vcpu_state *bsp);

/*
 * bhyve's side: copies what was loaded (data extents only) into mem. 0 or -errno.
 */
int vmfile_load_memory(struct vmfile *vf, struct memory *mem);
int vmfile_get_state(struct vmfile *vf, unsigned cpu, struct vcpu_state *s);
int vmfile_set_state(struct vmfile *vf, unsigned cpu, const struct vcpu_state *s);
/* RUNNING also drops the loaded memory (it lives in the process now). */
int vmfile_set_status(struct vmfile *vf, enum vmfile_status status, uint32_t ncpu);
