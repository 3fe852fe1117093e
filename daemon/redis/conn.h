/*
 * One connection to a server: hiredis's redisAsyncContext on the loop, behind a fence
 * (fence.h). It connects to an address, sends commands and hands each answer to its own
 * callback, in order; or it subscribes to a channel and hands out the messages. It does not
 * connect again and has no deadlines: that is for its user.
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
	REDIS_REPLY,   /* an answer; it may be an error of this operation */
	REDIS_REFUSED, /* the server will not serve us at all (READONLY, LOADING, NOAUTH, ...):
			  surely not applied, and the link goes down; why says it */
	REDIS_LOST,    /* handed over, and no answer will come: the connection is gone */
};

/*
 * The answer to a command: comes exactly once for each command that was taken, also when the
 * connection is freed (REDIS_LOST), but never from inside the call that took it. `reply` is set
 * with REDIS_REPLY, and lives until the callback returns; `why` is set with the others.
 */
typedef void redis_reply_fn(void *arg, enum redis_outcome outcome, const redisReply *reply,
			    const char *why);

/* All are called from the loop. None may free the connection: it may shut it, and free it later
 * from an event. All but up and down may be NULL. */
struct redis_conn_events {
	void (*up)(void *arg);
	/* The connection has failed and is shut; at most once. `why` is for a person. Commands that
	 * wait are answered with REDIS_LOST after this. */
	void (*down)(void *arg, const char *why);
	/* Gets each answer before its callback. Returns the reason to make it REDIS_REFUSED; else
	 * NULL. */
	const char *(*check_reply)(void *arg, const redisReply *reply);
	/* Comes behind the callback of such an answer, with the reason; also for an error that came
	 * unasked. */
	void (*refused)(void *arg, const char *why);
	/* Comes after the callbacks of all answers that were read together. */
	void (*answered)(void *arg);
	/* The subscription stands; once for each redis_conn_subscribe. */
	void (*subscribed)(void *arg);
	/* A message on the channel; text ends with a NUL. */
	void (*message)(void *arg, const char *text, size_t len);
	void *arg;
};

/* Begins to connect. If that fails at once, `down` still comes from the loop, later. NULL when out
 * of memory or of descriptors. */
struct redis_conn *redis_conn_new(struct event_base *base, const struct redis_address *address,
				  const struct redis_conn_events *events);

/* A command that was handed over, until its callback comes. */
struct redis_command;

/* Hands over a command, and its callback will come. NULL: it was surely not sent, as on a
 * connection that is not up yet, is shut or has subscribed. */
struct redis_command *redis_conn_send(struct redis_conn *conn, redis_reply_fn *fn, void *arg,
				      int argc, const char **argv, const size_t *argvlen);

/* The callback of this command will not come. */
void redis_command_forget(struct redis_command *command);

/* Writes what was handed over now rather than in the next turn of the loop. From the loop; of the
 * connection's callbacks, only `answered` may call it. */
void redis_conn_flush(struct redis_conn *conn);

/*
 * Subscribes to a channel, after what was sent before; nothing else can be sent from now on. A
 * second call for the same channel makes the server confirm once more, as a sign of life. An error
 * from the server ends the connection. 0, or -1: it was surely not sent.
 */
int redis_conn_subscribe(struct redis_conn *conn, const char *channel);

/* Commands handed over and not answered, and subscriptions not confirmed. */
size_t redis_conn_waiting(const struct redis_conn *conn);

/* True while some of these have been written. */
bool redis_conn_busy(const struct redis_conn *conn);

/* While commands wait: the time (monotonic milliseconds) since which no answer has come. */
int64_t redis_conn_silent_since_ms(const struct redis_conn *conn);

/* Stops reading and writing. Answers that were read already still come. */
void redis_conn_shut(struct redis_conn *conn);

/* Answers the commands that wait with REDIS_LOST and `why`, from inside this call. NULL is allowed.
 */
void redis_conn_free(struct redis_conn *conn, const char *why);

#endif
