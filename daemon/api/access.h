/*
 * Who may ask: Host against DNS rebinding, Origin and Sec-Fetch-Site against web pages,
 * the bearer token.
 */
#ifndef BREAKERD_ACCESS_H
#define BREAKERD_ACCESS_H

#include "api/route.h"
#include "http/http.h"
#include "proto/problem.h"

#include <stdbool.h>
#include <stddef.h>

/* What a listener of http is for. */
enum access_purpose {
	ACCESS_ALL,
	ACCESS_METRICS, /* /metrics, /healthz and /readyz alone; no token, any Host */
};

/* Settings that can change at run time. Strings must live until the next api_reconfigure. */
struct api_access {
	const char *token; /* one or more, a newline between two; NULL: none needed */
	const char *const *allowed_hosts; /* for Host, without port; lower case */
	size_t allowed_host_count;
	bool any_address; /* Host may have any address, for we listen on all of them */
	size_t max_body;  /* for the text of body_too_large */
};

struct access_verdict {
	enum problem problem;
	char detail[512];
};

/* True if Accept names text/html first, as browsers do. */
bool access_is_browser(const struct http_request *rq);

/* True if the request may use the route; else *verdict says why not. */
bool access_check(const struct api_access *access, const struct http_request *rq,
		  enum api_route route, struct access_verdict *verdict);

#endif
