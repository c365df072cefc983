/*
 * The PCI bus: option parsing, configuration space by both mechanisms, BARs that
 * the guest moves anywhere, MSI-X masking, INTx and PIRQ routing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "fake_machine.h"

#define MIB (UINT64_C(1) << 20)

/* A device with a BAR of each kind. */
static unsigned reads, writes;
static uint64_t last_off, last_value;
static struct pci_dev *toy;

static uint64_t toy_read(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size)
{
	(void)dev;
	(void)vcpu;
	(void)size;
	reads++;
	last_off = off;
	return 0x1000u * (unsigned)bar + off;
}

static void toy_write(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size, uint64_t v)
{
	(void)dev;
	(void)vcpu;
	(void)bar;
	(void)size;
	writes++;
	last_off = off;
	last_value = v;
}

static int toy_create(struct pci_dev *dev, const char *node)
{
	(void)node;
	toy = dev;
	pci_identify(dev, 0x1234, 0x5678, 0xff, 0, 0);
	assert_int_equal(pci_add_bar(dev, 0, PCI_BAR_IO, 24), 0);
	assert_int_equal(pci_add_bar(dev, 1, PCI_BAR_MEM32, 4096), 0);
	assert_int_equal(pci_add_bar(dev, 2, PCI_BAR_MEM64, 256 * MIB), 0);
	/* Nonsense is refused. */
	assert_int_not_equal(pci_add_bar(dev, 3, PCI_BAR_IO, 4), 0);
	assert_int_not_equal(pci_add_bar(dev, 0, PCI_BAR_IO, 4), 0);
	assert_int_not_equal(pci_add_bar(dev, 5, PCI_BAR_MEM64, 4096), 0);
	assert_int_not_equal(pci_add_bar(dev, -1, PCI_BAR_MEM32, 4096), 0);
	assert_int_not_equal(pci_add_msix(dev, 4, 5, 0), 0);
	assert_int_not_equal(pci_add_msix(dev, 2048, 1, 0), 0);
	assert_int_not_equal(pci_add_msi(dev, 3), 0);
	assert_int_equal(pci_add_msix(dev, 70, 1, 0x800), 0);
	assert_int_equal(pci_add_msi(dev, 4), 0);
	return pci_add_intx(dev);
}

static int toy_parse(struct config *cfg, const char *node, const char *text)
{
	return pci_parse_options(cfg, node, "a c d", text);
}

static const struct pci_class toy_class = {
	.name = "toy",
	.parse = toy_parse,
	.create = toy_create,
	.bar_read = toy_read,
	.bar_write = toy_write,
};
PCI_CLASS(toy_class);

static struct fake f;

static int setup(void **state)
{
	(void)state;
	reads = writes = 0;
	return fake_create(&f, 64 * MIB);
}

static int teardown(void **state)
{
	(void)state;
	fake_destroy(&f);
	return 0;
}

static void toys(void)
{
	assert_int_equal(fake_slot(&f, "0,hostbridge"), 0);
	assert_int_equal(fake_slot(&f, "1,lpc"), 0);
	assert_int_equal(fake_slot(&f, "2,toy"), 0);
	assert_int_equal(fake_slot(&f, "3,toy"), 0);
	assert_int_equal(fake_start(&f), 0);
}

