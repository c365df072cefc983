/*
 * Instructions of 32-bit code whose encoding 64-bit code uses for something else, but
 * which it has in another form (SDM vol. 2 2.2.1.2, 2.2.1.4): INC and DEC of one byte,
 * MOV between the accumulator and an absolute address. What it has not at all (PUSHA,
 * DAA, BOUND ...) stays with the interpreter.
 */
#include "cpu/soft/jit/tr.h"

/* 40h-4Fh, REX prefixes there. */
static bool inc_dec(struct tr *c, unsigned opcode)
{
	struct emit *e = &c->j->hot;

	if (c->in->opsize == 2)
		emit8(e, 0x66);
	emit_r(e, 0, 0xff, opcode >> 3 & 1, host_reg(opcode & 7));
	return true;
}

/* A0h-A3h, addresses of 64 bits there. */
static bool moffs(struct tr *c, unsigned opcode)
{
	bool write = opcode & 2;
	unsigned size = opcode & 1 ? c->in->opsize : 1;
	struct address a;
	struct emem m;

	if (!address_of(c, &a))
		return false;
	mem_check(c, &a, size, write ? 'w' : 'r', &m);
	if (size == 2)
		emit8(&c->j->hot, 0x66);
	emit_m(&c->j->hot, 0, (write ? 0x88 : 0x8a) | (opcode & 1), H_RAX, m, 0);
	return true;
}

bool tr_compat(struct tr *c)
{
	const ZydisDecodedInstruction *zi = &c->z[c->i].zi;

	if (!c->z[c->i].ok || zi->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT ||
	    zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	if (zi->opcode >= 0x40 && zi->opcode <= 0x4f)
		return inc_dec(c, zi->opcode);
	if (zi->opcode >= 0xa0 && zi->opcode <= 0xa3)
		return moffs(c, zi->opcode);
	return false;
}
