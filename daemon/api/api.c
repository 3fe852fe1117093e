#include "api/api.h"

#include "api/access.h"
#include "api/pages.h"
#include "api/route.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/circuit_json.h"
#include "proto/problem.h"
#include "store/count.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define JSON      "application/json"
#define NO_MEMORY "Out of memory. Try again in a second."

/* What one request asks of the store; what its answer needs to know of it. */
struct ask {
	enum api_route route;
	unsigned operation; /* a verb, or STORE_OPERATION_LIST */
	struct store_request store;
};

/* A request that waits for the store. */
struct waiting {
	TAILQ_ENTRY(waiting) entry;
	struct api *api;
	struct http_request *rq;
	struct store_op *op;
	struct ask ask;
	char key[]; /* what ask.store.key points to */
};

TAILQ_HEAD(waiting_list, waiting);

struct api {
	struct store *store;
	struct api_access access;
	struct metrics *metrics;
	struct log *log;
	struct log_limit changes; /* circuits may be many, and flap */
	struct waiting_list waiting;
};

/* A request that means to change something (RFC 9110, section 9.2.1: not a safe method). */
static bool is_writing(const struct http_request *rq)
{
	enum http_method method = http_request_method(rq);

	return method != HTTP_GET && method != HTTP_HEAD;
}

static void reply_text(struct http_request *rq, enum api_route route, const char *type,
		       const char *body, size_t len)
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

/* `header` may be NULL. */
static void reply_problem(struct http_request *rq, enum api_route route, enum problem problem,
			  const char *detail, enum problem_applied applied,
			  const struct circuit *circuit, const struct http_header *headers,
			  size_t header_count)
{
	/* Should there be no memory even for this, the status still tells. */
	static const char last_resort[] = "{}\n";
	size_t len = 0;
	char *body = problem_encode(problem, detail, applied, circuit, &len);
	struct http_reply reply = {
		.status = problem_status(problem),
		.content_type = "application/problem+json",
		.body = body ? body : last_resort,
		.len = body ? len : sizeof(last_resort) - 1,
		.headers = headers,
		.header_count = header_count,
		.route = route,
	};

	http_reply(rq, &reply);
	free(body);
}

/* Refuses a request before the store has heard of it. */
static void refuse(struct http_request *rq, enum api_route route, enum problem problem,
		   const char *detail)
{
	struct http_header header = {0};

	if (problem == PROBLEM_UNAUTHORIZED)
		header = (struct http_header){"WWW-Authenticate", "Bearer realm=\"breakerd\""};
	else if (problem == PROBLEM_OVERLOADED)
		header = (struct http_header){"Retry-After", "1"};
	reply_problem(rq, route, problem, detail,
		      is_writing(rq) ? PROBLEM_APPLIED_NO : PROBLEM_APPLIED_NONE, NULL, &header,
		      header.name ? 1 : 0);
}

/* --- answers of the store ------------------------------------------------------------- */

/* How a result that is no success is told to the client. */
static enum problem problem_of(const struct store_result *result)
{
	switch (result->status) {
	case STORE_CONFLICT:
		return PROBLEM_STATE_CONFLICT;
	case STORE_ERROR:
		return PROBLEM_STORE_ERROR;
	case STORE_FULL:
		return PROBLEM_STORE_FULL;
	case STORE_OVERLOADED:
		return PROBLEM_OVERLOADED;
	case STORE_BAD_CURSOR:
		return PROBLEM_INVALID_QUERY;
	case STORE_TIMEOUT:
		return PROBLEM_STORE_TIMEOUT;
	case STORE_OK:
	case STORE_UNAVAILABLE:
	case STORE_UNKNOWN:
		break;
	}
	return result->timed_out ? PROBLEM_STORE_TIMEOUT : PROBLEM_STORE_UNAVAILABLE;
}

