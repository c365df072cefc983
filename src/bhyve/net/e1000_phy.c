/*
 * What the 82545EM reaches over serial lines: its copper PHY (MDIC, 13.4.8; a Marvell
 * 88E1011 with gigabit link whenever the backend's link is up) and the EEPROM
 * (5.6; a microwire part of 64 words), by bits or through the EERD register.
 */
#include <string.h>

#include "bhyve/net/e1000.h"

/* MDIC. */
#define MDIC_WRITE   BIT(26)
#define MDIC_READ    BIT(27)
#define MDIC_READY   BIT(28)
#define MDIC_INT     BIT(29)
#define MDIC_ERROR   BIT(30)
#define PHY_ADDRESS  1

/* PHY registers (IEEE 802.3 clause 22, and Marvell's). */
enum {
	PHY_CTRL = 0,
	PHY_STATUS = 1,
	PHY_ID1 = 2,
	PHY_ID2 = 3,
	PHY_AN_ADVERTISE = 4,
	PHY_AN_PARTNER = 5,
	PHY_AN_EXPANSION = 6,
	PHY_1000T_CTRL = 9,
	PHY_1000T_STATUS = 10,
	PHY_EXT_STATUS = 15,
	PHY_M88_CTRL = 16,
	PHY_M88_STATUS = 17,
	PHY_M88_EXT_CTRL = 20,
};

/* Bits that end by themselves: reset, restart of auto-negotiation. */
#define PHY_CTRL_ONCE   0x8200
#define PHY_LINK        0x0004 /* in PHY_STATUS */
#define PHY_AN_DONE     0x0020
#define PHY_M88_LINK    0xac00 /* 1000 Mb/s, full duplex, resolved, link */

/* EECD and EERD. */
#define EE_CLOCK   0x001u
#define EE_SELECT  0x002u
#define EE_IN      0x004u
#define EE_OUT     0x008u
#define EE_REQUEST 0x040u
#define EE_GRANT   0x080u
#define EE_PRESENT 0x100u
#define EERD_START 0x01u
#define EERD_DONE  0x10u
#define EE_COMMAND 9 /* start bit, two bits of opcode, six of address */
#define EE_READ    6u

void e1000_phy_reset(struct e1000 *e)
{
	memset(e->phy, 0, sizeof(e->phy));
	e->phy[PHY_CTRL] = 0x1140; /* auto-negotiation, full duplex, 1000 Mb/s */
	e->phy[PHY_ID1] = 0x0141;
	e->phy[PHY_ID2] = 0x0c20;
	e->phy[PHY_AN_ADVERTISE] = 0x0de1;
	e->phy[PHY_AN_PARTNER] = 0xc5e1;
	e->phy[PHY_AN_EXPANSION] = 0x0003;
	e->phy[PHY_1000T_CTRL] = 0x0e00;
	e->phy[PHY_1000T_STATUS] = 0x3c00;
	e->phy[PHY_EXT_STATUS] = 0x3000;
	e->phy[PHY_M88_CTRL] = 0x0360;
	e->phy[PHY_M88_EXT_CTRL] = 0x0d60;
}

static uint16_t phy_read(const struct e1000 *e, unsigned at)
{
	bool up = e->net->link_up;

	switch (at) {
	case PHY_STATUS: /* 10, 100 and extended abilities */
		return (uint16_t)(0x7949 | (up ? PHY_LINK | PHY_AN_DONE : 0));
	case PHY_M88_STATUS:
		return up ? PHY_M88_LINK : 0;
	case PHY_1000T_STATUS:
		return up ? e->phy[at] : 0;
	default:
		return e->phy[at];
	}
}

