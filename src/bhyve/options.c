/*
 * The command line of bhyve(8).
 *
 * Invariant: options and -k files are applied strictly in the order given and
 * only set keys; all checks that need several keys come after (check.c).
 */
#include "bhyve/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bhyve/pci/pci.h"
#include "lib/config.h"
#include "lib/log.h"
#include "lib/size.h"
#include "lib/util.h"

#define MAX_VCPUS   65535 /* what the option takes; the machine has its own limit */
#define MAX_HOSTCPU 65535

static int set_defaults(struct config *cfg)
{
	static const char *const defaults[][2] = {
		{ "acpi_tables", "true" },
		{ "acpi_tables_in_memory", "true" },
		{ "config.dump", "false" },
		{ "destroy_on_poweroff", "false" },
		{ "engine", "auto" },
		{ "memory.guest_in_core", "false" },
		{ "memory.size", "256M" },
		{ "memory.wired", "false" },
		{ "rtc.use_localtime", "true" },
		{ "virtio_msix", "true" },
		{ "x86.mptable", "true" },
		{ "x86.strictio", "false" },
		{ "x86.strictmsr", "true" },
		{ "x86.verbosemsr", "false" },
		{ "x86.vmexit_on_hlt", "false" },
		{ "x86.vmexit_on_pause", "false" },
		{ "x86.x2apic", "false" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(defaults); i++) {
		if (config_set(cfg, defaults[i][0], defaults[i][1]) != 0)
			return -ENOMEM;
	}
	return 0;
}

/* [[cpus=]N][,sockets=n][,cores=n][,threads=n]; what is not named is 1 again. */
static int parse_topology(struct config *cfg, const char *text)
{
	static const char *const keys[] = { "cpus", "sockets", "cores", "threads" };
	char *copy = strdup(text), *rest = copy, *word;
	int error = 0;

	if (copy == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		config_unset(cfg, keys[i]);
	while (error == 0 && (word = strsep(&rest, ",")) != NULL) {
		const char *key = keys[0], *value = word;
		char *eq = strchr(word, '=');
		uint64_t n;

		if (*word == '\0')
			continue;
		if (eq != NULL) {
			*eq = '\0';
			key = NULL;
			value = eq + 1;
			for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
				if (strcmp(word, keys[i]) == 0)
					key = keys[i];
			}
		}
		if (key == NULL || number_parse(value, 1, MAX_VCPUS, &n) != 0)
			error = -EINVAL;
		else
			error = config_set(cfg, key, value);
	}
	free(copy);
	if (error == -EINVAL)
		log_error(
		    "-c %s: not a CPU topology; use a number, or "
		    "cpus=N,sockets=N,cores=N,threads=N with numbers from 1 to %d",
		    text, MAX_VCPUS);
	return error;
}

/* vcpu:hostcpu, added to what the vCPU has. */
static int parse_pin(struct config *cfg, const char *text)
{
	const char *colon = strchr(text, ':'), *old;
	uint64_t vcpu, hostcpu;
	char number[8], set[4096];

	if (colon == NULL || colon - text >= (ptrdiff_t)sizeof(number))
		goto bad;
	snprintf(number, sizeof(number), "%.*s", (int)(colon - text), text);
	if (number_parse(number, 0, MAX_VCPUS - 1, &vcpu) != 0 ||
	    number_parse(colon + 1, 0, MAX_HOSTCPU, &hostcpu) != 0)
		goto bad;
	old = config_getf(cfg, "vcpu.%u.cpuset", (unsigned)vcpu);
	if (snprintf(set, sizeof(set), "%s%s%u", old != NULL ? old : "",
		old != NULL ? "," : "", (unsigned)hostcpu) >= (int)sizeof(set))
		goto bad;
	return config_setf(cfg, set, "vcpu.%u.cpuset", (unsigned)vcpu);
bad:
	log_error(
	    "-p %s: use VCPU:HOSTCPU, two numbers from 0, as in -p 0:1", text);
	return -EINVAL;
}

/* [w][address:]port */
static int parse_gdb(struct config *cfg, const char *text)
{
	const char *p = text, *colon, *port;
	uint64_t n;
	int error = 0;

	if (*p == 'w') {
		error = config_set(cfg, "gdb.wait", "true");
		p++;
	}
	colon = strrchr(p, ':');
	port = colon != NULL ? colon + 1 : p;
	if (number_parse(port, 1, 65535, &n) != 0)
		error = -EINVAL;
	if (error == 0 && colon != NULL) {
		char *address = strndup(p, (size_t)(colon - p));

		error = address == NULL ? -ENOMEM
					: config_set(cfg, "gdb.address", address);
		free(address);
	}
	if (error == 0)
		error = config_set(cfg, "gdb.port", port);
	if (error != 0)
		log_error(
		    "-G %s: use [w][address:]port with a port from 1 to 65535",
		    text);
	return error;
}

static int set_variable(struct config *cfg, const char *text)
{
	int error = config_parse_option(cfg, text);

	if (error != 0)
		log_error(
		    "-o %s: not a variable; use NAME=VALUE with a value that is "
		    "not empty, as in -o memory.size=1G",
		    text);
	return error;
}

static int set_value(
    struct config *cfg, int opt, const char *key, const char *value)
{
	int error = config_set(cfg, key, value);

	if (error != 0)
		log_error("-%c: the value is empty", opt);
	return error;
}

/* FreeBSD's test: any prefix of "help", the empty one included. */
static bool asks_help(const char *text)
{
	return strncmp(text, "help", strlen(text)) == 0;
}

static int refuse(int opt, const char *what)
{
	log_error(
	    "-%c: %s is not part of this version of bhyve; leave the option out",
	    opt, what);
	return EXIT_ERROR;
}

/* Options without argument: one key each, or none at all. */
static const struct {
	char opt;
	const char *key, *value;
} flags[] = {
	{ 'A', NULL, NULL },
	{ 'a', "x86.x2apic", "false" },
	{ 'C', "memory.guest_in_core", "true" },
	{ 'D', "destroy_on_poweroff", "true" },
	{ 'e', "x86.strictio", "true" },
	{ 'H', "x86.vmexit_on_hlt", "true" },
	{ 'I', NULL, NULL },
	{ 'P', "x86.vmexit_on_pause", "true" },
	{ 'S', "memory.wired", "true" },
	{ 'u', "rtc.use_localtime", "false" },
	{ 'W', "virtio_msix", "false" },
	{ 'w', "x86.strictmsr", "false" },
	{ 'x', "x86.x2apic", "true" },
	{ 'Y', "x86.mptable", "false" },
};

enum { OPT_HELP = 256, OPT_VERSION };

static int apply(struct config *cfg, int opt, const char *arg)
{
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		if (flags[i].opt != opt)
			continue;
		if (flags[i].key != NULL &&
		    config_set(cfg, flags[i].key, flags[i].value) != 0)
			return EXIT_ERROR;
		return OPTIONS_RUN;
	}
	switch (opt) {
	case 'c':
		return parse_topology(cfg, arg) == 0 ? OPTIONS_RUN : EX_USAGE;
	case 'f':
		return refuse(opt, "the fw_cfg device");
	case 'G':
		return parse_gdb(cfg, arg) == 0 ? OPTIONS_RUN : EX_USAGE;
	case 'h':
		usage_short();
		return EXIT_SUCCESS;
	case 'K':
		return set_value(cfg, opt, "keyboard.layout", arg) == 0
			   ? OPTIONS_RUN
			   : EX_USAGE;
	case 'k':
		return config_load(cfg, arg) == 0 ? OPTIONS_RUN : EXIT_ERROR;
	case 'l':
		if (asks_help(arg)) {
			lpc_print_devices();
			return EXIT_SUCCESS;
		}
		return lpc_parse(cfg, arg) == 0 ? OPTIONS_RUN : EX_USAGE;
	case 'm':
		return set_value(cfg, opt, "memory.size", arg) == 0 ? OPTIONS_RUN
								    : EX_USAGE;
	case 'n':
		return refuse(opt, "guest NUMA");
	case 'o':
		return set_variable(cfg, arg) == 0 ? OPTIONS_RUN : EX_USAGE;
	case 'p':
		return parse_pin(cfg, arg) == 0 ? OPTIONS_RUN : EX_USAGE;
	case 'r':
		return refuse(opt, "restoring a snapshot");
	case 's':
		if (asks_help(arg)) {
			pci_print_classes();
			return EXIT_SUCCESS;
		}
		return pci_parse_slot(cfg, arg) == 0 ? OPTIONS_RUN : EXIT_ERROR;
	case 'U':
		return set_value(cfg, opt, "uuid", arg) == 0 ? OPTIONS_RUN
							     : EX_USAGE;
	case OPT_HELP:
		usage_long();
		return EXIT_SUCCESS;
	case OPT_VERSION:
		printf("bhyve %s\n", BHYVE_VERSION);
		return EXIT_SUCCESS;
	default: /* getopt has said what is wrong */
		usage_short();
		return EXIT_USAGE;
	}
}

int options_parse(struct config *cfg, int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "help", no_argument, NULL, OPT_HELP },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ 0 },
	};
	/* '+': as in FreeBSD, options end at the VM's name. */
	static const char shortopts[] =
	    "+AaCc:DeG:f:HhIK:k:l:m:n:o:Pp:r:Ss:U:uWwxY";
	int opt, status;

	if (set_defaults(cfg) != 0) {
		log_error("no memory for the configuration");
		return EXIT_ERROR;
	}
	while ((opt = getopt_long(argc, argv, shortopts, longopts, NULL)) != -1) {
		status = apply(cfg, opt, optarg);
		if (status != OPTIONS_RUN)
			return status;
	}
	argc -= optind;
	argv += optind;
	if (argc > 1) {
		log_error("\"%s\": one VM name only, and options come before it",
		    argv[1]);
		usage_short();
		return EXIT_USAGE;
	}
	if (argc == 1 && config_set(cfg, "name", argv[0]) != 0) {
		log_error("the VM's name is empty");
		return EXIT_USAGE;
	}
	return OPTIONS_RUN;
}
