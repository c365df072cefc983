/*
 * The software CPU behind vmm/engine.h: creation, state exchange, and the host
 * callbacks wrapped so that a vCPU counts as outside (smp.h) while it is in one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/jit/jit.h"
#include "cpu/soft/fpu.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/run.h"
#include "cpu/soft/smp.h"
#include "lib/config.h"
#include "lib/log.h"

#define CODE_SIZE (256 * MiB) /* address space for native stubs and translations */

#define CR0_VALID 0xe005003fu
#define CR4_VALID                                                                  \
	(CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE |      \
	    CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP |           \
	    CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)
#define EFER_VALID (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_AUTOIBRS)

static struct soft_cpu *soft(struct engine_vcpu *v)
{
	return (struct soft_cpu *)v;
}

#define HOST_CALL(e, id, call)                                                     \
	do {                                                                       \
		struct soft_cpu *cpu_ = (e)->cpu[id];                              \
		bool inside_ = smp_leave(cpu_);                                    \
                                                                                   \
		call;                                                              \
		if (inside_)                                                       \
			smp_enter(cpu_);                                           \
	} while (0)

static uint64_t host_io_read(void *arg, int id, uint16_t port, unsigned size)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;
	uint64_t v;

	HOST_CALL(e, id, v = h->io_read(h->arg, id, port, size));
	return v;
}

static void host_io_write(
    void *arg, int id, uint16_t port, unsigned size, uint64_t v)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;

	HOST_CALL(e, id, h->io_write(h->arg, id, port, size, v));
}

static uint64_t host_mmio_read(void *arg, int id, uint64_t gpa, unsigned size)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;
	uint64_t v;

	HOST_CALL(e, id, v = h->mmio_read(h->arg, id, gpa, size));
	return v;
}

static void host_mmio_write(
    void *arg, int id, uint64_t gpa, unsigned size, uint64_t v)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;

	HOST_CALL(e, id, h->mmio_write(h->arg, id, gpa, size, v));
}

static int host_msr_read(void *arg, int id, uint32_t msr, uint64_t *v)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;
	int rc;

	HOST_CALL(e, id, rc = h->msr_read(h->arg, id, msr, v));
	return rc;
}

static int host_msr_write(void *arg, int id, uint32_t msr, uint64_t v)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;
	int rc;

	HOST_CALL(e, id, rc = h->msr_write(h->arg, id, msr, v));
	return rc;
}

static uint8_t host_cr8_read(void *arg, int id)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;
	uint8_t v;

	HOST_CALL(e, id, v = h->cr8_read(h->arg, id));
	return v;
}

static void host_cr8_write(void *arg, int id, uint8_t v)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;

	HOST_CALL(e, id, h->cr8_write(h->arg, id, v));
}

static int host_intr_ack(void *arg, int id)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;
	int v;

	HOST_CALL(e, id, v = h->intr_ack(h->arg, id));
	return v;
}

static bool host_intr_pending(void *arg, int id)
{
	struct soft_engine *e = arg;
	const struct engine_host *h = e->cfg.host;
	bool v;

	HOST_CALL(e, id, v = h->intr_pending(h->arg, id));
	return v;
}

/* Guest memory changed behind the CPUs' backs: by a device or a loader. */
static void memory_changed(void *arg, uint64_t gpa, uint64_t len)
{
	smp_code_written(arg, NULL, gpa, len);
}

/* The translator unless told otherwise; without a tree (tests) the interpreter. */
static int check_tier(const struct config *cfg, bool *jit, bool *must)
{
	const char *tier = cfg ? config_get(cfg, "cpu.tier") : "interp";

	*must = tier && !strcmp(tier, "jit");
	*jit = !tier || *must;
	if (*jit || !strcmp(tier, "interp"))
		return 0;
	log_error("cpu.tier: '%s' is neither interp nor jit", tier);
	return -EINVAL;
}

/* Other vCPUs would change memory between the two runs of a block. */
static int check_lockstep(const struct engine_config *cfg, bool jit, bool *lockstep)
{
	*lockstep = false;
	if (cfg->cfg && config_get_bool(cfg->cfg, "cpu.lockstep", false, lockstep) < 0)
		return -EINVAL;
	if (!*lockstep || (jit && cfg->ncpu == 1))
		return 0;
	if (!jit)
		log_error("cpu.lockstep: checks the translator: it needs cpu.tier=jit");
	else
		log_error("cpu.lockstep: works with one virtual CPU, not %u", cfg->ncpu);
	return -EINVAL;
}

static void soft_destroy(struct engine *eng);

