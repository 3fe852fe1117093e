/*
 * The listing of what is in Redis.
 */
#ifndef BREAKERD_REDIS_LIST_H
#define BREAKERD_REDIS_LIST_H

#include "redis/op.h"

/* Makes what listings need of the store; -1 when out of memory. */
int redis_lists_init(struct redis_store *r, struct event_base *base);

/* The driver's `list`. */
struct store_op *redis_store_list(struct store *s, const struct store_query *query,
				  store_done_fn *done, void *arg, struct store_result *result);

#endif
