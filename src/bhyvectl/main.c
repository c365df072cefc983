/*
 * bhyvectl(8): looks at a VM and steers it. Options may come in any order; they
 * take effect in the order of run(): create, set, show, steer, destroy.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bhyvectl/ctl.h"
#include "lib/log.h"
#include "lib/size.h"
#include "lib/util.h"
#include "vmm/control.h"
#include "vmm/machine.h"
#include "vmm/memory.h"
#include "vmm/state.h"

enum {
	/* with argument */
	VM = 1,
	CPU,
	SET_MEM,
	SET_X2APIC,
	SET_RTC_TIME,
	SET_NVRAM,
	NVRAM_OFFSET,
	ASSERT_LVT,
	/* actions */
	CREATE,
	DESTROY,
	FORCE_RESET,
	FORCE_POWEROFF,
	INJECT_NMI,
	POWER_BUTTON,
	LIST,
	/* what to show */
	GET_ALL,
	GET_STATS,
	GET_LOWMEM,
	GET_HIGHMEM,
	GET_MEMMAP,
	GET_MEMSEG,
	GET_ACTIVE,
	GET_DEBUG,
	GET_SUSPENDED,
	GET_TOPOLOGY,
	GET_X2APIC,
	GET_RTC_TIME,
	GET_NVRAM,
	GET_TSC_OFFSET,
	GET_PAT,
	GET_SYSENTER,
	HELP,
	VERSION,
	REFUSED,
	REGS = 256,
};

static const struct option options[] = {
	{ "vm", required_argument, NULL, VM },
	{ "cpu", required_argument, NULL, CPU },
	{ "set-mem", required_argument, NULL, SET_MEM },
	{ "set-x2apic-state", required_argument, NULL, SET_X2APIC },
	{ "set-rtc-time", required_argument, NULL, SET_RTC_TIME },
	{ "set-rtc-nvram", required_argument, NULL, SET_NVRAM },
	{ "rtc-nvram-offset", required_argument, NULL, NVRAM_OFFSET },
	{ "assert-lapic-lvt", required_argument, NULL, ASSERT_LVT },
	{ "create", no_argument, NULL, CREATE },
	{ "destroy", no_argument, NULL, DESTROY },
	{ "force-reset", no_argument, NULL, FORCE_RESET },
	{ "force-poweroff", no_argument, NULL, FORCE_POWEROFF },
	{ "inject-nmi", no_argument, NULL, INJECT_NMI },
	{ "power-button", no_argument, NULL, POWER_BUTTON },
	{ "list", optional_argument, NULL, LIST },
	{ "get-all", no_argument, NULL, GET_ALL },
	{ "get-stats", no_argument, NULL, GET_STATS },
	{ "get-lowmem", no_argument, NULL, GET_LOWMEM },
	{ "get-highmem", no_argument, NULL, GET_HIGHMEM },
	{ "get-memmap", no_argument, NULL, GET_MEMMAP },
	{ "get-memseg", no_argument, NULL, GET_MEMSEG },
	{ "get-active-cpus", no_argument, NULL, GET_ACTIVE },
	{ "get-debug-cpus", no_argument, NULL, GET_DEBUG },
	{ "get-suspended-cpus", no_argument, NULL, GET_SUSPENDED },
	{ "get-cpu-topology", no_argument, NULL, GET_TOPOLOGY },
	{ "get-x2apic-state", no_argument, NULL, GET_X2APIC },
	{ "get-rtc-time", no_argument, NULL, GET_RTC_TIME },
	{ "get-rtc-nvram", no_argument, NULL, GET_NVRAM },
	{ "get-tsc-offset", no_argument, NULL, GET_TSC_OFFSET },
	{ "get-guest-pat", no_argument, NULL, GET_PAT },
	{ "get-guest-sysenter", no_argument, NULL, GET_SYSENTER },
	{ "help", no_argument, NULL, HELP },
	{ "version", no_argument, NULL, VERSION },
};

