/*
 * The time: the wall clock for stamps, the monotonic clock for durations and deadlines.
 */
#ifndef BREAKERD_CLOCK_H
#define BREAKERD_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds since the epoch. */
static inline int64_t clock_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * The wall clock as it was when this was first called, carried on by a clock (CLOCK_BOOTTIME) that
 * nobody sets and that a suspended machine does not stop: for stamps that are corrected by a
 * measured distance to another machine's clock. A step of the wall clock would count in these
 * twice.
 */
int64_t clock_steady_ms(void);

/*
 * The wall clock. One that is set back by CLOCK_SET_BACK_MS or less goes on as if it had not been,
 * and is ahead from then on: for stamps that durations are counted from.
 */
#define CLOCK_SET_BACK_MS INT64_C(60000)
int64_t clock_forward_ms(void);

/* Monotonic, milliseconds. */
static inline int64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Monotonic, nanoseconds. */
static inline uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

#endif
