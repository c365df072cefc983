/*
 * Writing host instructions: what is too long for a header. See emit.h.
 */
#include "cpu/soft/jit/emit.h"

#include <stdbool.h>

void emit_modrm(struct emit *e, int reg, const struct emem *m, unsigned tail)
{
	unsigned r = (reg & 7) << 3;

	if (m->at) {
		emit8(e, r | 5);
		emit32(e, (uint32_t)((const uint8_t *)m->at - (emit_pc(e) + 4 + tail)));
		return;
	}
	if (m->base == H_NONE) { /* [index * scale + disp32] or [disp32] */
		emit8(e, r | 4);
		emit8(e, m->shift << 6 |
		    (m->index == H_NONE ? 4 << 3 : (m->index & 7) << 3) | 5);
		emit32(e, m->disp);
		return;
	}

	bool sib = m->index != H_NONE || (m->base & 7) == 4;
	unsigned mod;

	if (m->disp == 0 && (m->base & 7) != 5)
		mod = 0;
	else if (m->disp == (int8_t)m->disp)
		mod = 0x40;
	else
		mod = 0x80;
	emit8(e, mod | r | (sib ? 4 : m->base & 7));
	if (sib)
		emit8(e, m->shift << 6 |
		    (m->index == H_NONE ? 4 : m->index & 7) << 3 | (m->base & 7));
	if (mod == 0x40)
		emit8(e, (uint8_t)m->disp);
	else if (mod == 0x80)
		emit32(e, m->disp);
}

void emit_const(struct emit *e, int reg, uint64_t v)
{
	e->t1 += reg == H_T1;
	if (v <= UINT32_MAX) {
		if (reg >= 8)
			emit8(e, 0x41);
		emit8(e, 0xb8 | (reg & 7));
		emit32(e, (uint32_t)v);
	} else if ((int64_t)v == (int32_t)v) {
		emit8(e, 0x48 | (reg >> 3 & 1));
		emit8(e, 0xc7);
		emit8(e, 0xc0 | (reg & 7));
		emit32(e, (uint32_t)v);
	} else {
		emit8(e, 0x48 | (reg >> 3 & 1));
		emit8(e, 0xb8 | (reg & 7));
		emit64(e, v);
	}
}
