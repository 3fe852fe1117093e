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

/* All come from the loop. */
struct redis_sentinel_events {
	redis_lookup_fn *found;
	/* After found: the master is another one now. */
	void (*moved)(void *arg, const char *why);
	void *arg;
};

/* Does nothing yet. `target` must outlive it. NULL when out of memory. */
struct redis_sentinel *redis_sentinel_new(struct event_base *base,
					  const struct redis_target *target,
					  const struct redis_sentinel_events *events);

/*
 * Begins to ask, the one that knew last first, the ones that were dead last; each is given
 * patience_ms. found comes once; from then on it watches until redis_sentinel_stop.
 */
void redis_sentinel_find(struct redis_sentinel *sentinel, unsigned patience_ms);

/* What was found is no use: another sentinel is asked first the next time. */
void redis_sentinel_distrust(struct redis_sentinel *sentinel);

/* Neither asks nor watches; nothing comes any more. Not from inside an event. */
void redis_sentinel_stop(struct redis_sentinel *sentinel);

/* Why nothing was found so far, for a person; or "". */
const char *redis_sentinel_why(const struct redis_sentinel *sentinel);

/* NULL is allowed. */
void redis_sentinel_free(struct redis_sentinel *sentinel);

#endif
