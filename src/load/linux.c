/*
 * Loads a bzImage: boot protocol 2.02 and later, 64-bit entry (xloadflags bit 0)
 * where the kernel has it, else the 32-bit entry. Field names and offsets are
 * those of Documentation/arch/x86/boot.rst and zero-page.rst.
 *
 * What the loader leaves besides kernel and initrd lies below 640K, in memory the
 * map calls usable: the kernel has copied it before it allocates there.
 * acpi_rsdp_addr stays 0: the kernel finds bhyve's tables by scanning
 * 0xE0000-0xFFFFF.
 */
#include "load/linux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/flat.h"
#include "vmm/memory.h"
#include "vmm/state.h"
#include "vmm/vmfile.h"

/* The setup header, offsets in the file and in the zero page. */
#define HDR_SETUP_SECTS    0x1f1
#define HDR_SYSSIZE        0x1f4
#define HDR_VID_MODE       0x1fa
#define HDR_BOOT_FLAG      0x1fe
#define HDR_JUMP           0x200
#define HDR_MAGIC          0x202
#define HDR_VERSION        0x206
#define HDR_TYPE_OF_LOADER 0x210
#define HDR_LOADFLAGS      0x211
#define HDR_CODE32_START   0x214
#define HDR_RAMDISK_IMAGE  0x218
#define HDR_RAMDISK_SIZE   0x21c
#define HDR_HEAP_END_PTR   0x224
#define HDR_EXT_LOADER     0x226
#define HDR_CMD_LINE_PTR   0x228
#define HDR_INITRD_MAX     0x22c
#define HDR_ALIGNMENT      0x230
#define HDR_RELOCATABLE    0x234
#define HDR_MIN_ALIGNMENT  0x235
#define HDR_XLOADFLAGS     0x236
#define HDR_CMDLINE_SIZE   0x238
#define HDR_SETUP_DATA     0x250
#define HDR_PREF_ADDRESS   0x258
#define HDR_INIT_SIZE      0x260
#define HDR_END_MAX        0x290 /* edd_mbr_sig_buffer follows in the zero page */

/* The rest of the zero page (struct boot_params). */
#define ZP_EXT_MEM_K      0x002
#define ZP_VIDEO_MODE     0x006
#define ZP_VIDEO_COLS     0x007
#define ZP_VIDEO_LINES    0x00e
#define ZP_VIDEO_VGA      0x00f
#define ZP_VIDEO_POINTS   0x010
#define ZP_ALT_MEM_K      0x1e0
#define ZP_E820_COUNT     0x1e8
#define ZP_E820           0x2d0

#define LOADFLAG_HIGH     0x01
#define LOADFLAG_KASLR    0x02
#define LOADFLAG_HEAP     0x80
#define XLF_KERNEL_64     0x0001
#define LOADER_GRUB       0x72
#define HEAP_END          (0x9000 - 0x200)
#define VIDEO_MODE_NORMAL 0xffff
#define INITRD_MAX_OLD    UINT64_C(0x37ffffff)
#define ENTRY64_OFFSET    0x200
#define BOUNDARY_1M       UINT64_C(0x100000)
#define LOW_USABLE        UINT64_C(0x9fc00) /* the kernel expects an EBDA above */

/* Where things lie below 640K, beside flat.h's. */
#define ADDR_ZERO     UINT64_C(0x7000)
#define ADDR_PML4     UINT64_C(0x9000) /* PML4, PDPT, then a directory for each GiB */
#define MAPPED_GIB    4u
#define ADDR_CMDLINE  UINT64_C(0x20000)
#define CMDLINE_LIMIT UINT64_C(0x10000)

static uint64_t get(const uint8_t *p, size_t off, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, p + off, bytes); /* the host is little-endian as the format is */
	return v;
}

static void put(uint8_t *p, size_t off, unsigned bytes, uint64_t v)
{
	memcpy(p + off, &v, bytes);
}

static int not_linux(const uint8_t *p, size_t len, struct load_error *e)
{
	const char *what = "no Linux boot header in it";

	if (len == 0)
		what = "the file is empty";
	else if (len >= 4 && memcmp(p, "\177ELF", 4) == 0)
		what = "an ELF file; wanted is the bzImage (vmlinuz), not vmlinux";
	else if (len >= 0x3c && memcmp(p + 0x38, "ARM\x64", 4) == 0)
		what = "a kernel for ARM, not for x86";
	else if (len >= 2 && memcmp(p, "\x1f\x8b", 2) == 0)
		what = "a gzip file";
	else if (len >= 2 && memcmp(p, "MZ", 2) == 0)
		what = "an EFI program without a Linux boot header";
	else if (len < HDR_INIT_SIZE + 4)
		what = "too short for a boot header";
	return load_fail(e, "not a Linux kernel: %s", what);
}

