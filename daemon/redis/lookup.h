/*
 * Looks up the addresses of a host name, without blocking: numeric addresses, "localhost" and
 * /etc/hosts at once, else by the nameservers of /etc/resolv.conf. Both files are read for each
 * look-up; nothing is kept between look-ups.
 */
#ifndef BREAKERD_REDIS_LOOKUP_H
#define BREAKERD_REDIS_LOOKUP_H

#include "redis/address.h"

struct event_base;
struct redis_lookup;

/* Gets at least one address; or NULL and why, for a person. Both live until it returns. The look-up
 * must still be freed; this may do it. */
typedef void redis_lookup_fn(void *arg, const struct redis_addresses *addresses, const char *why);

/* The files that are read instead of the system's. */
struct redis_lookup_files {
	const char *hosts;       /* as /etc/hosts */
	const char *resolv_conf; /* as /etc/resolv.conf */
};

/* Calls fn once, from the loop. Each nameserver has patience_ms for an answer; the look-up as a
 * whole has no limit. `files` is used in the call only; NULL: the system's. NULL when out of
 * memory. */
struct redis_lookup *redis_lookup_new(struct event_base *base, const char *host,
				      unsigned short port, unsigned patience_ms,
				      const struct redis_lookup_files *files, redis_lookup_fn *fn,
				      void *arg);

/* Ends the look-up: fn is not called any more. A question under way is freed in the next turn of
 * the loop; without such a turn it leaks. NULL is allowed. */
void redis_lookup_free(struct redis_lookup *lookup);

#endif
