/*
 * The last EVENT_RING_SIZE changes as server-sent events. Each is encoded once for all streams.
 * Events are numbered without gaps. An event's id has its number and that of the process.
 */
#ifndef BREAKERD_API_EVENT_RING_H
#define BREAKERD_API_EVENT_RING_H

#include "api/watch.h"

#define EVENT_RING_SIZE 1024

struct evbuffer;

struct event_text {
	uint64_t number;
	uint64_t begins; /* bytes of all events before it */
	enum circuit_state before, after;
	const char *key; /* stored after the text */
	size_t key_len;
	size_t len;
	char text[];
};

struct event_ring {
	struct event_text *events[EVENT_RING_SIZE];
	uint64_t next;  /* the number of the next event; the first is 1 */
	uint64_t bytes; /* of all events */
	uint64_t boot;  /* in all ids, to tell events of another process */
};

void event_ring_init(struct event_ring *r, uint64_t boot);
void event_ring_fini(struct event_ring *r);

/* The event of that number; NULL: it is not there any more, or not yet. */
const struct event_text *event_ring_get(const struct event_ring *r, uint64_t number);

/*
 * Adds the change of a circuit, whose state was `before`. Returns the number of the event that it
 * replaces, 0 if it replaces none; or UINT64_MAX when out of memory, and then nothing is added.
 */
uint64_t event_ring_add(struct event_ring *r, const struct watched *c, enum circuit_state before,
			enum store_by by);

/* The number of the event that follows the one with this id; 0: the id is not known here. */
uint64_t event_ring_after(const struct event_ring *r, const char *id);

/* Writes the line with an event's id. 0, or -1 when out of memory. */
int event_write_id(const struct event_ring *r, struct evbuffer *out, uint64_t number);

/* Writes an event's data, a listing's item and who did it, and the empty line that ends the event.
 * 0, or -1 when out of memory. */
int event_write_data(struct evbuffer *out, const struct watched *c, enum store_by by);

#endif
