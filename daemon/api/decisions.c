/* acquire and report: whether a request may go to the upstream, and what became of it. */
#include "api/private.h"
#include "proto/breaker_permit.h"
#include "proto/report_body.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The reasons of acquire come first in enum breaker_reason, the results of report from
 * BREAKER_COUNTED on. Metrics have a label for each. */
#define DECISION_REASONS BREAKER_COUNTED
#define REPORT_RESULTS   (BREAKER_REASONS - BREAKER_COUNTED)

_Static_assert(DECISION_REASONS <= METRICS_DECISIONS, "each reason is counted");
_Static_assert(REPORT_RESULTS <= METRICS_REPORTS, "each result is counted");
_Static_assert(BREAKER_OUTCOMES <= METRICS_OUTCOMES, "each outcome is counted");

static const char *reason_name(unsigned reason)
{
	return breaker_reason_name((enum breaker_reason)reason);
}

static const char *result_name(unsigned result)
{
	return breaker_reason_name((enum breaker_reason)(BREAKER_COUNTED + result));
}

static const char *outcome_name(unsigned outcome)
{
	static const char *const names[BREAKER_OUTCOMES] = {
		[BREAKER_SUCCESS] = "success",
		[BREAKER_FAILURE] = "failure",
		[BREAKER_IGNORED] = "ignored",
	};

	return names[outcome];
}

void api_decisions_init(struct api *api)
{
	api->metrics->decision_reasons = (struct metrics_label){reason_name, DECISION_REASONS};
	api->metrics->report_outcomes = (struct metrics_label){outcome_name, BREAKER_OUTCOMES};
	api->metrics->report_results = (struct metrics_label){result_name, REPORT_RESULTS};
	random_init(&api->random);
	api->reporter = (uint16_t)random_below(&api->random, BREAKER_REPORTERS);
}

/* --- answers -------------------------------------------------------------------------------- */

static void note_change(struct api *api, const struct http_request *rq, const struct ask *ask,
			const struct store_result *result)
{
	char why[BREAKER_WHY_MAX];

	if (result->decision.was == result->decision.state)
		return;
	breaker_why(why, &result->decision.move);
	api_note_transition(api, rq, ask, result, why);
}

void api_note_decision(struct api *api, const struct http_request *rq, const struct ask *ask,
		       const struct store_result *result)
{
	api->metrics->decisions[result->decision.reason]++;
	note_change(api, rq, ask, result);
}

void api_note_report(struct api *api, const struct http_request *rq, const struct ask *ask,
		     const struct store_result *result)
{
	const struct breaker_answer *a = &result->decision;
	enum breaker_reason reason = a->counted ? BREAKER_COUNTED : a->reason;

	api->metrics->reports[ask->outcome][reason - BREAKER_COUNTED]++;
	note_change(api, rq, ask, result);
}

/* Room for either body: constant words, names, a permit and a number. */
#define BODY_MAX 256

/* Copies a constant in a few instructions. (memcpy, fortified, would be a call.) */
#define PUT(to, text) ((char *)__builtin_memcpy((to), (text), sizeof(text) - 1) + sizeof(text) - 1)

static char *put_name(char *to, const char *name)
{
	size_t len = strlen(name);

	__builtin_memcpy(to, name, len);
	return to + len;
}

static size_t write_acquired(char *body, const struct ask *ask, const struct breaker_answer *a)
{
	char *to = body;

	if (a->allowed) {
		to = PUT(to, "{\"allowed\":true,\"permit\":\"");
		to += breaker_permit_encode(to, &a->permit, ask->store.key, ask->store.key_len);
		to = PUT(to, "\",\"state\":\"");
	} else {
		to = PUT(to, "{\"allowed\":false,\"state\":\"");
	}
	to = put_name(to, circuit_state_name(a->state));
	to = PUT(to, "\",\"reason\":\"");
	to = put_name(to, breaker_reason_name(a->reason));
	to = PUT(to, "\",\"retryAfterMs\":");
	if (a->retry_after_ms == 0)
		to = PUT(to, "0");
	else
		to += sprintf(to, "%" PRId64, a->retry_after_ms);
	to = PUT(to, "}\n");
	return (size_t)(to - body);
}