static void detail_of(const struct ask *ask, const struct store_result *result, char *out,
		      size_t size)
{
	bool said = result->message && *result->message;
	const char *words = said ? result->message : "no reason was given";
	const char *unknown = "";
	size_t len = strlen(words);

	/* The sentence ends here, whether Redis ends its own or not. */
	if (len > 0 && words[len - 1] == '.')
		len--;
	if (result->status == STORE_UNKNOWN)
		unknown = " The operation may have been applied: read the circuit before "
			  "repeating it.";
	switch (problem_of(result)) {
	case PROBLEM_STATE_CONFLICT:
		snprintf(out, size,
			 "The circuit is %s, not %s, so it was left as it is; `circuit` is its "
			 "snapshot.",
			 circuit_state_name(result->circuit.state),
			 circuit_state_name(ask->store.op.from));
		break;
	case PROBLEM_STORE_ERROR:
		snprintf(out, size, "The store refused the operation: %.*s.", (int)len, words);
		break;
	case PROBLEM_STORE_FULL:
		snprintf(out, size,
			 "No room for a new circuit: %s. Reset circuits that are not needed, or "
			 "raise max_circuits.",
			 words);
		break;
	case PROBLEM_OVERLOADED:
		snprintf(out, size, "Too busy: %s. Try again in a second.", words);
		break;
	case PROBLEM_INVALID_QUERY:
		snprintf(out, size,
			 "`cursor` is none of this daemon's: take it from the page before, or "
			 "leave it out to begin.");
		break;
	case PROBLEM_STORE_TIMEOUT:
		snprintf(out, size, "The store did not answer in time: %s.%s", words, unknown);
		break;
	default:
		snprintf(out, size, "The store cannot be used: %s.%s Try again in a second.", words,
			 unknown);
		break;
	}
}

static void answer_problem(struct http_request *rq, const struct ask *ask,
			   const struct store_result *result)
{
	bool writes = ask->operation < CIRCUIT_VERBS && circuit_verb_writes(ask->store.op.verb);
	enum problem problem = problem_of(result);
	enum problem_applied applied = PROBLEM_APPLIED_NONE;
	struct http_header headers[2];
	size_t count = 0;
	char detail[1024];

	if (writes)
		applied = result->status == STORE_UNKNOWN ? PROBLEM_APPLIED_UNKNOWN
							  : PROBLEM_APPLIED_NO;
	if (problem == PROBLEM_STORE_UNAVAILABLE || problem == PROBLEM_OVERLOADED)
		headers[count++] = (struct http_header){"Retry-After", "1"};
	if (result->degraded)
		headers[count++] = (struct http_header){"Breakerd-Degraded", "true"};
	detail_of(ask, result, detail, sizeof(detail));
	reply_problem(rq, ask->route, problem, detail, applied,
		      problem == PROBLEM_STATE_CONFLICT ? &result->circuit : NULL, headers, count);
}

static void answer_circuit(struct http_request *rq, const struct ask *ask,
			   const struct store_result *result, uint64_t now_ns)
{
	static const struct http_header degraded = {"Breakerd-Degraded", "true"};
	char body[CIRCUIT_JSON_MAX + 1];
	struct http_reply reply = {
		.status = 200,
		.content_type = JSON,
		.body = body,
		.headers = &degraded,
		.header_count = result->degraded ? 1 : 0,
		.route = ask->route,
		.now_ns = now_ns,
	};

	if (ask->store.op.verb == CIRCUIT_RESET) {
		reply.status = 204;
		reply.content_type = NULL;
	} else {
		reply.len = circuit_json_encode(body, &result->circuit);
		body[reply.len++] = '\n';
	}
	http_reply(rq, &reply);
}

static void answer_page(struct http_request *rq, const struct ask *ask,
			const struct store_result *result)
{
	static const struct http_header degraded = {"Breakerd-Degraded", "true"};
	struct http_reply reply = {
		.status = 200,
		.content_type = JSON,
		.headers = &degraded,
		.header_count = result->degraded ? 1 : 0,
		.route = ask->route,
	};
	struct evbuffer *out = evbuffer_new();

	if (!out || pages_listing(result->page, out) != 0) {
		refuse(rq, ask->route, PROBLEM_OVERLOADED, NO_MEMORY);
	} else {
		reply.len = evbuffer_get_length(out);
		reply.body = (const char *)evbuffer_pullup(out, -1);
		http_reply(rq, &reply);
	}
	if (out)
		evbuffer_free(out);
}

static void answer_index(struct api *api, struct http_request *rq, const struct store_page *page)
{
	struct evbuffer *out = evbuffer_new();
	struct store_health health;

	store_health(api->store, &health);
	if (!out || pages_index(&health, page, api->metrics,
				http_request_header(rq, HTTP_FIELD_HOST, NULL), out) != 0)
		refuse(rq, ROUTE_INDEX, PROBLEM_OVERLOADED, NO_MEMORY);
	else
		reply_text(rq, ROUTE_INDEX, "text/plain; charset=utf-8",
			   (const char *)evbuffer_pullup(out, -1), evbuffer_get_length(out));
	if (out)
		evbuffer_free(out);
}

