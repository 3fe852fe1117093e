/*
 * What the files of api share; nobody else includes this. Each uses those above it:
 * reply.c: answers that are the same everywhere; query.c: reading queries; ask.c: requests that go
 * to the store; change.c: changes of state; page.c: the page for a browser; circuits.c,
 * decisions.c, listing.c, policies.c, pages.c: the resources; api.c: the table of routes, and what
 * every request passes.
 *
 * A new route: a row in API_ROUTES (route.h), one in the table of api.c, a handler here.
 */
#ifndef BREAKERD_API_PRIVATE_H
#define BREAKERD_API_PRIVATE_H

#include "api/api.h"
#include "api/route.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "http/http.h"
#include "proto/problem.h"
#include "store/store.h"

#include <sys/queue.h>

#define JSON      "application/json"
#define NO_MEMORY "Out of memory. Try again in a second."

struct watch;
TAILQ_HEAD(waiting_list, waiting);

struct api {
	struct store *store;
	struct api_access access;
	const struct policy_set *policies;
	struct metrics *metrics;
	struct log *log;
	struct log_limit changes;    /* circuits may be many, and flap */
	struct waiting_list waiting; /* for the store */
	struct events *events;
	struct watch *watch; /* of events: circuits that are not closed or overridden */
	unsigned max_streams;
	unsigned metrics_circuits;
	unsigned max_lines;
	/* decisions.c */
	uint16_t reporter; /* this daemon's number, for min_reporters */
	struct random_state random;
};

/* Where a request goes. */
struct target {
	enum api_route route;
	const char *segment; /* the key's path segment, still encoded; NULL: the route has no key */
	size_t segment_len;
};

/* Answers rq, now or later. */
typedef void api_handler_fn(struct api *api, struct http_request *rq, const struct target *to);

/* --- reply.c -------------------------------------------------------------------------- */

/* True if rq means to change something (RFC 9110, section 9.2.1: the method is not a safe one). */
bool api_is_writing(const struct http_request *rq);

/* 200 with that body. */
void api_reply(struct http_request *rq, enum api_route route, const char *type, const char *body,
	       size_t len);

/* What stands in a problem document beside code and detail, and in its head. */
struct api_problem {
	enum problem problem;
	const char *detail;
	enum problem_applied applied;
	const struct circuit *circuit; /* or NULL */
	const struct http_header *headers;
	size_t header_count;
};
void api_reply_problem(struct http_request *rq, enum api_route route,
		       const struct api_problem *problem);

/* Refuses a request before the store has heard of it, with the headers that the problem needs. */
void api_refuse(struct http_request *rq, enum api_route route, enum problem problem,
		const char *detail);

/* False, and the request is refused, if it has a query: for routes that take none. */
bool api_takes_no_query(struct http_request *rq, enum api_route route);

/* --- item.c --------------------------------------------------------------------------- */

struct evbuffer;

/* The members of a listing's item: "key" and the five, then `override` if there is one; without
 * braces. 0, or -1 when out of memory. */
int api_add_item(struct evbuffer *out, const char *key, size_t key_len, const struct circuit *c,
		 const struct breaker_override *override);

/* {"mode":...,"reason":...,"since":...,"until":...} */
int api_add_override(struct evbuffer *out, const struct breaker_override *override);

/* --- query.c -------------------------------------------------------------------------- */

#define API_QUERY_MAX 8

/* The parameters that a route takes. */
struct api_query {
	const char *const *names;
	unsigned count;    /* at most API_QUERY_MAX */
	const char *takes; /* "a listing takes state, prefix, limit and cursor" */
	/* Takes the value of names[which], decoded. NULL, or a sentence: what is wrong with it. */
	const char *(*read)(void *arg, unsigned which, const char *value, size_t len);
};

/* Reads a query (NULL: none). False with a sentence for the client in why. */
bool api_read_query(const struct api_query *query, const char *text, void *arg, char *why,
		    size_t why_size);