/* bhyve's options that ask for what this bhyve does not have, and why. */
static const struct {
	const char *name;
	int argument;
	const char *why;
} refused[] = {
#define SNAPSHOT "snapshots are not part of this version"
#define VMX      "it shows a structure of VT-x or SVM; the software CPU has none"
	{ "checkpoint", required_argument, SNAPSHOT },
	{ "suspend", required_argument, SNAPSHOT },
	{ "run", no_argument, "a VM is run by bhyve(8)" },
	{ "capname", required_argument, "capabilities belong to VT-x and SVM" },
	{ "getcap", no_argument, "capabilities belong to VT-x and SVM" },
	{ "setcap", required_argument, "capabilities belong to VT-x and SVM" },
	{ "unassign-pptdev", required_argument, "there is no PCI passthrough" },
	{ "get-gpa-pmap", required_argument, VMX },
	{ "get-intinfo", no_argument, VMX },
	{ "get-eptp", no_argument, VMX },
	{ "get-exception-bitmap", no_argument, VMX },
	{ "set-exception-bitmap", required_argument, VMX },
	{ "get-io-bitmap-address", no_argument, VMX },
	{ "get-msr-bitmap", no_argument, VMX },
	{ "get-msr-bitmap-address", no_argument, VMX },
	{ "get-exit-reason", no_argument, VMX },
	{ "get-apic-access-address", no_argument, VMX },
	{ "get-virtual-apic-address", no_argument, VMX },
	{ "get-vmcs-pinbased-ctls", no_argument, VMX },
	{ "get-vmcs-procbased-ctls", no_argument, VMX },
	{ "get-vmcs-procbased-ctls2", no_argument, VMX },
	{ "get-vmcs-guest-linear-address", no_argument, VMX },
	{ "get-vmcs-guest-physical-address", no_argument, VMX },
	{ "get-vmcs-entry-interruption-info", no_argument, VMX },
	{ "set-vmcs-entry-interruption-info", required_argument, VMX },
	{ "get-vmcs-cr0-mask", no_argument, VMX },
	{ "get-vmcs-cr0-shadow", no_argument, VMX },
	{ "get-vmcs-cr4-mask", no_argument, VMX },
	{ "get-vmcs-cr4-shadow", no_argument, VMX },
	{ "get-vmcs-cr3-targets", no_argument, VMX },
	{ "get-vmcs-tpr-threshold", no_argument, VMX },
	{ "get-vmcs-vpid", no_argument, VMX },
	{ "get-vmcs-exit-ctls", no_argument, VMX },
	{ "get-vmcs-entry-ctls", no_argument, VMX },
	{ "get-vmcs-instruction-error", no_argument, VMX },
	{ "get-vmcs-host-pat", no_argument, VMX },
	{ "get-vmcs-host-cr0", no_argument, VMX },
	{ "get-vmcs-host-cr3", no_argument, VMX },
	{ "get-vmcs-host-cr4", no_argument, VMX },
	{ "get-vmcs-host-rip", no_argument, VMX },
	{ "get-vmcs-host-rsp", no_argument, VMX },
	{ "get-vmcs-exit-qualification", no_argument, VMX },
	{ "get-vmcs-exit-inst-length", no_argument, VMX },
	{ "get-vmcs-interruptibility", no_argument, VMX },
	{ "get-vmcs-exit-interruption-error", no_argument, VMX },
	{ "get-vmcs-exit-interruption-info", no_argument, VMX },
	{ "get-vmcs-link", no_argument, VMX },
	{ "get-vmcb-intercepts", no_argument, VMX },
	{ "get-vmcb-asid", no_argument, VMX },
	{ "get-vmcb-exit-details", no_argument, VMX },
	{ "get-vmcb-tlb-ctrl", no_argument, VMX },
	{ "get-vmcb-virq", no_argument, VMX },
	{ "get-avic-apic-bar", no_argument, VMX },
	{ "get-avic-backing-page", no_argument, VMX },
	{ "get-avic-table", no_argument, VMX },
};

struct request {
	bool has[REFUSED];
	const char *arg[REFUSED];
	struct regs *regs;
	unsigned cpu;
	uint64_t memory, nvram_offset;
};

