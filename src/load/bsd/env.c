/* The loader's variables (env.h). */
#include "load/bsd/env.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_MAX 8192
#define VALUE_MAX 65536

/* Where the name is, or would be. */
static size_t place(const struct env *e, const char *name, bool *found)
{
	size_t lo = 0, hi = e->count;

	*found = false;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int c = strcmp(e->var[mid].name, name);
		if (c == 0) {
			*found = true;
			return mid;
		}
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const char *env_get(const struct env *e, const char *name)
{
	bool found;
	size_t i = place(e, name, &found);

	return found ? e->var[i].value : NULL;
}

int env_set(struct env *e, const char *name, const char *value)
{
	bool found;

	if (name[0] == '\0' || strchr(name, '=') != NULL)
		return -EINVAL;
	if (strlen(name) > VALUE_MAX || strlen(value) > VALUE_MAX)
		return -E2BIG;
	size_t i = place(e, name, &found);
	char *copy = strdup(value);
	if (copy == NULL)
		return -ENOMEM;
	if (found) {
		free(e->var[i].value);
		e->var[i].value = copy;
		return 0;
	}
	struct env_var *more = e->count < COUNT_MAX
				   ? realloc(e->var, (e->count + 1) * sizeof(*more))
				   : NULL;
	char *key = strdup(name);
	if (more != NULL)
		e->var = more;
	if (more == NULL || key == NULL) {
		free(copy);
		free(key);
		return e->count == COUNT_MAX ? -E2BIG : -ENOMEM;
	}
	memmove(more + i + 1, more + i, (e->count - i) * sizeof(*more));
	more[i] = (struct env_var){ key, copy };
	e->count++;
	return 0;
}

void env_unset(struct env *e, const char *name)
{
	bool found;
	size_t i = place(e, name, &found);

	if (!found)
		return;
	free(e->var[i].name);
	free(e->var[i].value);
	e->count--;
	memmove(e->var + i, e->var + i + 1, (e->count - i) * sizeof(*e->var));
}

void env_free(struct env *e)
{
	for (size_t i = 0; i < e->count; i++) {
		free(e->var[i].name);
		free(e->var[i].value);
	}
	free(e->var);
	*e = (struct env){ NULL, 0 };
}

static size_t append(char *buf, size_t at, const char *text)
{
	size_t len = strlen(text);

	if (buf != NULL)
		memcpy(buf + at, text, len);
	return at + len;
}

size_t env_pack(const struct env *e, char *buf)
{
	size_t n = 0;

	for (size_t i = 0; i < e->count; i++) {
		n = append(buf, n, e->var[i].name);
		n = append(buf, n, "=");
		n = append(buf, n, e->var[i].value);
		if (buf != NULL)
			buf[n] = '\0';
		n++;
	}
	if (buf != NULL)
		buf[n] = '\0';
	return n + 1;
}
