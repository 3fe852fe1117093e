/*
 * What a stream sends. First the beginning: it walks the list of active circuits (watch.h), and
 * encodes each item when that is sent. Then events: it has a place in the ring of events, and goes
 * on as its connection takes bytes.
 */
#include "api/events_private.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

/* A client is cut if it takes nothing for STUCK_MS while more than BEHIND_MAX bytes wait for it, or
 * amid its beginning. */
#define BEHIND_MAX 65536
#define STUCK_MS   3000
/* How many circuits a part of a beginning looks at. */
#define PART_CIRCUITS 64

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

void stream_set_start(struct stream *s, const char *last_id)
{
	struct events *e = s->events;

	s->number = last_id ? event_ring_after(&e->ring, last_id) : 0;
	s->ready_at = e->ring.next;
	if (s->number) {
		s->phase = STREAM_RESUMES;
		return;
	}
	if (last_id)
		evbuffer_add_printf(s->out, "event: reset\ndata: {}\n\n");
	/* No place in the ring yet: the beginning will contain the changes until then. */
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

static bool matches(const struct stream *s, const struct event_text *t)
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

/* The circuit, or NULL if it has changed since the beginning: then an event tells of it. The list
 * is sorted by serial, so NULL is the end of the beginning, too. */
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
 * Puts the next item of the beginning into `out`. False if that has to wait for another turn: a
 * stream gets one part a turn, of PART_CIRCUITS circuits at most, and all streams together get
 * TURN_PARTS. *checked counts the circuits of this part.
 */
static bool begin_next(struct stream *s, unsigned *checked)
{
	struct events *e = s->events;

	if (*checked == 0 && (!s->may_begin || e->parts >= TURN_PARTS)) {
		s->wants_begin = true;
		later_run(e->flush);
		return false;
	}
	if (*checked == 0) {
		s->may_begin = false;
		e->parts++;
		later_run(e->flush);
	}
	while (s->next) {
		const struct watched *c = s->next;

		if ((*checked)++ >= PART_CIRCUITS) {
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

/* The event to send, or to go on sending; NULL if there is none now. */
static const struct event_text *stream_event(struct stream *s)
{
	const struct event_text *t;

	if (s->phase < STREAM_RESUMES)
		return NULL;
	while ((t = event_ring_get(&s->events->ring, s->number)) != NULL && s->offset == 0 &&
	       !matches(s, t)) {
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
	unsigned checked = 0;

	while (len < max && !s->cut) {
		const struct event_text *t;
		size_t n;

		if (s->offset == 0 && evbuffer_get_length(s->out) > 0) {
			len += (size_t)evbuffer_remove(s->out, buf + len, max - len);
			continue;
		}
		if (s->phase == STREAM_BEGINS && s->next) {
			if (!begin_next(s, &checked))
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

	if (s->sent != s->last_sent || progress != s->progress || s->wants_begin || !s->progress_ms)
		s->progress_ms = now_ms;
	s->last_sent = s->sent;
	s->progress = progress;
	if (now_ms - s->progress_ms >= STUCK_MS)
		stream_cut(s);
}
