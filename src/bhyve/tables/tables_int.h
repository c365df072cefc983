/*
 * Shared by the files of this folder: a bounded writer and the parts of
 * tables_build().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MPTABLE_ADDR 0xf0000u
#define SMBIOS_ADDR  0xf1000u
#define ACPI_ADDR    0xf2400u
#define TABLES_END   0x100000u

struct machine;
struct pci_bus;

/*
 * Little-endian bytes into [buf, buf+room). What does not fit is dropped and
 * remembered in full; positions stay within the buffer.
 */
struct out {
	uint8_t *buf;
	size_t room, len;
	bool full;
};

void out_bytes(struct out *o, const void *p, size_t n);
void out_zero(struct out *o, size_t n);
void out_align(struct out *o, size_t to);
void out8(struct out *o, uint8_t v);
void out16(struct out *o, uint16_t v);
void out32(struct out *o, uint32_t v);
void out64(struct out *o, uint64_t v);
/* Text padded with blanks to n bytes. */
void out_text(struct out *o, const char *s, size_t n);
/* Stores at an earlier position. */
void out_put8(struct out *o, size_t at, uint8_t v);
void out_put16(struct out *o, size_t at, uint16_t v);
void out_put32(struct out *o, size_t at, uint32_t v);
/* The value that makes [from, to) sum to zero. */
uint8_t out_checksum(const struct out *o, size_t from, size_t to);

/* Each fills its region and returns 0, or -ENOSPC. */
int mptable_build(struct machine *m, struct pci_bus *bus, struct out *o);
int smbios_build(struct machine *m, struct out *o);
int acpi_build(struct machine *m, struct pci_bus *bus, struct out *o);
/* aml.c: body of the SSDT - what the DSDT cannot know when it is compiled. */
void aml_ssdt(struct machine *m, struct pci_bus *bus, struct out *o);
/* uuid.c: key "uuid", or a version 3 UUID from the names of VM and host. */
void uuid_get(const struct machine *m, uint8_t uuid[16]);
