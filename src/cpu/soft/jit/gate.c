/*
 * SYSCALL and SYSRET of 64-bit code without leaving generated code: the interpreter's
 * handlers, which change no memory and cannot fail under what is checked here, run
 * with the guest's registers where they are.
 */
#include <Zydis/Mnemonic.h>

#include "cpu/soft/jit/priv.h"
#include "cpu/soft/sys.h"

#define AH_FLAGS UINT64_C(0xd5)

/* RFLAGS from what LAHF and SETO left in AX, and back. */
static uint64_t flags_from(uint64_t ax)
{
	return (ax >> 8 & AH_FLAGS) | (ax & 1) << 11;
}

static uint64_t flags_to(uint64_t rflags)
{
	return (rflags & AH_FLAGS) << 8 | (rflags >> 11 & 1);
}

/* Whether the handler surely does without an exception. */
static bool good(const struct soft_cpu *cpu, const struct insn *in, uint64_t rcx)
{
	if (!(cpu->efer & EFER_SCE) || cpu->mode != MODE_64)
		return false;
	return in->mnemonic == ZYDIS_MNEMONIC_SYSCALL ||
	    (in->opsize == 8 && cpu->cpl == 0 && is_canonical(rcx));
}

void jit_gate(struct jit *j, uint32_t site, uint64_t unused)
{
	struct soft_cpu *cpu = j->cpu;
	const struct site *at = &j->sites[site];
	const struct insn *in = &at->t->b->insn[at->insn];
	const uint8_t *to = j->stub_dispatch;

	(void)unused;
	j->miss_site = site;
	if (!good(cpu, in, j->save[SAVED_RCX])) {
		j->miss_to = (uint64_t)(uintptr_t)j->stub_interp;
		return;
	}
	cpu->gpr[GPR_RCX] = j->save[SAVED_RCX];
	cpu->rflags = (cpu->rflags & ~(uint64_t)RF_STATUS) |
	    flags_from(j->save[SAVED_FLAGS]);
	cpu->next_rip = at->t->rip + at->off + in->len;
	in->fn(cpu, in);
	cpu->rip = cpu->next_rip;
	j->save[SAVED_RCX] = cpu->gpr[GPR_RCX];
	j->save[SAVED_FLAGS] = flags_to(cpu->rflags);
	if (!jit_must_leave(cpu) && jit_use_key(j))
		to = j->table[j->keyid * JIT_TABLE + (cpu->rip & 0xffff)];
	j->miss_addr = cpu->rip;
	j->miss_to = (uint64_t)(uintptr_t)to;
}
