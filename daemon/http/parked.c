/*
 * Chunked bodies of which nothing moves.
 *
 * libmicrohttpd before 1.0 takes a chunk's size line that fills its buffer for work at hand: it
 * reads the line anew in each run, and never the socket. Hundreds of such connections would make
 * each run of libmicrohttpd cost milliseconds. So while libmicrohttpd says that it is ready, the
 * chunked bodies on their way are looked at each CHECK_MS. Of one that has not moved since the last
 * look
 *
 * - bytes stay unread in the socket: the line is too long, and the request is refused;
 * - or none wait there: the connection is parked, which means suspended, until some come.
 *
 * A parked connection costs one look at its socket each PARK_MS. Its deadline holds on (conn.c).
 */
#include "http/private.h"

#define CHECK_MS 20
#define PARK_MS  50
/* libmicrohttpd ends a connection that was parked and fills its buffer only by its own time-out of
 * a second, and has it for ready until then. So many of them at once. */
#define DOOMED_MAX 64

static void park(struct conn *c)
{
	struct http *http = c->http;

	c->parked = true;
	MHD_suspend_connection(c->mhd);
	TAILQ_INSERT_TAIL(&http->parked, c, side);
	if (!event_pending(http->park_timer, EV_TIMEOUT, NULL))
		timer_arm(http->park_timer, PARK_MS);
}

static void resume(struct conn *c)
{
	struct http *http = c->http;

	c->parked = false;
	TAILQ_REMOVE(&http->parked, c, side);
	if (c->phase == PHASE_ENDING) {
		c->doomed = true;
		http->doomed++;
		MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 1u);
	}
	MHD_resume_connection(c->mhd);
	http_schedule_pump(http);
}

static void refuse(struct conn *c)
{
	c->rq.direct = true;
	http_refuse_problem(&c->rq, PROBLEM_INVALID_BODY,
			    "The size line of a chunk, with its extensions, is too long.");
	http_conn_end(c, "chunk");
}

static void look_at(struct conn *c)
{
	bool moved = c->moved != c->rq.pieces + 1;
	int unread = http_conn_unread(c), before = c->unread;

	if (unread < 0)
		unread = 0;
	c->unread = unread;
	c->moved = c->rq.pieces + 1;
	if (moved)
		return;
	/* libmicrohttpd has run since the last look, and would have read what had come by then. */
	if (before && unread >= before)
		refuse(c);
	else if (!unread && http_conn_has_hung_up(c))
		http_conn_end(c, "left");
	else if (!unread)
		park(c);
}

void http_parked_check(struct http *http)
{
	int64_t now = http_coarse_ms();
	struct conn *c, *next;

	if (now - http->parked_check_ms < CHECK_MS || !http_head_is_lenient())
		return;
	http->parked_check_ms = now;
	for (c = TAILQ_FIRST(&http->phases[PHASE_READING]); c; c = next) {
		next = TAILQ_NEXT(c, entry);
		if (c->rq.begun && c->rq.head.chunked && !c->parked)
			look_at(c);
	}
}

/* True if the parked connection has something for libmicrohttpd, or has to end. */
static bool is_due(const struct conn *c)
{
	char byte;

	if (c->phase == PHASE_ENDING)
		return c->http->doomed < DOOMED_MAX;
	return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;
	struct conn *c, *next;

	(void)fd;
	(void)what;
	for (c = TAILQ_FIRST(&http->parked); c; c = next) {
		next = TAILQ_NEXT(c, side);
		if (is_due(c))
			resume(c);
	}
	if (!TAILQ_EMPTY(&http->parked))
		timer_arm(http->park_timer, PARK_MS);
}

void http_parked_forget(struct conn *c)
{
	if (c->doomed)
		c->http->doomed--;
}

void http_parked_resume(struct http *http)
{
	struct conn *c;

	while ((c = TAILQ_FIRST(&http->parked)))
		resume(c);
}

int http_parked_init(struct http *http)
{
	http->park_timer = evtimer_new(http->base, on_tick, http);
	return http->park_timer ? 0 : -1;
}

void http_parked_free(struct http *http)
{
	if (http->park_timer)
		event_free(http->park_timer);
}
