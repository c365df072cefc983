/*
 * The engine's side: one vCPU in 64-bit user mode behind page tables that put code
 * and data where the host's child has them. Every exception ends in a HLT of its
 * own behind the IDT, whose address tells the vector; the frame on the kernel stack
 * tells the rest. So exception delivery is part of what is compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/fpu.h"
#include "lib/config.h"
#include "oracle.h"
#include "vmm/clock.h"

#define RAM         (16 * MiB)
#define PHYS_PML4   0x1000u
#define PHYS_PDPT   0x2000u
#define PHYS_PD     0x3000u
#define PHYS_PT_C   0x4000u /* code */
#define PHYS_PT_D   0x5000u /* data */
#define PHYS_PT_K   0x6000u /* kernel, with its own two levels above */
#define PHYS_PDPT_K 0x7000u
#define PHYS_PD_K   0x8000u
#define PHYS_KERN   0x10000u /* GDT, TSS, IDT, handlers, stack: 4 pages */
#define PHYS_CODE   0x20000u
#define PHYS_DATA   0x30000u
#define KERN        UINT64_C(0xffffb1c2d3e00000) /* its address, hard to hit */
#define GDT         KERN
#define TSS         (KERN + 0x800u)
#define IDT         (KERN + 0x1000u)
#define HANDLERS    (KERN + 0x2000u)
#define STACK       (KERN + 0x4000u)

#define SEL_KCODE   0x10u
#define SEL_UDATA   0x2bu /* as Linux has them: MOV from SS must agree */
#define SEL_UCODE   0x33u
#define SEL_TSS     0x40u

#define PTE_P       1u
#define PTE_W       2u
#define PTE_U       4u
#define PTE_A       0x20u
#define PTE_D       0x40u
#define PTE_NX      BIT64(63)

static struct {
	struct memory mem;
	struct engine_host host;
	struct engine *engine;
	struct engine_vcpu *vcpu;
	struct vcpu_link *link;
	struct config *cfg;
	struct vcpu_state base;
} g;

static uint64_t no_read(void *arg, int cpu, uint64_t gpa, unsigned size)
{
	(void)arg, (void)cpu, (void)gpa, (void)size;
	return ~UINT64_C(0);
}

static void no_write(void *arg, int cpu, uint64_t gpa, unsigned size, uint64_t v)
{
	(void)arg, (void)cpu, (void)gpa, (void)size, (void)v;
}

static uint64_t no_in(void *arg, int cpu, uint16_t port, unsigned size)
{
	return no_read(arg, cpu, port, size);
}

static void no_out(void *arg, int cpu, uint16_t port, unsigned size, uint64_t v)
{
	no_write(arg, cpu, port, size, v);
}

static int msr_read(void *arg, int cpu, uint32_t msr, uint64_t *v)
{
	(void)arg, (void)cpu;
	*v = 0xfee00900;
	return msr == 0x1b ? 0 : -2;
}

static int msr_write(void *arg, int cpu, uint32_t msr, uint64_t v)
{
	(void)arg, (void)cpu, (void)msr, (void)v;
	return -2;
}

static uint8_t cr8_read(void *arg, int cpu)
{
	(void)arg, (void)cpu;
	return 0;
}

static void cr8_write(void *arg, int cpu, uint8_t v)
{
	(void)arg, (void)cpu, (void)v;
}

static int no_ack(void *arg, int cpu)
{
	(void)arg, (void)cpu;
	return -1;
}

static bool no_intr(void *arg, int cpu)
{
	(void)arg, (void)cpu;
	return false;
}

static uint64_t *phys64(uint64_t gpa)
{
	return (uint64_t *)(void *)(g.mem.base + gpa);
}

