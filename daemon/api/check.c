/*
 * /v1/check: decides as acquire does, for the sub-request of a gateway. The answer is a status and
 * headers. If the store has no answer the request is allowed: trouble with breakerd must not refuse
 * end users.
 */
#include "api/private.h"
#include "proto/breaker_permit.h"

#include <inttypes.h>
#include <stdio.h>

static int refusal_status(enum api_route route)
{
	switch (route) {
	case ROUTE_CHECK_401:
		return 401;
	case ROUTE_CHECK_429:
		return 429;
	case ROUTE_CHECK_503:
		return 503;
	default:
		return 403;
	}
}

/* Room for the permit, or for Retry-After in whole seconds. */
union value {
	char permit[BREAKER_PERMIT_MAX];
	char seconds[24];
};

static struct http_header permit_header(const struct ask *ask, const struct breaker_answer *a,
					union value *value)
{
	breaker_permit_encode(value->permit, &a->permit, ask->store.key, ask->store.key_len);
	return (struct http_header){"Breakerd-Permit", value->permit};
}

static struct http_header wait_header(const struct breaker_answer *a, union value *value)
{
	snprintf(value->seconds, sizeof(value->seconds), "%" PRId64,
		 (a->retry_after_ms + 999) / 1000);
	return (struct http_header){"Retry-After", value->seconds};
}

static void answer_check(struct api *api, struct http_request *rq, const struct ask *ask,
			 const struct store_result *result, uint64_t now_ns)
{
	const struct breaker_answer *a = &result->decision;
	struct http_header headers[4];
	struct http_reply reply = {
		.status = 200,
		.headers = headers,
		.route = ask->route,
		.now_ns = now_ns,
	};
	union value value;

	if (result->status == STORE_OK) {
		api_note_decision(api, rq, ask, result);
		if (!a->allowed)
			reply.status = refusal_status(ask->route);
		headers[reply.header_count++] =
			(struct http_header){"Breakerd-State", circuit_state_name(a->state)};
		headers[reply.header_count++] =
			(struct http_header){"Breakerd-Reason", breaker_reason_name(a->reason)};
		headers[reply.header_count++] =
			a->allowed ? permit_header(ask, a, &value) : wait_header(a, &value);
	}
	if (result->status != STORE_OK || result->degraded)
		headers[reply.header_count++] = api_degraded;
	http_reply(rq, &reply);
}

void api_check(struct api *api, struct http_request *rq, const struct target *to)
{
	struct ask ask = {.answer = answer_check, .answers_errors = true};

	api_decide(api, rq, to, &ask);
}
