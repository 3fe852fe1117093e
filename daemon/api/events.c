/*
 * GET /v1/events: changes as server-sent events (WHATWG HTML, section 9.2).
 *
 * Each change is encoded once, into a ring of the last EVENTS; a stream is a place in the ring, and
 * takes what comes behind it as its connection takes bytes. Before that it sends the beginning, one
 * block of text made for it. Nothing is left out: a stream that is too far behind is disconnected.
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

#define EVENTS       1024
#define BEHIND_MAX   65536 /* bytes that wait for a client that takes none */
#define BEHIND_LOOKS 3     /* so often in a row it must have taken none */
#define COMMENT_MS   15000
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
	uint64_t listing;         /* the one that it waits for */
	uint64_t number;          /* of the event that is being sent, or is looked at next */
	uint64_t ready_at;        /* `ready` comes before this one */
	struct evbuffer *out;     /* what goes before events: reset, beginning, ready, comments */
	size_t offset;            /* sent of the event */
	uint64_t sent, sent_then; /* bytes, now and at the last look */
	unsigned stuck;
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
	struct later *flush;
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
	s->events->api->metrics->events_lost++;
	s->stuck = 0;
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

	while (len < max) {
		const struct event_text *t;
		size_t n;

		if (s->offset == 0 && evbuffer_get_length(s->out) > 0) {
			len += (size_t)evbuffer_remove(s->out, buf + len, max - len);
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

/* Wakes the streams for which there is something; cuts those that take nothing. */
static void on_flush(void *arg)
{
	struct events *e = arg;
	struct stream *s;
	bool behind = false;

	TAILQ_FOREACH (s, &e->streams, entry) {
		const struct event_text *t = ring_get(e, s->number);

		http_stream_wake(s->http);
		if (!t || s->phase == STREAM_WAITS || e->bytes - t->begins <= BEHIND_MAX) {
			s->stuck = 0;
		} else if (s->sent != s->sent_then) {
			s->stuck = 0;
			behind = true;
		} else if (++s->stuck > BEHIND_LOOKS) {
			stream_cut(s);
		} else {
			behind = true;
		}
		s->sent_then = s->sent;
	}
	if (behind)
		later_run(e->flush);
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

static bool is_in_beginning(const struct stream *s, const struct watched *c)
{
	return store_query_matches(&s->query, keynode_key(&c->node), c->node.key_len,
				   c->circuit.state);
}

static void stream_begin(struct stream *s)
{
	struct events *e = s->events;
	const struct watched *c;
	int failed = 0;

	TAILQ_FOREACH (c, &e->watch.active, entry) {
		if (!is_in_beginning(s, c))
			continue;
		failed |= evbuffer_add_printf(s->out, "event: circuit\n") < 0;
		failed |= add_data(s->out, c, watch_by_name(STORE_BY_ELSEWHERE));
	}
	s->phase = STREAM_BEGINS;
	s->number = s->ready_at = e->next;
	if (failed)
		stream_cut(s);
	else
		http_stream_wake(s->http);
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
	if (e->count == 0)
		event_del(e->comment);
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
	s->number = e->next;
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

/* --- changes of one circuit ---------------------------------------------------------------- */

static int add_changes(struct evbuffer *out, const struct watched *c)
{
	int failed = evbuffer_add_printf(out, "{\"changes\":[") < 0;

	for (unsigned i = 0; c && i < c->change_count; i++) {
		const struct watch_change *change =
			&c->changes[(c->change_at + WATCH_CHANGES - 1 - i) % WATCH_CHANGES];

		failed |= evbuffer_add_printf(
				  out,
				  "%s{\"at\":%" PRId64
				  ",\"from\":\"%s\",\"to\":\"%s\",\"by\":\"%s\",\"why\":\"%s\"}",
				  i ? "," : "", change->at_ms, circuit_state_name(change->from),
				  circuit_state_name(change->to), watch_by_name(change->by),
				  change->why ? change->why : "") < 0;
	}
	return failed | (evbuffer_add_printf(out, "]}\n") < 0);
}

void api_changes(struct api *api, struct http_request *rq, const struct target *to)
{
	char key[KEY_MAX];
	size_t len;
	const char *wrong = key_decode(to->segment, to->segment_len, key, &len);
	struct evbuffer *out;

	if (wrong) {
		api_refuse(rq, to->route, PROBLEM_INVALID_KEY, wrong);
		return;
	}
	if (!api_takes_no_query(rq, to->route))
		return;
	out = evbuffer_new();
	if (!out || add_changes(out, watch_find(&api->events->watch, key, len)) != 0)
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
	else
		api_reply(rq, to->route, JSON, (const char *)evbuffer_pullup(out, -1),
			  evbuffer_get_length(out));
	if (out)
		evbuffer_free(out);
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
	e->watch.changed = on_changed;
	e->watch.listed = on_listed;
	e->watch.override_over = on_override_over;
	e->watch.arg = e;
	if (!e->flush || !e->comment || !e->patience)
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
	for (unsigned i = 0; i < EVENTS; i++)
		free(e->ring[i]);
	free(e);
}
