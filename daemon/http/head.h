/*
 * A request's head as libmicrohttpd has taken it apart, looked at again: what RFC 9112 does
 * not allow, and what two readers could read in two ways, goes no further. libmicrohttpd
 * before 1.0 lets all of it through.
 */
#ifndef BREAKERD_HTTP_HEAD_H
#define BREAKERD_HTTP_HEAD_H

#include "http/http.h"

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The request line, where it stands in libmicrohttpd's buffer. */
struct http_line {
	const char *method;
	const char *target; /* '?' and the query's '&' and '=' may be NUL by now */
	size_t target_len;  /* query included */
	const char *version;
};

/* What the headers say. */
struct http_head {
	bool chunked;
	bool expects; /* 100-continue */
	bool has_cookies;
	uint64_t length; /* Content-Length */
	struct {
		const char *value; /* of the first; it lives as long as the request */
		unsigned count;
	} fields[HTTP_FIELDS];
};

/* True if the library that is loaded is one before 1.0, which lets pass what RFC 9112 does not. */
bool http_head_is_lenient(void);

/* What MHD_OPTION_STRICT_FOR_CLIENT shall be, for the library that is loaded. */
int http_head_strictness(void);

/* Bytes of request line and headers, their ends included. In the handler only. */
size_t http_head_size(struct MHD_Connection *mhd);

/*
 * To be called when the request line has come. libmicrohttpd takes the cookies apart, with a copy
 * and a record of each, and before 1.0 answers with two heads when there is no memory for that.
 * Nobody asks for them: a first Cookie header of ours is the one that it takes.
 */
void http_head_hide_cookies(struct MHD_Connection *mhd);

/*
 * To be called in the handler's first call for a request. Sets *head, zeroed before, and returns
 * NULL, or a static sentence that says why the request is refused.
 */
const char *http_head_check(struct MHD_Connection *mhd, const struct http_line *line,
			    struct http_head *head);

#endif
