/*
 * Work for the next turn of the event loop: work that goes on in steps, or that is done once for
 * all that a turn brings.
 *
 * It is a timer of zero, so the loop polls descriptors, other timers and signals before the
 * callback runs. event_active(3) does not do that: called from an event's own callback, or from a
 * chain of callbacks, libevent appends the event to the queue that it is draining, and polls
 * nothing until the queue is empty. scripts/check-loop refuses event_active everywhere.
 */
#ifndef BREAKERD_LATER_H
#define BREAKERD_LATER_H

#include <stdbool.h>

struct event_base;
struct later;

typedef void later_fn(void *arg);

/* NULL when out of memory. */
struct later *later_new(struct event_base *base, later_fn *fn, void *arg);

/* Has fn(arg) called in the next turn: once, however often this is called before. */
void later_run(struct later *later);

/* True from later_run until fn is called. */
bool later_pending(const struct later *later);

/* If fn is pending, calls it now, not in the next turn. */
void later_now(struct later *later);

/* fn is no longer pending. */
void later_cancel(struct later *later);

/* May be called from fn. NULL is allowed. */
void later_free(struct later *later);

#endif
