/*
 * Kernels and modules from anywhere. What is accepted lies between the megabyte
 * (or the place asked for) and the limit; what is refused has a reason.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/elf64.h"
#include "load/bsd/preload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define LIMIT (8 * MiB)
#define PLACE (3 * MiB)

static void examine(const struct preload *p, uint64_t least)
{
	static volatile uint8_t sink;

	if (p->addr < least || p->addr > LIMIT || p->size > LIMIT - p->addr)
		abort();
	for (unsigned i = 0; i < p->chunks; i++) {
		const struct chunk *c = &p->chunk[i];
		if (c->addr < least || c->addr > LIMIT || c->len > LIMIT - c->addr)
			abort();
		if (c->len > 0)
			sink = (uint8_t)(c->data[0] + c->data[c->len - 1]);
	}
	(void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct preload p = { .name = NULL };
	const char *why = NULL;
	int err;

	switch (elf_kind(data, len, &why)) {
	case ELF_KERNEL:
		err = elf_load_kernel(&p, data, len, LIMIT, &why);
		if (err == 0)
			examine(&p, MiB);
		break;
	case ELF_MODULE:
		err = elf_load_module(&p, data, len, PLACE, LIMIT, &why);
		if (err == 0)
			examine(&p, PLACE);
		break;
	default:
		err = -1;
	}
	if (err != 0 && why == NULL)
		abort();
	preload_discard(&p);
	return 0;
}
