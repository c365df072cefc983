/*
 * Reception of the 82545EM (3.2): which frames are taken, into how many descriptors
 * they go, what is said of their checksums.
 *
 * While there are no descriptors the backend is not listened to; its queue is bounded
 * and drops. A frame for which there are too few is dropped here.
 */
#include <string.h>

#include "bhyve/net/e1000.h"

#define RCTL_EN    BIT(1)
#define RCTL_UPE   BIT(3)
#define RCTL_MPE   BIT(4)
#define RCTL_LPE   BIT(5)
#define RCTL_BAM   BIT(15)
#define RCTL_VFE   BIT(18)
#define RCTL_BSEX  BIT(25)
#define RCTL_SECRC BIT(26)
#define RAH_AV     BIT(31)
#define CSUM_IP    BIT(8)
#define CSUM_TCP   BIT(9)

#define S_DD       0x01u
#define S_EOP      0x02u
#define S_IXSM     0x04u
#define S_VP       0x08u
#define S_TCPCS    0x20u
#define S_IPCS     0x40u
#define E_TCP      0x20u
#define E_IP       0x40u
#define E_DATA     0x80u

#define CRC_LEN    4u
#define MIN_LEN    60u
#define SHORT_MAX  (1522u - CRC_LEN)
#define LONG_MAX   (16384u - CRC_LEN)
#define FRAMES     64 /* at one go */

static bool exact(struct e1000 *e, const uint8_t *mac)
{
	for (unsigned i = 0; i < 16; i++) {
		uint32_t low = *e1000_reg(e, R_RAL + i * 8);
		uint32_t high = *e1000_reg(e, R_RAL + i * 8 + 4);

		if ((high & RAH_AV) != 0 && memcmp(&low, mac, 4) == 0 &&
		    (high & 0xffff) == ((uint32_t)mac[4] | (uint32_t)mac[5] << 8))
			return true;
	}
	return false;
}

/* The multicast table, indexed by twelve bits of the address (13.5.1). */
static bool hashed(struct e1000 *e, const uint8_t *mac)
{
	static const uint8_t shift[4] = { 4, 3, 2, 0 };
	uint32_t bits = (uint32_t)mac[4] | (uint32_t)mac[5] << 8;
	unsigned i =
	    bits >> shift[*e1000_reg(e, R_RCTL) >> 12 & 3] & 0xfff;

	return (*e1000_reg(e, R_MTA + i / 32 * 4) >> (i % 32) & 1) != 0;
}

static bool wanted(struct e1000 *e, const uint8_t *f, uint32_t len)
{
	static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };
	uint32_t rctl = *e1000_reg(e, R_RCTL);
	bool good;

	if (len > ((rctl & RCTL_LPE) != 0 ? LONG_MAX : SHORT_MAX))
		return false;
	if (memcmp(f, broadcast, 6) == 0 && (rctl & RCTL_BAM) != 0)
		good = true;
	else if ((f[0] & 1) != 0)
		good = (rctl & RCTL_MPE) != 0 || hashed(e, f) || exact(e, f);
	else
		good = (rctl & RCTL_UPE) != 0 || exact(e, f);
	if (good && (rctl & RCTL_VFE) != 0 &&
	    (uint32_t)(f[12] << 8 | f[13]) == (*e1000_reg(e, R_VET) & 0xffff)) {
		unsigned vid = (f[14] << 8 | f[15]) & 0xfff;

		good =
		    (*e1000_reg(e, R_VFTA + vid / 32 * 4) >> (vid % 32) & 1) != 0;
	}
	return good;
}

/* Status and errors of the checksums of IPv4 and of TCP or UDP in it. */
static uint16_t checksums(struct e1000 *e, const uint8_t *f, uint32_t len)
{
	uint32_t want = *e1000_reg(e, R_RXCSUM), head, total;
	const uint8_t *ip = f + NET_FRAME_MIN;
	uint16_t status = 0, errors = 0;
	uint64_t sum;

	if (len < NET_FRAME_MIN + 20 || f[12] != 0x08 || f[13] != 0x00 ||
	    ip[0] >> 4 != 4)
		return S_IXSM;
	head = (ip[0] & 15u) * 4;
	total = (uint32_t)(ip[2] << 8 | ip[3]);
	if (head < 20 || total < head || total > len - NET_FRAME_MIN)
		return S_IXSM;
	if ((want & CSUM_IP) != 0) {
		status |= S_IPCS;
		if (net_sum_finish(net_sum(ip, head, 0)) != 0)
			errors |= E_IP;
	}
	/* Not of fragments, and not when the sender made none (UDP). */
	if ((want & CSUM_TCP) != 0 && ((ip[6] & 0x3f) | ip[7]) == 0 &&
	    ((ip[9] == 6 && total - head >= 20) ||
		(ip[9] == 17 && total - head >= 8 &&
		    (ip[head + 6] | ip[head + 7]) != 0))) {
		uint8_t pseudo[4] = { 0, ip[9], (uint8_t)((total - head) >> 8),
			(uint8_t)(total - head) };

		sum = net_sum(pseudo, 4, net_sum(ip + 12, 8, 0));
		status |= S_TCPCS;
		if (net_sum_finish(net_sum(ip + head, total - head, sum)) != 0)
			errors |= E_TCP;
	}
	return status != 0 ? (uint16_t)(status | errors << 8) : S_IXSM;
}

