/*
 * loader.conf(5): NAME_load="YES" and its like, exec="command", and variables.
 * Order: /boot/defaults/loader.conf, the files that loader_conf_files names (each
 * may name more), those in loader_conf_dirs, local_loader_conf_files, then
 * nextboot_conf. A line that makes no sense is told with its file and number, and
 * passed over.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/util.h"
#include "load/bsd/loader.h"

#define CONF_LIMIT  (1 * MiB)
#define MODULES_MAX 2048u
#define FILES_MAX   64u
#define VALUE_MAX   4096u
#define DEFAULTS    "/boot/defaults/loader.conf"
#define DEPTH_MAX   8u

static void free_module(struct conf_module *m)
{
	char *all[] = { m->name, m->load, m->file, m->type, m->flags, m->before,
		m->after, m->error };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		free(all[i]);
}

void conf_free(struct conf *c)
{
	for (unsigned i = 0; i < c->count; i++)
		free_module(&c->module[i]);
	free(c->module);
	free(c->chosen_kernel);
	*c = (struct conf){ .count = 0 };
}

/* Made when missing; NULL: no room. */
static struct conf_module *find_module(
    struct conf *c, const char *name, size_t len, bool make)
{
	for (unsigned i = 0; i < c->count; i++)
		if (strlen(c->module[i].name) == len &&
		    memcmp(c->module[i].name, name, len) == 0)
			return &c->module[i];
	if (!make || c->count == MODULES_MAX)
		return NULL;
	struct conf_module *more =
	    realloc(c->module, (c->count + 1) * sizeof(*more));
	if (more == NULL)
		return NULL;
	c->module = more;
	more[c->count] = (struct conf_module){ .name = strndup(name, len) };
	return more[c->count].name == NULL ? NULL : &more[c->count++];
}

/* The member that NAME_suffix sets. NULL: the name has no such end. */
static char **module_member(struct conf *c, const char *name)
{
	static const struct {
		const char *end;
		size_t member;
	} ends[] = {
		{ "_load", offsetof(struct conf_module, load) },
		{ "_name", offsetof(struct conf_module, file) },
		{ "_type", offsetof(struct conf_module, type) },
		{ "_flags", offsetof(struct conf_module, flags) },
		{ "_before", offsetof(struct conf_module, before) },
		{ "_after", offsetof(struct conf_module, after) },
		{ "_error", offsetof(struct conf_module, error) },
	};
	size_t len = strlen(name);

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		size_t n = strlen(ends[i].end);
		if (len <= n || strcmp(name + len - n, ends[i].end) != 0)
			continue;
		struct conf_module *m = find_module(c, name, len - n, true);
		return m == NULL ? NULL : (char **)((char *)m + ends[i].member);
	}
	return NULL;
}

void conf_enable(struct loader *l, const char *module, bool on)
{
	struct conf_module *m = find_module(&l->conf, module, strlen(module), on);
	char *value = strdup(on ? "YES" : "NO");

	if (m == NULL || value == NULL) {
		free(value);
		return;
	}
	free(m->load);
	m->load = value;
	m->forced = on;
}

/* Puts $name and ${name} in, takes \c as c. false: a stray '$' or '\'. */
static bool expand(struct loader *l, const char *from, char out[VALUE_MAX])
{
	size_t n = 0;

	while (*from != '\0') {
		char name[128];
		size_t len;

		if (n + 1 >= VALUE_MAX)
			return false;
		if (*from == '\\') {
			if (from[1] == '\0')
				return false;
			out[n++] = from[1];
			from += 2;
			continue;
		}
		if (*from != '$') {
			out[n++] = *from++;
			continue;
		}
		bool brace = from[1] == '{';
		from += brace ? 2 : 1;
		len = brace ? strcspn(from, "}") : 0;
		while (!brace && (isalnum((unsigned char)from[len]) ||
				     (len > 0 && from[len] != '\0' &&
					 strchr("-_.", from[len]) != NULL)))
			len++;
		if (len == 0 || len >= sizeof(name) || (brace && from[len] == '\0'))
			return false;
		memcpy(name, from, len);
		name[len] = '\0';
		from += len + brace;
		const char *value = env_get(&l->env, name);
		size_t value_len = value != NULL ? strlen(value) : 0;
		if (n + value_len >= VALUE_MAX)
			return false;
		if (value_len > 0)
			memcpy(out + n, value, value_len);
		n += value_len;
	}
	out[n] = '\0';
	return true;
}

static bool set_device_or_variable(
    struct loader *l, const char *name, const char *value)
{
	if (strcmp(name, "currdev") == 0)
		return loader_set_device(l, value) == 0;
	return env_set(&l->env, name, value) == 0;
}