static void note_transition(struct api *api, const struct http_request *rq, const struct ask *ask,
			    const struct store_result *result)
{
	api->metrics->transitions[result->was][result->circuit.state]++;
	if (result->was == result->circuit.state ||
	    !log_allows(api->log, &api->changes, LOG_LEVEL_INFO, "state_change"))
		return;
	log_info(api->log, "state_change", "key=%s from=%s to=%s by=%s",
		 log_quote(ask->store.key, ask->store.key_len).text,
		 circuit_state_name(result->was), circuit_state_name(result->circuit.state),
		 http_request_peer(rq));
}

/* The one way out: every answer of the store passes here. */
static void answer(struct api *api, struct http_request *rq, const struct ask *ask,
		   struct store_result *result)
{
	uint64_t now_ns = clock_ns();

	store_count(api->metrics, ask->operation, result->status,
		    now_ns - http_request_arrived_ns(rq));
	if (ask->route == ROUTE_INDEX)
		answer_index(api, rq, result->page);
	else if (result->status != STORE_OK)
		answer_problem(rq, ask, result);
	else if (ask->operation == STORE_OPERATION_LIST)
		answer_page(rq, ask, result);
	else {
		if (ask->store.op.verb == CIRCUIT_TRANSITION)
			note_transition(api, rq, ask, result);
		answer_circuit(rq, ask, result, now_ns);
	}
	store_page_free(result->page);
}

static void on_store_done(void *arg, struct store_result *result)
{
	struct waiting *w = arg;

	TAILQ_REMOVE(&w->api->waiting, w, entry);
	answer(w->api, w->rq, &w->ask, result);
	free(w);
}

/* --- requests to the store ------------------------------------------------------------ */

static struct waiting *waiting_new(struct api *api, struct http_request *rq, const struct ask *ask)
{
	struct waiting *w = malloc(sizeof(*w) + ask->store.key_len);

	if (!w)
		return NULL;
	w->api = api;
	w->rq = rq;
	w->op = NULL;
	w->ask = *ask;
	if (ask->store.key_len)
		memcpy(w->key, ask->store.key, ask->store.key_len);
	w->ask.store.key = w->key;
	return w;
}

/* Asks the store: for a listing with query, else for the operation in ask. */
static void submit(struct api *api, struct http_request *rq, struct ask *ask,
		   const struct store_query *query)
{
	struct waiting *w = waiting_new(api, rq, ask);
	struct store_result result;

	if (!w) {
		refuse(rq, ask->route, PROBLEM_OVERLOADED, NO_MEMORY);
		return;
	}
	if (query)
		w->op = store_list(api->store, query, on_store_done, w, &result);
	else
		w->op = store_submit(api->store, &w->ask.store, on_store_done, w, &result);
	if (w->op) {
		TAILQ_INSERT_TAIL(&api->waiting, w, entry);
		return;
	}
	answer(api, rq, &w->ask, &result);
	free(w);
}

static void handle_index(struct api *api, struct http_request *rq)
{
	struct ask ask = {.route = ROUTE_INDEX, .operation = STORE_OPERATION_LIST};
	struct store_query *query;
	struct store_health health;

	/* The embedded store's circuits are counted; those in Redis have to be listed. */
	store_health(api->store, &health);
	if (health.counts_circuits || health.condition == STORE_AWAY) {
		answer_index(api, rq, NULL);
		return;
	}
	query = calloc(1, sizeof(*query));
	if (!query) {
		refuse(rq, ROUTE_INDEX, PROBLEM_OVERLOADED, NO_MEMORY);
		return;
	}
	query->limit = 1000;
	submit(api, rq, &ask, query);
	free(query);
}

static void handle_list(struct api *api, struct http_request *rq)
{
	struct ask ask = {.route = ROUTE_CIRCUITS, .operation = STORE_OPERATION_LIST};
	struct store_query *query = calloc(1, sizeof(*query));
	char why[160];

	if (!query)
		refuse(rq, ask.route, PROBLEM_OVERLOADED, NO_MEMORY);
	else if (!query_decode(http_request_query(rq), query, why, sizeof(why)))
		refuse(rq, ask.route, PROBLEM_INVALID_QUERY, why);
	else
		submit(api, rq, &ask, query);
	free(query);
}

static void handle_circuit(struct api *api, struct http_request *rq, enum api_route route,
			   enum circuit_verb verb, const char *segment, size_t segment_len)
{
	const char *query = http_request_query(rq);
	char key[KEY_MAX];
	struct ask ask = {
		.route = route,
		.operation = verb,
		.store = {.key = key, .op = {.verb = verb}},
	};
	const char *wrong = key_decode(segment, segment_len, key, &ask.store.key_len);

