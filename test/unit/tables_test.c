/*
 * The tables in guest memory as a guest finds them: signatures, checksums, links;
 * the AML is read back by iasl.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bhyve/tables/tables.h"
#include "fake_machine.h"
#include "vmm/chipset/chipset.h"

uint32_t hpet_capabilities(void)
{
	return 0x8086a701;
}

static struct fake f;
static char dir[] = "/tmp/tables_test.XXXXXX";

static void start(unsigned ncpu, uint64_t ram, const char *const *keys)
{
	assert_int_equal(fake_create(&f, ram), 0);
	f.m.ncpu = f.m.sockets = ncpu;
	f.m.cores = f.m.threads = 1;
	f.m.tsc_hz = 2500000000;
	for (; keys != NULL && *keys != NULL; keys++)
		assert_int_equal(config_parse_option(f.m.cfg, *keys), 0);
	assert_int_equal(fake_slot(&f, "0,hostbridge"), 0);
	assert_int_equal(fake_slot(&f, "1,lpc"), 0);
	assert_int_equal(fake_slot(&f, "3,virtio-rnd"), 0);
	assert_int_equal(fake_slot(&f, "4,virtio-rnd"), 0);
	assert_int_equal(fake_slot(&f, "4:1,virtio-rnd"), 0);
	assert_int_equal(fake_start(&f), 0);
}

static uint8_t sum(uint64_t at, uint32_t len)
{
	const uint8_t *p = fake_ram(&f, at);
	uint8_t s = 0;

	assert_true(at >= 0xf0000 && at + len <= 0x100000);
	while (len-- > 0)
		s = (uint8_t)(s + *p++);
	return s;
}

static uint32_t get32(uint64_t at)
{
	uint32_t v;

	memcpy(&v, fake_ram(&f, at), 4);
	return v;
}

static uint32_t get16(uint64_t at)
{
	return get32(at) & 0xffff;
}

static uint64_t find(const char *signature)
{
	uint64_t xsdt = get32(0xf2400 + 24);
	uint32_t n = (get32(xsdt + 4) - 36) / 8;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t t = get32(xsdt + 36 + i * 8);

		assert_int_equal(
		    get32(get32(0xf2400 + 16) + 36 + i * 4), t); /* RSDT */
		if (memcmp(fake_ram(&f, t), signature, 4) == 0)
			return t;
	}
	return 0;
}

static void check_table(uint64_t at, const char *signature)
{
	assert_true(at != 0);
	assert_memory_equal(fake_ram(&f, at), signature, 4);
	assert_int_equal(sum(at, get32(at + 4)), 0);
	assert_memory_equal(fake_ram(&f, at + 10), "BHYVE ", 6);
	assert_int_equal(at % 16, 0);
}

static void dump(uint64_t at, const char *name)
{
	char path[64];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
	out = fopen(path, "w");
	assert_non_null(out);
	assert_int_equal(fwrite(fake_ram(&f, at), get32(at + 4), 1, out), 1);
	fclose(out);
}

