/*
 * Transmission of the 82545EM (3.3 - 3.5): legacy, context and data descriptors,
 * checksums, TCP segmentation, VLAN tags.
 *
 * A frame is gathered in a buffer of ours, so that what is checked is what is sent. A
 * frame that is too long, or whose descriptors make no sense, is dropped as a whole;
 * the ring goes on.
 */
#include <string.h>

#include "bhyve/net/e1000.h"
#include "lib/event.h"
#include "vmm/machine.h"

/* Commands and status, in their bytes. */
#define C_EOP      0x01u
#define C_IC       0x04u /* legacy: insert a checksum */
#define C_TSE      0x04u
#define C_RS       0x08u
#define C_DEXT     0x20u
#define C_VLE      0x40u
#define TUCMD_TCP  0x01u
#define TUCMD_IP   0x02u /* IPv4 */
#define STATUS_DD  0x01u
#define OPT_IP     0x01u
#define OPT_TCP    0x02u

#define TCTL_EN    BIT(1)
#define DESCS      512 /* at one go */
#define TX_BYTES   (256 * KiB)
#define FRAME_COST 512 /* of a system call, in bytes */
#define TCP_MIN    20u
#define UDP_MIN    8u
#define TCP_FIN    0x01u
#define TCP_PSH    0x08u

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static uint8_t *frame(struct e1000 *e)
{
	return e->tx + NET_HDR_LEN;
}

/* Sums start..end (0: the frame's end) of a frame into the field at off. */
static void insert_sum(uint8_t *f, uint32_t len, uint32_t start, uint32_t end,
    uint32_t off, uint32_t extra)
{
	uint16_t sum;

	if (end == 0 || end >= len)
		end = len - 1;
	if (start > end || off + 2 > len)
		return;
	sum = net_sum_finish(net_sum(f + start, end + 1 - start, extra));
	memcpy(f + off, &sum, 2);
}

/* One frame onto the wire, with a VLAN tag when tag is not NULL. */
static void emit(struct e1000 *e, uint8_t *f, uint32_t len, const uint16_t *tag)
{
	uint8_t tagged[16];
	struct net_hdr hdr = { 0 };
	struct iovec iov[3] = { { &hdr, NET_HDR_LEN }, { f, len } };
	int n = 2;

	if (len < NET_FRAME_MIN)
		return;
	e->tx_cost += len + FRAME_COST;
	if (tag != NULL) {
		memcpy(tagged, f, 12);
		put16(tagged + 12, *e1000_reg(e, R_VET) & 0xffff);
		put16(tagged + 14, *tag);
		iov[1] = (struct iovec){ tagged, 16 };
		iov[2] = (struct iovec){ f + 12, len - 12 };
		n = 3;
	}
	e1000_count(e, R_GPTC, 1);
	e1000_count(e, R_TPT, 1);
	e1000_count64(e, R_GOTCL, len + 4);
	e1000_count64(e, R_TOTL, len + 4);
	if ((f[0] & 1) != 0)
		e1000_count(e, f[0] == 0xff ? R_BPTC : R_MPTC, 1);
	net_send(e->net, iov, n);
}

