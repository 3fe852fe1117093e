#include "fake_redis.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <unistd.h>

#define RULES_MAX 16

struct rule {
	const char *command;
	const char *answer;
	enum fake_then then;
};

struct peer {
	struct fake_redis *fake;
	struct bufferevent *bev;
	redisReader *reader;
	struct evbuffer *held; /* replies held back (FAKE_HOLD) or sent byte by byte (FAKE_DRIP) */
	struct event *drip;
	bool holds;
	bool closing;
	TAILQ_ENTRY(peer) entry;
};

struct fake_redis {
	struct event_base *base;
	struct evconnlistener *listener;
	TAILQ_HEAD(, peer) peers;
	struct rule rules[RULES_MAX];
	size_t rule_count;
	const char *greeting;
	bool close_at_once;
	bool silent;
	bool ipv6;
	int port;
	unsigned accepted;
	unsigned calls; /* EVAL and EVALSHA */
	char heard[4096];
};

static const struct rule defaults[] = {
	{"ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", FAKE_STAY},
	{"INFO", "$22\r\nredis_version:7.0.15\r\n\r\n", FAKE_STAY},
	{"PING", "+PONG\r\n", FAKE_STAY},
	{"SCRIPT", "$40\r\n" FAKE_SHA "\r\n", FAKE_STAY},
	{"TIME", "*2\r\n$10\r\n4000000000\r\n$6\r\n500000\r\n", FAKE_STAY},
	{NULL, "+OK\r\n", FAKE_STAY},
};

static void peer_free(struct peer *peer)
{
	TAILQ_REMOVE(&peer->fake->peers, peer, entry);
	bufferevent_free(peer->bev);
	redisReaderFree(peer->reader);
	evbuffer_free(peer->held);
	event_free(peer->drip);
	free(peer);
}

static const struct rule *rule_of(const struct fake_redis *fake, const char *command)
{
	const struct rule *rule = defaults;

	for (size_t i = fake->rule_count; i-- > 0;)
		if (strcasecmp(fake->rules[i].command, command) == 0)
			return &fake->rules[i];
	while (rule->command && strcasecmp(rule->command, command) != 0)
		rule++;
	return rule;
}

static void drip_soon(struct peer *peer)
{
	struct timeval soon = {.tv_usec = 1000};

	event_add(peer->drip, &soon);
}

static void on_drip(evutil_socket_t fd, short what, void *arg)
{
	struct peer *peer = arg;
	char byte;

	(void)fd;
	(void)what;
	if (evbuffer_remove(peer->held, &byte, 1) != 1)
		return;
	bufferevent_write(peer->bev, &byte, 1);
	drip_soon(peer);
}

static void hear(struct fake_redis *fake, const redisReply *command)
{
	size_t at = strlen(fake->heard);

	for (size_t i = 0; i < command->elements && at < sizeof(fake->heard); i++)
		at += (size_t)snprintf(fake->heard + at, sizeof(fake->heard) - at, "%s%s",
				       i > 0 ? " " : "", command->element[i]->str);
	if (at < sizeof(fake->heard))
		snprintf(fake->heard + at, sizeof(fake->heard) - at, "|");
}

static void answer(struct peer *peer, const redisReply *command)
{
	const struct rule *rule = rule_of(peer->fake, command->element[0]->str);
	struct evbuffer *out = bufferevent_get_output(peer->bev);

	hear(peer->fake, command);
	if (strncasecmp(command->element[0]->str, "EVAL", 4) == 0)
		peer->fake->calls++;
	if (rule->then == FAKE_HOLD)
		peer->holds = true;
	if (rule->then == FAKE_DRIP)
		drip_soon(peer);
	if (peer->holds || event_pending(peer->drip, EV_TIMEOUT, NULL))
		out = peer->held;
	if (rule->answer)
		evbuffer_add(out, rule->answer, strlen(rule->answer));
	if (rule->then == FAKE_CLOSE)
		peer->closing = true;
}

static void on_written(struct bufferevent *bev, void *arg)
{
	struct peer *peer = arg;

	if (peer->closing && evbuffer_get_length(bufferevent_get_output(bev)) == 0)
		peer_free(peer);
}

static void on_readable(struct bufferevent *bev, void *arg)
{
	struct peer *peer = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	void *command = NULL;

	redisReaderFeed(peer->reader, (char *)evbuffer_pullup(in, -1), evbuffer_get_length(in));
	evbuffer_drain(in, evbuffer_get_length(in));
	while (!peer->closing && redisReaderGetReply(peer->reader, &command) == REDIS_OK &&
	       command) {
		answer(peer, command);
		freeReplyObject(command);
	}
	on_written(bev, peer);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		peer_free(arg);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
		      int len, void *arg)
{
	struct fake_redis *fake = arg;
	struct peer *peer = calloc(1, sizeof(*peer));

	(void)listener;
	(void)address;
	(void)len;
	ck_assert_ptr_nonnull(peer);
	fake->accepted++;
	fake->heard[0] = '\0';
	peer->fake = fake;
	peer->bev = bufferevent_socket_new(fake->base, fd, BEV_OPT_CLOSE_ON_FREE);
	peer->reader = redisReaderCreate();
	peer->held = evbuffer_new();
	peer->drip = evtimer_new(fake->base, on_drip, peer);
	TAILQ_INSERT_TAIL(&fake->peers, peer, entry);
	bufferevent_setcb(peer->bev, on_readable, on_written, on_event, peer);
	bufferevent_enable(peer->bev, EV_WRITE | (fake->silent ? 0 : EV_READ));
	if (fake->greeting)
		bufferevent_write(peer->bev, fake->greeting, strlen(fake->greeting));
	peer->closing = fake->close_at_once;
	on_written(peer->bev, peer);
}

