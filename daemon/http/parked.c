/*
 * Chunked bodies that make no progress.
 *
 * If a chunk's size line fills its buffer, libmicrohttpd before 1.0 counts the connection as ready:
 * each run parses the line again, and never reads the socket. Hundreds of such connections would
 * make each run cost milliseconds. So while libmicrohttpd says that it is busy, chunked bodies that
 * are arriving are checked each CHECK_MS. If a body has made no progress since the last check
 *
 * - and bytes are unread in the socket, then the line is too long, and the request is refused;
 * - and no bytes are unread, then the connection is parked: suspended until some come.
 *
 * A parked connection's socket is polled each PARK_MS. Its deadline still holds (conn.c).
 */
#include "http/private.h"

#define CHECK_MS 20
#define PARK_MS  50
/* How many parked connections are resumed at once to be ended. If its buffer is full, libmicrohttpd
 * ends such a connection only by its own time-out, of a second, and is busy with it until then. */
#define DOOMED_MAX 64

static void park(struct conn *c)
{
	struct http *http = c->http;

	c->parked = true;
	MHD_suspend_connection(c->mhd);
	TAILQ_INSERT_TAIL(&http->parked, c, wait_entry);
	if (!event_pending(http->park_timer, EV_TIMEOUT, NULL))
		timer_arm(http->park_timer, PARK_MS);
}

static void resume(struct conn *c)
{
	struct http *http = c->http;

	c->parked = false;
	TAILQ_REMOVE(&http->parked, c, wait_entry);
	if (c->phase == PHASE_ENDING) {
		c->doomed = true;
		http->doomed++;
		http_conn_hurry(c);
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

static void check(struct conn *c)
{
	bool progressed = c->last_pieces != c->rq.pieces + 1;
	int unread = http_conn_unread(c), before = c->last_unread;

	if (unread < 0)
		unread = 0;
	c->last_unread = unread;
	c->last_pieces = c->rq.pieces + 1;
	if (progressed)
		return;
	/* libmicrohttpd has run since the last check. It would have read what had come by then. */
	if (before && unread >= before)
		refuse(c);
	else if (!unread && http_conn_at_eof(c))
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
			check(c);
	}
}

/* True if libmicrohttpd is to have the parked connection again: bytes have come, or it has to end.
 */
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
		next = TAILQ_NEXT(c, wait_entry);
		if (is_due(c))
			resume(c);
	}
	if (!TAILQ_EMPTY(&http->parked))
		timer_arm(http->park_timer, PARK_MS);
}

void http_parked_closed(struct conn *c)
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
