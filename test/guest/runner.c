/*
 * Runs a test guest on the software CPU with as little machine as it needs: RAM,
 * a port to print on, one to report on, interrupts and NMIs on demand, a page of
 * MMIO. See guest.h for the ports.
 *
 *   runner [--cpus=N] [--tier=T] [--real] [--expect=shutdown] [--time=S]
 *          [--interpreted=N] IMAGE
 *
 * IMAGE is an ELF file; every vCPU starts at its entry in 32-bit protected mode
 * with flat segments and its number in EAX; with --real in real mode at 0:entry.
 * --interpreted: with the translator, no more than N instructions may be interpreted.
 */
#include <elf.h>
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/config.h"
#include "vmm/engine.h"
#include "vmm/memory.h"
#include "vmm/state.h"

#include "guest.h"

#define MAX_CPUS 4u
#define RAM_SIZE (64 * MiB)

struct vcpu {
	struct runner *r;
	struct engine_vcpu *cpu;
	struct vcpu_link *link;
	pthread_t thread;
	unsigned id;
	atomic_int pending; /* vector + 1; 0: none */
	atomic_int tick;    /* vector that comes again and again; 0: none */
	uint64_t apic_base;
	uint8_t cr8;
};

struct runner {
	struct memory mem;
	struct engine *engine;
	struct vcpu vcpu[MAX_CPUS];
	unsigned ncpu;
	uint32_t echo;
	uint8_t mmio[4096];
	atomic_int status; /* exit status + 1; 0: still running */
	atomic_bool shutdown;
};

static void stop_all(struct runner *r)
{
	for (unsigned i = 0; i < r->ncpu; i++)
		if (r->vcpu[i].link)
			atomic_fetch_or(&r->vcpu[i].link->events, EV_STOP);
}

static uint64_t io_read(void *arg, int cpu, uint16_t port, unsigned size)
{
	struct runner *r = arg;

	(void)cpu;
	switch (port) {
	case PORT_HOST:
		return HOST_MAGIC;
	case PORT_CPUS:
		return r->ncpu;
	case PORT_ECHO:
		return r->echo;
	case PORT_PUTC + 5:
		return 0x60; /* transmitter empty */
	}
	return size >= 4 ? 0xffffffff : (1u << size * 8) - 1;
}

static void interrupt(struct vcpu *c, int vector)
{
	atomic_store(&c->pending, vector + 1);
	atomic_fetch_or(&c->link->events, EV_INTR);
}

static void io_write(void *arg, int cpu, uint16_t port, unsigned size, uint64_t v)
{
	struct runner *r = arg;
	struct vcpu *c = &r->vcpu[cpu];
	int running = 0;

	(void)size;
	switch (port) {
	case PORT_PUTC:
		putchar((int)v & 0xff);
		break;
	case PORT_EXIT:
		atomic_compare_exchange_strong(
		    &r->status, &running, ((int)v & 0xff) + 1);
		stop_all(r);
		break;
	case PORT_NMI:
		atomic_fetch_or(&c->link->events, EV_NMI);
		break;
	case PORT_INTR:
		interrupt(c, (int)v & 0xff);
		break;
	case PORT_TICK:
		atomic_store(&c->tick, (int)v & 0xff);
		break;
	case PORT_ECHO:
		r->echo = v;
		break;
	}
}

static uint64_t mmio_read(void *arg, int cpu, uint64_t gpa, unsigned size)
{
	struct runner *r = arg;
	uint64_t v = ~UINT64_C(0);

	(void)cpu;
	if (gpa >= MMIO_PAGE && gpa + size <= MMIO_PAGE + sizeof(r->mmio))
		memcpy(&v, r->mmio + (gpa - MMIO_PAGE), size);
	return v;
}

static void mmio_write(void *arg, int cpu, uint64_t gpa, unsigned size, uint64_t v)
{
	struct runner *r = arg;

	(void)cpu;
	if (gpa >= MMIO_PAGE && gpa + size <= MMIO_PAGE + sizeof(r->mmio))
		memcpy(r->mmio + (gpa - MMIO_PAGE), &v, size);
}

static int msr_read(void *arg, int cpu, uint32_t msr, uint64_t *v)
{
	struct runner *r = arg;

	if (msr != 0x1b)
		return -ENOENT;
	*v = r->vcpu[cpu].apic_base;
	return 0;
}

