/*
 * What the files of api share; nobody else includes this. Each file uses those above it:
 *
 * reply.c   answers that are the same for all routes
 * query.c   reading queries
 * ask.c     requests that go to the store
 * change.c  changes of state
 * page.c    the page for a browser
 * circuits.c, decisions.c, overrides.c, listing.c, policies.c, pages.c and so on: the routes
 * api.c     the table of routes, and the checks that every request passes
 *
 * A new route needs a row in API_ROUTES (route.h), one in the table of api.c, and a handler here.
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
	struct log_limit changes;    /* lines on changes: many circuits may flap */
	struct waiting_list waiting; /* requests that wait for the store */
	struct events *events;
	struct watch *watch; /* part of events: circuits that are not closed or have an override */
	unsigned max_streams;
	unsigned metrics_circuits;
	unsigned max_lines;
	/* decisions.c */
	uint16_t reporter; /* this daemon's number, for min_reporters */
	struct random_state random;
};

/* The route of a request, and the circuit in its path. */
struct target {
	enum api_route route;
	const char *segment; /* of the path: the key, still encoded; NULL: the route has no key */
	size_t segment_len;
};

/* Answers the request, now or later. */
typedef void api_handler_fn(struct api *api, struct http_request *rq, const struct target *to);

/* --- reply.c -------------------------------------------------------------------------- */

/* True if the request's method is none of the safe ones (RFC 9110, section 9.2.1). */
bool api_is_writing(const struct http_request *rq);

/* The header of what is answered without Redis. */
extern const struct http_header api_degraded;

/* Answers 200 with that body. */
void api_reply(struct http_request *rq, enum api_route route, const char *type, const char *body,
	       size_t len);

/* A problem document, and the further headers of the answer. */
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

/* Answers a request that was not handed to the store with a problem, and the headers that belong to
 * it. */
void api_refuse(struct http_request *rq, enum api_route route, enum problem problem,
		const char *detail);

/* Decodes the key in the path. False, and the request is refused, if it is none. */
bool api_read_key(struct http_request *rq, const struct target *to, char key[KEY_MAX], size_t *len);

/* For routes that take no query: false, and the request is refused, if it has one. */
bool api_takes_no_query(struct http_request *rq, enum api_route route);

/* --- item.c --------------------------------------------------------------------------- */

struct evbuffer;

/* Writes the members of a listing's item, without braces: "key", the five of the snapshot, and
 * "override" if there is one. 0, or -1 when out of memory. */
int api_add_item(struct evbuffer *out, const char *key, size_t key_len, const struct circuit *c,
		 const struct breaker_override *override);

/* Writes {"mode":...,"reason":...,"since":...,"until":...}. 0, or -1 when out of memory. */
int api_add_override(struct evbuffer *out, const struct breaker_override *override);

/* --- query.c -------------------------------------------------------------------------- */

#define API_QUERY_MAX 8

/* The parameters that a route takes. */
struct api_query {
	const char *const *names;
	unsigned count;    /* at most API_QUERY_MAX */
	const char *takes; /* "a listing takes state, prefix, limit and cursor" */
	/* Takes the decoded value of names[which]. NULL, or a sentence that says what is wrong. */
	const char *(*read)(void *arg, unsigned which, const char *value, size_t len);
};

/* Reads a query (NULL: none). False with a sentence for the client in why. */
bool api_read_query(const struct api_query *query, const char *text, void *arg, char *why,
		    size_t why_size);

/* --- ask.c ---------------------------------------------------------------------------- */

struct ask;

/* Answers the request with a result that is no error. now_ns is clock_ns() or 0. result->page, if
 * there is one, stays the caller's. */
typedef void api_answer_fn(struct api *api, struct http_request *rq, const struct ask *ask,
			   const struct store_result *result, uint64_t now_ns);

/* What a request asks of the store, and what its answer needs to know of that. */
struct ask {
	enum api_route route;
	unsigned operation; /* a verb, or STORE_OPERATION_LIST */
	struct store_request store;
	enum breaker_outcome outcome; /* of a report */
	api_answer_fn *answer;
	bool answers_errors; /* `answer` is called for results that are errors, too */
};

/* Asks the store, for a listing if `query` is not NULL, else for the operation in *ask. Answers the
 * request now or later. */
void api_ask(struct api *api, struct http_request *rq, const struct ask *ask,
	     const struct store_query *query);

/* Cancels and answers every request that waits for the store. */
void api_ask_abort(struct api *api);

/* --- change.c ------------------------------------------------------------------------- */

/* Counts a transition that was applied, and logs it if the state has changed. rq is NULL if a line
 * of a log led to it. `why` is NULL if a client asked for it. */
void api_note_transition(struct api *api, const struct http_request *rq, const struct ask *ask,
			 const struct store_result *result, const char *why);

/* --- page.c --------------------------------------------------------------------------- */

/* Answers with 303 to the page. */
void api_lead_to_page(struct http_request *rq, enum api_route route);

/* --- listing.c ------------------------------------------------------------------------ */

/* Read the value of `state` or `prefix` into the query. NULL, or a sentence that says what is
 * wrong. */
const char *api_read_state(struct store_query *query, const char *value, size_t len);
const char *api_read_prefix(struct store_query *query, const char *value, size_t len);

/* --- events.c ------------------------------------------------------------------------- */

struct event_base;
struct events;

/* 0, or -1 when out of memory; api_events_free is to be called then, too. */
int api_events_init(struct api *api, struct event_base *base, size_t max_circuits);
/* To be called after http_free. */
void api_events_free(struct api *api);

/* --- open.c --------------------------------------------------------------------------- */

/* Write the circuits that are not closed and for how long, the longest first: for /metrics (at most
 * metrics_circuits), and as lines for a person (at most 100). 0, or -1 when out of memory. */
int api_add_open_metric(struct api *api, struct evbuffer *out);
int api_add_open_lines(struct api *api, struct evbuffer *out);

/* --- circuits.c, decisions.c, listing.c, policies.c, pages.c -------------------------- */

/* Names the labels of the metrics of decisions, and draws this daemon's number. */
void api_decisions_init(struct api *api);

/* Decides on the circuit that `to` names, or refuses the request if that is no key. The caller has
 * set ask->answer, which has to call api_note_decision, and ask->answers_errors. */
void api_decide(struct api *api, struct http_request *rq, const struct target *to, struct ask *ask);

/* Counts a report, and logs the change of state that came with it. rq is NULL if it was a line of a
 * log. */
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