	if (wrong) {
		refuse(rq, route, PROBLEM_INVALID_KEY, wrong);
		return;
	}
	if (query && *query) {
		refuse(rq, route, PROBLEM_INVALID_QUERY,
		       "This route takes no query: leave out the '?' and what follows it, or write "
		       "it as %3F if it belongs to the key.");
		return;
	}
	if (verb == CIRCUIT_TRANSITION) {
		size_t len;
		bool too_large; /* has been dealt with */
		const char *body = http_request_body(rq, &len, &too_large);
		char why[512];

		switch (circuit_json_decode_transition(body, len, &ask.store.op, why,
						       sizeof(why))) {
		case CIRCUIT_BODY_OK:
			break;
		case CIRCUIT_BODY_INVALID:
			refuse(rq, route, PROBLEM_INVALID_BODY, why);
			return;
		case CIRCUIT_BODY_STATE:
			refuse(rq, route, PROBLEM_INVALID_STATE, why);
			return;
		}
	}
	submit(api, rq, &ask, NULL);
}

/* --- routes of the daemon itself ------------------------------------------------------ */

static void handle_healthz(struct http_request *rq)
{
	static const char body[] = "{\"status\":\"ok\"}\n";

	reply_text(rq, ROUTE_HEALTHZ, JSON, body, sizeof(body) - 1);
}

static void handle_readyz(struct api *api, struct http_request *rq)
{
	struct store_health health;
	char *body;
	struct http_reply reply = {
		.status = 200,
		.content_type = JSON,
		.route = ROUTE_READYZ,
	};

	store_health(api->store, &health);
	body = pages_readiness(&health, &reply.len);
	if (!body) {
		refuse(rq, ROUTE_READYZ, PROBLEM_OVERLOADED, NO_MEMORY);
		return;
	}
	reply.body = body;
	if (health.condition == STORE_AWAY)
		reply.status = 503;
	http_reply(rq, &reply);
	free(body);
}

static void handle_metrics(struct api *api, struct http_request *rq)
{
	struct evbuffer *out = evbuffer_new();
	struct store_health health;

	store_health(api->store, &health);
	api->metrics->store_up = health.condition == STORE_READY;
	api->metrics->store_degraded = health.condition == STORE_DEGRADED;
	api->metrics->store_in_flight = health.in_flight;
	if (!out || metrics_write(api->metrics, out) != 0)
		refuse(rq, ROUTE_METRICS, PROBLEM_OVERLOADED, NO_MEMORY);
	else
		reply_text(rq, ROUTE_METRICS, "text/plain; version=0.0.4; charset=utf-8",
			   (const char *)evbuffer_pullup(out, -1), evbuffer_get_length(out));
	if (out)
		evbuffer_free(out);
}

/* --- routing -------------------------------------------------------------------------- */

struct target {
	enum api_route route;
	const char *segment; /* the key's path segment, still encoded */
	size_t segment_len;
};

static enum api_route circuit_route(const char *tail)
{
	if (!tail)
		return ROUTE_CIRCUIT;
	if (strcmp(tail, "/success") == 0)
		return ROUTE_SUCCESS;
	if (strcmp(tail, "/failure") == 0)
		return ROUTE_FAILURE;
	if (strcmp(tail, "/transition") == 0)
		return ROUTE_TRANSITION;
	return ROUTE_NONE;
}

static struct target route_of(const char *path)
{
	static const char circuits[] = "/v1/circuits";
	struct target target = {.route = ROUTE_NONE};

	if (strncmp(path, circuits, sizeof(circuits) - 1) == 0) {
		const char *rest = path + sizeof(circuits) - 1;
		const char *tail;

		if (*rest == '\0') {
			target.route = ROUTE_CIRCUITS;
		} else if (*rest == '/') {
			target.segment = rest + 1;
			tail = strchr(target.segment, '/');
			target.segment_len =
				tail ? (size_t)(tail - target.segment) : strlen(target.segment);
			target.route = circuit_route(tail);
		}
	} else if (strcmp(path, "/healthz") == 0) {
		target.route = ROUTE_HEALTHZ;
	} else if (strcmp(path, "/readyz") == 0) {
		target.route = ROUTE_READYZ;
	} else if (strcmp(path, "/metrics") == 0) {
		target.route = ROUTE_METRICS;
	} else if (strcmp(path, "/") == 0) {
		target.route = ROUTE_INDEX;
	}
	return target;
}

/* The methods of a route, as Allow lists them (RFC 9110, section 10.2.1). */
static const char *allowed_methods(enum api_route route)
{
	switch (route) {
	case ROUTE_CIRCUIT:
		return "GET, HEAD, DELETE";
	case ROUTE_SUCCESS:
	case ROUTE_FAILURE:
	case ROUTE_TRANSITION:
		return "POST";
	default:
		return "GET, HEAD";
	}
}