/* --- ask.c ---------------------------------------------------------------------------- */

struct ask;

/* Answers rq with a result that is no error. The page, if there is one, is the caller's. */
typedef void api_answer_fn(struct api *api, struct http_request *rq, const struct ask *ask,
			   const struct store_result *result, uint64_t now_ns);

/* What one request asks of the store; what its answer needs to know of it. */
struct ask {
	enum api_route route;
	unsigned operation; /* a verb, or STORE_OPERATION_LIST */
	struct store_request store;
	enum breaker_outcome outcome; /* of a report */
	api_answer_fn *answer;
	bool answers_errors; /* `answer` takes results that are errors, too */
};

/* Asks the store: for a listing with query, else for the operation in ask. Answers, now or later.
 */
void api_ask(struct api *api, struct http_request *rq, const struct ask *ask,
	     const struct store_query *query);

/* Ends every request that waits for the store. */
void api_ask_abort(struct api *api);

/* --- change.c ------------------------------------------------------------------------- */

/* rq is NULL for a line of a log. Counts a transition that was applied, and logs it if the state is
 * another one now. `why`: what led to it; NULL: the client wanted it. */
void api_note_transition(struct api *api, const struct http_request *rq, const struct ask *ask,
			 const struct store_result *result, const char *why);

/* --- page.c --------------------------------------------------------------------------- */

/* Answers with 303 to the page. */
void api_lead_to_page(struct http_request *rq, enum api_route route);

/* --- listing.c ------------------------------------------------------------------------ */

/* Read a value of `state` or `prefix` into the query. NULL, or what is wrong with it. */
const char *api_read_state(struct store_query *query, const char *value, size_t len);
const char *api_read_prefix(struct store_query *query, const char *value, size_t len);

/* --- events.c ------------------------------------------------------------------------- */

struct event_base;
struct events;

/* 0, or -1 when out of memory; api_events_free then, too. */
int api_events_init(struct api *api, struct event_base *base, size_t max_circuits);
/* Behind the end of http. */
void api_events_free(struct api *api);

/* --- open.c --------------------------------------------------------------------------- */

/* The circuits that are not closed, the longest first: for /metrics, at most metrics_circuits, and
 * for a person, at most 100, with how long. 0, or -1 when out of memory. */
int api_add_open_metric(struct api *api, struct evbuffer *out);
int api_add_open_lines(struct api *api, struct evbuffer *out);

/* --- circuits.c, decisions.c, listing.c, policies.c, pages.c -------------------------- */

/* Names the labels of its metrics, and draws this daemon's number. */
void api_decisions_init(struct api *api);

/* Decides on the circuit that `to` names; api_note_decision is to be called in `answer`. Of
 * *ask are set: answer, answers_errors. Refuses the request if the key is none. */
void api_decide(struct api *api, struct http_request *rq, const struct target *to, struct ask *ask);

/* Counts a report, and logs the change of state that came with it. rq is NULL for a line of a log.
 */
void api_note_report(struct api *api, const struct http_request *rq, const struct ask *ask,
		     const struct store_result *result);

/* Counts a decision of acquire, and logs the change of state that came with it. */
void api_note_decision(struct api *api, const struct http_request *rq, const struct ask *ask,
		       const struct store_result *result);

api_handler_fn api_circuit; /* getState, reset */
api_handler_fn api_success;
api_handler_fn api_failure;
api_handler_fn api_transition;
api_handler_fn api_acquire;
api_handler_fn api_report;
api_handler_fn api_override;
api_handler_fn api_check;
api_handler_fn api_changes;
api_handler_fn api_events;
api_handler_fn api_circuits;
api_handler_fn api_policies;
api_handler_fn api_page; /* page.c */
api_handler_fn api_index;
api_handler_fn api_healthz;
api_handler_fn api_readyz;
api_handler_fn api_metrics;

#endif
