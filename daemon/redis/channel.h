/*
 * A subscription on a connection of its own. While the address of a server is given, it is kept up:
 * a lost subscription comes back by itself, but what was published meanwhile is lost. A server that
 * forbids it is asked again now and then.
 */
#ifndef BREAKERD_REDIS_CHANNEL_H
#define BREAKERD_REDIS_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>

struct event_base;
struct log;
struct redis_address;
struct redis_channel;
struct redis_target;

struct redis_channel_events {
	/* A message; text ends with a NUL. */
	void (*message)(void *arg, const char *text, size_t len);
	/* The subscription stands from now on, or stands no longer. May be NULL. */
	void (*change)(void *arg, bool stands);
	void *arg;
};

/* NULL when out of memory. `target` outlives it; the name is copied. */
struct redis_channel *redis_channel_new(struct event_base *base, const struct redis_target *target,
					const char *name, const struct redis_channel_events *events,
					struct log *log);

/* Listens to the server at this address from now on; NULL: to no server. */
void redis_channel_follow(struct redis_channel *channel, const struct redis_address *address);

bool redis_channel_stands(const struct redis_channel *channel);

void redis_channel_free(struct redis_channel *channel);

#endif
