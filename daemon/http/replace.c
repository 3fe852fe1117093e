/*
 * Answers in place of libmicrohttpd's own. libmicrohttpd answers a request that it refuses with a
 * page of HTML and, before 1.0, with two heads if the request's head was complete. Just before, it
 * writes a line to its log, which does not say on which connection. We can tell the connection
 *
 * - if the head of some request is complete and the handler was not called for it. At most one
 *   request is in that state, for a moment inside libmicrohttpd;
 * - or if only one of all connections that libmicrohttpd has, those that end among them, can be
 *   meant: it is at a stage at which a request can be refused with these words. A connection
 *   without a request cannot be meant if TCP's counters say that no byte of a further request was
 *   read. In doubt a connection can be meant: to answer on the wrong connection would be worse
 *   than a page of HTML.
 *
 * Then our answer goes straight to the socket, and libmicrohttpd's own fails behind it. In all
 * other cases libmicrohttpd's answer is sent, and counted; but 1.0.1 has none for a chunk's size
 * line with extensions that is too long, and request_timeout ends that connection, nor for some
 * request lines, after which it closes the connection.
 */
#include "http/private.h"

#include <stdlib.h>
#include <string.h>

/* What libmicrohttpd says when it refuses a request; status and page follow. */
#define REFUSAL "Error processing request (HTTP response code is "

/* What libmicrohttpd 1.0 says when it closes a connection amid a request line without an answer,
 * and the status that the answer should have. */
static const struct {
	const char *begins;
	int status;
} unanswered[] = {
	{"No space left in the read buffer", MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE},
	{"Too many meaningless extra empty lines", MHD_HTTP_BAD_REQUEST},
	{"Bare CR characters are not allowed in the request line", MHD_HTTP_BAD_REQUEST},
	{"Bare LF characters are not allowed in the request line", MHD_HTTP_BAD_REQUEST},
	{"The request line ", MHD_HTTP_BAD_REQUEST},
	{"Invalid character is in the request line", MHD_HTTP_BAD_REQUEST},
	{"The NUL character is in the request line", MHD_HTTP_BAD_REQUEST},
	{"The request has whitespace character is in the URI", MHD_HTTP_BAD_REQUEST},
};

/* For how many connections the kernel is asked about TCP's counters at a refusal, with three system
 * calls each. All further connections can be meant. */
#define CHECKS_MAX 16

/* Stages of a request at which libmicrohttpd can refuse it. */
enum {
	AT_LINE = 1,    /* before the end of the request line */
	AT_HEADERS = 2, /* before the end of the headers */
	AT_CHUNKS = 4,  /* in a chunked body or its trailer */
};

static bool says(const char *page, const char *words)
{
	return strcasestr(page, words);
}

/* The stages at which a request can be refused with this status and page. */
static unsigned stages_of(int status, const char *page)
{
	static const char *const of_headers[] = {"colon", "folding", "header name", "first header",
						 "character in header"};

	if (says(page, "chunk") || says(page, "footer"))
		return AT_CHUNKS;
	if (status == MHD_HTTP_HTTP_VERSION_NOT_SUPPORTED)
		return AT_LINE;
	if (status == MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE)
		return AT_HEADERS | AT_CHUNKS;
	for (size_t i = 0; i < sizeof(of_headers) / sizeof(of_headers[0]); i++)
		if (says(page, of_headers[i]))
			return AT_HEADERS;
	return AT_LINE | AT_HEADERS | AT_CHUNKS;
}

/* The stages, of those in `asked` at least, at which the connection may be. *checks counts those
 * for which the kernel was asked. */
static unsigned stages_at(const struct conn *c, unsigned asked, unsigned *checks)
{
	switch (c->phase) {
	case PHASE_FRESH:
	case PHASE_IDLE:
	case PHASE_HUNG_UP:
		if (!(asked & AT_LINE))
			return 0;
		return (*checks)++ >= CHECKS_MAX || http_conn_may_be_mid_request(c) ? AT_LINE : 0;
	case PHASE_READING:
		if (!c->rq.begun)
			return AT_LINE | AT_HEADERS;
		return c->rq.head.chunked && !c->parked ? AT_CHUNKS : 0;
	case PHASE_ENDING:
		return AT_LINE | AT_HEADERS | AT_CHUNKS;
	default:
		/* The whole request has come, unless it was answered before its body's end. */
		return c->rq.direct || c->rq.too_large ? AT_CHUNKS : 0;
	}
}

/*
 * The only connection that can be meant; NULL if there are several, or if it cannot take an answer
 * now. One of several will end with libmicrohttpd's answer, so all of them are told to linger: what
 * the client has sent behind its request must not destroy that answer.
 */
static struct conn *only_candidate(struct http *http, unsigned stages)
{
	struct conn *c, *found = NULL;
	unsigned count = 0, checks = 0;

