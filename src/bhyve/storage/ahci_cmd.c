/*
 * AHCI commands: from the command list to the FIS that ends them (AHCI 1.3.1
 * ch. 4 and 5).
 *
 * Order: queued (NCQ) commands run together; any other runs alone. Headers,
 * FISes and scatter lists are read once, when a command starts. A scatter list
 * is followed only as far as its data is needed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/storage/ahci.h"
#include "vmm/machine.h"

#define HEADER_LEN    32
#define TABLE_LEN     0x80
#define PRD_LEN       16
#define PRD_BYTES     0x3fffffu
#define PRD_INTERRUPT BIT(31)
#define MAX_PIECES    16384 /* 32 MiB, the largest transfer, in pages and more */

#define HEADER_ATAPI BIT(5)

#define FIS_D2H      0x34
#define FIS_H2D      0x27
#define FIS_SDB      0xa1
#define FIS_PIO      0x5f
#define FIS_INTR     0x40
#define FIS_COMMAND  0x80
#define RX_PIO       0x20
#define RX_D2H       0x40
#define RX_SDB       0x58
#define CMD_ST       BIT(0)
#define CMD_FRE      BIT(4)

void ahci_raise(struct ahci_port *p, uint32_t bits)
{
	p->is |= bits;
	if ((bits & p->ie) != 0)
		p->fire = true;
}

static void post_fis(
    struct ahci_port *p, unsigned at, const void *fis, unsigned len)
{
	void *area;

	if ((p->cmd & CMD_FRE) == 0)
		return;
	area = pci_dma(p->hba->pci, p->fb + at, len);
	if (area == NULL) {
		ahci_raise(p, IS_HOST_BUS);
		return;
	}
	memcpy(area, fis, len);
	pci_dma_written(p->hba->pci, p->fb + at, len);
}

static void post_d2h(struct ahci_port *p, const struct ahci_cmd *c, uint8_t status,
    uint8_t error, bool interrupt)
{
	uint8_t fis[20] = { FIS_D2H, interrupt ? FIS_INTR : 0, status, error };

	if (c != NULL) {
		memcpy(fis + 4, c->cfis + 4, 7);
		memcpy(fis + 12, c->cfis + 12, 2);
	}
	p->tfd = (uint32_t)error << 8 | status;
	post_fis(p, RX_D2H, fis, sizeof(fis));
	if (interrupt)
		ahci_raise(p, IS_D2H);
}

void ahci_signature(struct ahci_port *p)
{
	uint8_t fis[20] = { FIS_D2H, 0, (uint8_t)p->tfd, 1, 1, 0, 0, 0 };

	fis[12] = 1;
	if (p->kind == AHCI_CD) {
		fis[5] = 0x14;
		fis[6] = 0xeb;
	}
	post_fis(p, RX_D2H, fis, sizeof(fis));
}

/* Set Device Bits: how a queued command ends. */
static void post_sdb(
    struct ahci_port *p, uint8_t status, uint8_t error, uint32_t finished)
{
	uint8_t fis[8] = { FIS_SDB, FIS_INTR, status & 0x77, error };

	memcpy(fis + 4, &finished, 4);
	p->tfd = (uint32_t)error << 8 | status;
	p->sact &= ~finished;
	post_fis(p, RX_SDB, fis, sizeof(fis));
	ahci_raise(p, IS_SDB);
}

static void post_pio(struct ahci_port *p, const struct ahci_cmd *c, uint32_t len)
{
	uint8_t fis[20] = { FIS_PIO, 0x20 | FIS_INTR,
		ATA_READY | ATA_DSC | ATA_DRQ };

	memcpy(fis + 4, c->cfis + 4, 7);
	memcpy(fis + 12, c->cfis + 12, 2);
	fis[15] = ATA_READY | ATA_DSC;
	fis[16] = (uint8_t)len;
	fis[17] = (uint8_t)(len >> 8);
	post_fis(p, RX_PIO, fis, sizeof(fis));
	ahci_raise(p, IS_PIO);
}