static int msr_write(void *arg, int cpu, uint32_t msr, uint64_t v)
{
	struct runner *r = arg;

	if (msr != 0x1b)
		return -ENOENT;
	r->vcpu[cpu].apic_base = v;
	return 0;
}

static uint8_t cr8_read(void *arg, int cpu)
{
	return ((struct runner *)arg)->vcpu[cpu].cr8;
}

static void cr8_write(void *arg, int cpu, uint8_t v)
{
	struct vcpu *c = &((struct runner *)arg)->vcpu[cpu];

	c->cr8 = v;
	if (atomic_load(&c->pending))
		atomic_fetch_or(&c->link->events, EV_INTR);
}

static bool intr_pending(void *arg, int cpu)
{
	struct vcpu *c = &((struct runner *)arg)->vcpu[cpu];
	int v = atomic_load(&c->pending);

	return v && (v - 1) >> 4 > c->cr8;
}

static int intr_ack(void *arg, int cpu)
{
	struct vcpu *c = &((struct runner *)arg)->vcpu[cpu];

	return intr_pending(arg, cpu) ? atomic_exchange(&c->pending, 0) - 1 : -1;
}

/* One loadable segment. */
static int load_segment(struct runner *r, FILE *f, uint64_t offset, uint64_t addr,
    uint64_t filesz, uint64_t memsz)
{
	void *p = memory_ptr(&r->mem, addr, memsz);

	if (!p || filesz > memsz || fseek(f, (long)offset, SEEK_SET) ||
	    (filesz && fread(p, filesz, 1, f) != 1))
		return -EINVAL;
	return 0;
}

static int load_elf64(struct runner *r, FILE *f, uint64_t *entry)
{
	Elf64_Ehdr eh;
	int rc = 0;

	rewind(f);
	if (fread(&eh, sizeof(eh), 1, f) != 1)
		return -EINVAL;
	for (unsigned i = 0; i < eh.e_phnum && !rc; i++) {
		Elf64_Phdr ph;

		if (fseek(f, (long)(eh.e_phoff + i * sizeof(ph)), SEEK_SET) ||
		    fread(&ph, sizeof(ph), 1, f) != 1)
			return -EINVAL;
		if (ph.p_type == PT_LOAD)
			rc = load_segment(
			    r, f, ph.p_offset, ph.p_paddr, ph.p_filesz, ph.p_memsz);
	}
	*entry = eh.e_entry;
	return rc;
}

static int load_elf32(struct runner *r, FILE *f, uint64_t *entry)
{
	Elf32_Ehdr eh;
	int rc = 0;

	rewind(f);
	if (fread(&eh, sizeof(eh), 1, f) != 1)
		return -EINVAL;
	for (unsigned i = 0; i < eh.e_phnum && !rc; i++) {
		Elf32_Phdr ph;

		if (fseek(f, (long)(eh.e_phoff + i * sizeof(ph)), SEEK_SET) ||
		    fread(&ph, sizeof(ph), 1, f) != 1)
			return -EINVAL;
		if (ph.p_type == PT_LOAD)
			rc = load_segment(
			    r, f, ph.p_offset, ph.p_paddr, ph.p_filesz, ph.p_memsz);
	}
	*entry = eh.e_entry;
	return rc;
}

static int load_image(struct runner *r, const char *path, uint64_t *entry)
{
	unsigned char ident[EI_NIDENT];
	FILE *f = fopen(path, "rb");
	int rc = -EINVAL;

	*entry = 0;
	if (!f) {
		rc = -errno;
		perror(path);
		return rc;
	}
	if (fread(ident, sizeof(ident), 1, f) == 1 &&
	    !memcmp(ident, ELFMAG, SELFMAG))
		rc = ident[EI_CLASS] == ELFCLASS64 ? load_elf64(r, f, entry)
						   : load_elf32(r, f, entry);
	if (rc)
		fprintf(stderr, "%s: not a test guest\n", path);
	fclose(f);
	return rc;
}

static void entry_state(
    struct vcpu_state *s, unsigned id, uint64_t entry, bool real)
{
	vcpu_state_reset(s, 0);
	s->gpr[GPR_RAX] = id;
	s->rip = entry;
	s->seg[SEG_CS] = (struct vcpu_seg){ .limit = 0xffff, .access = 0x9b };
	if (real)
		return;
	s->cr0 |= 1;
	s->seg[SEG_CS] = (struct vcpu_seg){
		.limit = 0xffffffff,
		.access = 0xc09b,
		.sel = 8,
	};
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		if (i != SEG_CS)
			s->seg[i] = (struct vcpu_seg){
				.limit = 0xffffffff,
				.access = 0xc093,
				.sel = 16,
			};
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *c = arg;
	struct runner *r = c->r;