static int parse_placement(struct linux_kernel *k, struct load_error *e)
{
	const uint8_t *p = k->image;

	k->preferred = BOUNDARY_1M;
	k->align = MEMORY_PAGE;
	k->init_size = k->payload_len;
	if (k->version >= 0x205) {
		k->relocatable = p[HDR_RELOCATABLE] != 0;
		k->align = get(p, HDR_ALIGNMENT, 4);
		if (k->align == 0 || (k->align & (k->align - 1)) != 0 ||
		    k->align > MEMORY_LOW_LIMIT)
			return load_fail(e,
			    "damaged Linux kernel: alignment %#llx in its header",
			    (unsigned long long)k->align);
		k->align = MAX(k->align, (uint64_t)MEMORY_PAGE);
	}
	if (k->version >= 0x20a) {
		k->preferred = get(p, HDR_PREF_ADDRESS, 8);
		k->init_size = MAX(k->init_size, get(p, HDR_INIT_SIZE, 4));
		if (k->preferred < BOUNDARY_1M ||
		    k->preferred >= MEMORY_LOW_LIMIT) {
			if (!k->relocatable)
				return load_fail(e,
				    "a Linux kernel for load address %#llx, "
				    "where no memory can be",
				    (unsigned long long)k->preferred);
			k->preferred = ROUND_UP(BOUNDARY_1M, k->align);
		}
	} else if (k->version >= 0x205) {
		/* The kernel decompresses itself in place: leave it room. */
		k->init_size = MAX(k->init_size, 4 * (uint64_t)k->payload_len);
	}
	return 0;
}

int linux_parse(
    struct linux_kernel *k, const void *image, size_t len, struct load_error *e)
{
	const uint8_t *p = image;

	*k = (struct linux_kernel){ .image = p, .len = len };
	if (len < HDR_INIT_SIZE + 4 || get(p, HDR_BOOT_FLAG, 2) != 0xaa55 ||
	    memcmp(p + HDR_MAGIC, "HdrS", 4) != 0)
		return not_linux(p, len, e);
	k->version = (unsigned)get(p, HDR_VERSION, 2);
	if (k->version < 0x202)
		return load_fail(e,
		    "a Linux kernel of boot protocol %u.%02u; 2.02 or later is "
		    "needed",
		    k->version >> 8, k->version & 0xff);
	if ((p[HDR_LOADFLAGS] & LOADFLAG_HIGH) == 0)
		return load_fail(
		    e, "an old zImage that loads below 640K; a bzImage is needed");

	unsigned sects = p[HDR_SETUP_SECTS] == 0 ? 4 : p[HDR_SETUP_SECTS];
	k->payload = (sects + 1) * (size_t)512;
	k->header_end =
	    MIN((size_t)HDR_MAGIC + p[HDR_JUMP + 1], (size_t)HDR_END_MAX);
	uint64_t payload = k->version >= 0x204 ? get(p, HDR_SYSSIZE, 4) * 16 : 0;
	/* syssize counts 16-byte units, the last of which may be cut. */
	if (len <= k->payload || len - k->payload + 15 < payload)
		return load_fail(e, "truncated Linux kernel: %zu bytes of %llu",
		    len,
		    (unsigned long long)(k->payload + MAX(payload, UINT64_C(1))));
	k->payload_len = len - k->payload;
	if (payload > 0)
		k->payload_len = MIN(k->payload_len, payload);

	k->entry64 =
	    k->version >= 0x20c && (get(p, HDR_XLOADFLAGS, 2) & XLF_KERNEL_64) != 0;
	if (k->entry64 && k->payload_len <= ENTRY64_OFFSET)
		return load_fail(
		    e, "damaged Linux kernel: too short for its 64-bit entry");
	k->initrd_max =
	    k->version >= 0x203 ? get(p, HDR_INITRD_MAX, 4) : INITRD_MAX_OLD;
	k->cmdline_max = k->version >= 0x206 ? get(p, HDR_CMDLINE_SIZE, 4) : 255;
	k->cmdline_max = MIN(k->cmdline_max, CMDLINE_LIMIT - 1);
	return parse_placement(k, e);
}

/* An argument as GRUB's other loaders pass it: bytes appended to out, returns the
 * end. */
static char *quote(char *out, const char *arg)
{
	bool blank = strchr(arg, ' ') != NULL;

	if (blank)
		*out++ = '"';
	for (; *arg != '\0'; arg++) {
		if (*arg == '\\' || *arg == '\'' || *arg == '"')
			*out++ = '\\';
		*out++ = *arg;
	}
	if (blank)
		*out++ = '"';
	return out;
}