/* One assignment. NULL, or what is wrong. */
static const char *assign(struct loader *l, const char *name, const char *value)
{
	char expanded[VALUE_MAX];

	if (strcmp(name, "exec") == 0) {
		if (l->depth >= DEPTH_MAX)
			return "exec within exec";
		l->depth++;
		int err = command_run(l, value);
		l->depth--;
		return err != 0 ? l->error : NULL;
	}
	char **member = module_member(&l->conf, name);
	if (member != NULL) {
		free(*member);
		*member = strdup(value);
	} else if (!expand(l, value, expanded)) {
		return "a stray '$' or '\\' in the value";
	} else {
		value = expanded;
	}
	if (!set_device_or_variable(l, name, value))
		return "the variable cannot be set to that";
	return NULL;
}

static bool is_name(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)p[i]) &&
		    (i == 0 || strchr("-_.", p[i]) == NULL))
			return false;
	return len > 0;
}

/* Takes name and value of a line apart in place. NULL, or what is wrong. */
static const char *split(char *line, char **name, char **value)
{
	char *eq = strchr(line, '=');

	if (eq == NULL)
		return "no '='";
	char *end = eq;
	while (end > line && isspace((unsigned char)end[-1]))
		end--;
	if (!is_name(line, (size_t)(end - line)))
		return "no name of a variable before '='";
	*end = '\0';
	*name = line;
	char *v = eq + 1 + strspn(eq + 1, " \t");
	if (*v == '"') {
		end = strchr(++v, '"');
		if (end == NULL)
			return "the closing '\"' is missing";
	} else {
		end = v;
		while (isalnum((unsigned char)*end) ||
		       (*end != '\0' && strchr("-_.", *end) != NULL))
			end++;
		if (end == v)
			return "no value; it is written in double quotes";
	}
	const char *rest = end + (*end == '"');
	rest += strspn(rest, " \t\r");
	if (*rest != '\0' && *rest != '#')
		return "more text behind the value";
	*end = '\0';
	*value = v;
	return NULL;
}

static const char *parse_line(struct loader *l, char *line)
{
	char *name, *value;

	line += strspn(line, " \t\r");
	if (*line == '\0' || *line == '#')
		return NULL;
	const char *why = split(line, &name, &value);
	return why != NULL ? why : assign(l, name, value);
}

int conf_parse(struct loader *l, const char *file, const char *text, size_t len)
{
	unsigned number = 0, bad = 0;

	while (len > 0 && l->end == LOADER_RUNNING) {
		const char *nl = memchr(text, '\n', len);
		size_t n = nl != NULL ? (size_t)(nl - text) : len;
		const char *why;
		char shown[64];

		number++;
		snprintf(
		    shown, sizeof(shown), "%.*s", (int)MIN(n, (size_t)60), text);
		char *line = strndup(text, n);
		if (line == NULL)
			why = "no memory";
		else if (memchr(text, '\0', n) != NULL)
			why = "not text";
		else
			why = parse_line(l, line);
		if (why != NULL) {
			con_printf(&l->con, "%s:%u: %s: %s%s\n", file, number, why,
			    shown, n > 60 ? "..." : "");
			bad++;
		}
		free(line);
		text += n + (nl != NULL);
		len -= n + (nl != NULL);
	}
	return bad == 0 ? 0 : -1;
}

/* The files read so far: none is read twice. */
struct seen {
	char name[FILES_MAX][FS_PATH_MAX];
	unsigned count;
};

/* 0: read, or not there. */
static int read_file(struct loader *l, const char *file)
{
	uint8_t *text;
	size_t len;

	int err = dev_load(&l->dev, file, true, CONF_LIMIT, &text, &len);
	if (err == -ENOENT || err == -ENOTDIR)
		return 0;
	if (err != 0) {
		con_printf(&l->con, "%s: %s\n", file,
		    err == -EFBIG ? "too large for a configuration"
				  : loader_why(err));
		return -1;
	}
	conf_parse(l, file, (const char *)text, len);
	free(text);
	return 0;
}

static void read_conf(struct loader *l, const char *file, struct seen *seen);

static void read_list(struct loader *l, const char *list, struct seen *seen)
{
	char *copy = strdup(list), *rest = copy;

	for (char *name; copy != NULL && (name = strsep(&rest, " \t")) != NULL;)
		if (name[0] != '\0')
			read_conf(l, name, seen);
	free(copy);
}