static void build_tables(void)
{
	uint64_t dir = PTE_P | PTE_W | PTE_U | PTE_A;

	phys64(PHYS_PML4)[0] = PHYS_PDPT | dir;
	phys64(PHYS_PDPT)[0] = PHYS_PD | dir;
	phys64(PHYS_PD)[ORACLE_CODE >> 21] = PHYS_PT_C | dir;
	phys64(PHYS_PD)[ORACLE_DATA >> 21] = PHYS_PT_D | dir;
	phys64(PHYS_PML4)[KERN >> 39 & 511] = PHYS_PDPT_K | dir;
	phys64(PHYS_PDPT_K)[KERN >> 30 & 511] = PHYS_PD_K | dir;
	phys64(PHYS_PD_K)[KERN >> 21 & 511] = PHYS_PT_K | dir;
	phys64(PHYS_PT_C)[0] = PHYS_CODE | PTE_P | PTE_U | PTE_A;
	for (unsigned i = 0; i < DATA_PAGES; i++)
		if (i != DATA_HOLE)
			phys64(PHYS_PT_D)[i] = (PHYS_DATA + i * PAGE) | PTE_P |
					       PTE_U | PTE_A | PTE_D | PTE_NX |
					       (i == DATA_RO ? 0 : PTE_W);
	for (unsigned i = 0; i < 4; i++)
		phys64(PHYS_PT_K)[i] =
		    (PHYS_KERN + i * PAGE) | PTE_P | PTE_W | PTE_A | PTE_D;
}

static void build_kernel(void)
{
	uint64_t *gdt = phys64(PHYS_KERN + (GDT - KERN));
	uint64_t *tss = phys64(PHYS_KERN + (TSS - KERN));
	uint64_t *idt = phys64(PHYS_KERN + (IDT - KERN));
	uint8_t *handlers = g.mem.base + PHYS_KERN + (HANDLERS - KERN);
	uint64_t rsp0 = STACK;

	gdt[SEL_KCODE / 8] = 0x00af9b000000ffff;
	gdt[SEL_KCODE / 8 + 1] = 0x00cf93000000ffff;
	gdt[SEL_UDATA / 8] = 0x00cff3000000ffff;
	gdt[SEL_UCODE / 8] = 0x00affb000000ffff;
	gdt[SEL_TSS / 8] = 0x0000890000000067 | (uint64_t)(TSS & 0xffffff) << 16 |
			   (TSS >> 24 & 0xff) << 56;
	gdt[SEL_TSS / 8 + 1] = TSS >> 32;
	memcpy((uint8_t *)tss + 4, &rsp0, 8);
	((uint8_t *)tss)[0x66] =
	    0x68; /* no I/O permission bitmap within the limit */
	for (unsigned v = 0; v < 32; v++) {
		uint64_t at = HANDLERS + v * 16;
		uint64_t dpl = v == EXC_BP ? 3 : 0;

		idt[2 * v] = (at & 0xffff) | SEL_KCODE << 16 |
			     (0x8e00 | dpl << 13) << 32 | (at >> 16 & 0xffff) << 48;
		idt[2 * v + 1] = at >> 32;
		handlers[v * 16] = 0xf4;
	}
}

static void seg_set(struct vcpu_seg *s, uint16_t sel, uint32_t access)
{
	*s = (struct vcpu_seg){ .limit = 0xffffffff, .access = access, .sel = sel };
}

static void build_state(void)
{
	struct vcpu_state *s = &g.base;

	vcpu_state_reset(s, 0);
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = PHYS_PML4;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = FPU_ALL;
	s->rflags = 2;
	s->rip = ORACLE_CODE + CODE_OFFSET;
	seg_set(&s->seg[SEG_CS], SEL_UCODE, 0xa0fb);
	seg_set(&s->seg[SEG_SS], SEL_UDATA, 0xc0f3);
	for (unsigned i = 0; i < SEG_LDTR; i++)
		if (i != SEG_CS && i != SEG_SS)
			seg_set(&s->seg[i], 0, 0x10000);
	s->seg[SEG_GS].base = ORACLE_GS;
	s->seg[SEG_LDTR] = (struct vcpu_seg){ .access = 0x10082 };
	s->seg[SEG_TR] = (struct vcpu_seg){
		.base = TSS, .limit = 0x67, .access = 0x8b, .sel = SEL_TSS
	};
	s->gdtr = (struct vcpu_table){ .base = GDT, .limit = 0x7f };
	s->idtr = (struct vcpu_table){ .base = IDT, .limit = 32 * 16 - 1 };
}

