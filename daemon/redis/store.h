/*
 * The store in Redis: one string key a circuit, {prefix}cb:{key}.
 */
#ifndef BREAKERD_REDIS_STORE_H
#define BREAKERD_REDIS_STORE_H

#include "redis/target.h"

struct event_base;
struct log;
struct metrics;
struct store;
struct store_limits;

/*
 * Begins to connect at once and keeps at it; NULL when out of memory, or if the prefix is
 * longer than REDIS_PREFIX_MAX bytes. `target` and `prefix` are copied; `metrics` and `log`
 * may be NULL and must outlive the store.
 */
struct store *store_redis_new(struct event_base *base, const struct redis_target *target,
			      const char *prefix, const struct store_limits *limits,
			      struct metrics *metrics, struct log *log);

#endif
