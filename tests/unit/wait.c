#include "wait.h"

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

void wait_turn(struct event_base *base)
{
	static const struct timeval soon = {.tv_usec = 2000};
	struct event *tick = evtimer_new(base, on_tick, NULL);

	event_add(tick, &soon);
	event_base_loop(base, EVLOOP_ONCE);
	event_free(tick);
}
