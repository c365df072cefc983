/*
 * NetBSD kernels for i386 and amd64, as NetBSD's boot(8) starts them: 32-bit entry,
 * seven words on the stack, a table of records (NetBSD's x86/include/bootinfo.h).
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/util.h"
#include "load/elf_image.h"
#include "load/kernel.h"
#include "load/plan.h"

#define KERNEL_MASK      UINT64_C(0x0fffffff)
#define STACK_WORDS      7u
#define STACK_ADDR       (UINT64_C(0x80000) - STACK_WORDS * 4)
#define INFO_ADDR        UINT64_C(0x20000)
#define INFO_MAX         4096u /* that many bytes the kernel keeps */
#define RECORDS_MAX      8u
#define RECORDS_AT       (4 + 4 * RECORDS_MAX)
#define BTINFO_ROOT      1u
#define BTINFO_CONSOLE   6u
#define BTINFO_SYMTAB    8u
#define BTINFO_MEMMAP    9u
#define BTINFO_MODULES   10u
#define NAME_LEN         16u
#define MODULE_PATH_LEN  80u
#define MODULE_ENTRY_LEN (MODULE_PATH_LEN + 12)
#define MODULE_ELF       1u
#define MODULE_FS        4u
#define MAP_RAM          1u
#define SPEED_DEFAULT    9600u

static const struct kernel_option options[] = {
	{ 'a', "askname", 0x1, OPTION_FLAG },
	{ 's', "single", 0x2, OPTION_FLAG },
	{ 'b', "halt", 0x8, OPTION_FLAG },
	{ 'd', "kdb", 0x40, OPTION_FLAG },
	{ 'm', "miniroot", 0x200, OPTION_FLAG },
	{ 'c', "config", 0x1000, OPTION_FLAG },
	{ 'q', "quiet", 0x10000, OPTION_FLAG },
	{ 'v', "verbose", 0x20000, OPTION_FLAG },
	{ 'z', "silent", 0x40000, OPTION_FLAG },
	{ 'x', "debug", 0x80000, OPTION_FLAG },
	{ '1', "no-smp", 0x10000000, OPTION_FLAG },
	{ '2', "no-acpi", 0x20000000, OPTION_FLAG },
	{ 'h', "serial", 0, OPTION_SERIAL },
	{ 'r', "root", 0, OPTION_ROOT },
};

/* The table: how many records, their addresses; behind it the records. */
struct info {
	uint8_t *buf;
	size_t len;
	uint32_t records;
	bool full;
};

/* Room for a record of len bytes besides its head; NULL: none. */
static uint8_t *record(struct info *i, uint32_t type, size_t len)
{
	uint32_t head[2] = { (uint32_t)(8 + len), type };

	if (i->records == RECORDS_MAX || 8 + len > INFO_MAX - i->len) {
		i->full = true;
		return NULL;
	}
	uint8_t *at = i->buf + i->len;
	uint32_t addr = (uint32_t)(INFO_ADDR + i->len);
	memcpy(at, head, sizeof(head));
	memcpy(i->buf + 4 + i->records * 4, &addr, 4);
	i->records++;
	memcpy(i->buf, &i->records, 4);
	i->len += ROUND_UP(8 + len, (size_t)4);
	return at + 8;
}

static void put32(uint8_t *at, uint32_t v)
{
	memcpy(at, &v, 4);
}

static void add_console(struct info *i, const struct kernel *k)
{
	uint8_t *r = record(i, BTINFO_CONSOLE, NAME_LEN + 8);

	if (r == NULL)
		return;
	memcpy(r, k->serial.set ? "com" : "pc\0", 3);
	put32(r + NAME_LEN, k->serial.set ? k->serial.port : 0);
	put32(r + NAME_LEN + 4, k->serial.set ? k->serial.speed : SPEED_DEFAULT);
}

