/*
 * The time: the wall clock for stamps, the monotonic clock for durations and deadlines.
 */
#ifndef BREAKERD_CLOCK_H
#define BREAKERD_CLOCK_H

#include <stdint.h>
#include <time.h>

/* The wall clock: milliseconds since the epoch. */
static inline int64_t clock_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * A wall clock that is never set: it starts with the wall clock at the first call, and goes on with
 * CLOCK_BOOTTIME, which also counts while the machine is suspended. For stamps that are corrected
 * by the measured offset of another machine's clock: a step of the wall clock would change both the
 * stamp and the offset.
 */
int64_t clock_steady_ms(void);

/*
 * The wall clock, but if that is set back by CLOCK_SET_BACK_MS or less, this one goes on as if it
 * had not been, and is ahead from then on. For stamps that durations are counted from.
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
