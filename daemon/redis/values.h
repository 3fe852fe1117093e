/*
 * Many circuits, read together.
 */
#ifndef BREAKERD_REDIS_VALUES_H
#define BREAKERD_REDIS_VALUES_H

#include "redis/op.h"

/* What redis_values_read found at one key: nothing (a key of another type, a value larger than
 * CIRCUIT_STORED_BYTES_MAX and an empty one are left out, too), or a circuit. */
struct redis_value {
	bool exists;
	enum circuit_stored stored;
	struct circuit circuit;            /* set unless CIRCUIT_STORED_NONE */
	struct breaker_override *override; /* which may be over; NULL: none. Freed behind fn */
};

struct redis_value_key {
	const char *key; /* without the prefix */
	size_t len;
};

struct redis_values;

/* From the loop, once: what was found, in the order of the keys, with STORE_OK; else NULL, and
 * why, with STORE_UNAVAILABLE or STORE_ERROR. All live until it returns. */
typedef void redis_values_fn(void *arg, const struct redis_value *found, enum store_status status,
			     const char *why);

/* Reads the circuits of one key at least; they are copied. NULL, and fn does not come, if the link
 * does not take the commands or when out of memory. */
struct redis_values *redis_values_read(struct redis_store *r, const struct redis_value_key *keys,
				       size_t count, redis_values_fn *fn, void *arg);

/* fn does not come any more. Not from inside fn. */
void redis_values_cancel(struct redis_values *values);

#endif
