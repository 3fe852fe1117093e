/*
 * What a stream sends. It is a place in the ring of events, and takes what comes behind it as its
 * connection takes bytes. Before that it sends the beginning: a place in the list of active
 * circuits (watch.h), of which each item is encoded when it is sent.
 */
#include "api/events_private.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

#define BEHIND_MAX 65536 /* bytes that wait for a client that takes none */
/* A client that takes none for so long is cut when BEHIND_MAX wait, or amid its beginning. */
#define STUCK_MS 3000
/* So many circuits are looked at for a beginning at a time. */
#define PART_LOOKS 64

struct stream *stream_new(struct events *e)
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

void stream_free(struct stream *s)
{
	evbuffer_free(s->out);
	free(s);
}

void stream_cut(struct stream *s)
{
	if (s->cut)
		return;
	s->cut = true;
	s->events->api->metrics->events_lost++;
	s->number = UINT64_MAX;
	http_stream_cut(s->http);
}

void stream_place(struct stream *s, const char *last_id)
{
	struct events *e = s->events;

	s->number = last_id ? event_ring_behind(&e->ring, last_id) : 0;
	s->ready_at = e->ring.next;
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

void stream_begin(struct stream *s)
{
	struct events *e = s->events;

	s->begins_at = e->watch.serial;
	s->next = TAILQ_FIRST(&e->watch.active);
	s->phase = STREAM_BEGINS;
	s->number = s->ready_at = e->ring.next;
	s->wants_begin = true;
	later_run(e->flush);
}

static bool fits(const struct stream *s, const struct event_text *t)
{
	return (!s->query.has_state || t->after == s->query.state || t->before == s->query.state) &&
	       t->key_len >= s->query.prefix_len &&
	       memcmp(t->key, s->query.prefix, s->query.prefix_len) == 0;
}

static void add_ready(struct stream *s)
{
	evbuffer_add_printf(s->out, "event: ready\n");
	event_write_id(&s->events->ring, s->out, s->ready_at - 1);
	evbuffer_add_printf(s->out, "data: {}\n\n");
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

void stream_moves_on(struct stream *s, const struct watched *c)
{
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
		    event_write_data(s->out, c, STORE_BY_ELSEWHERE) != 0)
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
	while ((t = event_ring_get(&s->events->ring, s->number)) != NULL && s->offset == 0 &&
	       !fits(s, t)) {
		s->number++;
		if (s->phase == STREAM_RESUMES && s->number == s->ready_at)
			return NULL;
	}
	return t;
}

ssize_t stream_read(void *arg, char *buf, size_t max)
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

bool stream_is_behind(const struct stream *s)
{
	const struct event_text *t = event_ring_get(&s->events->ring, s->number);

	if (s->phase == STREAM_WAITS || s->cut)
		return false;
	return s->phase == STREAM_BEGINS || (t && s->events->ring.bytes - t->begins > BEHIND_MAX);
}

void stream_check_progress(struct stream *s, int64_t now_ms)
{
	uint64_t progress = http_stream_progress(s->http);

	if (s->sent != s->sent_then || progress != s->progress || s->wants_begin || !s->progress_ms)
		s->progress_ms = now_ms;
	s->sent_then = s->sent;
	s->progress = progress;
	if (now_ms - s->progress_ms >= STUCK_MS)
		stream_cut(s);
}
