/*
 * Requests that go to the store. Each is counted, and answered once, now or when the store has a
 * result. Results that are no success become problem documents here.
 */
#include "api/private.h"
#include "api/watch.h"
#include "base/clock.h"
#include "store/count.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A request that waits for the store. */
struct waiting {
	TAILQ_ENTRY(waiting) entry;
	struct api *api;
	struct http_request *rq;
	struct store_op *op;
	struct ask ask;
	char key[]; /* what ask.store.key points to */
};

/* The problem that a result without success is answered with. */
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

	/* The sentence gets a full stop below; Redis's words may have one. */
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

static bool ask_writes(const struct ask *ask)
{
	return ask->operation < CIRCUIT_VERBS && circuit_verb_writes(ask->store.op.verb);
}

static void answer_problem(struct http_request *rq, const struct ask *ask,
			   const struct store_result *result)
{
	struct http_header headers[2];
	char detail[1024];
	struct api_problem what = {
		.problem = problem_of(result),
		.detail = detail,
		.applied = PROBLEM_APPLIED_NONE,
		.headers = headers,
	};

	if (ask_writes(ask))
		what.applied = result->status == STORE_UNKNOWN ? PROBLEM_APPLIED_UNKNOWN
							       : PROBLEM_APPLIED_NO;
	if (what.problem == PROBLEM_STATE_CONFLICT)
		what.circuit = &result->circuit;
	if (what.problem == PROBLEM_STORE_UNAVAILABLE || what.problem == PROBLEM_OVERLOADED)
		headers[what.header_count++] = (struct http_header){"Retry-After", "1"};
	if (result->degraded)
		headers[what.header_count++] = api_degraded;
	detail_of(ask, result, detail, sizeof(detail));
	api_reply_problem(rq, ask->route, &what);
}

/* Tells the watch what this daemon has changed, in case that no message of Redis's does. */
static void note_write(struct watch *w, const struct ask *ask, const struct store_result *result)
{
	static const struct circuit none;
	const struct circuit *c = &result->circuit;
	enum store_by by;

	switch (ask->operation) {
	case CIRCUIT_REPORT:
		if (result->was == c->state)
			return;
		by = STORE_BY_REPORT;
		break;
	case CIRCUIT_ACQUIRE:
		if (result->was == c->state)
			return;
		by = STORE_BY_ACQUIRE;
		break;
	case CIRCUIT_TRANSITION:
		by = STORE_BY_TRANSITION;
		break;
	case CIRCUIT_RESET:
		c = &none;
		by = STORE_BY_RESET;
		break;
	case CIRCUIT_OVERRIDE:
	case CIRCUIT_END_OVERRIDE:
		by = STORE_BY_OVERRIDE;
		break;
	default:
		return;
	}
	watch_wrote(w, ask->store.key, ask->store.key_len, c, c == &none ? NULL : result->override,
		    by);
}

/* Tells the watch what the store answered. It may be news, for other programs write to Redis. */
static void note_result(struct api *api, const struct ask *ask, const struct store_result *result)
{
	struct watch *w = api->watch;

	if (w->embedded || result->status != STORE_OK)
		return;
	if (result->degraded) {
		if (ask_writes(ask))
			watch_unsure(w, ask->store.key, ask->store.key_len);
		return;
	}
	note_write(w, ask, result);
	if (ask->operation == CIRCUIT_GET_STATE || ask->operation == CIRCUIT_ACQUIRE)
		watch_read(w, ask->store.key, ask->store.key_len, result->circuit.state,
			   result->override);
	for (size_t i = 0; result->page && i < result->page->count; i++) {
		const struct store_item *item = &result->page->items[i];

		watch_read(w, item->key, item->key_len, item->circuit.state, item->override);
	}
}

/* Answers a request with a result of the store. All of them pass here. */
static void answer(struct api *api, struct http_request *rq, const struct ask *ask,
		   struct store_result *result)
{
	uint64_t now_ns = clock_ns();

	store_count(api->metrics, ask->operation, result, now_ns - http_request_arrived_ns(rq));
	note_result(api, ask, result);
	if (result->status == STORE_OK || ask->answers_errors)
		ask->answer(api, rq, ask, result, now_ns);
	else
		answer_problem(rq, ask, result);
	store_page_free(result->page);
}

static void on_store_done(void *arg, struct store_result *result)
{
	struct waiting *w = arg;

	TAILQ_REMOVE(&w->api->waiting, w, entry);
	answer(w->api, w->rq, &w->ask, result);
	free(w);
}

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

void api_ask(struct api *api, struct http_request *rq, const struct ask *ask,
	     const struct store_query *query)
{
	struct waiting *w = waiting_new(api, rq, ask);
	struct store_result result;

	if (!w) {
		struct store_result none = {.status = STORE_OVERLOADED};

		if (ask->answers_errors)
			ask->answer(api, rq, ask, &none, 0);
		else
			api_refuse(rq, ask->route, PROBLEM_OVERLOADED, NO_MEMORY);
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

void api_ask_abort(struct api *api)
{
	struct waiting *w;

	while ((w = TAILQ_FIRST(&api->waiting)) != NULL) {
		struct store_result result = {
			.status = STORE_UNAVAILABLE,
			.message = "breakerd is stopping",
		};

		/* Redis may have got it, and we do not wait for the answer. */
		if (ask_writes(&w->ask))
			result.status = STORE_UNKNOWN;
		store_cancel(w->op);
		on_store_done(w, &result);
	}
}
