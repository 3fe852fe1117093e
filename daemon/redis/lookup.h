/*
 * A host name to addresses, without blocking: numeric addresses, "localhost" and /etc/hosts
 * at once, else the nameservers of /etc/resolv.conf, read afresh for each look-up. Between
 * look-ups nothing is kept.
 */
#ifndef BREAKERD_REDIS_LOOKUP_H
#define BREAKERD_REDIS_LOOKUP_H

#include "redis/address.h"

struct event_base;
struct redis_lookup;

/* With addresses (one at least) and no why, or with why, for a person, and no addresses. Both
 * live until it returns. The look-up is still to be freed; it may be freed in here. */
typedef void redis_lookup_fn(void *arg, const struct redis_addresses *addresses, const char *why);

/* Where names are looked up: NULL for the system's own. */
struct redis_lookup_files {
	const char *hosts;       /* as /etc/hosts */
	const char *resolv_conf; /* as /etc/resolv.conf */
};

/* Calls fn once, from the loop. Each nameserver is given patience_ms for an answer; the
 * whole has no limit of its own. files, which may be NULL, is read in the call. NULL when
 * out of memory. */
struct redis_lookup *redis_lookup_new(struct event_base *base, const char *host,
				      unsigned short port, unsigned patience_ms,
				      const struct redis_lookup_files *files, redis_lookup_fn *fn,
				      void *arg);

/* fn is not called any more. A question still under way is forgotten when the loop turns
 * the next time; freeing the base without that leaks it. NULL is allowed. */
void redis_lookup_free(struct redis_lookup *lookup);

#endif
