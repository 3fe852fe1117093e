/*
 * Requests: libmicrohttpd's callbacks, from the request line until the handler has the request, and
 * at its end.
 */
#include "base/clock.h"
#include "http/head.h"
#include "http/private.h"
#include "proto/problem.h"

#include <stdlib.h>
#include <string.h>

/*
 * A connection whose request waits for its answer is suspended after libmicrohttpd has polled for
 * the answer this often. To suspend and resume costs two calls of epoll_ctl, a recv that finds
 * nothing and a walk along all suspended connections, which is about as much as these polls. A
 * Redis nearby has answered before.
 */
#define POLLS_MAX 16
/* What libmicrohttpd keeps of each header beside its text, and what an answer's head may need. */
#define HEAD_RECORD ((size_t)64)
#define ANSWER_ROOM ((size_t)512)
/* How many pieces a body may come in, beside one for each 16 bytes of max_body. Without a bound a
 * body of one-byte chunks, each with kilobytes of extensions, would be as good as endless. */
#define PIECES_MAX 256
/* A body's buffer is kept for the connection's next request if it is no larger than this. */
#define BODY_KEEP ((size_t)4096)

/* Makes room for need bytes in *buf, doubling it, up to max. */
static bool grow(char **buf, size_t *size, size_t need, size_t max)
{
	size_t want = *size ? *size : 256;
	char *p;

	if (need <= *size)
		return true;
	while (want < need)
		want *= 2;
	if (want > max)
		want = max;
	p = realloc(*buf, want);
	if (!p)
		return false;
	*buf = p;
	*size = want;
	return true;
}

/*
 * The request line has come. Returns the context of the request.
 *
 * libmicrohttpd would parse the query in its buffer, with a record of each parameter; version 0.9
 * leaves the client without an answer when there is no memory for them. So the query is copied and
 * then cut off the target.
 */
void *http_on_request_line(void *arg, const char *target, struct MHD_Connection *mhd)
{
	struct http *http = arg;
	struct conn *c = http_conn_of_mhd(mhd);
	const char *query = target ? strchr(target, '?') : NULL;
	size_t len;

	c->rq = (struct http_request){.method = HTTP_OTHER,
				      .open = true,
				      .target = target ? target : ""};
	c->rq.target_len = strlen(c->rq.target);
	c->rq.broken_target = http_head_target_is_broken(c->rq.target, c->rq.target_len);
	if (query) {
		len = strlen(++query) + 1;
		if (grow(&c->query_buf, &c->query_size, len, SIZE_MAX))
			c->rq.query = memcpy(c->query_buf, query, len);
		else
			c->rq.target = NULL; /* on_begin gives up */
		*(char *)(uintptr_t)query = '\0';
	}
	/* Skipped, to save time, while no client of this daemon has sent cookies, but for the first
	 * request of each connection. */
	if (c->requests == 0 || http->saw_cookies)
		http_head_hide_cookies(mhd);
	c->last_pieces = 0;
	http->requests++;
	http_conn_enter(c, PHASE_READING);
	return c;
}

/*
 * The connection has ended while the handler has its request. (libmicrohttpd notices that only of
 * connections that are not suspended.) What lies in libmicrohttpd's memory is gone.
 */
static void orphan(struct conn *c)
{
	c->http->unsuspended--;
	c->rq.orphaned = true;
	c->rq.target = "";
	c->rq.head = (struct http_head){0};
	http_request_peer(&c->rq); /* kept in c->peer: the socket cannot be asked later */
}

/* The request is over for libmicrohttpd. */
static void completed(struct conn *c)
{
	struct http *http = c->http;

	c->rq.open = false;
	if (c->unsent)
		http_answer_sent(c);
	if (c->stream.read)
		http_stream_completed(c);
	if (c->phase == PHASE_HANDLER) {
		orphan(c);
		return;
	}
	http->requests--;
	c->consumed += c->rq.head_size + c->rq.head.length;
	if (c->body_size > BODY_KEEP) {
		free(c->body);
		c->body = NULL;
		c->body_size = 0;
	}
	/*
	 * libmicrohttpd does not notice an end of the stream that came together with the request:
	 * its epoll is edge-triggered, and it reads no further after a short read. Checked for the
	 * first request alone, since clients that close their side do so behind that one.
	 */
	if (c->requests++ == 0)
		c->hung_up = http_conn_at_eof(c);
	if (c->phase != PHASE_ENDING)
		http_conn_enter(c, c->hung_up ? PHASE_HUNG_UP : PHASE_FRESH);
}

void http_on_completed(void *arg, struct MHD_Connection *mhd, void **context,
		       enum MHD_RequestTerminationCode code)
{
	struct conn *c = *context;

	(void)arg;
	(void)mhd;
	(void)code;
	*context = NULL;
	if (c)
		completed(c);
}

void http_request_closed(struct conn *c)
{
	if (c->rq.open)
		completed(c);
}