static void usage(FILE *f)
{
	fputs("usage: bhyvectl --vm=NAME [--cpu=N] ACTION...\n"
	      "       bhyvectl --list[=json] | --help | --version\n"
	      "\n"
	      "Life of a VM\n"
	      "  --create [--set-mem=MB]   makes an empty VM\n"
	      "  --destroy                 stops the VM if it runs and removes it\n"
	      "  --force-reset             ends it as a reboot does (bhyve exits "
	      "with 0)\n"
	      "  --force-poweroff          ends it as powering off does (bhyve "
	      "exits with 1)\n"
	      "  --power-button            asks the guest to power off\n"
	      "  --inject-nmi              sends an NMI to CPU N\n"
	      "  --list[=json]             name, state, process, CPUs, memory, "
	      "uptime\n"
	      "\n"
	      "What to show\n"
	      "  --get-all                 everything below, of CPU N (default 0)\n"
	      "  --get-stats               counters of CPU N and of the VM\n"
	      "  --get-memmap --get-memseg --get-lowmem --get-highmem\n"
	      "  --get-cpu-topology --get-active-cpus --get-suspended-cpus "
	      "--get-debug-cpus\n"
	      "  --get-x2apic-state --get-tsc-offset --get-guest-pat "
	      "--get-guest-sysenter\n"
	      "  --get-rtc-time --get-rtc-nvram --rtc-nvram-offset=N\n"
	      "  --get-REG                 rax rbx rcx rdx rsi rdi rbp rsp r8-r15 "
	      "rip rflags\n"
	      "                            cr0 cr2 cr3 cr4 dr0-dr3 dr6 dr7 efer\n"
	      "                            cs ds es fs gs ss tr ldtr\n"
	      "  --get-desc-SEG            base/limit/access of cs ds es fs gs ss "
	      "tr ldtr,\n"
	      "                            base/limit of gdtr idtr\n"
	      "\n"
	      "What to change\n"
	      "  --set-REG=VALUE           any register of --get-REG\n"
	      "  --set-desc-SEG --desc-base=B --desc-limit=L --desc-access=A\n"
	      "  --set-x2apic-state=0|1 --set-rtc-time=SECONDS\n"
	      "  --set-rtc-nvram=BYTE --rtc-nvram-offset=N --assert-lapic-lvt=N\n"
	      "\n"
	      "An option may be shortened as long as it is clear which is meant.\n"
	      "\n"
	      "Examples\n"
	      "  bhyvectl --list\n"
	      "  bhyvectl --vm=linuxguest --get-stats\n"
	      "  bhyvectl --vm=linuxguest --cpu=1 --get-rip --get-rsp\n"
	      "  bhyvectl --destroy --vm=linuxguest\n",
	    f);
}

static int show_cpus(
    struct target *t, const char *info, const char *title, bool all)
{
	uint64_t n = info != NULL ? target_info_number(info, "cpus") : 0;

	(void)t;
	printf("%s:\t", title);
	for (uint64_t i = 0; all && i < n; i++)
		printf("%s %" PRIu64, i > 0 ? "," : "", i);
	printf("%s\n", all && n > 0 ? "" : " (none)");
	return 0;
}

static void split_memory(const struct target *t, uint64_t *low, uint64_t *high)
{
	*low = MIN(t->info.memory, MEMORY_LOW_LIMIT);
	*high = t->info.memory - *low;
}

static void show_memory(const struct request *rq, const struct target *t)
{
	bool all = rq->has[GET_ALL];
	uint64_t low, high;

	split_memory(t, &low, &high);
	if (rq->has[GET_LOWMEM] || all)
		printf("lowmem\t\t0x%016x/%" PRIu64 "\n", 0, low);
	if (rq->has[GET_HIGHMEM] || all)
		printf("highmem\t\t0x%016" PRIx64 "/%" PRIu64 "\n",
		    MEMORY_HIGH_BASE, high);
	if (rq->has[GET_MEMSEG] || all) {
		printf("%-12s%-12s%s\n", "ID", "Length", "Name");
		printf("%-12u%-12" PRIX64 "%s\n", 0, low + high, "sysmem");
	}
	if (rq->has[GET_MEMMAP] || all) {
		const char *format =
		    "%-12" PRIX64 "%-12" PRIX64 "%-12s%-12" PRIX64 "%-12s%-12s\n";

		printf("%-12s%-12s%-12s%-12s%-12s%-12s\n", "Address", "Length",
		    "Segment", "Offset", "Prot", "Flags");
		printf(format, UINT64_C(0), low, "sysmem", UINT64_C(0), "RWX", "-");
		if (high > 0)
			printf(format, MEMORY_HIGH_BASE, high, "sysmem", low, "RWX",
			    "-");
	}
}

static int show_rtc(const struct request *rq, struct target *t)
{
	char *answer, text[64];
	struct tm tm;
	time_t secs;
	int error;

	if (rq->has[GET_RTC_TIME] || rq->has[GET_ALL]) {
		error = target_command(t, &answer, "rtc-get");
		if (error != 0)
			return error;
		secs = (time_t)strtoll(answer, NULL, 10);
		free(answer);
		if (gmtime_r(&secs, &tm) == NULL)
			return -ERANGE;
		strftime(text, sizeof(text), "%a %b %d %H:%M:%S %Y", &tm);
		printf("rtc time 0x%llx: %s\n", (unsigned long long)secs, text);
	}
	if (rq->has[GET_NVRAM] || (rq->has[GET_ALL] && rq->has[NVRAM_OFFSET])) {
		error = target_command(
		    t, &answer, "nvram-get %u", (unsigned)rq->nvram_offset);
		if (error != 0)
			return error;
		printf("rtc nvram[%03u]: 0x%02x\n", (unsigned)rq->nvram_offset,
		    (unsigned)strtoul(answer, NULL, 10));
		free(answer);
	}
	return 0;
}