static void read_conf(struct loader *l, const char *file, struct seen *seen)
{
	for (unsigned i = 0; i < seen->count; i++)
		if (strcmp(seen->name[i], file) == 0)
			return;
	if (seen->count == FILES_MAX || strlen(file) >= FS_PATH_MAX) {
		con_printf(&l->con, "%s: not read: too many files\n", file);
		return;
	}
	memcpy(seen->name[seen->count++], file, strlen(file) + 1);
	env_unset(&l->env, "loader_conf_files");
	(void)read_file(l, file);
	const char *more = env_get(&l->env, "loader_conf_files");
	if (more != NULL && l->end == LOADER_RUNNING)
		read_list(l, more, seen);
	/* Of use to the loader only: the kernel does not get it. */
	env_unset(&l->env, "loader_conf_files");
}

struct names {
	char **name;
	unsigned count;
};

static bool collect(void *arg, const char *name, uint64_t id)
{
	struct names *n = arg;
	size_t len = strlen(name);

	(void)id;
	if (len <= 5 || strcmp(name + len - 5, ".conf") != 0)
		return true;
	char **more = realloc(n->name, (n->count + 1) * sizeof(*more));
	if (more == NULL)
		return false;
	n->name = more;
	more[n->count] = strdup(name);
	return more[n->count] != NULL && ++n->count < FILES_MAX;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_directory(struct loader *l, const char *dir, struct seen *seen)
{
	struct names names = { .count = 0 };
	char path[FS_PATH_MAX];
	struct node n;
	struct fs *fs;

	if (dev_walk(&l->dev, dir, &fs, &n) != 0 || n.type != NODE_DIR)
		return;
	(void)fs->ops->list(fs, &n, collect, &names);
	if (names.count > 0)
		qsort(names.name, names.count, sizeof(*names.name), by_name);
	for (unsigned i = 0; i < names.count; i++) {
		int len = snprintf(path, sizeof(path), "%s/%s", dir, names.name[i]);
		if (len > 0 && len < (int)sizeof(path) && l->end == LOADER_RUNNING)
			read_conf(l, path, seen);
		free(names.name[i]);
	}
	free(names.name);
}

static void read_directories(struct loader *l, const char *list, struct seen *seen)
{
	char *copy = strdup(list), *rest = copy;

	for (char *name; copy != NULL && (name = strsep(&rest, " \t")) != NULL;)
		if (name[0] != '\0')
			read_directory(l, name, seen);
	free(copy);
}

/* nextboot(8): only if its first line does not say that it was used. */
static void read_nextboot(struct loader *l)
{
	static const char used[] = "nextboot_enable=\"NO\"";
	const char *file = env_get(&l->env, "nextboot_conf");
	uint8_t *text;
	size_t len;

	if (file == NULL ||
	    dev_load(&l->dev, file, true, CONF_LIMIT, &text, &len) != 0)
		return;
	if (len < sizeof(used) - 1 || memcmp(text, used, sizeof(used) - 1) != 0)
		conf_parse(l, file, (const char *)text, len);
	free(text);
}

void conf_read(struct loader *l)
{
	/* What the defaults say; a disk without them is read all the same. */
	static const char *const usual[][2] = {
		{ "loader_conf_files", "/boot/device.hints /boot/loader.conf" },
		{ "loader_conf_dirs", "/boot/loader.conf.d" },
		{ "local_loader_conf_files", "/boot/loader.conf.local" },
	};
	struct seen *seen = calloc(1, sizeof(*seen));
	struct node n;
	struct fs *fs;

	if (seen == NULL)
		return;
	if (dev_walk(&l->dev, DEFAULTS, &fs, &n) == 0) {
		read_conf(l, DEFAULTS, seen);
	} else {
		for (size_t i = 1; i < ARRAY_SIZE(usual); i++)
			if (env_get(&l->env, usual[i][0]) == NULL)
				(void)env_set(&l->env, usual[i][0], usual[i][1]);
		read_list(l, usual[0][1], seen);
	}
	const char *list = env_get(&l->env, "loader_conf_dirs");
	if (list != NULL)
		read_directories(l, list, seen);
	list = env_get(&l->env, "local_loader_conf_files");
	if (list != NULL)
		read_list(l, list, seen);
	read_nextboot(l);
	free(seen);
}

static bool is_listed(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = list; p != NULL && (p = strstr(p, name)) != NULL; p++)
		if ((p == list || strchr("; ,", p[-1]) != NULL) &&
		    (p[len] == '\0' || strchr("; ,", p[len]) != NULL))
			return true;
	return false;
}

