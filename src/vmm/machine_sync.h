/* What machine.c, host.c and vcpu.c share and nobody else needs. */
#pragma once

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "vmm/engine.h"

struct machine;
struct vcpu;

struct machine_sync {
	pthread_mutex_t lock; /* a leaf; guards what follows, and vcpu.parked and stopped */
	pthread_cond_t cond;
	unsigned paused; /* nesting of machine_pause() */
	unsigned held;   /* vCPU threads that wait for resume */
	unsigned live;   /* vCPU threads in their loop */
	bool ending;     /* the machine has run: nobody is held any more */
	/* The debugger's, set before vCPUs run. */
	void (*stopped)(void *arg);
	void *stopped_arg;
	/* vCPUs asleep that no interrupt can wake: only NMI, INIT or SIPI. */
	_Atomic unsigned dead;
	/* INIT of the boot CPU is a reset: nothing is at its reset vector. */
	bool reset_on_init;
	struct sigaction old_action; /* of the vCPUs' timers' signal */

	struct engine_host host; /* machine_host with this machine as its arg */
};

/* host.c: what the engine may ask of the machine; arg is the machine. */
extern const struct engine_host machine_host;

/* vcpu.c */
int vcpu_setup(struct machine *m, unsigned id);
void vcpu_teardown(struct vcpu *v);
int vcpu_start(struct vcpu *v);
void vcpu_join(struct vcpu *v);
/* vcpu_timer.c: the first two while no vCPU runs, the others in its thread. */
void vcpu_timer_start(struct machine *m);
void vcpu_timer_stop(struct machine *m);
int vcpu_timer_create(struct vcpu *v); /* 0 or -errno */
void vcpu_timer_delete(struct vcpu *v);
void vcpu_timer_arm(struct vcpu *v);
void vcpu_timer_disarm(struct vcpu *v);
void vcpu_timer_expired(struct vcpu *v); /* EV_TIMER */
/* "0,2-3" into set; 0 or -EINVAL. */
int cpuset_parse(const char *text, cpu_set_t *set);