static bool method_allowed(enum api_route route, enum http_method method)
{
	switch (route) {
	case ROUTE_CIRCUIT:
		return method == HTTP_GET || method == HTTP_HEAD || method == HTTP_DELETE;
	case ROUTE_SUCCESS:
	case ROUTE_FAILURE:
	case ROUTE_TRANSITION:
		return method == HTTP_POST;
	default:
		return method == HTTP_GET || method == HTTP_HEAD;
	}
}

static void refuse_method(struct http_request *rq, enum api_route route)
{
	struct http_header allow = {"Allow", allowed_methods(route)};
	char detail[128];

	snprintf(detail, sizeof(detail), "%s takes %s.", api_route_name(route), allow.value);
	reply_problem(rq, route, PROBLEM_METHOD_NOT_ALLOWED, detail,
		      is_writing(rq) ? PROBLEM_APPLIED_NO : PROBLEM_APPLIED_NONE, NULL, &allow, 1);
}

static void refuse_body(struct api *api, struct http_request *rq, enum api_route route)
{
	char detail[128];

	snprintf(detail, sizeof(detail), "The body is over the limit of %zu bytes (max_body).",
		 api->access.max_body);
	refuse(rq, route, PROBLEM_BODY_TOO_LARGE, detail);
}

static void dispatch(struct api *api, struct http_request *rq, const struct target *to)
{
	enum circuit_verb verb = CIRCUIT_GET_STATE;

	switch (to->route) {
	case ROUTE_CIRCUIT:
		if (http_request_method(rq) == HTTP_DELETE)
			verb = CIRCUIT_RESET;
		break;
	case ROUTE_SUCCESS:
		verb = CIRCUIT_RECORD_SUCCESS;
		break;
	case ROUTE_FAILURE:
		verb = CIRCUIT_RECORD_FAILURE;
		break;
	case ROUTE_TRANSITION:
		verb = CIRCUIT_TRANSITION;
		break;
	case ROUTE_CIRCUITS:
		handle_list(api, rq);
		return;
	case ROUTE_HEALTHZ:
		handle_healthz(rq);
		return;
	case ROUTE_READYZ:
		handle_readyz(api, rq);
		return;
	case ROUTE_METRICS:
		handle_metrics(api, rq);
		return;
	case ROUTE_INDEX:
		handle_index(api, rq);
		return;
	default:
		refuse(rq, to->route, PROBLEM_NOT_FOUND,
		       "No such route; GET / lists them. A '/' inside a key is written %2F.");
		return;
	}
	handle_circuit(api, rq, to->route, verb, to->segment, to->segment_len);
}

void api_handle(void *arg, struct http_request *rq)
{
	struct api *api = arg;
	struct target to = route_of(http_request_path(rq));
	struct access_verdict verdict;
	bool too_large;
	size_t len;

	if (!access_check(&api->access, rq, to.route, &verdict)) {
		refuse(rq, to.route, verdict.problem, verdict.detail);
		return;
	}
	if (to.route != ROUTE_NONE && !method_allowed(to.route, http_request_method(rq))) {
		refuse_method(rq, to.route);
		return;
	}
	http_request_body(rq, &len, &too_large);
	if (too_large) {
		refuse_body(api, rq, to.route);
		return;
	}
	dispatch(api, rq, &to);
}

/* --- life ----------------------------------------------------------------------------- */

struct api *api_new(struct store *store, const struct api_access *access, struct metrics *metrics,
		    struct log *log)
{
	struct api *api = calloc(1, sizeof(*api));

	if (!api)
		return NULL;
	api->store = store;
	api->access = *access;
	api->metrics = metrics;
	metrics->routes = (struct metrics_label){api_route_name, API_ROUTE_COUNT};
	store_count_init(metrics);
	api->log = log;
	TAILQ_INIT(&api->waiting);
	return api;
}

void api_reconfigure(struct api *api, const struct api_access *access)
{
	api->access = *access;
}

void api_abort(struct api *api)
{
	struct waiting *w;

	while ((w = TAILQ_FIRST(&api->waiting)) != NULL) {
		struct store_result result = {
			.status = STORE_UNAVAILABLE,
			.message = "breakerd is stopping",
		};

		/* It may be on its way to Redis, and its answer will not be waited for. */
		if (w->ask.operation < CIRCUIT_VERBS && circuit_verb_writes(w->ask.store.op.verb))
			result.status = STORE_UNKNOWN;
		store_cancel(w->op);
		on_store_done(w, &result);
	}
}

void api_free(struct api *api)
{
	free(api);
}
