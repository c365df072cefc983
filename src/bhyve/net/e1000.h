/*
 * The Intel 82545EM network controller between its files. Numbers of chapters and the
 * names of registers are those of Intel's "PCI/PCI-X Family of Gigabit Ethernet
 * Controllers Software Developer's Manual".
 */
#pragma once

#include "bhyve/net/net.h"
#include "bhyve/pci/pci.h"
#include "lib/util.h"

/* Registers (13.3). */
#define R_CTRL       0x0000u
#define R_STATUS     0x0008u
#define R_EECD       0x0010u
#define R_EERD       0x0014u
#define R_MDIC       0x0020u
#define R_VET        0x0038u
#define R_ICR        0x00c0u
#define R_ITR        0x00c4u
#define R_ICS        0x00c8u
#define R_IMS        0x00d0u
#define R_IMC        0x00d8u
#define R_RCTL       0x0100u
#define R_TCTL       0x0400u
#define R_PBA        0x1000u
#define R_RDBAL      0x2800u
#define R_RDBAH      0x2804u
#define R_RDLEN      0x2808u
#define R_RDH        0x2810u
#define R_RDT        0x2818u
#define R_TDBAL      0x3800u
#define R_TDBAH      0x3804u
#define R_TDLEN      0x3808u
#define R_TDH        0x3810u
#define R_TDT        0x3818u
#define R_STATS      0x4000u /* all read-to-clear */
#define R_MPC        0x4010u
#define R_GPRC       0x4074u
#define R_BPRC       0x4078u
#define R_MPRC       0x407cu
#define R_GPTC       0x4080u
#define R_GORCL      0x4088u
#define R_GOTCL      0x4090u
#define R_RNBC       0x40a0u
#define R_TORL       0x40c0u
#define R_TOTL       0x40c8u
#define R_TPR        0x40d0u
#define R_TPT        0x40d4u
#define R_MPTC       0x40f0u
#define R_BPTC       0x40f4u
#define R_TSCTC      0x40f8u
#define R_STATS_END  0x4100u
#define R_RXCSUM     0x5000u
#define R_MTA        0x5200u
#define R_RAL        0x5400u
#define R_VFTA       0x5600u
#define R_END        0x6000u /* behind it nothing is kept */

#define CTRL_VME     BIT(30)
#define CTRL_RST     BIT(26)

#define I_TXDW       BIT(0)
#define I_TXQE       BIT(1)
#define I_LSC        BIT(2)
#define I_RXDMT0     BIT(4)
#define I_RXO        BIT(6)
#define I_RXT0       BIT(7)
#define I_MDAC       BIT(9)

#define DESC_LEN     16u
#define EEPROM_WORDS 64
/* The longest frame: what a TSO context can describe, or an IP packet. */
#define E1000_TX_MAX NET_FRAME_MAX

struct e1000_desc {
	uint64_t addr;
	uint32_t w2, w3;
};

/* What a TCP/IP context descriptor says (3.3.5). */
struct e1000_context {
	uint8_t ipcss, ipcso, tucss, tucso;
	uint16_t ipcse, tucse, mss;
	uint8_t cmd, hdrlen;
};

struct e1000 {
	struct pci_dev *pci;
	struct net *net;
	struct event *itr_timer;
	uint8_t mac[6];
	uint32_t reg[R_END / 4];
	uint32_t io_addr;
	/* Interrupts. */
	uint32_t icr, ims;
	bool asserted;
	uint64_t quiet_until; /* by the throttling register */
	/* The PHY, and the EEPROM with its serial interface. */
	uint16_t phy[32];
	uint16_t eeprom[EEPROM_WORDS];
	unsigned ee_bits;
	uint32_t ee_in, ee_out;
	/* Transmission; the frame may be gathered over several kicks. */
	bool tx_posted, tx_skip, tx_begun;
	uint8_t tx_options;
	struct e1000_context context;
	uint32_t tx_len;
	uint64_t tx_cost; /* of what was sent at this go */
	uint8_t tx[NET_HDR_LEN + E1000_TX_MAX];
	uint8_t segment[E1000_TX_MAX + 4];
	uint8_t rx[NET_HDR_LEN + NET_FRAME_MAX];
};

static inline uint32_t *e1000_reg(struct e1000 *e, uint32_t at)
{
	return &e->reg[at / 4];
}

/* e1000.c */
void e1000_interrupt(struct e1000 *e, uint32_t causes);
/* Adds to a statistics register, which sticks at its top; 64 bits are two of them. */
void e1000_count(struct e1000 *e, uint32_t at, uint32_t n);
void e1000_count64(struct e1000 *e, uint32_t at, uint32_t n);
/* Ring registers, e.g. R_TDBAL: the address of descriptor i, the number of them. */
uint64_t e1000_desc_gpa(const struct e1000 *e, uint32_t base, uint32_t i);
uint32_t e1000_ring_size(const struct e1000 *e, uint32_t base);

/* e1000_phy.c: what is behind the serial interfaces. */
void e1000_phy_reset(struct e1000 *e);
void e1000_mdic_write(struct e1000 *e, uint32_t v);
void e1000_eeprom_init(struct e1000 *e);
void e1000_eecd_write(struct e1000 *e, uint32_t v);
uint32_t e1000_eecd_read(const struct e1000 *e);
void e1000_eerd_write(struct e1000 *e, uint32_t v);

/* e1000_tx.c */
void e1000_tx_kick(struct e1000 *e);
void e1000_tx_reset(struct e1000 *e);

/* e1000_rx.c */
/* Descriptors or permission may have come. */
void e1000_rx_kick(struct e1000 *e);
void e1000_rx_run(struct e1000 *e);
