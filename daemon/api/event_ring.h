/*
 * The last EVENTS changes, each as the server-sent event that tells it: encoded once, whoever it is
 * sent to. Events are numbered without gaps; an id names one of this process.
 */
#ifndef BREAKERD_API_EVENT_RING_H
#define BREAKERD_API_EVENT_RING_H

#include "api/watch.h"

#define EVENTS 1024

struct evbuffer;

struct event_text {
	uint64_t number;
	uint64_t begins; /* bytes of all events before it */
	enum circuit_state before, after;
	const char *key; /* behind text */
	size_t key_len;
	size_t len;
	char text[];
};

struct event_ring {
	struct event_text *events[EVENTS];
	uint64_t next;  /* the number of the next event; the first is 1 */
	uint64_t bytes; /* of all events */
	uint64_t boot;  /* in all ids: events of another process are not known here */
};

void event_ring_init(struct event_ring *r, uint64_t boot);
void event_ring_fini(struct event_ring *r);

/* NULL: it is not there any more, or not yet. */
const struct event_text *event_ring_get(const struct event_ring *r, uint64_t number);

/*
 * Adds the change of a circuit; `before`: its state before. The event EVENTS before the new one is
 * gone: returns its number, or 0 if there was none; or UINT64_MAX when out of memory, with nothing
 * added.
 */
uint64_t event_ring_add(struct event_ring *r, const struct watched *c, enum circuit_state before,
			enum store_by by);

/* The number of the event behind the one with this id; 0: it is not known here. */
uint64_t event_ring_behind(const struct event_ring *r, const char *id);

/* Writes the line with the id of an event. -1 when out of memory, as the next. */
int event_write_id(const struct event_ring *r, struct evbuffer *out, uint64_t number);

/* Writes the data of an event, what a listing has of the circuit and who did it, and the empty line
 * that ends it. */
int event_write_data(struct evbuffer *out, const struct watched *c, enum store_by by);

#endif
