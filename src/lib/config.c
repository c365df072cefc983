/*
 * The configuration tree, bhyve_config(5), as one sorted array of full keys.
 *
 * Invariants: entries are ordered by key component, numbers by value and before
 * names, so that all keys below a node are neighbours; an entry's old expansions
 * live as long as its value, so pointers handed out stay good.
 */
#include "lib/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/log.h"
#include "lib/size.h"
#include "lib/util.h"

#define EXPAND_DEPTH 16
#define EXPAND_MAX   (64 * KiB)

struct expansion {
	struct expansion *next;
	char text[];
};

struct entry {
	char *key;
	char *value;
	struct expansion *expanded; /* newest first */
};

struct config {
	struct entry **entries;
	size_t count, room;
	bool frozen;
};

struct config *config_new(void)
{
	return calloc(1, sizeof(struct config));
}

static void expansions_free(struct entry *e)
{
	while (e->expanded != NULL) {
		struct expansion *x = e->expanded;

		e->expanded = x->next;
		free(x);
	}
}

static void entry_free(struct entry *e)
{
	if (e == NULL)
		return;
	expansions_free(e);
	free(e->key);
	free(e->value);
	free(e);
}

void config_free(struct config *cfg)
{
	if (cfg == NULL)
		return;
	for (size_t i = 0; i < cfg->count; i++)
		entry_free(cfg->entries[i]);
	free(cfg->entries);
	free(cfg);
}

static bool all_digits(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)s[i]))
			return false;
	}
	return len > 0;
}

/*
 * Total order of components: numbers by value, then names; equal only if same text.
 */
static int component_compare(const char *a, size_t alen, const char *b, size_t blen)
{
	bool anum = all_digits(a, alen), bnum = all_digits(b, blen);
	int c;

	if (anum != bnum)
		return anum ? -1 : 1;
	if (anum) {
		const char *as = a, *bs = b;
		size_t al = alen, bl = blen;

		for (; al > 1 && *as == '0'; as++, al--)
			;
		for (; bl > 1 && *bs == '0'; bs++, bl--)
			;
		if (al != bl)
			return al < bl ? -1 : 1;
		c = memcmp(as, bs, al);
		if (c != 0)
			return c;
	}
	c = memcmp(a, b, MIN(alen, blen));
	if (c != 0)
		return c;
	return alen == blen ? 0 : alen < blen ? -1 : 1;
}

static int key_compare(const char *a, const char *b)
{
	for (;;) {
		size_t alen = strcspn(a, "."), blen = strcspn(b, ".");
		int c = component_compare(a, alen, b, blen);

		if (c != 0)
			return c;
		a += alen;
		b += blen;
		if (*a == '\0' || *b == '\0')
			return (*a != '\0') - (*b != '\0');
		a++;
		b++;
	}
}

