/* Answers that are the same for every resource. */
#include "api/private.h"

#include <stdlib.h>

const struct http_header api_degraded = {"Breakerd-Degraded", "true"};

bool api_is_writing(const struct http_request *rq)
{
	return http_method_writes(http_request_method(rq));
}

void api_reply(struct http_request *rq, enum api_route route, const char *type, const char *body,
	       size_t len)
{
	struct http_reply reply = {
		.status = 200,
		.content_type = type,
		.body = body,
		.len = len,
		.route = route,
	};

	http_reply(rq, &reply);
}

void api_reply_problem(struct http_request *rq, enum api_route route,
		       const struct api_problem *problem)
{
	/* The body if memory is too short to make one. The status still tells. */
	static const char last_resort[] = "{}\n";
	size_t len = 0;
	char *body = problem_encode(problem->problem, problem->detail, problem->applied,
				    problem->circuit, &len);
	struct http_reply reply = {
		.status = problem_status(problem->problem),
		.content_type = "application/problem+json",
		.body = body ? body : last_resort,
		.len = body ? len : sizeof(last_resort) - 1,
		.headers = problem->headers,
		.header_count = problem->header_count,
		.route = route,
	};

	http_reply(rq, &reply);
	free(body);
}

void api_refuse(struct http_request *rq, enum api_route route, enum problem problem,
		const char *detail)
{
	struct http_header header = {0};
	struct api_problem what = {
		.problem = problem,
		.detail = detail,
		.applied = api_is_writing(rq) ? PROBLEM_APPLIED_NO : PROBLEM_APPLIED_NONE,
		.headers = &header,
	};

	if (problem == PROBLEM_UNAUTHORIZED)
		header = (struct http_header){"WWW-Authenticate", "Bearer realm=\"breakerd\""};
	else if (problem == PROBLEM_OVERLOADED)
		header = (struct http_header){"Retry-After", "1"};
	what.header_count = header.name ? 1 : 0;
	api_reply_problem(rq, route, &what);
}

bool api_read_key(struct http_request *rq, const struct target *to, char key[KEY_MAX], size_t *len)
{
	const char *wrong = key_decode(to->segment, to->segment_len, key, len);

	if (wrong)
		api_refuse(rq, to->route, PROBLEM_INVALID_KEY, wrong);
	return !wrong;
}

bool api_takes_no_query(struct http_request *rq, enum api_route route)
{
	const char *query = http_request_query(rq);

	if (!query || !*query)
		return true;
	api_refuse(
		rq, route, PROBLEM_INVALID_QUERY,
		"This route takes no query: leave out the '?' and what follows it, or write it as "
		"%3F if it belongs to the key.");
	return false;
}
