/*
 * The registers of an AHCI port (AHCI 1.3.1 ch. 3.3) and its resets.
 */
#include <stdlib.h>
#include <string.h>

#include "bhyve/storage/ahci.h"

enum {
	P_CLB = 0x00, P_CLBU = 0x04, P_FB = 0x08, P_FBU = 0x0c, P_IS = 0x10,
	P_IE = 0x14, P_CMD = 0x18, P_TFD = 0x20, P_SIG = 0x24, P_SSTS = 0x28,
	P_SCTL = 0x2c, P_SERR = 0x30, P_SACT = 0x34, P_CI = 0x38,
};

#define CMD_ST    BIT(0)
#define CMD_SUD   BIT(1)
#define CMD_POD   BIT(2)
#define CMD_CLO   BIT(3)
#define CMD_FRE   BIT(4)
#define CMD_CCS   (31u << 8)
#define CMD_FR    BIT(14)
#define CMD_CR    BIT(15)
#define CMD_ATAPI BIT(24)
#define CMD_WRITE                                                                  \
	(CMD_ST | CMD_SUD | CMD_POD | CMD_FRE | CMD_ATAPI | BIT(25) | BIT(26) |    \
	    BIT(27))
#define IE_ALL	  0xfdc000ffu
#define SSTS_UP	  0x133 /* device present, Gen 3, active */
#define SIG_DISK  0x00000101u
#define SIG_CD	  0xeb140101u

void ahci_port_stop(struct ahci_port *p)
{
	/* What is in flight ends here; its answers go nowhere. */
	p->stopping = true;
	if (p->disk != NULL && p->inflight > 0)
		disk_drain(p->disk);
	p->stopping = false;
	p->failed = false;
	p->ci = p->sact = 0;
	p->cmd &= ~(CMD_ST | CMD_CR | CMD_CCS);
}

/* Link and device as after COMRESET. */
static void link_up(struct ahci_port *p)
{
	p->serr = p->sact = 0;
	p->soft_reset = false;
	if (p->kind == AHCI_NONE) {
		p->ssts = 0;
		p->sig = 0xffffffff;
		p->tfd = 0x7f;
		return;
	}
	ahci_ata_reset(p);
	p->ssts = SSTS_UP;
	p->sig = p->kind == AHCI_CD ? SIG_CD : SIG_DISK;
	p->tfd = 1u << 8 | (p->kind == AHCI_CD ? ATA_DSC : ATA_READY | ATA_DSC);
	ahci_signature(p);
}

void ahci_port_reset(struct ahci_port *p)
{
	ahci_port_stop(p);
	p->clb = p->fb = 0;
	p->is = p->ie = 0;
	p->fire = false;
	p->cmd = CMD_SUD | CMD_POD;
	p->sctl = 0;
	link_up(p);
}

void ahci_port_init(struct ahci_port *p)
{
	for (unsigned i = 0; i < AHCI_SLOTS; i++) {
		p->cmds[i].port = p;
		p->cmds[i].slot = i;
	}
	ahci_ncq_log_clear(p);
	ahci_port_reset(p);
}

void ahci_port_free(struct ahci_port *p)
{
	p->stopping = true;
	disk_close(p->disk);
	p->disk = NULL;
	for (unsigned i = 0; i < AHCI_SLOTS; i++) {
		free(p->cmds[i].iov);
		free(p->cmds[i].gpa);
		free(p->cmds[i].trim);
	}
}

uint32_t ahci_port_read(struct ahci_port *p, unsigned off)
{
	switch (off) {
	case P_CLB:
		return (uint32_t)p->clb;
	case P_CLBU:
		return (uint32_t)(p->clb >> 32);
	case P_FB:
		return (uint32_t)p->fb;
	case P_FBU:
		return (uint32_t)(p->fb >> 32);
	case P_IS:
		return p->is;
	case P_IE:
		return p->ie;
	case P_CMD:
		return p->cmd;
	case P_TFD:
		return p->tfd;
	case P_SIG:
		return p->sig;
	case P_SSTS:
		return p->ssts;
	case P_SCTL:
		return p->sctl;
	case P_SERR:
		return p->serr;
	case P_SACT:
		return p->sact;
	case P_CI:
		return p->ci;
	default:
		return 0;
	}
}

static void write_cmd(struct ahci_port *p, uint32_t v)
{
	bool was = (p->cmd & CMD_ST) != 0, is = (v & CMD_ST) != 0;

	if (was && !is)
		ahci_port_stop(p);
	if ((v & CMD_CLO) != 0 && !is)
		p->tfd &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
	/* The interface's power state is reached at once, so ICC reads as idle. */
	p->cmd = (p->cmd & ~CMD_WRITE) | (v & CMD_WRITE);
	p->cmd = (p->cmd & ~CMD_FR) | ((v & CMD_FRE) != 0 ? CMD_FR : 0);
	if (is)
		p->cmd |= CMD_CR;
}

static void write_sctl(struct ahci_port *p, uint32_t v)
{
	bool was_reset = (p->sctl & 0xf) == 1;

	p->sctl = v & 0xfff;
	if ((p->sctl & 0xf) == 1) {
		if (was_reset)
			return;
		ahci_port_stop(p);
		if (p->kind != AHCI_NONE) {
			p->ssts = 1;
			p->tfd = 0x7f;
		}
	} else if (was_reset) {
		link_up(p);
	} else if ((p->sctl & 0xf) == 4) {
		ahci_port_stop(p);
		p->ssts = 4;
	} else if (p->ssts == 4) {
		link_up(p);
	}
}

static void set_low(uint64_t *reg, uint32_t v)
{
	*reg = (*reg & ~UINT64_C(0xffffffff)) | v;
}

static void set_high(uint64_t *reg, uint32_t v)
{
	*reg = (*reg & 0xffffffff) | (uint64_t)v << 32;
}

void ahci_port_write(struct ahci_port *p, unsigned off, uint32_t v)
{
	switch (off) {
	case P_CLB:
		set_low(&p->clb, v & ~0x3ffu);
		break;
	case P_CLBU:
		set_high(&p->clb, v);
		break;
	case P_FB:
		set_low(&p->fb, v & ~0xffu);
		break;
	case P_FBU:
		set_high(&p->fb, v);
		break;
	case P_IS:
		p->is &= ~v;
		break;
	case P_IE:
		p->ie = v & IE_ALL;
		if ((p->is & p->ie) != 0)
			p->fire = true;
		break;
	case P_CMD:
		write_cmd(p, v);
		break;
	case P_SCTL:
		write_sctl(p, v);
		break;
	case P_SERR:
		p->serr &= ~v;
		break;
	case P_SACT:
		if ((p->cmd & CMD_ST) != 0)
			p->sact |= v;
		break;
	case P_CI:
		if ((p->cmd & CMD_ST) != 0 && p->kind != AHCI_NONE &&
		    p->ssts == SSTS_UP)
			p->ci |= v;
		ahci_run(p);
		break;
	default:
		break;
	}
}
