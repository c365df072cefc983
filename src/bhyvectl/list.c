/* --list: every VM object, for people and, as JSON, for programs. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "bhyvectl/ctl.h"
#include "lib/log.h"
#include "lib/util.h"

struct list {
	bool json;
	unsigned count;
};

static const char *state_name(const struct vmfile_info *info)
{
	switch (info->status) {
	case VMFILE_RUNNING:
		return "running";
	case VMFILE_USED:
		return "stopped";
	case VMFILE_LOADED:
		return info->pid != 0 ? "starting" : "loaded";
	case VMFILE_EMPTY:
		break;
	}
	if (info->memory == 0)
		return "damaged";
	return info->pid != 0 ? "loading" : "empty";
}

static uint64_t uptime(const struct vmfile_info *info)
{
	uint64_t now = (uint64_t)time(NULL);

	if (info->status != VMFILE_RUNNING || now < info->started)
		return 0;
	return now - info->started;
}

static void json_string(const char *s)
{
	putchar('"');
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void print_json(const struct vmfile_info *info, bool first)
{
	printf("%s\n  {\"name\": ", first ? "" : ",");
	json_string(info->name);
	printf(", \"state\": \"%s\", \"pid\": %ld, \"cpus\": %" PRIu32
	       ", \"memory\": %" PRIu64 ", \"uptime\": %" PRIu64
	       ", \"created\": %" PRIu64 ", \"loader\": ",
	    state_name(info), (long)info->pid, info->ncpu, info->memory,
	    uptime(info), info->created);
	json_string(info->loader);
	putchar('}');
}

/* A name may hold what would confuse a terminal. */
static void print_name(const char *name)
{
	int width = 0;

	for (; *name != '\0'; name++, width++)
		putchar((unsigned char)*name < 0x20 || *name == 0x7f ? '?' : *name);
	printf("%*s ", width < 24 ? 24 - width : 0, "");
}

static void print_text(const struct vmfile_info *info, bool first)
{
	char pid[16] = "-", cpus[16] = "-", up[32] = "-";
	uint64_t secs = uptime(info);

	if (first)
		printf("%-24s %-8s %8s %4s %9s %12s\n", "NAME", "STATE", "PID",
		    "CPUS", "MEMORY", "UPTIME");
	if (info->pid != 0)
		snprintf(pid, sizeof(pid), "%ld", (long)info->pid);
	if (info->ncpu != 0)
		snprintf(cpus, sizeof(cpus), "%" PRIu32, info->ncpu);
	if (info->status == VMFILE_RUNNING)
		snprintf(up, sizeof(up), "%" PRIu64 "d%02u:%02u:%02u", secs / 86400,
		    (unsigned)(secs / 3600 % 24), (unsigned)(secs / 60 % 60),
		    (unsigned)(secs % 60));
	print_name(info->name);
	printf("%-8s %8s %4s %8" PRIu64 "M %12s\n", state_name(info), pid, cpus,
	    info->memory / MiB, up);
}

static int print_one(const struct vmfile_info *info, void *arg)
{
	struct list *l = arg;
	bool first = l->count++ == 0;

	if (l->json)
		print_json(info, first);
	else
		print_text(info, first);
	return 0;
}

int list_print(bool json)
{
	struct list l = { .json = json };
	int error;

	if (json)
		putchar('[');
	error = vmfile_list(print_one, &l);
	if (json)
		printf("%s]\n", l.count > 0 ? "\n" : "");
	if (error != 0)
		log_error("cannot list the VMs");
	return error;
}
