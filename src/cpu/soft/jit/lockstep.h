/*
 * Lockstep: every translated block is run by the interpreter and by the translator
 * from the same state; the first difference is reported and ends the VM. Without
 * it j->lock is NULL and nothing here is called.
 */
#pragma once

#include "cpu/soft/jit/priv.h"

/* 0 or -ENOMEM. The VM has one vCPU. */
int lockstep_create(struct jit *j);
void lockstep_destroy(struct jit *j);
/* A block was translated: keeps what the plan knew of its flags. */
void lockstep_note(struct jit *j, const struct tr *c);
/* Instead of entering t, with FPU state in memory. May raise. */
void lockstep_run(struct jit *j, struct block *b, struct trans *t);
/* The interpreter's handler is about to do instruction i for the translator. */
void lockstep_insn(struct jit *j, unsigned i);
/* The block goes on behind it, at instruction i. */
void lockstep_go_on(struct jit *j, unsigned i);
