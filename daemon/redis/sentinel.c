#include "redis/sentinel.h"

#include "redis/conn.h"
#include "redis/faults.h"
#include "redis/target.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Until another sentinel is asked when the one that was listened to is gone. */
#define WATCH_AGAIN_MS 1000

enum mode {
	IDLE,
	FINDING,  /* asking, for `found` */
	WATCHING, /* a sentinel tells us of another master */
	WAITING,  /* that one is gone; the timer runs */
	CHECKING, /* asking once more, to watch on */
};

struct redis_sentinel {
	struct event_base *base;
	const struct redis_target *target;
	struct redis_sentinel_events on;
	enum mode mode;
	struct event *timer; /* this sentinel's patience, or until the next is asked */
	struct event *turn;  /* the end of the loop's turn: frees what failed, goes on */
	unsigned patience_ms;
	size_t order[REDIS_HOSTS_MAX]; /* of target->hosts: the first is asked first */
	size_t asked;                  /* how many in this round, the one at work included */

	struct redis_lookup *lookup; /* of the sentinel's name, then of the master's */
	struct redis_conn *conn;
	struct redis_places places; /* of the sentinel */
	size_t place;
	char master[300]; /* what was last told, "host:port" */
	char why[400];
};

static void arm(struct event *timer, unsigned ms)
{
	struct timeval after = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000L};

	event_add(timer, &after);
}

static const struct redis_address *current(const struct redis_sentinel *s)
{
	return &s->target->hosts[s->order[0]];
}

static void forget(struct redis_sentinel *s)
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

/* This sentinel is of no use; the end of the turn goes on with the next. */
static void fail(struct redis_sentinel *s, const char *why)
{
	const struct redis_address *host = current(s);

	snprintf(s->why, sizeof(s->why), "sentinel %s:%d: %s", host->host, host->port, why);
	if (s->conn)
		redis_conn_shut(s->conn);
	event_del(s->timer);
	event_active(s->turn, EV_TIMEOUT, 0);
}

/* --- what a sentinel says --- */

static void on_master_places(void *arg, const struct redis_places *places, const char *why)
{
	struct redis_sentinel *s = arg;

	if (!places) {
		fail(s, why);
		return;
	}
	event_del(s->timer);
	s->mode = WATCHING;
	s->why[0] = '\0';
	s->on.found(s->on.arg, places, NULL);
}

static void on_subscribed(void *arg, enum redis_outcome outcome, const redisReply *reply,
			  const char *why)
{
	(void)arg;
	(void)outcome;
	(void)reply;
	(void)why;
}

/* Without it, a master that is cut off from the others but not from us would be ours. */
static bool subscribe(struct redis_sentinel *s)
{
	const char *argv[] = {"SUBSCRIBE", "+switch-master"};
	const size_t lens[] = {9, 14};

	return redis_conn_send(s->conn, on_subscribed, s, 2, argv, lens) == 0;
}

/* Told of a master, in a find or in a check. */
static void told(struct redis_sentinel *s, const char *host, unsigned short port)
{
	char master[sizeof(s->master)], why[400];

	snprintf(master, sizeof(master), "%s:%d", host, port);
	if (s->mode == FINDING) {
		snprintf(s->master, sizeof(s->master), "%s", master);
		s->lookup = redis_lookup_new(s->base, host, port, s->patience_ms, NULL,
					     on_master_places, s);
		if (!s->lookup || !subscribe(s))
			fail(s, "out of memory");
	} else if (strcmp(master, s->master) != 0) {
		snprintf(why, sizeof(why), "the sentinels say that the master is now %s", master);
		s->on.moved(s->on.arg, why);
	} else if (subscribe(s)) {
		event_del(s->timer);
		s->mode = WATCHING;
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
		why = "its answer is none";
	}
	if (why) {
		fail(s, why);
		return;
	}
	host = reply->element[0];
	port = reply->element[1];
	n = port->type == REDIS_REPLY_STRING ? strtol(port->str, NULL, 10) : 0;
	if (host->type != REDIS_REPLY_STRING || host->len > 255 || n <= 0 || n > 65535) {
		fail(s, "its answer is none");
		return;
	}
	redis_fault_words(host->str, words, sizeof(words));
	told(s, words, (unsigned short)n);
}

/* ["message", "+switch-master", "<name> <old ip> <old port> <new ip> <new port>"] */
static bool on_unasked(void *arg, const redisReply *reply)
{
	struct redis_sentinel *s = arg;
	char name[256], host[256], master[sizeof(s->master)], why[400];
	int port;

	if (s->mode != WATCHING || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
	    reply->element[2]->type != REDIS_REPLY_STRING)
		return false;
	if (sscanf(reply->element[2]->str, "%255s %*s %*s %255s %6d", name, host, &port) != 3)
		return false;
	snprintf(master, sizeof(master), "%s:%d", host, port);
	if (strcmp(name, s->target->master) != 0 || strcmp(master, s->master) == 0)
		return true;
	redis_fault_words(master, master, sizeof(master));
	snprintf(why, sizeof(why), "the sentinels say that the master is now %s", master);
	s->on.moved(s->on.arg, why);
	return true;
}

static const char *on_judge(void *arg, const redisReply *reply)
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

	if (redis_conn_send(s->conn, on_answer, s, 3, argv, lens) < 0)
		fail(s, "out of memory");
}

static void on_down(void *arg, const char *why)
{
	fail(arg, why);
}

static void ask_place(struct redis_sentinel *s)
{
	struct redis_conn_events events = {
		.up = on_up, .down = on_down, .judge = on_judge, .unasked = on_unasked, .arg = s};

	s->conn = redis_conn_new(s->base, &s->places.at[s->place++], &events);
	if (!s->conn)
		fail(s, "out of memory or of descriptors");
}

static void on_places(void *arg, const struct redis_places *places, const char *why)
{
	struct redis_sentinel *s = arg;
	struct redis_lookup *lookup = s->lookup;

	if (!places) {
		fail(s, why);
		return;
	}
	s->places = *places;
	s->lookup = NULL;
	redis_lookup_free(lookup);
	ask_place(s);
}

static void ask_first(struct redis_sentinel *s)
{
	const struct redis_address *host = current(s);

	s->asked++;
	s->place = s->places.count = 0;
	arm(s->timer, s->patience_ms);
	s->lookup = redis_lookup_new(s->base, host->host, host->port, s->patience_ms, NULL,
				     on_places, s);
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
	if (s->mode == WAITING) {
		begin(s, CHECKING);
		return;
	}
	s->place = s->places.count; /* its other addresses get no more time */
	fail(s, "no answer in time");
}

/* After fail. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct redis_sentinel *s = arg;

	(void)fd;
	(void)what;
	forget(s);
	if (s->mode != WATCHING && s->place < s->places.count) {
		arm(s->timer, s->patience_ms);
		ask_place(s);
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
		arm(s->timer, WATCH_AGAIN_MS);
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
	event_del(s->turn);
	forget(s);
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
	s->turn = event_new(base, -1, 0, on_turn, s);
	if (s->timer && s->turn)
		return s;
	redis_sentinel_free(s);
	return NULL;
}

void redis_sentinel_free(struct redis_sentinel *s)
{
	if (!s)
		return;
	forget(s);
	if (s->timer)
		event_free(s->timer);
	if (s->turn)
		event_free(s->turn);
	free(s);
}
