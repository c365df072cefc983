/*
 * Inside of the AHCI controller (AHCI 1.3.1): what its files share.
 *
 * A command goes port_run() -> ahci_ata_start() or ahci_atapi_start() ->
 * ahci_done() or ahci_fail(), maybe with disk requests between. Everything a
 * command needs of the guest's memory is copied or checked when it starts.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "bhyve/pci/pci.h"
#include "lib/disk.h"

#define AHCI_SLOTS     32
#define AHCI_MAX_PORTS 32

/* ATA status and error bits (ATA8-ACS ch. 6). */
#define ATA_ERR    0x01
#define ATA_DRQ    0x08
#define ATA_DSC    0x10
#define ATA_READY  0x40
#define ATA_BSY    0x80
#define ATA_E_ABRT 0x04
#define ATA_E_IDNF 0x10
#define ATA_E_UNC  0x40

/* PxIS bits. */
#define IS_D2H       BIT(0)
#define IS_PIO       BIT(1)
#define IS_SDB       BIT(3)
#define IS_PRD       BIT(5)
#define IS_OVERFLOW  BIT(24)
#define IS_HOST_DATA BIT(28)
#define IS_HOST_BUS  BIT(29)
#define IS_TASK      BIT(30)

enum ahci_kind { AHCI_NONE, AHCI_DISK, AHCI_CD };

struct ahci;
struct ahci_port;

struct ahci_cmd {
	struct ahci_port *port;
	unsigned slot;
	bool busy;
	bool ncq, fua, pio, prd_interrupt;
	uint8_t cfis[20], acmd[16];
	uint16_t prdtl;
	uint64_t table;    /* gpa of the command table */
	struct iovec *iov; /* mapped by ahci_map() */
	uint64_t *gpa;
	unsigned niov, room;
	uint64_t mapped;   /* bytes in iov */
	uint32_t moved;    /* bytes transferred, for PRDBC */
	uint32_t to_guest; /* bytes a disk read brings */
	struct disk_req disk;
	uint8_t *trim; /* copy of the ranges */
	unsigned trim_at, trim_len;
};

struct ahci_port {
	struct ahci *hba;
	unsigned n;
	enum ahci_kind kind;
	struct disk *disk; /* NULL: no device, or an empty drive */
	/* Registers. */
	uint64_t clb, fb;
	uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
	/* The engine. */
	bool fire;     /* a message is due */
	bool failed;   /* nothing starts until PxCMD.ST is set anew */
	bool stopping; /* answers of requests in flight are dropped */
	bool running;  /* in port_run() */
	bool soft_reset;
	unsigned inflight;
	bool exclusive; /* of them, one is not queued */
	struct ahci_cmd cmds[AHCI_SLOTS];
	/* The device. */
	char serial[21], revision[9], model[41];
	uint16_t rotation;
	uint8_t multiple; /* sectors of READ MULTIPLE, 0: off */
	uint8_t transfer_mode;
	bool write_cache, read_ahead, smart;
	uint8_t ncq_log[512];
	uint8_t sense_key, asc, ascq;
	bool tray_open, locked, media_event;
};

struct ahci {
	struct pci_dev *pci;
	unsigned nports;
	uint32_t implemented, is, ghc;
	struct ahci_port port[AHCI_MAX_PORTS];
};

/* ahci.c */
void ahci_update_irq(struct ahci *h);

/* ahci_port.c */
void ahci_port_init(struct ahci_port *p);
uint32_t ahci_port_read(struct ahci_port *p, unsigned off);
void ahci_port_write(struct ahci_port *p, unsigned off, uint32_t v);
/* Stops the port, waits for its requests, and leaves it as after COMRESET. */
void ahci_port_reset(struct ahci_port *p);
void ahci_port_stop(struct ahci_port *p);
void ahci_port_free(struct ahci_port *p);

/* ahci_cmd.c */
void ahci_run(struct ahci_port *p);
/* Sets bits of PxIS. */
void ahci_raise(struct ahci_port *p, uint32_t bits);
/* The device-to-host FIS after a reset. */
void ahci_signature(struct ahci_port *p);
/*
 * Maps the first len bytes of the command's data. True, or false after failing the
 * command: a part is not in memory, or the guest gave less room than that.
 */
bool ahci_map(struct ahci_cmd *c, uint64_t len);
/* Data for the guest, cut to the room it gave. False: the command failed. */
bool ahci_give(struct ahci_cmd *c, const void *buf, uint64_t len);
/* Exactly len bytes from the guest. False: the command failed. */
bool ahci_take(struct ahci_cmd *c, void *buf, uint64_t len);
void ahci_done(struct ahci_cmd *c);
/* Ends with error bits in the task file. */
void ahci_fail(struct ahci_cmd *c, uint8_t error);
/* Starts a disk request on the mapped data; ahci_disk_done() follows. */
void ahci_disk(struct ahci_cmd *c, enum disk_op op, uint64_t off, uint64_t len);

/* ahci_ata.c */
void ahci_ata_reset(struct ahci_port *p);
void ahci_ata_start(struct ahci_cmd *c);
/* A disk request of the command ended well. */
void ahci_ata_disk_done(struct ahci_cmd *c);
/* Data-in by PIO: tells of it, gives it, ends the command. */
void ahci_pio_in(struct ahci_cmd *c, const void *buf, uint64_t len);
bool ahci_is_ncq(uint8_t command);
void ahci_ncq_log_clear(struct ahci_port *p);

/* ahci_identify.c */
void ahci_identify_disk(const struct ahci_port *p, uint16_t id[256]);
void ahci_identify_cd(const struct ahci_port *p, uint16_t id[256]);

/* ahci_atapi.c */
void ahci_atapi_start(struct ahci_cmd *c);
/* Ends with a sense key. */
void ahci_check(struct ahci_cmd *c, uint8_t key, uint8_t asc, uint8_t ascq);
