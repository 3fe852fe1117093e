/*
 * Work for the next turn of the event loop: what goes on in steps, or is done once for all that a
 * turn brings.
 *
 * A timer of zero, so the loop polls its descriptors, its other timers and the signals before the
 * callback runs. event_active(3) does not do that: from an event's own callback, or from a chain
 * of callbacks, libevent puts it into the queue that it is draining, and polls nothing until the
 * queue is empty. scripts/check-loop refuses it everywhere.
 */
#ifndef BREAKERD_LATER_H
#define BREAKERD_LATER_H

#include <stdbool.h>

struct event_base;
struct later;

typedef void later_fn(void *arg);

/* NULL when out of memory. */
struct later *later_new(struct event_base *base, later_fn *fn, void *arg);

/* Calls fn(arg) once, in the next turn, however often this is called before. */
void later_run(struct later *later);

/* True from later_run until fn is called. */
bool later_pending(const struct later *later);

/* Calls fn now rather than in the next turn, if it is pending. */
void later_now(struct later *later);

/* Takes it back. */
void later_cancel(struct later *later);

/* May be called from fn. NULL is allowed. */
void later_free(struct later *later);

#endif
