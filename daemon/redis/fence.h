/*
 * What a server may send us. hiredis's asynchronous connection ends the process through an assert
 * when a server speaks unasked, or sends a subscriber something of another shape than it expects;
 * and it reads answers of any size. The fence replaces the functions that make hiredis's reply
 * objects, and refuses such answers before hiredis acts on them. hiredis then drops the connection
 * by itself, as if it were out of memory.
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
	const char *channel; /* set before the command that subscribes to it; else NULL */
	const char *why;     /* what was refused, for a person, static; NULL: nothing */
	/* The server's words in an error that it sent unasked; hiredis ends the connection. */
	char unasked_error[128];

	/* The answer that is being read: */
	size_t bytes;
	bool message;  /* it is for the subscription */
	bool confirms; /* it confirms the subscription */
};

/* Puts the fence into a new context. It must live as long as the context. */
void redis_fence_init(struct redis_fence *fence, redisAsyncContext *ac);

/* Bounds what is buffered. To be called after each read, before the answers in it are parsed. */
void redis_fence_check_buffer(struct redis_fence *fence);

#endif