static void test_options(void **state)
{
	static const char *const bad[] = { "3", "x,toy", "3:8,toy", "32,toy",
		"256:0:0,toy", "1:2:3:4,toy", "3,", "3,nothing", ",toy", "3:,toy",
		"-1,toy", "3,virtio-blk", "3,virtio-blk,", "3,ahci,disk.img",
		"3,ahci-hd", "99999999999999999999,toy", "3,toy,b", "3,toy,=1",
		"3,toy,a c", "3,virtio-blk,d.img,r", "3,virtio-blk,d.img,readonly",
		"3,ahci,hd:d.img,size=1", "3,virtio-rnd,ro", "3,hostbridge,id=1" };

	(void)state;
	assert_int_equal(fake_slot(&f, "3,toy,a=b,c,d=e=f"), 0);
	assert_string_equal(config_get(f.m.cfg, "pci.0.3.0.device"), "toy");
	assert_string_equal(config_get(f.m.cfg, "pci.0.3.0.a"), "b");
	assert_string_equal(config_get(f.m.cfg, "pci.0.3.0.c"), "true");
	assert_string_equal(config_get(f.m.cfg, "pci.0.3.0.d"), "e=f");
	assert_int_equal(fake_slot(&f, "4:1,toy"), 0);
	assert_string_equal(config_get(f.m.cfg, "pci.0.4.1.device"), "toy");
	assert_int_equal(fake_slot(&f, "2:31:7,toy"), 0);
	assert_string_equal(config_get(f.m.cfg, "pci.2.31.7.device"), "toy");
	/* Occupied. */
	assert_int_not_equal(fake_slot(&f, "3,toy"), 0);
	assert_int_not_equal(fake_slot(&f, "0:3:0,hostbridge"), 0);
	assert_int_equal(
	    fake_slot(&f, "5,virtio-blk,/x y/d.img,ro,sectorsize=512/4096"), 0);
	assert_string_equal(config_get(f.m.cfg, "pci.0.5.0.path"), "/x y/d.img");
	assert_string_equal(
	    config_get(f.m.cfg, "pci.0.5.0.sectorsize"), "512/4096");
	assert_int_equal(fake_slot(&f, "6,ahci,hd:/a,ser=1,cd:/b,cd:"), 0);
	assert_string_equal(config_get(f.m.cfg, "pci.0.6.0.port.0.type"), "hd");
	assert_string_equal(config_get(f.m.cfg, "pci.0.6.0.port.0.ser"), "1");
	assert_string_equal(config_get(f.m.cfg, "pci.0.6.0.port.1.path"), "/b");
	assert_string_equal(config_get(f.m.cfg, "pci.0.6.0.port.2.type"), "cd");
	assert_null(config_get(f.m.cfg, "pci.0.6.0.port.2.path"));
	assert_int_equal(fake_slot(&f, "7,ahci-cd,/c"), 0);
	assert_string_equal(config_get(f.m.cfg, "pci.0.7.0.device"), "ahci");
	assert_string_equal(config_get(f.m.cfg, "pci.0.7.0.port.0.path"), "/c");
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		/*
		 * A failed one leaves its slot unusable, so try each in a tree of
		 * its own.
		 */
		struct config *cfg = config_new();

		assert_true(pci_parse_slot(cfg, bad[i]) < 0);
		config_free(cfg);
	}
}

static void test_bad_trees(void **state)
{
	static const char *const bad[][2] = { { "pci.0.3.0.device", "nothing" },
		{ "pci.0.3.0.path", "/no/device/given" },
		{ "pci.0.32.0.device", "toy" }, { "pci.0.3.8.device", "toy" },
		{ "pci.256.3.0.device", "toy" }, { "pci.1.3.0.device", "lpc" },
		{ "pci.0.3.0.device", "virtio-blk" } };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		fake_destroy(&f);
		assert_int_equal(fake_create(&f, 64 * MIB), 0);
		assert_int_equal(config_set(f.m.cfg, bad[i][0], bad[i][1]), 0);
		assert_int_not_equal(fake_start(&f), 0);
		assert_null(f.pci);
	}
	/* Two LPC bridges. */
	fake_destroy(&f);
	assert_int_equal(fake_create(&f, 64 * MIB), 0);
	assert_int_equal(fake_slot(&f, "1,lpc"), 0);
	assert_int_equal(fake_slot(&f, "2,lpc"), 0);
	assert_int_not_equal(fake_start(&f), 0);
}