/* One of several names separated by ';'. */
static int load_first(struct loader *l, const char *names, const char *args)
{
	char *copy = strdup(names), *rest = copy;
	int err = -1;

	for (char *name;
	     err != 0 && copy != NULL && (name = strsep(&rest, ";")) != NULL;)
		if (name[0] != '\0')
			err = load_kld(l, name, args);
	free(copy);
	return err;
}

static int load_kernel_files(struct loader *l)
{
	const char *files = env_get(&l->env, "bootfile");
	const char *args = env_get(&l->env, "kernel_options");
	char all[VALUE_MAX];

	snprintf(all, sizeof(all), "%s;kernel", files != NULL ? files : "");
	return load_first(l, all, args);
}

/* From the directory /boot/KERNEL or KERNEL, which then leads module_path. */
static int load_kernel_from(struct loader *l, const char *kernel)
{
	static const char *const forms[] = { "/boot/%s", "%s" };
	const char *path = env_get(&l->env, "module_path");
	const char *old = env_get(&l->env, "kernel_path");
	char rest[VALUE_MAX], dir[FS_PATH_MAX], both[VALUE_MAX + FS_PATH_MAX];

	/* Without what an earlier kernel put there. */
	size_t skip = old != NULL ? strlen(old) : 0;
	if (path != NULL && skip > 0 && strncmp(path, old, skip) == 0 &&
	    path[skip] == ';')
		path += skip + 1;
	snprintf(rest, sizeof(rest), "%s", path != NULL ? path : "/boot/modules");
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		snprintf(dir, sizeof(dir), i == 0 ? "/boot/%s" : "%s", kernel);
		(void)env_set(&l->env, "module_path", dir);
		if (load_kernel_files(l) == 0) {
			snprintf(both, sizeof(both), "%s;%s", dir, rest);
			(void)env_set(&l->env, "module_path", both);
			(void)env_set(&l->env, "kernel_path", dir);
			return 0;
		}
		/* A kernel that is there but bad: no other is tried in its place.
		 */
		if (strstr(l->error, "can't find") == NULL)
			break;
	}
	char error[sizeof(l->error)];
	memcpy(error, l->error, sizeof(error));
	(void)env_set(&l->env, "module_path", rest);
	if (strstr(error, "can't find") != NULL &&
	    load_first(l, kernel, env_get(&l->env, "kernel_options")) == 0)
		return 0;
	if (strstr(error, "can't find") != NULL)
		return loader_fail(l,
		    "can't find a kernel: neither in /boot/%s nor in %s", kernel,
		    kernel);
	memcpy(l->error, error, sizeof(error));
	return -1;
}

static void load_one_module(struct loader *l, const struct conf_module *m)
{
	const char *name = m->file != NULL ? m->file : m->name;

	if (m->before != NULL && command_run(l, m->before) != 0)
		con_printf(&l->con, "%s_before: %s\n", m->name, l->error);
	int err = m->type != NULL ? load_raw(l, name, m->type)
				  : load_module(l, name, m->flags);
	if (err != 0) {
		con_printf(&l->con, "%s_load: %s\n", m->name, l->error);
		if (m->error != NULL)
			(void)command_run(l, m->error);
	} else if (m->after != NULL && command_run(l, m->after) != 0) {
		con_printf(&l->con, "%s_after: %s\n", m->name, l->error);
	}
}

/* Files that the defaults ask for and few disks have. */
static bool is_silent(const struct conf_module *m)
{
	return strcmp(m->name, "hostuuid") == 0 ||
	       strcmp(m->name, "entropy_cache") == 0;
}

int conf_load(struct loader *l, const char *kernel)
{
	if (kernel == NULL)
		kernel = l->conf.chosen_kernel;
	if (kernel == NULL)
		kernel = env_get(&l->env, "kernel");
	if (kernel == NULL || kernel[0] == '\0')
		kernel = "kernel";
	char *name = strdup(kernel); /* variables move */
	int err = name == NULL ? -1 : load_kernel_from(l, name);
	free(name);
	const char *blacklist = env_get(&l->env, "module_blacklist");
	for (unsigned i = 0; err == 0 && i < l->conf.count; i++) {
		const struct conf_module *m = &l->conf.module[i];
		char path[FS_PATH_MAX];

		if (m->load == NULL || strcasecmp(m->load, "yes") != 0)
			continue;
		if (!m->forced && is_listed(blacklist, m->file ? m->file : m->name))
			continue;
		if (is_silent(m) && m->file != NULL) {
			struct node n;
			struct fs *fs;
			snprintf(path, sizeof(path), "%s", m->file);
			if (dev_walk(&l->dev, path, &fs, &n) != 0)
				continue;
		}
		load_one_module(l, m);
	}
	return err;
}
