/*
 * What both ends of the control socket share: its address and names of registers.
 */
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/util.h"
#include "vmm/state.h"
#include "vmm/vmfile.h"

/* FNV-1a, to shorten names: a clash would need two long names made for it. */
static uint64_t hash(const char *s)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *s != '\0'; s++)
		h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
	return h;
}

int control_address(
    const char *name, struct sockaddr_un *address, socklen_t *len, int *dirfd)
{
	char path[PATH_MAX], *slash;
	int error = vmfile_control_path(name, path, sizeof(path));

	*dirfd = -1;
	if (error != 0)
		return error;
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	*len = sizeof(*address);
	if (strlen(path) < sizeof(address->sun_path)) {
		memcpy(address->sun_path, path, strlen(path));
		return 0;
	}
	slash = strrchr(path, '/');
	*slash = '\0';
	*dirfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dirfd < 0)
		return -errno;
	if (strlen(name) < 64)
		snprintf(address->sun_path, sizeof(address->sun_path),
		    "/proc/self/fd/%d/%.63s", *dirfd, name);
	else
		snprintf(address->sun_path, sizeof(address->sun_path),
		    "/proc/self/fd/%d/%.40s~%016llx", *dirfd, name,
		    (unsigned long long)hash(name));
	return 0;
}

#define FIELD(text, member)                                                        \
	{                                                                          \
		text, offsetof(struct vcpu_state, member),                         \
		    sizeof(((struct vcpu_state *)0)->member)                       \
	}
#define SEGMENT(text, index)                                                       \
	FIELD(text, seg[index].sel), FIELD(text ".base", seg[index].base),         \
	    FIELD(text ".limit", seg[index].limit),                                \
	    FIELD(text ".access", seg[index].access)

static const struct control_field fields[] = {
	FIELD("rax", gpr[GPR_RAX]),
	FIELD("rbx", gpr[GPR_RBX]),
	FIELD("rcx", gpr[GPR_RCX]),
	FIELD("rdx", gpr[GPR_RDX]),
	FIELD("rsi", gpr[GPR_RSI]),
	FIELD("rdi", gpr[GPR_RDI]),
	FIELD("rbp", gpr[GPR_RBP]),
	FIELD("rsp", gpr[GPR_RSP]),
	FIELD("r8", gpr[GPR_R8]),
	FIELD("r9", gpr[GPR_R9]),
	FIELD("r10", gpr[GPR_R10]),
	FIELD("r11", gpr[GPR_R11]),
	FIELD("r12", gpr[GPR_R12]),
	FIELD("r13", gpr[GPR_R13]),
	FIELD("r14", gpr[GPR_R14]),
	FIELD("r15", gpr[GPR_R15]),
	FIELD("rip", rip),
	FIELD("rflags", rflags),
	SEGMENT("cs", SEG_CS),
	SEGMENT("ds", SEG_DS),
	SEGMENT("es", SEG_ES),
	SEGMENT("fs", SEG_FS),
	SEGMENT("gs", SEG_GS),
	SEGMENT("ss", SEG_SS),
	SEGMENT("tr", SEG_TR),
	SEGMENT("ldtr", SEG_LDTR),
	FIELD("gdtr.base", gdtr.base),
	FIELD("gdtr.limit", gdtr.limit),
	FIELD("idtr.base", idtr.base),
	FIELD("idtr.limit", idtr.limit),
	FIELD("cr0", cr0),
	FIELD("cr2", cr2),
	FIELD("cr3", cr3),
	FIELD("cr4", cr4),
	FIELD("cr8", cr8),
	FIELD("efer", efer),
	FIELD("xcr0", xcr0),
	FIELD("dr0", dr[0]),
	FIELD("dr1", dr[1]),
	FIELD("dr2", dr[2]),
	FIELD("dr3", dr[3]),
	FIELD("dr6", dr6),
	FIELD("dr7", dr7),
	FIELD("star", star),
	FIELD("lstar", lstar),
	FIELD("cstar", cstar),
	FIELD("sfmask", sfmask),
	FIELD("kgsbase", kernel_gs_base),
	FIELD("sysenter_cs", sysenter_cs),
	FIELD("sysenter_esp", sysenter_esp),
	FIELD("sysenter_eip", sysenter_eip),
	FIELD("pat", pat),
	FIELD("apic_base", apic_base),
	FIELD("tsc_offset", tsc_offset),
	FIELD("activity", activity),
	FIELD("shadow", shadow),
	FIELD("nmi_blocked", nmi_blocked),
};

const struct control_field *control_field(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (strcmp(name, fields[i].name) == 0)
			return &fields[i];
	}
	return NULL;
}

/* The host is little-endian, as x86 is: the low bytes come first. */
uint64_t control_field_get(
    const struct vcpu_state *s, const struct control_field *f)
{
	uint64_t v = 0;

	memcpy(&v, (const uint8_t *)s + f->offset, f->size);
	return v;
}

int control_field_set(
    struct vcpu_state *s, const struct control_field *f, uint64_t v)
{
	if (f->size < 8 && v >> (8 * f->size) != 0)
		return -ERANGE;
	memcpy((uint8_t *)s + f->offset, &v, f->size);
	return 0;
}
