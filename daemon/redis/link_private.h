/*
 * Shared by the files of the link; nobody else includes this. Each file uses only those above it in
 * this list:
 *
 *	link_state.c     every change of state: its timers, its log lines, its callbacks
 *	link_commands.c  commands on a ready link, and whether they are still answered
 *	link_attempt.c   an attempt: from an address to a connection that is ready
 *	link.c           when an attempt begins and ends; start and end of the link
 */
#ifndef BREAKERD_REDIS_LINK_PRIVATE_H
#define BREAKERD_REDIS_LINK_PRIVATE_H

#include "base/log_state.h"
#include "redis/handshake.h"
#include "redis/link.h"
#include "redis/lookup.h"
#include "redis/sentinel.h"
#include "redis/target.h"

#include <event2/event.h>

struct redis_link {
	struct event_base *base;
	struct redis_target target;
	struct redis_link_options options;
	struct metrics *metrics;
	struct log *log;

	enum redis_link_state state;
	char reason[400];
	int64_t since_ms;
	bool was_ready; /* this connection was READY once */

	struct event *timer;    /* of the state: connect, handshake, suspect, backoff, settled */
	struct event *watchdog; /* on the oldest command in flight */
	bool watched;           /* `watchdog` is set */
	/* A timer of zero: frees what failed and begins the next thing. */
	struct event *deferred;

	struct redis_lookup *lookup;     /* REDIS_TCP, while RESOLVING */
	struct redis_sentinel *sentinel; /* REDIS_SENTINEL: asks, and watches while READY */
	struct redis_addresses addresses;
	size_t address; /* the index of the one in use */
	size_t tried;   /* how many were tried in this attempt */
	struct redis_conn *conn;
	struct redis_handshake handshake;
	struct redis_session session; /* of the last connection that was ready */

	unsigned missed;   /* deadlines missed in a row */
	unsigned failures; /* failed attempts in a row, for the backoff and the log */
	char sha[41];
	int64_t clock_offset_ms;
	int64_t clock_error_ms;
	int64_t clock_due_ms; /* when it is to be measured again (monotonic) */
	int64_t clock_asked_ms;
	bool clock_asked; /* TIME is under way */
	char server[512];
	bool cluster;

	int64_t away_since_ms; /* monotonic */
	int64_t logged_ms;     /* monotonic: when it was last logged that it is away */
	struct log_state news;
};

/* --- link_state.c */

/* Changes the state; every change goes through here. With `reason` NULL the last reason stays. */
void redis_link_enter(struct redis_link *link, enum redis_link_state state, const char *reason);

/*
 * The attempt or the connection has failed. The connection is shut now, and freed by `deferred`,
 * which answers the commands that wait: this may be called from a callback of the connection, where
 * it must not be freed.
 */
void redis_link_drop(struct redis_link *link, const char *reason);

/* Stops the watchdog. */
void redis_link_unwatch(struct redis_link *link);

/* Gives the metrics' labels the names of the states and of the failures. */
void redis_link_name_labels(struct metrics *metrics);

/* Shows the state in the metrics. */
void redis_link_show_state(struct redis_link *link);

/* --- link_commands.c */

/* Enters READY. */
void redis_link_enter_ready(struct redis_link *link);

/* The clock has been measured: it is due again in a while. */
void redis_link_clock_measured(struct redis_link *link, int64_t offset_ms, int64_t error_ms);

/* The timer `watchdog`. For libevent. */
void redis_link_on_watchdog(evutil_socket_t fd, short what, void *arg);

/* The connection's check_reply and refused. */
const char *redis_link_check_reply(void *arg, const redisReply *reply);
void redis_link_on_refused(void *arg, const char *why);

/* --- link_attempt.c */

/* Begins an attempt: finds out where the server is. */
void redis_link_begin(struct redis_link *link);

/* Connects to the address in use. */
void redis_link_connect(struct redis_link *link);

/* The server is at one of these addresses; or NULL, and why that is not known. */
void redis_link_on_addresses(void *arg, const struct redis_addresses *addresses, const char *why);

#endif
