/*
 * The same-ISA translator: guest x86-64 code becomes host x86-64 code.
 *
 * Unit: a struct block of the interpreter, translated for one guest RIP and one
 * "key" (what changes the shape of code: 64-bit or compatibility mode, privilege,
 * SMAP override, which of x87, SSE, AVX may run). One code cache a vCPU, run and
 * patched only by its thread.
 *
 * Registers. Guest GPRs live in the host registers of the same number, except
 * RSP, which lives in r15, and r10, r11, r15, which live in cpu->gpr[]: host r10
 * and r11 are scratch, the host's stack is ours. Arithmetic flags live in EFLAGS;
 * x87, SSE, AVX and MXCSR live in the host's registers from the first block that
 * uses them until C code runs ("loaded"). The cache is mapped within 2 GiB of
 * struct soft_cpu, so that all state is RIP-relative: no GS base, and operands
 * two bytes shorter than gs:[disp32].
 *
 * Memory. Each access site owns a slot {start, limit, delta}: the access may go
 * ahead when address - start < limit, at host address = address + delta. A slot
 * covers as much as the guest's mapping and host memory are contiguous. Misses
 * are refilled by a stub from what other misses found on the same page, else from
 * the software TLB by fast.c; a site that misses all the time gets a look-up of the
 * TLB of its own (poly.c). What no slot can serve (MMIO, page crossing, stores to code)
 * is done by the interpreter's handler for that one instruction; a check for several
 * accesses that meets the end of a page has a second translation without such checks
 * to go on in (helpers.c). Strings within a page are helpers' work (string.c), as
 * system calls are (gate.c). The check clobbers flags where they are dead, else saves
 * them.
 *
 * Compatibility mode: programs with flat CS, DS, ES, SS. Their code is 64-bit code on
 * the host, with addresses below 4 GiB; the key says whether FS and GS are good for
 * all offsets. Everything else of 16 and 32 bits is the interpreter's.
 *
 * Control flow. Direct jumps are patched to their target; the jump at the end of a
 * translation is left out when its target is translated next. A jump that leaves the
 * page passes the target page's token, a byte that says "this virtual page still
 * maps to the page I was translated from". Guest CALL/RET pair with host CALL/RET
 * on a private stack, one a key; the return site compares the guest's return
 * address, and when a page's token is withdrawn the stack of its key is forgotten.
 * Indirect jumps go through a table indexed by the low 16 bits of the target; who is
 * reached checks that it was meant. Loop heads poll link.events.
 *
 * Exceptions. One guest instruction is one stretch of host code that changes guest
 * state at its end only; each translation has its instructions' host addresses.
 * Whoever leaves generated code stores all registers to struct soft_cpu first.
 * Host faults in generated code (#DE, #XM, misaligned SSE) arrive as signals and
 * are turned into "interpret this instruction".
 *
 * Arithmetic flags are taken to be dead at returns and indirect calls, as every ABI
 * has it, unless the code at hand shows otherwise (plan.c): the price of carrying them
 * through the checks before every RET was a fifth of the time of call-heavy code. A
 * call whose return address has code that reads flags switches the key to keep them
 * everywhere; lockstep does that from the start.
 *
 * Liveness of flags may look beyond the block into code it reaches; bytes looked at
 * on the same page are part of the translation's range for invalidation.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cpu/soft/soft.h"

/*
 * 0, -ENOMEM, -EINVAL (configuration). From then on cpu->run_block enters translated
 * code, which runs until the run loop has to look up or a fault leaves by cpu_raise().
 */
int jit_create(struct soft_cpu *cpu);
void jit_destroy(struct soft_cpu *cpu);
/* The calling thread will run / has run this vCPU: handlers of host faults. */
int jit_thread_start(struct soft_cpu *cpu);
void jit_thread_stop(struct soft_cpu *cpu);

/* b is about to be freed or must not be entered again. */
void jit_block_dead(struct soft_cpu *cpu, struct block *b);
/* Bytes of code changed. */
void jit_code_changed(struct soft_cpu *cpu, uint64_t gpa, uint64_t len);
/* The software TLB dropped: everything / what is not global / one page. */
void jit_tlb_flush(struct soft_cpu *cpu, bool globals);
void jit_tlb_flush_page(struct soft_cpu *cpu, uint64_t lin);
/*
 * The page at gpa holds code from now on: no slot may write it. wrote: there may have
 * been a TLB entry that did.
 */
void jit_drop_write(struct soft_cpu *cpu, uint64_t gpa, bool wrote);

void jit_stats(struct soft_cpu *cpu, engine_stat_fn *fn, void *arg);
