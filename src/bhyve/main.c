/*
 * bhyve(8): runs the VM that a loader left in /dev/vmm.
 *
 * Life of the process: options, checks, VM object locked, machine and devices
 * built, sandbox, run, devices and machine taken down, object marked used.
 * Whatever fails on the way is taken down by the same code.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "bhyve/console/com.h"
#include "bhyve/control.h"
#include "bhyve/gdb/server.h"
#include "bhyve/options.h"
#include "bhyve/pci/pci.h"
#include "bhyve/sandbox.h"
#include "bhyve/tables/tables.h"
#include "bhyve/testdev.h"
#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/size.h"
#include "lib/tty.h"
#include "lib/util.h"
#include "vmm/chipset/chipset.h"
#include "vmm/machine.h"
#include "vmm/vmfile.h"

struct vm {
	struct config *cfg;
	const char *name;
	struct vmfile *vf;
	struct machine *m;
	struct pci_bus *pci;
	struct com_ports *com;
	struct testdev *testdev;
	struct control *control;
	struct gdb_server *gdb;
	struct event *signals[6];
	int testdev_status; /* for SUSPEND_TESTDEV */
	int killed_by; /* the signal that ended the VM, 0: none */
};

enum cure { LOAD, LOAD_AGAIN, STOP, REMOVE, SAME_SIZE, RIGHTS };

/* The sentence scripts look for, then why, then what to type. */
static int cannot_boot(const struct vm *vm, const char *why, enum cure cure)
{
	const char *name = vm->name, *size = config_get(vm->cfg, "memory.size");
	char text[768] = "use the same size for both";

	switch (cure) {
	case LOAD:
	case LOAD_AGAIN:
		snprintf(text, sizeof(text),
		    "load it%s, for example with \"grub-bhyve -m device.map -r cd0 "
		    "-M %s %s\"",
		    cure == LOAD_AGAIN ? " again" : "", size, name);
		break;
	case STOP:
		snprintf(text, sizeof(text),
		    "wait for it, or stop the VM with \"bhyvectl --destroy "
		    "--vm=%s\"",
		    name);
		break;
	case REMOVE:
		snprintf(text, sizeof(text),
		    "remove it with \"bhyvectl --destroy --vm=%s\" and load it "
		    "again",
		    name);
		break;
	case RIGHTS:
		snprintf(text, sizeof(text),
		    "bhyve needs the rights of the user who loaded it");
		break;
	case SAME_SIZE:
		break;
	}
	log_error("%s: virtual machine cannot be booted: %s; %s", name, why, text);
	return EXIT_ERROR;
}

/* The object must be there, ours, loaded, and of the memory size asked for. */
static int open_object(struct vm *vm)
{
	struct vmfile_info info;
	uint64_t memory = 0;
	char text[160];
	int error = vmfile_open(&vm->vf, vm->name, true);

	switch (error) {
	case 0:
		break;
	case -ENOENT:
		return cannot_boot(vm, "there is no VM of this name", LOAD);
	case -EBUSY:
		snprintf(text, sizeof(text), "process %ld uses it",
		    (long)vmfile_holder(vm->name));
		return cannot_boot(vm, text, STOP);
	case -EINVAL:
		return cannot_boot(
		    vm, "its file is not a VM object or is damaged", REMOVE);
	default:
		return cannot_boot(vm, strerror(-error), RIGHTS);
	}
	vmfile_info(vm->vf, &info);
	if (info.status == VMFILE_EMPTY)
		return cannot_boot(vm, "nothing was loaded into it", LOAD);
	if (info.status != VMFILE_LOADED)
		return cannot_boot(
		    vm, "it has run since it was loaded", LOAD_AGAIN);
	size_parse_memory(config_get(vm->cfg, "memory.size"), &memory);
	if (memory != info.memory) {
		snprintf(text, sizeof(text),
		    "%s gave it %llu MB of memory, -m says %llu MB", info.loader,
		    (unsigned long long)(info.memory / MiB),
		    (unsigned long long)(memory / MiB));
		return cannot_boot(vm, text, SAME_SIZE);
	}
	return OPTIONS_RUN;
}

