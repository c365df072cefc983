/*
 * The loader's variables, sorted by name: what "set" and loader.conf fill and the
 * kernel gets as its environment.
 */
#pragma once

#include <stddef.h>

struct env_var {
	char *name, *value;
};

struct env {
	struct env_var *var;
	size_t count;
};

/* NULL: not set. */
const char *env_get(const struct env *e, const char *name);
/* 0, -EINVAL (no name, '=' in it), -ENOMEM, -E2BIG (more than a guest could use).
 */
int env_set(struct env *e, const char *name, const char *value);
void env_unset(struct env *e, const char *name);
void env_free(struct env *e);
/* "name=value\0" for each, then another zero; its length; buf NULL: only that. */
size_t env_pack(const struct env *e, char *buf);
