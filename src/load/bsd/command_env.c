/* Commands about variables, and help. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/command.h"
#include "load/bsd/loader.h"

int command_echo(struct loader *l, int argc, char **argv)
{
	bool newline = argc < 2 || strcmp(argv[1], "-n") != 0;

	for (int i = newline ? 1 : 2; i < argc; i++)
		con_printf(&l->con, "%s%s", argv[i], i + 1 < argc ? " " : "");
	if (newline)
		con_printf(&l->con, "\n");
	return 0;
}

int command_set(struct loader *l, int argc, char **argv)
{
	if (argc != 2)
		return loader_fail(l, "wrong number of arguments (set name=value)");
	char *value = strchr(argv[1], '=');
	if (value != NULL)
		*value++ = '\0';
	else
		value = argv[1] + strlen(argv[1]);
	if (strcmp(argv[1], "currdev") == 0)
		return loader_set_device(l, value);
	int err = env_set(&l->env, argv[1], value);
	if (err == -EINVAL)
		return loader_fail(l, "no name of a variable (set name=value)");
	return err == 0 ? 0 : loader_fail(l, "%s: %s", argv[1], strerror(-err));
}

int command_unset(struct loader *l, int argc, char **argv)
{
	if (argc != 2)
		return loader_fail(l, "wrong number of arguments (unset name)");
	if (strcmp(argv[1], "currdev") == 0)
		return loader_fail(l, "currdev cannot be unset");
	if (env_get(&l->env, argv[1]) == NULL)
		return loader_fail(l, "variable '%s' is not set", argv[1]);
	env_unset(&l->env, argv[1]);
	return 0;
}

int command_show(struct loader *l, int argc, char **argv)
{
	if (argc > 1) {
		const char *value = env_get(&l->env, argv[1]);
		if (value == NULL)
			return loader_fail(l, "variable '%s' is not set", argv[1]);
		con_printf(&l->con, "%s\n", value);
		return 0;
	}
	con_page_begin(&l->con, loader_rows(l));
	for (size_t i = 0; i < l->env.count && !con_stopped(&l->con); i++)
		con_printf(
		    &l->con, "%s=%s\n", l->env.var[i].name, l->env.var[i].value);
	con_page_end(&l->con);
	return 0;
}

int command_help(struct loader *l, int argc, char **argv)
{
	size_t count;
	const struct command *c = command_table(&count);
	bool all = argc < 2;

	con_page_begin(&l->con, loader_rows(l));
	if (all)
		con_printf(&l->con, "Available commands:\n");
	bool found = all;
	for (size_t i = 0; i < count; i++) {
		if (all) {
			con_printf(&l->con, "  %-12s %s\n", c[i].name, c[i].what);
		} else if (strcmp(argv[1], c[i].name) == 0) {
			con_printf(&l->con, "%s\n", c[i].help);
			found = true;
		}
	}
	con_page_end(&l->con);
	return found ? 0 : loader_fail(l, "no help available for '%s'", argv[1]);
}
