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
	FAKE_CLOSE, /* close the connection after the reply */
	FAKE_HOLD,  /* hold this reply and all later ones until fake_redis_release */
	FAKE_DRIP,  /* send a byte each millisecond */
};

struct fake_redis *fake_redis_new(struct event_base *base);
/* Listens on ::1 only; NULL if the host has no ::1. *ipv4 is a socket with the same port of
 * 127.0.0.1, to be closed by the caller. It does not listen: connections there are refused, and no
 * other program takes the port. */
struct fake_redis *fake_redis_new_on_ipv6(struct event_base *base, int *ipv4);
void fake_redis_free(struct fake_redis *fake);
int fake_redis_port(const struct fake_redis *fake);

/* Sends `bytes` (NULL: nothing) at the start of each later connection, and closes the connection
 * then if `then_close`. */
void fake_redis_greet(struct fake_redis *fake, const char *bytes, bool then_close);
/* While silent it reads no command, and so sends no reply. */
void fake_redis_silence(struct fake_redis *fake, bool silent);
/* Sets the reply to each command of that name, as complete RESP; NULL: no reply. The strings are
 * not copied. */
void fake_redis_on(struct fake_redis *fake, const char *command, const char *answer,
		   enum fake_then then);
/* Removes the replies that were set, the greeting and the silence. */
void fake_redis_normal(struct fake_redis *fake);

/* Sends the bytes to each open connection at once. */
void fake_redis_say(struct fake_redis *fake, const char *bytes);
void fake_redis_release(struct fake_redis *fake);
void fake_redis_close_all(struct fake_redis *fake);
/* Stop closes the listener and all connections; start listens again on the same port. */
void fake_redis_stop(struct fake_redis *fake);
void fake_redis_start(struct fake_redis *fake);

unsigned fake_redis_accepted(const struct fake_redis *fake);
size_t fake_redis_open(const struct fake_redis *fake);
/* The number of EVAL and EVALSHA commands on all connections. */
unsigned fake_redis_calls(const struct fake_redis *fake);
/* The commands since the last connection was accepted: "AUTH x|PING|...". */
const char *fake_redis_heard(const struct fake_redis *fake);

#endif
