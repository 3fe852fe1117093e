/*
 * Commands on a ready link, and what they tell of the server's clock. The link becomes suspect when
 * the oldest command in flight is not answered in time (the watchdog), or when several deadlines in
 * a row are missed. A PING then decides.
 */
#include "base/clock.h"
#include "base/timer.h"
#include "redis/faults.h"
#include "redis/link_private.h"
#include "redis/server_time.h"

#include <stdlib.h>

/* The link is suspect when this many operations in a row have missed their deadline. */
#define MISSED_MAX 3
/* A suspect link has this many command timeouts to answer, but at most SUSPECT_MAX_MS. */
#define SUSPECT_TIMEOUTS 4
#define SUSPECT_MAX_MS   2000
/* How often the server's clock is measured, while commands are sent anyway. */
#define CLOCK_EACH_MS 1000

static void watch_for(struct redis_link *link, int64_t ms)
{
	link->watched = timer_arm(link->watchdog, ms) == 0;
}

static void watch(struct redis_link *link)
{
	if (link->state == LINK_READY && !link->watched && redis_conn_waiting(link->conn) > 0)
		watch_for(link, link->options.command_timeout_ms);
}

void redis_link_enter_ready(struct redis_link *link)
{
	link->missed = 0;
	redis_link_enter(link, LINK_READY, "");
	/* When this fires the connection has lasted, and earlier failures no longer count. */
	timer_arm(link->timer, link->options.backoff_max_ms);
	watch(link);
}

static void on_pong(void *arg, enum redis_outcome outcome, const redisReply *reply, const char *why)
{
	struct redis_link *link = arg;

	(void)reply;
	(void)why;
	if (outcome == REDIS_REPLY && link->state == LINK_SUSPECT)
		redis_link_enter_ready(link);
}

/* Sends a PING. Answers that still come go to their callbacks; the answer to the PING comes after
 * all of them. If it comes in time, the link is ready again. */
static void link_suspect(struct redis_link *link, const char *reason)
{
	int64_t patience = (int64_t)link->options.command_timeout_ms * SUSPECT_TIMEOUTS;
	const char *argv[] = {"PING"};
	const size_t lens[] = {4};

	redis_link_unwatch(link);
	if (!redis_conn_send(link->conn, on_pong, link, 1, argv, lens)) {
		redis_link_drop(link, reason);
		return;
	}
	redis_link_enter(link, LINK_SUSPECT, reason);
	timer_arm(link->timer, patience < SUSPECT_MAX_MS ? patience : SUSPECT_MAX_MS);
}

void redis_link_on_watchdog(evutil_socket_t fd, short what, void *arg)
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

const char *redis_link_check_reply(void *arg, const redisReply *reply)
{
	struct redis_link *link = arg;

	link->missed = 0;
	return link->state == LINK_HANDSHAKE ? NULL : redis_fault(reply);
}

/* What waits for the link ends now, behind the operation that was refused. */
void redis_link_on_refused(void *arg, const char *why)
{
	redis_link_drop(arg, why);
}

bool redis_link_busy(const struct redis_link *link)
{
	return link->conn && redis_conn_busy(link->conn);
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

/* --- the clock --- */

void redis_link_clock_measured(struct redis_link *link, int64_t offset_ms, int64_t error_ms)
{
	link->clock_offset_ms = offset_ms;
	link->clock_error_ms = error_ms;
	link->clock_due_ms = clock_ms() + CLOCK_EACH_MS;
}

/* A measurement less exact than the last, over a slower round trip, is taken only if the two
 * contradict each other: then a clock was set, or has drifted. */
void redis_link_told_clock(struct redis_link *link, int64_t asked_ms, int64_t there_ms)
{
	int64_t offset_ms, error_ms;

	if (clock_ms() < link->clock_due_ms)
		return;
	offset_ms = redis_server_clock_offset_ms(asked_ms, there_ms, &error_ms);
	if (error_ms > link->clock_error_ms &&
	    llabs(offset_ms - link->clock_offset_ms) <= error_ms + link->clock_error_ms) {
		offset_ms = link->clock_offset_ms;
		error_ms = link->clock_error_ms;
	}
	redis_link_clock_measured(link, offset_ms, error_ms);
}

static void on_time(void *arg, enum redis_outcome outcome, const redisReply *reply, const char *why)
{
	struct redis_link *link = arg;
	int64_t there_ms;

	(void)why;
	link->clock_asked = false;
	if (outcome == REDIS_REPLY && redis_server_time(reply, &there_ms))
		redis_link_told_clock(link, link->clock_asked_ms, there_ms);
	else if (outcome == REDIS_REPLY)
		link->clock_due_ms = INT64_MAX;
}

void redis_link_measure_clock(struct redis_link *link)
{
	const char *argv[] = {"TIME"};
	const size_t lens[] = {4};
	int64_t now = clock_ms();

	if (link->clock_asked || now < link->clock_due_ms)
		return;
	link->clock_asked_ms = now;
	link->clock_asked = redis_link_send(link, on_time, link, 1, argv, lens) != NULL;
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