static void phy_write(struct e1000 *e, unsigned at, uint16_t v)
{
	switch (at) {
	case PHY_CTRL:
		if ((v & 0x8000) != 0)
			e1000_phy_reset(e);
		e->phy[at] = (uint16_t)(v & ~PHY_CTRL_ONCE);
		/* Negotiation takes no time here. */
		if ((v & PHY_CTRL_ONCE) != 0)
			e1000_interrupt(e, I_LSC);
		break;
	case PHY_STATUS:
	case PHY_ID1:
	case PHY_ID2:
	case PHY_AN_PARTNER:
	case PHY_AN_EXPANSION:
	case PHY_1000T_STATUS:
	case PHY_EXT_STATUS:
	case PHY_M88_STATUS:
		break;
	default:
		e->phy[at] = v;
		break;
	}
}

void e1000_mdic_write(struct e1000 *e, uint32_t v)
{
	unsigned reg = v >> 16 & 31, phy = v >> 21 & 31;

	v &= ~(MDIC_READY | MDIC_ERROR);
	if (phy != PHY_ADDRESS)
		v |= MDIC_ERROR;
	else if ((v & MDIC_READ) != 0)
		v = (v & 0xffff0000) | phy_read(e, reg);
	else if ((v & MDIC_WRITE) != 0)
		phy_write(e, reg, (uint16_t)v);
	*e1000_reg(e, R_MDIC) = v | MDIC_READY;
	if ((v & MDIC_INT) != 0)
		e1000_interrupt(e, I_MDAC);
}

void e1000_eeprom_init(struct e1000 *e)
{
	uint16_t sum = 0;

	memcpy(e->eeprom, e->mac, 6);
	e->eeprom[0x0a] = 0x4408; /* control word 1 */
	e->eeprom[0x0b] = 0x1008; /* subsystem, its vendor, device, vendor */
	e->eeprom[0x0c] = 0x8086;
	e->eeprom[0x0d] = 0x100f;
	e->eeprom[0x0e] = 0x8086;
	e->eeprom[0x0f] = 0x3040; /* control word 2 */
	for (unsigned i = 0; i < EEPROM_WORDS - 1; i++)
		sum = (uint16_t)(sum + e->eeprom[i]);
	e->eeprom[EEPROM_WORDS - 1] = (uint16_t)(0xbaba - sum);
}

/* A rising edge of the clock: one bit in, one out. */
static void eeprom_clock(struct e1000 *e, bool in)
{
	if (e->ee_bits < EE_COMMAND) {
		/* Zeros before the start bit do not count. */
		if (e->ee_bits == 0 && !in)
			return;
		e->ee_in = e->ee_in << 1 | in;
		if (++e->ee_bits == EE_COMMAND && e->ee_in >> 6 == EE_READ)
			e->ee_out = (uint32_t)e->eeprom[e->ee_in & 63] << 1;
		return;
	}
	e->ee_out <<= 1;
}

void e1000_eecd_write(struct e1000 *e, uint32_t v)
{
	uint32_t *reg = e1000_reg(e, R_EECD), old = *reg;

	*reg = v & (EE_CLOCK | EE_SELECT | EE_IN | EE_REQUEST);
	if ((v & EE_SELECT) == 0) {
		e->ee_bits = 0;
		e->ee_in = e->ee_out = 0;
	} else if ((v & ~old & EE_CLOCK) != 0) {
		eeprom_clock(e, (v & EE_IN) != 0);
	}
}

uint32_t e1000_eecd_read(const struct e1000 *e)
{
	uint32_t v = e->reg[R_EECD / 4] | EE_PRESENT;

	if ((v & EE_REQUEST) != 0)
		v |= EE_GRANT;
	/* Bit 17: the first edge behind the command brings the top bit there. */
	if ((e->ee_out & 0x20000) != 0)
		v |= EE_OUT;
	return v;
}

void e1000_eerd_write(struct e1000 *e, uint32_t v)
{
	unsigned at = v >> 8 & 0xff;
	uint16_t word = at < EEPROM_WORDS ? e->eeprom[at] : 0xffff;

	if ((v & EERD_START) != 0)
		*e1000_reg(e, R_EERD) =
		    (v & 0xff00) | EERD_DONE | (uint32_t)word << 16;
}
