/*
 * One connection that speaks RESP: connects to an address, sends commands, hands each
 * answer to its own callback, in order. It never comes back by itself and knows nothing of
 * why it is there; that is the link's.
 */
#ifndef BREAKERD_REDIS_CONN_H
#define BREAKERD_REDIS_CONN_H

#include "redis/link.h"
#include "redis/lookup.h"

#include <event2/util.h>
#include <stdint.h>

struct event_base;
struct redis_conn;

/* All are called from the loop, and none may free the connection: shut it, and free it
 * from an event of your own. */
struct redis_conn_events {
	void (*up)(void *arg);
	/* It failed, and is shut; at most once. why is for a person. */
	void (*down)(void *arg, const char *why);
	/* Sees each answer before its callback. To make it REDIS_REFUSED, returns why;
	 * else NULL. May be NULL. */
	const char *(*judge)(void *arg, const redisReply *reply);
	/* Takes what comes unasked, as on a subscription. False, and if it is NULL: that
	 * ends the connection. */
	bool (*unasked)(void *arg, const redisReply *reply);
	void *arg;
};

/* Begins to connect; also an immediate failure comes as `down` from the loop. NULL when
 * out of memory. */
struct redis_conn *redis_conn_new(struct event_base *base, const struct redis_place *place,
				  const struct redis_conn_events *events);

/* As redis_link_send; once it is up and until it is shut. */
int redis_conn_send(struct redis_conn *conn, redis_reply_fn *fn, void *arg, int argc,
		    const char **argv, const size_t *argvlen);

/* Commands handed over and not answered. */
size_t redis_conn_waiting(const struct redis_conn *conn);

/* While commands wait: since when (monotonic milliseconds) no answer has come. */
int64_t redis_conn_silent_since_ms(const struct redis_conn *conn);

/* Nothing is read or written any more. Answers that were read already still come. */
void redis_conn_shut(struct redis_conn *conn);

/* Answers what waits with REDIS_LOST and why, from inside this call. NULL is allowed. */
void redis_conn_free(struct redis_conn *conn, const char *why);

/* "127.0.0.1:6379", "[::1]:6379", "/run/redis.sock" */
void redis_place_print(const struct redis_place *place, char *out, size_t size);

#endif
