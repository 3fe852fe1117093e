/* sd_notify(3): see systemd.h. */
#include "base/systemd.h"

#include "base/clock.h"
#include "base/timer.h"
#include "proto/key.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#endif

/* How long "ready" is held back at most, for the first news of the store. */
#define HOLD_MS 3000

#define STATUS_MAX 700

struct systemd {
	struct event *hold;     /* while "ready" is held back */
	struct event *watchdog; /* NULL: systemd has not asked for it */
	int64_t watchdog_ms;
	char status[STATUS_MAX];
	bool serving;
	bool ready; /* has been said */
	bool reload_refused;
	bool stopping;
};

/* Sends text to systemd. Does nothing without libsystemd. */
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

static void say_status(const struct systemd *s, const char *state)
{
	const char *note = s->reload_refused
				   ? " (the last reload was refused, the configuration before it "
				     "holds)"
				   : "";
	char text[STATUS_MAX + 192];

	snprintf(text, sizeof(text), "%sSTATUS=%s%s", state, s->status, note);
	say(text);
}

static void become_ready(struct systemd *s)
{
	s->ready = true;
	event_del(s->hold);
	say_status(s, "READY=1\n");
}

void systemd_status(struct systemd *s, const char *text)
{
	utf8_clean(s->status, sizeof(s->status), text, strlen(text));
	if (s->stopping || !s->serving)
		return;
	if (!s->ready)
		become_ready(s);
	else
		say_status(s, "");
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

struct systemd *systemd_new(struct event_base *base)
{
	struct systemd *s = calloc(1, sizeof(*s));
	/* sd_watchdog_enabled(3): the watchdog is to be fed each half of its interval. */
	uint64_t usec = watchdog_usec() / 2;

	if (!s)
		return NULL;
	s->hold = evtimer_new(base, on_hold_over, s);
	if (usec) {
		s->watchdog_ms = usec < 1000 ? 1 : (int64_t)(usec / 1000);
		s->watchdog = event_new(base, -1, EV_PERSIST, on_watchdog, s);
	}
	if (!s->hold || (usec && !s->watchdog)) {
		systemd_free(s);
		return NULL;
	}
	return s;
}

void systemd_serving(struct systemd *s, bool settled)
{
	s->serving = true;
	if (s->watchdog)
		timer_arm(s->watchdog, s->watchdog_ms);
	if (settled)
		become_ready(s);
	else
		timer_arm(s->hold, HOLD_MS);
}

void systemd_reloading(void)
{
	char text[96];

	snprintf(text, sizeof(text),
		 "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=Reloading the configuration",
		 clock_ns() / 1000);
	say(text);
}

void systemd_reloaded(struct systemd *s, bool refused)
{
	s->reload_refused = refused;
	become_ready(s);
}

void systemd_stopping(struct systemd *s)
{
	s->stopping = true;
	event_del(s->hold);
	say("STOPPING=1\nSTATUS=Stopping, finishing what is in flight");
}

void systemd_failed(const char *why)
{
	char text[STATUS_MAX + 32], words[STATUS_MAX];

	utf8_clean(words, sizeof(words), why, strlen(why));
	snprintf(text, sizeof(text), "STATUS=Start failed: %s", words);
	say(text);
}

void systemd_free(struct systemd *s)
{
	if (!s)
		return;
	if (s->hold)
		event_free(s->hold);
	if (s->watchdog)
		event_free(s->watchdog);
	free(s);
}
