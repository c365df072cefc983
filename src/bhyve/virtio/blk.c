/*
 * virtio-blk (virtio 1.2 ch. 5.2) on an image file or block device.
 *
 * One queue. Each ring slot has its own request, so nothing is allocated while
 * the guest runs, and a request that is in flight at a reset is waited for. The
 * status byte is the last writable byte of a chain, whatever its framing.
 */
#include <errno.h>
#include <md5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/virtio/virtio.h"
#include "lib/config.h"
#include "lib/disk.h"
#include "lib/log.h"
#include "vmm/machine.h"

#define RING_SIZE 128
#define SEG_MAX   (RING_SIZE - 2)
#define SECTOR    512u
#define ID_LEN    20
/*
 * One range a request, 16 MiB each: bounds how long one discard keeps the host
 * busy.
 */
#define RANGE_MAX_SECTORS (16 * MiB / SECTOR)

#define F_SEG_MAX         BIT64(2)
#define F_RO              BIT64(5)
#define F_BLK_SIZE        BIT64(6)
#define F_FLUSH           BIT64(9)
#define F_TOPOLOGY        BIT64(10)
#define F_DISCARD         BIT64(13)
#define F_WRITE_ZEROES    BIT64(14)

enum {
	T_IN = 0,
	T_OUT = 1,
	T_FLUSH = 4,
	T_GET_ID = 8,
	T_DISCARD = 11,
	T_WRITE_ZEROES = 13
};
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

struct blk_config {
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_exp, alignment;
	uint16_t min_io;
	uint32_t opt_io;
	uint8_t writeback, pad0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_alignment;
	uint32_t max_zeroes_sectors, max_zeroes_seg;
	uint8_t zeroes_may_unmap, pad1[3];
} __attribute__((packed));

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct blk_range {
	uint64_t sector;
	uint32_t count, flags;
};

struct blk;

struct blk_req {
	struct blk *blk;
	struct blk_req *next;
	struct disk_req disk;
	struct virtq_chain chain;
	uint32_t type;
	uint8_t *status;
	uint64_t status_gpa;
	struct iovec iov[RING_SIZE];
	uint64_t gpa[RING_SIZE];
};

struct blk {
	struct virtio_dev virtio;
	struct disk *disk;
	struct blk_config config;
	char id[ID_LEN + 1];
	struct blk_req *free;
	struct blk_req req[RING_SIZE];
};

static void finish(struct blk_req *r, uint8_t status, uint64_t written)
{
	struct blk *blk = r->blk;
	struct virtq *q = &blk->virtio.queue[0];

	if (q->enabled && r->chain.generation == q->generation) {
		*r->status = status;
		pci_dma_written(blk->virtio.pci, r->status_gpa, 1);
		vq_push(q, &r->chain, (uint32_t)MIN(written + 1, UINT32_MAX));
	}
	r->next = blk->free;
	blk->free = r;
}

static void disk_done(struct disk_req *d, int error)
{
	struct blk_req *r = container_of(d, struct blk_req, disk);
	struct pci_dev *pci = r->blk->virtio.pci;
	uint64_t written = 0;

	if (r->type == T_IN) {
		/* Also on errors: part of it may have arrived. */
		for (unsigned i = r->chain.nread;
		     i < r->chain.nread + r->chain.nwrite; i++)
			pci_dma_written(pci, r->gpa[i], r->iov[i].iov_len);
		written = error == 0 ? d->len : 0;
	}
	finish(r,
	    error == 0            ? S_OK
	    : error == EOPNOTSUPP ? S_UNSUPP
				  : S_IOERR,
	    written);
}

static void submit(
    struct blk_req *r, enum disk_op op, uint64_t sector, uint64_t len)
{
	const struct disk *disk = r->blk->disk;

	/*
	 * Refused here and not by the disk: what never started has written nothing,
	 * and disk_done() need not look through gigabytes of buffers for code.
	 */
	if (op != DISK_FLUSH &&
	    (sector > disk_size(disk) / SECTOR ||
		len > disk_size(disk) - sector * SECTOR ||
		len % disk_sector(disk) != 0)) {
		finish(r, S_IOERR, 0);
		return;
	}
	r->disk = (struct disk_req){
		.op = op,
		.off = sector * SECTOR,
		.len = len,
		.iov = r->disk.iov,
		.niov = r->disk.niov,
		.done = disk_done,
	};
	if (disk_try(r->blk->disk, &r->disk))
		disk_done(&r->disk, 0);
	else
		disk_submit(r->blk->disk, &r->disk);
}

