/*
 * Asks the sentinels where the master is, one after the other, and stays subscribed to one of
 * them for news of another master (Sentinel's manual: "Guidelines for Redis clients").
 */
#ifndef BREAKERD_REDIS_SENTINEL_H
#define BREAKERD_REDIS_SENTINEL_H

#include "redis/lookup.h"

struct event_base;
struct redis_sentinel;
struct redis_target;

/* All are called from the loop. */
struct redis_sentinel_events {
	/* The addresses of the master; or none could be found. */
	redis_lookup_fn *found;
	/* After found: another server is the master now. */
	void (*moved)(void *arg, const char *why);
	void *arg;
};

/* Does nothing yet. `target` must outlive it. NULL when out of memory. */
struct redis_sentinel *redis_sentinel_new(struct event_base *base,
					  const struct redis_target *target,
					  const struct redis_sentinel_events *events);

/*
 * Begins to ask: the sentinel that knew the master last time comes first, those that failed come
 * last. Each has patience_ms. `found` is called once; if with addresses, it watches from then on
 * until redis_sentinel_stop.
 */
void redis_sentinel_find(struct redis_sentinel *sentinel, unsigned patience_ms);

/* The master that was found cannot be used: another sentinel is asked first the next time. */
void redis_sentinel_distrust(struct redis_sentinel *sentinel);

/* Stops asking and watching: no event comes any more. Not from inside an event. */
void redis_sentinel_stop(struct redis_sentinel *sentinel);

/* Why nothing was found so far, for a person; or "". */
const char *redis_sentinel_why(const struct redis_sentinel *sentinel);

/* NULL is allowed. */
void redis_sentinel_free(struct redis_sentinel *sentinel);

#endif
