/*
 * BT, BTS, BTR, BTC of a bit string in memory: the register names a bit anywhere, the
 * access is to the operand-sized word that holds it (SDM vol. 2, BT). That word is
 * checked, and the host's own instruction finds it again from the same base.
 */
#include <Zydis/Mnemonic.h>

#include "cpu/soft/jit/tr.h"

static uint8_t opcode(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_BT:
		return 0xa3;
	case ZYDIS_MNEMONIC_BTS:
		return 0xab;
	case ZYDIS_MNEMONIC_BTR:
		return 0xb3;
	case ZYDIS_MNEMONIC_BTC:
		return 0xbb;
	default:
		return 0;
	}
}

bool tr_is_bit_string(const struct insn *in)
{
	return opcode(in) && in->op[0].kind == OPND_MEM && in->op[1].kind == OPND_GPR;
}

int64_t tr_bit_offset(const struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t bit = cpu->gpr[in->op[1].reg];
	int64_t n = in->op[1].size == 8 ? (int64_t)bit :
	    in->op[1].size == 4 ? (int32_t)bit : (int16_t)bit;

	return (n >> 3) & -(int64_t)in->op[1].size;
}

static bool simple(const struct tr *c, const struct address *a)
{
	const struct insn *in = c->in;

	if (in->opsize == 2 || in->opsize != in->op[1].size || spilled(in->op[1].reg))
		return false;
	if (in->flags & INSN_LOCK && in->mnemonic == ZYDIS_MNEMONIC_BT)
		return false;
	return a->constant || (a->seg == SEG_DS && a->addrsize == 8 &&
	    a->base != REG_NONE && !spilled(a->base) && a->index == REG_NONE);
}

bool tr_bit_string(struct tr *c)
{
	const struct insn *in = c->in;
	char kind = in->mnemonic == ZYDIS_MNEMONIC_BT ? 'r' : 'w';
	struct emit *e = &c->j->hot;
	struct address a;
	struct emem m;
	unsigned rex;
	int bit;

	/* They leave ZF alone. */
	if (c->word != 8 || c->live || !address_of(c, &a) || !simple(c, &a))
		return false;
	bit = host_reg(in->op[1].reg);
	emit_r(e, 1, in->opsize == 8 ? 0x8b : 0x63, H_T0, bit);	/* mov, movsxd */
	emit_r(e, 1, 0xc1, 7, H_T0), emit8(e, 3);		/* sar */
	emit_r(e, 1, 0x83, 4, H_T0), emit8(e, -in->opsize);	/* and */
	if (a.constant) {
		emit_const(e, H_T1, a.disp);
		emit_lea(e, H_T0, emem_sum(H_T0, H_T1, 0));
	} else {
		emit_lea(e, H_T0, emem_sum(host_reg(a.base), H_T0, (int32_t)a.disp));
	}
	mem_check_t0(c, in->opsize, kind, &m);
	if (a.constant)
		emit_const(e, H_T0, a.disp);
	else
		m = emem_sum(host_reg(a.base), H_T1, (int32_t)a.disp);
	if (in->flags & INSN_LOCK)
		emit8(e, 0xf0);
	rex = emem_rex(bit, &m) | (in->opsize == 8 ? 8 : 0);
	if (rex)
		emit8(e, 0x40 | rex);
	emit8(e, 0x0f), emit8(e, opcode(in));
	emit_modrm(e, bit, &m, 0);
	return true;
}
