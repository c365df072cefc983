/* bhyvectl's parts: the VM it works on, registers, lists. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/vmfile.h"

struct vcpu_state;

/* One VM: its process when it runs, else its file. */
struct target {
	const char *name;
	struct vmfile_info info;
	bool running;
	int fd;            /* control socket while running */
	struct vmfile *vf; /* otherwise; locked when write */
};

/* target.c. All: 0 or -errno, logged. */
int target_open(struct target *t, const char *name, bool write);
void target_close(struct target *t);
/*
 * Sends a command line; *answer (may be NULL) gets the data lines, to be freed.
 * -ENOTCONN when the VM does not run.
 */
__attribute__((format(printf, 3, 4))) int target_command(
    struct target *t, char **answer, const char *fmt, ...);
int target_get_state(struct target *t, unsigned cpu, struct vcpu_state *s);
int target_set_field(
    struct target *t, unsigned cpu, const char *field, uint64_t value);
/* The value of "key=" in the answer to info; 0 when missing. */
uint64_t target_info_number(const char *info, const char *key);
/* Stops the VM when it runs, then removes it. */
int target_destroy(const char *name);

/* regs.c: getters and setters of registers, one option each. */
struct regs;
struct option;
struct regs *regs_new(void);
void regs_free(struct regs *r);
/* Number of options, and the options themselves with val = base + index. */
unsigned regs_count(void);
void regs_options(struct regs *r, struct option *options, int base);
/* The option base + index was given. 0 or -EINVAL (logged). */
int regs_option(struct regs *r, unsigned index, const char *arg);
bool regs_wants_write(const struct regs *r);
int regs_apply(const struct regs *r, struct target *t, unsigned cpu);
int regs_print(const struct regs *r, struct target *t, unsigned cpu, bool all);

/* list.c */
int list_print(bool json);
