/* Images of Multiboot kernels (multiboot_info.h). */
#include "load/multiboot_info.h"

#include <elf.h>

#include "lib/util.h"
#include "load/elf_image.h"
#include "load/kernel.h"
#include "load/plan.h"

static int by_address(const struct kernel *k, struct plan *p,
    const struct multiboot_address *a, uint32_t at, struct load_error *e)
{
	const struct kernel_file *f = &k->file[0];

	if (a->load < MiB || a->header < a->load || a->header - a->load > at)
		return load_fail(e,
		    "damaged kernel: its header is to lie at %#x, its image at %#x",
		    a->header, a->load);
	uint64_t from = at - (a->header - a->load);
	uint64_t len =
	    a->load_end == 0 ? f->len - from : (uint64_t)a->load_end - a->load;
	if ((a->load_end != 0 && a->load_end < a->load) || len > f->len - from)
		return load_fail(e,
		    "truncated kernel: its header says that it ends at %#x",
		    a->load_end);
	uint64_t size = len;
	if (a->bss_end != 0) {
		if (a->bss_end < a->load + len)
			return load_fail(e,
			    "damaged kernel: its memory ends at %#x, before its "
			    "image",
			    a->bss_end);
		size = (uint64_t)a->bss_end - a->load;
	}
	return plan_add(
	    p, "the kernel", a->load, size, f->data + from, (size_t)len, e);
}

/* Linked high or not, a kernel is entered at its physical address. */
static uint64_t physical(const struct elf_image *f, uint64_t entry)
{
	for (unsigned i = 0; i < f->segments; i++) {
		const struct elf_segment *s = &f->segment[i];
		if (s->type == PT_LOAD && entry >= s->vaddr &&
		    entry - s->vaddr < s->memsz)
			return entry - s->vaddr + s->paddr;
	}
	return entry;
}

int multiboot_image(const struct kernel *k, struct plan *p,
    const struct multiboot_address *a, uint32_t at, uint32_t *entry,
    struct load_error *e)
{
	struct elf_image f;

	if (a != NULL)
		return by_address(k, p, a, at, e);
	int err = elf_parse(&f, k->file[0].data, k->file[0].len, e);
	if (err == 0)
		err = elf_plan(&f, UINT64_MAX, p, e);
	if (err != 0)
		return err;
	uint64_t where = physical(&f, f.entry);
	if (where < MiB || where >= p->low)
		return load_fail(e, "damaged kernel: its entry %#llx is not in it",
		    (unsigned long long)f.entry);
	*entry = (uint32_t)where;
	return 0;
}
