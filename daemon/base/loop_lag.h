/*
 * How late the event loop is: what every request waits, and what no other duration shows.
 *
 * A timer that is late tells it. It runs only while there are requests, each 100 ms, so that an
 * idle daemon sleeps; whatever holds up the loop for longer than that is always seen. An
 * idle loop is up to 1 ms late, by libevent's clock.
 */
#ifndef BREAKERD_LOOP_LAG_H
#define BREAKERD_LOOP_LAG_H

struct event_base;
struct loop_lag;
struct metrics_histogram;

/* NULL when out of memory. `histogram` must outlive it. */
struct loop_lag *loop_lag_new(struct event_base *base, struct metrics_histogram *histogram);

/* There is a request. Costs next to nothing. */
void loop_lag_touch(struct loop_lag *l);

/* NULL is allowed. */
void loop_lag_free(struct loop_lag *l);

#endif
