/*
 * A step on one circuit that is folded into Redis, in a call of circuit.lua of its own. Other
 * writes are in writes.h.
 */
#ifndef BREAKERD_REDIS_FOLD_H
#define BREAKERD_REDIS_FOLD_H

#include "redis/op.h"

/* The driver's `fold`. */
struct store_op *redis_fold(struct store *s, const char *key, size_t key_len,
			    const struct circuit_fold *fold, store_done_fn *done, void *arg,
			    struct store_result *result);

#endif
