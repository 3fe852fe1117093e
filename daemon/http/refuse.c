/*
 * Answers to requests that the handler does not get.
 */
#include "base/clock.h"
#include "http/private.h"

#include <stdlib.h>
#include <string.h>

static enum MHD_Result refuse(struct http_request *rq, const struct http_reply *reply)
{
	struct conn *c = http_conn_of(rq);

	rq->last = true;
	c->lingers = true;
	rq->arrived_ns = clock_ns();
	c->http->handling++;
	c->http->metrics->http_requests_in_flight++;
	http_reply(rq, reply);
	return rq->queued ? MHD_YES : MHD_NO;
}

enum MHD_Result http_refuse_text(struct http_request *rq, int status, const char *text)
{
	const struct http_reply reply = {
		.status = status,
		.content_type = "text/plain",
		.body = text,
		.len = strlen(text),
	};

	return refuse(rq, &reply);
}

enum MHD_Result http_refuse_head(struct http_request *rq)
{
	/* Straight to the socket: libmicrohttpd may have no memory left for an answer. */
	rq->direct = true;
	return http_refuse_text(rq, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE,
				"The request line and headers are longer than max_head.\n");
}

/* Makes *reply a problem document; false when out of memory. The caller frees its body. */
static bool problem_reply(const struct http_request *rq, enum problem problem, const char *detail,
			  struct http_reply *reply)
{
	bool writes = http_method_writes(rq->method);

	*reply = (struct http_reply){.status = problem_status(problem),
				     .content_type = "application/problem+json"};
	reply->body =
		problem_encode(problem, detail, writes ? PROBLEM_APPLIED_NO : PROBLEM_APPLIED_NONE,
			       NULL, &reply->len);
	return reply->body;
}

enum MHD_Result http_refuse_problem(struct http_request *rq, enum problem problem,
				    const char *detail)
{
	struct http_reply reply;
	enum MHD_Result result;

	if (!problem_reply(rq, problem, detail, &reply))
		return MHD_NO;
	result = refuse(rq, &reply);
	free((void *)(uintptr_t)reply.body);
	return result;
}

void http_refuse_deferred(struct conn *c, const char *detail)
{
	static const struct http_header retry = {"Retry-After", "1"};
	struct http_reply reply, none = {.status = 503};

	if (!problem_reply(&c->rq, PROBLEM_OVERLOADED, detail, &reply))
		reply = none;
	reply.headers = &retry;
	reply.header_count = 1;
	http_reply(&c->rq, &reply);
	free((void *)(uintptr_t)reply.body);
}