	TAILQ_FOREACH (c, &http->in_mhd, in_mhd) {
		if (!(stages_at(c, stages, &checks) & stages))
			continue;
		if (++count == 2)
			found->lingers = true;
		if (count >= 2)
			c->lingers = true;
		found = c;
	}
	return count == 1 && found->phase < PHASES_TIMED && found->phase != PHASE_SENDING ? found
											  : NULL;
}

/* The connection whose request's head is complete and for which the handler was not called yet; or
 * NULL. */
static struct conn *conn_amid_head(struct http *http)
{
	struct conn *c;

	TAILQ_FOREACH_REVERSE(c, &http->phases[PHASE_READING], conn_list, entry)
	if (!c->rq.begun && http_head_size(c->mhd))
		return c;
	return NULL;
}

/*
 * The method of a request for which the handler was not called. In libmicrohttpd's buffer it stands
 * before the target, with a NUL between them. The buffer begins at c->buffer or before.
 */
static enum http_method method_of(const struct conn *c)
{
	const char *end, *begin;

	if (!c->requests)
		return c->first_method;
	if (!c->buffer || c->rq.target < c->buffer + 2)
		return HTTP_OTHER;
	end = c->rq.target - 1;
	if (*end != '\0')
		return HTTP_OTHER;
	for (begin = end; begin > c->buffer && begin[-1] >= 'A' && begin[-1] <= 'Z'; begin--)
		;
	return http_parse_method(begin);
}

static const char *detail_for(bool amid_head, const char *page)
{
	if (says(page, "chunk size line"))
		return "The size line of a chunk, with its extensions, is too long.";
	if (says(page, "chunk") || says(page, "footer"))
		return "The chunked body is not written as RFC 9112 has it.";
	if (!amid_head)
		return "The request is not written as RFC 9112 has it.";
	if (says(page, "Host:"))
		return "A request in HTTP/1.1 needs a Host header.";
	if (says(page, "Transfer-Encoding"))
		return "Send the body with a Content-Length or, instead of that and in HTTP/1.1, "
		       "with \"Transfer-Encoding: chunked\".";
	return "The Content-Length is no number of bytes that can be.";
}

static void answer(struct http_request *rq, int status, const char *why)
{
	rq->direct = true;
	if (status == MHD_HTTP_BAD_REQUEST)
		http_refuse_problem(rq, PROBLEM_INVALID_BODY, why);
	else if (status == MHD_HTTP_CONTENT_TOO_LARGE)
		http_refuse_problem(rq, PROBLEM_BODY_TOO_LARGE, why);
	else if (status == MHD_HTTP_HTTP_VERSION_NOT_SUPPORTED)
		http_refuse_text(rq, status, "Ask in HTTP/1.1.\n");
	else
		http_refuse_head(rq);
}

/* Answers on the connection, before libmicrohttpd does. */
static void answer_first(struct conn *c, int status, const char *why)
{
	bool has_request = c->phase == PHASE_READING;

	if (!has_request)
		c->rq = (struct http_request){.method = HTTP_OTHER, .target = ""};
	else if (!c->rq.begun)
		c->rq.method = method_of(c);
	if (!c->rq.target)
		c->rq.target = ""; /* memory was short */
	c->http->requests += !has_request;
	answer(&c->rq, status, why);
	c->http->requests -= !has_request;
	/* So libmicrohttpd's own answer fails, and it closes the connection. 1.0.1 forgets to if
	 * the size line of a chunk is too long (handle_req_chunk_size_line_no_space refuses twice);
	 * it notices when it looks at the connection again. */
	shutdown(c->fd, SHUT_WR);
	http_conn_hurry(c);
}

/* A request is about to be refused, at one of the stages, with the status and the page; or without
 * an answer, if `page` is a line of `unanswered`. */
static void on_refusal(struct http *http, unsigned stages, int status, const char *page)
{
	struct conn *amid_head = conn_amid_head(http);
	struct conn *c = amid_head ? amid_head : only_candidate(http, stages);

	if (c && status >= 400 && status != MHD_HTTP_INTERNAL_SERVER_ERROR)
		answer_first(c, status, detail_for(amid_head, page));
	else
		metrics_request(http->metrics, 0, HTTP_OTHER, status, 0);
	/* The handler will not be called for this request; conn_amid_head must find the next one.
	 */
	if (amid_head)
		amid_head->rq.begun = true;
}

void http_on_library_log(struct http *http, const char *text)
{
	const char *page;
	int status;

	if (strncmp(text, REFUSAL, sizeof(REFUSAL) - 1) == 0) {
		page = text + sizeof(REFUSAL) - 1;
		status = atoi(page);
		on_refusal(http, stages_of(status, page), status, page);
		return;
	}
	for (size_t i = 0; i < sizeof(unanswered) / sizeof(unanswered[0]); i++)
		if (strncmp(text, unanswered[i].begins, strlen(unanswered[i].begins)) == 0)
			on_refusal(http, AT_LINE, unanswered[i].status, text);
}
