/*
 * IN, OUT, INS, OUTS (SDM vol. 1 chapter 19): rights by IOPL and the TSS's bitmap;
 * the string forms check the memory before the port is touched.
 */
#include "cpu/soft/sys.h"

static void check_port(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
	const struct soft_seg *tr = &cpu->seg[SEG_TR];
	uint32_t at, bits;

	if (!(cpu->cr0 & CR0_PE))
		return;
	if (!cpu_vm86(cpu) && cpu->cpl <= cpu_iopl(cpu))
		return;
	/*
	 * Only a 32- or 64-bit TSS has a bitmap; two of its bytes are always read.
	 */
	if (tr->access & SEG_ACCESS_UNUSABLE || !(tr->access & 8) ||
	    tr->limit < 103)
		cpu_gp(cpu);
	at = mmu_load_sys(cpu, tr->base + 102, 2) + port / 8;
	if (at + 1 > tr->limit)
		cpu_gp(cpu);
	bits = mmu_load_sys(cpu, tr->base + at, 2);
	if (bits >> (port & 7) & ((1u << size) - 1))
		cpu_gp(cpu);
}

static unsigned port_size(const struct insn *in)
{
	return *insn_opcode(in) & 1 ? MIN(in->opsize, 4) : 1;
}

static uint16_t port_number(const struct soft_cpu *cpu, const struct insn *in)
{
	const uint8_t *op = insn_opcode(in);

	return *op & 8 ? cpu->gpr[GPR_RDX] : op[1];
}

void sys_in(struct soft_cpu *cpu, const struct insn *in)
{
	uint16_t port = port_number(cpu, in);
	unsigned size = port_size(in);

	check_port(cpu, port, size);
	cpu->stats.io++;
	gpr_set(cpu, GPR_RAX, size,
	    cpu->host->io_read(cpu->host->arg, cpu->id, port, size));
}

void sys_out(struct soft_cpu *cpu, const struct insn *in)
{
	uint16_t port = port_number(cpu, in);
	unsigned size = port_size(in);

	check_port(cpu, port, size);
	cpu->stats.io++;
	cpu->host->io_write(
	    cpu->host->arg, cpu->id, port, size, gpr_get(cpu, GPR_RAX, size));
}

/* Segment of OUTS's source: the last override, of which 64-bit mode knows two. */
static unsigned outs_segment(const struct soft_cpu *cpu, const struct insn *in)
{
	unsigned seg = SEG_DS;

	for (const uint8_t *p = in->bytes, *end = insn_opcode(in); p < end; p++) {
		switch (*p) {
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
			if (cpu->mode != MODE_64)
				seg = (*p >> 3) & 3;
			break;
		case 0x64:
			seg = SEG_FS;
			break;
		case 0x65:
			seg = SEG_GS;
			break;
		}
	}
	return seg;
}

static void io_string(struct soft_cpu *cpu, const struct insn *in, bool input)
{
	unsigned size = port_size(in), as = in->addrsize;
	unsigned index = input ? GPR_RDI : GPR_RSI;
	unsigned seg = input ? SEG_ES : outs_segment(cpu, in);
	uint16_t port = cpu->gpr[GPR_RDX];
	uint64_t step = cpu->rflags & RF_DF ? -(uint64_t)size : size;
	bool rep = in->flags & (INSN_REP | INSN_REPNE);

	check_port(cpu, port, size);
	while (!rep || gpr_get(cpu, GPR_RCX, as) != 0) {
		uint64_t lin =
		    seg_linear(cpu, seg, gpr_get(cpu, index, as), as, size, input);

		cpu->stats.io++;
		if (input) {
			mmu_probe_write(cpu, lin, size);
			mmu_store(cpu, lin, size,
			    cpu->host->io_read(
				cpu->host->arg, cpu->id, port, size));
		} else {
			uint64_t v = mmu_load(cpu, lin, size);

			cpu->host->io_write(cpu->host->arg, cpu->id, port, size, v);
		}
		gpr_set(cpu, index, as, cpu->gpr[index] + step);
		if (!rep)
			return;
		gpr_set(cpu, GPR_RCX, as, cpu->gpr[GPR_RCX] - 1);
		/*
		 * Interruptible between elements: come back to the same
		 * instruction.
		 */
		if (gpr_get(cpu, GPR_RCX, as) != 0 &&
		    (cpu->rflags & RF_TF || cpu->pending_db || cpu->watch_hit ||
			atomic_load_explicit(
			    &cpu->link.events, memory_order_relaxed))) {
			cpu->next_rip = cpu->rip;
			cpu->stop_block = true;
			return;
		}
	}
}

void sys_ins(struct soft_cpu *cpu, const struct insn *in)
{
	io_string(cpu, in, true);
}

void sys_outs(struct soft_cpu *cpu, const struct insn *in)
{
	io_string(cpu, in, false);
}
