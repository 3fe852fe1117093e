/*
 * GET /v1/events: changes as server-sent events (WHATWG HTML, section 9.2).
 *
 * Each change is encoded once, into a ring of the last EVENTS; a stream is a place in the ring, and
 * takes what comes behind it as its connection takes bytes. Before that it sends the beginning: a
 * place in watch.c's list of active circuits, of which each item is encoded when it is sent.
 * Nothing is left out: a stream that is too far behind is disconnected.
 */
#include "api/private.h"
#include "api/watch.h"
#include "base/clock.h"
#include "base/later.h"
#include "base/siphash.h"
#include "base/timer.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS     1024
#define BEHIND_MAX 65536 /* bytes that wait for a client that takes none */
/* A client that takes none for so long is cut when BEHIND_MAX wait, or amid its beginning. */
#define STUCK_MS   3000
#define TICK_MS    500
#define COMMENT_MS 15000
/* The beginnings of all streams: so many circuits are looked at for one of them at a time, and in
 * so many parts in a turn of the loop. */
#define PART_LOOKS 64
#define TURN_PARTS 16
/* A listing waits with more news while a stream has so many events to take. */
#define NEWS_BEHIND 256
/* The beginning waits so long for the store to tell of changes: Redis may forbid SUBSCRIBE. */
#define PATIENCE_MS  1000
#define EVENT_STREAM "text/event-stream"

struct event_text {
	uint64_t number;
	uint64_t begins; /* bytes of all events before it */
	enum circuit_state before, after;
	const char *key; /* behind text */
	size_t key_len;
	size_t len;
	char text[];
};

enum stream_phase {
	STREAM_WAITS,   /* for a listing of the store */
	STREAM_BEGINS,  /* sends the beginning */
	STREAM_RESUMES, /* sends what was missed */
	STREAM_LIVE,
};

struct stream {
	TAILQ_ENTRY(stream) entry;
	struct events *events;
	struct http_stream *http;
	struct store_query query; /* its state and prefix */
	enum stream_phase phase;
	uint64_t listing; /* the one that it waits for */
	/* Amid the beginning: the circuit that is next, NULL at the end; and the last change of
	 * those that belong to it. */
	const struct watched *next;
	uint64_t begins_at;
	bool may_begin, wants_begin; /* a part of it: in this turn, and in one to come */
	uint64_t number;             /* of the event that is being sent, or is looked at next */
	uint64_t ready_at;           /* `ready` comes before this one */
	struct evbuffer *out; /* what goes before events: reset, an item of the beginning, ready,
				 comments */
	size_t offset;        /* sent of the event */
	uint64_t sent;        /* bytes */
	/* At the last look: `sent`, how far the client has got, since when (monotonic). */
	uint64_t sent_then, progress;
	int64_t progress_ms;
	bool cut;
};

struct events {
	struct api *api;
	struct watch watch;
	struct event_text *ring[EVENTS];
	uint64_t next;  /* the number of the next event; the first is 1 */
	uint64_t bytes; /* of all events */
	uint64_t boot;
	uint64_t listed; /* the last listing that is over */
	TAILQ_HEAD(stream_list, stream) streams;
	unsigned count;
	unsigned parts; /* of beginnings, in this turn */
	struct later *flush;
	struct event *tick; /* while a stream has something to take */
	struct event *comment;
	struct event *patience;
};

/* --- the ring ------------------------------------------------------------------------------ */

static struct event_text *ring_get(const struct events *e, uint64_t number)
{
	struct event_text *text = e->ring[number % EVENTS];

	return text && text->number == number ? text : NULL;
}

/* data: {item,"by":...} and the empty line. */
static int add_data(struct evbuffer *out, const struct watched *c, const char *by)
{
	if (evbuffer_add_printf(out, "data: {") < 0 ||
	    api_add_item(out, keynode_key(&c->node), c->node.key_len, &c->circuit, c->override) !=
		    0)
		return -1;
	return evbuffer_add_printf(out, ",\"by\":\"%s\"}\n\n", by) < 0 ? -1 : 0;
}

static struct event_text *text_new(struct events *e, const struct watched *c, const char *by)
{
	struct evbuffer *out = evbuffer_new();
	struct event_text *text = NULL;
	size_t len;

