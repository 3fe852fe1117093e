/*
 * Checks of a request's head. The first line of a connection is checked before libmicrohttpd
 * reads it. Each head is checked again as libmicrohttpd has taken it apart: what RFC 9112 does
 * not allow, and what two readers could read in two ways, is refused. libmicrohttpd before 1.0
 * lets all of it pass.
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

/* Why a request is refused. */
struct http_refusal {
	int status;           /* of a line of text; 0: with `problem` */
	enum problem problem; /* of a problem document */
	const char *why;
};

enum http_line_state {
	HTTP_LINE_NONE,  /* nothing has come, or an empty line alone */
	HTTP_LINE_BEGUN, /* a part of it has */
	HTTP_LINE_SOUND,
	HTTP_LINE_WRONG,
};

/*
 * Looks at the first bytes of a connection. *method is set to the first word, of *method_len
 * bytes, as soon as it is complete, else to NULL; *no is set for HTTP_LINE_WRONG.
 */
enum http_line_state http_head_check_line(const char *bytes, size_t len, const char **method,
					  size_t *method_len, struct http_refusal *no);

/* True if the target has a byte that no URI has (RFC 3986): a space, a control character. */
bool http_head_target_is_broken(const char *target, size_t len);
/* What to say then. */
extern const struct http_refusal http_head_broken_target;

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
