/* Words of GRUB's commands for kernels (kernel.h). */
#include "load/kernel.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/plan.h"

#define SPEED_DEFAULT 9600

static const struct kernel_command commands[] = {
	{ "kopenbsd", &system_openbsd, KERNEL_IMAGE },
	{ "kopenbsd_ramdisk", &system_openbsd, KERNEL_RAMDISK },
	{ "knetbsd", &system_netbsd, KERNEL_IMAGE },
	{ "knetbsd_module", &system_netbsd, KERNEL_MODULE },
	{ "knetbsd_module_elf", &system_netbsd, KERNEL_MODULE_ELF },
	{ "kfreebsd", &system_freebsd, KERNEL_IMAGE },
	{ "kfreebsd_loadenv", &system_freebsd, KERNEL_ENV },
	{ "kfreebsd_module", &system_freebsd, KERNEL_MODULE },
	{ "kfreebsd_module_elf", &system_freebsd, KERNEL_MODULE_ELF },
	{ "multiboot", &system_multiboot, KERNEL_IMAGE },
	{ "module", &system_multiboot, KERNEL_MODULE },
	{ "multiboot2", &system_multiboot2, KERNEL_IMAGE },
	{ "module2", &system_multiboot2, KERNEL_MODULE },
};

const struct kernel_command *kernel_find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

void kernel_free_file(struct kernel_file *f)
{
	free(f->name);
	free(f->args);
	free(f->type);
	free(f->data);
	*f = (struct kernel_file){ .name = NULL };
}

void kernel_free(struct kernel *k)
{
	for (unsigned i = 0; i < k->files; i++)
		kernel_free_file(&k->file[i]);
	env_free(&k->env);
	*k = (struct kernel){ .memory = k->memory };
}

const struct kernel_file *kernel_ramdisk(const struct kernel *k)
{
	for (unsigned i = 0; i < k->files; i++)
		if (k->file[i].kind == KERNEL_RAMDISK)
			return &k->file[i];
	return NULL;
}

/* "0x3f8", "com1", "com0,115200", ",115200". Whether it is of that form. */
static bool parse_serial(struct kernel_serial *s, const char *text)
{
	static const uint32_t ports[] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
	struct kernel_serial v = { true, 0, ports[0], SPEED_DEFAULT };
	char *end = (char *)text;

	if (strncmp(text, "com", 3) == 0) {
		if (!isdigit((unsigned char)text[3]))
			return false;
		unsigned long unit = strtoul(text + 3, &end, 10);
		if (unit >= ARRAY_SIZE(ports))
			return false;
		v.unit = (unsigned)unit;
		v.port = ports[unit];
	} else if (isdigit((unsigned char)text[0])) {
		unsigned long port = strtoul(text, &end, 0);
		if (port > 0xffff)
			return false;
		v.port = (uint32_t)port;
		for (unsigned i = 0; i < ARRAY_SIZE(ports); i++)
			if (ports[i] == port)
				v.unit = i;
	}
	if (*end == ',') {
		const char *from = end + 1;
		unsigned long speed = strtoul(from, &end, 10);
		if (!isdigit((unsigned char)*from) || speed == 0 || speed > 4000000)
			return false;
		v.speed = (uint32_t)speed;
	}
	if (*end != '\0' || end == text)
		return false;
	*s = v;
	return true;
}

struct words {
	int argc;
	char *const *argv;
	int at; /* the word in hand */
};

/*
 * An option's value: what follows the letter, or the next word. A serial console
 * needs none, so the next word counts only when it looks like one.
 */
static int take_value(struct kernel *k, const struct kernel_option *o,
    struct words *w, const char *value, struct load_error *e)
{
	bool own = value != NULL;

	if (!own && w->at + 1 < w->argc)
		value = w->argv[w->at + 1];
	if (o->kind == OPTION_SERIAL) {
		if (value == NULL || !parse_serial(&k->serial, value)) {
			if (own)
				return load_fail(e,
				    "-%c %s: not a serial port; wanted is com0 or "
				    "com0,115200",
				    o->letter, value);
			parse_serial(&k->serial, "com0");
			return 0;
		}
	} else {
		if (value == NULL || strlen(value) >= sizeof(k->root) ||
		    value[0] == '\0')
			return load_fail(e,
			    "-%c: a root device is wanted, as sd0a or wd0a",
			    o->letter);
		snprintf(k->root, sizeof(k->root), "%s", value);
	}
	w->at += !own;
	return 0;
}

