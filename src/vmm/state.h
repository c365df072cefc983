/*
 * The whole architectural state of one vCPU, as loaders, engines, bhyvectl
 * and snapshots exchange it. Plain data, fixed layout, host byte order.
 */
#pragma once

#include <stdint.h>

enum { /* index in gpr[]: the encoding order of x86 */
	GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI,
	GPR_R8, GPR_R9, GPR_R10, GPR_R11, GPR_R12, GPR_R13, GPR_R14, GPR_R15,
};

enum { /* index in seg[]: the encoding order of x86, then LDTR and TR */
	SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT,
};

/*
 * access is bhyve's form: bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B,
 * 15 G (descriptor bits 40-47 and 52-55), 16 unusable. limit is in bytes.
 */
struct vcpu_seg {
	uint64_t base;
	uint32_t limit;
	uint32_t access;
	uint16_t sel;
	uint16_t pad[3];
};

#define SEG_ACCESS_UNUSABLE 0x10000u

struct vcpu_table {
	uint64_t base;
	uint16_t limit;
	uint16_t pad[3];
};

enum vcpu_activity { VCPU_RUNNING, VCPU_HALTED, VCPU_WAIT_SIPI, VCPU_SHUTDOWN };

#define XSAVE_SIZE 832 /* legacy 512 + header 64 + AVX 256, standard format */

struct vcpu_state {
	uint64_t gpr[16];
	uint64_t rip, rflags;
	struct vcpu_seg seg[SEG_COUNT];
	struct vcpu_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
	uint64_t dr[4], dr6, dr7;
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, apic_base, tsc_aux, tsc_offset, tsc_adjust, misc_enable;
	uint64_t mtrr_def, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
	uint64_t spec_ctrl, xss;
	uint32_t activity; /* enum vcpu_activity */
	uint32_t shadow;   /* 1: interrupts are held off for one instruction */
	uint32_t nmi_blocked;
	uint32_t pad;
	uint8_t fpu[XSAVE_SIZE] __attribute__((aligned(64)));
};

/*
 * Power-on state (SDM vol. 3, 10.1.1): real mode at F000:FFF0. id 0 runs, others
 * wait for SIPI.
 */
void vcpu_state_reset(struct vcpu_state *s, unsigned id);
/* After INIT: as reset, but FPU, MTRRs, TSC survive; waits for SIPI. */
void vcpu_state_init(struct vcpu_state *s);
/* Start-up at vector << 12. */
void vcpu_state_sipi(struct vcpu_state *s, uint8_t vector);
