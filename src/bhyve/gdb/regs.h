/*
 * A vCPU's registers as GDB numbers them: the order of the target description that
 * GDB reads, standard features of amd64 first, then control registers of ours.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct vcpu_state;

#define GDB_REG_MAX 16 /* bytes of the widest */

unsigned gdb_reg_count(void);
unsigned gdb_reg_size(unsigned n);
/* State as an engine gives it: parts of the FPU that XSTATE_BV leaves out are set.
 */
void gdb_regs_prepare(struct vcpu_state *s);
/* gdb_reg_size(n) bytes, little-endian; n < gdb_reg_count(). */
void gdb_reg_get(const struct vcpu_state *s, unsigned n, uint8_t *buf);
/* 0, or -EINVAL: what the register cannot hold, or a selector without its segment.
 */
int gdb_reg_set(struct vcpu_state *s, unsigned n, const uint8_t *buf);
/* The target description (XML), to be freed; NULL: no memory. */
char *gdb_target_xml(void);
