/*
 * Sentinels: asks one after the other where the master is, then listens to one of them.
 */
#include "redis/sentinel.h"

#include "base/timer.h"
#include "redis/conn.h"
#include "redis/faults.h"
#include "redis/target.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* When the connection to the watched sentinel is lost, another one is asked after this time. */
#define WATCH_AGAIN_MS 1000
/* How often the watched sentinel is asked for a sign of life, and how long it has to answer. */
#define WATCH_ASK_MS 1000

#define CHANNEL "+switch-master"

enum mode {
	IDLE,
	FINDING,  /* asking one after the other, for `found` */
	WATCHING, /* subscribed to one sentinel's messages of another master */
	WAITING,  /* that sentinel is gone; the next one is asked when the timer fires */
	CHECKING, /* asking again whether the master is still the same, and then watching */
};

struct redis_sentinel {
	struct event_base *base;
	const struct redis_target *target;
	struct redis_sentinel_events on;
	enum mode mode;
	struct event *timer; /* the deadline of this sentinel, or when to ask the next */
	/* A timer of zero: frees what failed and goes on. */
	struct event *deferred;
	unsigned patience_ms;
	size_t order[REDIS_HOSTS_MAX]; /* indexes into target->hosts; the first is the current one
					*/
	size_t asked;                  /* sentinels asked in this round, with the current one */

	struct redis_lookup *lookup; /* of the sentinel's name, then of the master's */
	struct redis_conn *conn;
	struct redis_addresses addresses; /* of the sentinel */
	size_t address;                   /* the index of the next to try */
	char master[300];                 /* the master as last told, "host:port" */
	char why[400];
};

static const struct redis_host *current(const struct redis_sentinel *s)
{
	return &s->target->hosts[s->order[0]];
}

static void drop_connection(struct redis_sentinel *s)
{
	struct redis_lookup *lookup = s->lookup;
	struct redis_conn *conn = s->conn;

	s->lookup = NULL;
	s->conn = NULL;
	redis_lookup_free(lookup);
	redis_conn_free(conn, "");
}

void redis_sentinel_distrust(struct redis_sentinel *s)
{
	size_t first = s->order[0];

	memmove(&s->order[0], &s->order[1], sizeof(s->order[0]) * (s->target->host_count - 1));
	s->order[s->target->host_count - 1] = first;
}

/* This sentinel cannot be used. `deferred` frees its connection and asks the next. */
static void fail(struct redis_sentinel *s, const char *why)
{
	const struct redis_host *host = current(s);

	snprintf(s->why, sizeof(s->why), "sentinel %s:%d: %s", host->host, host->port, why);
	if (s->conn)
		redis_conn_shut(s->conn);
	event_del(s->timer);
	timer_arm(s->deferred, 0);
}

/* --- what a sentinel says --- */

static void watch(struct redis_sentinel *s)
{
	s->mode = WATCHING;
	timer_arm(s->timer, WATCH_ASK_MS);
}

static void on_master_addresses(void *arg, const struct redis_addresses *addresses, const char *why)
{
	struct redis_sentinel *s = arg;

	if (!addresses) {
		fail(s, why);
		return;
	}
	watch(s);
	s->why[0] = '\0';
	s->on.found(s->on.arg, addresses, NULL);
}

/* The sentinel has answered that this is the master. */
static void on_master(struct redis_sentinel *s, const char *host, unsigned short port)
{
	char master[sizeof(s->master)], why[400];

	snprintf(master, sizeof(master), "%s:%d", host, port);
	if (s->mode == FINDING) {
		snprintf(s->master, sizeof(s->master), "%s", master);
		s->lookup = redis_lookup_new(s->base, host, port, s->patience_ms, NULL,
					     on_master_addresses, s);
		/* Subscribed at once: the sentinels may choose another master while we still reach
		 * the old one. */
		if (!s->lookup || redis_conn_subscribe(s->conn, CHANNEL) < 0)
			fail(s, "out of memory");
	} else if (strcmp(master, s->master) != 0) {
		snprintf(why, sizeof(why), "the sentinels say that the master is now %s", master);
		s->on.moved(s->on.arg, why);
	} else if (redis_conn_subscribe(s->conn, CHANNEL) == 0) {
		watch(s);
	}
}

static void on_answer(void *arg, enum redis_outcome outcome, const redisReply *reply,
		      const char *why)
{
	struct redis_sentinel *s = arg;
	const redisReply *host, *port;
	char words[256];
	long n;

	if (outcome == REDIS_LOST)
		return;
	if (outcome == REDIS_REPLY && reply->type == REDIS_REPLY_ERROR) {
		redis_fault_words(reply->str, words, sizeof(words));
		why = words;
	} else if (outcome == REDIS_REPLY && reply->type == REDIS_REPLY_NIL) {
		why = "it does not know a master of that name";
	} else if (outcome == REDIS_REPLY &&
		   (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)) {
		why = "its answer is no address";
	}
	if (why) {
		fail(s, why);
		return;
	}
	host = reply->element[0];
	port = reply->element[1];
	n = port->type == REDIS_REPLY_STRING ? strtol(port->str, NULL, 10) : 0;
	if (host->type != REDIS_REPLY_STRING || host->len > 255 || n <= 0 || n > 65535) {
		fail(s, "its answer is no address");
		return;
	}
	redis_fault_words(host->str, words, sizeof(words));
	on_master(s, words, (unsigned short)n);
}