	if (out &&
	    evbuffer_add_printf(out, "event: circuit\nid: %016" PRIx64 "-%" PRIu64 "\n", e->boot,
				e->next) > 0 &&
	    add_data(out, c, by) == 0) {
		len = evbuffer_get_length(out);
		text = malloc(sizeof(*text) + len + c->node.key_len);
	}
	if (text) {
		text->len = len;
		evbuffer_remove(out, text->text, len);
		memcpy(text->text + len, keynode_key(&c->node), c->node.key_len);
		text->key = text->text + len;
		text->key_len = c->node.key_len;
	}
	if (out)
		evbuffer_free(out);
	return text;
}

static void stream_cut(struct stream *s)
{
	if (s->cut)
		return;
	s->cut = true;
	s->events->api->metrics->events_lost++;
	s->number = UINT64_MAX;
	http_stream_cut(s->http);
}

/* The event in this place goes: who still needs it has lost. */
static void ring_drop(struct events *e, uint64_t number)
{
	struct event_text *old = e->ring[number % EVENTS];
	struct stream *s;

	if (!old)
		return;
	TAILQ_FOREACH (s, &e->streams, entry)
		if (s->number <= old->number)
			stream_cut(s);
	free(old);
	e->ring[number % EVENTS] = NULL;
}

static void on_changed(void *arg, const struct watched *c, enum circuit_state before,
		       enum store_by by)
{
	struct events *e = arg;
	struct event_text *text = text_new(e, c, watch_by_name(by));
	struct stream *s;

	if (!text) {
		/* Nothing is left out silently. */
		TAILQ_FOREACH (s, &e->streams, entry) {
			stream_cut(s);
		}
		return;
	}
	ring_drop(e, e->next);
	text->number = e->next;
	text->begins = e->bytes;
	text->before = before;
	text->after = c->circuit.state;
	e->ring[e->next % EVENTS] = text;
	e->next++;
	e->bytes += text->len;
	if (e->count > 0)
		later_run(e->flush);
}

static void on_override_over(void *arg, const struct watched *c)
{
	struct api *api = ((struct events *)arg)->api;

	if (log_allows(api->log, &api->changes, LOG_LEVEL_INFO, "override_over"))
		log_info(api->log, "override_over", "key=%s mode=%s",
			 log_quote(keynode_key(&c->node), c->node.key_len).text,
			 breaker_override_name(c->override->mode));
}

/* --- what a stream sends ------------------------------------------------------------------- */

static bool fits(const struct stream *s, const struct event_text *t)
{
	return (!s->query.has_state || t->after == s->query.state || t->before == s->query.state) &&
	       t->key_len >= s->query.prefix_len &&
	       memcmp(t->key, s->query.prefix, s->query.prefix_len) == 0;
}

static void add_ready(struct stream *s)
{
	evbuffer_add_printf(s->out, "event: ready\nid: %016" PRIx64 "-%" PRIu64 "\ndata: {}\n\n",
			    s->events->boot, s->ready_at - 1);
	s->phase = STREAM_LIVE;
}

static bool is_in_beginning(const struct stream *s, const struct watched *c)
{
	return store_query_matches(&s->query, keynode_key(&c->node), c->node.key_len,
				   c->circuit.state);
}

/* What has changed since the beginning is an event. */
static const struct watched *in_beginning(const struct stream *s, const struct watched *c)
{
	return c && c->serial <= s->begins_at ? c : NULL;
}

/* The circuit leaves its place in the list of those that are active. */
static void on_moves(void *arg, const struct watched *c)
{
	struct events *e = arg;
	struct stream *s;

	TAILQ_FOREACH (s, &e->streams, entry)
		if (s->next == c)
			s->next = in_beginning(s, TAILQ_NEXT(c, entry));
}

/*
 * Puts the next item of the beginning into `out`. Bounded in two ways: a stream is given one part
 * of PART_LOOKS circuits, or what its connection takes at once, and all streams TURN_PARTS in a
 * turn. False if it has to wait for another turn.
 */
