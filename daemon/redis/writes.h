/*
 * The writing operations on their way to Redis.
 */
#ifndef BREAKERD_REDIS_WRITES_H
#define BREAKERD_REDIS_WRITES_H

#include "redis/op.h"

/* The driver's `submit` for what writes, once redis_store_open lets it in. */
struct store_op *redis_writes_submit(struct redis_store *r, const struct store_request *request,
				     store_done_fn *done, void *arg, struct store_result *result);

/* Sends what waits, as far as calls may be under way. May end operations. */
void redis_writes_send(struct redis_store *r);

/* True while a write of this circuit, by its whole Redis key, waits or is under way. */
bool redis_writes_pending(struct redis_store *r, const char *full, size_t full_len);

/* The link is ready: how far away is the server? */
void redis_writes_begin(struct redis_store *r);

/* The link is no longer ready: ends what was not handed over. */
void redis_writes_give_up(struct redis_store *r, const char *why);

/* NULL when out of memory. */
struct redis_writes *redis_writes_new(void);

/* Once the link is freed. NULL is allowed. */
void redis_writes_free(struct redis_writes *writes);

#endif