static void test_mechanisms(void **state)
{
	(void)state;
	assert_int_equal(fake_slot(&f, "4:1,toy"), 0);
	assert_int_equal(fake_slot(&f, "4,toy"), 0);
	assert_int_equal(fake_slot(&f, "5:0:0,amd_hostbridge"), 0);
	toys();
	assert_int_equal(fake_cfg_read(&f, 0, 0, 0, 0, 4), 0x12751275);
	assert_int_equal(fake_cfg_read(&f, 5, 0, 0, 0, 4), 0x74321022);
	assert_int_equal(fake_cfg_read(&f, 0, 1, 0, 0, 4), 0x70008086);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 2, 2), 0x5678);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 1, 1), 0x12);
	assert_int_equal(fake_cfg_read(&f, 0, 9, 0, 0, 4), 0xffffffff);
	assert_int_equal(fake_cfg_read(&f, 7, 2, 0, 0, 2), 0xffff);
	assert_int_equal(fake_cfg_read(&f, 0, 4, 0, 0xe, 1) & 0x80, 0x80);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0xe, 1) & 0x80, 0);
	/* The same by ECAM, all widths, and across registers. */
	assert_int_equal(fake_read(&f, 0xe0000000 + (2 << 15), 4), 0x56781234);
	assert_int_equal(fake_read(&f, 0xe0000000 + (2 << 15) + 3, 1), 0x56);
	assert_int_equal(
	    fake_read(&f, 0xe0000000 + (5 << 20), 8) & 0xffffffff, 0x74321022);
	assert_int_equal(fake_read(&f, 0xe0000000 + (9 << 15), 8), UINT64_MAX);
	assert_int_equal(
	    fake_read(&f, 0xe0000000 + (2 << 15) + 0xffc, 8), UINT64_MAX);
	fake_write(&f, 0xe0000000 + (2 << 15) + 0xffc, 8, UINT64_MAX);
	/* Identity is read-only. */
	fake_cfg_write(&f, 0, 2, 0, 0, 4, 0xdeadbeef);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0, 4), 0x56781234);
	/* The address register is a dword; the byte inside it is the reset port. */
	fake_out(&f, 0xcf8, 4, 0x80001000);
	fake_out(&f, 0xcf9, 1, 6);
	assert_int_equal(f.reset_control, 6);
	assert_int_equal(fake_in(&f, 0xcf9, 1), 6);
	assert_int_equal(fake_in(&f, 0xcf8, 4), 0x80001000);
	fake_out(&f, 0xcf8, 4, 0x00001000);
	assert_int_equal(fake_in(&f, 0xcfc, 4), 0xffffffff);
	/* Every register of every function, with ones. */
	for (unsigned off = 0; off < 0x6000; off++)
		fake_write(&f, 0xe0000000 + off * 4, 4, 0xffffffff);
	fake_cfg_write(&f, 0, 2, 0, 4, 2, 0);
}

static void test_bars(void **state)
{
	uint64_t io, mem, mem64;

	(void)state;
	toys();
	io = fake_bar(&f, 2, 0);
	mem = fake_bar(&f, 2, 1);
	mem64 = fake_bar(&f, 2, 2) | (uint64_t)fake_cfg_read(&f, 0, 2, 0, 0x1c, 4)
					 << 32;
	assert_true(io >= 0x2000 && io < 0x10000 && io % 32 == 0);
	assert_true(mem >= 0xc0000000 && mem < 0xe0000000 && mem % 4096 == 0);
	assert_true(mem64 >= pci_mem64_base(&f.m) && mem64 % (256 * MIB) == 0);
	assert_int_equal(fake_in(&f, (uint16_t)io + 3, 1), 3);
	assert_int_equal(fake_read(&f, mem + 8, 4), 0x1008);
	assert_int_equal(fake_read(&f, mem64 + 255 * MIB, 4), 255 * MIB + 0x2000);
	fake_write(&f, mem + 16, 2, 0x12345678);
	assert_int_equal(last_value, 0x5678);
	/* Sizing. */
	for (unsigned i = 0; i < 4; i++)
		fake_cfg_write(&f, 0, 2, 0, 0x10 + 4 * i, 4, 0xffffffff);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0x10, 4), 0x0000ffe1);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0x14, 4), 0xfffff000);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0x18, 4), 0xf0000004);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0x1c, 4), 0xffffffff);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0x20, 4), 0);
	/* Moved: there, and no longer here. */
	fake_cfg_write(&f, 0, 2, 0, 0x14, 4, 0xd0000000);
	assert_int_equal(fake_read(&f, 0xd0000004, 4), 0x1004);
	reads = 0;
	assert_int_equal(fake_read(&f, mem + 8, 4), 0xffffffff);
	assert_int_equal(reads, 0);
	/* Decoding off and on. */
	fake_cfg_write(&f, 0, 2, 0, 4, 2, 0x4);
	assert_int_equal(fake_read(&f, 0xd0000004, 4), 0xffffffff);
	fake_cfg_write(&f, 0, 2, 0, 4, 2, 0x7);
	assert_int_equal(fake_read(&f, 0xd0000004, 4), 0x1004);
}

static uint64_t chip_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	(void)arg;
	(void)vcpu;
	(void)off;
	(void)size;
	return 0x11;
}

