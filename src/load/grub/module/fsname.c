/*
 * bhyve - GRUB's side of grub-bhyve
 * Copyright (C) 2026 The bhyve for Linux authors
 *
 * This program is free software: you can redistribute it and/or modify it under
 * the terms of the GNU General Public License as published by the Free Software
 * Foundation, either version 3 of the License, or (at your option) any later
 * version. It comes WITHOUT ANY WARRANTY; see COPYING in this folder.
 *
 *
 * Names what is on a device that GRUB cannot read: the file system, and of those
 * that GRUB knows the feature it does not. Offsets are those of the on-disk formats
 * (Linux kernel Documentation/filesystems, XFS Algorithms & Data Structures, the
 * btrfs on-disk format, the ZFS on-disk specification).
 */
#include "bhyve.h"

struct magic {
	uint32_t offset;
	const char *bytes;
	uint32_t len;
	const char *name;
};

static const struct magic magics[] = {
	{ 0, "LUKS\xba\xbe", 6, "an encrypted volume (LUKS)" },
	{ 536, "LABELONE", 8,
	    "a part of an LVM volume group; \"ls\" shows its volumes" },
	{ 0x1018, "\xc6\x85\x73\xf6", 4,
	    "a bcachefs file system, which GRUB cannot read" },
	{ 0x1018, "\xce\x26\xa6\x97", 4,
	    "a bcache device, which GRUB cannot read" },
	{ 1024, "\xe2\xe1\xf5\xe0", 4,
	    "an EROFS file system, which GRUB cannot read" },
	{ 4086, "SWAPSPACE2", 10, "swap space" },
	{ 3, "-FVE-FS-", 8, "an encrypted volume (BitLocker)" },
	{ 3, "ReFS\0\0\0\0", 8, "a ReFS file system, which GRUB cannot read" },
	{ 32, "NXSB", 4, "an APFS container, which GRUB cannot read" },
};

struct feature {
	uint64_t bit;
	const char *name;
};

/* Incompatible features that a reader of GRUB's kind does not know, or may not. */
static const struct feature ext_features[] = {
	{ 0x0001, "compression" },
	{ 0x0008, "journal_dev" },
	{ 0x0400, "ea_inode" },
	{ 0x1000, "dirdata" },
	{ 0x2000, "metadata_csum_seed" },
	{ 0x4000, "large_dir" },
	{ 0x8000, "inline_data" },
	{ 0x10000, "encrypt" },
	{ 0x20000, "casefold" },
};

static const struct feature xfs_features[] = {
	{ 0x04, "meta_uuid" },
	{ 0x08, "bigtime" },
	{ 0x10, "needsrepair" },
	{ 0x20, "nrext64" },
	{ 0x40, "exchange" },
	{ 0x80, "parent" },
	{ 0x100, "metadir" },
};

static const struct feature btrfs_features[] = {
	{ 0x0800, "raid1c34" },
	{ 0x1000, "zoned" },
	{ 0x2000, "extent_tree_v2" },
	{ 0x4000, "raid_stripe_tree" },
};

static int at(struct grub_disk *disk, uint64_t offset, void *buf, size_t len)
{
	grub_err_t err = grub_disk_read(disk, offset / 512, offset % 512, len, buf);

	grub_errno = GRUB_ERR_NONE;
	return err == GRUB_ERR_NONE;
}

static void name_features(const char *fs, uint64_t set, const struct feature *table,
    unsigned count, char *buf, size_t len)
{
	size_t n = (size_t)grub_snprintf(buf, len, "a file system %s with", fs);
	unsigned named = 0;

	for (unsigned i = 0; i < count && n < len; i++) {
		if ((set & table[i].bit) == 0)
			continue;
		n += (size_t)grub_snprintf(buf + n, len - n, "%s %s",
		    named++ > 0 ? "," : "", table[i].name);
	}
	if (n < len)
		grub_snprintf(buf + n, len - n,
		    named > 0 ? ", which this GRUB cannot read"
			      : " damaged or unknown structures");
}

#define NAME_FEATURES(fs, set, table)                                              \
	name_features(fs, set, table, sizeof(table) / sizeof(table[0]), buf, len)

static void describe(struct grub_disk *disk, char *buf, size_t len)
{
	uint8_t b[16];
	uint32_t le32;

	for (unsigned i = 0; i < sizeof(magics) / sizeof(magics[0]); i++) {
		if (at(disk, magics[i].offset, b, magics[i].len) &&
		    grub_memcmp(b, magics[i].bytes, magics[i].len) == 0) {
			grub_snprintf(buf, len, "%s", magics[i].name);
			return;
		}
	}
	if (at(disk, 1024 + 0x38, b, 2) && b[0] == 0x53 && b[1] == 0xef &&
	    at(disk, 1024 + 0x60, &le32, 4)) {
		NAME_FEATURES("ext4", le32, ext_features);
		return;
	}
	if (at(disk, 0, b, 4) && grub_memcmp(b, "XFSB", 4) == 0 &&
	    at(disk, 216, &le32, 4)) {
		NAME_FEATURES("XFS", __builtin_bswap32(le32), xfs_features);
		return;
	}
	if (at(disk, 0x10040, b, 8) && grub_memcmp(b, "_BHRfS_M", 8) == 0 &&
	    at(disk, 0x10000 + 188, b, 8)) {
		uint64_t flags = 0;
		for (int i = 7; i >= 0; i--)
			flags = flags << 8 | b[i];
		NAME_FEATURES("btrfs", flags, btrfs_features);
		return;
	}
	/* The uberblocks of a ZFS label: one every KiB from 128 KiB on. */
	for (unsigned i = 0; i < 8; i++) {
		if (at(disk, 0x20000 + i * 1024, b, 8) &&
		    grub_memcmp(b, "\x0c\xb1\xba\0\0\0\0\0", 8) == 0) {
			grub_snprintf(buf, len,
			    "a ZFS pool with features GRUB does not know (it reads "
			    "old pools only)");
			return;
		}
	}
}

void fsname_describe(const char *device, char *buf, size_t len)
{
	struct grub_device *dev = grub_device_open(device);

	buf[0] = '\0';
	if (dev != NULL && dev->disk != NULL)
		describe(dev->disk, buf, len);
	if (dev != NULL)
		grub_device_close(dev);
	grub_errno = GRUB_ERR_NONE;
}
