/*
 * Start, reconfiguration, drain and stop of the HTTP side.
 *
 * There is one libmicrohttpd daemon, without a listening socket. accept.c accepts for it, so that
 * all listeners share one limit of connections, and we decide what happens at the limit or without
 * descriptors. conn.c has the time-outs: any byte would renew libmicrohttpd's own.
 */
#include "http/private.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http *http = arg;
	struct conn *c;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		c = *context = http->accepting;
		http->accepting = NULL;
		c->mhd = mhd;
		TAILQ_INSERT_TAIL(&http->in_mhd, c, in_mhd);
		return;
	}
	c = *context;
	*context = NULL;
	c->mhd = NULL; /* it is in none of libmicrohttpd's lists any more */
	TAILQ_REMOVE(&http->in_mhd, c, in_mhd);
	http_request_closed(c);
	http_parked_closed(c);
	http_conn_gone(c);
}

static size_t on_unescape(void *arg, struct MHD_Connection *mhd, char *text)
{
	(void)arg;
	(void)mhd;
	return strlen(text);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *fmt, va_list ap)
{
	struct http *http = arg;
	char text[256];
	size_t len;

	vsnprintf(text, sizeof(text), fmt, ap);
	http_on_library_log(http, text);
	if (!http->log || http->log->level < LOG_LEVEL_DEBUG)
		return;
	len = strcspn(text, "\n");
	log_debug(http->log, "libmicrohttpd", "text=%s", log_quote(text, len).text);
}

static const char *method_name(unsigned method)
{
	return http_method_name((enum http_method)method);
}
_Static_assert(HTTP_METHODS <= METRICS_METHODS, "each method is counted by itself");

static struct MHD_Daemon *start_mhd(struct http *http)
{
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET |
			 MHD_USE_ERROR_LOG;

#if MHD_VERSION >= 0x01000000
	flags |= MHD_USE_NO_THREAD_SAFETY;
#endif
	return MHD_start_daemon(flags, 0, NULL, NULL, http_on_request, http,
				/* Must be the first option. */
				MHD_OPTION_EXTERNAL_LOGGER, on_log, http,
				MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, http,
				MHD_OPTION_URI_LOG_CALLBACK, http_on_request_line, http,
				MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
				MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, http,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, http->max_head + HEAD_ROOM,
				/* No limit here: accept.c has ours, which can change. */
				MHD_OPTION_CONNECTION_LIMIT, (unsigned)INT32_MAX,
				MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT,
				http_head_strictness(), MHD_OPTION_END);
}

struct http *http_new(struct event_base *base, const struct http_limits *limits,
		      http_handler_fn *handler, void *arg, struct metrics *metrics, struct log *log)
{
	struct http *http = calloc(1, sizeof(*http));

	if (!http)
		return NULL;
	http->base = base;
	http->limits = *limits;
	http->max_head = limits->max_head;
	http->handler = handler;
	http->arg = arg;
	http->metrics = metrics;
	metrics->methods = (struct metrics_label){method_name, HTTP_METHODS};
	http->log = log;
	TAILQ_INIT(&http->streams);
	TAILQ_INIT(&http->reserved);
	TAILQ_INIT(&http->in_mhd);
	TAILQ_INIT(&http->waiting);
	TAILQ_INIT(&http->parked);
	http_defer_init(http);
	if (http_sweep_init(http) < 0 || http_accept_init(http) < 0 || http_linger_init(http) < 0 ||
	    http_first_line_init(http) < 0 || http_parked_init(http) < 0)
		goto fail;
	http->mhd = start_mhd(http);
	if (!http->mhd || http_pump_init(http) < 0)
		goto fail;
	return http;
fail:
	http_free(http);
	return NULL;
}

void http_on_handled(struct http *http, void (*handled)(void *arg), void *arg)
{
	http->handled = handled;
	http->handled_arg = arg;
}

void http_reconfigure(struct http *http, const struct http_limits *limits)
{
	http->limits = *limits;
	http_accept_update(http);
	if (http->connections)
		http_sweep_now(http);
}

void http_drain(struct http *http, void (*drained)(void *arg), void *arg)
{
	http->draining = true;
	http->drained = drained;
	http->drained_arg = arg;
	http_accept_close(http);
	http_streams_wake(http);
	http_linger_drain(http);
	http_pump_drain(http);
}

void http_free(struct http *http)
{
	if (!http)
		return;
	http_cut_deferred(http);
	assert(!http->handling);
	http->drained = NULL;
	http_accept_close(http);
	http_streams_cut(http);
	http_first_line_cut(http);
	http_parked_resume(http);
	http_pump_stop(http);
	if (http->mhd)
		MHD_stop_daemon(http->mhd);
	http_pump_free(http);
	http_linger_free(http);
	http_parked_free(http);
	free(http->peek);
	if (http->sweep)
		event_free(http->sweep);
	if (http->pause_timer)
		event_free(http->pause_timer);
	if (http->reserved_timer)
		event_free(http->reserved_timer);
	free(http);
}
