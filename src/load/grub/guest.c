/* Collects a kernel and the files that go with it (guest.h). */
#include "load/grub/guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"

#define ARGUMENTS_MAX 4096

void guest_init(struct guest *g, uint64_t memory, bool no_console, bool no_screen)
{
	*g = (struct guest){
		.memory = memory,
		.no_console = no_console,
		.no_screen = no_screen,
		.other.memory = memory,
	};
}

static void blob_free(struct guest_blob *b)
{
	free(b->data);
	*b = (struct guest_blob){ .data = NULL };
}

void guest_free(struct guest *g)
{
	blob_free(&g->image);
	blob_free(&g->initrd);
	blob_free(&g->contents);
	kernel_free_file(&g->file);
	kernel_free(&g->other);
	free(g->cmdline);
	g->cmdline = NULL;
	g->ready = false;
	g->filling = GUEST_NOTHING;
}

static int blob_add(struct guest_blob *b, const void *data, size_t len)
{
	if (len > b->room - b->len) {
		size_t room = MAX(b->room * 2, b->len + len);
		uint8_t *p = realloc(b->data, room);
		if (p == NULL)
			return -ENOMEM;
		b->data = p;
		b->room = room;
	}
	if (len > 0)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	return 0;
}

/* Pointers to the strings, to be freed; NULL: no memory. */
static char **split(const char *argv, size_t len, int *argc)
{
	char **args = calloc(ARGUMENTS_MAX, sizeof(*args));

	*argc = 0;
	for (size_t i = 0; args != NULL && i < len && *argc < ARGUMENTS_MAX;
	     i += strlen(argv + i) + 1)
		args[(*argc)++] = (char *)argv + i;
	return args;
}

int guest_begin_kernel(struct guest *g, const char *argv, size_t len)
{
	int argc;

	guest_free(g);
	if (len == 0 || argv[len - 1] != '\0')
		return -EINVAL;
	char **args = split(argv, len, &argc);
	if (args == NULL)
		return -ENOMEM;
	g->cmdline = linux_cmdline(argc, args, g->no_console);
	free(args);
	if (g->cmdline == NULL)
		return -ENOMEM;
	g->filling = GUEST_KERNEL;
	g->too_big = false;
	return 0;
}

int guest_begin_command(
    struct guest *g, const char *argv, size_t len, struct load_error *e)
{
	int argc;

	if (len == 0 || argv[len - 1] != '\0')
		return -EPROTO;
	char **args = split(argv, len, &argc);
	if (args == NULL)
		return -ENOMEM;
	const struct kernel_command *c = kernel_find_command(args[0]);
	int file = -EPROTO;
	if (c != NULL) {
		if (c->kind == KERNEL_IMAGE)
			guest_free(g);
		kernel_free_file(&g->file);
		blob_free(&g->contents);
		g->filling = GUEST_NOTHING;
		g->too_big = false;
		file = kernel_begin(&g->other, &g->file, c, argc - 1, args + 1, e);
		if (file >= 0)
			g->filling = GUEST_FILE;
	}
	free(args);
	return file;
}

int guest_variable(struct guest *g, const char *text, size_t len)
{
	struct load_error e;

	if (len == 0 || text[len - 1] != '\0')
		return -EPROTO;
	/* Those that cannot be a kernel's are GRUB's own matter. */
	(void)kernel_set_variable(&g->other, text, &e);
	return 0;
}

void guest_begin_initrd(struct guest *g)
{
	blob_free(&g->initrd);
	g->filling = GUEST_INITRD;
	g->too_big = false;
}

static struct guest_blob *filling(struct guest *g)
{
	return g->filling == GUEST_KERNEL   ? &g->image
	       : g->filling == GUEST_INITRD ? &g->initrd
	       : g->filling == GUEST_FILE   ? &g->contents
					    : NULL;
}

int guest_data(struct guest *g, const void *data, size_t len)
{
	struct guest_blob *b = filling(g);

	if (b == NULL || g->too_big)
		return 0;
	/* What is larger than all of memory is not kept, only remembered. */
	uint64_t kept = b->len;
	for (unsigned i = 0; b == &g->contents && i < g->other.files; i++)
		kept += g->other.file[i].len;
	if (len > g->memory || kept > g->memory - len) {
		g->too_big = true;
		blob_free(b);
		return 0;
	}
	return blob_add(b, data, len);
}

/* The parts of an initrd begin at multiples of four bytes. */
int guest_file_end(struct guest *g)
{
	static const uint8_t zeros[4];

	if (g->filling != GUEST_INITRD || g->too_big)
		return 0;
	return blob_add(&g->initrd, zeros, -g->initrd.len & 3);
}

static struct linux_boot boot_of(const struct guest *g)
{
	return (struct linux_boot){
		.kernel = &g->kernel,
		.cmdline = g->cmdline,
		.initrd = g->initrd.data,
		.initrd_len = g->initrd.len,
		.memory = g->memory,
		.no_screen = g->no_screen,
	};
}

static int too_big(const struct guest *g, const char *what, struct load_error *e)
{
	return load_fail(e,
	    "the %s is larger than the guest's memory of %llu MiB; give it more "
	    "with -M",
	    what, (unsigned long long)(g->memory / MiB));
}

static int kernel_done(struct guest *g, struct load_error *e)
{
	if (g->too_big)
		return too_big(g, "kernel", e);
	int err = linux_parse(&g->kernel, g->image.data, g->image.len, e);
	if (err == 0) {
		struct linux_boot b = boot_of(g);
		err = linux_check(&b, e);
	}
	g->ready = err == 0;
	return err;
}

static int initrd_done(struct guest *g, struct load_error *e)
{
	int err = 0;

	if (!g->ready)
		err = load_fail(e, "load a kernel first, with the command linux");
	else if (g->too_big)
		err = too_big(g, "initrd", e);
	if (err == 0) {
		struct linux_boot b = boot_of(g);
		err = linux_check(&b, e);
	}
	if (err != 0)
		blob_free(&g->initrd);
	return err;
}

static int file_done(struct guest *g, struct load_error *e)
{
	if (g->too_big) {
		kernel_free_file(&g->file);
		return too_big(g, "file, with those before it,", e);
	}
	g->file.data = g->contents.data;
	g->file.len = g->contents.len;
	g->contents = (struct guest_blob){ .data = NULL };
	return kernel_add(&g->other, &g->file, e);
}

int guest_done(struct guest *g, struct load_error *e)
{
	int err = g->filling == GUEST_KERNEL   ? kernel_done(g, e)
		  : g->filling == GUEST_INITRD ? initrd_done(g, e)
		  : g->filling == GUEST_FILE   ? file_done(g, e)
					       : load_fail(e, "nothing was loaded");

	g->filling = GUEST_NOTHING;
	return err;
}

int guest_load(struct guest *g, struct vmfile *vf, struct load_error *e)
{
	if (g->other.files > 0)
		return kernel_load(&g->other, vf, e);
	if (!g->ready)
		return load_fail(e, "load a kernel first, with the command linux");
	struct linux_boot b = boot_of(g);
	return linux_load(vf, &b, e);
}
