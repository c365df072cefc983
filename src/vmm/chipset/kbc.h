/* kbc.c - the i8042 without keyboard and mouse, and port 0x92. */
#pragma once

struct kbc;
struct machine;

int kbc_create(struct machine *m, struct kbc **k);
void kbc_destroy(struct kbc *k);
