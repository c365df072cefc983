/*
 * Results the architecture leaves undefined (SDM vol. 1 appendix A and the
 * instructions' pages in vol. 2). Zydis knows the flags that are undefined always;
 * what depends on a count is here.
 */
#include <Zydis/Zydis.h>

#include "oracle.h"

/*
 * Shift count before masking; -1: not known (a register other instructions wrote).
 */
static int shift_count(const ZydisDecodedInstruction *zi,
    const ZydisDecodedOperand *op, const struct regs *in)
{
	unsigned last = zi->operand_count_visible - 1u;

	if (op[last].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return (uint8_t)op[last].imm.value.u;
	return in != NULL ? (uint8_t)in->gpr[GPR_RCX] : -1;
}

uint64_t undefined_flags(const void *insn, const void *operands,
    const struct regs *in, bool *ignore_dest)
{
	const ZydisDecodedInstruction *zi = insn;
	const ZydisDecodedOperand *op = operands;
	uint64_t u = zi->cpu_flags ? zi->cpu_flags->undefined & RF_STATUS : 0;
	unsigned size = zi->operand_count ? op[0].size : 0;
	int count;

	*ignore_dest = false;
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		break;
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_BLSI:
	case ZYDIS_MNEMONIC_BLSMSK:
	case ZYDIS_MNEMONIC_BLSR:
		return u | RF_AF;
	case ZYDIS_MNEMONIC_ANDN:
	case ZYDIS_MNEMONIC_BZHI:
	case ZYDIS_MNEMONIC_BEXTR:
		return u | RF_AF | RF_PF |
		       (zi->mnemonic == ZYDIS_MNEMONIC_BEXTR ? RF_SF : 0);
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_IMUL:
		return u | RF_SF | RF_ZF | RF_AF | RF_PF;
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		return RF_STATUS;
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
		return RF_STATUS & ~RF_ZF;
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return RF_OF | RF_SF | RF_AF | RF_PF;
	case ZYDIS_MNEMONIC_LZCNT:
	case ZYDIS_MNEMONIC_TZCNT:
		return RF_OF | RF_SF | RF_AF | RF_PF;
	default:
		return u;
	}
	count = shift_count(zi, op, in);
	if (count < 0) {
		*ignore_dest =
		    size == 16 && (zi->mnemonic == ZYDIS_MNEMONIC_SHLD ||
				      zi->mnemonic == ZYDIS_MNEMONIC_SHRD);
		return RF_STATUS;
	}
	count &= size == 64 ? 63 : 31;
	if (count == 0)
		return 0;
	u = count != 1 ? RF_OF : 0;
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		if ((unsigned)count > size) {
			*ignore_dest = true;
			return RF_STATUS;
		}
		return u | RF_AF;
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
		return u | RF_AF | ((unsigned)count >= size ? RF_CF : 0);
	case ZYDIS_MNEMONIC_SAR:
		return u | RF_AF;
	default:
		return u;
	}
}
