/* The list of loaded files (preload.h). */
#include "load/bsd/preload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS_MAX 4096

static void free_versions(struct module_version *v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free(v[i].name);
	free(v);
}

void preload_discard(struct preload *p)
{
	for (unsigned i = 0; i < p->mds; i++)
		free(p->md[i].data);
	for (unsigned i = 0; i < p->chunks; i++)
		free(p->chunk[i].data);
	free_versions(p->holds, p->held);
	free_versions(p->needs, p->needed);
	free(p->md);
	free(p->chunk);
	free(p->name);
	free(p->type);
	free(p->args);
	*p = (struct preload){ .name = NULL };
}

int preloads_add(struct preloads *l, struct preload *p)
{
	if (l->count == PRELOAD_MAX)
		return -E2BIG;
	struct preload *more = realloc(l->file, (l->count + 1) * sizeof(*more));
	if (more == NULL)
		return -ENOMEM;
	l->file = more;
	more[l->count++] = *p;
	l->end = p->addr + p->size;
	*p = (struct preload){ .name = NULL };
	return 0;
}

void preloads_cut(struct preloads *l, unsigned n)
{
	while (l->count > n)
		preload_discard(&l->file[--l->count]);
	l->end = n == 0 ? 0 : l->file[n - 1].addr + l->file[n - 1].size;
	if (n == 0) {
		free(l->file);
		l->file = NULL;
	}
}

struct preload *preloads_find(
    const struct preloads *l, const char *name, const char *type)
{
	for (unsigned i = 0; i < l->count; i++)
		if ((name == NULL || strcmp(l->file[i].name, name) == 0) &&
		    (type == NULL || strcmp(l->file[i].type, type) == 0))
			return &l->file[i];
	return NULL;
}

/* Room for one more item of an array; NULL: there is none. */
static void *one_more(void *items, unsigned count, size_t each)
{
	return count >= ITEMS_MAX ? NULL : realloc(items, (count + 1) * each);
}

int preload_add_metadata(
    struct preload *p, uint32_t type, const void *data, size_t size)
{
	struct metadata *more = one_more(p->md, p->mds, sizeof(*more));
	uint8_t *copy = size > UINT32_MAX ? NULL : malloc(size + 1);

	if (more != NULL)
		p->md = more;
	if (more == NULL || copy == NULL) {
		free(copy);
		return -ENOMEM;
	}
	memcpy(copy, data, size);
	more[p->mds++] = (struct metadata){ type, (uint32_t)size, copy };
	return 0;
}

int preload_add_chunk(struct preload *p, uint64_t addr, uint8_t *data, size_t len)
{
	struct chunk *more = one_more(p->chunk, p->chunks, sizeof(*more));

	if (more == NULL) {
		free(data);
		return -ENOMEM;
	}
	p->chunk = more;
	more[p->chunks++] = (struct chunk){ addr, len, data };
	return 0;
}

static int add_version(struct module_version **list, unsigned *count,
    const char *name, int32_t min, int32_t best, int32_t max)
{
	struct module_version *more = one_more(*list, *count, sizeof(*more));
	char *copy = strdup(name);

	if (more != NULL)
		*list = more;
	if (more == NULL || copy == NULL) {
		free(copy);
		return -ENOMEM;
	}
	more[(*count)++] = (struct module_version){ copy, min, best, max };
	return 0;
}

int preload_add_held(struct preload *p, const char *name, int32_t version)
{
	return add_version(&p->holds, &p->held, name, version, version, version);
}

int preload_add_needed(
    struct preload *p, const char *name, int32_t min, int32_t best, int32_t max)
{
	return add_version(&p->needs, &p->needed, name, min, best, max);
}

bool preloads_hold(
    const struct preloads *l, const char *name, const struct module_version *need)
{
	for (unsigned i = 0; i < l->count; i++) {
		for (unsigned j = 0; j < l->file[i].held; j++) {
			const struct module_version *v = &l->file[i].holds[j];
			if (strcmp(v->name, name) != 0)
				continue;
			if (need == NULL || v->min == need->preferred ||
			    (v->min >= need->min && v->min <= need->max))
				return true;
		}
	}
	return false;
}
