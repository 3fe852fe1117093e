/* Overrides: an operator forces a circuit open or closed. */
#include "api/private.h"
#include "proto/body.h"

#include <event2/buffer.h>
#include <string.h>
#include <time.h>

#define SECONDS_DEFAULT 3600
#define SECONDS_MAX     ((int)(BREAKER_OVERRIDE_MAX_MS / 1000))
#define EXAMPLE         "for example {\"mode\":\"forced-open\",\"reason\":\"bad deploy\",\"seconds\":600}"

static const char *const members[] = {"mode", "reason", "seconds"};

static const struct body_words words = {
	.what = "an override",
	.needs = "it must say the mode and the reason",
	.takes = "`mode`, `reason` and, optionally, `seconds`",
	.example = EXAMPLE,
	.members = members,
	.member_count = 3,
};

/* --- the body ------------------------------------------------------------------------------- */

static bool read_mode(const json_t *value, struct breaker_override *o, char *why, size_t why_size)
{
	const char *word = json_string_value(value);
	size_t len = json_string_length(value);

	for (int mode = BREAKER_FORCED_OPEN; mode <= BREAKER_FORCED_CLOSED; mode++) {
		const char *name = breaker_override_name(mode);

		if (word && strlen(name) == len && memcmp(name, word, len) == 0) {
			o->mode = mode;
			return true;
		}
	}
	body_explain(why, why_size,
		     "`mode` must be \"forced-open\" or \"forced-closed\", " EXAMPLE ".");
	return false;
}

static bool read_reason(const json_t *value, struct breaker_override *o, char *why, size_t why_size)
{
	const char *text = json_string_value(value);
	size_t len = json_string_length(value);

	if (!text || len > BREAKER_REASON_MAX || key_check(text, len)) {
		body_explain(why, why_size,
			     "`reason` must be a string of 1 to %d bytes without control "
			     "characters: others will read it.",
			     BREAKER_REASON_MAX);
		return false;
	}
	memcpy(o->reason, text, len);
	o->reason_len = (uint8_t)len;
	return true;
}

static bool read_seconds(const json_t *value, struct breaker_override *o, char *why,
			 size_t why_size)
{
	double n = value ? json_number_value(value) : SECONDS_DEFAULT;

	if ((value && !json_is_number(value)) || n < 1 || n > SECONDS_MAX ||
	    n != (double)(int64_t)n) {
		body_explain(why, why_size, "`seconds` must be a whole number from 1 to %d.",
			     SECONDS_MAX);
		return false;
	}
	o->until_ms = (int64_t)n * 1000;
	return true;
}

/* False, and the request is refused, if its body is no override. */
static bool read_override(struct http_request *rq, const struct target *to,
			  struct breaker_override *o)
{
	bool too_large; /* api.c has refused those */
	bool ok;
	size_t len;
	const char *body = http_request_body(rq, &len, &too_large);
	char why[512];
	json_t *root = body_read(body, len, &words, why, sizeof(why));

	ok = root && read_mode(json_object_get(root, "mode"), o, why, sizeof(why)) &&
	     read_reason(json_object_get(root, "reason"), o, why, sizeof(why)) &&
	     read_seconds(json_object_get(root, "seconds"), o, why, sizeof(why));
	json_decref(root);
	if (!ok)
		api_refuse(rq, to->route, PROBLEM_INVALID_BODY, why);
	return ok;
}

/* --- answers -------------------------------------------------------------------------------- */

static void note_set(struct api *api, const struct http_request *rq, const struct ask *ask,
		     const struct breaker_override *o)
{
	time_t until = (time_t)(o->until_ms / 1000);
	char text[32];
	struct tm tm;

	if (!log_allows(api->log, &api->changes, LOG_LEVEL_INFO, "override_set"))
		return;
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&until, &tm));
	log_info(api->log, "override_set", "key=%s mode=%s until=%s by=%s reason=%s",
		 log_quote(ask->store.key, ask->store.key_len).text, breaker_override_name(o->mode),
		 text, http_request_peer(rq), log_quote(o->reason, o->reason_len).text);
}

static void note_ended(struct api *api, const struct http_request *rq, const struct ask *ask)
{
	if (log_allows(api->log, &api->changes, LOG_LEVEL_INFO, "override_ended"))
		log_info(api->log, "override_ended", "key=%s by=%s",
			 log_quote(ask->store.key, ask->store.key_len).text, http_request_peer(rq));
}

static void refuse_none(struct http_request *rq, const struct ask *ask,
			const struct store_result *result)
{
	const struct api_problem what = {
		.problem = PROBLEM_NO_OVERRIDE,
		.detail = "The circuit has no override; PUT sets one.",
		.applied = PROBLEM_APPLIED_NONE,
		.headers = &api_degraded,
		.header_count = result->degraded ? 1 : 0,
	};

	api_reply_problem(rq, ask->route, &what);
}

static void reply(struct http_request *rq, const struct ask *ask, const struct store_result *result,
		  struct evbuffer *body, uint64_t now_ns)
{
	struct http_reply reply = {
		.status = body ? 200 : 204,
		.content_type = body ? JSON : NULL,
		.headers = &api_degraded,
		.header_count = result->degraded ? 1 : 0,
		.route = ask->route,
		.now_ns = now_ns,
	};

	if (body) {
		reply.len = evbuffer_get_length(body);
		reply.body = (const char *)evbuffer_pullup(body, -1);
	}
	http_reply(rq, &reply);
}

static void answer_override(struct api *api, struct http_request *rq, const struct ask *ask,
			    const struct store_result *result, uint64_t now_ns)
{
	struct evbuffer *body;

	if (ask->store.op.verb == CIRCUIT_END_OVERRIDE) {
		if (result->was_overridden)
			note_ended(api, rq, ask);
		reply(rq, ask, result, NULL, now_ns);
		return;
	}
	if (!result->override) {
		refuse_none(rq, ask, result);
		return;
	}
	if (ask->store.op.verb == CIRCUIT_OVERRIDE)
		note_set(api, rq, ask, result->override);
	body = evbuffer_new();
	if (!body || api_add_override(body, result->override) != 0 ||
	    evbuffer_add(body, "\n", 1) != 0)
		api_refuse(rq, ask->route, PROBLEM_OVERLOADED, NO_MEMORY);
	else
		reply(rq, ask, result, body, now_ns);
	if (body)
		evbuffer_free(body);
}

/* --- requests ------------------------------------------------------------------------------- */

void api_override(struct api *api, struct http_request *rq, const struct target *to)
{
	char key[KEY_MAX];
	struct breaker_override override = {.mode = BREAKER_NO_OVERRIDE};
	struct breaker_call call = {.override = &override};
	struct ask ask = {
		.route = to->route,
		.store = {.key = key, .op = {.verb = CIRCUIT_GET_STATE}},
		.answer = answer_override,
	};

	if (!api_read_key(rq, to, key, &ask.store.key_len) || !api_takes_no_query(rq, to->route))
		return;
	if (http_request_method(rq) == HTTP_PUT) {
		if (!read_override(rq, to, &override))
			return;
		ask.store.op.verb = CIRCUIT_OVERRIDE;
		ask.store.op.call = &call;
	} else if (http_request_method(rq) == HTTP_DELETE) {
		ask.store.op.verb = CIRCUIT_END_OVERRIDE;
		ask.store.op.call = &call;
	}
	ask.operation = ask.store.op.verb;
	api_ask(api, rq, &ask, NULL);
}