char *linux_cmdline(int argc, char *const argv[], bool no_console)
{
	size_t size = sizeof("console=ttyS0 BOOT_IMAGE=");

	for (int i = 0; i < argc; i++) {
		size += 2 * strlen(argv[i]) + 3;
		if (i > 0 && strncmp(argv[i], "console=", 8) == 0)
			no_console = true;
	}
	char *line = malloc(size);
	if (line == NULL)
		return NULL;
	char *p =
	    stpcpy(line, no_console ? "BOOT_IMAGE=" : "console=ttyS0 BOOT_IMAGE=");
	for (int i = 0; i < argc; i++) {
		if (i > 0)
			*p++ = ' ';
		p = quote(p, argv[i]);
	}
	*p = '\0';
	return line;
}

/* "mem=512M" tells the kernel to forget the memory above: no initrd may lie there.
 */
static uint64_t cmdline_mem(const char *cmdline)
{
	uint64_t limit = UINT64_MAX;

	for (const char *p = cmdline; (p = strstr(p, "mem=")) != NULL; p += 4) {
		if (p != cmdline && p[-1] != ' ')
			continue;
		char *end;
		uint64_t v = strtoull(p + 4, &end, 0);
		unsigned shift = *end == 'k' || *end == 'K'   ? 10
				 : *end == 'm' || *end == 'M' ? 20
				 : *end == 'g' || *end == 'G' ? 30
							      : 0;
		if (v > 0 && v <= UINT64_MAX >> shift)
			limit = MIN(limit, v << shift);
	}
	return limit;
}

struct layout {
	uint64_t kernel;
	uint64_t initrd;
};

static unsigned long long mib(uint64_t bytes)
{
	return (bytes + MiB - 1) / MiB;
}

static int place(const struct linux_boot *b, struct layout *l, struct load_error *e)
{
	const struct linux_kernel *k = b->kernel;
	uint64_t low = MIN(b->memory, MEMORY_LOW_LIMIT);

	l->kernel = k->preferred;
	if (k->relocatable && (l->kernel > low || k->init_size > low - l->kernel))
		l->kernel = ROUND_UP(BOUNDARY_1M, k->align);
	if (l->kernel > low || k->init_size > low - l->kernel)
		return load_fail(e,
		    "the kernel needs %llu MiB of memory, the guest has %llu: "
		    "give it more with -M",
		    mib(l->kernel + k->init_size), mib(b->memory));
	size_t len = strlen(b->cmdline);
	if (len > k->cmdline_max)
		return load_fail(e,
		    "the command line is %zu characters long; this kernel takes "
		    "at most %llu",
		    len, (unsigned long long)k->cmdline_max);

	l->initrd = 0;
	if (b->initrd_len == 0)
		return 0;
	uint64_t top = MIN(low, k->initrd_max + 1);
	top = MIN(top, cmdline_mem(b->cmdline));
	uint64_t bottom = ROUND_UP(l->kernel + k->init_size, (uint64_t)MEMORY_PAGE);
	if (b->initrd_len > UINT32_MAX || top < bottom ||
	    ROUND_DOWN(top, (uint64_t)MEMORY_PAGE) < bottom ||
	    b->initrd_len > ROUND_DOWN(top, (uint64_t)MEMORY_PAGE) - bottom)
		return load_fail(e,
		    "the initrd of %llu MiB does not fit: %llu MiB are free "
		    "beside the kernel in the guest's %llu MiB; give it more with "
		    "-M",
		    mib(b->initrd_len),
		    top < bottom ? 0 : (top - bottom) / (unsigned long long)MiB,
		    mib(b->memory));
	l->initrd = ROUND_DOWN(top - b->initrd_len, (uint64_t)MEMORY_PAGE);
	return 0;
}

int linux_check(const struct linux_boot *b, struct load_error *e)
{
	struct layout l;

	return place(b, &l, e);
}

static void add_e820(uint8_t *zp, uint64_t addr, uint64_t size)
{
	unsigned n = zp[ZP_E820_COUNT]++;
	uint8_t *entry = zp + ZP_E820 + n * 20;

	put(entry, 0, 8, addr);
	put(entry, 8, 8, size);
	put(entry, 16, 4, 1); /* usable RAM */
}