int guest_start(const char *tier)
{
	struct engine_config cfg = { .mem = &g.mem,
		.host = &g.host,
		.ncpu = 1,
		.sockets = 1,
		.cores = 1,
		.threads = 1,
		.tsc_hz = 1000000000 };

	g.host = (struct engine_host){ .io_read = no_in,
		.io_write = no_out,
		.mmio_read = no_read,
		.mmio_write = no_write,
		.msr_read = msr_read,
		.msr_write = msr_write,
		.cr8_read = cr8_read,
		.cr8_write = cr8_write,
		.intr_ack = no_ack,
		.intr_pending = no_intr };
	if (memory_create(&g.mem, RAM, false, false) < 0)
		return -1;
	g.cfg = config_new();
	if (g.cfg != NULL && strcmp(tier, "lockstep") == 0) {
		if (config_set(g.cfg, "cpu.lockstep", "true") < 0)
			return -1;
		tier = "jit";
	}
	/* Translate at the first run. */
	if (g.cfg == NULL || config_set(g.cfg, "cpu.tier", tier) < 0 ||
	    config_set(g.cfg, "cpu.threshold", "1") < 0)
		return -1;
	cfg.cfg = g.cfg;
	build_tables();
	build_kernel();
	build_state();
	memset(g.mem.base + PHYS_CODE, 0xcc, PAGE);
	if (engine_soft.create(&g.engine, &cfg) < 0 ||
	    engine_soft.vcpu_create(g.engine, 0, &g.vcpu, &g.link) < 0 ||
	    engine_soft.thread_start(g.vcpu) < 0)
		return -1;
	if (engine_soft.set_state(g.vcpu, &g.base) < 0) {
		fprintf(stderr, "oracle: the engine refuses the start state\n");
		return -1;
	}
	return 0;
}

void guest_stop(void)
{
	engine_soft.thread_stop(g.vcpu);
	engine_soft.destroy(g.engine);
	memory_destroy(&g.mem);
	config_free(g.cfg);
}

uint8_t *guest_data(void)
{
	return g.mem.base + PHYS_DATA;
}

static void load_code(const struct test *t)
{
	uint8_t *code = g.mem.base + PHYS_CODE + CODE_OFFSET;

	memset(code, 0xcc, CODE_MAX);
	memcpy(code, t->code, t->len);
	memory_written(&g.mem, PHYS_CODE + CODE_OFFSET, CODE_MAX);
}

static void load(struct soft_cpu *cpu, const struct test *t)
{
	/* Whole state exchange flushes everything; the registers alone do not. */
	memcpy(cpu->gpr, t->in.gpr, sizeof(cpu->gpr));
	cpu->rip = cpu->next_rip = t->in.rip;
	cpu->rflags = t->in.rflags | RF_IF;
	for (unsigned i = 0; i < SEG_LDTR; i++)
		cpu->seg[i] = (struct soft_seg){ .base = g.base.seg[i].base,
			.limit = g.base.seg[i].limit,
			.access = g.base.seg[i].access,
			.sel = g.base.seg[i].sel };
	memcpy(cpu->fpu, &t->in.fpu, sizeof(cpu->fpu));
	cpu->cr2 = 0;
	cpu->dr6 = 0xffff0ff0;
	cpu->halted = false;
	cpu_update_mode(cpu);
}

static int run(const struct test *t, struct outcome *o)
{
	struct soft_cpu *cpu = (struct soft_cpu *)(void *)g.vcpu;
	const uint64_t *frame;
	enum engine_exit r;
	unsigned vector;

	load(cpu, t);
	r = engine_soft.run(g.vcpu);
	if (r != ENGINE_HALT || cpu->rip < HANDLERS ||
	    cpu->rip >= HANDLERS + 32 * 16) {
		fprintf(stderr, "oracle: the engine left with %d at rip %#lx\n",
		    (int)r, (unsigned long)cpu->rip);
		return -1;
	}
	vector = (unsigned)(cpu->rip - HANDLERS) / 16;
	frame = phys64(PHYS_KERN + 0x4000 - 40);
	memset(o, 0, sizeof(*o));
	o->vector = vector;
	if (cpu->gpr[GPR_RSP] == STACK - 48)
		o->error = (uint32_t)frame[-1];
	o->address = vector == EXC_PF ? cpu->cr2 : 0;
	data_mask(guest_data(), t);
	o->memory = data_hash(guest_data());
	memcpy(o->out.gpr, cpu->gpr, sizeof(o->out.gpr));
	o->out.rip = frame[0];
	o->out.rflags = frame[2];
	o->out.gpr[GPR_RSP] = frame[3];
	memcpy(&o->out.fpu, cpu->fpu, sizeof(o->out.fpu));
	return 0;
}

int guest_run(const struct test *t, struct outcome *o)
{
	load_code(t);
	return run(t, o);
}

int guest_again(const struct test *t, struct outcome *o, bool cold)
{
	if (cold)
		mmu_flush_all((struct soft_cpu *)(void *)g.vcpu);
	return run(t, o);
}
