/*
 * e1000: the Intel 82545EM gigabit controller as a PCI device: registers, interrupts,
 * statistics. See e1000.h for the manual it follows.
 *
 * What is not modelled reads back what was written: wake-up, flow control, LEDs. Only
 * aligned accesses of 32 bits have a meaning; the flash is not there.
 */
#include "bhyve/net/e1000.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "vmm/machine.h"

#define BAR_REGS        0
#define BAR_FLASH       1
#define BAR_IO          2
#define REGS_LEN        0x20000u
#define FLASH_LEN       0x10000u

#define CTRL_DEFAULT    0x00000a01u /* full duplex, 1000 Mb/s by the PHY */
#define CTRL_PHY_RST    BIT(31)
#define STATUS_LINK     0x02u
#define STATUS_DEFAULT  0x81u /* full duplex, 1000 Mb/s */
#define PBA_DEFAULT     0x00100030u
#define VET_DEFAULT     0x8100u
#define RAH_AV          BIT(31)
#define CAUSES          0x0001ffffu
#define ITR_UNIT        256u /* ns */

static void line(struct e1000 *e)
{
	bool want = (e->icr & e->ims) != 0;
	uint32_t itr = *e1000_reg(e, R_ITR) & 0xffff;
	uint64_t now;

	if (want == e->asserted)
		return;
	if (want && itr != 0) {
		now = event_now_ns();
		if (now < e->quiet_until) {
			event_set_timer(e->itr_timer, e->quiet_until);
			return;
		}
		e->quiet_until = now + itr * ITR_UNIT;
	}
	e->asserted = want;
	pci_intx(e->pci, want);
}

static void throttle_over(void *arg)
{
	line(arg);
}

void e1000_interrupt(struct e1000 *e, uint32_t causes)
{
	e->icr |= causes & CAUSES;
	line(e);
}

void e1000_count(struct e1000 *e, uint32_t at, uint32_t n)
{
	uint32_t *r = e1000_reg(e, at);

	*r = n > UINT32_MAX - *r ? UINT32_MAX : *r + n;
}

void e1000_count64(struct e1000 *e, uint32_t at, uint32_t n)
{
	uint32_t *low = e1000_reg(e, at);

	low[1] += n > UINT32_MAX - low[0];
	low[0] += n;
}

uint64_t e1000_desc_gpa(const struct e1000 *e, uint32_t base, uint32_t i)
{
	return ((uint64_t)e->reg[base / 4 + 1] << 32 | e->reg[base / 4]) +
	       (uint64_t)i * DESC_LEN;
}

uint32_t e1000_ring_size(const struct e1000 *e, uint32_t base)
{
	return e->reg[base / 4 + 2] / DESC_LEN;
}

static void reset(struct e1000 *e)
{
	uint32_t low;

	memset(e->reg, 0, sizeof(e->reg));
	*e1000_reg(e, R_CTRL) = CTRL_DEFAULT;
	*e1000_reg(e, R_PBA) = PBA_DEFAULT;
	*e1000_reg(e, R_VET) = VET_DEFAULT;
	/* As the EEPROM says. */
	memcpy(&low, e->mac, 4);
	*e1000_reg(e, R_RAL) = low;
	*e1000_reg(e, R_RAL + 4) =
	    RAH_AV | (uint32_t)e->mac[4] | (uint32_t)e->mac[5] << 8;
	e->icr = e->ims = 0;
	e->quiet_until = 0;
	event_set_timer(e->itr_timer, 0);
	memset(&e->context, 0, sizeof(e->context));
	e1000_tx_reset(e);
	e1000_phy_reset(e);
	net_listen(e->net, false);
	line(e);
}

static uint32_t read_reg(struct e1000 *e, uint32_t at)
{
	uint32_t v;

	if (at >= R_END)
		return 0;
	v = *e1000_reg(e, at);
	if (at >= R_STATS && at < R_STATS_END) {
		*e1000_reg(e, at) = 0;
		return v;
	}
	switch (at) {
	case R_STATUS:
		return STATUS_DEFAULT | (e->net->link_up ? STATUS_LINK : 0);
	case R_EECD:
		return e1000_eecd_read(e);
	case R_ICR:
		v = e->icr;
		e->icr = 0;
		line(e);
		return v;
	case R_IMS:
		return e->ims;
	case R_ICS:
	case R_IMC:
		return 0;
	default:
		return v;
	}
}

static void write_ctrl(struct e1000 *e, uint32_t v)
{
	if ((v & CTRL_RST) != 0) {
		reset(e);
		return;
	}
	if ((v & CTRL_PHY_RST) != 0)
		e1000_phy_reset(e);
	*e1000_reg(e, R_CTRL) = v & ~CTRL_PHY_RST;
}

static void write_interrupt(struct e1000 *e, uint32_t at, uint32_t v)
{
	v &= CAUSES;
	if (at == R_ICR)
		e->icr &= ~v;
	else if (at == R_ICS)
		e->icr |= v;
	else if (at == R_IMS)
		e->ims |= v;
	else
		e->ims &= ~v;
	line(e);
}