static int apply(struct kernel *k, const struct kernel_option *o, struct words *w,
    const char *value, struct load_error *e)
{
	k->howto |= o->bit;
	if (o->kind == OPTION_OLD_CONSOLE)
		k->old_console = true;
	return o->kind == OPTION_ROOT || o->kind == OPTION_SERIAL
		   ? take_value(k, o, w, value, e)
		   : 0;
}

static int long_option(
    struct kernel *k, const char *command, struct words *w, struct load_error *e)
{
	const char *word = w->argv[w->at] + 2;
	size_t len = strcspn(word, "=");

	for (unsigned i = 0; i < k->system->options; i++) {
		const struct kernel_option *o = &k->system->option[i];
		if (strlen(o->name) == len && strncmp(o->name, word, len) == 0)
			return apply(
			    k, o, w, word[len] == '=' ? word + len + 1 : NULL, e);
	}
	return load_fail(e, "%s: unknown option --%.*s", command,
	    (int)MIN(len, (size_t)40), word);
}

static int short_options(
    struct kernel *k, const char *command, struct words *w, struct load_error *e)
{
	for (const char *p = w->argv[w->at] + 1; *p != '\0'; p++) {
		const struct kernel_option *o = NULL;
		for (unsigned i = 0; i < k->system->options; i++)
			if (k->system->option[i].letter == *p)
				o = &k->system->option[i];
		if (o == NULL)
			return load_fail(e, "%s: unknown option -%c", command, *p);
		bool value = o->kind == OPTION_ROOT || o->kind == OPTION_SERIAL;
		int err = apply(k, o, w, value && p[1] != '\0' ? p + 1 : NULL, e);
		if (err != 0 || value)
			return err;
	}
	return 0;
}

/* Options and the file in any order, as GRUB takes them. */
static int parse_options(struct kernel *k, const char *command, int argc,
    char *const argv[], struct load_error *e)
{
	struct words w = { argc, argv, 0 };
	int file = -1;

	for (; w.at < argc; w.at++) {
		const char *word = argv[w.at];
		int err = 0;
		if (word[0] != '-' || word[1] == '\0') {
			if (file >= 0)
				err = load_fail(e,
				    "%s: one file is wanted, not "
				    "another, %.60s",
				    command, word);
			file = w.at;
		} else if (word[1] == '-') {
			err = long_option(k, command, &w, e);
		} else {
			err = short_options(k, command, &w, e);
		}
		if (err != 0)
			return err;
	}
	return file;
}

static char *join(int argc, char *const argv[])
{
	size_t len = 1;

	for (int i = 0; i < argc; i++)
		len += strlen(argv[i]) + 1;
	char *line = malloc(len), *p = line;
	if (line == NULL)
		return NULL;
	for (int i = 0; i < argc; i++) {
		if (i > 0)
			*p++ = ' ';
		p = stpcpy(p, argv[i]);
	}
	*p = '\0';
	return line;
}

/* "(cd0)/boot/kernel" is /boot/kernel to the guest. */
static const char *without_device(const char *path)
{
	const char *end = path[0] == '(' ? strchr(path, ')') : NULL;

	return end != NULL && end[1] != '\0' ? end + 1 : path;
}

int kernel_begin(struct kernel *k, struct kernel_file *f,
    const struct kernel_command *c, int argc, char *const argv[],
    struct load_error *e)
{
	int file = 0;

	*f = (struct kernel_file){ .kind = c->kind };
	if (c->kind == KERNEL_IMAGE) {
		kernel_free(k);
		k->system = c->system;
	} else if (k->files == 0 || k->system != c->system) {
		return load_fail(e, "load a kernel first, with the command %s",
		    c->system->command);
	}
	if (c->kind == KERNEL_IMAGE && !c->system->takes_args) {
		file = parse_options(k, c->name, argc, argv, e);
		if (file < -1)
			return file;
	} else {
		/* --nounzip, --quirk-...: how GRUB reads, not what. */
		while (file < argc && strncmp(argv[file], "--", 2) == 0)
			file++;
	}
	if (file < 0 || file >= argc)
		return load_fail(e, "%s FILE: the file is missing", c->name);
	int next = file + 1;
	if (c->kind == KERNEL_MODULE && !c->system->takes_args && next < argc &&
	    strncmp(argv[next], "type=", 5) == 0)
		f->type = strdup(argv[next++] + 5);
	bool args = c->kind != KERNEL_IMAGE || c->system->takes_args;
	f->name = strdup(without_device(argv[file]));
	f->args = join(args ? argc - next : 0, argv + next);
	if (f->name == NULL || f->args == NULL) {
		kernel_free_file(f);
		return load_fail(e, "out of memory");
	}
	return file;
}

