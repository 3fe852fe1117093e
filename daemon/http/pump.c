/*
 * Runs libmicrohttpd on the event loop: when its epoll descriptor is readable, and in the next turn
 * after a connection was added or resumed, which wakes nothing by itself.
 *
 * Each turn of the loop has a budget, so that no client keeps the others, a timer or a signal
 * waiting. libmicrohttpd may also say that it is ready although nothing can move: 0.9.75 does with
 * a chunk-size line that fills its buffer, and with every request that waits for its answer
 * unsuspended. Then it is polled, each POLL_MS, until parked.c or the deadline of that connection
 * (conn.c) ends this.
 */
#include "base/timer.h"
#include "http/private.h"

#include <stdint.h>

/* A turn's budget: calls of MHD_run, in each of which a connection does one step; and steps of
 * requests in all, five or so for each. */
#define TURN_ROUNDS 16
#define TURN_STEPS  1000
/* Runs in a turn in which no request makes a step: libmicrohttpd takes an answer up in one and
 * sends it in the next. */
#define BLIND_RUNS 1
/* Turns in a row that are taken at once although no request made a step. */
#define BLIND_TURNS 8
/* Connections of one phase of which the kernel is asked whether bytes move, the newest: each costs
 * a system call, in each turn. */
#define MOVE_LOOKS 32
/* As many more are taken while heads arrive: libmicrohttpd reads one near max_head in hundreds of
 * pieces, and only the bytes left in the socket tell of them. */
#define HEAD_TURNS 512
/* When to look again after that, or for requests that wait unsuspended. */
#define POLL_MS 5
/* A drain waits so long for the next request on a connection that is new or had one within
 * DRAIN_RECENT_MS: it may be on its way. Its answer then says that the connection ends. */
#define DRAIN_WAIT_MS   200
#define DRAIN_RECENT_MS 1000

/* True while libmicrohttpd has data at hand that no descriptor will announce, or thinks so. */
static bool mhd_is_busy(struct http *http)
{
	MHD_UNSIGNED_LONG_LONG ms;

	return MHD_get_timeout(http->mhd, &ms) == MHD_YES && ms == 0;
}

/* True while a request may well be on its way that no descriptor has announced yet. */
static bool may_come(struct http *http)
{
	struct conn *newest = TAILQ_LAST(&http->phases[PHASE_FRESH], conn_list);

	return event_pending(http->drain_timer, EV_TIMEOUT, NULL) && newest &&
	       newest->since_ms >= http->drain_ms - DRAIN_RECENT_MS;
}

void http_pump_check_drained(struct http *http)
{
	void (*drained)(void *arg) = http->drained;

	if (!drained || http->requests || http->lingering_count || may_come(http))
		return;
	http->drained = NULL;
	drained(http->drained_arg);
}

/*
 * True if a further run may get on with something. Requests that wait unsuspended make
 * libmicrohttpd busy without need; with such, run again only for connections amid a request.
 */
static bool may_get_on(struct http *http)
{
	return mhd_is_busy(http) && (!http->unsuspended || http->streams_awake ||
				     !TAILQ_EMPTY(&http->phases[PHASE_READING]) ||
				     !TAILQ_EMPTY(&http->phases[PHASE_SENDING]));
}

/* True if the bytes unread in its socket are others than at the last look. */
static bool has_moved(struct conn *c)
{
	int unread = c->mhd ? http_conn_unread(c) : 0, before = c->backlog;

	c->backlog = unread < 0 ? 0 : unread;
	return c->backlog != before;
}

/* True if libmicrohttpd has read of a request line, head or body since the last look. Looks at each
 * of them, so that the next look compares with this one. */
static bool bytes_move(struct http *http)
{
	static const enum phase arriving[] = {PHASE_FRESH, PHASE_IDLE, PHASE_READING};
	bool moved = false;
	struct conn *c;

	for (size_t i = 0; i < sizeof(arriving) / sizeof(arriving[0]); i++) {
		unsigned looks = 0;

		TAILQ_FOREACH_REVERSE(c, &http->phases[arriving[i]], conn_list, entry)
		{
			if (looks++ == MOVE_LOOKS)
				break;
			moved |= has_moved(c);
		}
	}
	return moved;
}

/* True if the next turn is to run libmicrohttpd, which says that it is busy. */
static bool go_on_at_once(struct http *http)
{
	unsigned turns = http->blind_turns;

	return turns < BLIND_TURNS || (turns < BLIND_TURNS + HEAD_TURNS && bytes_move(http));
}

/* Runs libmicrohttpd until it waits for the network or for answers, or the budget is spent. */
static void pump(void *arg)
{
	struct http *http = arg;
	uint64_t begin = http->steps, before;
	unsigned rounds = 0, blind_runs = 0;
	bool again;

	http_defer_begin_turn(http);
	do {
		before = http->steps;
		MHD_run(http->mhd);
		again = may_get_on(http);
		blind_runs += http->steps == before;
	} while (again && blind_runs <= BLIND_RUNS && http->steps - begin < TURN_STEPS &&
		 !http_defer_waiting(http) && ++rounds < TURN_ROUNDS);
	http_defer_serve(http);
	if (http->handled)
		http->handled(http->handled_arg);
	if (again)
		http_parked_check(http);
	if (!again || http->steps != begin)
		http->blind_turns = 0;
	if (again && go_on_at_once(http)) {
		http->blind_turns += http->steps == begin;
		later_run(http->pump);
	} else if ((again || http->unsuspended) && !event_pending(http->poll, EV_TIMEOUT, NULL)) {
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
	/* Takes in what has arrived already, then looks whether anything is under way. */
	later_run(http->pump);
}

void http_pump_stop(struct http *http)
{
	/* libmicrohttpd closes its descriptor in a moment. */
	if (http->readable)
		event_del(http->readable);
	/* Answers on their way out still go, as far as the sockets take them. */
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
