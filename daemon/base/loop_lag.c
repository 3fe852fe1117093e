/* The lag of the event loop: see loop_lag.h. */
#include "base/loop_lag.h"

#include "base/clock.h"
#include "base/metrics.h"
#include "base/timer.h"

#include <event2/event.h>
#include <stdlib.h>

#define INTERVAL_NS UINT64_C(100000000)

struct loop_lag {
	struct metrics_histogram *histogram;
	struct event *timer;
	uint64_t due_ns; /* 0: the timer does not run */
};

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct loop_lag *l = arg;
	uint64_t now = clock_ns();

	(void)fd;
	(void)what;
	/* libevent caches the time for a turn, so the timer may come a little early. */
	metrics_observe(l->histogram, now > l->due_ns ? now - l->due_ns : 0);
	l->due_ns = 0;
}

struct loop_lag *loop_lag_new(struct event_base *base, struct metrics_histogram *histogram)
{
	struct loop_lag *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->histogram = histogram;
	l->timer = evtimer_new(base, on_timer, l);
	if (!l->timer) {
		free(l);
		return NULL;
	}
	return l;
}

void loop_lag_touch(struct loop_lag *l)
{
	if (l->due_ns || timer_arm(l->timer, INTERVAL_NS / 1000000) != 0)
		return;
	l->due_ns = clock_ns() + INTERVAL_NS;
}

void loop_lag_free(struct loop_lag *l)
{
	if (!l)
		return;
	event_free(l->timer);
	free(l);
}