static uint32_t buffer_size(struct e1000 *e)
{
	uint32_t rctl = *e1000_reg(e, R_RCTL), code = rctl >> 16 & 3;

	if ((rctl & RCTL_BSEX) != 0)
		return code == 0 ? 2048 : 32768u >> code;
	return 2048u >> code;
}

/* Descriptors the driver has given us. */
static uint32_t available(struct e1000 *e)
{
	uint32_t size = e1000_ring_size(e, R_RDBAL);
	uint32_t head = *e1000_reg(e, R_RDH), tail = *e1000_reg(e, R_RDT);

	if (head >= size || tail >= size)
		return 0;
	return tail >= head ? tail - head : tail + size - head;
}

/* Fills the next descriptor. False: it is not in memory. */
static bool fill(struct e1000 *e, const uint8_t *data, uint32_t len, uint16_t status,
    uint16_t special)
{
	uint32_t *rdh = e1000_reg(e, R_RDH), size = e1000_ring_size(e, R_RDBAL);
	uint64_t gpa = e1000_desc_gpa(e, R_RDBAL, *rdh), addr;
	uint8_t *p = pci_dma(e->pci, gpa, DESC_LEN), *to;
	uint16_t words[3] = { (uint16_t)len, 0, special };

	if (p == NULL)
		return false;
	memcpy(&addr, p, 8);
	to = pci_dma(e->pci, addr, len);
	if (to != NULL) {
		memcpy(to, data, len);
		pci_dma_written(e->pci, addr, len);
	} else {
		status |= E_DATA << 8;
	}
	memcpy(p + 8, words, 4);
	memcpy(p + 14, words + 2, 2);
	/* The driver looks at the status: it comes last. */
	__atomic_store_n(
	    (uint16_t *)(void *)(p + 12), status, __ATOMIC_RELEASE);
	pci_dma_written(e->pci, gpa, DESC_LEN);
	*rdh = *rdh + 1 == size ? 0 : *rdh + 1;
	return true;
}

static void count_frame(struct e1000 *e, const uint8_t *f, uint32_t len)
{
	e1000_count(e, R_GPRC, 1);
	e1000_count64(e, R_GORCL, len + CRC_LEN);
	if ((f[0] & 1) != 0)
		e1000_count(e, f[0] == 0xff ? R_BPRC : R_MPRC, 1);
}

/* Puts a frame into the ring; the causes of interrupt. */
static uint32_t deliver(struct e1000 *e, uint8_t *f, uint32_t len)
{
	uint32_t size = buffer_size(e), left, n;
	uint16_t status = S_DD | checksums(e, f, len), special = 0;

	if ((*e1000_reg(e, R_CTRL) & CTRL_VME) != 0 &&
	    (uint32_t)(f[12] << 8 | f[13]) == (*e1000_reg(e, R_VET) & 0xffff)) {
		special = (uint16_t)(f[14] << 8 | f[15]);
		status |= S_VP;
		memmove(f + 4, f, 12);
		f += 4;
		len -= 4;
	}
	if (len < MIN_LEN) {
		memset(f + len, 0, MIN_LEN - len);
		len = MIN_LEN;
	}
	/* Drivers cut the frame check sequence off unseen: zeros do. */
	if ((*e1000_reg(e, R_RCTL) & RCTL_SECRC) == 0) {
		memset(f + len, 0, CRC_LEN);
		len += CRC_LEN;
	}
	if ((len + size - 1) / size > available(e)) {
		e1000_count(e, R_MPC, 1);
		e1000_count(e, R_RNBC, 1);
		return I_RXO;
	}
	count_frame(e, f, len);
	for (left = len; left > 0; f += n, left -= n) {
		n = MIN(left, size);
		if (!fill(e, f, n, status | (n == left ? S_EOP : 0), special))
			return 0;
	}
	return I_RXT0;
}

/* Whether frames are wanted at all now. */
static bool ready(struct e1000 *e)
{
	return (*e1000_reg(e, R_RCTL) & RCTL_EN) != 0 && available(e) > 0 &&
	       pci_bus_master(e->pci);
}

void e1000_rx_kick(struct e1000 *e)
{
	net_listen(e->net, ready(e));
}

void e1000_rx_run(struct e1000 *e)
{
	struct iovec iov[2] = { { e->rx, NET_HDR_LEN },
		/* Room is left for padding and the check sequence. */
		{ e->rx + NET_HDR_LEN, NET_FRAME_MAX - MIN_LEN - CRC_LEN } };
	uint32_t causes = 0, threshold;
	ssize_t got;

	for (unsigned i = 0; i < FRAMES && ready(e); i++) {
		uint8_t *f = e->rx + NET_HDR_LEN;

		got = net_recv(e->net, iov, 2);
		if (got < 0)
			break;
		got -= NET_HDR_LEN;
		if (got < (ssize_t)NET_FRAME_MIN + 2)
			continue;
		e1000_count(e, R_TPR, 1);
		e1000_count64(e, R_TORL, (uint32_t)got + CRC_LEN);
		if (wanted(e, f, (uint32_t)got))
			causes |= deliver(e, f, (uint32_t)got);
	}
	if (!ready(e))
		net_listen(e->net, false);
	threshold = e1000_ring_size(e, R_RDBAL) >>
		    ((*e1000_reg(e, R_RCTL) >> 8 & 3) + 1);
	if (causes != 0 && available(e) <= threshold)
		causes |= I_RXDMT0;
	if (causes != 0)
		e1000_interrupt(e, causes);
}
