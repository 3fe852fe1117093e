/*
 * Reads many circuits together.
 */
#ifndef BREAKERD_REDIS_VALUES_H
#define BREAKERD_REDIS_VALUES_H

#include "redis/op.h"

/* What redis_values_read found at one key: a circuit, or nothing. A key of another type, an empty
 * value and one larger than CIRCUIT_STORED_BYTES_MAX count as nothing. */
struct redis_value {
	bool exists;
	enum circuit_stored stored;
	struct circuit circuit;            /* set unless CIRCUIT_STORED_NONE */
	struct breaker_override *override; /* it may be over; or NULL. Freed after fn */
};

struct redis_value_key {
	const char *key; /* without the prefix */
	size_t len;
};

struct redis_values;

/* Called once, from the loop: with what was found, in the order of the keys, and STORE_OK; or with
 * NULL, STORE_UNAVAILABLE or STORE_ERROR, and why. All live until it returns. */
typedef void redis_values_fn(void *arg, const struct redis_value *found, enum store_status status,
			     const char *why);

/* Reads the circuits at these keys, one at least; the keys are copied. NULL, and fn is never
 * called, if the link does not take the commands, or when out of memory. */
struct redis_values *redis_values_read(struct redis_store *r, const struct redis_value_key *keys,
				       size_t count, redis_values_fn *fn, void *arg);

/* fn is not called any more. Not from inside fn. */
void redis_values_cancel(struct redis_values *values);

#endif
