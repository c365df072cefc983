/*
 * Finds files along module_path and through linker.hints, loads them, and loads
 * what they need. A file is loaded once, which also ends cycles of modules.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/elf64.h"
#include "load/bsd/hints.h"
#include "load/bsd/loader.h"
#include "vmm/memory.h"

#define DEFAULT_PATH "/boot/kernel;/boot/modules"
#define HINTS_LIMIT  (4 * MiB)
#define NEST_MAX     32
#define PAGE         ((uint64_t)MEMORY_PAGE)

static const char *const kld_suffixes[] = { ".ko", "", ".debug" };
static const char *const no_suffix[] = { "" };
static const char *const packed_suffixes[] = { "", ".gz", ".bz2", ".xz", ".zst" };

static int load_needed(struct loader *l, const char *name,
    const struct module_version *need, const char *args, unsigned nest);

/* A file of that name, packed or not. */
static bool exists(struct loader *l, const char *path)
{
	char packed[FS_PATH_MAX];
	struct node n;
	struct fs *fs;

	for (size_t i = 0; i < ARRAY_SIZE(packed_suffixes); i++) {
		int len = snprintf(
		    packed, sizeof(packed), "%s%s", path, packed_suffixes[i]);
		if (len < 0 || len >= (int)sizeof(packed))
			return false;
		if (dev_walk(&l->dev, packed, &fs, &n) == 0 && n.type == NODE_FILE)
			return true;
	}
	return false;
}

/* The next directory of a path separated by ';'. NULL: no more. */
static const char *next_directory(const char *path, char dir[FS_PATH_MAX])
{
	while (path != NULL && *path != '\0') {
		size_t len = strcspn(path, ";");
		const char *next = path + len + (path[len] == ';');
		size_t keep = len;
		while (keep > 1 && path[keep - 1] == '/')
			keep--;
		if (keep > 0 && keep < FS_PATH_MAX) {
			memcpy(dir, path, keep);
			dir[keep] = '\0';
			return next;
		}
		path = next;
	}
	return NULL;
}

static const char *module_path(const struct loader *l)
{
	const char *path = env_get(&l->env, "module_path");

	return path != NULL ? path : DEFAULT_PATH;
}

static bool try_directory(struct loader *l, const char *dir, const char *name,
    const char *const *suffixes, size_t count, char found[FS_PATH_MAX])
{
	for (size_t i = 0; i < count; i++) {
		int n =
		    snprintf(found, FS_PATH_MAX, "%s/%s%s", dir, name, suffixes[i]);
		if (n > 0 && n < FS_PATH_MAX && exists(l, found))
			return true;
	}
	return false;
}

static bool search(struct loader *l, const char *name, const char *const *suffixes,
    size_t count, char found[FS_PATH_MAX])
{
	char dir[FS_PATH_MAX];

	if (strpbrk(name, "/:") != NULL) {
		snprintf(found, FS_PATH_MAX, "%s", name);
		return strlen(name) < FS_PATH_MAX && exists(l, name);
	}
	for (const char *p = module_path(l); (p = next_directory(p, dir)) != NULL;)
		if (try_directory(l, dir, name, suffixes, count, found))
			return true;
	return false;
}

/* A module's file: by the directories' linker.hints, else by its name. */
static bool search_module(struct loader *l, const char *name,
    const struct module_version *need, char found[FS_PATH_MAX])
{
	char dir[FS_PATH_MAX], path[FS_PATH_MAX], file[FS_NAME_MAX + 1];

	for (const char *p = module_path(l);
	     (p = next_directory(p, dir)) != NULL;) {
		uint8_t *hints;
		size_t len;
		bool hinted = false;

		int n = snprintf(path, sizeof(path), "%s/linker.hints", dir);
		if (n < (int)sizeof(path) && dev_load(&l->dev, path, false,
						 HINTS_LIMIT, &hints, &len) == 0) {
			hinted = hints_find(hints, len, name, need, file);
			free(hints);
		}
		if (hinted && try_directory(l, dir, file, no_suffix, 1, found))
			return true;
		if (try_directory(l, dir, name, kld_suffixes,
			ARRAY_SIZE(kld_suffixes), found))
			return true;
	}
	return false;
}

/* Adds p, whose contents are in place; takes it also when it fails. */
static int add(struct loader *l, struct preload *p, const char *path,
    const char *type, const char *args)
{
	p->name = strdup(path);
	p->type = strdup(type);
	p->args = args != NULL && args[0] != '\0' ? strdup(args) : NULL;
	int err = p->name == NULL || p->type == NULL ? -ENOMEM
						     : preloads_add(&l->files, p);
	if (err == 0)
		return 0;
	preload_discard(p);
	return loader_fail(l, "%s: %s", path,
	    err == -E2BIG ? "too many files are loaded" : "no memory");
}