	if (engine_soft.thread_start && engine_soft.thread_start(c->cpu))
		return NULL;
	while (!atomic_load(&r->status) && !atomic_load(&r->shutdown)) {
		switch (engine_soft.run(c->cpu)) {
		case ENGINE_KICKED:
			atomic_fetch_and(&c->link->events, ~(uint32_t)EV_MACHINE);
			break;
		case ENGINE_HALT:
			while (!atomic_load(&c->link->events)) {
				struct timespec ms = { .tv_nsec = 1000000 };

				nanosleep(&ms, NULL);
			}
			break;
		case ENGINE_SHUTDOWN:
		case ENGINE_ERROR:
		case ENGINE_DEBUG: /* nobody asked for it */
			atomic_store(&r->shutdown, true);
			stop_all(r);
			break;
		}
	}
	if (engine_soft.thread_stop)
		engine_soft.thread_stop(c->cpu);
	return NULL;
}

static void print_state(struct vcpu *c)
{
	struct vcpu_state s;

	engine_soft.get_state(c->cpu, &s);
	printf("vCPU %u: %04x:%016lx flags %lx cr0 %lx cr2 %lx cr3 %lx cr4 %lx "
	       "efer %lx\n",
	    c->id, s.seg[SEG_CS].sel, s.rip, s.rflags, s.cr0, s.cr2, s.cr3, s.cr4,
	    s.efer);
	for (unsigned i = 0; i < 16; i++)
		printf("%sr%-2u %016lx", i % 4 ? "  " : i ? "\n" : "", i, s.gpr[i]);
	printf("\n");
}

struct options {
	unsigned cpus;
	unsigned seconds;
	bool real, expect_shutdown, verbose;
	uint64_t interpreted; /* at most; 0: any number */
	const char *tier, *image;
};

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "cpus", required_argument, NULL, 'c' },
		{ "tier", required_argument, NULL, 't' },
		{ "time", required_argument, NULL, 's' },
		{ "real", no_argument, NULL, 'r' },
		{ "expect", required_argument, NULL, 'e' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "interpreted", required_argument, NULL, 'i' },
		{ 0 },
	};
	int c;

	*o = (struct options){ .cpus = 1, .seconds = 60 };
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->cpus = (unsigned)atoi(optarg);
			break;
		case 't':
			o->tier = optarg;
			break;
		case 's':
			o->seconds = (unsigned)atoi(optarg);
			break;
		case 'r':
			o->real = true;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'i':
			o->interpreted = strtoull(optarg, NULL, 0);
			break;
		case 'e':
			o->expect_shutdown = !strcmp(optarg, "shutdown");
			break;
		default:
			return -EINVAL;
		}
	}
	if (optind + 1 != argc || o->cpus == 0 || o->cpus > MAX_CPUS)
		return -EINVAL;
	o->image = argv[optind];
	return 0;
}

static int start(struct runner *r, const struct options *o, struct config *cfg,
    const struct engine_host *host)
{
	struct engine_config ec = {
		.mem = &r->mem,
		.host = host,
		.ncpu = o->cpus,
		.sockets = 1,
		.cores = o->cpus,
		.threads = 1,
		.tsc_hz = 1000000000,
		.strict_msr = true,
		.cfg = cfg,
	};
	uint64_t entry;
	int rc;

	rc = memory_create(&r->mem, RAM_SIZE, false, false);
	if (rc)
		return rc;
	rc = load_image(r, o->image, &entry);
	if (!rc)
		rc = engine_soft.create(&r->engine, &ec);
	if (rc)
		return rc;
	r->ncpu = o->cpus;
	for (unsigned i = 0; i < r->ncpu; i++) {
		struct vcpu *c = &r->vcpu[i];
		struct vcpu_state s;

		*c = (struct vcpu){ .r = r, .id = i, .apic_base = 0xfee00800 };
		rc = engine_soft.vcpu_create(r->engine, i, &c->cpu, &c->link);
		if (rc)
			return rc;
		entry_state(&s, i, entry, o->real);
		rc = engine_soft.set_state(c->cpu, &s);
		if (rc) {
			fprintf(stderr, "entry state refused\n");
			return rc;
		}
	}
	for (unsigned i = 0; i < r->ncpu; i++) {
		rc = -pthread_create(
		    &r->vcpu[i].thread, NULL, vcpu_thread, &r->vcpu[i]);
		if (rc)
			return rc;
	}
	return 0;
}

