/*
 * Who may ask: Host against DNS rebinding, Origin and Sec-Fetch-Site against web pages,
 * the bearer token.
 */
#ifndef BREAKERD_ACCESS_H
#define BREAKERD_ACCESS_H

#include "api/api.h"
#include "api/route.h"
#include "proto/problem.h"

struct access_verdict {
	enum problem problem;
	char detail[512];
};

/* True if rq may go on to route; else *verdict says why not. */
bool access_check(const struct api_access *access, const struct http_request *rq,
		  enum api_route route, struct access_verdict *verdict);

#endif
