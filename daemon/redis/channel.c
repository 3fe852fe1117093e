/*
 * The channel's connection: connect, handshake, subscribe, then listen. Whatever fails ends the
 * connection, and the next one is tried after a pause.
 */
#include "redis/channel.h"

#include "base/log.h"
#include "base/random.h"
#include "base/timer.h"
#include "redis/conn.h"
#include "redis/handshake.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Connect, handshake and subscription together. */
#define BEGIN_MS 2000
/* How often the server is asked for a sign of life, and how long it has to answer. This is long, so
 * that an idle daemon is seldom woken: TCP's keepalive finds a host that is gone earlier. */
#define ASK_MS 10000
/* A pause is a random time up to a bound, which doubles from PAUSE_MIN_MS to PAUSE_MAX_MS. */
#define PAUSE_MIN_MS 20
#define PAUSE_MAX_MS 10000
/* A server that forbids it or is not there is logged this often. */
#define LOG_EACH_MS 60000

enum channel_state {
	CHANNEL_IDLE, /* no server is given */
	CHANNEL_BEGINS,
	CHANNEL_STANDS,
	CHANNEL_PAUSES,
};

struct redis_channel {
	struct event_base *base;
	const struct redis_target *target;
	struct redis_channel_events on;
	struct log *log;
	enum channel_state state;
	struct redis_address address;
	struct redis_conn *conn;
	struct redis_handshake handshake;
	struct event *timer;    /* the state's own */
	struct event *deferred; /* a timer of zero: frees the connection that failed */
	unsigned pause_ms;      /* the bound of the next pause */
	struct random_state random;
	struct log_limit away_lines;
	char name[];
};

static void set_state(struct redis_channel *channel, enum channel_state state)
{
	bool stood = channel->state == CHANNEL_STANDS;

	channel->state = state;
	if (stood != (state == CHANNEL_STANDS) && channel->on.change)
		channel->on.change(channel->on.arg, !stood);
}

/* The connection has failed: it is shut now, and `deferred` frees it. */
static void fail(struct redis_channel *channel, const char *why)
{
	if (channel->state == CHANNEL_PAUSES || channel->state == CHANNEL_IDLE)
		return;
	if (log_allows_one(channel->log, &channel->away_lines, LOG_LEVEL_WARNING, "events_away",
			   LOG_EACH_MS))
		log_warning(channel->log, "events_away", "channel=%s reason=%s",
			    log_quote_text(channel->name).text, log_quote_text(why).text);
	if (channel->conn)
		redis_conn_shut(channel->conn);
	event_del(channel->timer);
	set_state(channel, CHANNEL_PAUSES);
	timer_arm(channel->deferred, 0);
}

static void on_shaken(void *arg, const char *why)
{
	struct redis_channel *channel = arg;

	if (why)
		fail(channel, why);
	else if (redis_conn_subscribe(channel->conn, channel->name) != 0)
		fail(channel, "out of memory");
}

static void on_up(void *arg)
{
	struct redis_channel *channel = arg;

	if (redis_handshake_begin(&channel->handshake, channel->conn, channel->target, NULL, NULL,
				  on_shaken, channel) != 0)
		fail(channel, "out of memory");
}

static void on_down(void *arg, const char *why)
{
	fail(arg, why);
}

static void on_subscribed(void *arg)
{
	struct redis_channel *channel = arg;

	if (channel->state != CHANNEL_BEGINS)
		return;
	channel->pause_ms = PAUSE_MIN_MS;
	timer_arm(channel->timer, ASK_MS);
	set_state(channel, CHANNEL_STANDS);
}

static void on_message(void *arg, const char *text, size_t len)
{
	struct redis_channel *channel = arg;

	if (channel->state == CHANNEL_STANDS)
		channel->on.message(channel->on.arg, text, len);
}

static void begin(struct redis_channel *channel)
{
	struct redis_conn_events events = {.up = on_up,
					   .down = on_down,
					   .subscribed = on_subscribed,
					   .message = on_message,
					   .arg = channel};

	channel->state = CHANNEL_BEGINS;
	timer_arm(channel->timer, BEGIN_MS);
	channel->conn = redis_conn_new(channel->base, &channel->address, &events);
	if (!channel->conn)
		fail(channel, "out of memory or of descriptors");
}

static void drop_connection(struct redis_channel *channel)
{
	struct redis_conn *conn = channel->conn;

	channel->conn = NULL;
	redis_conn_free(conn, "");
}

static void on_deferred(evutil_socket_t fd, short what, void *arg)
{
	struct redis_channel *channel = arg;

	(void)fd;
	(void)what;
	drop_connection(channel);
	if (channel->state != CHANNEL_PAUSES)
		return;
	timer_arm(channel->timer, (int64_t)random_below(&channel->random, channel->pause_ms));
	channel->pause_ms *= 2;
	if (channel->pause_ms > PAUSE_MAX_MS)
		channel->pause_ms = PAUSE_MAX_MS;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct redis_channel *channel = arg;

	(void)fd;
	(void)what;
	if (channel->state == CHANNEL_PAUSES)
		begin(channel);
	else if (channel->state == CHANNEL_BEGINS)
		fail(channel, "no answer in time");
	else if (redis_conn_waiting(channel->conn) > 0 ||
		 redis_conn_subscribe(channel->conn, channel->name) != 0)
		fail(channel, "it has stopped answering");
	else
		timer_arm(channel->timer, ASK_MS);
}

void redis_channel_follow(struct redis_channel *channel, const struct redis_address *address)
{
	event_del(channel->timer);
	event_del(channel->deferred);
	if (channel->conn)
		redis_conn_shut(channel->conn);
	set_state(channel, CHANNEL_IDLE);
	if (!address) {
		/* Not freed here: this may run inside a callback of the connection. */
		timer_arm(channel->deferred, 0);
		return;
	}
	channel->address = *address;
	channel->pause_ms = PAUSE_MIN_MS;
	channel->state = CHANNEL_PAUSES;
	timer_arm(channel->deferred, 0);
}

bool redis_channel_stands(const struct redis_channel *channel)
{
	return channel->state == CHANNEL_STANDS;
}

struct redis_channel *redis_channel_new(struct event_base *base, const struct redis_target *target,
					const char *name, const struct redis_channel_events *events,
					struct log *log)
{
	size_t size = strlen(name) + 1;
	struct redis_channel *channel = calloc(1, sizeof(*channel) + size);

	if (!channel)
		return NULL;
	memcpy(channel->name, name, size);
	channel->base = base;
	channel->target = target;
	channel->on = *events;
	channel->log = log;
	random_init(&channel->random);
	channel->timer = evtimer_new(base, on_timer, channel);
	channel->deferred = evtimer_new(base, on_deferred, channel);
	if (channel->timer && channel->deferred)
		return channel;
	redis_channel_free(channel);
	return NULL;
}

void redis_channel_free(struct redis_channel *channel)
{
	if (!channel)
		return;
	drop_connection(channel);
	if (channel->timer)
		event_free(channel->timer);
	if (channel->deferred)
		event_free(channel->deferred);
	free(channel);
}
