/*
 * What the files of GET /v1/events share; nobody else includes this. event_stream.c is what one
 * stream sends. events.c, which uses it, manages all streams.
 */
#ifndef BREAKERD_API_EVENTS_PRIVATE_H
#define BREAKERD_API_EVENTS_PRIVATE_H

#include "api/event_ring.h"
#include "api/private.h"
#include "base/later.h"

/* How many parts of beginnings are sent in a turn of the loop, to all streams together. */
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
	uint64_t listing; /* the number of the listing that it waits for */
	/* STREAM_BEGINS: the next circuit, NULL at the end; and the newest serial (watch.h) that
	 * belongs to the beginning. */
	const struct watched *next;
	uint64_t begins_at;
	bool may_begin;       /* it has a part of its beginning in this turn */
	bool wants_begin;     /* it waits for a turn in which it gets a part */
	uint64_t number;      /* of the event that is being sent, or that is next */
	uint64_t ready_at;    /* the number of the event before which `ready` is sent */
	struct evbuffer *out; /* to be sent before events: reset, an item of the beginning, ready,
				 comments */
	size_t offset;        /* bytes of the event that are sent */
	uint64_t sent;        /* bytes in all */
	/* stream_check_progress: `sent` and http_stream_progress at the last check, and when they
	 * last changed (monotonic). */
	uint64_t last_sent, progress;
	int64_t progress_ms;
	bool cut;
};

struct events {
	struct api *api;
	struct watch watch;
	struct event_ring ring;
	uint64_t listed; /* the number of the last listing that is over */
	TAILQ_HEAD(stream_list, stream) streams;
	unsigned count;
	unsigned parts; /* of beginnings, given in this turn */
	struct later *flush;
	struct event *tick; /* runs while a stream has something to take */
	struct event *comment;
	struct event *live_timer; /* ends the wait for the store to tell of changes */
};

/* NULL when out of memory. */
struct stream *stream_new(struct events *e);

/* An http_stream_read_fn; `arg` is the struct stream. */
ssize_t stream_read(void *arg, char *buf, size_t max);

/* Decides where the stream starts. last_id is the header Last-Event-ID, or NULL. */
void stream_set_start(struct stream *s, const char *last_id);

/* Starts the beginning: the circuits that are active now. */
void stream_begin(struct stream *s);

/* The circuit is about to leave its place in the list of active circuits. */
void stream_moves_on(struct stream *s, const struct watched *c);

/* Disconnects the client, which is too far behind. */
void stream_cut(struct stream *s);

/* True if the client has to take something soon: much waits for it, or it is in its beginning. */
bool stream_is_behind(const struct stream *s);

/* Cuts the stream if its client has taken nothing for too long. */
void stream_check_progress(struct stream *s, int64_t now_ms);

/* To be called when the connection has ended, or the stream was never started. */
void stream_free(struct stream *s);

#endif
