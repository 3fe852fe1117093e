/*
 * The link: one asynchronous connection to a writable Redis master, brought up and kept up.
 *
 *   RESOLVING -> CONNECTING -> HANDSHAKE -> READY <-> SUSPECT
 *        ^            |            |          |         |
 *        +-- BACKOFF <+------------+----------+---------+
 *
 * The handshake authenticates, selects, names the connection, checks version and role,
 * loads the scripts and reads the server's clock. Only a READY link carries commands.
 */
#ifndef BREAKERD_REDIS_LINK_H
#define BREAKERD_REDIS_LINK_H

#include "redis/conn.h"

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct log;
struct metrics;
struct redis_link;
struct redis_target;

enum redis_link_state {
	LINK_RESOLVING,
	LINK_CONNECTING,
	LINK_HANDSHAKE,
	LINK_READY,
	LINK_SUSPECT, /* commands went unanswered; a PING decides; carries nothing */
	LINK_BACKOFF,
};
#define REDIS_LINK_STATES (LINK_BACKOFF + 1)

struct redis_link_options {
	unsigned connect_timeout_ms; /* name look-up and connect together */
	unsigned handshake_timeout_ms;
	unsigned command_timeout_ms; /* the watchdog on the oldest command in flight */
	/* Full jitter: a wait is a random time from 0 to a bound, which doubles from min to max. */
	unsigned backoff_min_ms;
	unsigned backoff_max_ms;
	const char *script; /* loaded in the handshake; static */
	/* Called when the link becomes READY, and when it is READY no longer; may be NULL. */
	void (*on_change)(void *arg, bool ready);
	/* Called after on_change, and when the reason for not being ready changes; may be NULL. */
	void (*on_news)(void *arg);
	/* Called after the callbacks of answers that came together; may be NULL. */
	void (*on_answered)(void *arg);
	void *arg;
};

/* Begins to connect from the loop, not from inside this call. NULL when out of memory.
 * `target` and `options` are copied. */
struct redis_link *redis_link_new(struct event_base *base, const struct redis_target *target,
				  const struct redis_link_options *options, struct metrics *metrics,
				  struct log *log);

bool redis_link_ready(const struct redis_link *link);

/*
 * Hands over a command. The callback will come, also when the link is freed; it may send commands,
 * but must not free the link. NULL: the command was surely not sent, and the callback never comes.
 * Commands are answered in the order in which they were handed over.
 */
struct redis_command *redis_link_send(struct redis_link *link, redis_reply_fn *fn, void *arg,
				      int argc, const char **argv, const size_t *argvlen);

/* True while the server has commands that it has not answered. */
bool redis_link_busy(const struct redis_link *link);

/* Sends what was handed over now rather than in the next turn of the loop. */
void redis_link_flush(struct redis_link *link);

/* The SHA1 of the script, 40 hex digits; "" before the first handshake, and if the server would not
 * load it. */
const char *redis_link_sha(const struct redis_link *link);

/* The server does not take calls of the script by its hash: redis_link_sha is "" until the next
 * handshake. */
void redis_link_forget_sha(struct redis_link *link);

/*
 * An operation has missed its deadline, of timeout_ms. After a few in a row without an answer
 * between them the link is SUSPECT. An operation that was not `sent` waited behind others of ours:
 * it counts only if the server has answered none of them for timeout_ms.
 */
void redis_link_missed(struct redis_link *link, bool sent, unsigned timeout_ms);

/* Redis's clock minus ours (clock_steady_ms) in milliseconds, as last measured, and by how much
 * that may be wrong: half a round trip. Both are 0 before the first. */
int64_t redis_link_clock_offset_ms(const struct redis_link *link, int64_t *error_ms);

/* To be called before commands are sent: asks for the time, too, if the offset was last measured
 * some time ago. The clocks may drift, and Redis's may be set. */
void redis_link_measure_clock(struct redis_link *link);

/* The same from an answer that says the time: asked at asked_ms (clock_ms), it was there_ms. */
void redis_link_told_clock(struct redis_link *link, int64_t asked_ms, int64_t there_ms);

enum redis_link_state redis_link_state(const struct redis_link *link);
const char *redis_link_state_name(enum redis_link_state state);
/* The address of the server in use, while the link is ready. */
const struct redis_address *redis_link_address(const struct redis_link *link);

/* Why it is not ready, or ""; no secret in it. Valid until the next state change. */
const char *redis_link_reason(const struct redis_link *link);
/* Since when it is ready or not ready: epoch milliseconds. */
int64_t redis_link_since_ms(const struct redis_link *link);
/* "redis 7.0.15 at 127.0.0.1:6379", once known; until then the URL without its password. */
const char *redis_link_server(const struct redis_link *link);

/* True if the server last reached is a node of a Redis Cluster. */
bool redis_link_cluster(const struct redis_link *link);

/* Commands in flight are answered with REDIS_LOST from inside this call. */
void redis_link_free(struct redis_link *link);

#endif
