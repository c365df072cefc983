/* Flat segments (flat.h). */
#include "load/flat.h"

#include <string.h>

#include "lib/util.h"
#include "vmm/state.h"

#define SEL_CODE 0x10
#define SEL_DATA 0x18
#define SEL_TSS  0x20

void flat_gdt(uint64_t gdt[FLAT_GDT_WORDS], bool code64)
{
	gdt[0] = gdt[1] = 0;
	gdt[2] =
	    code64 ? UINT64_C(0x00af9b000000ffff) : UINT64_C(0x00cf9b000000ffff);
	gdt[3] = UINT64_C(0x00cf93000000ffff);
	gdt[4] = UINT64_C(0x00008b0000000067) | FLAT_TSS << 16;
	gdt[5] = 0; /* a 64-bit TSS descriptor has two entries */
}

static void set_segment(struct vcpu_state *s, unsigned seg, uint16_t sel,
    uint64_t base, uint32_t limit, uint32_t access)
{
	s->seg[seg] = (struct vcpu_seg){
		.sel = sel, .base = base, .limit = limit, .access = access
	};
}

void flat_state(struct vcpu_state *s, bool code64)
{
	static const unsigned data[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS };

	vcpu_state_reset(s, 0);
	memset(s->gpr, 0, sizeof(s->gpr));
	s->rflags = 2;
	set_segment(s, SEG_CS, SEL_CODE, 0, UINT32_MAX, code64 ? 0xa09b : 0xc09b);
	for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
		set_segment(s, data[i], SEL_DATA, 0, UINT32_MAX, 0xc093);
	set_segment(s, SEG_TR, SEL_TSS, FLAT_TSS, 0x67, 0x8b);
	set_segment(s, SEG_LDTR, 0, 0, 0, SEG_ACCESS_UNUSABLE);
	s->gdtr = (struct vcpu_table){ .base = FLAT_GDT,
		.limit = FLAT_GDT_WORDS * 8 - 1 };
	s->idtr = (struct vcpu_table){ .limit = 0 };
	s->cr0 = 0x31; /* NE ET PE */
	s->cr3 = 0;
	s->cr4 = 0;
	s->efer = 0;
}
