/*
 * Answers: responses for libmicrohttpd, or bytes written straight to the socket.
 */
#include "http/private.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

/* Longer answers count for max_unsent; shorter ones are bounded by max_connections. */
#define LONG_ANSWER ((size_t)65536)

/* The Date header (RFC 9110, section 5.6.7), formatted once a second. */
static const char *date_of(struct http *http, time_t now)
{
	struct tm tm;

	if (http->date_s != now) {
		http->date_s = now;
		strftime(http->date, sizeof(http->date), "%a, %d %b %Y %H:%M:%S GMT",
			 gmtime_r(&now, &tm));
	}
	return http->date;
}

static bool add_headers(struct MHD_Response *response, const struct http_reply *reply,
			const char *date, bool ends)
{
	/* Before Date: libmicrohttpd 0.9 then forgets that there is a Date, and sends one of its
	 * own.
	 */
	if (ends && MHD_add_response_header(response, "Connection", "close") != MHD_YES)
		return false;
	if (MHD_add_response_header(response, "Date", date) != MHD_YES)
		return false;
	if (reply->content_type &&
	    MHD_add_response_header(response, "Content-Type", reply->content_type) != MHD_YES)
		return false;
	for (size_t i = 0; i < reply->header_count; i++)
		if (MHD_add_response_header(response, reply->headers[i].name,
					    reply->headers[i].value) != MHD_YES)
			return false;
	return true;
}

/* NULL when out of memory. */
static struct MHD_Response *response_new(const char *body, size_t len,
					 enum MHD_ResponseMemoryMode mode,
					 const struct http_reply *reply, const char *date,
					 bool ends)
{
	/* libmicrohttpd's argument is not const, but libmicrohttpd does not write to it. */
	struct MHD_Response *response = MHD_create_response_from_buffer(
		len, len ? (void *)(uintptr_t)body : (void *)(uintptr_t) "", mode);

	if (response && !add_headers(response, reply, date, ends)) {
		MHD_destroy_response(response);
		response = NULL;
	}
	return response;
}

bool http_answer_add_headers(struct conn *c, struct MHD_Response *response,
			     const struct http_reply *reply)
{
	return add_headers(response, reply, date_of(c->http, time(NULL)), false);
}

void http_answer_drop_kept(struct conn *c)
{
	if (c->kept.response)
		MHD_destroy_response(c->kept.response);
	c->kept.response = NULL;
}

/* Notes the headers of the kept response; false if there is no room for them. */
static bool keep_headers(struct kept_response *kept, const struct http_reply *reply)
{
	size_t used = 0;

	if (reply->header_count > KEPT_HEADERS)
		return false;
	for (size_t i = 0; i < reply->header_count; i++) {
		size_t size = strlen(reply->headers[i].value) + 1;

		if (size > KEPT_VALUES - used)
			return false;
		kept->names[i] = reply->headers[i].name;
		memcpy(kept->values + used, reply->headers[i].value, size);
		used += size;
	}
	kept->header_count = reply->header_count;
	return true;
}

static bool has_headers(const struct kept_response *kept, const struct http_reply *reply)
{
	const char *value = kept->values;

	if (reply->header_count != kept->header_count)
		return false;
	for (size_t i = 0; i < kept->header_count; i++) {
		size_t size = strlen(value) + 1;

		if (reply->headers[i].name != kept->names[i] ||
		    strcmp(reply->headers[i].value, value) != 0)
			return false;
		value += size;
	}
	return true;
}

/* The kept response with this answer's body, made anew if the rest of the answer differs. NULL: it
 * has no room for the headers, or memory is short. */
static struct MHD_Response *response_kept(struct conn *c, const struct http_reply *reply,
					  size_t len, time_t now)
{
	struct kept_response *kept = &c->kept;

	if (!kept->response || kept->type != reply->content_type || kept->len != len ||
	    kept->date_s != now || !has_headers(kept, reply)) {
		http_answer_drop_kept(c);
		if (!keep_headers(kept, reply))
			return NULL;
		kept->response = response_new(kept->body, len, MHD_RESPMEM_PERSISTENT, reply,
					      date_of(c->http, now), false);
		kept->type = reply->content_type;
		kept->len = len;
		kept->date_s = now;
	}
	/* The last answer's body has been sent: a connection has one request at a time. */
	if (len)
		memcpy(kept->body, reply->body, len);
	return kept->response;
}

bool http_answer_queue(struct conn *c, const struct http_reply *reply)
{
	size_t len = reply->content_type ? reply->len : 0;
	bool ends = c->http->draining || c->rq.last;
	struct MHD_Response *response = NULL;
	time_t now = time(NULL);
	bool ok;

	if (len <= sizeof(c->kept.body) && !ends)
		response = response_kept(c, reply, len, now);
	if (!response)
		response = response_new(reply->body, len, MHD_RESPMEM_MUST_COPY, reply,
					date_of(c->http, now), ends);
	/* Before MHD_queue_response, which may find that it cannot send the answer and say that the
	 * request is over. */
	if (len > LONG_ANSWER) {
		c->unsent = len;
		c->http->unsent += len;
	}
	ok = response && MHD_queue_response(c->mhd, (unsigned)reply->status, response) == MHD_YES;
	if (response && response != c->kept.response)
		MHD_destroy_response(response);
	if (!ok)
		http_answer_sent(c);
	return ok;
}

void http_answer_sent(struct conn *c)
{
	c->http->unsent -= c->unsent;
	c->unsent = 0;
}

/* Writes the head of an answer after which the connection ends. Its length, or 0 if it does not
 * fit. */
static size_t write_head(struct conn *c, const struct http_reply *reply, char *out, size_t size)
{
	const char *date = date_of(c->http, time(NULL));
	size_t len = (size_t)snprintf(out, size, "HTTP/1.1 %d %s\r\nDate: %s\r\n", reply->status,
				      MHD_get_reason_phrase_for((unsigned)reply->status), date);

	for (size_t i = 0; i < reply->header_count && len < size; i++)
		len += (size_t)snprintf(out + len, size - len, "%s: %s\r\n", reply->headers[i].name,
					reply->headers[i].value);
	if (reply->content_type && len < size)
		len += (size_t)snprintf(out + len, size - len, "Content-Type: %s\r\n",
					reply->content_type);
	if (len < size)
		len += (size_t)snprintf(out + len, size - len,
					"Connection: close\r\nContent-Length: %zu\r\n\r\n",
					reply->content_type ? reply->len : 0);
	return len < size ? len : 0;
}

bool http_answer_send(struct conn *c, const struct http_reply *reply)
{
	bool has_body = reply->content_type && c->rq.method != HTTP_HEAD;
	char head[1024];
	struct iovec parts[2] = {
		{head, write_head(c, reply, head, sizeof(head))},
		{(void *)(uintptr_t)reply->body, has_body ? reply->len : 0},
	};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

	return parts[0].iov_len && sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
}
