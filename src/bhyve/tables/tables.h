/*
 * What firmware leaves in low memory for the guest: MP table (0xF0000), SMBIOS
 * (0xF1000), ACPI (0xF2400).
 */
#pragma once

struct machine;
struct pci_bus;

/* After all devices exist, before the vCPUs run. 0 or -errno (logged). */
int tables_build(struct machine *m, struct pci_bus *bus);