static int show_topology(const struct request *rq, struct target *t)
{
	bool all = rq->has[GET_ALL];
	char *info;
	int error;

	if (!all && !rq->has[GET_ACTIVE] && !rq->has[GET_DEBUG] &&
	    !rq->has[GET_SUSPENDED] && !rq->has[GET_TOPOLOGY])
		return 0;
	error = target_command(t, &info, "info");
	if (error != 0)
		return error;
	if (all || rq->has[GET_ACTIVE])
		show_cpus(t, info, "active cpus", true);
	if (all || rq->has[GET_DEBUG])
		show_cpus(t, info, "debug cpus", false);
	if (all || rq->has[GET_SUSPENDED])
		show_cpus(t, info, "suspended cpus", false);
	if (all || rq->has[GET_TOPOLOGY])
		printf(
		    "cpu_topology:\tsockets=%u, cores=%u, threads=%u, maxcpus=%u\n",
		    (unsigned)target_info_number(info, "sockets"),
		    (unsigned)target_info_number(info, "cores"),
		    (unsigned)target_info_number(info, "threads"),
		    MACHINE_MAX_CPUS);
	free(info);
	return 0;
}

static int show_msrs(const struct request *rq, struct target *t)
{
	bool all = rq->has[GET_ALL];
	struct vcpu_state s;
	unsigned cpu = rq->cpu;
	int error;

	if (!all && !rq->has[GET_X2APIC] && !rq->has[GET_TSC_OFFSET] &&
	    !rq->has[GET_PAT] && !rq->has[GET_SYSENTER])
		return 0;
	error = target_get_state(t, cpu, &s);
	if (error != 0)
		return error;
	if (all || rq->has[GET_X2APIC])
		printf("x2apic_state[%u]\t%s\n", cpu,
		    (s.apic_base & BIT64(10)) != 0 ? "enabled" : "disabled");
	if (all || rq->has[GET_TSC_OFFSET])
		printf("tsc_offset[%u]\t0x%016" PRIx64 "\n", cpu, s.tsc_offset);
	if (all || rq->has[GET_PAT])
		printf("guest_pat[%u]\t\t0x%016" PRIx64 "\n", cpu, s.pat);
	if (all || rq->has[GET_SYSENTER]) {
		printf("guest_sysenter_cs[%u]\t0x%016" PRIx64 "\n", cpu,
		    s.sysenter_cs);
		printf("guest_sysenter_sp[%u]\t0x%016" PRIx64 "\n", cpu,
		    s.sysenter_esp);
		printf("guest_sysenter_ip[%u]\t0x%016" PRIx64 "\n", cpu,
		    s.sysenter_eip);
	}
	return 0;
}

static int show_stats(const struct request *rq, struct target *t)
{
	char *answer, *rest, *line;
	int error = target_command(t, &answer, "stats %u", rq->cpu);

	if (error != 0)
		return error;
	printf("vcpu%u stats:\n", rq->cpu);
	rest = answer;
	while ((line = strsep(&rest, "\n")) != NULL) {
		char *space = strrchr(line, ' ');

		if (space == NULL)
			continue;
		*space = '\0';
		printf("%-40s\t%s\n", line, space + 1);
	}
	free(answer);
	return 0;
}

static int show(const struct request *rq, struct target *t)
{
	bool all = rq->has[GET_ALL];
	int error = 0;

	show_memory(rq, t);
	error = regs_print(rq->regs, t, rq->cpu, all);
	if (error == 0)
		error = show_msrs(rq, t);
	/* --get-all of a VM that does not run: what its file tells. */
	if (error == 0 && all && !t->running)
		return 0;
	if (error == 0)
		error = show_topology(rq, t);
	if (error == 0)
		error = show_rtc(rq, t);
	if (error == 0 && (all || rq->has[GET_STATS]))
		error = show_stats(rq, t);
	return error;
}

