/*
 * What a FreeBSD/amd64 kernel finds in memory and registers when it starts: the
 * loaded files, environment and metadata behind them, a scratch stack, page tables
 * that map every GiB of addresses to the first GiB of memory, a GDT.
 */
#pragma once

#include <stdint.h>

struct env;
struct preloads;
struct vcpu_state;
struct vmfile;

#define HANDOVER_STACK UINT64_C(0x1000)
#define HANDOVER_PML4  UINT64_C(0x2000)
#define HANDOVER_PDPT  UINT64_C(0x3000)
#define HANDOVER_PD    UINT64_C(0x4000)
#define HANDOVER_GDT   UINT64_C(0x5000)

/* Bits of howto (sys/reboot.h). */
#define RB_ASKNAME  0x1u
#define RB_SINGLE   0x2u
#define RB_DFLTROOT 0x20u
#define RB_KDB      0x40u
#define RB_CONFIG   0x400u
#define RB_VERBOSE  0x800u
#define RB_SERIAL   0x1000u
#define RB_CDROM    0x2000u
#define RB_GDB      0x8000u
#define RB_MUTE     0x10000u
#define RB_PAUSE    0x100000u
#define RB_QUIET    0x200000u
#define RB_NOINTR   0x10000000u
#define RB_MULTIPLE 0x20000000u

/* From the kernel's arguments ("-s -v", may be NULL) and boot_* variables. */
uint32_t handover_howto(const char *args, const struct env *env);
/*
 * Writes it all and vCPU 0's state; the object is LOADED. memory: the guest's size
 * in bytes. 0, -ENOMEM (no room behind the files), -errno of the VM object.
 */
int handover_write(struct vmfile *vf, const struct preloads *l,
    const struct env *env, uint64_t memory);