/* Drops n bytes at the start of a vector. */
static void skip(struct iovec **iov, int *niov, uint64_t n)
{
	while (*niov > 0 && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		++*iov;
		--*niov;
	}
	if (*niov > 0) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

static void do_read(struct blk_req *r, uint64_t sector)
{
	r->disk.iov = &r->iov[r->chain.nread];
	r->disk.niov = (int)r->chain.nwrite;
	submit(r, DISK_READ, sector, r->chain.write_len);
}

static void do_write(struct blk_req *r, uint64_t sector)
{
	struct virtq_chain *c = &r->chain;
	uint64_t len = c->read_len - sizeof(struct blk_header);

	r->disk.iov = r->iov;
	r->disk.niov = (int)c->nread;
	skip(&r->disk.iov, &r->disk.niov, sizeof(struct blk_header));
	submit(r, DISK_WRITE, sector, len);
}

static void do_range(struct blk_req *r)
{
	bool discard = r->type == T_DISCARD;
	const struct blk *blk = r->blk;
	struct blk_range range;

	if ((blk->virtio.features & (discard ? F_DISCARD : F_WRITE_ZEROES)) == 0) {
		finish(r, S_UNSUPP, 0);
		return;
	}
	if (r->chain.read_len - sizeof(struct blk_header) != sizeof(range)) {
		finish(r, S_IOERR, 0);
		return;
	}
	vq_read(&r->chain, sizeof(struct blk_header), &range, sizeof(range));
	if ((range.flags & ~1u) != 0 || (discard && range.flags != 0)) {
		finish(r, S_UNSUPP, 0);
		return;
	}
	if (range.count > RANGE_MAX_SECTORS) {
		finish(r, S_IOERR, 0);
		return;
	}
	if (!discard && range.flags != 0 && disk_can_discard(blk->disk))
		discard = true;
	submit(r, discard ? DISK_DISCARD : DISK_ZERO, range.sector,
	    (uint64_t)range.count * SECTOR);
}

static void get_id(struct blk_req *r)
{
	struct blk *blk = r->blk;
	uint64_t n = MIN(r->chain.write_len, (uint64_t)ID_LEN);

	n = vq_write(&blk->virtio.queue[0], &r->chain, 0, blk->id, n);
	finish(r, S_OK, n);
}

static void start(struct blk_req *r)
{
	struct blk_header h;

	vq_read(&r->chain, 0, &h, sizeof(h));
	r->type = h.type;
	switch (h.type) {
	case T_IN:
		do_read(r, h.sector);
		break;
	case T_OUT:
		do_write(r, h.sector);
		break;
	case T_FLUSH:
		submit(r, DISK_FLUSH, 0, 0);
		break;
	case T_GET_ID:
		get_id(r);
		break;
	case T_DISCARD:
	case T_WRITE_ZEROES:
		do_range(r);
		break;
	default:
		finish(r, S_UNSUPP, 0);
		break;
	}
}

/* Cuts the status byte off the chain's end. False: there is none, or no header. */
static bool take_status(struct blk_req *r)
{
	struct virtq_chain *c = &r->chain;
	struct iovec *last;

	if (c->read_len < sizeof(struct blk_header) || c->write_len < 1)
		return false;
	last = &r->iov[c->nread + c->nwrite - 1];
	last->iov_len--;
	c->write_len--;
	r->status = (uint8_t *)last->iov_base + last->iov_len;
	r->status_gpa = r->gpa[c->nread + c->nwrite - 1] + last->iov_len;
	if (last->iov_len == 0)
		c->nwrite--;
	return true;
}

static void kick(struct virtio_dev *v, struct virtq *q)
{
	struct blk *blk = container_of(v, struct blk, virtio);
	unsigned left = RING_SIZE;

	disk_plug(blk->disk);
	while (blk->free != NULL) {
		struct blk_req *r = blk->free;

		if (left-- == 0) {
			virtio_kick_later(q);
			break;
		}
		if (!vq_pop(q, &r->chain))
			break;
		if (!take_status(r)) {
			virtio_broken(
			    v, q, "a request has no header or no status byte");
			break;
		}
		blk->free = r->next;
		start(r);
	}
	disk_unplug(blk->disk);
	vq_notify(q);
}

/* Also takes what came meanwhile, or waited for a free request. */
static void batch_end(void *arg)
{
	struct blk *blk = arg;

	kick(&blk->virtio, &blk->virtio.queue[0]);
}

static void reset(struct virtio_dev *v)
{
	disk_drain(container_of(v, struct blk, virtio)->disk);
}

static uint64_t get_bar(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size)
{
	struct blk *blk = dev->priv;

	(void)vcpu;
	return virtio_pci_bar_read(&blk->virtio, bar, off, size);
}

static void set_bar(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size, uint64_t v)
{
	struct blk *blk = dev->priv;

	(void)vcpu;
	virtio_pci_bar_write(&blk->virtio, bar, off, size, v);
}

static bool cfg_read(struct pci_dev *dev, unsigned off, unsigned size, uint32_t *v)
{
	struct blk *blk = dev->priv;

	return virtio_pci_cfg_read(&blk->virtio, off, size, v);
}

static bool cfg_write(struct pci_dev *dev, unsigned off, unsigned size, uint32_t v)
{
	struct blk *blk = dev->priv;

	return virtio_pci_cfg_write(&blk->virtio, off, size, v);
}

static const struct virtio_ops ops = {
	.name = "virtio-blk",
	.type = 2,
	.kick = kick,
	.reset = reset,
};

/* "path[,option...]": the first word has no name. */
static int parse(struct config *cfg, const char *node, const char *text)
{
	const char *comma = text != NULL ? strchr(text, ',') : NULL;
	char path[4096];
	int n;

	if (text == NULL || *text == '\0' || *text == ',') {
		log_error("%s: virtio-blk needs a disk image, as in '-s "
			  "3,virtio-blk,disk.img'",
		    node);
		return -EINVAL;
	}
	n = snprintf(path, sizeof(path), "%.*s",
	    comma != NULL ? (int)(comma - text) : (int)strlen(text), text);
	if (n < 0 || (size_t)n >= sizeof(path) ||
	    config_setf(cfg, path, "%s.path", node) != 0) {
		log_error("%s: \"%s\" is not a path", node, text);
		return -EINVAL;
	}
	return pci_parse_options(cfg, node, DISK_OPTIONS " ser serial",
	    comma != NULL ? comma + 1 : NULL);
}

static void set_id(struct blk *blk, const char *node)
{
	const struct config *cfg = blk->virtio.pci->cfg;
	const char *text = config_getf(cfg, "%s.ser", node);
	const char *path = disk_path(blk->disk);
	uint8_t d[MD5_DIGEST_LENGTH];
	MD5_CTX md5;

	if (text == NULL)
		text = config_getf(cfg, "%s.serial", node);
	if (text != NULL) {
		if (strlen(text) > ID_LEN)
			log_warn("%s: the serial number is cut to %d characters",
			    blk->virtio.pci->name, ID_LEN);
		strncpy(blk->id, text, ID_LEN);
		return;
	}
	MD5Init(&md5);
	MD5Update(&md5, (const uint8_t *)path, strlen(path));
	MD5Final(d, &md5);
	snprintf(blk->id, sizeof(blk->id), "BHYVE-%02X%02X-%02X%02X-%02X%02X", d[0],
	    d[1], d[2], d[3], d[4], d[5]);
}

static void set_config(struct blk *blk)
{
	uint32_t sector = disk_sector(blk->disk), psector = disk_psector(blk->disk);
	struct blk_config *c = &blk->config;
	uint64_t *features = &blk->virtio.host_features;

	c->capacity = disk_size(blk->disk) / SECTOR;
	c->seg_max = SEG_MAX;
	c->blk_size = sector;
	c->physical_exp = (uint8_t)__builtin_ctz(psector / sector);
	c->num_queues = 1;
	*features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY;
	if (disk_readonly(blk->disk)) {
		*features |= F_RO;
		return;
	}
	*features |= F_WRITE_ZEROES;
	c->max_zeroes_sectors = RANGE_MAX_SECTORS;
	c->max_zeroes_seg = 1;
	if (!disk_can_discard(blk->disk))
		return;
	*features |= F_DISCARD;
	c->zeroes_may_unmap = 1;
	c->max_discard_sectors = RANGE_MAX_SECTORS;
	c->max_discard_seg = 1;
	c->discard_alignment = sector / SECTOR;
}

static int create(struct pci_dev *dev, const char *node)
{
	struct blk *blk = calloc(1, sizeof(*blk));
	int error;

	if (blk == NULL)
		return -ENOMEM;
	dev->priv = blk;
	blk->virtio.pci = dev;
	error = disk_open(&blk->disk, dev->m->loop, dev->cfg, node, false);
	if (error != 0) {
		free(blk);
		return error;
	}
	disk_set_batch_end(blk->disk, batch_end, blk);
	set_config(blk);
	set_id(blk, node);
	for (unsigned i = 0; i < RING_SIZE; i++) {
		struct blk_req *r = &blk->req[i];

		r->blk = blk;
		r->chain.iov = r->iov;
		r->chain.gpa = r->gpa;
		r->chain.max = RING_SIZE;
		r->next = blk->free;
		blk->free = r;
	}
	blk->virtio.ops = &ops;
	blk->virtio.nqueues = 1;
	blk->virtio.queue[0].max = RING_SIZE;
	blk->virtio.config = (const uint8_t *)&blk->config;
	blk->virtio.config_len = sizeof(blk->config);
	blk->virtio.pci_class = 0x01;
	blk->virtio.pci_device = 0x1001;
	blk->virtio.pci_subdevice = 2;
	error = virtio_pci_create(&blk->virtio);
	if (error != 0) {
		disk_close(blk->disk);
		free(blk);
	}
	return error;
}

static void destroy(struct pci_dev *dev)
{
	struct blk *blk = dev->priv;

	vq_disable(&blk->virtio.queue[0]);
	disk_close(blk->disk);
	free(blk);
}

static const struct pci_class virtio_blk = {
	.name = "virtio-blk",
	.help = "path[,nocache][,direct|sync][,ro][,sectorsize=L[/"
		"P]][,nodelete][,ser=S]",
	.parse = parse,
	.create = create,
	.destroy = destroy,
	.bar_read = get_bar,
	.bar_write = set_bar,
	.cfg_read = cfg_read,
	.cfg_write = cfg_write,
};
PCI_CLASS(virtio_blk);
