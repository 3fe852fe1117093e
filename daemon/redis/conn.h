/*
 * One connection to a server: hiredis's redisAsyncContext on the loop, behind a fence
 * (fence.h). It connects to an address, sends commands and hands each answer to its own
 * callback, in order; or it subscribes to a channel and hands out the messages. It never
 * comes back by itself, has no deadline, and knows nothing of why it is there; that is for
 * who uses it.
 */
#ifndef BREAKERD_REDIS_CONN_H
#define BREAKERD_REDIS_CONN_H

#include "redis/address.h"

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct redis_conn;

enum redis_outcome {
	REDIS_REPLY,   /* an answer, an error of the operation's own included */
	REDIS_REFUSED, /* the server will not serve us at all (READONLY, LOADING, NOAUTH, ...):
			  surely not applied, and the link goes down; why says it */
	REDIS_LOST,    /* handed over, and no answer will come: the connection is gone */
};

/*
 * The answer to a command: comes exactly once for each one that was taken, never from inside
 * the call that took it, also when the connection is freed (REDIS_LOST). `reply` is set with
 * REDIS_REPLY, and lives until the callback returns; why is set with the others.
 */
typedef void redis_reply_fn(void *arg, enum redis_outcome outcome, const redisReply *reply,
			    const char *why);

/* All are called from the loop, and none may free the connection: shut it, and free it
 * from an event of your own. All but up and down may be NULL. */
struct redis_conn_events {
	void (*up)(void *arg);
	/* It failed, and is shut; at most once. why is for a person. What waits is answered
	 * with REDIS_LOST behind this. */
	void (*down)(void *arg, const char *why);
	/* Sees each answer before its callback. To make it REDIS_REFUSED, returns why;
	 * else NULL. */
	const char *(*check_reply)(void *arg, const redisReply *reply);
	/* Behind the callbacks of all answers that were read together. */
	void (*answered)(void *arg);
	/* The subscription stands; once for each redis_conn_subscribe. */
	void (*subscribed)(void *arg);
	/* A message on the channel. It has a NUL behind it. */
	void (*message)(void *arg, const char *text, size_t len);
	void *arg;
};

/* Begins to connect; an immediate failure also comes as `down` from the loop. NULL when
 * out of memory or of descriptors. */
struct redis_conn *redis_conn_new(struct event_base *base, const struct redis_address *address,
				  const struct redis_conn_events *events);

/* A command that was handed over, until its callback comes. */
struct redis_command;

/* Hands over a command, once it is up, until it is shut or subscribes. The callback will come; or
 * NULL: it was surely not sent. */
struct redis_command *redis_conn_send(struct redis_conn *conn, redis_reply_fn *fn, void *arg,
				      int argc, const char **argv, const size_t *argvlen);

/* Nobody waits for the answer any more: the callback does not come. */
void redis_command_forget(struct redis_command *command);

/* Writes what was handed over now rather than in the next turn of the loop. From the loop, not from
 * a callback of the connection other than `answered`. */
void redis_conn_flush(struct redis_conn *conn);

/*
 * Subscribes to a channel, behind what was sent before; nothing else can be sent any more.
 * A second call for the same channel asks the server to confirm once more: a sign of life.
 * An error of the server's ends the connection. 0, or -1: it was surely not sent.
 */
int redis_conn_subscribe(struct redis_conn *conn, const char *channel);

/* Commands handed over and not answered, and subscriptions not confirmed. */
size_t redis_conn_waiting(const struct redis_conn *conn);

/* While commands wait: since when (monotonic milliseconds) no answer has come. */
int64_t redis_conn_silent_since_ms(const struct redis_conn *conn);

/* Nothing is read or written any more. Answers that were read already still come. */
void redis_conn_shut(struct redis_conn *conn);

/* Answers what waits with REDIS_LOST and why, from inside this call. NULL is allowed. */
void redis_conn_free(struct redis_conn *conn, const char *why);

#endif
