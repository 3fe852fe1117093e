/*
 * What the files of GET /v1/events share; nobody else includes this. event_stream.c is what one
 * stream sends; events.c is all of them, and uses it.
 */
#ifndef BREAKERD_API_EVENTS_PRIVATE_H
#define BREAKERD_API_EVENTS_PRIVATE_H

#include "api/event_ring.h"
#include "api/private.h"
#include "base/later.h"

/* The beginnings of all streams together have so many parts in a turn of the loop. */
#define TURN_PARTS 16

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
	struct event_ring ring;
	uint64_t listed; /* the last listing that is over */
	TAILQ_HEAD(stream_list, stream) streams;
	unsigned count;
	unsigned parts; /* of beginnings, in this turn */
	struct later *flush;
	struct event *tick; /* while a stream has something to take */
	struct event *comment;
	struct event *patience;
};

/* NULL when out of memory. */
struct stream *stream_new(struct events *e);

/* What http_reply_stream reads: `arg` is a struct stream. */
ssize_t stream_read(void *arg, char *buf, size_t max);

/* Sets where the stream begins; last_id: the header Last-Event-ID, or NULL. */
void stream_place(struct stream *s, const char *last_id);

/* The beginning may come: the circuits that are active now. */
void stream_begin(struct stream *s);

/* The circuit leaves its place in the list of those that are active. */
void stream_moves_on(struct stream *s, const struct watched *c);

/* Disconnects the client: it is too far behind. */
void stream_cut(struct stream *s);

/* Its client has more to take than it may leave for long. */
bool stream_is_behind(const struct stream *s);

/* Cuts it if its client has taken nothing for too long. */
void stream_check_progress(struct stream *s, int64_t now_ms);

/* Its connection has ended, or never came to be. */
void stream_free(struct stream *s);

#endif
