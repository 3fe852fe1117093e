/*
 * What happens on a new connection before it carries anything: it authenticates, selects the
 * database and finds out whether the server is one that we can use. That takes one round trip, and
 * a second one to compare the clocks.
 */
#ifndef BREAKERD_REDIS_HANDSHAKE_H
#define BREAKERD_REDIS_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redis_conn;
struct redis_target;

/* One connection to one run of a server. No other one has the same pair. */
struct redis_session {
	char run_id[48]; /* "" if the server would not say */
	char client[24]; /* the connection's number (CLIENT ID), in digits; "" likewise */
};

/* What the server said of itself. */
struct redis_server {
	char name[16];    /* "redis", "valkey" */
	char version[32]; /* "" if the server would not say */
	bool cluster;     /* redis_mode:cluster */
	struct redis_session session;
	char sha[41]; /* of the script; "" without a script, and if the server would not load it */
	bool has_clock;
	int64_t clock_offset_ms; /* its clock minus ours (clock_steady_ms) */
	int64_t clock_error_ms;  /* ... and by how much that may be wrong */
};

/* Called once, from inside an answer's callback. `why` is NULL, or says what is wrong with the
 * server, for a person, without secrets. Further answers are ignored. */
typedef void redis_handshake_fn(void *arg, const char *why);

struct redis_handshake {
	struct redis_conn *conn;
	const struct redis_target *target;
	const char *script; /* NULL: none */
	const struct redis_session *before;
	redis_handshake_fn *done;
	void *arg;
	struct redis_server server;
	unsigned asked;         /* bit n: step n was sent and its answer has not come */
	int64_t clock_asked_ms; /* monotonic */
	bool ended;
};

/*
 * Begins on a connection that is up. The struct is the caller's; the struct, target, script and
 * before must live as long as the connection. `before` is the session that carried commands last,
 * or NULL. If this is the same run of the same server, it ends that session there (CLIENT KILL):
 * what was sent on it and is still on its way will not run. 0, or -1 when out of memory.
 */
int redis_handshake_begin(struct redis_handshake *handshake, struct redis_conn *conn,
			  const struct redis_target *target, const char *script,
			  const struct redis_session *before, redis_handshake_fn *done, void *arg);

#endif