/* "<name> <old ip> <old port> <new ip> <new port>" */
static void on_message(void *arg, const char *text, size_t len)
{
	struct redis_sentinel *s = arg;
	char name[256], host[256], master[sizeof(s->master)], why[400];
	int port;

	(void)len;
	if (s->mode != WATCHING) {
		fail(s, "the master changes");
		return;
	}
	if (sscanf(text, "%255s %*s %*s %255s %6d", name, host, &port) != 3) {
		fail(s, "its message names no master");
		return;
	}
	snprintf(master, sizeof(master), "%s:%d", host, port);
	if (strcmp(name, s->target->master) != 0 || strcmp(master, s->master) == 0)
		return;
	redis_fault_words(master, master, sizeof(master));
	snprintf(why, sizeof(why), "the sentinels say that the master is now %s", master);
	s->on.moved(s->on.arg, why);
}

static const char *on_check_reply(void *arg, const redisReply *reply)
{
	(void)arg;
	return redis_fault(reply);
}

/* --- one after the other --- */

static void on_up(void *arg)
{
	struct redis_sentinel *s = arg;
	const char *argv[] = {"SENTINEL", "get-master-addr-by-name", s->target->master};
	const size_t lens[] = {strlen(argv[0]), strlen(argv[1]), strlen(argv[2])};

	if (!redis_conn_send(s->conn, on_answer, s, 3, argv, lens))
		fail(s, "out of memory");
}

static void on_down(void *arg, const char *why)
{
	fail(arg, why);
}

static void ask_address(struct redis_sentinel *s)
{
	struct redis_conn_events events = {.up = on_up,
					   .down = on_down,
					   .check_reply = on_check_reply,
					   .message = on_message,
					   .arg = s};

	s->conn = redis_conn_new(s->base, &s->addresses.at[s->address++], &events);
	if (!s->conn)
		fail(s, "out of memory or of descriptors");
}

static void on_addresses(void *arg, const struct redis_addresses *addresses, const char *why)
{
	struct redis_sentinel *s = arg;
	struct redis_lookup *lookup = s->lookup;

	if (!addresses) {
		fail(s, why);
		return;
	}
	s->addresses = *addresses;
	s->lookup = NULL;
	redis_lookup_free(lookup);
	ask_address(s);
}

static void ask_first(struct redis_sentinel *s)
{
	const struct redis_host *host = current(s);

	s->asked++;
	s->address = s->addresses.count = 0;
	timer_arm(s->timer, s->patience_ms);
	s->lookup = redis_lookup_new(s->base, host->host, host->port, s->patience_ms, NULL,
				     on_addresses, s);
	if (!s->lookup)
		fail(s, "out of memory");
}

static void begin(struct redis_sentinel *s, enum mode mode)
{
	s->mode = mode;
	s->asked = 0;
	ask_first(s);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct redis_sentinel *s = arg;

	(void)fd;
	(void)what;
	if (s->mode == WATCHING) {
		if (redis_conn_waiting(s->conn) > 0 || redis_conn_subscribe(s->conn, CHANNEL) < 0)
			fail(s, "it has stopped answering");
		else
			timer_arm(s->timer, WATCH_ASK_MS);
		return;
	}
	if (s->mode == WAITING) {
		begin(s, CHECKING);
		return;
	}
	s->address = s->addresses.count; /* do not try its other addresses */
	fail(s, "no answer in time");
}

/* After fail(): tries the sentinel's next address, or the next sentinel, or gives up. */
static void on_deferred(evutil_socket_t fd, short what, void *arg)
{
	struct redis_sentinel *s = arg;

	(void)fd;
	(void)what;
	drop_connection(s);
	if (s->mode != WATCHING && s->address < s->addresses.count) {
		timer_arm(s->timer, s->patience_ms);
		ask_address(s);
		return;
	}
	redis_sentinel_distrust(s);
	if (s->mode != WATCHING && s->asked < s->target->host_count) {
		ask_first(s);
	} else if (s->mode == FINDING) {
		s->mode = IDLE;
		s->on.found(s->on.arg, NULL, s->why);
	} else {
		s->mode = WAITING;
		timer_arm(s->timer, WATCH_AGAIN_MS);
	}
}

void redis_sentinel_find(struct redis_sentinel *s, unsigned patience_ms)
{
	redis_sentinel_stop(s);
	s->patience_ms = patience_ms;
	s->why[0] = '\0';
	begin(s, FINDING);
}

void redis_sentinel_stop(struct redis_sentinel *s)
{
	s->mode = IDLE;
	event_del(s->timer);
	event_del(s->deferred);
	drop_connection(s);
}

const char *redis_sentinel_why(const struct redis_sentinel *s)
{
	return s->why;
}

struct redis_sentinel *redis_sentinel_new(struct event_base *base,
					  const struct redis_target *target,
					  const struct redis_sentinel_events *events)
{
	struct redis_sentinel *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->base = base;
	s->target = target;
	s->on = *events;
	for (size_t i = 0; i < target->host_count; i++)
		s->order[i] = i;
	s->timer = evtimer_new(base, on_timer, s);
	s->deferred = evtimer_new(base, on_deferred, s);
	if (s->timer && s->deferred)
		return s;
	redis_sentinel_free(s);
	return NULL;
}

void redis_sentinel_free(struct redis_sentinel *s)
{
	if (!s)
		return;
	drop_connection(s);
	if (s->timer)
		event_free(s->timer);
	if (s->deferred)
		event_free(s->deferred);
	free(s);
}
