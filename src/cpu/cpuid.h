/*
 * CPUID policy: what a guest is told. Never more than the host has, never a
 * feature the engine lacks; the host's vendor, the hypervisor leaves of bhyve.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct engine_config;

struct cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

/* Guest state that CPUID mirrors. */
struct cpuid_context {
	unsigned cpu;  /* vCPU number = APIC id */
	uint64_t cr4;  /* OSXSAVE */
	uint64_t xcr0; /* size of the XSAVE area */
	bool apic_enabled;
	bool x2apic;
};

void cpuid_guest(const struct engine_config *cfg, const struct cpuid_context *ctx,
    uint32_t leaf, uint32_t subleaf, struct cpuid_regs *out);

/*
 * IA32_ARCH_CAPABILITIES; meaningful when leaf 7, EDX bit 29 is set (Intel hosts).
 */
uint64_t cpuid_arch_capabilities(void);
