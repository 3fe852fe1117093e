/*
 * What a server's error means: either the server will not serve us at all, and the link must end;
 * or it has refused one operation.
 */
#ifndef BREAKERD_REDIS_FAULTS_H
#define BREAKERD_REDIS_FAULTS_H

#include <hiredis/hiredis.h>
#include <stddef.h>

/*
 * Checks an answer. If it is an error that says that the server cannot be used, returns the reason
 * for a person, static. Else NULL: it is no error, or one of this operation.
 */
const char *redis_fault(const redisReply *reply);

/* The stage at which an attempt or a connection failed. */
enum redis_failed_at {
	REDIS_FAILED_LOOKUP,
	REDIS_FAILED_CONNECT,
	REDIS_FAILED_HANDSHAKE,
	REDIS_FAILED_LOST,       /* the link was ready */
	REDIS_FAILED_UNANSWERED, /* the link was suspect */
};

/*
 * What ended an attempt or a connection, as a number below REDIS_FAILURES, and its label in the
 * metrics: the error if `why` came from redis_fault (the same pointer), else the stage.
 */
#define REDIS_FAILURES 16
unsigned redis_failure(const char *why, enum redis_failed_at at);
const char *redis_failure_label(unsigned failure);

/* Copies a server's words for use in a reason: printable ASCII, one line, cut to the size. */
void redis_fault_words(const char *text, char *out, size_t size);

#endif
