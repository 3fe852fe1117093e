/*
 * One circuit in Redis, in commands of its own: a read, which is a GETRANGE, and a step that is
 * folded in, which is a call of circuit.lua. Other writes are in writes.h.
 */
#ifndef BREAKERD_REDIS_CIRCUIT_H
#define BREAKERD_REDIS_CIRCUIT_H

#include "redis/op.h"

/* The driver's `submit` for a read, once redis_store_open lets it in. */
struct store_op *redis_circuit_read(struct redis_store *r, const struct store_request *request,
				    store_done_fn *done, void *arg, struct store_result *result);

/* The driver's `fold`. */
struct store_op *redis_circuit_fold(struct store *s, const char *key, size_t key_len,
				    const struct circuit_fold *fold, store_done_fn *done, void *arg,
				    struct store_result *result);

#endif
