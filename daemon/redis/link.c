/*
 * The link's state machine: its timers, its attempts to connect, and what it writes to the log.
 */
#include "redis/link.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/log_state.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "redis/conn.h"
#include "redis/faults.h"
#include "redis/handshake.h"
#include "redis/lookup.h"
#include "redis/sentinel.h"
#include "redis/target.h"

#include <event2/event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

/* The link is suspect when so many operations in a row have missed their deadline. */
#define MISSED_MAX 3
/* A suspect link has so many command timeouts to answer, but at most this long. */
#define SUSPECT_TIMEOUTS 4
#define SUSPECT_MAX_MS   2000

/* The log has a handful of lines a minute for a server that stays away, or comes and goes. */
#define LOG_LINES        6
#define LOG_LINE_EACH_MS 15000
#define LOG_AGAIN_MS     30000

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

	struct event *timer;    /* the state's own: connect, handshake, suspect, backoff, settled */
	struct event *watchdog; /* on the oldest command in flight */
	bool watched;           /* that timer is set */
	/* A timer of zero: frees what ended, begins what is next. */
	struct event *deferred;

	struct redis_lookup *lookup;     /* REDIS_TCP, while RESOLVING */
	struct redis_sentinel *sentinel; /* REDIS_SENTINEL: asks, and watches while READY */
	struct redis_addresses addresses;
	size_t address; /* the one in use */
	size_t tried;   /* in this attempt */
	struct redis_conn *conn;
	struct redis_handshake handshake;
	struct redis_session session; /* of the last connection that was ready */

	unsigned missed;   /* deadlines in a row */
	unsigned failures; /* attempts in a row, for the backoff and the log */
	char sha[41];
	int64_t clock_offset_ms;
	int64_t clock_error_ms;
	char server[512];
	bool cluster;

	int64_t away_since_ms; /* monotonic */
	int64_t logged_ms;     /* monotonic, the last word on being away */
	struct log_state news;
};

/* --- what is written to the log --- */

static void log_ready(struct redis_link *link, enum redis_link_state was)
{
	int64_t away_ms = clock_ms() - link->away_since_ms;

	log_state_say(&link->news, LOG_LEVEL_INFO, "redis_ready",
		      "server=%s away_ms=%lld after=%s attempts=%u",
		      log_quote_text(link->server).text, (long long)away_ms,
		      redis_link_state_name(was), link->failures + 1);
}

/* A line for a new reason at once; for the same reason again, one each LOG_AGAIN_MS. */
static void log_away(struct redis_link *link, enum redis_link_state was, bool other_reason)
{
	int64_t now = clock_ms();

	if (!other_reason && now - link->logged_ms < LOG_AGAIN_MS)
		return;
	link->logged_ms = now;
	log_state_say(&link->news, LOG_LEVEL_WARNING,
		      link->state == LINK_SUSPECT ? "redis_suspect" : "redis_away",
		      "reason=%s was=%s failures=%u", log_quote_text(link->reason).text,
		      redis_link_state_name(was), link->failures);
}

/* --- the state --- */

const char *redis_link_state_name(enum redis_link_state state)
{
	static const char *const names[] = {
		[LINK_RESOLVING] = "resolving", [LINK_CONNECTING] = "connecting",
		[LINK_HANDSHAKE] = "handshake", [LINK_READY] = "ready",
		[LINK_SUSPECT] = "suspect",     [LINK_BACKOFF] = "backoff",
	};

	return names[state];
}

static const char *state_name(unsigned state)
{
	return redis_link_state_name((enum redis_link_state)state);
}
_Static_assert(REDIS_FAILURES <= METRICS_REDIS_FAILURES, "each failure is counted by itself");

static void name_labels(struct metrics *metrics)
{
	metrics->redis_states = (struct metrics_label){state_name, REDIS_LINK_STATES};
	metrics->redis_reasons = (struct metrics_label){redis_failure_label, REDIS_FAILURES};
}

static void show_state(struct redis_link *link)
{
	if (link->metrics)
		link->metrics->redis_state = link->state;
}

