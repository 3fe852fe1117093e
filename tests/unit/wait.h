/*
 * Waiting for a condition, with a deadline.
 */
#ifndef BREAKERD_TESTS_WAIT_H
#define BREAKERD_TESTS_WAIT_H

#include "base/clock.h"

#include <check.h>
#include <event2/event.h>

/* Runs one turn of the loop, which waits for an event for 2 ms at most. */
void wait_turn(struct event_base *base);

/* Runs the loop until the condition holds. The test fails with `why` if that takes over max_ms. */
#define WAIT_UNTIL(base, max_ms, condition, why)                                                   \
	do {                                                                                       \
		int64_t end_ = clock_ms() + (max_ms);                                              \
		while (!(condition)) {                                                             \
			ck_assert_msg(clock_ms() < end_, "never: %s; %s", #condition, (why));      \
			wait_turn(base);                                                           \
		}                                                                                  \
	} while (0)

#endif
