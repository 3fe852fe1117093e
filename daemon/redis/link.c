/*
 * The link itself: its timers, which begin an attempt and end one that takes too long; its start
 * and its end; what it tells of itself.
 */
#include "redis/link.h"

#include "base/clock.h"
#include "base/timer.h"
#include "redis/link_private.h"

#include <stdio.h>
#include <stdlib.h>

/* Bounds the log to a handful of lines a minute if the server stays away, or comes and goes. */
#define LOG_LINES        6
#define LOG_LINE_EACH_MS 15000

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

static void on_moved(void *arg, const char *why)
{
	struct redis_link *link = arg;

	/* The other addresses are the old master's, too: none of them is to be tried. Without any,
	 * redis_link_drop does not blame the sentinel, which has just told us better. */
	link->addresses.count = 0;
	redis_link_drop(link, why);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct redis_link *link = arg;

	(void)fd;
	(void)what;
	switch (link->state) {
	case LINK_RESOLVING:
		redis_link_drop(link, link->sentinel && *redis_sentinel_why(link->sentinel)
					      ? redis_sentinel_why(link->sentinel)
					      : "no answer in time to where the server is");
		break;
	case LINK_CONNECTING:
		redis_link_drop(link, "no answer in time");
		break;
	case LINK_HANDSHAKE:
		redis_link_drop(link, "the server lets us in and says nothing");
		break;
	case LINK_SUSPECT:
		redis_link_drop(link, "the server has stopped answering");
		break;
	case LINK_BACKOFF:
		redis_link_begin(link);
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
		redis_link_connect(link);
	else
		redis_link_begin(link);
}

struct redis_link *redis_link_new(struct event_base *base, const struct redis_target *target,
				  const struct redis_link_options *options, struct metrics *metrics,
				  struct log *log)
{
	struct redis_link *link = calloc(1, sizeof(*link));
	struct redis_sentinel_events events = {.found = redis_link_on_addresses,
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
		redis_link_name_labels(metrics);
	redis_link_show_state(link);
	link->since_ms = clock_wall_ms();
	link->away_since_ms = clock_ms();
	snprintf(link->reason, sizeof(link->reason), "not connected yet");
	redis_target_print(target, link->server, sizeof(link->server));
	link->timer = evtimer_new(base, on_timer, link);
	link->watchdog = evtimer_new(base, redis_link_on_watchdog, link);
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
	/* Callbacks that come now may try to send. In this state the link takes nothing. */
	link->conn = NULL;
	link->state = LINK_BACKOFF;
	redis_conn_free(conn, "the daemon is stopping");
	free(link);
}
