/* Places the tables in guest memory; the writer they share. */
#include "bhyve/tables/tables.h"

#include <errno.h>
#include <string.h>

#include "bhyve/tables/tables_int.h"
#include "lib/config.h"
#include "lib/log.h"
#include "vmm/machine.h"

static uint8_t *claim(struct out *o, size_t n)
{
	uint8_t *p = o->buf + o->len;

	if (n > o->room - o->len) {
		o->full = true;
		return NULL;
	}
	o->len += n;
	return p;
}

void out_bytes(struct out *o, const void *src, size_t n)
{
	uint8_t *p = claim(o, n);

	if (p != NULL)
		memcpy(p, src, n);
}

void out_zero(struct out *o, size_t n)
{
	uint8_t *p = claim(o, n);

	if (p != NULL)
		memset(p, 0, n);
}

void out_align(struct out *o, size_t to)
{
	out_zero(o, (to - o->len % to) % to);
}

static void out_int(struct out *o, uint64_t v, size_t n)
{
	uint8_t b[8];

	for (size_t i = 0; i < n; i++)
		b[i] = (uint8_t)(v >> i * 8);
	out_bytes(o, b, n);
}

void out8(struct out *o, uint8_t v)
{
	out_int(o, v, 1);
}

void out16(struct out *o, uint16_t v)
{
	out_int(o, v, 2);
}

void out32(struct out *o, uint32_t v)
{
	out_int(o, v, 4);
}

void out64(struct out *o, uint64_t v)
{
	out_int(o, v, 8);
}

void out_text(struct out *o, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out8(o, (uint8_t)(*s != '\0' ? *s++ : ' '));
}

static void put(struct out *o, size_t at, uint64_t v, size_t n)
{
	if (at > o->len || n > o->len - at)
		return;
	for (size_t i = 0; i < n; i++)
		o->buf[at + i] = (uint8_t)(v >> i * 8);
}

void out_put8(struct out *o, size_t at, uint8_t v)
{
	put(o, at, v, 1);
}

void out_put16(struct out *o, size_t at, uint16_t v)
{
	put(o, at, v, 2);
}

void out_put32(struct out *o, size_t at, uint32_t v)
{
	put(o, at, v, 4);
}

uint8_t out_checksum(const struct out *o, size_t from, size_t to)
{
	uint8_t sum = 0;

	for (size_t i = from; i < to && i < o->len; i++)
		sum = (uint8_t)(sum + o->buf[i]);
	return (uint8_t)-sum;
}

static struct out region(uint8_t *base, uint32_t from, uint32_t to)
{
	return (
	    struct out){ .buf = base + (from - MPTABLE_ADDR), .room = to - from };
}

int tables_build(struct machine *m, struct pci_bus *bus)
{
	uint8_t *base =
	    memory_ptr(&m->mem, MPTABLE_ADDR, TABLES_END - MPTABLE_ADDR);
	bool mp, acpi, in_memory;
	struct out o;
	int err;

	if (config_get_bool(m->cfg, "x86.mptable", true, &mp) != 0 ||
	    config_get_bool(m->cfg, "acpi_tables", true, &acpi) != 0 ||
	    config_get_bool(m->cfg, "acpi_tables_in_memory", true, &in_memory) != 0)
		return -EINVAL;
	if (base == NULL) {
		log_error("memory.size: a PC needs at least 1M for its tables");
		return -EINVAL;
	}
	if (mp) {
		o = region(base, MPTABLE_ADDR, SMBIOS_ADDR);
		err = mptable_build(m, bus, &o);
		if (err != 0) {
			log_error("the MP table has no room for %u CPUs and their "
				  "devices "
				  "(-Y leaves it out)",
			    m->ncpu);
			return err;
		}
	}
	o = region(base, SMBIOS_ADDR, ACPI_ADDR);
	err = smbios_build(m, &o);
	if (err != 0) {
		log_error("the SMBIOS table is full: shorten the strings of the "
			  "keys bios.*, "
			  "system.*, board.* and chassis.*");
		return err;
	}
	if (acpi && in_memory) {
		o = region(base, ACPI_ADDR, TABLES_END);
		err = acpi_build(m, bus, &o);
		if (err != 0)
			log_error("the ACPI tables do not fit below 1 MiB");
	}
	memory_written(&m->mem, MPTABLE_ADDR, TABLES_END - MPTABLE_ADDR);
	return err;
}