/* Every change of state goes through here. `reason` is NULL where the last one stands. */
static void link_enter(struct redis_link *link, enum redis_link_state state, const char *reason)
{
	enum redis_link_state was = link->state;
	bool ready = state == LINK_READY;
	bool other_reason = reason && strcmp(reason, link->reason) != 0;

	/* The look-up and the connect share one timer. */
	if (state != LINK_CONNECTING)
		event_del(link->timer);
	link->state = state;
	show_state(link);
	if (reason && reason != link->reason)
		snprintf(link->reason, sizeof(link->reason), "%s", reason);
	log_debug(link->log, "redis_link", "from=%s to=%s reason=%s", redis_link_state_name(was),
		  redis_link_state_name(state), log_quote_text(link->reason).text);
	if (ready)
		log_ready(link, was);
	else if (state == LINK_BACKOFF || state == LINK_SUSPECT)
		log_away(link, was, other_reason);
	if (ready != (was == LINK_READY)) {
		link->since_ms = clock_wall_ms();
		if (!ready)
			link->away_since_ms = clock_ms();
		if (link->options.on_change)
			link->options.on_change(link->options.arg, ready);
		other_reason = true;
	}
	if (other_reason && link->options.on_news)
		link->options.on_news(link->options.arg);
}

static enum redis_failed_at failed_at(enum redis_link_state state)
{
	switch (state) {
	case LINK_RESOLVING:
		return REDIS_FAILED_LOOKUP;
	case LINK_CONNECTING:
		return REDIS_FAILED_CONNECT;
	case LINK_HANDSHAKE:
		return REDIS_FAILED_HANDSHAKE;
	case LINK_SUSPECT:
		return REDIS_FAILED_UNANSWERED;
	case LINK_READY:
	case LINK_BACKOFF:
		break;
	}
	return REDIS_FAILED_LOST;
}

static void unwatch(struct redis_link *link)
{
	event_del(link->watchdog);
	link->watched = false;
}

/*
 * The attempt, or the connection, has failed. It is shut now. `deferred` frees it, which answers
 * what waits on it: this may be called from its own callback, where it must not be freed.
 */
static void link_drop(struct redis_link *link, const char *reason)
{
	unsigned failure = redis_failure(reason, failed_at(link->state));
	char full[400], where[200];

	if (link->state == LINK_BACKOFF)
		return;
	if (link->conn)
		redis_conn_shut(link->conn);
	unwatch(link);
	timer_arm(link->deferred, 0);
	if (link->state == LINK_CONNECTING || link->state == LINK_HANDSHAKE) {
		redis_address_print(&link->addresses.at[link->address], where, sizeof(where));
		snprintf(full, sizeof(full), "%s%s: %s",
			 link->state == LINK_CONNECTING ? "cannot connect to " : "", where, reason);
		reason = full;
	}
	if (link->was_ready && link->metrics)
		link->metrics->redis_disconnects++;
	/* Begin with another address the next time. Where this one refused us and there is time
	 * left, try the others at once. */
	if (!link->was_ready && link->addresses.count > 0) {
		link->address = (link->address + 1) % link->addresses.count;
		if (link->sentinel)
			redis_sentinel_distrust(link->sentinel);
	}
	link->was_ready = false;
	if (link->state == LINK_CONNECTING && ++link->tried < link->addresses.count &&
	    event_pending(link->timer, EV_TIMEOUT, NULL))
		return;
	link->failures++;
	if (link->metrics)
		link->metrics->redis_failures[failure]++;
	link_enter(link, LINK_BACKOFF, reason);
}

/* Full jitter: a random wait from 0 to a bound, which doubles with each failure. */
static int64_t backoff_ms(const struct redis_link *link)
{
	uint64_t bound = link->options.backoff_min_ms;
	uint32_t random;

	for (unsigned n = 1; n < link->failures && bound < link->options.backoff_max_ms; n++)
		bound *= 2;
	if (bound > link->options.backoff_max_ms)
		bound = link->options.backoff_max_ms;
	evutil_secure_rng_get_bytes(&random, sizeof(random));
	return (int64_t)(random % (bound + 1));
}