static void add_root(struct info *i, const struct kernel *k)
{
	uint8_t *r = k->root[0] == '\0' ? NULL : record(i, BTINFO_ROOT, NAME_LEN);

	if (r != NULL)
		memcpy(r, k->root, strlen(k->root));
}

static void add_map(struct info *i, const struct plan *p)
{
	struct plan_range map[PLAN_RANGES];
	unsigned n = plan_memory_map(p, map);
	uint8_t *r = record(i, BTINFO_MEMMAP, 4 + n * 20);

	if (r == NULL)
		return;
	put32(r, n);
	for (unsigned j = 0; j < n; j++) {
		memcpy(r + 4 + j * 20, &map[j].base, 8);
		memcpy(r + 4 + j * 20 + 8, &map[j].len, 8);
		put32(r + 4 + j * 20 + 16, MAP_RAM);
	}
}

/* Headers for a symbol table and its names, which follow them; how many bytes. */
static size_t symbol_headers(const struct elf_image *f, uint64_t table_len,
    uint64_t names_len, uint8_t *out)
{
	const uint64_t len32 = sizeof(Elf32_Ehdr) + 3 * sizeof(Elf32_Shdr);
	const uint64_t len64 = sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Shdr);
	const struct {
		Elf32_Ehdr head;
		Elf32_Shdr section[3];
	} h32 = {
		.head = { .e_type = ET_EXEC, .e_machine = EM_386,
		    .e_version = EV_CURRENT, .e_shoff = sizeof(Elf32_Ehdr),
		    .e_ehsize = sizeof(Elf32_Ehdr),
		    .e_shentsize = sizeof(Elf32_Shdr), .e_shnum = 3 },
		.section[1] = { .sh_type = SHT_SYMTAB, .sh_link = 2,
		    .sh_offset = (uint32_t)len32, .sh_size = (uint32_t)table_len,
		    .sh_entsize = sizeof(Elf32_Sym) },
		.section[2] = { .sh_type = SHT_STRTAB,
		    .sh_offset = (uint32_t)(len32 + table_len),
		    .sh_size = (uint32_t)names_len },
	};
	const struct {
		Elf64_Ehdr head;
		Elf64_Shdr section[3];
	} h64 = {
		.head = { .e_type = ET_EXEC, .e_machine = EM_X86_64,
		    .e_version = EV_CURRENT, .e_shoff = sizeof(Elf64_Ehdr),
		    .e_ehsize = sizeof(Elf64_Ehdr),
		    .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3 },
		.section[1] = { .sh_type = SHT_SYMTAB, .sh_link = 2,
		    .sh_offset = len64, .sh_size = table_len,
		    .sh_entsize = sizeof(Elf64_Sym) },
		.section[2] = { .sh_type = SHT_STRTAB,
		    .sh_offset = len64 + table_len, .sh_size = names_len },
	};

	if (out != NULL) {
		memcpy(out, f->is64 ? (const void *)&h64 : &h32,
		    f->is64 ? len64 : len32);
		memcpy(out, f->data, EI_NIDENT);
	}
	return f->is64 ? len64 : len32;
}

/*
 * The kernel's symbols, in the form of an ELF file with nothing else in it, behind
 * the kernel: it links its modules with them. *end: where they end.
 */
static int add_symbols(struct info *i, const struct elf_image *f, struct plan *p,
    uint32_t *end, struct load_error *e)
{
	struct elf_section table, names;
	uint64_t at;

	if (!elf_symbol_table(f, &table, &names))
		return 0;
	size_t heads = symbol_headers(f, table.size, names.size, NULL);
	/* Both lie in the file, so their sum is no larger than twice that. */
	size_t len = ROUND_UP(
	    heads + (size_t)table.size + (size_t)names.size, sizeof(uint64_t));
	uint8_t *r = record(i, BTINFO_SYMTAB, 12);
	uint8_t *image = r == NULL ? NULL : plan_alloc(p, len, e);
	if (image == NULL)
		return -EINVAL;
	symbol_headers(f, table.size, names.size, image);
	memcpy(image + heads, f->data + table.offset, table.size);
	memcpy(image + heads + table.size, f->data + names.offset, names.size);
	int err = plan_append(p, "the kernel's symbols", image, len, &at, e);
	*end = (uint32_t)(at + len);
	put32(r, 1);
	put32(r + 4, (uint32_t)at);
	put32(r + 8, *end);
	return err;
}