static int set_x2apic(const struct request *rq, struct target *t)
{
	struct vcpu_state s;
	uint64_t on, base;
	int error;

	if (number_parse(rq->arg[SET_X2APIC], 0, 1, &on) != 0) {
		log_error("--set-x2apic-state=%s: use 0 or 1", rq->arg[SET_X2APIC]);
		return -EINVAL;
	}
	error = target_get_state(t, rq->cpu, &s);
	if (error != 0)
		return error;
	base = on != 0 ? s.apic_base | BIT64(10) | BIT64(11)
		       : s.apic_base & ~BIT64(10);
	return target_set_field(t, rq->cpu, "apic_base", base);
}

static int change(const struct request *rq, struct target *t)
{
	int error = regs_apply(rq->regs, t, rq->cpu);

	if (error == 0 && rq->has[SET_X2APIC])
		error = set_x2apic(rq, t);
	if (error == 0 && rq->has[SET_RTC_TIME])
		error =
		    target_command(t, NULL, "rtc-set %.32s", rq->arg[SET_RTC_TIME]);
	if (error == 0 && rq->has[SET_NVRAM])
		error = target_command(t, NULL, "nvram-set %u %.32s",
		    (unsigned)rq->nvram_offset, rq->arg[SET_NVRAM]);
	if (error == 0 && rq->has[ASSERT_LVT])
		error = target_command(
		    t, NULL, "assert-lvt %u %.32s", rq->cpu, rq->arg[ASSERT_LVT]);
	return error;
}

static int steer(const struct request *rq, struct target *t)
{
	int error = 0;

	if (rq->has[INJECT_NMI])
		error = target_command(t, NULL, "inject-nmi %u", rq->cpu);
	if (error == 0 && rq->has[POWER_BUTTON])
		error = target_command(t, NULL, "power-button");
	if (error == 0 && rq->has[FORCE_RESET])
		error = target_command(t, NULL, "reset");
	if (error == 0 && rq->has[FORCE_POWEROFF])
		error = target_command(t, NULL, "poweroff");
	return error;
}

static int create(const char *name, uint64_t memory)
{
	struct vmfile *vf;
	int error = vmfile_open(&vf, name, false);

	if (error == 0) {
		vmfile_close(vf);
		error = -EEXIST;
	} else if (error == -ENOENT) {
		error = vmfile_create(&vf, name, memory, "bhyvectl");
		if (error == 0)
			vmfile_close(vf);
	}
	if (error == -EEXIST)
		log_error("%s exists already; --destroy removes it", name);
	else if (error != 0)
		log_error("%s cannot be created: %s", name, strerror(-error));
	return error;
}

static bool needs_target(const struct request *rq)
{
	for (int i = 0; i < REFUSED; i++) {
		if (rq->has[i] && i != VM && i != CPU && i != CREATE &&
		    i != DESTROY && i != SET_MEM && i != NVRAM_OFFSET && i != LIST)
			return true;
	}
	return regs_wants_write(rq->regs);
}

static int run(const struct request *rq, bool any_register)
{
	const char *name = rq->arg[VM];
	struct target t;
	int error = 0;

	if (rq->has[CREATE])
		error = create(name, rq->memory);
	if (error == 0 && (needs_target(rq) || any_register ||
			      (!rq->has[CREATE] && !rq->has[DESTROY]))) {
		bool write = regs_wants_write(rq->regs) || rq->has[SET_X2APIC];

		error = target_open(&t, name, write);
		if (error == 0)
			error = change(rq, &t);
		if (error == 0)
			error = show(rq, &t);
		if (error == 0)
			error = steer(rq, &t);
		target_close(&t);
	}
	if (error == 0 && rq->has[DESTROY])
		error = target_destroy(name);
	return error;
}

