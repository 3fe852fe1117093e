/*
 * GET /v1/events: changes as server-sent events (WHATWG HTML, section 9.2). This file starts, wakes
 * and ends the streams; event_stream.c is what one stream sends, event_ring.h the events. No event
 * is left out silently: a stream that is too far behind is disconnected.
 */
#include "api/events_private.h"
#include "base/clock.h"
#include "base/siphash.h"
#include "base/timer.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <stdlib.h>

#define TICK_MS    500
#define COMMENT_MS 15000
/* A listing pauses while some stream has more than this many events to take. */
#define NEWS_BEHIND 256
/* How long beginnings wait for the store to tell of changes. It may never do, as Redis may forbid
 * SUBSCRIBE. */
#define LIVE_WAIT_MS 1000

static void on_changed(void *arg, const struct watched *c, enum circuit_state before,
		       enum store_by by)
{
	struct events *e = arg;
	uint64_t gone = event_ring_add(&e->ring, c, before, by);
	struct stream *s;

	/* Streams that have not sent the event that was replaced are cut. Without memory for the
	 * new event, all of them. */
	TAILQ_FOREACH (s, &e->streams, entry)
		if (gone && s->number <= gone)
			stream_cut(s);
	if (gone != UINT64_MAX && e->count > 0)
		later_run(e->flush);
}

/* The circuit is about to leave its place in the list of active circuits. */
static void on_moves(void *arg, const struct watched *c)
{
	struct events *e = arg;
	struct stream *s;

	TAILQ_FOREACH (s, &e->streams, entry) {
		stream_moves_on(s, c);
	}
}

static void on_override_over(void *arg, const struct watched *c)
{
	struct api *api = ((struct events *)arg)->api;

	if (log_allows(api->log, &api->changes, LOG_LEVEL_INFO, "override_over"))
		log_info(api->log, "override_over", "key=%s mode=%s",
			 log_quote(keynode_key(&c->node), c->node.key_len).text,
			 breaker_override_name(c->override->mode));
}

/* Gives parts of beginnings to the streams that have waited for one the longest. */
static void begin_parts(struct events *e)
{
	unsigned given = 0, count = e->count;
	struct stream *s, *next;

	e->parts = 0;
	for (s = TAILQ_FIRST(&e->streams); s && count-- > 0; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (!s->wants_begin)
			continue;
		if (given++ >= TURN_PARTS) {
			later_run(e->flush);
			return;
		}
		s->wants_begin = false;
		s->may_begin = true;
		TAILQ_REMOVE(&e->streams, s, entry);
		TAILQ_INSERT_TAIL(&e->streams, s, entry);
		http_stream_wake(s->http);
	}
}

/* Wakes all streams, but those that wait for a part of their beginning. */
static void on_flush(void *arg)
{
	struct events *e = arg;
	struct stream *s;

	begin_parts(e);
	TAILQ_FOREACH (s, &e->streams, entry)
		if (!s->wants_begin)
			http_stream_wake(s->http);
	if (e->count > 0 && !event_pending(e->tick, EV_TIMEOUT, NULL))
		timer_arm(e->tick, TICK_MS);
}

/* Cuts the streams whose clients have taken nothing for too long. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct events *e = arg;
	struct stream *s;
	bool behind = false;

	(void)fd;
	(void)what;
	TAILQ_FOREACH (s, &e->streams, entry) {
		if (stream_is_behind(s)) {
			stream_check_progress(s, clock_ms());
			behind = true;
		} else {
			s->progress_ms = 0;
		}
	}
	if (behind)
		timer_arm(e->tick, TICK_MS);
}

static bool on_busy(void *arg)
{
	struct events *e = arg;
	struct stream *s;

	TAILQ_FOREACH (s, &e->streams, entry)
		if (s->phase != STREAM_WAITS && !s->cut && s->number + NEWS_BEHIND < e->ring.next)
			return true;
	return false;
}

static void on_comment(evutil_socket_t fd, short what, void *arg)
{
	struct events *e = arg;
	struct stream *s;

	(void)fd;
	(void)what;
	TAILQ_FOREACH (s, &e->streams, entry) {
		if (evbuffer_get_length(s->out) == 0)
			evbuffer_add(s->out, ":\n\n", 3);
		http_stream_wake(s->http);
	}
}

/* --- the beginning ------------------------------------------------------------------------- */

static void begin_all(struct events *e)
{
	struct stream *s;

	event_del(e->live_timer);
	TAILQ_FOREACH (s, &e->streams, entry)
		if (s->phase == STREAM_WAITS && s->listing <= e->listed)
			stream_begin(s);
}