/* What of a segment's headers depends on its place (3.5.7). */
static void fix_headers(struct e1000 *e, uint8_t *f, uint32_t len, unsigned index,
    uint32_t done, bool last)
{
	const struct e1000_context *c = &e->context;
	uint8_t *ip = f + c->ipcss, *tu = f + c->tucss;
	uint32_t tu_len = len - c->tucss;

	if ((c->cmd & TUCMD_IP) != 0) {
		put16(ip + 2, len - c->ipcss);
		put16(ip + 4, get16(ip + 4) + index);
		insert_sum(f, len, c->ipcss, c->ipcse, c->ipcso, 0);
	} else {
		put16(ip + 4, tu_len);
	}
	if ((c->cmd & TUCMD_TCP) != 0) {
		put32(tu + 4, get32(tu + 4) + done);
		if (!last)
			tu[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
	} else {
		put16(tu + 4, tu_len);
	}
	/* The driver's pseudo-header has no length in it. */
	if ((e->tx_options & OPT_TCP) != 0)
		insert_sum(f, len, c->tucss, c->tucse, c->tucso,
		    (uint32_t)__builtin_bswap16((uint16_t)tu_len));
}

/* Cuts the frame into segments. */
static void segment(struct e1000 *e, const uint16_t *tag)
{
	const struct e1000_context *c = &e->context;
	uint32_t hdr = c->hdrlen, left = e->tx_len - hdr, done = 0;
	uint32_t tu_min = (c->cmd & TUCMD_TCP) != 0 ? TCP_MIN : UDP_MIN;

	if (c->mss == 0 || e->tx_len <= hdr || hdr < NET_FRAME_MIN ||
	    c->ipcss + 20u > hdr || c->tucss + tu_min > hdr ||
	    c->tucso + 2u > hdr || c->ipcso + 2u > hdr)
		return;
	for (unsigned i = 0; left > 0; i++) {
		uint32_t n = MIN(left, (uint32_t)c->mss);

		memcpy(e->segment, frame(e), hdr);
		memcpy(e->segment + hdr, frame(e) + hdr + done, n);
		fix_headers(e, e->segment, hdr + n, i, done, n == left);
		emit(e, e->segment, hdr + n, tag);
		done += n;
		left -= n;
	}
	e1000_count(e, R_TSCTC, 1);
}

/* The gathered frame is whole; d is its last descriptor. */
static void finish(struct e1000 *e, const struct e1000_desc *d)
{
	const struct e1000_context *c = &e->context;
	uint8_t cmd = (uint8_t)(d->w2 >> 24);
	uint16_t vlan = (uint16_t)(d->w3 >> 16);
	const uint16_t *tag = (cmd & C_VLE) != 0 ? &vlan : NULL;
	uint8_t *f = frame(e);

	if ((cmd & C_DEXT) == 0) {
		/* css is in the status word, cso above the length. */
		if ((cmd & C_IC) != 0)
			insert_sum(f, e->tx_len, d->w3 >> 8 & 0xff, 0,
			    d->w2 >> 16 & 0xff, 0);
	} else if ((cmd & C_TSE) != 0) {
		segment(e, tag);
		return;
	} else {
		if ((e->tx_options & OPT_IP) != 0)
			insert_sum(
			    f, e->tx_len, c->ipcss, c->ipcse, c->ipcso, 0);
		if ((e->tx_options & OPT_TCP) != 0)
			insert_sum(
			    f, e->tx_len, c->tucss, c->tucse, c->tucso, 0);
	}
	emit(e, f, e->tx_len, tag);
}

static void set_context(struct e1000 *e, const struct e1000_desc *d)
{
	e->context = (struct e1000_context){
		.ipcss = (uint8_t)d->addr,
		.ipcso = (uint8_t)(d->addr >> 8),
		.ipcse = (uint16_t)(d->addr >> 16),
		.tucss = (uint8_t)(d->addr >> 32),
		.tucso = (uint8_t)(d->addr >> 40),
		.tucse = (uint16_t)(d->addr >> 48),
		.cmd = (uint8_t)(d->w2 >> 24),
		.hdrlen = (uint8_t)(d->w3 >> 8),
		.mss = (uint16_t)(d->w3 >> 16),
	};
}

/* Adds a descriptor's data to the frame. */
static void gather(struct e1000 *e, const struct e1000_desc *d, uint32_t len)
{
	const void *p;

	if (e->tx_skip || len == 0)
		return;
	p = len > E1000_TX_MAX - e->tx_len ? NULL : pci_dma(e->pci, d->addr, len);
	if (p == NULL) {
		e->tx_skip = true;
		return;
	}
	memcpy(frame(e) + e->tx_len, p, len);
	e->tx_len += len;
}

void e1000_tx_reset(struct e1000 *e)
{
	e->tx_len = 0;
	e->tx_skip = e->tx_begun = false;
	e->tx_options = 0;
}

/* One descriptor. */
static void process(struct e1000 *e, const struct e1000_desc *d)
{
	uint8_t cmd = (uint8_t)(d->w2 >> 24);
	bool extended = (cmd & C_DEXT) != 0;

	if (extended && (d->w2 >> 20 & 15) == 0) {
		set_context(e, d);
		return;
	}
	/* The options of a frame are those of its first descriptor. */
	if (!e->tx_begun)
		e->tx_options = extended ? (uint8_t)(d->w3 >> 8) : 0;
	e->tx_begun = true;
	gather(e, d, extended ? d->w2 & 0xfffff : d->w2 & 0xffff);
	if ((cmd & C_EOP) == 0)
		return;
	if (!e->tx_skip)
		finish(e, d);
	e1000_tx_reset(e);
}

/* Works on the ring within limits. True: there is more. */
static bool run(struct e1000 *e, unsigned descs, uint64_t bytes)
{
	uint32_t size = e1000_ring_size(e, R_TDBAL), causes = 0;
	uint32_t *tdh = e1000_reg(e, R_TDH), tdt = *e1000_reg(e, R_TDT);

	e->tx_cost = 0;
	if ((*e1000_reg(e, R_TCTL) & TCTL_EN) == 0 || tdt >= size || *tdh >= size)
		return false;
	while (*tdh != tdt && descs-- > 0 && e->tx_cost < bytes) {
		uint64_t gpa = e1000_desc_gpa(e, R_TDBAL, *tdh);
		uint8_t *p = pci_dma(e->pci, gpa, DESC_LEN);
		struct e1000_desc d;

		if (p == NULL) {
			/* Nowhere: the transmitter hangs until the ring is set. */
			tdt = *tdh;
			break;
		}
		memcpy(&d, p, sizeof(d));
		process(e, &d);
		if ((d.w2 >> 24 & C_RS) != 0) {
			__atomic_store_n(p + 12, (uint8_t)(d.w3 | STATUS_DD),
			    __ATOMIC_RELEASE);
			pci_dma_written(e->pci, gpa, DESC_LEN);
			causes |= I_TXDW;
		}
		*tdh = *tdh + 1 == size ? 0 : *tdh + 1;
	}
	net_flush(e->net);
	if (*tdh == tdt)
		causes |= I_TXQE;
	if (causes != 0)
		e1000_interrupt(e, causes);
	return *tdh != tdt;
}

static void posted(void *arg);

static void post(struct e1000 *e)
{
	if (!e->tx_posted && event_post(e->pci->m->loop, posted, e) == 0)
		e->tx_posted = true;
}

static void posted(void *arg)
{
	struct e1000 *e = arg;

	e->tx_posted = false;
	if (run(e, DESCS, TX_BYTES))
		post(e);
}

void e1000_tx_kick(struct e1000 *e)
{
	/* A short frame of a quiet ring does not wait for the event loop. */
	if (!e->tx_posted && (!e->net->quick_send || run(e, 4, 1)))
		post(e);
}
