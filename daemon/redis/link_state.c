/*
 * Every change of the link's state: its timers, its log lines, its callbacks.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "redis/faults.h"
#include "redis/link_private.h"

#include <stdio.h>
#include <string.h>

/* While the reason stays the same, a line is logged this often. */
#define LOG_AGAIN_MS 30000

/* --- what is written to the log --- */

static void log_ready(struct redis_link *link, enum redis_link_state was)
{
	int64_t away_ms = clock_ms() - link->away_since_ms;

	log_state_say(&link->news, LOG_LEVEL_INFO, "redis_ready",
		      "server=%s away_ms=%lld after=%s attempts=%u",
		      log_quote_text(link->server).text, (long long)away_ms,
		      redis_link_state_name(was), link->failures + 1);
}

/* A new reason is logged at once; the same reason again each LOG_AGAIN_MS. */
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

void redis_link_name_labels(struct metrics *metrics)
{
	metrics->redis_states = (struct metrics_label){state_name, REDIS_LINK_STATES};
	metrics->redis_reasons = (struct metrics_label){redis_failure_label, REDIS_FAILURES};
}

void redis_link_show_state(struct redis_link *link)
{
	if (link->metrics)
		link->metrics->redis_state = link->state;
}

void redis_link_enter(struct redis_link *link, enum redis_link_state state, const char *reason)
{
	enum redis_link_state was = link->state;
	bool ready = state == LINK_READY;
	bool other_reason = reason && strcmp(reason, link->reason) != 0;

	/* The look-up and the connect share one timer. */
	if (state != LINK_CONNECTING)
		event_del(link->timer);
	link->state = state;
	redis_link_show_state(link);
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

void redis_link_unwatch(struct redis_link *link)
{
	event_del(link->watchdog);
	link->watched = false;
}

void redis_link_drop(struct redis_link *link, const char *reason)
{
	unsigned failure = redis_failure(reason, failed_at(link->state));
	char full[400], where[200];

	if (link->state == LINK_BACKOFF)
		return;
	if (link->conn)
		redis_conn_shut(link->conn);
	redis_link_unwatch(link);
	timer_arm(link->deferred, 0);
	if (link->state == LINK_CONNECTING || link->state == LINK_HANDSHAKE) {
		redis_address_print(&link->addresses.at[link->address], where, sizeof(where));
		snprintf(full, sizeof(full), "%s%s: %s",
			 link->state == LINK_CONNECTING ? "cannot connect to " : "", where, reason);
		reason = full;
	}
	if (link->was_ready && link->metrics)
		link->metrics->redis_disconnects++;
	/* The next attempt begins with another address. If connecting failed and there is time
	 * left, the other addresses are tried at once. */
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
	redis_link_enter(link, LINK_BACKOFF, reason);
}