/* --- commands --- */

static void watch_for(struct redis_link *link, int64_t ms)
{
	link->watched = timer_arm(link->watchdog, ms) == 0;
}

static void watch(struct redis_link *link)
{
	if (link->state == LINK_READY && !link->watched && redis_conn_waiting(link->conn) > 0)
		watch_for(link, link->options.command_timeout_ms);
}

static void link_ready(struct redis_link *link)
{
	link->missed = 0;
	link_enter(link, LINK_READY, "");
	/* When this fires the connection has lasted: the failures before it no longer count. */
	timer_arm(link->timer, link->options.backoff_max_ms);
	watch(link);
}

static void on_pong(void *arg, enum redis_outcome outcome, const redisReply *reply, const char *why)
{
	struct redis_link *link = arg;

	(void)reply;
	(void)why;
	if (outcome == REDIS_REPLY && link->state == LINK_SUSPECT)
		link_ready(link);
}

/* Answers that still come go to their own callbacks. The answer to the PING is behind all of them:
 * if it comes in time, the link is ready again. */
static void link_suspect(struct redis_link *link, const char *reason)
{
	int64_t patience = (int64_t)link->options.command_timeout_ms * SUSPECT_TIMEOUTS;
	const char *argv[] = {"PING"};
	const size_t lens[] = {4};

	unwatch(link);
	if (!redis_conn_send(link->conn, on_pong, link, 1, argv, lens)) {
		link_drop(link, reason);
		return;
	}
	link_enter(link, LINK_SUSPECT, reason);
	timer_arm(link->timer, patience < SUSPECT_MAX_MS ? patience : SUSPECT_MAX_MS);
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	struct redis_link *link = arg;
	int64_t silent_ms;

	(void)fd;
	(void)what;
	link->watched = false;
	if (link->state != LINK_READY || redis_conn_waiting(link->conn) == 0)
		return;
	silent_ms = clock_ms() - redis_conn_silent_since_ms(link->conn);
	if (silent_ms < (int64_t)link->options.command_timeout_ms)
		watch_for(link, (int64_t)link->options.command_timeout_ms - silent_ms);
	else
		link_suspect(link, "the server leaves commands unanswered");
}

/* The connection shows each answer here before its own callback. */
static const char *on_check_reply(void *arg, const redisReply *reply)
{
	struct redis_link *link = arg;
	const char *fault;

	link->missed = 0;
	if (link->state == LINK_HANDSHAKE)
		return NULL;
	fault = redis_fault(reply);
	if (fault)
		link_drop(link, fault);
	return fault;
}

static void on_answered(void *arg)
{
	struct redis_link *link = arg;

	if (link->options.on_answered)
		link->options.on_answered(link->options.arg);
}

void redis_link_flush(struct redis_link *link)
{
	if (link->conn)
		redis_conn_flush(link->conn);
}

struct redis_command *redis_link_send(struct redis_link *link, redis_reply_fn *fn, void *arg,
				      int argc, const char **argv, const size_t *argvlen)
{
	struct redis_command *command;

	if (link->state != LINK_READY)
		return NULL;
	command = redis_conn_send(link->conn, fn, arg, argc, argv, argvlen);
	if (command)
		watch(link);
	return command;
}

void redis_link_missed(struct redis_link *link, bool sent, unsigned timeout_ms)
{
	if (link->state != LINK_READY)
		return;
	if (!sent && (redis_conn_waiting(link->conn) == 0 ||
		      clock_ms() - redis_conn_silent_since_ms(link->conn) < (int64_t)timeout_ms))
		return;
	if (++link->missed >= MISSED_MAX)
		link_suspect(link, "the server is too slow to answer in time");
}

/* --- from nothing to ready --- */

