/* The five operations on a circuit. */
#include "api/private.h"
#include "proto/circuit_json.h"

/* 200 with the snapshot; 204 for a reset. */
static void answer_circuit(struct api *api, struct http_request *rq, const struct ask *ask,
			   const struct store_result *result, uint64_t now_ns)
{
	char body[CIRCUIT_JSON_MAX + 1];
	struct http_reply reply = {
		.status = 200,
		.content_type = JSON,
		.body = body,
		.headers = &api_degraded,
		.header_count = result->degraded ? 1 : 0,
		.route = ask->route,
		.now_ns = now_ns,
	};
	struct circuit shown = result->circuit;

	if (ask->store.op.verb == CIRCUIT_GET_STATE && result->override)
		breaker_override_show(result->override, &shown, result->now_ms);
	if (ask->store.op.verb == CIRCUIT_TRANSITION)
		api_note_transition(api, rq, ask, result, NULL);
	if (ask->store.op.verb == CIRCUIT_RESET) {
		reply.status = 204;
		reply.content_type = NULL;
	} else {
		reply.len = circuit_json_encode(body, &shown);
		body[reply.len++] = '\n';
	}
	http_reply(rq, &reply);
}

/* False, and the request is refused, if its body is no transition. */
static bool read_transition(struct http_request *rq, const struct target *to, struct circuit_op *op)
{
	bool too_large; /* api.c has refused those */
	size_t len;
	const char *body = http_request_body(rq, &len, &too_large);
	char why[512];

	switch (circuit_json_decode_transition(body, len, op, why, sizeof(why))) {
	case CIRCUIT_BODY_OK:
		return true;
	case CIRCUIT_BODY_INVALID:
		api_refuse(rq, to->route, PROBLEM_INVALID_BODY, why);
		return false;
	case CIRCUIT_BODY_STATE:
		break;
	}
	api_refuse(rq, to->route, PROBLEM_INVALID_STATE, why);
	return false;
}

static void operate(struct api *api, struct http_request *rq, const struct target *to,
		    enum circuit_verb verb)
{
	char key[KEY_MAX];
	struct ask ask = {
		.route = to->route,
		.operation = verb,
		.store = {.key = key, .op = {.verb = verb}},
		.answer = answer_circuit,
	};

	if (!api_read_key(rq, to, key, &ask.store.key_len) || !api_takes_no_query(rq, to->route))
		return;
	if (verb == CIRCUIT_TRANSITION && !read_transition(rq, to, &ask.store.op))
		return;
	api_ask(api, rq, &ask, NULL);
}

void api_circuit(struct api *api, struct http_request *rq, const struct target *to)
{
	bool is_reset = http_request_method(rq) == HTTP_DELETE;

	operate(api, rq, to, is_reset ? CIRCUIT_RESET : CIRCUIT_GET_STATE);
}

void api_success(struct api *api, struct http_request *rq, const struct target *to)
{
	operate(api, rq, to, CIRCUIT_RECORD_SUCCESS);
}

void api_failure(struct api *api, struct http_request *rq, const struct target *to)
{
	operate(api, rq, to, CIRCUIT_RECORD_FAILURE);
}

void api_transition(struct api *api, struct http_request *rq, const struct target *to)
{
	operate(api, rq, to, CIRCUIT_TRANSITION);
}
