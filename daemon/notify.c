#include "notify.h"

#include "base/clock.h"
#include "proto/key.h"
#include "store/store.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#endif

/* "Ready" is said after this at the latest: the first news of the store take no longer. */
#define HOLD_SECONDS 3

#define STATUS_MAX 700

struct notify {
	struct store *store;
	struct event *hold;     /* while "ready" is held back */
	struct event *watchdog; /* NULL: systemd has not asked for it */
	struct timeval watchdog_interval;
	bool serving;
	bool ready; /* has been said */
	bool reload_refused;
	bool stopping;
};

/* What is told to systemd; nothing to do without libsystemd. */
#ifdef HAVE_LIBSYSTEMD
static void say(const char *text)
{
	sd_notify(0, text);
}

/* 0: no watchdog. */
static uint64_t watchdog_usec(void)
{
	uint64_t usec = 0;

	return sd_watchdog_enabled(0, &usec) > 0 ? usec : 0;
}
#else
static void say(const char *text)
{
	(void)text;
}

static uint64_t watchdog_usec(void)
{
	return 0;
}
#endif

/* The line that `systemctl status` shows. */
static void describe(const struct notify *n, char out[STATUS_MAX])
{
	const char *note = n->reload_refused
				   ? " (the last reload was refused, the configuration before it "
				     "holds)"
				   : "";
	struct store_health health;
	char text[STATUS_MAX];

	store_health(n->store, &health);
	switch (health.condition) {
	case STORE_READY:
		/* What the embedded store says of itself changes with each circuit. */
		snprintf(text, sizeof(text), "Ready: %s%s",
			 health.counts_circuits ? health.store : health.detail, note);
		break;
	case STORE_DEGRADED:
		snprintf(text, sizeof(text), "Degraded, serving from memory: %s%s", health.reason,
			 note);
		break;
	case STORE_AWAY:
		snprintf(text, sizeof(text), "Unavailable, answering with errors: %s%s",
			 health.reason, note);
		break;
	}
	utf8_clean(out, STATUS_MAX, text, strlen(text));
}

static void say_status(const struct notify *n, const char *state)
{
	char status[STATUS_MAX], text[STATUS_MAX + 64];

	describe(n, status);
	snprintf(text, sizeof(text), "%sSTATUS=%s", state, status);
	say(text);
}

static void become_ready(struct notify *n)
{
	n->ready = true;
	event_del(n->hold);
	say_status(n, "READY=1\n");
}

static void on_store_changed(void *arg)
{
	struct notify *n = arg;

	if (n->stopping || !n->serving)
		return;
	if (!n->ready)
		become_ready(n);
	else
		say_status(n, "");
}

static void on_hold_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	become_ready(arg);
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	say("WATCHDOG=1");
}

struct notify *notify_new(struct event_base *base, struct store *store)
{
	struct notify *n = calloc(1, sizeof(*n));
	/* sd_watchdog_enabled(3): half of the interval is the time to feed it in. */
	uint64_t usec = watchdog_usec() / 2;

	if (!n)
		return NULL;
	n->store = store;
	n->hold = evtimer_new(base, on_hold_over, n);
	if (usec) {
		n->watchdog_interval.tv_sec = (time_t)(usec / 1000000);
		n->watchdog_interval.tv_usec = (suseconds_t)(usec % 1000000);
		n->watchdog = event_new(base, -1, EV_PERSIST, on_watchdog, n);
	}
	if (!n->hold || (usec && !n->watchdog)) {
		notify_free(n);
		return NULL;
	}
	store_watch(store, on_store_changed, n);
	return n;
}

void notify_serving(struct notify *n)
{
	static const struct timeval patience = {.tv_sec = HOLD_SECONDS};
	struct store_health health;

	n->serving = true;
	if (n->watchdog)
		event_add(n->watchdog, &n->watchdog_interval);
	store_health(n->store, &health);
	if (health.condition == STORE_READY)
		become_ready(n);
	else
		event_add(n->hold, &patience);
}

void notify_reloading(void)
{
	char text[96];

	snprintf(text, sizeof(text),
		 "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=Reloading the configuration",
		 clock_ns() / 1000);
	say(text);
}

void notify_reloaded(struct notify *n, bool refused)
{
	n->reload_refused = refused;
	become_ready(n);
}

void notify_stopping(struct notify *n)
{
	n->stopping = true;
	event_del(n->hold);
	say("STOPPING=1\nSTATUS=Stopping, finishing what is in flight");
}

void notify_failed(const char *why)
{
	char text[STATUS_MAX + 32], words[STATUS_MAX];

	utf8_clean(words, sizeof(words), why, strlen(why));
	snprintf(text, sizeof(text), "STATUS=Start failed: %s", words);
	say(text);
}

void notify_free(struct notify *n)
{
	if (!n)
		return;
	store_watch(n->store, NULL, NULL);
	if (n->hold)
		event_free(n->hold);
	if (n->watchdog)
		event_free(n->watchdog);
	free(n);
}