void ahci_pio_in(struct ahci_cmd *c, const void *buf, uint64_t len)
{
	c->pio = true;
	if (ahci_give(c, buf, len))
		ahci_done(c);
}

static void set_prdbc(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;
	uint64_t at = p->clb + c->slot * HEADER_LEN + 4;
	void *where = pci_dma(p->hba->pci, at, 4);

	if (where == NULL)
		return;
	memcpy(where, &c->moved, 4);
	pci_dma_written(p->hba->pci, at, 4);
}

static void release(struct ahci_cmd *c)
{
	free(c->trim);
	c->trim = NULL;
	/* Room for an ordinary command stays; the guest's largest does not. */
	if (c->room > 256) {
		free(c->iov);
		free(c->gpa);
		c->iov = NULL;
		c->gpa = NULL;
		c->room = 0;
	}
	c->busy = false;
	c->port->inflight--;
	c->port->exclusive = false;
}

void ahci_done(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;

	release(c);
	if (p->stopping || p->failed)
		return;
	if (c->prd_interrupt)
		ahci_raise(p, IS_PRD);
	if (c->ncq) {
		post_sdb(p, ATA_READY | ATA_DSC, 0, BIT(c->slot));
	} else {
		set_prdbc(c);
		if (c->pio)
			post_pio(p, c, c->moved);
		p->ci &= ~BIT(c->slot);
		post_d2h(p, c, ATA_READY | ATA_DSC, 0, true);
	}
	ahci_run(p);
}

void ahci_fail(struct ahci_cmd *c, uint8_t error)
{
	struct ahci_port *p = c->port;
	uint8_t status = ATA_READY | ATA_DSC | ATA_ERR;

	release(c);
	if (p->stopping || p->failed)
		return;
	p->failed = true;
	if (c->ncq) {
		/* ACS READ LOG EXT page 10h: which command, and why. */
		uint8_t sum = 0;

		memset(p->ncq_log, 0, sizeof(p->ncq_log));
		p->ncq_log[0] = (uint8_t)c->slot;
		p->ncq_log[2] = status;
		p->ncq_log[3] = error;
		memcpy(p->ncq_log + 4, c->cfis + 4, 7);
		memcpy(p->ncq_log + 12, c->cfis + 12, 2);
		for (unsigned i = 0; i < 511; i++)
			sum += p->ncq_log[i];
		p->ncq_log[511] = (uint8_t)-sum;
		post_sdb(p, status, error, 0);
	} else {
		post_d2h(p, c, status, error, true);
	}
	ahci_raise(p, IS_TASK);
}

/* The host bus failed a command: its memory is not memory. */
static void bus_error(struct ahci_cmd *c, uint32_t is)
{
	if (!c->port->stopping)
		ahci_raise(c->port, is);
	ahci_fail(c, ATA_E_ABRT);
}

static bool grow(struct ahci_cmd *c)
{
	unsigned room = c->room == 0 ? 64 : c->room * 2;
	struct iovec *iov = realloc(c->iov, room * sizeof(*iov));
	uint64_t *gpa;

	if (iov == NULL)
		return false;
	c->iov = iov;
	gpa = realloc(c->gpa, room * sizeof(*gpa));
	if (gpa == NULL)
		return false;
	c->gpa = gpa;
	c->room = room;
	return true;
}

/*
 * The guest may change what we read at any time: after this the copy is what
 * counts, and the compiler may not look again.
 */
static void fetch_bytes(void *to, const uint8_t *from, size_t len)
{
	memcpy(to, from, len);
	__asm__ volatile("" ::: "memory");
}

/*
 * Follows the scatter list for at most len bytes. 0, or the PxIS bit of what
 * failed.
 */