static size_t write_reported(char *body, const struct breaker_answer *a)
{
	char *to = a->counted ? PUT(body, "{\"counted\":true,\"was\":\"")
			      : PUT(body, "{\"counted\":false,\"was\":\"");

	to = put_name(to, circuit_state_name(a->was));
	to = PUT(to, "\",\"state\":\"");
	to = put_name(to, circuit_state_name(a->state));
	if (!a->counted) {
		to = PUT(to, "\",\"reason\":\"");
		to = put_name(to, breaker_reason_name(a->reason));
	}
	to = PUT(to, "\"}\n");
	return (size_t)(to - body);
}

static void reply(struct http_request *rq, const struct ask *ask, const struct store_result *result,
		  const char *body, size_t len, uint64_t now_ns)
{
	struct http_header headers[2];
	char seconds[24];
	struct http_reply reply = {
		.status = 200,
		.content_type = JSON,
		.body = body,
		.len = len,
		.headers = headers,
		.route = ask->route,
		.now_ns = now_ns,
	};

	if (result->decision.retry_after_ms > 0) {
		snprintf(seconds, sizeof(seconds), "%" PRId64,
			 (result->decision.retry_after_ms + 999) / 1000);
		headers[reply.header_count++] = (struct http_header){"Retry-After", seconds};
	}
	if (result->degraded)
		headers[reply.header_count++] = api_degraded;
	http_reply(rq, &reply);
}

static void answer_acquire(struct api *api, struct http_request *rq, const struct ask *ask,
			   const struct store_result *result, uint64_t now_ns)
{
	char body[BODY_MAX];

	api_note_decision(api, rq, ask, result);
	reply(rq, ask, result, body, write_acquired(body, ask, &result->decision), now_ns);
}

static void answer_report(struct api *api, struct http_request *rq, const struct ask *ask,
			  const struct store_result *result, uint64_t now_ns)
{
	char body[BODY_MAX];

	api_note_report(api, rq, ask, result);
	reply(rq, ask, result, body, write_reported(body, &result->decision), now_ns);
}

/* --- requests ------------------------------------------------------------------------------- */

/* False, and the request is refused, if its body is no report. */
static bool read_report(struct http_request *rq, const struct ask *ask, struct breaker_call *call)
{
	static const enum problem problems[] = {
		[REPORT_BODY_INVALID] = PROBLEM_INVALID_BODY,
		[REPORT_BODY_OUTCOME] = PROBLEM_INVALID_OUTCOME,
		[REPORT_BODY_PERMIT] = PROBLEM_INVALID_PERMIT,
	};
	bool too_large; /* api.c has refused those */
	size_t len;
	const char *body = http_request_body(rq, &len, &too_large);
	enum report_body_status status;
	char why[512];

	status = report_body_read(body, len, call->policy, ask->store.key, ask->store.key_len, call,
				  why, sizeof(why));
	if (status == REPORT_BODY_OK)
		return true;
	api_refuse(rq, ask->route, problems[status], why);
	return false;
}

void api_decide(struct api *api, struct http_request *rq, const struct target *to, struct ask *ask)
{
	char key[KEY_MAX];
	struct breaker_call call = {.count = 1};

	ask->route = to->route;
	ask->operation = CIRCUIT_ACQUIRE;
	ask->store.key = key;
	ask->store.op = (struct circuit_op){.verb = CIRCUIT_ACQUIRE, .call = &call};
	if (!api_read_key(rq, to, key, &ask->store.key_len))
		return;
	call.policy = policy_set_find(api->policies, key, ask->store.key_len);
	call.random = (uint32_t)(random_next(&api->random) >> 40);
	api_ask(api, rq, ask, NULL);
}

void api_acquire(struct api *api, struct http_request *rq, const struct target *to)
{
	struct ask ask = {.answer = answer_acquire};

	if (api_takes_no_query(rq, to->route))
		api_decide(api, rq, to, &ask);
}

void api_report(struct api *api, struct http_request *rq, const struct target *to)
{
	char key[KEY_MAX];
	struct breaker_call call = {.reporter = api->reporter, .count = 1};
	struct ask ask = {
		.route = to->route,
		.operation = CIRCUIT_REPORT,
		.store = {.key = key, .op = {.verb = CIRCUIT_REPORT, .call = &call}},
		.answer = answer_report,
	};

	if (!api_read_key(rq, to, key, &ask.store.key_len) || !api_takes_no_query(rq, to->route))
		return;
	call.policy = policy_set_find(api->policies, key, ask.store.key_len);
	if (!read_report(rq, &ask, &call))
		return;
	ask.outcome = call.outcome;
	api_ask(api, rq, &ask, NULL);
}