static bool begin_next(struct stream *s, unsigned *looks)
{
	struct events *e = s->events;

	if (*looks == 0 && (!s->may_begin || e->parts >= TURN_PARTS)) {
		s->wants_begin = true;
		later_run(e->flush);
		return false;
	}
	if (*looks == 0) {
		s->may_begin = false;
		e->parts++;
		later_run(e->flush);
	}
	while (s->next) {
		const struct watched *c = s->next;

		if ((*looks)++ >= PART_LOOKS) {
			s->wants_begin = true;
			later_run(e->flush);
			return false;
		}
		s->next = in_beginning(s, TAILQ_NEXT(c, entry));
		if (!is_in_beginning(s, c))
			continue;
		if (evbuffer_add_printf(s->out, "event: circuit\n") < 0 ||
		    add_data(s->out, c, watch_by_name(STORE_BY_ELSEWHERE)) != 0)
			stream_cut(s);
		return true;
	}
	return true;
}

/* The event to send (on), or NULL. */
static const struct event_text *stream_event(struct stream *s)
{
	const struct event_text *t;

	if (s->phase < STREAM_RESUMES)
		return NULL;
	while ((t = ring_get(s->events, s->number)) != NULL && s->offset == 0 && !fits(s, t)) {
		s->number++;
		if (s->phase == STREAM_RESUMES && s->number == s->ready_at)
			return NULL;
	}
	return t;
}

static ssize_t on_read(void *arg, char *buf, size_t max)
{
	struct stream *s = arg;
	size_t len = 0;
	unsigned looks = 0;

	while (len < max && !s->cut) {
		const struct event_text *t;
		size_t n;

		if (s->offset == 0 && evbuffer_get_length(s->out) > 0) {
			len += (size_t)evbuffer_remove(s->out, buf + len, max - len);
			continue;
		}
		if (s->phase == STREAM_BEGINS && s->next) {
			if (!begin_next(s, &looks))
				break;
			continue;
		}
		if (s->offset == 0 && (s->phase == STREAM_BEGINS || s->phase == STREAM_RESUMES) &&
		    s->number >= s->ready_at) {
			add_ready(s);
			continue;
		}
		t = stream_event(s);
		if (!t && s->phase == STREAM_RESUMES && s->number >= s->ready_at)
			continue;
		if (!t)
			break;
		n = t->len - s->offset < max - len ? t->len - s->offset : max - len;
		memcpy(buf + len, t->text + s->offset, n);
		len += n;
		s->offset += n;
		if (s->offset == t->len) {
			s->offset = 0;
			s->number++;
			s->events->api->metrics->events_sent++;
		}
	}
	s->sent += len;
	return (ssize_t)len;
}

/* Some streams go on with their beginning, those that have waited the longest first. */
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

/* Wakes the streams for which there is something. */
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

/* Its client has more to take than it may leave for long. */
static bool stream_is_behind(const struct stream *s)
{
	const struct event_text *t = ring_get(s->events, s->number);

	if (s->phase == STREAM_WAITS || s->cut)
		return false;
	return s->phase == STREAM_BEGINS || (t && s->events->bytes - t->begins > BEHIND_MAX);
}

static void check_progress(struct stream *s, int64_t now)
{
	uint64_t progress = http_stream_progress(s->http);

	if (s->sent != s->sent_then || progress != s->progress || s->wants_begin || !s->progress_ms)
		s->progress_ms = now;
	s->sent_then = s->sent;
	s->progress = progress;
	if (now - s->progress_ms >= STUCK_MS)
		stream_cut(s);
}

/* Cuts the streams whose clients have taken nothing for STUCK_MS. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct events *e = arg;
	struct stream *s;
	bool behind = false;

	(void)fd;
	(void)what;
	TAILQ_FOREACH (s, &e->streams, entry) {
		if (stream_is_behind(s)) {
			check_progress(s, clock_ms());
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
		if (s->phase != STREAM_WAITS && !s->cut && s->number + NEWS_BEHIND < e->next)
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

static void stream_begin(struct stream *s)
{
	struct events *e = s->events;

	s->begins_at = e->watch.serial;
	s->next = TAILQ_FIRST(&e->watch.active);
	s->phase = STREAM_BEGINS;
	s->number = s->ready_at = e->next;
	s->wants_begin = true;
	later_run(e->flush);
}

static void begin_all(struct events *e)
{
	struct stream *s;

	event_del(e->patience);
	TAILQ_FOREACH (s, &e->streams, entry)
		if (s->phase == STREAM_WAITS && s->listing <= e->listed)
			stream_begin(s);
}

static void on_patience(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	begin_all(arg);
}

/* What changes from now on is told, or will not be for a while. */
static void on_listed(void *arg, uint64_t number)
{
	struct events *e = arg;
	struct store_health health;

	e->listed = number;
	store_health(e->api->store, &health);
	if (e->watch.live || health.condition != STORE_READY)
		begin_all(e);
	else if (!event_pending(e->patience, EV_TIMEOUT, NULL))
		timer_arm(e->patience, PATIENCE_MS);
}