static void on_live_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	begin_all(arg);
}

/* A listing is over. Streams begin if changes will be told from now on, or if the store is away, so
 * that none will be for a while. */
static void on_listed(void *arg, uint64_t number)
{
	struct events *e = arg;
	struct store_health health;

	e->listed = number;
	store_health(e->api->store, &health);
	if (e->watch.live || health.condition != STORE_READY)
		begin_all(e);
	else if (!event_pending(e->live_timer, EV_TIMEOUT, NULL))
		timer_arm(e->live_timer, LIVE_WAIT_MS);
}

static void on_gone(void *arg)
{
	struct stream *s = arg;
	struct events *e = s->events;

	TAILQ_REMOVE(&e->streams, s, entry);
	e->api->metrics->event_streams = --e->count;
	if (e->count == 0) {
		event_del(e->comment);
		event_del(e->tick);
	}
	stream_free(s);
}

static const char *read_parameter(void *arg, unsigned which, const char *value, size_t len)
{
	struct store_query *query = arg;

	return which == 0 ? api_read_state(query, value, len) : api_read_prefix(query, value, len);
}

/* The head of the answer, and all of it to HEAD. */
static const struct http_header headers[] = {
	{"Cache-Control", "no-store"},
	{"X-Accel-Buffering", "no"}, /* nginx is to pass events on at once */
};
static const struct http_reply head = {
	.status = 200,
	.content_type = "text/event-stream",
	.body = "",
	.headers = headers,
	.header_count = 2,
	.route = ROUTE_EVENTS,
};

static void start_stream(struct events *e, struct http_request *rq, struct stream *s)
{
	struct timeval each = timer_interval(COMMENT_MS);

	stream_set_start(s, http_request_header(rq, HTTP_FIELD_LAST_EVENT_ID, NULL));
	s->http = http_reply_stream(rq, &head, stream_read, on_gone, s);
	if (!s->http) {
		stream_free(s);
		return;
	}
	TAILQ_INSERT_TAIL(&e->streams, s, entry);
	e->api->metrics->event_streams = ++e->count;
	if (e->count == 1)
		event_add(e->comment, &each);
}

void api_events(struct api *api, struct http_request *rq, const struct target *to)
{
	static const char *const names[] = {"state", "prefix"};
	static const struct api_query query = {names, 2, "the events take state and prefix",
					       read_parameter};
	struct events *e = api->events;
	struct stream *s;
	char why[160];

	if (e->count >= api->max_streams) {
		api_refuse(rq, to->route, PROBLEM_OVERLOADED,
			   "Too many streams of events (max_streams). Try again in a second.");
		return;
	}
	s = stream_new(e);
	if (!s) {
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
		return;
	}
	if (!api_read_query(&query, http_request_query(rq), &s->query, why, sizeof(why))) {
		api_refuse(rq, to->route, PROBLEM_INVALID_QUERY, why);
	} else if (http_request_method(rq) == HTTP_HEAD) {
		http_reply(rq, &head);
	} else {
		start_stream(e, rq, s);
		return;
	}
	stream_free(s);
}

/* --- the whole ----------------------------------------------------------------------------- */

int api_events_init(struct api *api, struct event_base *base, size_t max_circuits)
{
	struct events *e = calloc(1, sizeof(*e));
	struct siphash_key seed;

	if (!e)
		return -1;
	api->events = e;
	api->watch = &e->watch;
	siphash_key_init(&seed);
	e->api = api;
	event_ring_init(&e->ring, seed.k0);
	TAILQ_INIT(&e->streams);
	e->flush = later_new(base, on_flush, e);
	e->comment = event_new(base, -1, EV_PERSIST, on_comment, e);
	e->live_timer = evtimer_new(base, on_live_timer, e);
	e->tick = evtimer_new(base, on_tick, e);
	e->watch.changed = on_changed;
	e->watch.moves = on_moves;
	e->watch.busy = on_busy;
	e->watch.listed = on_listed;
	e->watch.override_over = on_override_over;
	e->watch.arg = e;
	if (!e->flush || !e->comment || !e->live_timer || !e->tick)
		return -1;
	return watch_init(&e->watch, base, api->store, max_circuits, api->metrics);
}

void api_events_free(struct api *api)
{
	struct events *e = api->events;

	if (!e)
		return;
	watch_fini(&e->watch);
	later_free(e->flush);
	if (e->comment)
		event_free(e->comment);
	if (e->live_timer)
		event_free(e->live_timer);
	if (e->tick)
		event_free(e->tick);
	event_ring_fini(&e->ring);
	free(e);
}