static void describe_server(struct redis_link *link)
{
	const struct redis_server *server = &link->handshake.server;
	char where[200];

	redis_address_print(&link->addresses.at[link->address], where, sizeof(where));
	snprintf(link->server, sizeof(link->server), "%s%s%s at %s", server->name,
		 server->version[0] ? " " : "", server->version, where);
}

static void on_handshake(void *arg, const char *why)
{
	struct redis_link *link = arg;
	const struct redis_server *server = &link->handshake.server;

	if (why) {
		link_drop(link, why);
		return;
	}
	memcpy(link->sha, server->sha, sizeof(link->sha));
	if (server->has_clock) {
		link->clock_offset_ms = server->clock_offset_ms;
		link->clock_error_ms = server->clock_error_ms;
	}
	link->cluster = server->cluster;
	link->session = server->session;
	describe_server(link);
	link->was_ready = true;
	if (link->metrics)
		link->metrics->redis_connects++;
	link_ready(link);
}

static void on_up(void *arg)
{
	struct redis_link *link = arg;

	link_enter(link, LINK_HANDSHAKE, NULL);
	timer_arm(link->timer, link->options.handshake_timeout_ms);
	if (redis_handshake_begin(&link->handshake, link->conn, &link->target, link->options.script,
				  &link->session, on_handshake, link) < 0)
		link_drop(link, "out of memory");
}

static void on_down(void *arg, const char *why)
{
	link_drop(arg, why);
}

static void link_connect(struct redis_link *link)
{
	struct redis_conn_events events = {.up = on_up,
					   .down = on_down,
					   .check_reply = on_check_reply,
					   .answered = on_answered,
					   .arg = link};

	if (link->state != LINK_CONNECTING)
		link_enter(link, LINK_CONNECTING, NULL);
	link->conn = redis_conn_new(link->base, &link->addresses.at[link->address], &events);
	if (!link->conn)
		link_drop(link, "out of memory or of descriptors");
}

static void on_addresses(void *arg, const struct redis_addresses *addresses, const char *why)
{
	struct redis_link *link = arg;

	if (!addresses) {
		link_drop(link, why);
		return;
	}
	link->addresses = *addresses;
	link->address %= addresses->count;
	timer_arm(link->deferred, 0);
}

static void unix_address(struct redis_link *link)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&link->addresses.at[0].sockaddr;

	memset(&link->addresses, 0, sizeof(link->addresses));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, link->target.path, sizeof(link->target.path));
	link->addresses.at[0].len = sizeof(*un);
	link->addresses.count = 1;
	link->address = 0;
}

static void on_moved(void *arg, const char *why)
{
	link_drop(arg, why);
}

static void link_begin(struct redis_link *link)
{
	const struct redis_host *host = &link->target.hosts[0];
	unsigned patience_ms = link->options.connect_timeout_ms / 3;

	link->tried = 0;
	link->addresses.count = 0;
	link_enter(link, LINK_RESOLVING, NULL);
	timer_arm(link->timer, link->options.connect_timeout_ms);
	if (link->target.kind == REDIS_UNIX) {
		unix_address(link);
		link_connect(link);
		return;
	}
	if (link->sentinel) {
		redis_sentinel_find(link->sentinel, patience_ms);
		return;
	}
	link->lookup = redis_lookup_new(link->base, host->host, host->port, patience_ms, NULL,
					on_addresses, link);
	if (!link->lookup)
		link_drop(link, "out of memory");
}

/* --- the loop's side --- */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct redis_link *link = arg;

	(void)fd;
	(void)what;
	switch (link->state) {
	case LINK_RESOLVING:
		link_drop(link, link->sentinel && *redis_sentinel_why(link->sentinel)
					? redis_sentinel_why(link->sentinel)
					: "no answer in time to where the server is");
		break;
	case LINK_CONNECTING:
		link_drop(link, "no answer in time");
		break;
	case LINK_HANDSHAKE:
		link_drop(link, "the server lets us in and says nothing");
		break;
	case LINK_SUSPECT:
		link_drop(link, "the server has stopped answering");
		break;
	case LINK_BACKOFF:
		link_begin(link);
		break;
	case LINK_READY:
		link->failures = 0;
		break;
	}
}

