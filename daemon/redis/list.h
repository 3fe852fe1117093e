/*
 * Listings of the circuits in Redis.
 */
#ifndef BREAKERD_REDIS_LIST_H
#define BREAKERD_REDIS_LIST_H

#include "redis/op.h"

/* Sets up the store's members for listings. 0, or -1 when out of memory. */
int redis_lists_init(struct redis_store *r, struct event_base *base);

/* The driver's `list`. */
struct store_op *redis_store_list(struct store *s, const struct store_query *query,
				  store_done_fn *done, void *arg, struct store_result *result);

#endif