/* A BAR may be put anywhere; nothing that was there suffers. */
static void test_bar_conflicts(void **state)
{
	static const uint32_t places[] = { 0, 0x1000, 64 * 1024 * 1024 - 4096,
		0xe0000000, 0xefff0000, 0xfec00000, 0xfee00000, 0xfeefe000,
		0xfffff000, 0xfed00000 };

	(void)state;
	assert_int_equal(bus_add(f.m.mmio, "ioapic", 0xfec00000, 0x1000, 0,
			     chip_read, NULL, NULL),
	    0);
	toys();
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		fake_cfg_write(&f, 0, 2, 0, 0x14, 4, places[i]);
		assert_int_equal(fake_read(&f, 0xfec00000, 1), 0x11);
		assert_int_equal(
		    fake_read(&f, 0xe0000000 + (2 << 15), 4), 0x56781234);
	}
	/*
	 * Over another device's: who was there stays, and the other gets in after.
	 */
	uint64_t other = fake_bar(&f, 3, 1);

	fake_cfg_write(&f, 0, 2, 0, 0x14, 4, (uint32_t)other);
	struct pci_dev *first = pci_find(f.pci, "toy");

	assert_false(first->bar[1].mapped);
	assert_true(first->next->bar[1].mapped);
	fake_cfg_write(&f, 0, 3, 0, 0x14, 4, 0xd8000000);
	assert_true(first->bar[1].mapped);
	assert_int_equal(first->bar[1].addr, other);
	/* I/O over the configuration ports, and at the very end. */
	fake_cfg_write(&f, 0, 2, 0, 0x10, 4, 0xce0);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0, 4), 0x56781234);
	fake_cfg_write(&f, 0, 2, 0, 0x10, 4, 0xffffffe0);
	assert_true(first->bar[0].mapped);
	assert_int_equal(fake_in(&f, 0xffff, 1), 31);
	/*
	 * 64-bit: at the end of all addresses, over high memory's place, half
	 * written.
	 */
	fake_cfg_write(&f, 0, 2, 0, 0x1c, 4, 0xffffffff);
	fake_cfg_write(&f, 0, 2, 0, 0x18, 4, 0xf0000000);
	fake_cfg_write(&f, 0, 2, 0, 0x1c, 4, 0);
	assert_int_equal(fake_read(&f, 0xe0000000 + (2 << 15), 4), 0x56781234);
	fake_cfg_write(&f, 0, 2, 0, 0x18, 4, 0);
	assert_false(first->bar[2].mapped);
}

static void test_msix(void **state)
{
	uint64_t t;
	unsigned cap = 0x40;

	(void)state;
	toys();
	toy = pci_find(f.pci, "toy");
	t = fake_bar(&f, 2, 1) + 0x800;
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, cap, 1), 0x11);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, cap + 2, 2), 69);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, cap + 4, 4), 0x801);
	/* The table never reaches the device; what is beside it does. */
	reads = 0;
	fake_read(&f, t, 4);
	fake_read(&f, t + 70 * 16 + 15, 1);
	assert_int_equal(reads, 0);
	fake_read(&f, t - 4, 4);
	fake_read(&f, t + 70 * 16 + 16, 4);
	assert_int_equal(reads, 2);
	/* All masked at reset; not enabled: nothing, not even pending. */
	assert_int_equal(fake_read(&f, t + 69 * 16 + 12, 4), 1);
	pci_msix_fire(toy, 69);
	fake_cfg_write(&f, 0, 2, 0, cap + 2, 2, 0xc000);
	assert_int_equal(fake_read(&f, t + 70 * 16 + 8, 8), 0);
	fake_write(&f, t + 69 * 16, 4, 0xfee00003);
	fake_write(&f, t + 69 * 16 + 4, 4, 1);
	fake_write(&f, t + 69 * 16 + 8, 8, 0x77);
	pci_msix_fire(toy, 69);
	pci_msix_fire(toy, 70);
	pci_msix_fire(toy, 0xffffffff);
	assert_int_equal(f.msis, 0);
	assert_int_equal(fake_read(&f, t + 70 * 16 + 8, 8), 1 << 5);
	/* The pending bits are not the guest's to set. */
	fake_write(&f, t + 70 * 16, 8, UINT64_MAX);
	fake_cfg_write(&f, 0, 2, 0, cap + 2, 2, 0x8000);
	assert_int_equal(f.msis, 1);
	assert_int_equal(f.msi_addr, 0x1fee00000);
	assert_int_equal(f.msi_data, 0x77);
	assert_int_equal(fake_read(&f, t + 70 * 16 + 8, 8), 0);
	/* Bytes and misaligned accesses are undefined and harmless. */
	fake_write(&f, t + 69 * 16 + 12, 1, 1);
	fake_write(&f, t + 69 * 16 + 2, 4, 1);
	assert_int_equal(fake_read(&f, t + 69 * 16 + 12, 1), 0xff);
	pci_msix_fire(toy, 69);
	assert_int_equal(f.msis, 2);
	/* No mastering, no message. */
	fake_cfg_write(&f, 0, 2, 0, 4, 2, 3);
	pci_msix_fire(toy, 69);
	assert_int_equal(f.msis, 2);
	assert_null(pci_dma(toy, 0, 16));
}

