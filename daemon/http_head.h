/*
 * A request's head as libmicrohttpd has taken it apart, looked at again: what RFC 9112 does
 * not allow, and what two readers could read in two ways, goes no further. libmicrohttpd
 * before 1.0 lets all of it through.
 */
#ifndef BREAKERD_HTTP_HEAD_H
#define BREAKERD_HTTP_HEAD_H

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

/* What the headers say of the body. */
struct http_framing {
	bool chunked;
	bool expects; /* 100-continue */
	uint64_t length;
};

/* What MHD_OPTION_STRICT_FOR_CLIENT shall be, for the library that is loaded. */
int http_head_strictness(void);

/*
 * To be called in the handler's first call for a request. Sets *framing and returns NULL, or
 * a static sentence that says why the request is refused.
 */
const char *http_head_check(struct MHD_Connection *mhd, const struct http_line *line,
			    struct http_framing *framing);

#endif
