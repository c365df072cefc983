/*
 * The prompt: words with quotes, escapes and variables as in loader(8), and the
 * table of commands; what they do is in command_*.c.
 */
#include "load/bsd/command.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/loader.h"

#define WORDS_MAX 64
#define TEXT_MAX  8192

static const struct command commands[] = {
	{ "?", command_help, "list commands", "? lists all commands." },
	{ "autoboot", command_autoboot, "boot automatically after a delay",
	    "autoboot [seconds [prompt]]\nBoots after that time (autoboot_delay); "
	    "a key stops it." },
	{ "boot", command_boot, "boot a file or loaded kernel",
	    "boot [-flags] | boot kernel [-flags]\nBoots what is loaded, or what "
	    "loader.conf says, or another kernel.\nFlags: -a ask for the root, -s "
	    "single user, -v verbose, -d debugger, -D -h consoles,\n-C root on "
	    "CD, -m mute, -p pause, -r default root, -g gdb." },
	{ "boot-conf", command_boot_conf, "load kernel and modules, then boot",
	    "boot-conf [-flags] [kernel]\nUnloads all, loads the kernel and "
	    "loader.conf's modules, boots." },
	{ "echo", command_echo, "print arguments", "echo [-n] text" },
	{ "help", command_help, "detailed help", "help [command]" },
	{ "include", command_include, "read commands from a file",
	    "include file ...\nLines beginning with '@' are not shown, those "
	    "with '-' may fail." },
	{ "load", command_load, "load a kernel or module",
	    "load [-t type] file [arguments]\nThe first is the kernel. With -t any "
	    "file is loaded as it is: load -t md_image /boot/root.img" },
	{ "ls", command_ls, "list files", "ls [-l] [path]" },
	{ "lsdev", command_lsdev, "list all devices", "lsdev [-v]" },
	{ "lsmod", command_lsmod, "list loaded modules", "lsmod [-v]" },
	{ "menu", command_menu, "show the menu", "menu" },
	{ "more", command_more, "show contents of a file", "more file ..." },
	{ "quit", command_quit, "exit the loader",
	    "quit\nEnds bhyveload with status 1." },
	{ "reboot", command_reboot, "reboot the system",
	    "reboot\nEnds bhyveload with status 2." },
	{ "set", command_set, "set a variable", "set name=value | set name" },
	{ "show", command_show, "show variables", "show [name]" },
	{ "unload", command_unload, "unload all modules", "unload" },
	{ "unset", command_unset, "unset a variable", "unset name" },
};

const struct command *command_table(size_t *count)
{
	*count = ARRAY_SIZE(commands);
	return commands;
}

/* One character or variable of a line goes to out. NULL: what is wrong is said. */
static const char *take(
    struct loader *l, const char *p, char quote, char *out, size_t *n)
{
	char name[128];

	if (*p == '\\' && quote != '\'') {
		if (p[1] == '\0') {
			loader_fail(l, "a '\\' ends the line");
			return NULL;
		}
		out[(*n)++] = p[1] == 'n' ? '\n' : p[1] == 't' ? '\t' : p[1];
		return p + 2;
	}
	if (*p != '$' || quote == '\'') {
		out[(*n)++] = *p;
		return p + 1;
	}
	bool brace = p[1] == '{';
	const char *from = p + 1 + brace;
	size_t len = brace ? strcspn(from, "}") : strcspn(from, " \t\"'$\\");
	if (len == 0 || len >= sizeof(name) || (brace && from[len] == '\0')) {
		loader_fail(l, "a '$' without the name of a variable");
		return NULL;
	}
	memcpy(name, from, len);
	name[len] = '\0';
	const char *value = env_get(&l->env, name);
	size_t value_len = value != NULL ? strlen(value) : 0;
	if (*n + value_len + 2 >= TEXT_MAX) {
		loader_fail(l, "the line is too long");
		return NULL;
	}
	if (value_len > 0)
		memcpy(out + *n, value, value_len);
	*n += value_len;
	return from + len + brace;
}

/* The words of a line, in text. Their number, or -1. */
static int split(struct loader *l, const char *line, char *text, char **words)
{
	size_t n = 0;
	int count = 0;

	for (const char *p = line + strspn(line, " \t"); *p != '\0' && *p != '#';
	     p += strspn(p, " \t")) {
		char quote = '\0';

		if (count == WORDS_MAX)
			return loader_fail(l, "more than %d words", WORDS_MAX);
		words[count++] = text + n;
		while (*p != '\0' && (quote != '\0' || (*p != ' ' && *p != '\t'))) {
			if (n + 2 >= TEXT_MAX)
				return loader_fail(l, "the line is too long");
			if (quote == '\0' && (*p == '"' || *p == '\'')) {
				quote = *p++;
			} else if (quote != '\0' && *p == quote) {
				quote = '\0';
				p++;
			} else {
				p = take(l, p, quote, text, &n);
				if (p == NULL)
					return -1;
			}
		}
		if (quote != '\0')
			return loader_fail(l, "the closing %c is missing", quote);
		text[n++] = '\0';
	}
	return count;
}

int command_run(struct loader *l, const char *line)
{
	char text[TEXT_MAX], *words[WORDS_MAX + 1];

	int count = split(l, line, text, words);
	if (count <= 0)
		return count;
	words[count] = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(words[0], commands[i].name) == 0)
			return commands[i].run(l, count, words);
	return loader_fail(
	    l, "unknown command '%s' (\"?\" lists the commands)", words[0]);
}

void command_prompt(struct loader *l)
{
	char line[CON_LINE], prompt[80];

	while (l->end == LOADER_RUNNING) {
		const char *p = env_get(&l->env, "prompt");
		snprintf(prompt, sizeof(prompt), "%.70s ", p != NULL ? p : "OK");
		if (con_line(&l->con, prompt, line) == CON_EOF) {
			con_printf(&l->con, "\n");
			l->end = LOADER_NO_INPUT;
			return;
		}
		l->error[0] = '\0';
		if (command_run(l, line) != 0)
			con_printf(&l->con, "%s\n", l->error);
	}
}