int kernel_set_variable(struct kernel *k, const char *text, struct load_error *e)
{
	char name[128];
	size_t len = strcspn(text, "=");

	if (text[len] == '\0' || len == 0 || len >= sizeof(name))
		return load_fail(e, "not a variable, name=value: %.60s", text);
	memcpy(name, text, len);
	name[len] = '\0';
	return env_set(&k->env, name, text + len + 1) == 0
		   ? 0
		   : load_fail(e, "too many variables, at %.60s", text);
}

/* A line "name=value" or "name="value"", comments and empty lines. */
static int add_line(
    struct kernel *k, char *line, unsigned number, struct load_error *e)
{
	char *value = strchr(line, '=');
	size_t len = strlen(line);

	while (len > 0 && isspace((unsigned char)line[len - 1]))
		line[--len] = '\0';
	line += strspn(line, " \t");
	if (*line == '\0' || *line == '#')
		return 0;
	if (value == NULL || value == line)
		return load_fail(
		    e, "line %u is not name=value: %.60s", number, line);
	if (value[1] == '"') {
		char *end = strchr(value + 2, '"');
		if (end == NULL)
			return load_fail(
			    e, "line %u has no second quote: %.60s", number, line);
		*end = '\0';
		memmove(value + 1, value + 2, strlen(value + 2) + 1);
	}
	return kernel_set_variable(k, line, e);
}

static int add_variables(
    struct kernel *k, const struct kernel_file *f, struct load_error *e)
{
	char *text = malloc(f->len + 1), *rest = text, *line;
	unsigned number = 0;
	int err = 0;

	if (text == NULL)
		return load_fail(e, "out of memory");
	memcpy(text, f->data != NULL ? f->data : (uint8_t *)"", f->len);
	text[f->len] = '\0';
	while (err == 0 && (line = strsep(&rest, "\n")) != NULL)
		err = add_line(k, line, ++number, e);
	free(text);
	return err;
}

int kernel_load(const struct kernel *k, struct vmfile *vf, struct load_error *e)
{
	struct plan p;

	if (k->files == 0)
		return load_fail(e, "no kernel is loaded");
	if (k->system->load != NULL)
		return k->system->load(k, vf, e);
	int err = plan_init(&p, k->memory, e);
	if (err == 0)
		err = k->system->plan(k, &p, e);
	if (err == 0 && vf != NULL)
		err = plan_write(&p, vf, e);
	plan_free(&p);
	return err;
}

int kernel_add(struct kernel *k, struct kernel_file *f, struct load_error *e)
{
	struct kernel_file old = { .name = NULL };
	unsigned at = k->files;

	if (f->kind == KERNEL_ENV) {
		int err = add_variables(k, f, e);
		kernel_free_file(f);
		return err == 0 ? kernel_load(k, NULL, e) : err;
	}
	for (unsigned i = 0; f->kind == KERNEL_RAMDISK && i < k->files; i++)
		if (k->file[i].kind == KERNEL_RAMDISK)
			at = i;
	if (at == KERNEL_FILES_MAX) {
		kernel_free_file(f);
		return load_fail(
		    e, "more than %d files for one kernel", KERNEL_FILES_MAX);
	}
	if (at < k->files)
		old = k->file[at];
	else
		k->files++;
	k->file[at] = *f;
	*f = (struct kernel_file){ .name = NULL };
	int err = kernel_load(k, NULL, e);
	if (err == 0) {
		kernel_free_file(&old);
	} else if (at == 0) {
		kernel_free(k);
	} else {
		kernel_free_file(&k->file[at]);
		k->file[at] = old;
		k->files -= old.name == NULL;
	}
	return err;
}