static int add_modules(
    struct info *i, const struct kernel *k, struct plan *p, struct load_error *e)
{
	unsigned n = k->files - 1;
	uint8_t *r =
	    n == 0 ? NULL : record(i, BTINFO_MODULES, 8 + n * MODULE_ENTRY_LEN);
	int err = 0;

	if (r == NULL)
		return 0;
	put32(r, n);
	for (unsigned j = 1; err == 0 && j <= n; j++) {
		const struct kernel_file *f = &k->file[j];
		uint8_t *entry = r + 8 + (j - 1) * MODULE_ENTRY_LEN;
		uint64_t at;
		err = plan_append(p, "a module", f->data, f->len, &at, e);
		snprintf((char *)entry, MODULE_PATH_LEN, "%s", f->name);
		put32(entry + 80,
		    f->kind == KERNEL_MODULE_ELF ? MODULE_ELF : MODULE_FS);
		put32(entry + 84, (uint32_t)f->len);
		put32(entry + 88, (uint32_t)at);
	}
	put32(r + 4, (uint32_t)p->end);
	return err;
}

static int add_stack(const struct kernel *k, struct plan *p, uint32_t entry,
    uint32_t symbols_end, struct load_error *e)
{
	uint32_t *stack = plan_alloc(p, STACK_WORDS * 4, e);
	/* Without symbols (0) the end of the kernel itself counts. */
	const uint32_t words[STACK_WORDS] = { entry, k->howto, 0,
		(uint32_t)INFO_ADDR, symbols_end, (uint32_t)((p->low - MiB) / KiB),
		(uint32_t)(PLAN_LOW_END / KiB) };

	if (stack == NULL)
		return -EINVAL;
	memcpy(stack, words, sizeof(words));
	return plan_add(
	    p, "the stack", STACK_ADDR, sizeof(words), stack, sizeof(words), e);
}

static int plan(const struct kernel *k, struct plan *p, struct load_error *e)
{
	struct elf_image f;
	struct info i = { plan_alloc(p, INFO_MAX, e), RECORDS_AT, 0, false };
	uint32_t symbols_end = 0;

	if (i.buf == NULL)
		return -EINVAL;
	int err = elf_parse(&f, k->file[0].data, k->file[0].len, e);
	if (err == 0)
		err = elf_plan(&f, KERNEL_MASK, p, e);
	if (err != 0)
		return err;
	add_console(&i, k);
	add_root(&i, k);
	add_map(&i, p);
	err = add_symbols(&i, &f, p, &symbols_end, e);
	if (err == 0)
		err = add_modules(&i, k, p, e);
	if (err == 0 && i.full)
		err = load_fail(e,
		    "too many modules: NetBSD keeps %u bytes of boot information",
		    INFO_MAX);
	if (err == 0)
		err = plan_add(
		    p, "the boot information", INFO_ADDR, i.len, i.buf, i.len, e);
	uint32_t entry = (uint32_t)(f.entry & KERNEL_MASK);
	if (err == 0)
		err = add_stack(k, p, entry, symbols_end, e);
	p->state.rip = entry;
	p->state.gpr[GPR_RSP] = p->state.gpr[GPR_RBP] = STACK_ADDR;
	return err;
}

const struct kernel_system system_netbsd = {
	.command = "knetbsd",
	.option = options,
	.options = ARRAY_SIZE(options),
	.plan = plan,
};