static void test_acpi(void **state)
{
	static const char *const keys[] = { "lpc.com1.path=stdio", NULL };
	uint64_t t, facp;
	char cmd[1024];

	(void)state;
	start(4, 64 * MiB, keys);
	assert_int_equal(tables_build(&f.m, f.pci), 0);
	assert_memory_equal(fake_ram(&f, 0xf2400), "RSD PTR ", 8);
	assert_int_equal(sum(0xf2400, 20), 0);
	assert_int_equal(sum(0xf2400, 36), 0);
	check_table(get32(0xf2400 + 16), "RSDT");
	check_table(get32(0xf2400 + 24), "XSDT");
	/* The FADT comes first. */
	facp = find("FACP");
	assert_int_equal(get32(get32(0xf2400 + 24) + 36), facp);
	check_table(facp, "FACP");
	assert_int_equal(get32(facp + 4), 268);
	assert_int_equal(get16(facp + 46), 9);
	assert_int_equal(get32(facp + 48), 0xb2);
	assert_int_equal(get32(facp + 56), 0x400);
	assert_int_equal(get32(facp + 64), 0x404);
	assert_int_equal(get32(facp + 76), 0x408);
	assert_int_equal(get32(facp + 80), 0x40c);
	assert_int_equal(get32(facp + 88), 0x04000204);
	assert_int_equal(get16(facp + 92), 2);
	assert_int_equal(get32(facp + 112), 0x81525);
	assert_int_equal(get32(facp + 120), 0xcf9);
	assert_int_equal(get32(facp + 128) & 0xff, 6);
	t = get32(facp + 36);
	assert_int_equal(t % 64, 0);
	assert_memory_equal(fake_ram(&f, t), "FACS", 4);
	check_table(get32(facp + 40), "DSDT");
	assert_int_equal(get32(facp + 140), get32(facp + 40));
	t = find("APIC");
	check_table(t, "APIC");
	assert_int_equal(get32(t + 4), 44 + 4 * 8 + 12 + 2 * 10 + 6);
	check_table(find("HPET"), "HPET");
	t = find("MCFG");
	check_table(t, "MCFG");
	assert_int_equal(get32(t + 44), 0xe0000000);
	check_table(find("SPCR"), "SPCR");
	assert_int_equal(get32(find("SPCR") + 4), 80);
	check_table(find("SSDT"), "SSDT");

	/* iasl reads them back, with the SSDT's names resolved. */
	dump(get32(facp + 40), "dsdt");
	dump(find("SSDT"), "ssdt");
	snprintf(cmd, sizeof(cmd),
	    "cd %s && iasl -e ssdt.aml -d dsdt.aml >log 2>&1 && iasl -d ssdt.aml "
	    ">log 2>&1 && "
	    "grep -q 'PRTA, Package (0x03)' ssdt.dsl && grep -q LNKC ssdt.dsl && "
	    "grep -q 'LPCA, 0x0000000000010000)' ssdt.dsl && grep -q PNP0A03 "
	    "dsdt.dsl",
	    dir);
	assert_int_equal(system(cmd), 0);
	/* ACPICA evaluates what a guest would ask. */
	snprintf(cmd, sizeof(cmd),
	    "cd %s && acpiexec -b 'execute \\_SB.PC00._PRT;execute \\_PIC 1;"
	    "execute \\_SB.PC00._PRT;execute \\_SB.PC00._CRS;"
	    "execute \\_SB.PC00.ISA._ADR;execute \\_SB.PC00.COM1._STA' "
	    "dsdt.aml ssdt.aml >log 2>&1 && ! grep -q 'Exception\\|Error\\|AE_' "
	    "log && "
	    "grep -q 'Name LNKB' log && grep -q '= 0000000000000011' log && "
	    "grep -q '= 0000000000010000' log && grep -q '= 000000000000000F' log",
	    dir);
	assert_int_equal(system(cmd), 0);
	dump(facp, "facp");
	dump(find("APIC"), "apic");
	snprintf(cmd, sizeof(cmd),
	    "cd %s && iasl -d facp.aml >log 2>&1 && iasl -d apic.aml >log 2>&1 && "
	    "grep -q 'RTC Century Index : 32' facp.dsl && "
	    "grep -q 'Processor ID : 03' apic.dsl && ! grep -qi 'invalid' facp.dsl "
	    "apic.dsl",
	    dir);
	assert_int_equal(system(cmd), 0);
	fake_destroy(&f);
}

static void test_without(void **state)
{
	static const char *const keys[] = { "acpi_tables=false",
		"x86.mptable=false", NULL };

	(void)state;
	start(1, 16 * MiB, keys);
	assert_int_equal(tables_build(&f.m, f.pci), 0);
	assert_int_equal(get32(0xf2400), 0);
	assert_int_equal(get32(0xf0000), 0);
	assert_int_not_equal(get32(0xf1000), 0);
	fake_destroy(&f);
	/* No console on COM1: no SPCR. */
	start(1, 16 * MiB, NULL);
	assert_int_equal(tables_build(&f.m, f.pci), 0);
	assert_int_equal(find("SPCR"), 0);
	check_table(find("SSDT"), "SSDT");
	fake_destroy(&f);
	start(1, 64 * KiB, NULL);
	assert_int_not_equal(tables_build(&f.m, f.pci), 0);
	fake_destroy(&f);
}

