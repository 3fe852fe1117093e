/*
 * What a server's error means: that the server will not serve us at all, which is the
 * link's business, or that it refused one operation, which is the operation's.
 */
#ifndef BREAKERD_REDIS_FAULTS_H
#define BREAKERD_REDIS_FAULTS_H

#include <hiredis/hiredis.h>
#include <stddef.h>

/*
 * Checks an answer. If it is an error that says that the server cannot be used: why, for a
 * person, static. Else NULL: no error, or the operation's own.
 */
const char *redis_fault(const redisReply *reply);

/* When an attempt or a connection failed. */
enum redis_failed_at {
	REDIS_FAILED_LOOKUP,
	REDIS_FAILED_CONNECT,
	REDIS_FAILED_HANDSHAKE,
	REDIS_FAILED_LOST,       /* it was ready */
	REDIS_FAILED_UNANSWERED, /* it was suspect */
};

/*
 * What ended an attempt or a connection, as a number below REDIS_FAILURES and a metric's label:
 * what redis_fault says, else when it happened.
 */
#define REDIS_FAILURES 16
unsigned redis_failure(const char *why, enum redis_failed_at at);
const char *redis_failure_label(unsigned failure);

/* A server's words made fit for a reason: printable ASCII, one line, cut to the size. */
void redis_fault_words(const char *text, char *out, size_t size);

#endif
