/*
 * Listeners. At max_connections, or without descriptors, the connection that has been idle for
 * longest is closed to make room for a new one; a connection amid a request never is. `reserved`
 * listeners have connections of their own: they take none of the others' and do not wait for them.
 */
#include "base/timer.h"
#include "http/private.h"

#include <errno.h>
#include <event2/util.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Connections accepted from one listener before the others have their turn. */
#define ACCEPT_BATCH 64
/* How long accepting pauses when descriptors are used up, or no connection can make room. */
#define PAUSE_MS 100
/* A connection that has been idle for less counts as in use: its client may well ask again. */
#define IDLE_MS 500
/* If all connections are in use, one that has been idle for this long makes room. With less, an
 * idle connection cannot be told from one whose next request is on its way (conn.c). */
#define BUSY_MS 100

static bool is_full(const struct http *http, const struct listener *l)
{
	if (l->reserved)
		return http->reserved_count >= HTTP_RESERVED_CONNECTIONS;
	return http->connections - http->reserved_count + http->lingering_count >=
	       http->limits.max_connections;
}

static bool may_accept(const struct http *http, const struct listener *l)
{
	return !http->draining && !(l->reserved ? http->reserved_full : http->paused);
}

void http_accept_update(struct http *http)
{
	struct listener *l;

	TAILQ_FOREACH (l, &http->listeners, entry) {
		bool enable = may_accept(http, l);

		if (l->enabled == enable)
			continue;
		l->enabled = enable;
		if (enable)
			event_add(l->ev, NULL);
		else
			event_del(l->ev);
	}
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;

	(void)fd;
	(void)what;
	http->paused = false;
	http_accept_update(http);
}

static void on_reserved_timer(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;

	(void)fd;
	(void)what;
	http->reserved_full = false;
	http_accept_update(http);
}

static void pause_reserved(struct http *http)
{
	http->reserved_full = true;
	timer_arm(http->reserved_timer, PAUSE_MS);
	http_accept_update(http);
}

static void pause_listeners(struct http *http)
{
	http->paused = true;
	timer_arm(http->pause_timer, PAUSE_MS);
	http_accept_update(http);
}

/*
 * Ends a connection to make room for a new one: a lingering one, else one that has been idle for
 * idle_ms at least. True if there is room at once; otherwise there will be when libmicrohttpd has
 * closed the connection.
 */
static bool make_room(struct http *http, int64_t idle_ms)
{
	/* First choice, for a lingering connection has had its answer. */
	bool dropped = http_linger_drop(http);

	if (dropped || (!http_conn_end_abandoned(http) &&
			(http_conn_displace(http, IDLE_MS) || http_conn_displace(http, idle_ms))))
		http->metrics->http_connections_displaced++;
	return dropped;
}

/* accept4 has failed for a reason that will not go away at once. */
static void accept_failed(struct http *http, const struct listener *l, int why)
{
	int64_t now = http_coarse_ms();

	if (!http->pause_logged_ms || now - http->pause_logged_ms > 10000) {
		http->pause_logged_ms = now;
		log_warning(http->log, "http_accept_failed", "listener=%s error=%s", l->name,
			    log_quote_text(strerror(why)).text);
	}
	if (why == EMFILE || why == ENFILE)
		make_room(http, IDLE_MS);
	if (l->reserved)
		pause_reserved(http);
	else
		pause_listeners(http);
}

/* A client waits at the listener, and there is no room. */
static void on_full(struct http *http, const struct listener *l)
{
	if (l->reserved) {
		pause_reserved(http);
		http_conn_displace_reserved(http);
	} else if (!make_room(http, BUSY_MS)) {
		pause_listeners(http);
	}
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;
	struct http *http = l->http;

	(void)what;
	for (unsigned n = 0; n < ACCEPT_BATCH; n++) {
		struct sockaddr_storage ss;
		socklen_t len = sizeof(ss);
		int client;

		if (is_full(http, l)) {
			/* Later in the batch it is not known whether anybody is waiting. */
			if (n == 0)
				on_full(http, l);
			break;
		}
		memset(&ss, 0, sizeof(ss));
		client = accept4(fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client >= 0) {
			http_first_line_wait(l, client, &ss, len);
			continue;
		}
		if (errno == EAGAIN)
			break;
		/* accept(2): these are errors of that one connection. */
		if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO || errno == EPERM)
			continue;
		accept_failed(http, l, errno);
		break;
	}
	http_accept_update(http);
}

int http_listen(struct http *http, int fd, const char *name, unsigned char purpose, bool reserved)
{
	size_t len = strlen(name) + 1;
	struct listener *l = calloc(1, sizeof(*l) + len);

	if (!l)
		return -1;
	l->http = http;
	l->fd = fd;
	l->purpose = purpose;
	l->reserved = reserved;
	memcpy(l->name, name, len);
	evutil_make_socket_nonblocking(fd);
	l->ev = event_new(http->base, fd, EV_READ | EV_PERSIST, on_acceptable, l);
	if (!l->ev) {
		free(l);
		return -1;
	}
	TAILQ_INSERT_TAIL(&http->listeners, l, entry);
	http_accept_update(http);
	return 0;
}

void http_accept_close(struct http *http)
{
	struct listener *l;

	while ((l = TAILQ_FIRST(&http->listeners))) {
		TAILQ_REMOVE(&http->listeners, l, entry);
		event_free(l->ev);
		close(l->fd);
		free(l);
	}
}

int http_accept_init(struct http *http)
{
	TAILQ_INIT(&http->listeners);
	http->pause_timer = evtimer_new(http->base, on_pause_over, http);
	http->reserved_timer = evtimer_new(http->base, on_reserved_timer, http);
	return http->pause_timer && http->reserved_timer ? 0 : -1;
}