static int soft_create(struct engine **out, const struct engine_config *cfg)
{
	struct soft_engine *e;
	bool jit, must, lockstep;
	int rc;

	if (cfg->ncpu == 0 || cfg->ncpu > ARRAY_SIZE(e->cpu)) {
		log_error(
		    "cpus: %u is not within 1..%zu", cfg->ncpu, ARRAY_SIZE(e->cpu));
		return -EINVAL;
	}
	rc = check_tier(cfg->cfg, &jit, &must);
	if (!rc)
		rc = check_lockstep(cfg, jit, &lockstep);
	if (rc)
		return rc;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->cfg = *cfg;
	e->ncpu = cfg->ncpu;
	e->jit = jit;
	e->jit_must = must || lockstep;
	e->lockstep = lockstep;
	e->host = (struct engine_host){
		.arg = e, .io_read = host_io_read, .io_write = host_io_write,
		.mmio_read = host_mmio_read, .mmio_write = host_mmio_write,
		.msr_read = host_msr_read, .msr_write = host_msr_write,
		.cr8_read = host_cr8_read, .cr8_write = host_cr8_write,
		.intr_ack = host_intr_ack, .intr_pending = host_intr_pending,
	};
	rc = smp_create(e);
	if (!rc)
		rc = codemem_new(&e->codemem, CODE_SIZE);
	if (rc) {
		log_error("software CPU: cannot set up: %s", strerror(-rc));
		soft_destroy((struct engine *)e);
		return rc;
	}
	cfg->mem->code_written = memory_changed;
	cfg->mem->code_arg = e;
	*out = (struct engine *)e;
	return 0;
}

static void vcpu_free(struct soft_cpu *cpu)
{
	block_destroy(cpu);
	jit_destroy(cpu);
	mmu_destroy(cpu);
	native_destroy(cpu);
	free(cpu);
}

static void soft_destroy(struct engine *eng)
{
	struct soft_engine *e = (struct soft_engine *)eng;

	if (e->cfg.mem->code_arg == e) {
		e->cfg.mem->code_written = NULL;
		e->cfg.mem->code_arg = NULL;
	}
	for (unsigned i = 0; i < e->ncpu; i++)
		if (e->cpu[i])
			vcpu_free(e->cpu[i]);
	codemem_free(e->codemem);
	smp_destroy(e);
	free(e);
}

static void state_load(struct soft_cpu *cpu, const struct vcpu_state *s)
{
	memcpy(cpu->gpr, s->gpr, sizeof(cpu->gpr));
	cpu->rip = cpu->next_rip = s->rip;
	cpu->rflags = s->rflags;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		cpu->seg[i] = (struct soft_seg){
			.base = s->seg[i].base,
			.limit = s->seg[i].limit,
			.access = s->seg[i].access,
			.sel = s->seg[i].sel,
		};
	cpu->gdt_base = s->gdtr.base;
	cpu->gdt_limit = s->gdtr.limit;
	cpu->idt_base = s->idtr.base;
	cpu->idt_limit = s->idtr.limit;
	cpu->cr0 = s->cr0;
	cpu->cr2 = s->cr2;
	cpu->cr3 = s->cr3;
	cpu->cr4 = s->cr4;
	cpu->efer = s->efer;
	cpu->xcr0 = s->xcr0;
	cpu->xss = s->xss;
	memcpy(cpu->dr, s->dr, sizeof(cpu->dr));
	cpu->dr6 = s->dr6;
	cpu->dr7 = s->dr7;
	cpu->star = s->star;
	cpu->lstar = s->lstar;
	cpu->cstar = s->cstar;
	cpu->sfmask = s->sfmask;
	cpu->kernel_gs_base = s->kernel_gs_base;
	cpu->sysenter_cs = s->sysenter_cs;
	cpu->sysenter_esp = s->sysenter_esp;
	cpu->sysenter_eip = s->sysenter_eip;
	cpu->pat = s->pat;
	cpu->tsc_aux = s->tsc_aux;
	cpu->tsc_offset = s->tsc_offset;
	atomic_store(&cpu->link.tsc_offset, s->tsc_offset);
	cpu->tsc_adjust = s->tsc_adjust;
	cpu->misc_enable = s->misc_enable;
	cpu->spec_ctrl = s->spec_ctrl;
	cpu->mtrr_def = s->mtrr_def;
	memcpy(cpu->mtrr_fixed, s->mtrr_fixed, sizeof(cpu->mtrr_fixed));
	memcpy(cpu->mtrr_base, s->mtrr_base, sizeof(cpu->mtrr_base));
	memcpy(cpu->mtrr_mask, s->mtrr_mask, sizeof(cpu->mtrr_mask));
	memcpy(cpu->fpu, s->fpu, sizeof(cpu->fpu));
	fpu_normalise(cpu);
	cpu->shadow = s->shadow;
	cpu->nmi_blocked = s->nmi_blocked;
	cpu->halted = s->activity == VCPU_HALTED;
	/* Ask once: an interrupt may have been posted to the state before. */
	cpu->intr_waiting = true;
	cpu->delivering = -1;
	cpu->pending_db = 0;
	cpu_update_mode(cpu);
	block_flush(cpu);
	mmu_flush_all(cpu);
}

