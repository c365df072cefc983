/*
 * Register options, --get-NAME and --set-NAME=VALUE, made from one table, with
 * the output that bhyvectl has everywhere.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyvectl/ctl.h"
#include "lib/log.h"
#include "lib/size.h"
#include "lib/util.h"
#include "vmm/control.h"
#include "vmm/state.h"

enum kind { NUMBER, SELECTOR, DESCRIPTOR, TABLE };

static const struct reg {
	const char *name;
	enum kind kind;
} table[] = {
	{ "efer", NUMBER },
	{ "cr0", NUMBER },
	{ "cr2", NUMBER },
	{ "cr3", NUMBER },
	{ "cr4", NUMBER },
	{ "dr0", NUMBER },
	{ "dr1", NUMBER },
	{ "dr2", NUMBER },
	{ "dr3", NUMBER },
	{ "dr6", NUMBER },
	{ "dr7", NUMBER },
	{ "rsp", NUMBER },
	{ "rip", NUMBER },
	{ "rax", NUMBER },
	{ "rbx", NUMBER },
	{ "rcx", NUMBER },
	{ "rdx", NUMBER },
	{ "rsi", NUMBER },
	{ "rdi", NUMBER },
	{ "rbp", NUMBER },
	{ "r8", NUMBER },
	{ "r9", NUMBER },
	{ "r10", NUMBER },
	{ "r11", NUMBER },
	{ "r12", NUMBER },
	{ "r13", NUMBER },
	{ "r14", NUMBER },
	{ "r15", NUMBER },
	{ "rflags", NUMBER },
	{ "desc-ds", DESCRIPTOR },
	{ "desc-es", DESCRIPTOR },
	{ "desc-fs", DESCRIPTOR },
	{ "desc-gs", DESCRIPTOR },
	{ "desc-ss", DESCRIPTOR },
	{ "desc-cs", DESCRIPTOR },
	{ "desc-tr", DESCRIPTOR },
	{ "desc-ldtr", DESCRIPTOR },
	{ "desc-gdtr", TABLE },
	{ "desc-idtr", TABLE },
	{ "cs", SELECTOR },
	{ "ds", SELECTOR },
	{ "es", SELECTOR },
	{ "fs", SELECTOR },
	{ "gs", SELECTOR },
	{ "ss", SELECTOR },
	{ "tr", SELECTOR },
	{ "ldtr", SELECTOR },
};

/* --desc-base and its like say what --set-desc-NAME sets. */
static const char *const parts[] = { "base", "limit", "access" };

struct regs {
	bool get[ARRAY_SIZE(table)], set[ARRAY_SIZE(table)];
	uint64_t value[ARRAY_SIZE(table)];
	bool has_part[ARRAY_SIZE(parts)];
	uint64_t part[ARRAY_SIZE(parts)];
	char names[2 * ARRAY_SIZE(table) + ARRAY_SIZE(parts)][24];
};

struct regs *regs_new(void)
{
	return calloc(1, sizeof(struct regs));
}

void regs_free(struct regs *r)
{
	free(r);
}

unsigned regs_count(void)
{
	return 2 * ARRAY_SIZE(table) + ARRAY_SIZE(parts);
}

void regs_options(struct regs *r, struct option *options, int base)
{
	for (unsigned i = 0; i < regs_count(); i++) {
		unsigned reg = i / 2;
		bool set = i % 2 == 1;
		bool argument = true;

		if (reg >= ARRAY_SIZE(table)) {
			snprintf(r->names[i], sizeof(r->names[i]), "desc-%s",
			    parts[i - 2 * ARRAY_SIZE(table)]);
		} else {
			snprintf(r->names[i], sizeof(r->names[i]), "%s-%s",
			    set ? "set" : "get", table[reg].name);
			argument = set && table[reg].kind != DESCRIPTOR &&
				   table[reg].kind != TABLE;
		}
		options[i] = (struct option){
			.name = r->names[i],
			.has_arg = argument ? required_argument : no_argument,
			.val = base + (int)i,
		};
	}
}

