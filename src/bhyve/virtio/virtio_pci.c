/*
 * The PCI transport of virtio devices, transitional: the registers of 0.9.5 in
 * BAR 0 (ports) as bhyve has them, and those of 1.x (virtio 1.2 ch. 4.1) in BAR 4;
 * MSI-X in BAR 1.
 *
 * Rules kept here: features are fixed from FEATURES_OK on (legacy: from DRIVER_OK
 * or the first request on); a queue's registers are fixed while it is enabled; a status of 0
 * resets the device wherever it stands, with requests in flight.
 */
#include <errno.h>
#include <string.h>

#include "bhyve/virtio/virtio.h"
#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "vmm/machine.h"

#define BAR_LEGACY 0
#define BAR_MSIX   1
#define BAR_MODERN 4

/* Legacy registers. */
#define L_HOST_FEATURES  0
#define L_GUEST_FEATURES 4
#define L_PFN            8
#define L_QUEUE_SIZE     12
#define L_QUEUE_SELECT   14
#define L_NOTIFY         16
#define L_STATUS         18
#define L_ISR            19
#define L_CONFIG_VECTOR  20
#define L_QUEUE_VECTOR   22
#define L_CONFIG         20 /* 24 while MSI-X is on */

/* Modern structures in BAR 4, a page each. */
#define M_COMMON           0x0000
#define M_ISR              0x1000
#define M_CONFIG           0x2000
#define M_NOTIFY           0x3000
#define M_SIZE             0x4000
#define M_NOTIFY_MULT      4
#define M_COMMON_LEN       0x38

#define CAP_VENDOR         0x09
#define CAP_COMMON         1
#define CAP_NOTIFY         2
#define CAP_ISR            3
#define CAP_DEVICE         4
#define CAP_PCI_CFG        5

#define STATUS_DRIVER_OK   0x04
#define STATUS_FEATURES_OK 0x08
#define STATUS_NEEDS_RESET 0x40
#define COMPLAINTS_MAX 10
#define ISR_CONFIG         0x02

static struct virtq *selected(struct virtio_dev *v)
{
	return v->select < v->nqueues ? &v->queue[v->select] : NULL;
}

void virtio_interrupt(struct virtio_dev *v, uint16_t vector, uint8_t isr)
{
	struct pci_dev *dev = v->pci;

	if (pci_msix_enabled(dev)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_fire(dev, vector);
		return;
	}
	v->isr |= isr;
	if (pci_msi_enabled(dev))
		pci_msi_fire(dev, 0);
	else
		pci_intx(dev, true);
}

void virtio_config_changed(struct virtio_dev *v)
{
	v->generation++;
	virtio_interrupt(v, v->config_vector, ISR_CONFIG);
}

void virtio_broken(struct virtio_dev *v, struct virtq *q, const char *why)
{
	q->broken = true;
	/* A guest that breaks and resets in a loop must not fill the host's log. */
	if (!v->complained && v->complaints < COMPLAINTS_MAX)
		log_warn("%s: queue %u stopped: %s; the guest's driver must reset "
			 "the device%s",
		    v->pci->name, q->index, why,
		    ++v->complaints < COMPLAINTS_MAX
			? ""
			: " (this is not reported again)");
	v->complained = true;
	if (!v->modern || (v->status & STATUS_NEEDS_RESET) != 0)
		return;
	v->status |= STATUS_NEEDS_RESET;
	if ((v->status & STATUS_DRIVER_OK) != 0)
		virtio_config_changed(v);
}

static void reset(struct virtio_dev *v)
{
	/* First the queues, so that answers of requests in flight go nowhere. */
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct virtq *q = &v->queue[i];

		vq_disable(q);
		q->size = q->max;
		q->desc_gpa = q->avail_gpa = q->used_gpa = 0;
		q->vector = VIRTIO_NO_VECTOR;
	}
	v->ops->reset(v);
	v->features = v->driver_features = 0;
	v->status = v->isr = 0;
	v->modern = v->complained = false;
	v->config_vector = VIRTIO_NO_VECTOR;
	v->select = 0;
	v->device_feature_select = v->driver_feature_select = 0;
	pci_intx(v->pci, false);
}