static void soft_get_state(struct engine_vcpu *v, struct vcpu_state *s)
{
	struct soft_cpu *cpu = soft(v);
	const struct engine_host *h = cpu->engine->cfg.host;

	memset(s, 0, sizeof(*s));
	memcpy(s->gpr, cpu->gpr, sizeof(s->gpr));
	s->rip = cpu->rip;
	s->rflags = cpu->rflags;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct vcpu_seg){
			.base = cpu->seg[i].base,
			.limit = cpu->seg[i].limit,
			.access = cpu->seg[i].access,
			.sel = cpu->seg[i].sel,
		};
	s->gdtr.base = cpu->gdt_base;
	s->gdtr.limit = cpu->gdt_limit;
	s->idtr.base = cpu->idt_base;
	s->idtr.limit = cpu->idt_limit;
	s->cr0 = cpu->cr0;
	s->cr2 = cpu->cr2;
	s->cr3 = cpu->cr3;
	s->cr4 = cpu->cr4;
	s->cr8 = h->cr8_read(h->arg, cpu->id);
	s->efer = cpu->efer;
	s->xcr0 = cpu->xcr0;
	s->xss = cpu->xss;
	memcpy(s->dr, cpu->dr, sizeof(s->dr));
	s->dr6 = cpu->dr6;
	s->dr7 = cpu->dr7;
	s->star = cpu->star;
	s->lstar = cpu->lstar;
	s->cstar = cpu->cstar;
	s->sfmask = cpu->sfmask;
	s->kernel_gs_base = cpu->kernel_gs_base;
	s->sysenter_cs = cpu->sysenter_cs;
	s->sysenter_esp = cpu->sysenter_esp;
	s->sysenter_eip = cpu->sysenter_eip;
	s->pat = cpu->pat;
	if (h->msr_read(h->arg, cpu->id, 0x1b, &s->apic_base))
		s->apic_base = 0;
	s->tsc_aux = cpu->tsc_aux;
	s->tsc_offset = cpu->tsc_offset;
	s->tsc_adjust = cpu->tsc_adjust;
	s->misc_enable = cpu->misc_enable;
	s->spec_ctrl = cpu->spec_ctrl;
	s->mtrr_def = cpu->mtrr_def;
	memcpy(s->mtrr_fixed, cpu->mtrr_fixed, sizeof(s->mtrr_fixed));
	memcpy(s->mtrr_base, cpu->mtrr_base, sizeof(s->mtrr_base));
	memcpy(s->mtrr_mask, cpu->mtrr_mask, sizeof(s->mtrr_mask));
	memcpy(s->fpu, cpu->fpu, sizeof(s->fpu));
	s->shadow = cpu->shadow;
	s->nmi_blocked = cpu->nmi_blocked;
	s->activity = cpu->halted ? VCPU_HALTED : VCPU_RUNNING;
}

static bool cr_valid(const struct vcpu_state *s)
{
	bool lma = s->cr0 & CR0_PG && s->efer & EFER_LME;

	if (s->cr0 & ~(uint64_t)CR0_VALID || s->cr4 & ~(uint64_t)CR4_VALID ||
	    s->efer & ~(uint64_t)EFER_VALID)
		return false;
	if (s->cr0 & CR0_PG && !(s->cr0 & CR0_PE))
		return false;
	if (s->cr0 & CR0_NW && !(s->cr0 & CR0_CD))
		return false;
	if (lma != !!(s->efer & EFER_LMA) || (lma && !(s->cr4 & CR4_PAE)))
		return false;
	if (s->cr4 & CR4_PCIDE && !lma)
		return false;
	return !(s->cr3 & ~MMU_PHYS_MASK);
}

static bool state_valid(const struct vcpu_state *s)
{
	bool lma = s->efer & EFER_LMA, pe = s->cr0 & CR0_PE;
	const struct vcpu_seg *cs = &s->seg[SEG_CS];

	if (!cr_valid(s))
		return false;
	/* Bit 1 is one; 3, 5, 15 and all above 21 are zero. */
	if ((s->rflags & 0xffffffffffc0802aULL) != 2)
		return false;
	if (s->rflags & RF_VM && (lma || !pe))
		return false;
	if (!(s->xcr0 & 1) || s->xcr0 & ~UINT64_C(7) || (s->xcr0 & 6) == 4)
		return false;
	if (lma && cs->access & 0x2000 ? !is_canonical(s->rip) : s->rip >> 32 != 0)
		return false;
	/* A 64-bit code segment has no 32-bit default size, and needs long mode. */
	if (cs->access & 0x2000 && (cs->access & 0x4000) && lma)
		return false;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (lma ? !is_canonical(s->seg[i].base) : s->seg[i].base >> 32 != 0)
			return false;
	return is_canonical(s->gdtr.base) && is_canonical(s->idtr.base) &&
	       is_canonical(s->lstar) && is_canonical(s->cstar) &&
	       is_canonical(s->kernel_gs_base) && is_canonical(s->sysenter_esp) &&
	       is_canonical(s->sysenter_eip) && s->activity <= VCPU_SHUTDOWN;
}