static void fill_zero_page(
    uint8_t *zp, const struct linux_boot *b, const struct layout *l)
{
	const struct linux_kernel *k = b->kernel;
	uint64_t low = MIN(b->memory, MEMORY_LOW_LIMIT);
	uint64_t above_1m = (low - BOUNDARY_1M) / KiB;

	memcpy(zp + HDR_SETUP_SECTS, k->image + HDR_SETUP_SECTS,
	    k->header_end - HDR_SETUP_SECTS);
	zp[HDR_TYPE_OF_LOADER] = LOADER_GRUB;
	zp[HDR_LOADFLAGS] &= (uint8_t)~LOADFLAG_KASLR;
	zp[HDR_LOADFLAGS] |= LOADFLAG_HEAP;
	put(zp, HDR_HEAP_END_PTR, 2, HEAP_END);
	put(zp, HDR_EXT_LOADER, 2, 0);
	put(zp, HDR_VID_MODE, 2, VIDEO_MODE_NORMAL);
	put(zp, HDR_CODE32_START, 4, l->kernel);
	put(zp, HDR_RAMDISK_IMAGE, 4, l->initrd);
	put(zp, HDR_RAMDISK_SIZE, 4, b->initrd_len);
	put(zp, HDR_CMD_LINE_PTR, 4, ADDR_CMDLINE);
	if (k->header_end >= HDR_SETUP_DATA + 8)
		put(zp, HDR_SETUP_DATA, 8, 0);

	put(zp, ZP_EXT_MEM_K, 2, MIN(above_1m, UINT64_C(0xffff)));
	put(zp, ZP_ALT_MEM_K, 4, above_1m);
	add_e820(zp, 0, LOW_USABLE);
	add_e820(zp, BOUNDARY_1M, low - BOUNDARY_1M);
	if (b->memory > low)
		add_e820(zp, MEMORY_HIGH_BASE, b->memory - low);

	if (!b->no_screen) {
		zp[ZP_VIDEO_MODE] = 3; /* 80x25 text */
		zp[ZP_VIDEO_COLS] = 80;
		zp[ZP_VIDEO_LINES] = 25;
		zp[ZP_VIDEO_VGA] = 1;
		put(zp, ZP_VIDEO_POINTS, 2, 16);
	}
}

static int write_page_tables(struct vmfile *vf)
{
	uint64_t table[512] = { (ADDR_PML4 + MEMORY_PAGE) |
				3 }; /* present, writable */
	uint64_t dirs = ADDR_PML4 + 2 * MEMORY_PAGE;

	int err = vmfile_write(vf, ADDR_PML4, table, sizeof(table));
	for (unsigned i = 0; i < MAPPED_GIB; i++)
		table[i] = (dirs + i * MEMORY_PAGE) | 3;
	if (err == 0)
		err =
		    vmfile_write(vf, ADDR_PML4 + MEMORY_PAGE, table, sizeof(table));
	for (unsigned i = 0; err == 0 && i < MAPPED_GIB; i++) {
		for (unsigned j = 0; j < 512; j++)
			table[j] = (i * GiB + j * 2 * MiB) | 0x83; /* 2 MiB page */
		err =
		    vmfile_write(vf, dirs + i * MEMORY_PAGE, table, sizeof(table));
	}
	return err;
}

static void entry_state(struct vcpu_state *s, bool entry64, uint64_t kernel)
{
	flat_state(s, entry64);
	s->gpr[GPR_RSI] = ADDR_ZERO;
	s->rip = kernel;
	if (entry64) {
		s->cr0 = 0x80000031; /* PG NE ET PE */
		s->cr3 = ADDR_PML4;
		s->cr4 = 0x20;   /* PAE */
		s->efer = 0x500; /* LMA LME */
		s->rip = kernel + ENTRY64_OFFSET;
	}
}

int linux_load(struct vmfile *vf, const struct linux_boot *b, struct load_error *e)
{
	const struct linux_kernel *k = b->kernel;
	uint8_t zp[MEMORY_PAGE] = { 0 };
	uint64_t gdt[FLAT_GDT_WORDS];
	struct vcpu_state s;
	struct layout l = { 0 };

	int err = place(b, &l, e);
	if (err != 0)
		return err;
	fill_zero_page(zp, b, &l);
	entry_state(&s, k->entry64, l.kernel);
	err = vmfile_write(vf, ADDR_ZERO, zp, sizeof(zp));
	if (err == 0)
		err = vmfile_write(
		    vf, ADDR_CMDLINE, b->cmdline, strlen(b->cmdline) + 1);
	flat_gdt(gdt, k->entry64);
	if (err == 0)
		err = vmfile_write(vf, FLAT_GDT, gdt, sizeof(gdt));
	if (err == 0 && k->entry64)
		err = write_page_tables(vf);
	if (err == 0)
		err = vmfile_write(
		    vf, l.kernel, k->image + k->payload, k->payload_len);
	if (err == 0 && b->initrd_len > 0)
		err = vmfile_write(vf, l.initrd, b->initrd, b->initrd_len);
	if (err == 0)
		err = vmfile_loaded(vf, &s);
	return err == 0 ? 0 : load_write_failed(e, err);
}
