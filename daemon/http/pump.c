/*
 * Runs libmicrohttpd on the event loop: when its epoll descriptor is readable, and in the next turn
 * after a connection was added or resumed, of which libmicrohttpd does not tell the descriptor.
 *
 * Each turn of the loop has a budget, so that no client keeps other clients, timers or signals
 * waiting. libmicrohttpd may say that it is busy although no connection can make progress: 0.9.75
 * does so for a chunk's size line that fills its buffer, and for each request that waits for its
 * answer unsuspended. Then it is run each POLL_MS, until parked.c or the connection's deadline
 * (conn.c) ends that.
 */
#include "base/timer.h"
#include "http/private.h"

#include <stdint.h>

/* A turn's budget: calls of MHD_run, in each of which a connection makes one step; and steps of all
 * requests together. A request makes about five. */
#define TURN_ROUNDS 16
#define TURN_STEPS  1000
/* How many runs without a step a turn may have. One: libmicrohttpd takes an answer up in one run
 * and sends it in the next. */
#define STALLED_RUNS 1
/* How many turns without a step may follow each other at once, without POLL_MS between them. */
#define STALLED_TURNS 8
/* How many more, as long as bytes are read from sockets: a head near max_head is read in hundreds
 * of pieces, none of which is a step. */
#define HEAD_TURNS 512
/* For how many connections of a phase, the newest ones, that is checked. Each check is a system
 * call. */
#define CHECKS_MAX 32
/* When to run again after that, and while requests wait unsuspended. */
#define POLL_MS 5
/* How long a drain waits for a request that may be on its way: on a connection that is new or had a
 * request within DRAIN_RECENT_MS. Its answer then says that the connection ends. */
#define DRAIN_WAIT_MS   200
#define DRAIN_RECENT_MS 1000

/* True while libmicrohttpd has, or believes to have, work that no descriptor will tell of. */
static bool mhd_is_busy(struct http *http)
{
	MHD_UNSIGNED_LONG_LONG ms;

	return MHD_get_timeout(http->mhd, &ms) == MHD_YES && ms == 0;
}

/* For a drain: true while a request may be on its way. */
static bool request_may_come(struct http *http)
{
	struct conn *newest = TAILQ_LAST(&http->phases[PHASE_FRESH], conn_list);

	return event_pending(http->drain_timer, EV_TIMEOUT, NULL) && newest &&
	       newest->since_ms >= http->drain_ms - DRAIN_RECENT_MS;
}

void http_pump_check_drained(struct http *http)
{
	void (*drained)(void *arg) = http->drained;

	if (!drained || http->requests || http->lingering_count || request_may_come(http))
		return;
	http->drained = NULL;
	drained(http->drained_arg);
}

/*
 * True if a further run may make progress. Requests that wait unsuspended make libmicrohttpd say
 * that it is busy; with such requests, only connections amid a request are worth a further run.
 */
static bool may_progress(struct http *http)
{
	return mhd_is_busy(http) && (!http->unsuspended || http->streams_awake ||
				     !TAILQ_EMPTY(&http->phases[PHASE_READING]) ||
				     !TAILQ_EMPTY(&http->phases[PHASE_SENDING]));
}

/* True if the number of bytes unread in its socket has changed since the last check. */
static bool unread_changed(struct conn *c)
{
	int unread = c->mhd ? http_conn_unread(c) : 0, before = c->backlog;

	c->backlog = unread < 0 ? 0 : unread;
	return c->backlog != before;
}

/* True if libmicrohttpd has read bytes of a request since the last check. Checks all connections
 * even so, to have their numbers for the next check. */
static bool any_bytes_read(struct http *http)
{
	static const enum phase arriving[] = {PHASE_FRESH, PHASE_IDLE, PHASE_READING};
	bool read = false;
	struct conn *c;

	for (size_t i = 0; i < sizeof(arriving) / sizeof(arriving[0]); i++) {
		unsigned checks = 0;

		TAILQ_FOREACH_REVERSE(c, &http->phases[arriving[i]], conn_list, entry)
		{
			if (checks++ == CHECKS_MAX)
				break;
			read |= unread_changed(c);
		}
	}
	return read;
}

/* libmicrohttpd says that it is busy: true if it is to run in the next turn, false in POLL_MS. */
static bool run_again_now(struct http *http)
{
	unsigned turns = http->stalled_turns;

	return turns < STALLED_TURNS ||
	       (turns < STALLED_TURNS + HEAD_TURNS && any_bytes_read(http));
}

/* Runs libmicrohttpd until it waits for the network or for answers, or the budget is spent. */
static void pump(void *arg)
{
	struct http *http = arg;
	uint64_t begin = http->steps, before;
	unsigned rounds = 0, stalled_runs = 0;
	bool busy;

	http_defer_begin_turn(http);
	do {
		before = http->steps;
		MHD_run(http->mhd);
		busy = may_progress(http);
		stalled_runs += http->steps == before;
	} while (busy && stalled_runs <= STALLED_RUNS && http->steps - begin < TURN_STEPS &&
		 !http_defer_waiting(http) && ++rounds < TURN_ROUNDS);
	http_defer_serve(http);
	if (http->handled)
		http->handled(http->handled_arg);
	if (busy)
		http_parked_check(http);
	if (!busy || http->steps != begin)
		http->stalled_turns = 0;
	if (busy && run_again_now(http)) {
		http->stalled_turns += http->steps == begin;
		later_run(http->pump);
	} else if ((busy || http->unsuspended) && !event_pending(http->poll, EV_TIMEOUT, NULL)) {
		timer_arm(http->poll, POLL_MS);
	}
	http_pump_check_drained(http);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	pump(arg);
}

int http_pump_init(struct http *http)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->mhd, MHD_DAEMON_INFO_EPOLL_FD);

	if (!info)
		return -1;
	http->readable =
		event_new(http->base, info->epoll_fd, EV_READ | EV_PERSIST, on_event, http);
	http->pump = later_new(http->base, pump, http);
	http->poll = evtimer_new(http->base, on_event, http);
	http->drain_timer = evtimer_new(http->base, on_event, http);
	if (!http->readable || !http->pump || !http->poll || !http->drain_timer)
		return -1;
	return event_add(http->readable, NULL);
}

void http_flush(struct http *http)
{
	later_now(http->pump);
}

void http_pump_rest(struct http *http)
{
	event_del(http->poll);
}

void http_pump_drain(struct http *http)
{
	http->drain_ms = http_coarse_ms();
	timer_arm(http->drain_timer, DRAIN_WAIT_MS);
	/* Takes in what has arrived already, then checks whether anything is under way. */
	later_run(http->pump);
}

void http_pump_stop(struct http *http)
{
	/* MHD_stop_daemon will close the descriptor. */
	if (http->readable)
		event_del(http->readable);
	/* One more run sends answers that were queued, as far as the sockets take them. */
	if (http->mhd && http->pump && later_pending(http->pump))
		MHD_run(http->mhd);
}

void http_pump_free(struct http *http)
{
	if (http->readable)
		event_free(http->readable);
	later_free(http->pump);
	if (http->poll)
		event_free(http->poll);
	if (http->drain_timer)
		event_free(http->drain_timer);
}