static int check(struct request *rq)
{
	const char *name = rq->arg[VM], *error;
	unsigned exclusive = rq->has[CREATE] + rq->has[DESTROY] +
			     rq->has[FORCE_RESET] + rq->has[FORCE_POWEROFF];
	uint64_t n;

	if (name == NULL) {
		log_error("--vm=NAME says which VM is meant; --list shows all");
		return -EINVAL;
	}
	error = vmfile_name_error(name);
	if (error != NULL) {
		log_error("--vm=%s cannot name a VM: %s", name, error);
		return -EINVAL;
	}
	if (exclusive > 1) {
		log_error(
		    "mutually exclusive actions specified: only one of --create, "
		    "--destroy, --force-reset and --force-poweroff");
		return -EINVAL;
	}
	if (rq->has[CPU]) {
		if (number_parse(rq->arg[CPU], 0, MACHINE_MAX_CPUS - 1, &n) != 0) {
			log_error("--cpu=%s: use a number from 0 to %d",
			    rq->arg[CPU], MACHINE_MAX_CPUS - 1);
			return -EINVAL;
		}
		rq->cpu = (unsigned)n;
	}
	rq->memory = 256 * MiB;
	if (rq->has[SET_MEM] &&
	    (size_parse_memory(rq->arg[SET_MEM], &rq->memory) != 0 ||
		rq->memory < MiB || rq->memory % MEMORY_PAGE != 0)) {
		log_error("--set-mem=%s: not a memory size; use MB or a number "
			  "with K, M, G",
		    rq->arg[SET_MEM]);
		return -EINVAL;
	}
	if (rq->has[SET_MEM] && !rq->has[CREATE]) {
		log_error("--set-mem: memory is given with --create");
		return -EINVAL;
	}
	if ((rq->has[GET_NVRAM] || rq->has[SET_NVRAM]) && !rq->has[NVRAM_OFFSET]) {
		log_error("--rtc-nvram-offset=N says which byte is meant");
		return -EINVAL;
	}
	if (rq->has[NVRAM_OFFSET] &&
	    number_parse(rq->arg[NVRAM_OFFSET], 0, 127, &rq->nvram_offset) != 0) {
		log_error("--rtc-nvram-offset=%s: use a number from 0 to 127",
		    rq->arg[NVRAM_OFFSET]);
		return -EINVAL;
	}
	return 0;
}

static struct option *all_options(struct regs *regs)
{
	size_t own = ARRAY_SIZE(options), count = regs_count();
	struct option *list =
	    calloc(own + count + ARRAY_SIZE(refused) + 1, sizeof(*list));

	if (list == NULL)
		return NULL;
	memcpy(list, options, sizeof(options));
	regs_options(regs, list + own, REGS);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		list[own + count + i] = (struct option){
			.name = refused[i].name,
			.has_arg = refused[i].argument,
			.val = REGS + (int)(count + i),
		};
	return list;
}

/* 0: go on; 1: help was asked for and given; -EINVAL (said). */
static int parse(struct request *rq, bool *any_register, int argc, char **argv)
{
	struct option *list = all_options(rq->regs);
	int opt, result = 0;

	if (list == NULL)
		return -ENOMEM;
	while (
	    result == 0 && (opt = getopt_long(argc, argv, "h", list, NULL)) != -1) {
		unsigned index = (unsigned)(opt - REGS);

		if (opt == 'h' || opt == HELP) {
			usage(stdout);
			result = 1;
		} else if (opt == VERSION) {
			printf("bhyvectl %s\n", BHYVE_VERSION);
			result = 1;
		} else if (opt == '?') {
			usage(stderr);
			result = -EINVAL;
		} else if (opt < REFUSED) {
			rq->has[opt] = true;
			rq->arg[opt] = optarg;
		} else if (index < regs_count()) {
			*any_register = true;
			result = regs_option(rq->regs, index, optarg);
		} else {
			log_error("--%s: %s", refused[index - regs_count()].name,
			    refused[index - regs_count()].why);
			result = -EINVAL;
		}
	}
	if (result == 0 && optind < argc) {
		log_error("\"%s\": only options are understood", argv[optind]);
		usage(stderr);
		result = -EINVAL;
	}
	free(list);
	return result;
}

static int work(struct request *rq, int argc, char **argv)
{
	bool any_register = false;
	int result;

	if (argc <= 1) {
		usage(stderr);
		return -EINVAL;
	}
	result = parse(rq, &any_register, argc, argv);
	if (result != 0)
		return result > 0 ? 0 : result;
	if (rq->has[LIST]) {
		const char *form = rq->arg[LIST];

		if (form == NULL || strcmp(form, "json") == 0)
			return list_print(form != NULL);
		log_error(
		    "--list=%s: no such form; use --list or --list=json", form);
		return -EINVAL;
	}
	result = check(rq);
	return result == 0 ? run(rq, any_register) : result;
}

int main(int argc, char **argv)
{
	struct request rq = { .regs = regs_new() };
	int error;

	log_init("bhyvectl");
	signal(SIGPIPE, SIG_IGN);
	umask(077);
	error = rq.regs == NULL ? -ENOMEM : work(&rq, argc, argv);
	regs_free(rq.regs);
	if (fflush(stdout) != 0 && error == 0) {
		log_error("cannot write: %s", strerror(errno));
		error = -EIO;
	}
	return error == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
