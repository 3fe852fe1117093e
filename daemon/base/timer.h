/*
 * Timers in milliseconds, where libevent takes a struct timeval.
 */
#ifndef BREAKERD_TIMER_H
#define BREAKERD_TIMER_H

#include <event2/event.h>
#include <stdint.h>

/* A negative time counts as 0. */
static inline struct timeval timer_interval(int64_t ms)
{
	if (ms < 0)
		ms = 0;
	return (struct timeval){.tv_sec = (time_t)(ms / 1000),
				.tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

/* Makes the timer fire in ms milliseconds, and no longer when it was due before. 0, or -1
 * (event_add(3)). */
static inline int timer_arm(struct event *timer, int64_t ms)
{
	struct timeval wait = timer_interval(ms);

	return event_add(timer, &wait);
}

#endif
