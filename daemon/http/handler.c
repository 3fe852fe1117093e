/*
 * What the handler asks of a request, and its answer.
 */
#include "base/clock.h"
#include "http/head.h"
#include "http/private.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

static const char *const method_names[] = {
	[HTTP_GET] = "GET",     [HTTP_HEAD] = "HEAD",     [HTTP_POST] = "POST",
	[HTTP_PUT] = "PUT",     [HTTP_DELETE] = "DELETE", [HTTP_OPTIONS] = "OPTIONS",
	[HTTP_OTHER] = "other",
};

const char *http_method_name(enum http_method method)
{
	return method_names[(unsigned)method < HTTP_METHODS ? method : HTTP_OTHER];
}

bool http_method_writes(enum http_method method)
{
	return method != HTTP_GET && method != HTTP_HEAD && method != HTTP_OPTIONS;
}

enum http_method http_parse_method(const char *method)
{
	for (unsigned m = 0; m < HTTP_OTHER; m++)
		if (method[0] == method_names[m][0] && strcmp(method, method_names[m]) == 0)
			return (enum http_method)m;
	return HTTP_OTHER;
}

enum http_method http_request_method(const struct http_request *rq)
{
	return rq->method;
}

/* What follows the scheme of a target in absolute form, which any server has to understand (RFC
 * 9112, section 3.2.2); NULL for a target in another form. */
static const char *behind_scheme(const char *target)
{
	if (strncasecmp(target, "http://", 7) == 0)
		return target + 7;
	if (strncasecmp(target, "https://", 8) == 0)
		return target + 8;
	return NULL;
}

const char *http_request_path(const struct http_request *rq)
{
	const char *authority = behind_scheme(rq->target), *slash;

	if (!authority)
		return rq->target;
	slash = strchr(authority, '/');
	return slash ? slash : "/";
}

bool http_request_authority(const struct http_request *rq, char *out, size_t size)
{
	const char *authority = behind_scheme(rq->target);
	size_t len = authority ? strcspn(authority, "/") : 0;

	if (!authority)
		return false;
	if (len >= size)
		len = 0;
	memcpy(out, authority, len);
	out[len] = '\0';
	return true;
}

const char *http_request_query(const struct http_request *rq)
{
	return rq->query;
}

const char *http_request_header(const struct http_request *rq, enum http_field field,
				unsigned *count)
{
	if (count)
		*count = rq->head.fields[field].count;
	return rq->head.fields[field].value;
}

const char *http_request_body(const struct http_request *rq, size_t *len, bool *too_large)
{
	*len = rq->body_len;
	*too_large = rq->too_large;
	return rq->body_len ? http_conn_of(rq)->body : "";
}

uint64_t http_request_arrived_ns(const struct http_request *rq)
{
	return rq->arrived_ns;
}

unsigned char http_request_purpose(const struct http_request *rq)
{
	return http_conn_of(rq)->purpose;
}

bool http_is_sending_much(const struct http_request *rq)
{
	const struct http *http = http_conn_of(rq)->http;

	return http->unsent >= http->limits.max_unsent;
}

static void log_reply(struct conn *c, const struct http_reply *reply, uint64_t ns)
{
	const char *path = http_request_path(&c->rq);

	log_debug(c->http->log, "http_request",
		  "method=%s path=%s status=%d us=%" PRIu64 " peer=%s",
		  http_method_name(c->rq.method), log_quote_text(path).text, reply->status,
		  ns / 1000, http_request_peer(&c->rq));
}

/* The orphaned request has been answered: nobody takes the answer. */
static void orphan_free(struct conn *c)
{
	c->http->requests--;
	http_schedule_pump(c->http); /* a drain may wait for this request */
	c->rq.orphaned = false;
	if (!c->mhd)
		http_conn_free(c);
}

void http_request_go_on(struct conn *c)
{
	if (c->rq.suspended)
		MHD_resume_connection(c->mhd);
	else if (c->rq.waits)
		c->http->unsuspended--;
	if (c->rq.waits)
		http_schedule_pump(c->http);
}

void http_reply(struct http_request *rq, const struct http_reply *reply)
{
	struct conn *c = http_conn_of(rq);
	struct http *http = c->http;
	uint64_t ns = (reply->now_ns ? reply->now_ns : clock_ns()) - rq->arrived_ns;

	assert(!rq->answered);
	rq->answered = true;
	metrics_request(http->metrics, (unsigned)reply->route, rq->method, reply->status, ns);
	http->handling--;
	http->metrics->http_requests_in_flight--;
	if (http->log && http->log->level >= LOG_LEVEL_DEBUG)
		log_reply(c, reply, ns);
	if (rq->orphaned) {
		orphan_free(c);
		return;
	}
	http_conn_enter(c, PHASE_SENDING);
	c->progress = 0;
	rq->queued = !rq->direct && http_answer_queue(c, reply);
	if (!rq->queued && !(rq->direct && http_answer_send(c, reply)) &&
	    log_allows(http->log, &http->failed_replies, LOG_LEVEL_ERROR, "http_reply_failed"))
		log_error(http->log, "http_reply_failed", "peer=%s", http_request_peer(rq));
	http_request_go_on(c);
}