int regs_option(struct regs *r, unsigned index, const char *arg)
{
	unsigned reg = index / 2;
	uint64_t value = 0;

	if (arg != NULL && number_parse(arg, 0, UINT64_MAX, &value) != 0) {
		log_error("--%s=%s: not a number", r->names[index], arg);
		return -EINVAL;
	}
	if (reg >= ARRAY_SIZE(table)) {
		r->has_part[index - 2 * ARRAY_SIZE(table)] = true;
		r->part[index - 2 * ARRAY_SIZE(table)] = value;
	} else if (index % 2 == 1) {
		r->set[reg] = true;
		r->value[reg] = value;
	} else {
		r->get[reg] = true;
	}
	return 0;
}

bool regs_wants_write(const struct regs *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (r->set[i])
			return true;
	}
	return false;
}

/* "desc-cs" -> "cs" */
static const char *plain(const struct reg *reg)
{
	return reg->kind == DESCRIPTOR || reg->kind == TABLE ? reg->name + 5
							     : reg->name;
}

static int set_descriptor(
    const struct regs *r, const struct reg *reg, struct target *t, unsigned cpu)
{
	size_t count = reg->kind == TABLE ? 2 : 3;
	bool any = false;
	int error = 0;

	for (size_t i = 0; error == 0 && i < count; i++) {
		char field[24];

		if (!r->has_part[i])
			continue;
		any = true;
		snprintf(field, sizeof(field), "%s.%s", plain(reg), parts[i]);
		error = target_set_field(t, cpu, field, r->part[i]);
	}
	if (error == 0 && !any) {
		log_error("--set-%s: say what with --desc-base=, --desc-limit= or "
			  "--desc-access=",
		    reg->name);
		error = -EINVAL;
	}
	return error;
}

int regs_apply(const struct regs *r, struct target *t, unsigned cpu)
{
	int error = 0;

	for (size_t i = 0; error == 0 && i < ARRAY_SIZE(table); i++) {
		if (!r->set[i])
			continue;
		if (table[i].kind == DESCRIPTOR || table[i].kind == TABLE)
			error = set_descriptor(r, &table[i], t, cpu);
		else
			error =
			    target_set_field(t, cpu, table[i].name, r->value[i]);
	}
	return error;
}

static uint64_t part_of(
    const struct vcpu_state *s, const struct reg *reg, const char *part)
{
	const struct control_field *f;
	char field[24];

	snprintf(field, sizeof(field), "%s%s%s", plain(reg),
	    part[0] != '\0' ? "." : "", part);
	f = control_field(field);
	return f != NULL ? control_field_get(s, f) : 0;
}

static void print_reg(
    const struct reg *reg, const struct vcpu_state *s, unsigned cpu)
{
	const char *name = plain(reg);

	switch (reg->kind) {
	case NUMBER:
		printf("%s[%u]\t\t0x%016llx\n", name, cpu,
		    (unsigned long long)part_of(s, reg, ""));
		break;
	case SELECTOR:
		printf("%s[%u]\t\t0x%04llx\n", name, cpu,
		    (unsigned long long)part_of(s, reg, ""));
		break;
	case DESCRIPTOR:
		printf("%s desc[%u]\t0x%016llx/0x%08llx/0x%08llx\n", name, cpu,
		    (unsigned long long)part_of(s, reg, "base"),
		    (unsigned long long)part_of(s, reg, "limit"),
		    (unsigned long long)part_of(s, reg, "access"));
		break;
	case TABLE:
		printf("%s[%u]\t\t0x%016llx/0x%08llx\n", name, cpu,
		    (unsigned long long)part_of(s, reg, "base"),
		    (unsigned long long)part_of(s, reg, "limit"));
		break;
	}
}

int regs_print(const struct regs *r, struct target *t, unsigned cpu, bool all)
{
	struct vcpu_state s;
	bool have = false;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (!r->get[i] && !all)
			continue;
		if (!have) {
			int error = target_get_state(t, cpu, &s);

			if (error != 0)
				return error;
			have = true;
		}
		print_reg(&table[i], &s, cpu);
	}
	return 0;
}