static uint32_t map_prdt(struct ahci_cmd *c, uint64_t len)
{
	struct pci_dev *pci = c->port->hba->pci;
	const uint8_t *prdt;

	c->niov = 0;
	c->mapped = 0;
	if (len == 0 || c->prdtl == 0)
		return 0;
	prdt = pci_dma(pci, c->table + TABLE_LEN, (uint64_t)c->prdtl * PRD_LEN);
	if (prdt == NULL)
		return IS_HOST_BUS;
	for (unsigned i = 0; i < c->prdtl && c->mapped < len; i++) {
		uint64_t addr, n;
		uint32_t word;
		void *ptr;

		fetch_bytes(&addr, prdt + i * PRD_LEN, 8);
		fetch_bytes(&word, prdt + i * PRD_LEN + 12, 4);
		n = MIN((uint64_t)(word & PRD_BYTES) + 1, len - c->mapped);
		ptr = pci_dma(pci, addr, n);
		if (ptr == NULL)
			return IS_HOST_DATA;
		if (c->niov == MAX_PIECES || (c->niov == c->room && !grow(c)))
			return IS_HOST_BUS;
		c->prd_interrupt |= (word & PRD_INTERRUPT) != 0;
		c->iov[c->niov].iov_base = ptr;
		c->iov[c->niov].iov_len = n;
		c->gpa[c->niov] = addr;
		c->niov++;
		c->mapped += n;
	}
	return 0;
}

bool ahci_map(struct ahci_cmd *c, uint64_t len)
{
	uint32_t is = map_prdt(c, len);

	if (is == 0 && c->mapped < len)
		is = IS_OVERFLOW;
	if (is != 0)
		bus_error(c, is);
	return is == 0;
}

bool ahci_give(struct ahci_cmd *c, const void *buf, uint64_t len)
{
	uint32_t is = map_prdt(c, len);
	const uint8_t *from = buf;

	if (is != 0) {
		bus_error(c, is);
		return false;
	}
	for (unsigned i = 0; i < c->niov; i++) {
		memcpy(c->iov[i].iov_base, from, c->iov[i].iov_len);
		pci_dma_written(c->port->hba->pci, c->gpa[i], c->iov[i].iov_len);
		from += c->iov[i].iov_len;
	}
	c->moved = (uint32_t)c->mapped;
	return true;
}

bool ahci_take(struct ahci_cmd *c, void *buf, uint64_t len)
{
	uint8_t *to = buf;

	if (!ahci_map(c, len))
		return false;
	for (unsigned i = 0; i < c->niov; i++) {
		memcpy(to, c->iov[i].iov_base, c->iov[i].iov_len);
		to += c->iov[i].iov_len;
	}
	c->moved = (uint32_t)len;
	return true;
}

static void disk_done(struct disk_req *req, int error)
{
	struct ahci_cmd *c = container_of(req, struct ahci_cmd, disk);

	/* Also on errors: part of it may have arrived. */
	if (req->op == DISK_READ)
		for (unsigned i = 0; i < c->niov; i++)
			pci_dma_written(
			    c->port->hba->pci, c->gpa[i], c->iov[i].iov_len);
	if (error == 0) {
		if (req->op == DISK_READ || req->op == DISK_WRITE)
			c->moved = (uint32_t)req->len;
		ahci_ata_disk_done(c);
		return;
	}
	if (c->port->kind == AHCI_CD)
		ahci_check(
		    c, 3, 0x11, 0x00); /* medium error, unrecovered read error */
	else
		ahci_fail(c, req->op == DISK_READ ? ATA_E_UNC : ATA_E_ABRT);
}

void ahci_disk(struct ahci_cmd *c, enum disk_op op, uint64_t off, uint64_t len)
{
	c->disk = (struct disk_req){
		.op = op,
		.off = off,
		.len = len,
		.iov = c->iov,
		.niov = (int)c->niov,
		.done = disk_done,
	};
	disk_submit(c->port->disk, &c->disk);
}