/* The number of the event behind Last-Event-ID; 0: it is not known here. */
static uint64_t read_last_id(const struct events *e, const char *id)
{
	uint64_t boot, number;
	int end = 0;

	if (strlen(id) > 64 ||
	    sscanf(id, "%16" SCNx64 "-%20" SCNu64 "%n", &boot, &number, &end) != 2 || id[end] ||
	    boot != e->boot)
		return 0;
	number++;
	/* Either it is the next, or the ring has it. */
	return number == e->next || (number < e->next && ring_get(e, number)) ? number : 0;
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
	evbuffer_free(s->out);
	free(s);
}

static struct stream *stream_new(struct events *e)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (s)
		s->out = evbuffer_new();
	if (s && s->out) {
		s->events = e;
		return s;
	}
	free(s);
	return NULL;
}

/* Sets where the stream begins. */
static void stream_place(struct stream *s, const char *last_id)
{
	struct events *e = s->events;

	s->number = last_id ? read_last_id(e, last_id) : 0;
	s->ready_at = e->next;
	if (s->number) {
		s->phase = STREAM_RESUMES;
		return;
	}
	if (last_id)
		evbuffer_add_printf(s->out, "event: reset\ndata: {}\n\n");
	/* No place yet: what is told before the beginning is in it. */
	s->number = UINT64_MAX;
	s->phase = STREAM_WAITS;
	s->listing = watch_list(&e->watch);
}

static const char *read_parameter(void *arg, unsigned which, const char *value, size_t len)
{
	struct store_query *query = arg;

	return which == 0 ? api_read_state(query, value, len) : api_read_prefix(query, value, len);
}

static void start_stream(struct events *e, struct http_request *rq, enum api_route route,
			 struct stream *s)
{
	static const struct http_header headers[] = {
		{"Cache-Control", "no-store"},
		{"X-Accel-Buffering", "no"}, /* nginx passes it on at once */
	};
	const struct http_reply reply = {
		.status = 200,
		.content_type = EVENT_STREAM,
		.headers = headers,
		.header_count = 2,
		.route = (int)route,
	};
	struct timeval each = timer_interval(COMMENT_MS);

	stream_place(s, http_request_header(rq, HTTP_FIELD_LAST_EVENT_ID, NULL));
	s->http = http_reply_stream(rq, &reply, on_read, on_gone, s);
	if (!s->http) {
		evbuffer_free(s->out);
		free(s);
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
		api_reply(rq, to->route, EVENT_STREAM, "", 0);
	} else {
		start_stream(e, rq, to->route, s);
		return;
	}
	evbuffer_free(s->out);
	free(s);
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
	e->boot = seed.k0;
	e->next = 1;
	TAILQ_INIT(&e->streams);
	e->flush = later_new(base, on_flush, e);
	e->comment = event_new(base, -1, EV_PERSIST, on_comment, e);
	e->patience = evtimer_new(base, on_patience, e);
	e->tick = evtimer_new(base, on_tick, e);
	e->watch.changed = on_changed;
	e->watch.moves = on_moves;
	e->watch.busy = on_busy;
	e->watch.listed = on_listed;
	e->watch.override_over = on_override_over;
	e->watch.arg = e;
	if (!e->flush || !e->comment || !e->patience || !e->tick)
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
	if (e->patience)
		event_free(e->patience);
	if (e->tick)
		event_free(e->tick);
	for (unsigned i = 0; i < EVENTS; i++)
		free(e->ring[i]);
	free(e);
}
