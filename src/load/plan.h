/*
 * What a loader wants to leave in a guest's memory, gathered before anything is
 * written. Pieces lie in RAM below 3 GiB and never overlap: plan_add() refuses
 * both, whatever a hostile file asks for.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "load/error.h"
#include "vmm/state.h"

#define PLAN_PIECES_MAX 160
#define PLAN_OWNED_MAX  16
#define PLAN_LOW_END    UINT64_C(0xa0000) /* usable memory below 1 MiB */

struct vmfile;

struct plan {
	uint64_t memory; /* of the guest */
	uint64_t low;    /* where its RAM below 3 GiB ends */
	uint64_t end;    /* behind what lies above 1 MiB so far */
	struct plan_piece {
		const char *what;
		uint64_t at, end;
		const void *data;
		size_t len; /* the rest, to end, is zero */
	} piece[PLAN_PIECES_MAX];
	unsigned pieces;
	void *owned[PLAN_OWNED_MAX];
	unsigned owns;
	struct vcpu_state state; /* of vCPU 0 */
};

/* With flat descriptors and the state that goes with them (flat.h). */
int plan_init(struct plan *p, uint64_t memory, struct load_error *e);
void plan_free(struct plan *p);
/* data (len bytes of size) is the caller's until the plan is freed. 0 or -EINVAL.
 */
int plan_add(struct plan *p, const char *what, uint64_t at, uint64_t size,
    const void *data, size_t len, struct load_error *e);
/* On the next page behind everything above 1 MiB; *at: where. */
int plan_append(struct plan *p, const char *what, const void *data, size_t len,
    uint64_t *at, struct load_error *e);
/* Zeroed bytes that live as long as the plan; NULL (said why). */
void *plan_alloc(struct plan *p, size_t len, struct load_error *e);
/* Writes all and vCPU 0's state; the object is LOADED. 0 or -errno (said why). */
int plan_write(const struct plan *p, struct vmfile *vf, struct load_error *e);

/* One stretch of the guest's usable memory; how many there are. */
struct plan_range {
	uint64_t base, len;
};
#define PLAN_RANGES 3
unsigned plan_memory_map(const struct plan *p, struct plan_range map[PLAN_RANGES]);
