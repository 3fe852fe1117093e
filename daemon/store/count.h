/*
 * Counting the store's operations in the metrics: what their labels `operation` and `result`
 * are called, and which result a status counts as.
 */
#ifndef BREAKERD_STORE_COUNT_H
#define BREAKERD_STORE_COUNT_H

#include "store/store.h"

struct metrics;

/* An operation is a verb (enum circuit_verb) or the listing. */
#define STORE_OPERATION_LIST CIRCUIT_VERBS

/* Gives the labels their names. */
void store_count_init(struct metrics *m);

/* Counts an operation that ended so. STORE_BAD_CURSOR is the client's mistake and not counted. */
void store_count(struct metrics *m, unsigned operation, const struct store_result *result,
		 uint64_t duration_ns);

#endif
