/* What is wrong with a whole configuration: said in a sentence, before any work. */
#include <errno.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>
#include <unistd.h>

#include "bhyve/options.h"
#include "lib/config.h"
#include "lib/log.h"
#include "lib/size.h"
#include "lib/util.h"
#include "vmm/machine.h"
#include "vmm/memory.h"
#include "vmm/vmfile.h"

static int check_name(const struct config *cfg)
{
	const char *name = config_get(cfg, "name"), *error;

	if (name == NULL) {
		log_error("no VM named; the VM's name is the last argument");
		usage_short();
		return EXIT_USAGE;
	}
	error = vmfile_name_error(name);
	if (error == NULL)
		return OPTIONS_RUN;
	log_error("\"%s\" cannot name a VM: %s", name, error);
	return EXIT_ERROR;
}

static int check_topology(struct config *cfg)
{
	static const char *const keys[] = { "cpus", "sockets", "cores", "threads" };
	uint64_t n[4], product;
	char text[24];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (config_get_num(cfg, keys[i], 1, 1, UINT16_MAX, &n[i]) != 0)
			return EXIT_ERROR;
	}
	/* Only a number of CPUs: that many sockets, as bhyve does. */
	if (config_get(cfg, "sockets") == NULL &&
	    config_get(cfg, "cores") == NULL && config_get(cfg, "threads") == NULL)
		n[1] = n[0];
	product = n[1] * n[2] * n[3];
	if (config_get(cfg, "cpus") == NULL)
		n[0] = product;
	if (product != n[0]) {
		log_error("-c: %u sockets of %u cores of %u threads are %llu CPUs, "
			  "not %u; "
			  "leave out cpus= or make it their product",
		    (unsigned)n[1], (unsigned)n[2], (unsigned)n[3],
		    (unsigned long long)product, (unsigned)n[0]);
		return EXIT_ERROR;
	}
	if (n[0] > MACHINE_MAX_CPUS) {
		log_error("-c: %llu CPUs; a VM has at most %d",
		    (unsigned long long)n[0], MACHINE_MAX_CPUS);
		return EXIT_ERROR;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		snprintf(text, sizeof(text), "%u", (unsigned)n[i]);
		if (config_set(cfg, keys[i], text) != 0)
			return EXIT_ERROR;
	}
	return OPTIONS_RUN;
}

static int check_memory(const struct config *cfg)
{
	const char *text = config_get(cfg, "memory.size");
	uint64_t size, host;

	if (text == NULL || size_parse_memory(text, &size) != 0) {
		log_error("-m %s: not a memory size; use a number with K, M, G or "
			  "T, as in "
			  "-m 1024M",
		    text != NULL ? text : "");
		return EX_USAGE;
	}
	if (size < MiB) {
		log_error("-m %s: a guest needs at least 1M of memory", text);
		return EX_USAGE;
	}
	if (size % MEMORY_PAGE != 0) {
		log_error("-m %s: not a multiple of 4K", text);
		return EX_USAGE;
	}
	host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	if (size > host) {
		log_error(
		    "-m %s: more than this host's memory of %llu MB; use a smaller "
		    "size here and for the loader",
		    text, (unsigned long long)(host / MiB));
		return EXIT_ERROR;
	}
	return OPTIONS_RUN;
}

static int check_uuid(const struct config *cfg)
{
	const char *text = config_get(cfg, "uuid");
	bool good = true;

	if (text == NULL)
		return OPTIONS_RUN;
	for (size_t i = 0; good && i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		good =
		    dash ? text[i] == '-' : isxdigit((unsigned char)text[i]) != 0;
	}
	if (good && text[36] == '\0')
		return OPTIONS_RUN;
	log_error(
	    "-U %s: not a UUID; use 32 hexadecimal digits grouped 8-4-4-4-12, as "
	    "uuidgen prints",
	    text);
	return EXIT_ERROR;
}

static int check_engine(const struct config *cfg)
{
	const char *engine = config_get(cfg, "engine");

	if (engine == NULL || strcmp(engine, "auto") == 0 ||
	    strcmp(engine, "soft") == 0)
		return OPTIONS_RUN;
	if (strcmp(engine, "kvm") == 0)
		log_error(
		    "engine=kvm: the KVM engine is not part of this version; use "
		    "engine=soft or engine=auto");
	else
		log_error("engine=%s: no such engine; use auto or soft", engine);
	return EXIT_ERROR;
}

static int check_values(const struct config *cfg)
{
	static const char *const keys[] = { "acpi_tables", "acpi_tables_in_memory",
		"config.dump", "destroy_on_poweroff", "gdb.wait", "lpc.pc-testdev",
		"memory.guest_in_core",
		"memory.wired", "rtc.use_localtime", "sandbox", "virtio_msix",
		"x86.mptable", "x86.strictio", "x86.strictmsr", "x86.verbosemsr",
		"x86.vmexit_on_hlt", "x86.vmexit_on_pause", "x86.x2apic" };
	uint64_t port;
	bool value;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (config_get_bool(cfg, keys[i], false, &value) != 0)
			return EXIT_ERROR;
	}
	if (config_get_num(cfg, "gdb.port", 0, 0, 65535, &port) != 0)
		return EXIT_ERROR;
	return OPTIONS_RUN;
}

/*
 * Keys that ask for parts this version does not have: better refused than ignored.
 */
static int check_not_built(const struct config *cfg)
{
	static const struct {
		const char *key, *what;
	} parts[] = {
		{ "bootrom", "a boot ROM (UEFI)" },
		{ "lpc.bootrom", "a boot ROM (UEFI)" },
		{ "bootvars", "a boot ROM's variables" },
		{ "lpc.bootvars", "a boot ROM's variables" },
		{ "lpc.fwcfg", "the fw_cfg device" },
		{ "tpm", "a TPM" },
		{ "domains", "guest NUMA" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const char *value = config_get(cfg, parts[i].key);

		if (!config_has(cfg, parts[i].key) ||
		    (value != NULL && strcasecmp(value, "false") == 0))
			continue;
		log_error("%s: %s is not part of this version of bhyve; load the "
			  "guest with "
			  "grub-bhyve and leave the setting out",
		    parts[i].key, parts[i].what);
		return EXIT_ERROR;
	}
	return OPTIONS_RUN;
}

int options_check(struct config *cfg)
{
	bool dump;
	int status;

	if (config_get_bool(cfg, "config.dump", false, &dump) != 0)
		return EXIT_ERROR;
	if (dump) {
		config_dump(cfg, stdout);
		return EXIT_POWEROFF;
	}
	status = check_name(cfg);
	if (status == OPTIONS_RUN)
		status = check_values(cfg);
	if (status == OPTIONS_RUN)
		status = check_topology(cfg);
	if (status == OPTIONS_RUN)
		status = check_memory(cfg);
	if (status == OPTIONS_RUN)
		status = check_uuid(cfg);
	if (status == OPTIONS_RUN)
		status = check_engine(cfg);
	if (status == OPTIONS_RUN)
		status = check_not_built(cfg);
	return status;
}
