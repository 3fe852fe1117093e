/* Work for the next turn of the loop: see later.h. */
#include "base/later.h"

#include <event2/event.h>
#include <stdlib.h>

struct later {
	struct event *timer;
	bool pending;
	later_fn *fn;
	void *arg;
};

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct later *later = arg;

	(void)fd;
	(void)what;
	later->pending = false;
	later->fn(later->arg);
}

struct later *later_new(struct event_base *base, later_fn *fn, void *arg)
{
	struct later *later = calloc(1, sizeof(*later));

	if (!later)
		return NULL;
	later->fn = fn;
	later->arg = arg;
	later->timer = evtimer_new(base, on_timer, later);
	if (!later->timer) {
		free(later);
		return NULL;
	}
	return later;
}

void later_run(struct later *later)
{
	static const struct timeval at_once = {0};

	if (later->pending)
		return;
	/* If libevent has no memory for the timer, pending stays false and the next call tries
	 * again. */
	later->pending = event_add(later->timer, &at_once) == 0;
}

bool later_pending(const struct later *later)
{
	return later->pending;
}

void later_now(struct later *later)
{
	if (!later->pending)
		return;
	later_cancel(later);
	later->fn(later->arg);
}

void later_cancel(struct later *later)
{
	event_del(later->timer);
	later->pending = false;
}

void later_free(struct later *later)
{
	if (!later)
		return;
	event_free(later->timer);
	free(later);
}
