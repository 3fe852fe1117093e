/*
 * Reads of one circuit (getState) on their way to Redis. A read is a GETRANGE, which bounds what a
 * large value costs. Reads of a circuit that come in one turn of the loop share one: it is sent
 * behind all of them, so none of them is told of a state from before it came.
 */
#ifndef BREAKERD_REDIS_READS_H
#define BREAKERD_REDIS_READS_H

#include "redis/op.h"

/* The driver's `submit` for a read, once redis_store_open lets it in. */
struct store_op *redis_reads_submit(struct redis_store *r, const struct store_request *request,
				    store_done_fn *done, void *arg, struct store_result *result);

/* Sends what came since the last call. May end operations. */
void redis_reads_send(struct redis_store *r);

/* NULL when out of memory. */
struct redis_reads *redis_reads_new(void);

/* When no read is left, and the link is freed. NULL is allowed. */
void redis_reads_free(struct redis_reads *reads);

#endif