static int soft_set_state(struct engine_vcpu *v, const struct vcpu_state *s)
{
	if (!state_valid(s))
		return -EINVAL;
	state_load(soft(v), s);
	return 0;
}

static int soft_vcpu_create(struct engine *eng, unsigned id,
    struct engine_vcpu **out, struct vcpu_link **link)
{
	struct soft_engine *e = (struct soft_engine *)eng;
	struct vcpu_state s;
	struct soft_cpu *cpu;
	int rc;

	if (id >= e->ncpu || e->cpu[id])
		return -EINVAL;
	cpu = aligned_alloc(64, ROUND_UP(sizeof(*cpu), 64));
	if (!cpu)
		return -ENOMEM;
	memset(cpu, 0, sizeof(*cpu));
	cpu->engine = e;
	cpu->id = id;
	cpu->mem = e->cfg.mem;
	cpu->host = &e->host;
	cpu->run_block = interp_block;
	rc = mmu_create(cpu);
	if (!rc)
		rc = block_create(cpu);
	if (!rc)
		rc = native_create(cpu);
	if (!rc && e->jit) {
		rc = jit_create(cpu);
		if (rc && !e->jit_must) {
			log_warn("vCPU %u: no translator (%s): interpreting, which "
				 "is slow",
			    id, strerror(-rc));
			rc = 0;
		}
	}
	if (rc) {
		log_error("vCPU %u: cannot set up: %s", id, strerror(-rc));
		vcpu_free(cpu);
		return rc;
	}
	vcpu_state_reset(&s, id);
	state_load(cpu, &s);
	e->cpu[id] = cpu;
	*out = (struct engine_vcpu *)cpu;
	*link = &cpu->link;
	return 0;
}

static enum engine_exit soft_run(struct engine_vcpu *v)
{
	return cpu_run(soft(v));
}

static int soft_translate(struct engine_vcpu *v, uint64_t gla, uint64_t *gpa)
{
	return mmu_translate(soft(v), gla, gpa);
}

static int soft_point(struct engine *eng, enum engine_point kind, uint64_t gla,
    uint64_t len, bool set)
{
	return debugger_point((struct soft_engine *)eng, kind, gla, len, set);
}

static void soft_step(struct engine_vcpu *v, bool on)
{
	debugger_step(soft(v), on);
}

static enum engine_point soft_stopped_at(struct engine_vcpu *v, uint64_t *gla)
{
	*gla = soft(v)->stopped_gla;
	return soft(v)->stopped;
}

static void soft_stats(struct engine_vcpu *v, engine_stat_fn *fn, void *arg)
{
	const struct soft_stats *s = &soft(v)->stats;

	fn(arg, "instructions", s->insns);
	fn(arg, "blocks run", s->blocks);
	fn(arg, "blocks decoded", s->block_misses);
	fn(arg, "blocks invalidated", s->invalidations);
	fn(arg, "TLB misses", s->tlb_misses);
	fn(arg, "TLB flushes", s->flushes);
	fn(arg, "page walks", s->page_walks);
	fn(arg, "page faults", s->page_faults);
	fn(arg, "exceptions", s->exceptions);
	fn(arg, "interrupts", s->interrupts);
	fn(arg, "port accesses", s->io);
	fn(arg, "MMIO accesses", s->mmio);
	fn(arg, "HLT", s->hlt);
	fn(arg, "exclusive sections", s->exclusive);
	if (soft(v)->jit)
		jit_stats(soft(v), fn, arg);
}

/* The interpreter needs nothing of its thread. */
static int soft_thread_start(struct engine_vcpu *v)
{
	return soft(v)->jit ? jit_thread_start(soft(v)) : 0;
}

static void soft_thread_stop(struct engine_vcpu *v)
{
	if (soft(v)->jit)
		jit_thread_stop(soft(v));
}

const struct engine_ops engine_soft = {
	.name = "soft",
	.create = soft_create,
	.destroy = soft_destroy,
	.vcpu_create = soft_vcpu_create,
	.run = soft_run,
	.get_state = soft_get_state,
	.set_state = soft_set_state,
	.translate = soft_translate,
	.point = soft_point,
	.step = soft_step,
	.stopped_at = soft_stopped_at,
	.stats = soft_stats,
	.thread_start = soft_thread_start,
	.thread_stop = soft_thread_stop,
};