/* What the loader left, into the machine. */
static int load(struct vm *vm)
{
	struct vcpu_state state;
	int error = vmfile_load_memory(vm->vf, &vm->m->mem);

	if (error == 0)
		error = vmfile_get_state(vm->vf, 0, &state);
	if (error == 0)
		error = vcpu_set_state(&vm->m->vcpu[0], &state);
	if (error != 0)
		log_error("%s: what was loaded cannot be run: %s; load it again",
		    vm->name,
		    error == -EINVAL ? "no CPU can be in the state it asks for"
				     : strerror(-error));
	return error;
}

static void end_by_signal(struct vm *vm, int signo)
{
	vm->killed_by = signo;
	machine_suspend(vm->m, SUSPEND_DESTROY);
}

static void on_sigterm(void *arg)
{
	struct vm *vm = arg;

	if (pm_power_button(vm->m->pm))
		return;
	log_warn(
	    "SIGTERM: the guest has not enabled ACPI and cannot be asked to power "
	    "off; the VM ends");
	end_by_signal(vm, SIGTERM);
}

static void on_sigint(void *arg)
{
	end_by_signal(arg, SIGINT);
}

static void on_sighup(void *arg)
{
	end_by_signal(arg, SIGHUP);
}

static void on_sigquit(void *arg)
{
	end_by_signal(arg, SIGQUIT);
}

static void on_sigcont(void *arg)
{
	(void)arg;
	tty_continue();
}

static int watch_signals(struct vm *vm)
{
	static const struct {
		int signo;
		event_fn *fn;
	} table[] = { { SIGTERM, on_sigterm }, { SIGINT, on_sigint },
		{ SIGHUP, on_sighup }, { SIGQUIT, on_sigquit },
		{ SIGCONT, on_sigcont } };

	_Static_assert(
	    ARRAY_SIZE(table) <= ARRAY_SIZE(vm->signals), "room for all");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct sigaction sa;

		/* nohup(1) and its like: what was ignored stays ignored. */
		sigaction(table[i].signo, NULL, &sa);
		if (sa.sa_handler == SIG_IGN)
			continue;
		vm->signals[i] =
		    event_add_signal(vm->m->loop, table[i].signo, table[i].fn, vm);
		if (vm->signals[i] == NULL)
			return -ENOMEM;
	}
	return 0;
}

static void say_engine(const struct vm *vm)
{
	const char *asked = config_get(vm->cfg, "engine");

	log_info("%s: engine %s (%s)", vm->name, vm->m->ops->name,
	    asked != NULL && strcmp(asked, "auto") != 0
		? "as asked"
		: "this version has no KVM engine; the software CPU runs on every "
		  "host");
}

/* 0 or -errno; every step logs its own failure. */
static int build(struct vm *vm)
{
	int error = machine_create(&vm->m, vm->cfg, &engine_soft);

	if (error != 0)
		return error;
	error = load(vm);
	if (error == 0)
		error = pci_bus_create(vm->m, &vm->pci);
	if (error == 0)
		error = com_create(vm->m, &vm->com);
	if (error == 0)
		error = testdev_create(vm->m, &vm->testdev);
	if (error == 0)
		error = tables_build(vm->m, vm->pci);
	if (error == 0)
		error = control_create(&vm->control, vm->m, vm->name);
	if (error == 0)
		error = gdb_server_create(&vm->gdb, vm->m);
	if (error == 0)
		error = watch_signals(vm);
	return error;
}

static void take_down(struct vm *vm)
{
	gdb_server_destroy(vm->gdb);
	control_destroy(vm->control);
	testdev_destroy(vm->testdev);
	com_destroy(vm->com);
	pci_bus_destroy(vm->pci);
	for (size_t i = 0; i < ARRAY_SIZE(vm->signals); i++)
		event_del(vm->signals[i]);
	machine_destroy(vm->m);
	tty_restore();
}

