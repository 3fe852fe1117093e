/*
 * Checks of a request's head. The first line of a connection is checked before libmicrohttpd
 * reads it. Each head is checked again after libmicrohttpd has parsed it: what RFC 9112 forbids,
 * and what two readers could read in two ways, is refused. libmicrohttpd before 1.0 accepts all of
 * that.
 */
#ifndef BREAKERD_HTTP_HEAD_H
#define BREAKERD_HTTP_HEAD_H

#include "http/http.h"
#include "proto/problem.h"

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The request line, where it stands in libmicrohttpd's buffer. */
struct http_line {
	const char *method;
	const char *target; /* the query's '?', '&' and '=' may have become NUL */
	size_t target_len;  /* query included */
	const char *version;
};

/* What the headers say. */
struct http_head {
	bool chunked;
	bool has_cookies;
	uint64_t length; /* Content-Length */
	struct {
		const char *value; /* of the first header; it lives as long as the request */
		unsigned count;
	} fields[HTTP_FIELDS];
};

/* Why a request is refused. */
struct http_refusal {
	int status;           /* the answer is a line of text with this status; 0: see problem */
	enum problem problem; /* else it is this problem document */
	const char *why;
};

enum http_line_state {
	HTTP_LINE_NONE,  /* nothing has come, or an empty line alone */
	HTTP_LINE_BEGUN, /* a part of it has */
	HTTP_LINE_SOUND,
	HTTP_LINE_WRONG,
};

/*
 * Checks the first bytes of a connection. Sets *method to the first word, of *method_len bytes,
 * once that is complete, else to NULL. For HTTP_LINE_WRONG *no says why.
 */
enum http_line_state http_head_check_line(const char *bytes, size_t len, const char **method,
					  size_t *method_len, struct http_refusal *no);

/* True if the target has a byte that no URI has (RFC 3986): a space, a control character. */
bool http_head_target_is_broken(const char *target, size_t len);
/* How such a request is refused. */
extern const struct http_refusal http_head_broken_target;

/* True if the libmicrohttpd that is loaded is older than 1.0: it accepts what RFC 9112 forbids. */
bool http_head_is_lenient(void);

/* The value of MHD_OPTION_STRICT_FOR_CLIENT for the libmicrohttpd that is loaded. */
int http_head_strictness(void);

/* Bytes of request line and headers, their ends included. In the handler only. */
size_t http_head_size(struct MHD_Connection *mhd);

/*
 * To be called when the request line has come, so that libmicrohttpd does not parse the client's
 * cookies, which we do not need. It would copy and record each one, and before 1.0 answer with two
 * heads when that takes too much memory. It parses the first Cookie header alone, and this function
 * adds one of ours before the client's.
 */
void http_head_hide_cookies(struct MHD_Connection *mhd);

/*
 * To be called in the handler's first call for a request. Sets *head, which the caller has zeroed.
 * Returns NULL, or a static sentence that says why the request is refused.
 */
const char *http_head_check(struct MHD_Connection *mhd, const struct http_line *line,
			    struct http_head *head);

#endif