/* A FIS that is no command: the software reset's two control writes. */
static void control(struct ahci_port *p, struct ahci_cmd *c)
{
	bool reset = (c->cfis[15] & 4) != 0;

	release(c);
	p->ci &= ~BIT(c->slot);
	if (reset) {
		p->soft_reset = true;
	} else if (p->soft_reset) {
		p->soft_reset = false;
		ahci_ata_reset(p);
		p->tfd =
		    1u << 8 | (p->kind == AHCI_CD ? ATA_DSC : ATA_READY | ATA_DSC);
		ahci_signature(p);
	}
}

/* What the header and the FIS of a slot say. False: the port failed. */
static bool fetch(struct ahci_port *p, struct ahci_cmd *c, bool *atapi)
{
	struct pci_dev *pci = p->hba->pci;
	const uint8_t *header, *table;
	uint32_t word;

	header = pci_dma(pci, p->clb + c->slot * HEADER_LEN, HEADER_LEN);
	if (header == NULL)
		return false;
	fetch_bytes(&word, header, 4);
	fetch_bytes(&c->table, header + 8, 8);
	c->table &= ~UINT64_C(0x7f);
	c->prdtl = (uint16_t)(word >> 16);
	*atapi = (word & HEADER_ATAPI) != 0;
	table = pci_dma(pci, c->table, TABLE_LEN);
	if (table == NULL)
		return false;
	fetch_bytes(c->cfis, table, sizeof(c->cfis));
	fetch_bytes(c->acmd, table + 0x40, sizeof(c->acmd));
	return true;
}

static void begin(struct ahci_cmd *c)
{
	c->busy = true;
	c->niov = 0;
	c->mapped = 0;
	c->moved = 0;
	c->fua = c->pio = c->prd_interrupt = false;
	c->port->inflight++;
}

/* Starts one slot. False: it must wait. */
static bool start(struct ahci_port *p, unsigned slot)
{
	struct ahci_cmd *c = &p->cmds[slot];
	bool atapi;

	if (p->exclusive)
		return false;
	if (!fetch(p, c, &atapi)) {
		p->failed = true;
		ahci_raise(p, IS_HOST_BUS);
		return false;
	}
	c->ncq = (c->cfis[1] & FIS_COMMAND) != 0 && p->kind == AHCI_DISK &&
		 ahci_is_ncq(c->cfis[2]);
	if (!c->ncq && p->inflight > 0)
		return false;
	begin(c);
	p->cmd = (p->cmd & ~(31u << 8)) | slot << 8;
	if (c->cfis[0] != FIS_H2D || (c->cfis[1] & FIS_COMMAND) == 0) {
		control(p, c);
		return true;
	}
	if (c->ncq) {
		/* Accepted: the slot's bit in PxSACT stands for it from now on. */
		p->ci &= ~BIT(slot);
		post_d2h(p, c, ATA_READY | ATA_DSC, 0, false);
	} else {
		p->exclusive = true;
	}
	if (p->kind == AHCI_CD && c->cfis[2] == 0xa0 && atapi)
		ahci_atapi_start(c);
	else
		ahci_ata_start(c);
	return true;
}

void ahci_run(struct ahci_port *p)
{
	/*
	 * Commands that end at once come back here: the loop below goes on instead.
	 */
	if (p->running)
		return;
	p->running = true;
	if (p->disk != NULL)
		disk_plug(p->disk);
	for (bool more = true; more;) {
		more = false;
		for (unsigned slot = 0; slot < AHCI_SLOTS; slot++) {
			if ((p->ci & BIT(slot)) == 0 || p->cmds[slot].busy ||
			    p->failed || p->stopping || (p->cmd & CMD_ST) == 0)
				continue;
			more |= start(p, slot);
		}
	}
	if (p->disk != NULL)
		disk_unplug(p->disk);
	p->running = false;
}
