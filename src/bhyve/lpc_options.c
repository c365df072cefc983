/* -l: the devices behind the LPC bridge and what else bhyve puts there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/options.h"
#include "lib/config.h"
#include "lib/log.h"
#include "lib/util.h"

static const char *const names[] = { "bootrom", "com1", "com2", "com3", "com4",
	"pc-testdev", "tpm" };

void lpc_print_devices(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		printf("%s\n", names[i]);
}

static int bad(const char *text, const char *right)
{
	log_error("-l %s: %s", text, right);
	return -EINVAL;
}

/* rom[,vars][,fwcfg=bhyve|qemu] */
static int parse_bootrom(struct config *cfg, const char *text, char *conf)
{
	bool first = true;
	char *word;

	if (conf == NULL)
		return bad(text, "needs the path of a ROM: -l bootrom,PATH[,VARS]");
	while ((word = strsep(&conf, ",")) != NULL) {
		const char *key = first ? "bootrom" : "bootvars";
		const char *value = word;

		if (!first && strncmp(word, "fwcfg=", 6) == 0) {
			key = "lpc.fwcfg";
			value = word + 6;
		}
		first = false;
		if (config_set(cfg, key, value) != 0)
			return bad(text,
			    "an empty value; use -l bootrom,PATH[,VARS]"
			    "[,fwcfg=bhyve|qemu]");
	}
	return 0;
}

/* type,path[,name=value...] */
static int parse_tpm(struct config *cfg, const char *text, char *conf)
{
	static const char *const positional[] = { "tpm.type", "tpm.path" };
	size_t i = 0;
	char *word;

	while (conf != NULL && (word = strsep(&conf, ",")) != NULL) {
		char *eq = strchr(word, '=');
		int error;

		if (i < ARRAY_SIZE(positional)) {
			error = config_set(cfg, positional[i++], word);
		} else if (eq != NULL) {
			*eq = '\0';
			error = config_setf(cfg, eq + 1, "tpm.%s", word);
		} else {
			error = -EINVAL;
		}
		if (error != 0)
			return bad(text,
			    "use -l tpm,passthru,/dev/tpm0[,version=2.0] or "
			    "-l tpm,swtpm,/path/to/socket");
	}
	if (i < ARRAY_SIZE(positional))
		return bad(
		    text, "use -l tpm,TYPE,PATH with type passthru or swtpm");
	return 0;
}

static int parse_device(
    struct config *cfg, const char *text, const char *name, char *conf)
{
	if (strcmp(name, "bootrom") == 0)
		return parse_bootrom(cfg, text, conf);
	if (strcmp(name, "tpm") == 0)
		return parse_tpm(cfg, text, conf);
	if (strcmp(name, "pc-testdev") == 0 && conf != NULL)
		return bad(text, "takes nothing more: use -l pc-testdev");
	if (strcmp(name, "pc-testdev") == 0)
		return config_set(cfg, "lpc.pc-testdev", "true");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(name, names[i]) != 0)
			continue;
		if (conf == NULL ||
		    config_setf(cfg, conf, "lpc.%s.path", name) != 0)
			return bad(text,
			    "needs a console: stdio, a terminal's path, or "
			    "tcp=address:port, as in -l com1,stdio");
		return 0;
	}
	return bad(text, "no LPC device has this name; \"-l help\" lists them");
}

int lpc_parse(struct config *cfg, const char *text)
{
	char *copy = strdup(text), *conf = copy, *name;
	int error;

	if (copy == NULL)
		return -ENOMEM;
	name = strsep(&conf, ",");
	error = parse_device(cfg, text, name, conf);
	free(copy);
	return error;
}
