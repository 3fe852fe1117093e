/*
 * Main's clock less ours, as the stamps that are made without main use it. Ours is clock_steady_ms,
 * so that a step of this machine's wall clock moves no stamp.
 */
#ifndef BREAKERD_CLOCK_OFFSET_H
#define BREAKERD_CLOCK_OFFSET_H

#include "store/store.h"

struct clock_offset {
	struct store_clock clock; /* ours */
	int64_t offset_ms;
	int64_t error_ms; /* by how much that may be wrong */
	int64_t stamp_ms; /* the last stamp that clock_offset_now made */
	int64_t after_ms; /* the next stamp must be later than this; 0: any will do */
};

void clock_offset_init(struct clock_offset *o, const struct store_clock *clock);

/* A new measurement, and by how much it may be wrong. */
void clock_offset_measured(struct clock_offset *o, int64_t offset_ms, int64_t error_ms);

/* Now in main's time, for a stamp. `arg` is a struct clock_offset: a store_clock_fn. */
int64_t clock_offset_now(void *arg);

/* The same, to look at: no stamp is made. */
int64_t clock_offset_look(void *arg);

/* Our monotonic clock; the same. */
int64_t clock_offset_monotonic(void *arg);

#endif
