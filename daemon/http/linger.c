/*
 * Connections that end with an answer although the client may still send: in or before a body that
 * is too long. If the socket were closed at once, the kernel would answer further bytes with a
 * reset, and a reset destroys an answer that the client has not read yet. So such a connection
 * lingers: libmicrohttpd shuts the sending side, what comes is read and thrown away, and the socket
 * is closed when the client has closed its side or LINGER_MS are over.
 *
 * A timer reads the sockets, not an event for each: a client that sends as fast as it can is slowed
 * down that way, and costs next to nothing.
 *
 * While the daemon stops, connections also linger if their clients have sent further requests
 * behind the last one that is answered. The stop waits for them, DRAIN_LINGER_MS at most.
 */
#include "base/timer.h"
#include "http/private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define LINGER_MS 3000
/* While the daemon stops. */
#define DRAIN_LINGER_MS 200
#define TICK_MS         20
/* Read from one connection in a tick: 50 MB a second. */
#define TICK_BYTES ((size_t)1 << 20)

struct leftover {
	int fd;
	int64_t end_ms;
	TAILQ_ENTRY(leftover) entry; /* the oldest in front */
};

static void drop(struct http *http, struct leftover *l)
{
	TAILQ_REMOVE(&http->lingering, l, entry);
	http->lingering_count--;
	close(l->fd);
	free(l);
}

/* Reads what has come and throws it away; false at the end of the stream or after an error. */
static bool discard(int fd)
{
	char buf[16384];
	size_t done = 0;
	ssize_t n;

	do {
		/* MSG_TRUNC: a TCP socket copies nothing. */
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_TRUNC);
		if (n > 0)
			done += (size_t)n;
	} while (n > 0 && done < TICK_BYTES);
	return n > 0 || (n < 0 && errno == EAGAIN);
}

static void wait_a_tick(struct http *http)
{
	if (!TAILQ_EMPTY(&http->lingering))
		timer_arm(http->linger_timer, TICK_MS);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;
	int64_t now = http_coarse_ms();
	struct leftover *l, *next;

	(void)fd;
	(void)what;
	for (l = TAILQ_FIRST(&http->lingering); l; l = next) {
		next = TAILQ_NEXT(l, entry);
		if (!discard(l->fd) || now >= l->end_ms)
			drop(http, l);
	}
	wait_a_tick(http);
	http_pump_check_drained(http);
}

int http_linger_init(struct http *http)
{
	TAILQ_INIT(&http->lingering);
	http->linger_timer = evtimer_new(http->base, on_tick, http);
	return http->linger_timer ? 0 : -1;
}

void http_linger_add(struct http *http, int fd)
{
	struct leftover *l = malloc(sizeof(*l));

	if (!l)
		return;
	/* The connection lives as long as one of its descriptors. */
	l->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (l->fd < 0) {
		free(l);
		return;
	}
	l->end_ms = http_coarse_ms() + (http->draining ? DRAIN_LINGER_MS : LINGER_MS);
	TAILQ_INSERT_TAIL(&http->lingering, l, entry);
	if (http->lingering_count++ == 0)
		wait_a_tick(http);
}

void http_linger_drain(struct http *http)
{
	int64_t end_ms = http_coarse_ms() + DRAIN_LINGER_MS;
	struct leftover *l;

	TAILQ_FOREACH (l, &http->lingering, entry) {
		if (l->end_ms > end_ms)
			l->end_ms = end_ms;
	}
}

bool http_linger_drop(struct http *http)
{
	struct leftover *oldest = TAILQ_FIRST(&http->lingering);

	if (oldest)
		drop(http, oldest);
	return oldest;
}

void http_linger_free(struct http *http)
{
	if (!http->linger_timer)
		return;
	while (http_linger_drop(http))
		;
	event_free(http->linger_timer);
}
