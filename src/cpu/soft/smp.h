/*
 * What the vCPUs of one engine ask of each other: dropping code, giving up fast
 * writes to a page, and the exclusive section.
 *
 * Presence. A vCPU is inside while it may touch guest memory through its fast
 * entries or run cached blocks, outside otherwise: not in run(), in a host
 * callback (which may block on the machine's lock), or waiting for another vCPU.
 * Who comes inside first answers every request posted meanwhile and waits for an
 * exclusive section to end; who is inside answers when it sees EV_ENGINE, at an
 * instruction boundary. So "posted and then seen outside, or answered" means the
 * request is as good as done - the same argument for both directions rests on
 * sequentially consistent stores of the request and of the presence.
 *
 * Code pages. memory.code[page] counts the vCPUs that hold blocks on the page.
 * Before a vCPU decodes from a page it counts itself in, takes its own fast
 * writes away and, if it is the first, has all other vCPUs do the same and waits
 * for them. Hence: a vCPU that is inside and reads zero may write that page
 * through a pointer until it next answers requests.
 *
 * Nobody waits while inside, so two vCPUs that wait for each other both count as
 * outside, and no order of locks can go wrong.
 */
#pragma once

#include "cpu/soft/soft.h"

int smp_create(struct soft_engine *e);
void smp_destroy(struct soft_engine *e);

/* Inside / outside, by the vCPU's own thread. Nest not. */
void smp_enter(struct soft_cpu *cpu);
/* Whether it was inside. */
bool smp_leave(struct soft_cpu *cpu);
/* EV_ENGINE was seen, at an instruction boundary. */
void smp_answer(struct soft_cpu *cpu);
/* The current instruction was left by a fault: gives back an exclusive section. */
void smp_abandon(struct soft_cpu *cpu);

/*
 * Blocks that overlap [gpa, gpa+len) go, on all vCPUs but the given one (or NULL).
 */
void smp_code_written(
    struct soft_engine *e, struct soft_cpu *but, uint64_t gpa, uint64_t len);
/* cpu will hold blocks on the RAM page at gpa / holds none any more. */
void smp_code_claim(struct soft_cpu *cpu, uint64_t gpa);
void smp_code_release(struct soft_cpu *cpu, uint64_t gpa);