/* False if the listener cannot be bound, for example because the host has no ::1. */
static bool start(struct fake_redis *fake)
{
	in_port_t port = htons((in_port_t)fake->port);
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = port,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
				   .sin6_port = port,
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr *address = fake->ipv6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
	socklen_t len = fake->ipv6 ? sizeof(in6) : sizeof(in);

	fake->listener = evconnlistener_new_bind(fake->base, on_accept, fake,
						 LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 16,
						 address, (int)len);
	if (!fake->listener)
		return false;
	getsockname(evconnlistener_get_fd(fake->listener), address, &len);
	fake->port = ntohs(fake->ipv6 ? in6.sin6_port : in.sin_port);
	return true;
}

void fake_redis_start(struct fake_redis *fake)
{
	ck_assert(start(fake));
}

/* NULL, and errno says why, if it cannot listen. */
static struct fake_redis *new_at(struct event_base *base, bool ipv6, int port)
{
	struct fake_redis *fake = calloc(1, sizeof(*fake));

	ck_assert_ptr_nonnull(fake);
	fake->base = base;
	fake->ipv6 = ipv6;
	fake->port = port;
	TAILQ_INIT(&fake->peers);
	if (start(fake))
		return fake;
	free(fake);
	return NULL;
}

struct fake_redis *fake_redis_new(struct event_base *base)
{
	struct fake_redis *fake = new_at(base, false, 0);

	ck_assert_ptr_nonnull(fake);
	return fake;
}

struct fake_redis *fake_redis_new_on_ipv6(struct event_base *base, int *ipv4)
{
	struct fake_redis *fake;

	do {
		struct sockaddr_in in = {.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t len = sizeof(in);

		*ipv4 = socket(AF_INET, SOCK_STREAM, 0);
		ck_assert_int_eq(bind(*ipv4, (struct sockaddr *)&in, len), 0);
		getsockname(*ipv4, (struct sockaddr *)&in, &len);
		fake = new_at(base, true, ntohs(in.sin_port));
		if (!fake)
			close(*ipv4);
	} while (!fake && errno == EADDRINUSE);
	return fake;
}

void fake_redis_close_all(struct fake_redis *fake)
{
	while (!TAILQ_EMPTY(&fake->peers))
		peer_free(TAILQ_FIRST(&fake->peers));
}

void fake_redis_stop(struct fake_redis *fake)
{
	if (fake->listener)
		evconnlistener_free(fake->listener);
	fake->listener = NULL;
	fake_redis_close_all(fake);
}

void fake_redis_free(struct fake_redis *fake)
{
	fake_redis_stop(fake);
	free(fake);
}

int fake_redis_port(const struct fake_redis *fake)
{
	return fake->port;
}

void fake_redis_greet(struct fake_redis *fake, const char *bytes, bool then_close)
{
	fake->greeting = bytes;
	fake->close_at_once = then_close;
}

void fake_redis_silence(struct fake_redis *fake, bool silent)
{
	struct peer *peer;

	fake->silent = silent;
	TAILQ_FOREACH (peer, &fake->peers, entry) {
		if (silent)
			bufferevent_disable(peer->bev, EV_READ);
		else
			bufferevent_enable(peer->bev, EV_READ);
	}
}

void fake_redis_on(struct fake_redis *fake, const char *command, const char *text,
		   enum fake_then then)
{
	ck_assert_uint_lt(fake->rule_count, RULES_MAX);
	fake->rules[fake->rule_count++] =
		(struct rule){.command = command, .answer = text, .then = then};
}

void fake_redis_normal(struct fake_redis *fake)
{
	fake->rule_count = 0;
	fake_redis_greet(fake, NULL, false);
	fake_redis_silence(fake, false);
}

void fake_redis_say(struct fake_redis *fake, const char *bytes)
{
	struct peer *peer;

	TAILQ_FOREACH (peer, &fake->peers, entry) {
		bufferevent_write(peer->bev, bytes, strlen(bytes));
	}
}

void fake_redis_release(struct fake_redis *fake)
{
	struct peer *peer;

	TAILQ_FOREACH (peer, &fake->peers, entry) {
		peer->holds = false;
		bufferevent_write_buffer(peer->bev, peer->held);
	}
}

unsigned fake_redis_accepted(const struct fake_redis *fake)
{
	return fake->accepted;
}

size_t fake_redis_open(const struct fake_redis *fake)
{
	struct peer *peer;
	size_t n = 0;

	TAILQ_FOREACH (peer, &fake->peers, entry) {
		n++;
	}
	return n;
}

const char *fake_redis_heard(const struct fake_redis *fake)
{
	return fake->heard;
}

unsigned fake_redis_calls(const struct fake_redis *fake)
{
	return fake->calls;
}