static void stat_print(void *arg, const char *name, uint64_t value)
{
	printf("%u %s %lu\n", *(unsigned *)arg, name, value);
}

static void stat_interpreted(void *arg, const char *name, uint64_t value)
{
	uint64_t *sum = arg;

	if (!strcmp(name, "instructions") || !strcmp(name, "jit instructions interpreted"))
		*sum += value;
}

/* Whether the translator did as much of the guest as it should have. */
static bool translated(const struct runner *r, const struct options *o)
{
	uint64_t sum = 0;

	if (!o->interpreted || !o->tier || strcmp(o->tier, "jit"))
		return true;
	for (unsigned i = 0; i < r->ncpu; i++)
		engine_soft.stats(r->vcpu[i].cpu, stat_interpreted, &sum);
	if (sum > o->interpreted)
		printf("%lu instructions were interpreted\n", sum);
	return sum <= o->interpreted;
}

/* Waits for the guest's verdict, at most the time given; is the timer meanwhile. */
static bool wait_end(struct runner *r, unsigned seconds)
{
	struct timespec t = { .tv_nsec = 100000 };
	time_t last = time(NULL) + (time_t)seconds;

	while (time(NULL) <= last) {
		if (atomic_load(&r->status) || atomic_load(&r->shutdown))
			return true;
		for (unsigned i = 0; i < r->ncpu; i++) {
			int vector = atomic_load(&r->vcpu[i].tick);

			if (vector && !atomic_load(&r->vcpu[i].pending))
				interrupt(&r->vcpu[i], vector);
		}
		nanosleep(&t, NULL);
	}
	return false;
}

static bool set_tier(struct config *cfg, const char *tier)
{
	if (!strcmp(tier, "lockstep")) {
		if (config_set(cfg, "cpu.lockstep", "true"))
			return false;
		tier = "jit";
	}
	if (!strcmp(tier, "shake")) {
		if (config_set(cfg, "cpu.shake", "7"))
			return false;
		tier = "jit";
	}
	/* A threshold of 1: translate at the first run. */
	return !config_set(cfg, "cpu.tier", tier) && !config_set(cfg, "cpu.threshold", "1");
}

int main(int argc, char **argv)
{
	static struct runner r;
	struct engine_host host = {
		.arg = &r,
		.io_read = io_read,
		.io_write = io_write,
		.mmio_read = mmio_read,
		.mmio_write = mmio_write,
		.msr_read = msr_read,
		.msr_write = msr_write,
		.cr8_read = cr8_read,
		.cr8_write = cr8_write,
		.intr_ack = intr_ack,
		.intr_pending = intr_pending,
	};
	struct config *cfg = config_new();
	struct options o;
	bool ended, ok;

	if (parse(argc, argv, &o) || !cfg) {
		fprintf(stderr, "usage: runner [--cpus=N] [--tier=T] [--real] "
				"[--expect=shutdown] [--time=S] [--interpreted=N] "
				"image\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (o.tier && !set_tier(cfg, o.tier))
		return 2;
	if (start(&r, &o, cfg, &host))
		return 2;
	ended = wait_end(&r, o.seconds);
	atomic_compare_exchange_strong(&r.status, &(int){ 0 }, 0xff);
	stop_all(&r);
	for (unsigned i = 0; i < r.ncpu; i++)
		pthread_join(r.vcpu[i].thread, NULL);
	if (o.expect_shutdown)
		ok = atomic_load(&r.shutdown);
	else
		ok = ended && !atomic_load(&r.shutdown) &&
		     atomic_load(&r.status) == 1;
	if (!ended)
		printf("no verdict within %u s\n", o.seconds);
	else if (!ok && !atomic_load(&r.shutdown))
		printf("status %d\n", atomic_load(&r.status) - 1);
	else if (!o.expect_shutdown && atomic_load(&r.shutdown))
		printf("a vCPU shut down\n");
	ok = ok && translated(&r, &o);
	for (unsigned i = 0; i < r.ncpu; i++) {
		if (!ok)
			print_state(&r.vcpu[i]);
		if (o.verbose)
			engine_soft.stats(r.vcpu[i].cpu, stat_print, &r.vcpu[i].id);
	}
	engine_soft.destroy(r.engine);
	memory_destroy(&r.mem);
	config_free(cfg);
	return ok ? 0 : 1;
}
