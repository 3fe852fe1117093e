/*
 * Answers without an end, sent bit by bit as a callback gives them. While the callback has nothing,
 * the connection is suspended. libmicrohttpd does not watch a suspended connection, so an event of
 * our own notices when the client leaves. Streams do not count for max_connections: whoever starts
 * them limits them.
 */
#include "base/clock.h"
#include "http/private.h"

#include <stdlib.h>

/* How much waits in the kernel for a client that takes nothing. */
#define SEND_BUFFER (256 * 1024)
#define BLOCK       (16 * 1024)

static void stream_suspend(struct conn *c)
{
	c->stream.suspended = true;
	c->http->streams_awake--;
	MHD_suspend_connection(c->mhd);
}

static ssize_t on_read(void *arg, uint64_t pos, char *buf, size_t max)
{
	struct conn *c = arg;
	ssize_t n;

	(void)pos;
	if (c->stream.cut)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (c->http->draining)
		return MHD_CONTENT_READER_END_OF_STREAM;
	n = c->stream.read(c->stream.arg, buf, max);
	c->http->steps++;
	if (n == 0)
		stream_suspend(c);
	return n;
}

void http_stream_wake(struct http_stream *stream)
{
	struct conn *c = (struct conn *)(void *)stream;

	if (!c->stream.suspended)
		return;
	c->stream.suspended = false;
	c->http->streams_awake++;
	MHD_resume_connection(c->mhd);
	http_schedule_pump(c->http);
}

uint64_t http_stream_progress(const struct http_stream *stream)
{
	return http_conn_progress((const struct conn *)(const void *)stream);
}

void http_stream_cut(struct http_stream *stream)
{
	struct conn *c = (struct conn *)(void *)stream;

	c->stream.cut = true;
	shutdown(c->fd, SHUT_RDWR);
	http_stream_wake(stream);
}

/* libevent 2.1 reports a reset as readable. Nobody reads what the client sends; the event is
 * edge-triggered, so those bytes do not make it fire again and again. */
static void on_hang_up(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	if (http_conn_is_half_closed(c))
		http_stream_cut((struct http_stream *)(void *)c);
}

static struct MHD_Response *new_response(struct conn *c, const struct http_reply *reply)
{
	struct MHD_Response *response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, on_read, c, NULL);

	if (response && !http_answer_add_headers(c, response, reply)) {
		MHD_destroy_response(response);
		response = NULL;
	}
	return response;
}

/* The connection is a stream from now on. */
static void stream_begin(struct conn *c)
{
	struct http *http = c->http;
	int size = SEND_BUFFER;

	setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	http_conn_enter(c, PHASE_STREAM);
	TAILQ_INSERT_TAIL(&http->streams, c, entry);
	http->streams_awake++;
	http->connections--;
	http->metrics->http_connections--;
	http_accept_soon(http, c->reserved);
}

struct http_stream *http_reply_stream(struct http_request *rq, const struct http_reply *reply,
				      http_stream_read_fn *read, void (*gone)(void *arg), void *arg)
{
	struct conn *c = http_conn_of(rq);
	struct event *hang_up = event_new(c->http->base, c->fd,
					  EV_READ | EV_CLOSED | EV_ET | EV_PERSIST, on_hang_up, c);
	struct MHD_Response *response = new_response(c, reply);

	rq->answered = true;
	metrics_request(c->http->metrics, (unsigned)reply->route, rq->method, reply->status,
			clock_ns() - rq->arrived_ns);
	c->http->handling--;
	c->http->metrics->http_requests_in_flight--;
	c->stream.read = read;
	c->stream.gone = gone;
	c->stream.arg = arg;
	c->stream.hang_up = hang_up;
	rq->queued = response && hang_up && event_add(hang_up, NULL) == 0 &&
		     MHD_queue_response(c->mhd, (unsigned)reply->status, response) == MHD_YES;
	if (response)
		MHD_destroy_response(response);
	http_request_go_on(c);
	if (rq->queued) {
		stream_begin(c);
		return (struct http_stream *)(void *)c;
	}
	if (hang_up)
		event_free(hang_up);
	c->stream.read = NULL;
	/* libmicrohttpd closes the connection: no answer is to come from the handler any more. */
	http_conn_enter(c, PHASE_SENDING);
	return NULL;
}

void http_stream_completed(struct conn *c)
{
	struct http *http = c->http;

	TAILQ_REMOVE(&http->streams, c, entry);
	if (!c->stream.suspended)
		http->streams_awake--;
	event_free(c->stream.hang_up);
	c->stream.read = NULL;
	c->stream.suspended = false;
	http->connections++;
	http->metrics->http_connections++;
	/* If on_read ends a connection, libmicrohttpd closes it when it looks at it again, and
	 * nothing else makes it do so. */
	if (c->stream.cut && c->mhd) {
		http_conn_hurry(c);
		http_schedule_pump(http);
	}
	c->stream.gone(c->stream.arg);
}

void http_streams_wake(struct http *http)
{
	struct conn *c;

	TAILQ_FOREACH (c, &http->streams, entry) {
		http_stream_wake((struct http_stream *)(void *)c);
	}
}

void http_streams_cut(struct http *http)
{
	struct conn *c;

	TAILQ_FOREACH (c, &http->streams, entry) {
		http_stream_cut((struct http_stream *)(void *)c);
	}
}
