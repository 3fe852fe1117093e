/*
 * How late the event loop is: the time that every request waits for the loop. No other duration
 * includes it.
 *
 * Measured by a timer of 100 ms: its delay is the lag. The timer runs only while there are
 * requests, so that an idle daemon sleeps. Whatever holds up the loop for longer than 100 ms is
 * always seen. An idle loop is up to 1 ms late, because libevent's clock counts milliseconds.
 */
#ifndef BREAKERD_LOOP_LAG_H
#define BREAKERD_LOOP_LAG_H

struct event_base;
struct loop_lag;
struct metrics_histogram;

/* NULL when out of memory. `histogram` must outlive it. */
struct loop_lag *loop_lag_new(struct event_base *base, struct metrics_histogram *histogram);

/* To be called at each request. Costs next to nothing. */
void loop_lag_touch(struct loop_lag *l);

/* NULL is allowed. */
void loop_lag_free(struct loop_lag *l);

#endif