static void test_mptable(void **state)
{
	unsigned entries, cpus = 0, ints = 0, pci = 0;
	uint64_t at = 0xf0010 + 44, end;

	(void)state;
	start(64, 16 * MiB, NULL);
	assert_int_equal(tables_build(&f.m, f.pci), 0);
	assert_memory_equal(fake_ram(&f, 0xf0000), "_MP_", 4);
	assert_int_equal(sum(0xf0000, 16), 0);
	assert_int_equal(get32(0xf0004), 0xf0010);
	assert_memory_equal(fake_ram(&f, 0xf0010), "PCMP", 4);
	assert_int_equal(sum(0xf0010, get16(0xf0014)), 0);
	assert_memory_equal(fake_ram(&f, 0xf0018), "BHyVe   Hypervisor  ", 20);
	entries = get16(0xf0010 + 34);
	end = 0xf0010 + get16(0xf0014);
	while (entries-- > 0) {
		uint8_t type = (uint8_t)get16(at);

		cpus += type == 0;
		ints += type == 3;
		pci += type == 3 && get16(at + 4) % 256 == 0;
		assert_in_range(type, 0, 4);
		at += type == 0 ? 20 : 8;
	}
	assert_int_equal(at, end);
	assert_int_equal(cpus, 64);
	assert_int_equal(pci, 3);
	assert_int_equal(ints, 16 + 3);
	fake_destroy(&f);
}

static void test_smbios(void **state)
{
	static const char *const keys[] = {
		"uuid=12345678-9abc-def0-1122-334455667788",
		"system.product_name=Thing", NULL
	};
	static const uint8_t uuid[16] = { 0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0,
		0xde, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88 };
	unsigned count, seen = 0;
	uint64_t at, end;
	char first[16];

	(void)state;
	start(2, 16 * MiB, keys);
	assert_int_equal(tables_build(&f.m, f.pci), 0);
	assert_memory_equal(fake_ram(&f, 0xf1000), "_SM_", 4);
	assert_int_equal(sum(0xf1000, 31), 0);
	assert_int_equal(sum(0xf1010, 15), 0);
	at = get32(0xf1018);
	end = at + get16(0xf1016);
	count = get16(0xf101c);
	while (count-- > 0) {
		const uint8_t *s = fake_ram(&f, at);
		unsigned i = s[1];

		seen |= s[0] < 32 ? BIT(s[0]) : 0;
		if (s[0] == 1) {
			assert_memory_equal(s + 8, uuid, 16);
			assert_string_equal((const char *)s + i, "FreeBSD");
			assert_string_equal((const char *)s + i + 8, "Thing");
		}
		assert_true(s[0] != 4 || s[1] == 42);
		assert_true(s[0] != 17 || s[1] == 28);
		while (s[i] != 0 || s[i + 1] != 0)
			i++;
		at += i + 2;
		assert_true(at <= end);
	}
	assert_int_equal(at, end);
	assert_int_equal(seen, BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(4) |
				   BIT(16) | BIT(17) | BIT(19));
	fake_destroy(&f);

	/* The default is the same each time, and a version 3 UUID. */
	for (unsigned i = 0; i < 2; i++) {
		start(1, 16 * MiB, NULL);
		assert_int_equal(config_set(f.m.cfg, "name", "vm"), 0);
		assert_int_equal(tables_build(&f.m, f.pci), 0);
		at = get32(0xf1018);
		at += 24; /* BIOS: its strings follow */
		while (get16(at) != 0)
			at++;
		at += 2;
		if (i == 0)
			memcpy(first, fake_ram(&f, at + 8), 16);
		assert_memory_equal(fake_ram(&f, at + 8), first, 16);
		assert_int_equal((uint8_t)first[7] >> 4, 3);
		assert_int_equal((uint8_t)first[8] >> 6, 2);
		fake_destroy(&f);
	}
}

static void test_smbios_too_long(void **state)
{
	static char key[6000] = "bios.vendor=";
	const char *const keys[] = { key, NULL };

	(void)state;
	memset(key + strlen(key), 'x', sizeof(key) - strlen(key) - 1);
	start(1, 16 * MiB, keys);
	assert_int_not_equal(tables_build(&f.m, f.pci), 0);
	assert_int_equal(get32(0xf2400), 0); /* nothing beyond its place */
	fake_destroy(&f);
	start(64, 16 * MiB, NULL);
	assert_int_equal(tables_build(&f.m, f.pci), 0);
	fake_destroy(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_acpi),
		cmocka_unit_test(test_without),
		cmocka_unit_test(test_mptable),
		cmocka_unit_test(test_smbios),
		cmocka_unit_test(test_smbios_too_long),
	};
	char cmd[64];
	int failed;

	if (mkdtemp(dir) == NULL)
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd) != 0 || failed;
}
