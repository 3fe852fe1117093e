/*
 * Turns what all daemons publish, also this one, into the store's events and changes.
 */
#include "redis/events.h"

#include "proto/breaker_member.h"
#include "proto/circuit_script.h"
#include "redis/op.h"

#include <string.h>

static enum store_by by_of(char letter)
{
	switch (letter) {
	case 't':
		return STORE_BY_TRANSITION;
	case 'd':
		return STORE_BY_RESET;
	case 'a':
		return STORE_BY_ACQUIRE;
	case 'r':
		return STORE_BY_REPORT;
	case 'o':
	case 'x':
		return STORE_BY_OVERRIDE;
	default:
		return STORE_BY_ELSEWHERE;
	}
}

static void tell(struct redis_store *r, const struct store_event *event)
{
	const struct breaker_override *o = &event->breaker->override;
	const struct store_change change = {
		.key = event->key,
		.key_len = event->key_len,
		.circuit = event->circuit,
		.override = o->mode == BREAKER_NO_OVERRIDE ? NULL : o,
		.by = by_of(event->by),
	};

	store_tell(&r->store, &change);
}

/* A daemon, perhaps this one, has published a change. */
static void on_message(void *arg, const char *text, size_t len)
{
	struct redis_store *r = arg;
	struct circuit_script_message m;
	struct store_event event = {0};
	struct breaker b;

	if (!circuit_script_read_message(text, len, &m) || m.key_len <= r->prefix_len ||
	    m.key_len > r->prefix_len + KEY_MAX || memcmp(m.key, r->prefix, r->prefix_len) != 0)
		return;
	breaker_none(&b);
	if (m.member)
		breaker_member_decode(m.member, m.member_len, &b);
	event.key = m.key + r->prefix_len;
	event.key_len = m.key_len - r->prefix_len;
	event.by = m.by;
	event.existed = m.existed;
	event.was = m.was;
	event.exists = m.exists;
	event.circuit = m.circuit;
	event.breaker = &b;
	/* The message may be of another database, or of any program that publishes there. */
	if (m.db != r->target.db || key_check(event.key, event.key_len))
		return;
	if (r->store.on_event)
		r->store.on_event(r->store.on_event_arg, &event);
	tell(r, &event);
}

/* The subscription stands from now on, or no longer. */
static void on_channel(void *arg, bool stands)
{
	const struct store_change change = {.live = stands};
	struct redis_store *r = arg;

	store_tell(&r->store, &change);
}

const struct redis_channel_events redis_store_channel_events = {
	.message = on_message,
	.change = on_channel,
};