static void write_reg(struct e1000 *e, uint32_t at, uint32_t v)
{
	uint32_t *r;

	if (at >= R_END)
		return;
	r = e1000_reg(e, at);
	switch (at) {
	case R_CTRL:
		write_ctrl(e, v);
		break;
	case R_STATUS:
		break;
	case R_EECD:
		e1000_eecd_write(e, v);
		break;
	case R_EERD:
		e1000_eerd_write(e, v);
		break;
	case R_MDIC:
		e1000_mdic_write(e, v);
		break;
	case R_ICR:
	case R_ICS:
	case R_IMS:
	case R_IMC:
		write_interrupt(e, at, v);
		break;
	case R_RDBAL:
	case R_TDBAL:
		*r = v & ~15u;
		break;
	case R_RDLEN:
	case R_TDLEN:
		*r = v & 0xfff80;
		break;
	case R_RDH:
	case R_TDH:
		*r = v & 0xffff;
		break;
	case R_RCTL:
		*r = v;
		e1000_rx_kick(e);
		break;
	case R_RDT:
		*r = v & 0xffff;
		e1000_rx_kick(e);
		break;
	case R_TCTL:
		*r = v;
		e1000_tx_kick(e);
		break;
	case R_TDT:
		*r = v & 0xffff;
		e1000_tx_kick(e);
		break;
	default:
		if (at < R_STATS || at >= R_STATS_END)
			*r = v;
		break;
	}
}

static uint64_t bar_read(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size)
{
	struct e1000 *e = dev->priv;
	uint64_t v;

	(void)vcpu;
	if (bar == BAR_FLASH || (off & (size - 1)) != 0)
		return ~UINT64_C(0);
	if (bar == BAR_IO)
		return size != 4 ? ~UINT64_C(0)
		       : off == 0 ? e->io_addr
				  : read_reg(e, e->io_addr & (REGS_LEN - 4));
	if (size == 8) {
		v = read_reg(e, (uint32_t)off);
		return v | (uint64_t)read_reg(e, (uint32_t)off + 4) << 32;
	}
	return read_reg(e, (uint32_t)off & ~3u) >> (off & 3) * 8;
}

static void bar_write(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size, uint64_t v)
{
	struct e1000 *e = dev->priv;

	(void)vcpu;
	if (bar == BAR_FLASH || size < 4 || (off & (size - 1)) != 0)
		return;
	if (bar == BAR_IO && off == 0)
		e->io_addr = (uint32_t)v;
	else if (bar == BAR_IO)
		write_reg(e, e->io_addr & (REGS_LEN - 4), (uint32_t)v);
	else
		write_reg(e, (uint32_t)off, (uint32_t)v);
	if (size == 8 && bar == BAR_REGS)
		write_reg(e, (uint32_t)off + 4, (uint32_t)(v >> 32));
}

static void readable(void *arg)
{
	e1000_rx_run(arg);
}

static void link_changed(void *arg, bool up)
{
	(void)up;
	e1000_interrupt(arg, I_LSC);
}

static const struct net_client client = {
	.readable = readable,
	.link = link_changed,
};

static int add_resources(struct pci_dev *dev)
{
	int error;

	pci_identify(dev, 0x8086, 0x100f, 0x02, 0x00, 0x00);
	pci_subsystem(dev, 0x8086, 0x1008);
	error = pci_add_bar(dev, BAR_REGS, PCI_BAR_MEM32, REGS_LEN);
	if (error == 0)
		error = pci_add_bar(dev, BAR_FLASH, PCI_BAR_MEM32, FLASH_LEN);
	if (error == 0)
		error = pci_add_bar(dev, BAR_IO, PCI_BAR_IO, 8);
	if (error == 0)
		error = pci_add_intx(dev);
	if (error != 0)
		log_error(
		    "%s: cannot set up its PCI registers: %d", dev->name, error);
	return error;
}

static int create(struct pci_dev *dev, const char *node)
{
	struct e1000 *e;
	int error;

	if (config_getf(dev->cfg, "%s.mtu", node) != NULL) {
		log_error("%s: mtu= has no effect, because this card cannot tell its "
			  "driver an MTU; leave it out and set it in the guest, or "
			  "use virtio-net",
		    dev->name);
		return -EINVAL;
	}
	e = calloc(1, sizeof(*e));
	if (e == NULL)
		return -ENOMEM;
	dev->priv = e;
	e->pci = dev;
	error = net_mac(dev->cfg, node, dev->s, dev->f, e->mac);
	if (error == 0)
		error = net_open(
		    &e->net, dev->m->loop, dev->cfg, node, dev->name, &client, e);
	if (error == 0)
		error = add_resources(dev);
	if (error == 0) {
		e->itr_timer = event_add_timer(dev->m->loop, throttle_over, e);
		error = e->itr_timer != NULL ? 0 : -ENOMEM;
	}
	if (error != 0) {
		net_close(e->net);
		free(e);
		return error;
	}
	e1000_eeprom_init(e);
	reset(e);
	return 0;
}

static void destroy(struct pci_dev *dev)
{
	struct e1000 *e = dev->priv;

	event_del(e->itr_timer);
	net_close(e->net);
	free(e);
}

static const struct pci_class e1000 = {
	.name = "e1000",
	.help = "tapN|tap,ifname=NAME|slirp[,open][,hostfwd=...][,mac=ADDRESS]",
	.parse = net_parse,
	.create = create,
	.destroy = destroy,
	.bar_read = bar_read,
	.bar_write = bar_write,
};
PCI_CLASS(e1000);
