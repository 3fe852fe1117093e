/*
 * What a server may send us. hiredis's asynchronous connection ends the process through an
 * assert when a server speaks unasked, or in another shape than hiredis expects once the
 * connection is subscribed, and reads answers of any size. The fence takes the place of the
 * functions that make hiredis's reply objects, and refuses such before hiredis acts on it;
 * hiredis then drops the connection by itself, as if out of memory.
 *
 * Known to hold with hiredis 0.14.1 and 1.2.0; tests/unit/redis/check_conn.c has the scenes.
 */
#ifndef BREAKERD_REDIS_FENCE_H
#define BREAKERD_REDIS_FENCE_H

#include <hiredis/async.h>
#include <stdbool.h>
#include <stddef.h>

struct redis_fence {
	redisReplyObjectFunctions functions;
	const redisReplyObjectFunctions *defaults; /* hiredis's own */
	redisAsyncContext *ac;
	const char *channel; /* set by who subscribes to it, before the command; else NULL */
	const char *why;     /* what was refused, for a person, static; NULL: nothing */
	/* The server's words in an error that it sent unasked; hiredis ends the connection. */
	char unasked_error[128];

	/* Of the answer that is being read. */
	size_t bytes;
	bool message;  /* it goes to the subscription */
	bool confirms; /* ... and confirms it */
};

/* Puts the fence into a fresh context. It must live as long as that. */
void redis_fence_init(struct redis_fence *fence, redisAsyncContext *ac);

/* To be called after each read, before its answers are parsed: bounds what is buffered. */
void redis_fence_check_buffer(struct redis_fence *fence);

#endif