/* Index of the first entry whose key is not before key. */
static size_t lower_bound(const struct config *cfg, const char *key)
{
	size_t lo = 0, hi = cfg->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (key_compare(cfg->entries[mid]->key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct entry *find(const struct config *cfg, const char *key)
{
	size_t i = lower_bound(cfg, key);

	if (i < cfg->count && strcmp(cfg->entries[i]->key, key) == 0)
		return cfg->entries[i];
	return NULL;
}

static bool key_valid(const char *key)
{
	char last = '.';

	for (const char *p = key; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;

		if (c <= ' ' || c == 0x7f || c == '=' || c == '#')
			return false;
		if (c == '.' && last == '.')
			return false;
		last = *p;
	}
	return last != '.';
}

int config_set(struct config *cfg, const char *key, const char *value)
{
	struct entry *e;
	size_t i;

	if (key == NULL || value == NULL || value[0] == '\0' || !key_valid(key))
		return -EINVAL;
	if (cfg->frozen)
		return -EPERM;
	e = find(cfg, key);
	if (e != NULL) {
		char *copy = strdup(value);

		if (copy == NULL)
			return -ENOMEM;
		expansions_free(e);
		free(e->value);
		e->value = copy;
		return 0;
	}
	if (cfg->count == cfg->room) {
		size_t room = cfg->room == 0 ? 64 : cfg->room * 2;
		struct entry **more = realloc(cfg->entries, room * sizeof(*more));

		if (more == NULL)
			return -ENOMEM;
		cfg->entries = more;
		cfg->room = room;
	}
	e = calloc(1, sizeof(*e));
	if (e == NULL)
		return -ENOMEM;
	e->key = strdup(key);
	e->value = strdup(value);
	if (e->key == NULL || e->value == NULL) {
		entry_free(e);
		return -ENOMEM;
	}
	i = lower_bound(cfg, key);
	memmove(&cfg->entries[i + 1], &cfg->entries[i],
	    (cfg->count - i) * sizeof(*cfg->entries));
	cfg->entries[i] = e;
	cfg->count++;
	return 0;
}

int config_setf(struct config *cfg, const char *value, const char *keyfmt, ...)
{
	char *key;
	va_list ap;
	int n, error;

	va_start(ap, keyfmt);
	n = vasprintf(&key, keyfmt, ap);
	va_end(ap);
	if (n < 0)
		return -ENOMEM;
	error = config_set(cfg, key, value);
	free(key);
	return error;
}

void config_unset(struct config *cfg, const char *key)
{
	size_t i = lower_bound(cfg, key);

	if (cfg->frozen || i == cfg->count ||
	    strcmp(cfg->entries[i]->key, key) != 0)
		return;
	entry_free(cfg->entries[i]);
	cfg->count--;
	memmove(&cfg->entries[i], &cfg->entries[i + 1],
	    (cfg->count - i) * sizeof(*cfg->entries));
}

void config_freeze(struct config *cfg)
{
	cfg->frozen = true;
}

/*
 * Writes the expansion of text. "%%" and "\%" are a percent sign, a '%' that
 * starts neither stands for itself. False: longer than EXPAND_MAX.
 */
static bool expand(const struct config *cfg, const char *text, int depth, FILE *out)
{
	for (const char *p = text; *p != '\0'; p++) {
		const char *end;

		if (ftell(out) > (long)EXPAND_MAX)
			return false;
		if ((p[0] == '%' || p[0] == '\\') && p[1] == '%') {
			fputc('%', out);
			p++;
			continue;
		}
		if (p[0] == '%' && p[1] == '(' && (end = strchr(p, ')')) != NULL) {
			char *name = strndup(p + 2, (size_t)(end - p - 2));
			struct entry *e = name == NULL ? NULL : find(cfg, name);
			bool ok = true;

			free(name);
			if (e != NULL && depth < EXPAND_DEPTH)
				ok = expand(cfg, e->value, depth + 1, out);
			else if (e != NULL)
				fputs(e->value, out);
			if (!ok)
				return false;
			p = end;
			continue;
		}
		fputc(*p, out);
	}
	return true;
}

const char *config_get(const struct config *cfg, const char *key)
{
	struct entry *e = find(cfg, key);
	struct expansion *x;
	char *text = NULL;
	size_t len = 0;
	FILE *out;
	bool ok;

	if (e == NULL)
		return NULL;
	if (strchr(e->value, '%') == NULL)
		return e->value;
	out = open_memstream(&text, &len);
	if (out == NULL)
		return e->value;
	ok = expand(cfg, e->value, 0, out);
	if (fclose(out) != 0 || !ok) {
		free(text);
		return e->value;
	}
	for (x = e->expanded; x != NULL; x = x->next) {
		if (strcmp(x->text, text) == 0) {
			free(text);
			return x->text;
		}
	}
	x = malloc(sizeof(*x) + len + 1);
	if (x == NULL) {
		free(text);
		return e->value;
	}
	memcpy(x->text, text, len + 1);
	free(text);
	x->next = e->expanded;
	e->expanded = x;
	return x->text;
}

const char *config_getf(const struct config *cfg, const char *keyfmt, ...)
{
	const char *value;
	char *key;
	va_list ap;
	int n;

	va_start(ap, keyfmt);
	n = vasprintf(&key, keyfmt, ap);
	va_end(ap);
	if (n < 0)
		return NULL;
	value = config_get(cfg, key);
	free(key);
	return value;
}

int config_get_bool(const struct config *cfg, const char *key, bool dflt, bool *out)
{
	static const char *const yes[] = { "true", "on", "yes", "1" };
	static const char *const no[] = { "false", "off", "no", "0" };
	const char *value = config_get(cfg, key);

	if (value == NULL) {
		*out = dflt;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcasecmp(value, yes[i]) == 0) {
			*out = true;
			return 0;
		}
		if (strcasecmp(value, no[i]) == 0) {
			*out = false;
			return 0;
		}
	}
	log_error("%s=%s: not a boolean; use true, on, yes, 1 or false, off, no, 0",
	    key, value);
	return -EINVAL;
}

int config_get_num(const struct config *cfg, const char *key, uint64_t dflt,
    uint64_t min, uint64_t max, uint64_t *out)
{
	const char *value = config_get(cfg, key);

	if (value == NULL) {
		*out = dflt;
		return 0;
	}
	if (number_parse(value, min, max, out) == 0)
		return 0;
	log_error("%s=%s: not a number from %llu to %llu", key, value,
	    (unsigned long long)min, (unsigned long long)max);
	return -EINVAL;
}

/* Whether key is prefix itself or below it; *rest behind the dot, "" for itself. */
static bool key_below(const char *key, const char *prefix, const char **rest)
{
	size_t len = strlen(prefix);

	if (len == 0) {
		*rest = key;
		return true;
	}
	if (strncmp(key, prefix, len) != 0 || (key[len] != '.' && key[len] != '\0'))
		return false;
	*rest = key[len] == '\0' ? "" : key + len + 1;
	return true;
}

int config_children(const struct config *cfg, const char *prefix,
    int (*fn)(const char *name, void *arg), void *arg)
{
	size_t count = 0, first = prefix[0] == '\0' ? 0 : lower_bound(cfg, prefix);
	char **names = calloc(cfg->count + 1, sizeof(*names));
	int result = 0;

	if (names == NULL)
		return -ENOMEM;
	/* fn may change the tree: collect before calling. */
	for (size_t i = first; i < cfg->count; i++) {
		const char *rest;
		size_t len;

		if (!key_below(cfg->entries[i]->key, prefix, &rest))
			break;
		len = strcspn(rest, ".");
		if (len == 0 || (count > 0 && strlen(names[count - 1]) == len &&
				    memcmp(names[count - 1], rest, len) == 0))
			continue;
		names[count] = strndup(rest, len);
		if (names[count] == NULL) {
			result = -ENOMEM;
			break;
		}
		count++;
	}
	for (size_t i = 0; i < count; i++) {
		if (result == 0)
			result = fn(names[i], arg);
		free(names[i]);
	}
	free(names);
	return result;
}

bool config_has(const struct config *cfg, const char *prefix)
{
	size_t i = lower_bound(cfg, prefix);
	const char *rest;

	return i < cfg->count && key_below(cfg->entries[i]->key, prefix, &rest);
}

int config_parse_option(struct config *cfg, const char *arg)
{
	const char *eq = strchr(arg, '=');
	char *key;
	int error;

	if (eq == NULL)
		return -EINVAL;
	key = strndup(arg, (size_t)(eq - arg));
	if (key == NULL)
		return -ENOMEM;
	error = config_set(cfg, key, eq + 1);
	free(key);
	return error;
}

int config_load(struct config *cfg, const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	unsigned number = 0;
	size_t room = 0;
	ssize_t len;
	int error = 0;

	if (f == NULL) {
		error = -errno;
		log_error("cannot open configuration file %s: %s", path,
		    strerror(-error));
		return error;
	}
	while (errno = 0, (len = getline(&line, &room, f)) >= 0) {
		number++;
		while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
			line[--len] = '\0';
		if (len == 0 || line[0] == '#')
			continue;
		error = strlen(line) == (size_t)len ? config_parse_option(cfg, line)
						    : -EINVAL;
		if (error != 0) {
			log_error(
			    "%s line %u: invalid config option \"%s\"; a line is "
			    "name=value without blanks around '=', or a # comment",
			    path, number, line);
			goto out;
		}
	}
	if (ferror(f)) {
		error = errno != 0 ? -errno : -EIO;
		log_error("cannot read configuration file %s: %s", path,
		    strerror(-error));
	}
out:
	free(line);
	fclose(f);
	return error;
}

void config_dump(const struct config *cfg, FILE *f)
{
	for (size_t i = 0; i < cfg->count; i++)
		fprintf(f, "%s=%s\n", cfg->entries[i]->key, cfg->entries[i]->value);
}