static void on_deferred(evutil_socket_t fd, short what, void *arg)
{
	struct redis_link *link = arg;
	struct redis_conn *conn = link->conn;
	struct redis_lookup *lookup = link->lookup;

	(void)fd;
	(void)what;
	link->conn = NULL;
	link->lookup = NULL;
	redis_lookup_free(lookup);
	if (link->sentinel && link->state == LINK_BACKOFF)
		redis_sentinel_stop(link->sentinel);
	redis_conn_free(conn, link->reason);
	if (link->state == LINK_BACKOFF)
		timer_arm(link->timer, backoff_ms(link));
	else if (link->addresses.count > 0)
		link_connect(link);
	else
		link_begin(link);
}

struct redis_link *redis_link_new(struct event_base *base, const struct redis_target *target,
				  const struct redis_link_options *options, struct metrics *metrics,
				  struct log *log)
{
	struct redis_link *link = calloc(1, sizeof(*link));
	struct redis_sentinel_events events = {.found = on_addresses,
					       .moved = on_moved,
					       .arg = link};

	if (!link)
		return NULL;
	link->base = base;
	link->target = *target;
	link->options = *options;
	link->metrics = metrics;
	link->log = log;
	link->state = LINK_RESOLVING;
	if (metrics)
		name_labels(metrics);
	show_state(link);
	link->since_ms = clock_wall_ms();
	link->away_since_ms = clock_ms();
	snprintf(link->reason, sizeof(link->reason), "not connected yet");
	redis_target_print(target, link->server, sizeof(link->server));
	link->timer = evtimer_new(base, on_timer, link);
	link->watchdog = evtimer_new(base, on_watchdog, link);
	link->deferred = evtimer_new(base, on_deferred, link);
	if (target->kind == REDIS_SENTINEL)
		link->sentinel = redis_sentinel_new(base, &link->target, &events);
	if (!link->timer || !link->watchdog || !link->deferred ||
	    log_state_init(&link->news, base, log, "redis_link", LOG_LINES, LOG_LINE_EACH_MS) < 0 ||
	    (target->kind == REDIS_SENTINEL && !link->sentinel)) {
		redis_link_free(link);
		return NULL;
	}
	timer_arm(link->deferred, 0);
	return link;
}

bool redis_link_ready(const struct redis_link *link)
{
	return link->state == LINK_READY;
}

const char *redis_link_sha(const struct redis_link *link)
{
	return link->sha;
}

void redis_link_forget_sha(struct redis_link *link)
{
	link->sha[0] = '\0';
}

int64_t redis_link_clock_offset_ms(const struct redis_link *link, int64_t *error_ms)
{
	*error_ms = link->clock_error_ms;
	return link->clock_offset_ms;
}

enum redis_link_state redis_link_state(const struct redis_link *link)
{
	return link->state;
}

const char *redis_link_reason(const struct redis_link *link)
{
	return link->reason;
}

int64_t redis_link_since_ms(const struct redis_link *link)
{
	return link->since_ms;
}

const char *redis_link_server(const struct redis_link *link)
{
	return link->server;
}

const struct redis_address *redis_link_address(const struct redis_link *link)
{
	return &link->addresses.at[link->address];
}

bool redis_link_cluster(const struct redis_link *link)
{
	return link->cluster;
}

void redis_link_free(struct redis_link *link)
{
	struct redis_conn *conn = link->conn;

	if (link->timer)
		event_free(link->timer);
	if (link->watchdog)
		event_free(link->watchdog);
	if (link->deferred)
		event_free(link->deferred);
	log_state_fini(&link->news);
	redis_lookup_free(link->lookup);
	redis_sentinel_free(link->sentinel);
	/* Callbacks that come now may send: the link takes nothing in this state. */
	link->conn = NULL;
	link->state = LINK_BACKOFF;
	redis_conn_free(conn, "the daemon is stopping");
	free(link);
}