/* True if the head is over max_head, or leaves libmicrohttpd no memory for an answer. */
static bool head_is_too_long(const struct conn *c)
{
	size_t size = c->rq.head_size, max = c->http->max_head;
	int records = MHD_get_connection_values(c->mhd, MHD_HEADER_KIND, NULL, NULL);

	return size > max || size + (size_t)records * HEAD_RECORD > max + HEAD_ROOM - ANSWER_ROOM;
}

static void suspend_request(struct conn *c)
{
	c->rq.suspended = true;
	c->http->unsuspended--;
	MHD_suspend_connection(c->mhd);
}

/* Gives the request to the handler. */
static enum MHD_Result hand_over(struct conn *c)
{
	struct http *http = c->http;
	struct http_request *rq = &c->rq;

	rq->arrived_ns = clock_ns();
	http_conn_enter(c, PHASE_HANDLER);
	http->handling++;
	http->metrics->http_requests_in_flight++;
	http_defer_or_handle(c);
	if (rq->answered)
		return rq->queued ? MHD_YES : MHD_NO;
	rq->waits = true;
	http->unsuspended++;
	if (rq->deferred)
		suspend_request(c);
	return MHD_YES;
}

/*
 * The body is longer than max_body: the handler gets the request at once, without the body, and the
 * connection ends with its answer. What the client still sends is thrown away (linger.c).
 */
static enum MHD_Result hand_over_too_large(struct conn *c)
{
	enum MHD_Result result;

	c->rq.too_large = true;
	c->rq.body_len = 0;
	c->rq.last = true;
	c->lingers = true;
	result = hand_over(c);
	if (c->rq.waits && !c->rq.suspended)
		suspend_request(c);
	return result;
}

/*
 * The first call for a request: its headers have come. An answer given now ends the connection, as
 * libmicrohttpd then reads no body, so only requests that must not go on are answered here.
 */
static enum MHD_Result on_begin(struct conn *c, const char *url, const char *method,
				const char *version)
{
	struct http_request *rq = &c->rq;
	struct http_line line = {method, url, rq->target_len, version};
	const char *wrong;

	if (!rq->target)
		return MHD_NO;
	rq->begun = true;
	if (!c->buffer)
		c->buffer = method;
	rq->method = http_parse_method(method);
	rq->target = url;
	rq->head_size = http_head_size(c->mhd);
	if (head_is_too_long(c))
		return http_refuse_head(rq);
	wrong = http_head_check(c->mhd, &line, &rq->head);
	if (wrong)
		return http_refuse_problem(rq, PROBLEM_INVALID_BODY, wrong);
	if (rq->head.has_cookies)
		c->http->saw_cookies = true;
	if (rq->broken_target)
		return http_refuse_problem(rq, http_head_broken_target.problem,
					   http_head_broken_target.why);
	/* libmicrohttpd accepts chunks that RFC 9112 does not, and we cannot see them. So that
	 * nobody takes a part of the body for another request, the connection ends. */
	rq->last = rq->head.chunked;
	/* Answered now, so that the client need not send the body. */
	if (rq->head.length > c->http->limits.max_body)
		return hand_over_too_large(c);
	return MHD_YES;
}

/* A piece of the body. */
static enum MHD_Result on_body(struct conn *c, const char *piece, size_t len)
{
	struct http_request *rq = &c->rq;
	size_t max = c->http->limits.max_body;

	c->http->steps++;
	if (len > max || rq->body_len > max - len || ++rq->pieces > PIECES_MAX + max / 16) {
		/* The body is chunked, for on_begin has checked a Content-Length. Amid chunks
		 * libmicrohttpd takes no answer. */
		rq->direct = true;
		return hand_over_too_large(c);
	}
	if (!grow(&c->body, &c->body_size, rq->body_len + len, max))
		return MHD_NO;
	memcpy(c->body + rq->body_len, piece, len);
	rq->body_len += len;
	return MHD_YES;
}

/* libmicrohttpd's handler: called with the headers, with each piece of the body, and at the end. */
enum MHD_Result http_on_request(void *arg, struct MHD_Connection *mhd, const char *url,
				const char *method, const char *version, const char *upload,
				size_t *upload_len, void **context)
{
	struct conn *c = *context;
	enum MHD_Result result;

	(void)arg;
	(void)mhd;
	if (!c)
		return MHD_NO;
	if (!c->rq.begun)
		return on_begin(c, url, method, version);
	/* Called after http_reply only if that could not queue a response. */
	if (c->rq.answered)
		return MHD_NO;
	if (c->rq.waits) {
		if (++c->rq.polls == POLLS_MAX)
			suspend_request(c);
		return MHD_YES;
	}
	if (*upload_len) {
		result = on_body(c, upload, *upload_len);
		*upload_len = 0;
		return result;
	}
	return hand_over(c);
}