static int load_file(struct loader *l, const char *path, const char *args)
{
	bool first = l->files.count == 0;
	struct preload p = { .name = NULL };
	const char *why, *type = PRELOAD_MODULE;
	uint8_t *data;
	size_t len;

	int err = dev_load(&l->dev, path, true, loader_low(l), &data, &len);
	if (err != 0)
		return loader_fail(l, "%s: %s", path, loader_why(err));
	enum elf_kind kind = elf_kind(data, len, &why);
	if (kind == ELF_KERNEL && first) {
		type = PRELOAD_KERNEL;
		err = elf_load_kernel(&p, data, len, loader_low(l), &why);
	} else if (kind == ELF_MODULE && !first) {
		err = elf_load_module(&p, data, len, ROUND_UP(l->files.end, PAGE),
		    loader_low(l), &why);
	} else {
		err = -EINVAL;
		if (kind == ELF_KERNEL)
			why = "a kernel is loaded already (\"unload\" first)";
		else if (kind == ELF_MODULE)
			why = "a module; load a kernel first";
	}
	free(data);
	if (err != 0) {
		preload_discard(&p);
		return loader_fail(l, "%s: %s", path, why);
	}
	if (add(l, &p, path, type, args) != 0)
		return -1;
	if (first)
		(void)env_set(&l->env, "kernelname", path);
	return 0;
}

/* Modules that say which kernel they need ask for a module "kernel". */
static bool held(struct loader *l, const struct module_version *need)
{
	if (preloads_hold(&l->files, need->name, need))
		return true;
	return strcmp(need->name, "kernel") == 0 && l->files.file[0].held == 0;
}

/* What the n-th file needs. */
static int load_needs(struct loader *l, unsigned n, unsigned nest)
{
	/* The list moves while it grows: the file is found by its number. */
	for (unsigned i = 0; i < l->files.file[n].needed; i++) {
		/* The name stays where it is. */
		struct module_version need = l->files.file[n].needs[i];
		if (held(l, &need))
			continue;
		if (load_needed(l, need.name, &need, NULL, nest + 1) != 0)
			return -1;
		if (!held(l, &need))
			return loader_fail(l,
			    "%s needs module '%s' in a version from %d to %d; "
			    "there is another one",
			    l->files.file[n].name, need.name, need.min, need.max);
	}
	return 0;
}

static int load_with_needs(
    struct loader *l, const char *path, const char *args, unsigned nest)
{
	unsigned before = l->files.count;

	if (preloads_find(&l->files, path, NULL) != NULL)
		return 0;
	if (nest > NEST_MAX)
		return loader_fail(
		    l, "%s: more than %d modules need each other", path, NEST_MAX);
	if (load_file(l, path, args) != 0)
		return -1;
	if (load_needs(l, before, nest) == 0)
		return 0;
	preloads_cut(&l->files, before);
	return -1;
}

static int load_needed(struct loader *l, const char *name,
    const struct module_version *need, const char *args, unsigned nest)
{
	char path[FS_PATH_MAX];

	if (!search_module(l, name, need, path))
		return loader_fail(
		    l, "can't find module '%s' in %s", name, module_path(l));
	return load_with_needs(l, path, args, nest);
}

int load_kld(struct loader *l, const char *name, const char *args)
{
	char path[FS_PATH_MAX];

	if (!search(l, name, kld_suffixes, ARRAY_SIZE(kld_suffixes), path))
		return loader_fail(l, "can't find '%s'%s%s", name,
		    strchr(name, '/') != NULL ? "" : " in ",
		    strchr(name, '/') != NULL ? "" : module_path(l));
	return load_with_needs(l, path, args, 0);
}

int load_module(struct loader *l, const char *name, const char *args)
{
	if (strpbrk(name, "/:") != NULL || l->files.count == 0)
		return load_kld(l, name, args);
	if (preloads_hold(&l->files, name, NULL))
		return 0;
	return load_needed(l, name, NULL, args, 0);
}

int load_raw(struct loader *l, const char *name, const char *type)
{
	struct preload p = { .addr = ROUND_UP(l->files.end, PAGE) };
	uint64_t limit = loader_low(l);
	char path[FS_PATH_MAX];
	uint8_t *data;
	size_t len;

	if (l->files.count == 0)
		return loader_fail(l, "%s: load a kernel first", name);
	if (!search(l, name, no_suffix, 1, path))
		return loader_fail(l, "can't find '%s'", name);
	if (preloads_find(&l->files, path, type) != NULL)
		return 0;
	int err = p.addr >= limit
		      ? -EFBIG
		      : dev_load(&l->dev, path, false, limit - p.addr, &data, &len);
	if (err != 0)
		return loader_fail(l, "%s: %s", path, loader_why(err));
	p.size = len;
	if (preload_add_chunk(&p, p.addr, data, len) != 0)
		return loader_fail(l, "%s: no memory", path);
	return add(l, &p, path, type, NULL);
}

void load_forget(struct loader *l)
{
	preloads_cut(&l->files, 0);
	env_unset(&l->env, "kernelname");
}
