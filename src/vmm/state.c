/* Reset, INIT and start-up states: SDM vol. 3, ch. 10.1 (table 10-1) and 9.4. */
#include "vmm/state.h"

#include <string.h>

#define CR0_ET          0x10u
#define CR0_CD          0x40000000u
#define CR0_NW          0x20000000u

#define APIC_BASE_RESET UINT64_C(0xFEE00000)
#define APIC_BASE_BSP   0x100u
#define APIC_BASE_EN    0x800u

static void set_seg(
    struct vcpu_seg *seg, uint16_t sel, uint64_t base, uint32_t access)
{
	*seg = (struct vcpu_seg){
		.sel = sel,
		.base = base,
		.limit = 0xffff,
		.access = access,
	};
}

/* What reset and INIT share. */
static void set_common(struct vcpu_state *s)
{
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[GPR_RDX] = 0xf00;
	s->rip = 0xfff0;
	s->rflags = 2;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		set_seg(&s->seg[i], 0, 0, 0x93);
	set_seg(&s->seg[SEG_CS], 0xf000, 0xffff0000, 0x93);
	set_seg(&s->seg[SEG_LDTR], 0, 0, 0x82);
	set_seg(&s->seg[SEG_TR], 0, 0, 0x8b);
	memset(&s->gdtr, 0, sizeof(s->gdtr));
	memset(&s->idtr, 0, sizeof(s->idtr));
	s->gdtr.limit = 0xffff;
	s->idtr.limit = 0xffff;
	s->cr2 = 0;
	s->cr3 = 0;
	s->cr4 = 0;
	s->cr8 = 0;
	s->efer = 0;
	memset(s->dr, 0, sizeof(s->dr));
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->shadow = 0;
	s->nmi_blocked = 0;
}

void vcpu_state_reset(struct vcpu_state *s, unsigned id)
{
	memset(s, 0, sizeof(*s));
	set_common(s);
	s->cr0 = CR0_ET | CR0_CD | CR0_NW;
	s->xcr0 = 1;
	s->pat = UINT64_C(0x0007040600070406);
	s->apic_base =
	    APIC_BASE_RESET | APIC_BASE_EN | (id == 0 ? APIC_BASE_BSP : 0);
	s->misc_enable = 1; /* fast strings */
	/*
	 * As after FNINIT; a zero abridged tag word means all registers are empty.
	 */
	s->fpu[0] = 0x7f;
	s->fpu[1] = 0x03;
	s->fpu[24] = 0x80; /* MXCSR 0x1f80 */
	s->fpu[25] = 0x1f;
	s->fpu[512] = 3; /* XSTATE_BV: x87 and SSE hold values */
	s->activity = id == 0 ? VCPU_RUNNING : VCPU_WAIT_SIPI;
}

void vcpu_state_init(struct vcpu_state *s)
{
	/* INIT keeps CD and NW and sets ET; everything else of CR0 is cleared. */
	s->cr0 = (s->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
	set_common(s);
	s->activity = VCPU_WAIT_SIPI;
}

void vcpu_state_sipi(struct vcpu_state *s, uint8_t vector)
{
	s->seg[SEG_CS].sel = (uint16_t)(vector << 8);
	s->seg[SEG_CS].base = (uint64_t)vector << 12;
	s->rip = 0;
	s->activity = VCPU_RUNNING;
}