static int run(struct vm *vm, enum suspend_reason *why)
{
	int error = vmfile_set_status(vm->vf, VMFILE_RUNNING, vm->m->ncpu);

	if (error != 0) {
		log_error("%s: cannot write the VM object: %s", vm->name,
		    strerror(-error));
		return error;
	}
	say_engine(vm);
	error = sandbox_enter(vm->cfg);
	if (error == 0)
		*why = machine_run(vm->m);
	if (error == 0 && *why == SUSPEND_TESTDEV)
		vm->testdev_status = testdev_status(vm->testdev);
	return error;
}

static int exit_status(const struct vm *vm, enum suspend_reason why)
{
	switch (why) {
	case SUSPEND_RESET:
		log_info("%s: the guest rebooted", vm->name);
		return EXIT_RESET;
	case SUSPEND_POWEROFF:
		log_info("%s: the guest powered off", vm->name);
		return EXIT_POWEROFF;
	case SUSPEND_HALT:
		log_info("%s: the guest halted", vm->name);
		return EXIT_HALT;
	case SUSPEND_TRIPLEFAULT:
		log_error("%s: triple fault: the guest's CPU shut down", vm->name);
		return EXIT_TRIPLEFAULT;
	case SUSPEND_DESTROY:
		if (vm->killed_by == 0)
			log_error("%s: VM destroyed", vm->name);
		return EXIT_ERROR;
	case SUSPEND_TESTDEV:
		log_info("%s: the guest wrote the exit port of pc-testdev",
		    vm->name);
		return vm->testdev_status;
	case SUSPEND_NONE:
	case SUSPEND_ERROR:
		break;
	}
	return EXIT_ERROR;
}

static int run_vm(struct vm *vm)
{
	enum suspend_reason why = SUSPEND_ERROR;
	bool destroy = false;
	int status = open_object(vm), error;

	if (status != OPTIONS_RUN)
		goto out;
	status = EXIT_ERROR;
	error = build(vm);
	if (error == 0)
		error = run(vm, &why);
	if (vm->m != NULL)
		take_down(vm);
	if (error == 0) {
		status = exit_status(vm, why);
		vmfile_set_status(vm->vf, VMFILE_USED, 0);
		config_get_bool(vm->cfg, "destroy_on_poweroff", false, &destroy);
		destroy = destroy && why == SUSPEND_POWEROFF;
	}
out:
	vmfile_close(vm->vf);
	if (destroy && vmfile_destroy(vm->name) != 0)
		log_warn("%s: cannot remove the VM object; use \"bhyvectl "
			 "--destroy --vm=%s\"",
		    vm->name, vm->name);
	return status;
}

/*
 * Started with standard files closed: no image or VM object may become one of them.
 */
static int open_standard_files(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
	return fd < 0 ? -errno : 0;
}

/* Ends as the signal's default action would, after everything was taken down. */
static void die_by(int signo)
{
	sigset_t set;

	signal(signo, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, signo);
	raise(signo);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int main(int argc, char **argv)
{
	struct vm vm = { 0 };
	int status;

	if (open_standard_files() != 0)
		return EX_OSERR;
	log_init("bhyve");
	umask(077);
	signal(SIGPIPE, SIG_IGN);
	tty_guard();
	vm.cfg = config_new();
	if (vm.cfg == NULL) {
		log_error("no memory for the configuration");
		return EXIT_ERROR;
	}
	status = options_parse(vm.cfg, argc, argv);
	if (status == OPTIONS_RUN)
		status = options_check(vm.cfg);
	if (status == OPTIONS_RUN) {
		config_freeze(vm.cfg);
		vm.name = config_get(vm.cfg, "name");
		status = sandbox_early() == 0 ? run_vm(&vm) : EX_OSERR;
	}
	config_free(vm.cfg);
	if (vm.killed_by != 0)
		die_by(vm.killed_by);
	return status;
}
