/*
 * A scripted Redis on 127.0.0.1, in the test's own loop. By default it passes a handshake and
 * answers +OK to everything else.
 */
#ifndef TEST_FAKE_REDIS_H
#define TEST_FAKE_REDIS_H

#include <stdbool.h>
#include <stddef.h>

struct event_base;
struct fake_redis;

#define FAKE_SHA "0123456789abcdef0123456789abcdef01234567"

enum fake_then {
	FAKE_STAY,
	FAKE_CLOSE, /* close behind the answer */
	FAKE_HOLD,  /* keep back this answer and all behind it until fake_redis_release */
	FAKE_DRIP,  /* a byte each millisecond */
};

struct fake_redis *fake_redis_new(struct event_base *base);
/* On ::1 only; NULL where the host has none. */
struct fake_redis *fake_redis_new_on_ipv6(struct event_base *base);
void fake_redis_free(struct fake_redis *fake);
int fake_redis_port(const struct fake_redis *fake);

/* From the next connection on: sends `bytes` first, then closes it, or not. NULL: nothing. */
void fake_redis_greet(struct fake_redis *fake, const char *bytes, bool then_close);
/* Reads no command and says nothing. */
void fake_redis_silence(struct fake_redis *fake, bool silent);
/* The answer to each command of that name, whole RESP; both strings are kept, not copied. A
 * NULL answer is none. */
void fake_redis_on(struct fake_redis *fake, const char *command, const char *answer,
		   enum fake_then then);
/* Back to the default. */
void fake_redis_normal(struct fake_redis *fake);

/* Sends to each open connection, now. */
void fake_redis_say(struct fake_redis *fake, const char *bytes);
void fake_redis_release(struct fake_redis *fake);
void fake_redis_close_all(struct fake_redis *fake);
/* Stops listening, and closes; listens again on the same port. */
void fake_redis_stop(struct fake_redis *fake);
void fake_redis_start(struct fake_redis *fake);

unsigned fake_redis_accepted(const struct fake_redis *fake);
size_t fake_redis_open(const struct fake_redis *fake);
/* How often a script was called, by any connection. */
unsigned fake_redis_calls(const struct fake_redis *fake);
/* The commands of the last connection so far, their words: "AUTH x|PING|...". */
const char *fake_redis_heard(const struct fake_redis *fake);

#endif