static void kick(struct virtio_dev *v, unsigned index)
{
	struct virtq *q;

	if (index >= v->nqueues)
		return;
	q = &v->queue[index];
	/* Old drivers use a queue before they say that they are ready. */
	if (!q->enabled || q->broken || (v->status & STATUS_NEEDS_RESET) != 0 ||
	    (v->modern && (v->status & STATUS_DRIVER_OK) == 0))
		return;
	v->ops->kick(v, q);
}

static void kick_posted(void *arg)
{
	struct virtq *q = arg;

	q->posted = false;
	kick(q->dev, q->index);
}

void virtio_kick_later(struct virtq *q)
{
	if (!q->posted && event_post(q->dev->pci->m->loop, kick_posted, q) == 0)
		q->posted = true;
}

static void kick_all(struct virtio_dev *v)
{
	for (unsigned i = 0; i < v->nqueues; i++)
		kick(v, i);
}

static void accept_features(struct virtio_dev *v, uint64_t features)
{
	v->features = features;
	if (v->ops->negotiated != NULL)
		v->ops->negotiated(v);
}

/*
 * Drivers of 0.9 may place their queues first and say what they understand after
 * that (NetBSD's, when an interface goes up), but not once work has begun: the
 * lengths of headers change with it.
 */
static bool legacy_begun(const struct virtio_dev *v)
{
	for (unsigned i = 0; i < v->nqueues; i++) {
		const struct virtq *q = &v->queue[i];
		if (q->enabled && (q->last_avail != 0 || q->inflight != 0))
			return true;
	}
	return (v->status & STATUS_DRIVER_OK) != 0;
}

/* Both register layouts. */
static void write_status(struct virtio_dev *v, uint8_t status, bool modern)
{
	uint8_t old = v->status;

	if (status == 0) {
		reset(v);
		return;
	}
	v->modern |= modern;
	/* Bits are only ever added; this one is the device's. */
	status |= old;
	if (modern && (status & ~old & STATUS_FEATURES_OK) != 0) {
		if ((v->driver_features & ~v->host_features) != 0 ||
		    (v->driver_features & VIRTIO_F_VERSION_1) == 0)
			status &= (uint8_t)~STATUS_FEATURES_OK;
		else
			accept_features(v, v->driver_features);
	}
	v->status = status;
	if ((status & ~old & STATUS_DRIVER_OK) != 0)
		kick_all(v);
}

static uint8_t read_isr(struct virtio_dev *v)
{
	uint8_t isr = v->isr;

	v->isr = 0;
	pci_intx(v->pci, false);
	return isr;
}

