/*
 * Main's clock minus ours, for the stamps that are made while main is away. Ours is
 * clock_steady_ms: setting this machine's wall clock moves no stamp.
 */
#ifndef BREAKERD_CLOCK_OFFSET_H
#define BREAKERD_CLOCK_OFFSET_H

#include "store/store.h"

struct clock_offset {
	struct store_clock clock; /* ours */
	int64_t offset_ms;
	int64_t error_ms; /* by how much that may be wrong */
	int64_t stamp_ms; /* the last stamp that clock_offset_now made */
	int64_t after_ms; /* the next stamp shall be later than this; 0: any will do */
};

void clock_offset_init(struct clock_offset *o, const struct store_clock *clock);

/* A new measurement, and by how much it may be wrong. */
void clock_offset_measured(struct clock_offset *o, int64_t offset_ms, int64_t error_ms);

/* These are store_clock_fn; `arg` is a struct clock_offset. */

/* The time on main's clock, for a stamp. */
int64_t clock_offset_now(void *arg);

/* The time on main's clock to compare with: no stamp is made. */
int64_t clock_offset_peek(void *arg);

/* Our monotonic clock. */
int64_t clock_offset_monotonic(void *arg);

#endif
