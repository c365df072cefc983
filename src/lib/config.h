/*
 * The one configuration tree, bhyve_config(5): dotted keys ("pci.0.3.0.path")
 * with string values. Every option of every program only sets keys here.
 *
 * Invariants: keys are unique; later settings replace earlier ones; keys are
 * kept in insertion-independent (sorted) order; after config_freeze() a set
 * is refused with -EPERM.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct config;

struct config *config_new(void); /* NULL: no memory */
void config_free(struct config *cfg);

/* 0, -EINVAL (empty key or value, bad key), -ENOMEM, -EPERM (frozen). */
int config_set(struct config *cfg, const char *key, const char *value);
__attribute__((format(printf, 3, 4))) int config_setf(
    struct config *cfg, const char *value, const char *keyfmt, ...);
void config_unset(struct config *cfg, const char *key);
void config_freeze(struct config *cfg);

/*
 * The value with %(name) expanded ("%%" is a percent sign), or NULL when unset.
 * Owned by the tree, valid until the key is set again or the tree is freed.
 */
const char *config_get(const struct config *cfg, const char *key);
__attribute__((format(printf, 2, 3))) const char *config_getf(
    const struct config *cfg, const char *keyfmt, ...);

/*
 * true|on|yes|1, false|off|no|0 in any case. Unset: dflt. 0, or -EINVAL (logged).
 */
int config_get_bool(
    const struct config *cfg, const char *key, bool dflt, bool *out);
/*
 * strtol base 0 within min..max. Unset: dflt. 0, or -EINVAL (logged with the
 * range).
 */
int config_get_num(const struct config *cfg, const char *key, uint64_t dflt,
    uint64_t min, uint64_t max, uint64_t *out);

/*
 * Calls fn for each direct child name of a node ("pci.0" -> "3", "4"), in
 * numerical order where names are numbers. prefix "" is the root. Stops when fn
 * returns non-zero and returns that.
 */
int config_children(const struct config *cfg, const char *prefix,
    int (*fn)(const char *name, void *arg), void *arg);
/* Whether any key lies at or below prefix. */
bool config_has(const struct config *cfg, const char *prefix);

/*
 * "name=value" lines, '#' comments, as bhyve -k. 0, or -EINVAL/-errno; logs
 * "FILE line N: ...".
 */
int config_load(struct config *cfg, const char *path);
/* "name=value" as -o. 0 or -EINVAL (not logged). */
int config_parse_option(struct config *cfg, const char *arg);
/* Prints every key=value, sorted. */
void config_dump(const struct config *cfg, FILE *f);