static uint16_t check_vector(const struct virtio_dev *v, uint32_t vector)
{
	return vector < v->pci->msix_count ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

/* Bytes of device configuration; what lies behind its end reads as zero. */
static uint64_t read_config(const struct virtio_dev *v, uint64_t off, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		if (off + i < v->config_len)
			value |= (uint64_t)v->config[off + i] << (i * 8);
	return value;
}

static void write_config(
    struct virtio_dev *v, uint64_t off, unsigned size, uint64_t value)
{
	if (v->ops->config_write != NULL && size <= 4 && off < v->config_len &&
	    size <= v->config_len - off)
		v->ops->config_write(v, (unsigned)off, size, (uint32_t)value);
}

/* The registers of 0.9.5, then those of 1.x. */

static unsigned legacy_config_off(const struct virtio_dev *v)
{
	return L_CONFIG + (pci_msix_enabled(v->pci) ? 4 : 0);
}

static uint64_t legacy_read(struct virtio_dev *v, uint64_t off, unsigned size)
{
	const struct virtq *q = selected(v);

	if (off >= legacy_config_off(v))
		return read_config(v, off - legacy_config_off(v), size);
	switch (off) {
	case L_HOST_FEATURES:
		return (uint32_t)v->host_features;
	case L_GUEST_FEATURES:
		return (uint32_t)v->features;
	case L_PFN:
		return q != NULL && q->enabled ? (uint32_t)(q->desc_gpa >> 12) : 0;
	case L_QUEUE_SIZE:
		return q != NULL ? q->max : 0;
	case L_QUEUE_SELECT:
		return v->select;
	case L_STATUS:
		return v->status;
	case L_ISR:
		return read_isr(v);
	case L_CONFIG_VECTOR:
		return v->config_vector;
	case L_QUEUE_VECTOR:
		return q != NULL ? q->vector : VIRTIO_NO_VECTOR;
	default:
		return size == 1 ? 0xff : size == 2 ? 0xffff : 0xffffffff;
	}
}

static void legacy_write_pfn(struct virtio_dev *v, uint32_t pfn)
{
	struct virtq *q = selected(v);

	/* The modern layout's queues are not to be moved from here. */
	if (q == NULL || v->modern)
		return;
	if (pfn == 0) {
		vq_disable(q);
		return;
	}
	if (q->enabled)
		return;
	vq_set_legacy(q, pfn);
	if (vq_enable(q) != 0)
		virtio_broken(v, q, "its rings are not in memory");
}

static void legacy_write(
    struct virtio_dev *v, uint64_t off, unsigned size, uint64_t value)
{
	struct virtq *q = selected(v);

	if (off >= legacy_config_off(v)) {
		write_config(v, off - legacy_config_off(v), size, value);
		return;
	}
	switch (off) {
	case L_GUEST_FEATURES:
		if (size == 4 && !v->modern && !legacy_begun(v))
			accept_features(v, (uint32_t)value & v->host_features);
		break;
	case L_PFN:
		if (size == 4)
			legacy_write_pfn(v, (uint32_t)value);
		break;
	case L_QUEUE_SELECT:
		v->select = (uint16_t)value;
		break;
	case L_NOTIFY:
		kick(v, (uint16_t)value);
		break;
	case L_STATUS:
		write_status(v, (uint8_t)value, false);
		break;
	case L_CONFIG_VECTOR:
		v->config_vector = check_vector(v, (uint16_t)value);
		break;
	case L_QUEUE_VECTOR:
		if (q != NULL)
			q->vector = check_vector(v, (uint16_t)value);
		break;
	default:
		break;
	}
}

static uint64_t common_read(struct virtio_dev *v, uint64_t off)
{
	const struct virtq *q = selected(v);

	switch (off) {
	case 0x00:
		return v->device_feature_select;
	case 0x04:
		return v->device_feature_select < 2
			   ? (uint32_t)(v->host_features >>
					(v->device_feature_select * 32))
			   : 0;
	case 0x08:
		return v->driver_feature_select;
	case 0x0c:
		return v->driver_feature_select < 2
			   ? (uint32_t)(v->driver_features >>
					(v->driver_feature_select * 32))
			   : 0;
	case 0x10:
		return v->config_vector;
	case 0x12:
		return v->nqueues;
	case 0x14:
		return v->status;
	case 0x15:
		return v->generation;
	case 0x16:
		return v->select;
	}
	if (q == NULL)
		return off == 0x1a ? VIRTIO_NO_VECTOR : 0;
	switch (off) {
	case 0x18:
		return q->size;
	case 0x1a:
		return q->vector;
	case 0x1c:
		return q->enabled;
	case 0x1e:
		return q->index;
	case 0x20:
		return q->desc_gpa;
	case 0x24:
		return q->desc_gpa >> 32;
	case 0x28:
		return q->avail_gpa;
	case 0x2c:
		return q->avail_gpa >> 32;
	case 0x30:
		return q->used_gpa;
	case 0x34:
		return q->used_gpa >> 32;
	}
	return 0;
}

static void set_half(uint64_t *reg, bool high, uint64_t value)
{
	if (high)
		*reg = (*reg & 0xffffffff) | value << 32;
	else
		*reg = (*reg & ~UINT64_C(0xffffffff)) | (uint32_t)value;
}

static void queue_write(struct virtio_dev *v, uint64_t off, uint64_t value)
{
	struct virtq *q = selected(v);

	if (q == NULL)
		return;
	if (off == 0x1a) {
		q->vector = check_vector(v, (uint16_t)value);
		return;
	}
	/* From here on nothing may change in a queue that runs. */
	if (q->enabled || q->broken || (v->status & STATUS_DRIVER_OK) != 0)
		return;
	switch (off) {
	case 0x18:
		value &= 0xffff;
		if (value != 0 && value <= q->max && (value & (value - 1)) == 0)
			q->size = (uint16_t)value;
		break;
	case 0x1c:
		if ((value & 0xffff) != 1 || (v->status & STATUS_FEATURES_OK) == 0)
			break;
		v->modern = true;
		if (vq_enable(q) != 0)
			virtio_broken(v, q, "its rings are not in memory");
		break;
	case 0x20:
	case 0x24:
		set_half(&q->desc_gpa, off == 0x24, value);
		break;
	case 0x28:
	case 0x2c:
		set_half(&q->avail_gpa, off == 0x2c, value);
		break;
	case 0x30:
	case 0x34:
		set_half(&q->used_gpa, off == 0x34, value);
		break;
	}
}

static void common_write(struct virtio_dev *v, uint64_t off, uint64_t value)
{
	switch (off) {
	case 0x00:
		v->device_feature_select = (uint32_t)value;
		break;
	case 0x08:
		v->driver_feature_select = (uint32_t)value;
		break;
	case 0x0c:
		if ((v->status & STATUS_FEATURES_OK) == 0 &&
		    v->driver_feature_select < 2)
			set_half(&v->driver_features, v->driver_feature_select == 1,
			    (uint32_t)value);
		break;
	case 0x10:
		v->config_vector = check_vector(v, (uint16_t)value);
		break;
	case 0x14:
		write_status(v, (uint8_t)value, true);
		break;
	case 0x16:
		v->select = (uint16_t)value;
		break;
	default:
		queue_write(v, off, value);
		break;
	}
}

static uint64_t modern_read(struct virtio_dev *v, uint64_t off, unsigned size)
{
	uint64_t page = off & ~UINT64_C(0xfff), at = off & 0xfff;

	switch (page) {
	case M_COMMON:
		if (at >= M_COMMON_LEN)
			return 0;
		if (size == 8)
			return (uint32_t)common_read(v, at) | common_read(v, at + 4)
								  << 32;
		return common_read(v, at);
	case M_ISR:
		return at == 0 ? read_isr(v) : 0;
	case M_CONFIG:
		return read_config(v, at, size);
	default:
		return 0;
	}
}

static void modern_write(
    struct virtio_dev *v, uint64_t off, unsigned size, uint64_t value)
{
	uint64_t page = off & ~UINT64_C(0xfff), at = off & 0xfff;

	switch (page) {
	case M_COMMON:
		if (at >= M_COMMON_LEN)
			break;
		common_write(v, at, size == 8 ? (uint32_t)value : value);
		if (size == 8)
			common_write(v, at + 4, value >> 32);
		break;
	case M_CONFIG:
		write_config(v, at, size, value);
		break;
	case M_NOTIFY:
		kick(v, (unsigned)(at / M_NOTIFY_MULT));
		break;
	default:
		break;
	}
}

uint64_t virtio_pci_bar_read(
    struct virtio_dev *v, int bar, uint64_t off, unsigned size)
{
	if (bar == BAR_LEGACY)
		return legacy_read(v, off, size);
	return bar == BAR_MODERN ? modern_read(v, off, size) : ~UINT64_C(0);
}

void virtio_pci_bar_write(
    struct virtio_dev *v, int bar, uint64_t off, unsigned size, uint64_t value)
{
	if (bar == BAR_LEGACY)
		legacy_write(v, off, size, value);
	else if (bar == BAR_MODERN)
		modern_write(v, off, size, value);
}

/*
 * The window into the BARs through configuration space (4.1.4.9): body of the
 * capability is cfg_type, bar, offset, length; data follows at cap + 16.
 */
static bool window(const struct virtio_dev *v, unsigned off, unsigned size,
    int *bar, uint32_t *at, uint32_t *len)
{
	unsigned cap = v->cfg_cap;

	if (cap == 0 || off != cap + 16 || size > 4)
		return false;
	*bar = v->pci->config[cap + 4];
	*at = pci_get32(v->pci, cap + 8);
	*len = pci_get32(v->pci, cap + 12);
	if (*bar != BAR_LEGACY && *bar != BAR_MODERN)
		return false;
	return (*len == 1 || *len == 2 || *len == 4) && (*at & (*len - 1)) == 0 &&
	       *at < v->pci->bar[*bar].size && *len <= v->pci->bar[*bar].size - *at;
}

bool virtio_pci_cfg_read(
    struct virtio_dev *v, unsigned off, unsigned size, uint32_t *value)
{
	uint32_t at, len;
	int bar;

	if (!window(v, off, size, &bar, &at, &len))
		return false;
	*value = (uint32_t)virtio_pci_bar_read(v, bar, at, len);
	return true;
}

bool virtio_pci_cfg_write(
    struct virtio_dev *v, unsigned off, unsigned size, uint32_t value)
{
	uint32_t at, len;
	int bar;

	if (!window(v, off, size, &bar, &at, &len))
		return false;
	if (len < 4)
		value &= BIT(len * 8) - 1;
	virtio_pci_bar_write(v, bar, at, len, value);
	return true;
}

static int add_cap(struct virtio_dev *v, uint8_t type, uint8_t bar, uint32_t off,
    uint32_t len, uint32_t extra, bool has_extra)
{
	/*
	 * Without id and next: length, type, bar, padding, offset, length [,
	 * extra].
	 */
	uint8_t body[18] = { 0 };
	unsigned size = has_extra ? 18 : 14;

	body[0] = (uint8_t)(size + 2);
	body[1] = type;
	body[2] = bar;
	memcpy(body + 6, &off, 4);
	memcpy(body + 10, &len, 4);
	memcpy(body + 14, &extra, 4);
	return pci_add_cap(v->pci, CAP_VENDOR, body, size + 2);
}

static int add_caps(struct virtio_dev *v)
{
	int cap;

	if (add_cap(v, CAP_COMMON, BAR_MODERN, M_COMMON, M_COMMON_LEN, 0, false) <
		0 ||
	    add_cap(v, CAP_ISR, BAR_MODERN, M_ISR, 1, 0, false) < 0 ||
	    add_cap(v, CAP_NOTIFY, BAR_MODERN, M_NOTIFY, v->nqueues * M_NOTIFY_MULT,
		M_NOTIFY_MULT, true) < 0)
		return -ENOSPC;
	if (v->config_len > 0 && add_cap(v, CAP_DEVICE, BAR_MODERN, M_CONFIG,
				     v->config_len, 0, false) < 0)
		return -ENOSPC;
	cap = add_cap(v, CAP_PCI_CFG, 0, 0, 0, 0, true);
	if (cap < 0)
		return cap;
	v->cfg_cap = (uint8_t)cap;
	v->pci->wmask[cap + 4] = 0xff;
	memset(&v->pci->wmask[cap + 8], 0xff, 8);
	return 0;
}

int virtio_pci_create(struct virtio_dev *v)
{
	struct pci_dev *dev = v->pci;
	bool msix = true;
	int error;

	if (config_get_bool(dev->cfg, "virtio_msix", true, &msix) != 0)
		return -EINVAL;
	v->host_features |=
	    VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1;
	v->config_vector = VIRTIO_NO_VECTOR;
	for (unsigned i = 0; i < v->nqueues; i++) {
		struct virtq *q = &v->queue[i];

		q->dev = v;
		q->index = i;
		q->size = q->max;
		q->vector = VIRTIO_NO_VECTOR;
	}
	pci_identify(dev, 0x1af4, v->pci_device, v->pci_class, v->pci_subclass, 0);
	pci_subsystem(dev, 0x1af4, v->pci_subdevice);
	error =
	    pci_add_bar(dev, BAR_LEGACY, PCI_BAR_IO, L_CONFIG + 4 + v->config_len);
	if (error == 0 && msix)
		error = pci_add_bar(dev, BAR_MSIX, PCI_BAR_MEM32, 4096);
	if (error == 0)
		error = pci_add_bar(dev, BAR_MODERN, PCI_BAR_MEM64, M_SIZE);
	if (error == 0 && msix)
		error = pci_add_msix(dev, v->nqueues + 1, BAR_MSIX, 0);
	if (error == 0)
		error = pci_add_msi(dev, 1);
	if (error == 0)
		error = add_caps(v);
	if (error == 0)
		error = pci_add_intx(dev);
	if (error != 0)
		log_error(
		    "%s: cannot set up its PCI registers: %d", dev->name, error);
	return error;
}
