/*
 * How late the event loop is: for how long a request waits for the loop before it is read. No other
 * duration in the metrics includes that.
 *
 * The lag is the delay of a timer of 100 ms. The timer runs only while there are requests, so that
 * an idle daemon sleeps. What holds up the loop for longer than 100 ms is always measured. An idle
 * loop shows up to 1 ms, because libevent's clock counts milliseconds.
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
