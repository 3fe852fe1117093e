/*
 * Connections until their first request line has come, and the counters of connections.
 *
 * libmicrohttpd answers a line that it cannot read with a page of HTML, or waits for more, and does
 * not say on which connection. So the first line of each connection is read here with MSG_PEEK,
 * and libmicrohttpd gets the connection once the line is complete and sound. What is no HTTP (TLS,
 * another protocol, empty lines) is answered and closed at once.
 */
#include "http/private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* True if the rest of an incomplete line will not come. */
static bool is_cut_short(const struct conn *c)
{
	return c->phase == PHASE_ENDING || http_conn_is_half_closed(c);
}

void http_conn_gone(struct conn *c)
{
	struct http *http = c->http;
	bool reserved = c->reserved;

	/* A drain ends a connection after an answer. If bytes are unread then, close(2) would send
	 * a reset, which could destroy the answer. */
	if ((c->lingers || (http->drained && http_conn_unread(c) > 0)) &&
	    (!reserved || http->lingering_count < HTTP_RESERVED_CONNECTIONS))
		http_linger_add(http, c->fd);
	if (reserved) {
		TAILQ_REMOVE(&http->reserved, c, reserved_entry);
		http->reserved_count--;
	}
	if (!c->rq.orphaned) /* otherwise http_reply frees it */
		http_conn_free(c);
	http->connections--;
	http->metrics->http_connections--;
	/* No timer wakes an idle daemon. */
	if (!http->connections) {
		http_pump_rest(http);
		http_sweep_stop(http);
	}
	http_accept_soon(http, reserved);
}

/* The connection no longer waits for its first line. */
static void stop_waiting(struct conn *c)
{
	TAILQ_REMOVE(&c->http->waiting, c, wait_entry);
	if (c->first_line)
		event_free(c->first_line);
	c->first_line = NULL;
}

static void close_waiting(struct conn *c)
{
	int fd = c->fd;

	stop_waiting(c);
	/* If the connection lingers, a duplicate of the descriptor keeps the socket open. */
	shutdown(fd, SHUT_WR);
	http_conn_gone(c);
	close(fd);
}

static enum http_method parse_method(const char *name, size_t len)
{
	char text[16];

	if (!name || len >= sizeof(text))
		return HTTP_OTHER;
	memcpy(text, name, len);
	text[len] = '\0';
	return http_parse_method(text);
}

/* Answers and closes; `no` is NULL for a line that is longer than max_head. */
static void refuse(struct conn *c, const struct http_refusal *no)
{
	struct http_request *rq = &c->rq;

	*rq = (struct http_request){.method = c->first_method, .target = "", .direct = true};
	c->http->requests++;
	if (!no)
		http_refuse_head(rq);
	else if (no->status)
		http_refuse_text(rq, no->status, no->why);
	else
		http_refuse_problem(rq, no->problem, no->why);
	c->http->requests--;
	close_waiting(c);
}

static void pass_to_libmicrohttpd(struct conn *c)
{
	struct http *http = c->http;

	stop_waiting(c);
	/* on_connection clears this once libmicrohttpd has the connection. */
	http->accepting = c;
	if (MHD_add_connection(http->mhd, c->fd, &c->addr.any, c->addr_len) != MHD_YES)
		log_debug(http->log, "http_connection_refused", "errno=%d", errno);
	if (http->accepting) {
		/* libmicrohttpd has closed the descriptor. */
		http->accepting = NULL;
		http_conn_gone(c);
	}
	http_schedule_pump(http);
}

/* Reads what has come of the first line. False if the connection no longer waits here. */
static bool check_line(struct conn *c)
{
	size_t max = c->http->max_head, len = 0;
	ssize_t n = recv(c->fd, c->http->peek, max, MSG_PEEK | MSG_DONTWAIT);
	struct http_refusal no;
	enum http_line_state state;
	const char *method;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0) {
		close_waiting(c);
		return false;
	}
	state = http_head_check_line(c->http->peek, (size_t)n, &method, &len, &no);
	c->line_begun = state != HTTP_LINE_NONE;
	c->empty_line_bytes = state == HTTP_LINE_NONE ? (int)n : 0;
	c->first_method = parse_method(method, len);
	if (state == HTTP_LINE_SOUND && c->phase != PHASE_ENDING)
		pass_to_libmicrohttpd(c);
	else if (state == HTTP_LINE_WRONG)
		refuse(c, &no);
	else if ((size_t)n == max)
		refuse(c, NULL);
	else if (is_cut_short(c))
		close_waiting(c);
	else
		return true;
	return false;
}

static void on_bytes(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	check_line(arg);
}

void http_first_line_wait(const struct listener *l, int fd, const struct sockaddr_storage *ss,
			  socklen_t len)
{
	struct http *http = l->http;
	struct conn *c = http_conn_new(http, fd, ss, len);

	if (!c) {
		close(fd);
		return;
	}
	c->purpose = l->purpose;
	c->reserved = l->reserved;
	if (c->reserved) {
		TAILQ_INSERT_TAIL(&http->reserved, c, reserved_entry);
		http->reserved_count++;
	}
	http->connections++;
	http->metrics->http_connections++;
	http->metrics->http_connections_accepted++;
	http_conn_enter(c, PHASE_FRESH);
	TAILQ_INSERT_TAIL(&http->waiting, c, wait_entry);
	if (!check_line(c))
		return;
	/* Edge-triggered, for the bytes stay in the socket. Bytes that came since check_line make
	 * an event too. */
	c->first_line = event_new(http->base, fd, EV_READ | EV_PERSIST | EV_ET, on_bytes, c);
	if (!c->first_line || event_add(c->first_line, NULL) < 0)
		close_waiting(c);
}

int http_first_line_init(struct http *http)
{
	http->peek = malloc(http->max_head);
	return http->peek ? 0 : -1;
}

void http_first_line_cut(struct http *http)
{
	struct conn *c;

	while ((c = TAILQ_FIRST(&http->waiting)))
		close_waiting(c);
}