static void test_msi(void **state)
{
	unsigned cap;

	(void)state;
	toys();
	toy = pci_find(f.pci, "toy");
	cap = fake_cfg_read(&f, 0, 2, 0, 0x41, 1);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, cap, 1), 5);
	pci_msi_fire(toy, 0);
	assert_int_equal(f.msis, 0);
	fake_cfg_write(&f, 0, 2, 0, cap + 4, 4, 0xfee00007);
	fake_cfg_write(&f, 0, 2, 0, cap + 8, 4, 0);
	fake_cfg_write(&f, 0, 2, 0, cap + 12, 2, 0x43);
	/* More than it has: four. */
	fake_cfg_write(&f, 0, 2, 0, cap + 2, 2, 0x71);
	assert_int_equal(pci_msi_count(toy), 4);
	pci_msi_fire(toy, 2);
	assert_int_equal(f.msi_addr, 0xfee00004);
	assert_int_equal(f.msi_data, 0x42);
	pci_msi_fire(toy, 400);
	assert_int_equal(f.msi_data, 0x40);
}

static void test_intx(void **state)
{
	struct pci_dev *a, *b;

	(void)state;
	toys();
	a = pci_find(f.pci, "toy");
	b = a->next;
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 0x3d, 1), 1);
	assert_int_equal(a->intx_gsi, 16);
	assert_int_equal(b->intx_gsi, 17);
	unsigned irq = fake_cfg_read(&f, 0, 2, 0, 0x3c, 1);

	assert_int_equal(irq, fake_cfg_read(&f, 0, 1, 0, 0x60, 1));
	pci_intx(a, true);
	assert_true(f.gsi[16]);
	assert_true(f.isa[irq]);
	assert_int_equal(fake_cfg_read(&f, 0, 2, 0, 6, 2) & 8, 8);
	/* Routed elsewhere, off, and to an interrupt that PCI must not have. */
	fake_cfg_write(&f, 0, 1, 0, 0x60, 1, 9);
	assert_false(f.isa[irq]);
	assert_true(f.isa[9]);
	fake_cfg_write(&f, 0, 1, 0, 0x60, 1, 0x80);
	assert_false(f.isa[9]);
	fake_cfg_write(&f, 0, 1, 0, 0x60, 1, 0);
	assert_false(f.isa[0]);
	/* Two PIRQs on one ISA interrupt: an OR. */
	fake_cfg_write(&f, 0, 1, 0, 0x60, 2, 0x0b0b);
	pci_intx(b, true);
	pci_intx(a, false);
	assert_true(f.isa[11]);
	pci_intx(b, false);
	assert_false(f.isa[11]);
	/* Disabled in the command register; MSI-X on. */
	pci_intx(a, true);
	fake_cfg_write(&f, 0, 2, 0, 4, 2, 0x407);
	assert_false(f.gsi[16]);
	fake_cfg_write(&f, 0, 2, 0, 4, 2, 0x7);
	assert_true(f.gsi[16]);
	fake_cfg_write(&f, 0, 2, 0, 0x42, 2, 0x8000);
	assert_false(f.gsi[16]);
	fake_cfg_write(&f, 0, 2, 0, 0x42, 2, 0);
	assert_true(f.gsi[16]);
	/* E-H have registers of their own. */
	fake_cfg_write(&f, 0, 1, 0, 0x68, 4, 0x0a0b0c05);
	assert_int_equal(fake_cfg_read(&f, 0, 1, 0, 0x68, 4), 0x0a0b0c05);
}

/*
 * Eighteen devices on sixteen pins: shared lines stay up while one device holds
 * them.
 */
static void test_shared_pins(void **state)
{
	char text[32];

	(void)state;
	for (unsigned s = 2; s < 20; s++) {
		snprintf(text, sizeof(text), "%u,toy", s);
		assert_int_equal(fake_slot(&f, text), 0);
	}
	assert_int_equal(fake_start(&f), 0);
	struct pci_dev *a = pci_find(f.pci, "toy"), *b = a;

	for (unsigned i = 0; i < 16; i++)
		b = b->next;
	assert_int_equal(a->intx_gsi, b->intx_gsi);
	pci_intx(a, true);
	pci_intx(b, true);
	pci_intx(b, true);
	pci_intx(a, false);
	assert_true(f.gsi[16]);
	pci_intx(b, false);
	assert_false(f.gsi[16]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_options, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_trees, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mechanisms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bars, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_bar_conflicts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msi, setup, teardown),
		cmocka_unit_test_setup_teardown(test_intx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared_pins, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
