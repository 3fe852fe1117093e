/*
 * Answers from memory, and successes that are held back. `main`, the store in the place of Redis,
 * is the scripted one.
 */
#include "base/clock.h"
#include "base/metrics.h"
#include "default_policy.h"
#include "scripted_store.h"
#include "store_contract.h"
#include "suite.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longer than any test takes. */
#define LONG_MS 10000

static struct event_base *base;
static struct store *store;
static struct metrics *metrics;

static void open_for(unsigned max_staleness_ms, unsigned report_interval_ms, unsigned max_in_flight)
{
	struct store_limits limits = store_test_limits();
	struct store_clock clock = {0};

	limits.max_staleness_ms = max_staleness_ms;
	limits.report_interval_ms = report_interval_ms;
	limits.max_in_flight = max_in_flight;
	metrics = calloc(1, sizeof(*metrics));
	base = event_base_new();
	store = store_fallback_new(base, scripted_open(base, &limits, clock), &limits, clock,
				   metrics, NULL);
	scripted_set_up(true);
}

static void open_with(unsigned max_staleness_ms, unsigned report_interval_ms)
{
	open_for(max_staleness_ms, report_interval_ms, store_test_limits().max_in_flight);
}

static void setup(void)
{
	open_with(LONG_MS, LONG_MS);
}

static void teardown(void)
{
	store_free(store);
	event_base_free(base);
	free(metrics);
}

struct client {
	struct store_op *op;
	bool answered;
	struct store_result result;
};

static void on_answer(void *arg, struct store_result *result)
{
	struct client *c = arg;

	c->answered = true;
	c->result = *result;
}

static void submit_on(struct client *c, const char *key, struct circuit_op op)
{
	struct store_request request = {.key = key, .key_len = strlen(key), .op = op};

	memset(c, 0, sizeof(*c));
	c->op = store_submit(store, &request, on_answer, c, &c->result);
	c->answered = !c->op;
}

static void submit(struct client *c, struct circuit_op op)
{
	submit_on(c, "k", op);
}

static void submit_acquire(struct client *c)
{
	struct breaker_call call = {.policy = &default_policy, .random = 1};

	submit(c, (struct circuit_op){.verb = CIRCUIT_ACQUIRE, .call = &call});
}

static void until_answered(const struct client *c)
{
	for (int i = 0; i < 10000 && !c->answered; i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert(c->answered);
}

static struct store_result run_on(const char *key, struct circuit_op op)
{
	struct client c;

	submit_on(&c, key, op);
	until_answered(&c);
	return c.result;
}

static struct store_result run(struct circuit_op op)
{
	return run_on("k", op);
}

static struct store_result acquire(void)
{
	struct client c;

	submit_acquire(&c);
	until_answered(&c);
	return c.result;
}

static struct store_result report(enum breaker_outcome outcome)
{
	struct breaker_call call = {.policy = &default_policy, .count = 1, .outcome = outcome};

	return run((struct circuit_op){.verb = CIRCUIT_REPORT, .call = &call});
}

static void report_successes(int count)
{
	for (int i = 0; i < count; i++) {
		struct store_result r = report(BREAKER_SUCCESS);

		ck_assert_int_eq(r.status, STORE_OK);
		ck_assert_uint_eq(r.decision.counted, 1);
	}
}

static size_t journal_count(const char *what)
{
	size_t count = 0;

	for (const char *at = scripted->journal; (at = strstr(at, what)) != NULL; at++)
		count++;
	return count;
}

static void until_nothing_is_held_back(void)
{
	for (int i = 0; i < 10000 && metrics->reports_pending; i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(metrics->reports_pending, 0);
}

static void until_nothing_pends(void)
{
	for (int i = 0; i < 10000 && (metrics->reports_pending || metrics->folds_pending); i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(metrics->reports_pending, 0);
	ck_assert_int_eq(metrics->folds_pending, 0);
}

START_TEST(acquire_of_a_known_circuit_asks_nobody)
{
	ck_assert(acquire().decision.allowed);
	for (int i = 0; i < 100; i++)
		ck_assert(acquire().decision.allowed);
	ck_assert_str_eq(scripted->journal, "g:k");
	ck_assert_uint_eq(metrics->cached_answers, 100);
}
END_TEST

START_TEST(with_max_staleness_0_each_acquire_asks)
{
	teardown();
	open_with(0, LONG_MS);
	acquire();
	acquire();
	ck_assert_str_eq(scripted->journal, "a:k a:k");
}
END_TEST

START_TEST(a_daemon_obeys_its_own_transition_at_once)
{
	acquire();
	run((struct circuit_op){.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_OPEN});
	ck_assert(!acquire().decision.allowed);
	run((struct circuit_op){.verb = CIRCUIT_RESET});
	ck_assert(acquire().decision.allowed);
}
END_TEST

START_TEST(an_answer_that_changes_something_is_not_from_memory)
{
	struct circuit half_open = {.state = CIRCUIT_HALF_OPEN, .last_state_change = 1};

	store_memory_put(scripted->circuits, "k", 1, &half_open);
	ck_assert_int_eq(acquire().decision.reason, BREAKER_PROBE);
	ck_assert_int_eq(acquire().decision.reason, BREAKER_PROBING);
	ck_assert_uint_eq(journal_count("a:k"), 2);
}
END_TEST

static void let_pass(int ms)
{
	struct timeval moment = {.tv_usec = 1000L * ms};

	event_base_loopexit(base, &moment);
	event_base_dispatch(base);
}

/* Acquires each millisecond until main has been read `reads` times. All answers must come from
 * memory. */
static void acquire_steadily(size_t reads)
{
	uint64_t before = metrics->cached_answers, answers = 0;

	for (int i = 0; i < 5000 && journal_count("g:k") < reads; i++) {
		let_pass(1);
		acquire();
		answers++;
	}
	ck_assert_uint_eq(journal_count("g:k"), reads);
	ck_assert_uint_eq(journal_count("a:k"), 0);
	ck_assert_uint_eq(metrics->cached_answers - before, answers);
}

START_TEST(what_is_asked_for_steadily_is_refreshed_ahead)
{
	teardown();
	/* Long enough that a refresh is in time also on a busy machine. */
	open_with(400, 0);
	acquire();
	acquire_steadily(4);
}
END_TEST

START_TEST(what_was_quiet_is_refreshed_ahead_at_once)
{
	teardown();
	open_with(400, 0);
	acquire();
	let_pass(450); /* the circuit gets too old, but is not forgotten yet */
	report(BREAKER_FAILURE);
	acquire_steadily(3);
}
END_TEST

static void on_counted(void *arg, struct store_result *result)
{
	(void)result;
	++*(unsigned *)arg;
}

/* Submits an operation that adds 1 to *answered when it is answered. True if that was at once. */
static bool call_key(const char *key, enum circuit_verb verb, unsigned *answered)
{
	struct breaker_call call = {.policy = &default_policy,
				    .random = 1,
				    .count = verb == CIRCUIT_REPORT,
				    .outcome = BREAKER_SUCCESS};
	struct store_request request = {.key = key,
					.key_len = strlen(key),
					.op = {.verb = verb, .call = &call}};
	struct store_result result;

	return store_submit(store, &request, on_counted, answered, &result) == NULL;
}

#define WAITING 1000

START_TEST(many_that_wait_for_a_circuit_go_on_in_many_turns)
{
	unsigned answered = 0, most = 0;

	teardown();
	open_for(LONG_MS, LONG_MS, 2 * WAITING);
	scripted->mood = HOLD;
	for (int n = 0; n < WAITING; n++)
		ck_assert(!call_key("k", CIRCUIT_ACQUIRE, &answered));
	scripted->mood = ANSWER;
	scripted_release();
	while (answered < WAITING) {
		unsigned before = answered;

		event_base_loop(base, EVLOOP_ONCE);
		if (answered - before > most)
			most = answered - before;
	}
	ck_assert_str_eq(scripted->journal, "g:k");
	ck_assert_uint_le(most, 256);
}
END_TEST

START_TEST(what_nobody_asks_for_is_not_refreshed)
{
	teardown();
	open_with(20, 0);
	acquire();
	let_pass(100);
	ck_assert_str_eq(scripted->journal, "g:k");
}
END_TEST

START_TEST(one_refresh_is_under_way)
{
	teardown();
	open_with(200, 0);
	acquire();
	ck_assert(acquire().decision.allowed);
	scripted->mood = HOLD;
	let_pass(500);
	ck_assert_uint_eq(scripted->store.in_flight, 1);
	scripted->mood = ANSWER;
	scripted_release();
}
END_TEST

START_TEST(successes_wait_and_go_together)
{
	teardown();
	open_with(LONG_MS, 30);
	acquire();
	report_successes(1000);
	ck_assert_int_eq(metrics->reports_pending, 1000);
	ck_assert_str_eq(scripted->journal, "g:k");
	until_nothing_pends();
	ck_assert_str_eq(scripted->journal, "g:k r:k");
	ck_assert_int_eq(scripted_get("k").circuit.success_count, 1000);
}
END_TEST

START_TEST(a_failure_goes_at_once_behind_them)
{
	struct store_result r;

	acquire();
	report_successes(10);
	r = report(BREAKER_FAILURE);
	ck_assert_uint_eq(r.decision.counted, 1);
	ck_assert_int_eq(r.circuit.success_count, 10);
	ck_assert_int_eq(r.circuit.failure_count, 1);
	ck_assert_str_eq(scripted->journal, "g:k r:k r:k");
	ck_assert_int_eq(metrics->reports_pending, 0);
}
END_TEST

START_TEST(an_operation_of_the_five_sends_them_first)
{
	static const struct circuit_op operations[] = {
		{.verb = CIRCUIT_RECORD_SUCCESS},
		{.verb = CIRCUIT_RECORD_FAILURE},
		{.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_OPEN},
	};

	acquire();
	report_successes(10);
	ck_assert_int_ge(run(operations[_i]).circuit.success_count, 10);
	ck_assert_int_eq(metrics->reports_pending, 0);
}
END_TEST

START_TEST(what_is_held_back_when_main_goes_is_folded)
{
	acquire();
	report_successes(10);
	scripted_set_up(false);
	report_successes(5);
	ck_assert_int_eq(metrics->reports_pending, 0);
	scripted_set_up(true);
	until_nothing_pends();
	ck_assert_int_eq(scripted_get("k").circuit.success_count, 15);
	ck_assert_uint_eq(metrics->reports_lost, 0);
}
END_TEST

#define MANY 3000

/* Reports a success on each of many circuits, which is held back. */
static void hold_many(void)
{
	struct store_limits limits = store->limits;
	struct breaker_call ask = {.policy = &default_policy, .random = 1};
	struct breaker_call call = {.policy = &default_policy,
				    .count = 1,
				    .outcome = BREAKER_SUCCESS};

	limits.max_circuits = MANY;
	store_reconfigure(store, &limits);
	for (int i = 0; i < MANY; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%d", i);
		run_on(key, (struct circuit_op){.verb = CIRCUIT_ACQUIRE, .call = &ask});
		run_on(key, (struct circuit_op){.verb = CIRCUIT_REPORT, .call = &call});
	}
	ck_assert_int_eq(metrics->reports_pending, MANY);
}

/* Runs the loop until nothing is held back. Returns the greatest number of reports that went in one
 * turn. */
static int64_t most_in_a_turn(void)
{
	int64_t most = 0;

	for (int i = 0; i < 10000 && metrics->reports_pending; i++) {
		int64_t before = metrics->reports_pending;

		event_base_loop(base, EVLOOP_ONCE);
		if (before - metrics->reports_pending > most)
			most = before - metrics->reports_pending;
	}
	ck_assert_int_eq(metrics->reports_pending, 0);
	return most;
}

START_TEST(much_that_is_held_back_when_main_goes_takes_many_turns)
{
	hold_many();
	scripted_set_up(false);
	ck_assert_int_eq(metrics->reports_pending, MANY);
	/* An operation that comes meanwhile is answered after the success of its circuit. */
	ck_assert_int_eq(run_on("k2999", OP_GET).circuit.success_count, 1);
	ck_assert_int_eq(run_on("k2998", OP_FAILURE).circuit.success_count, 1);
	ck_assert_int_eq(most_in_a_turn(), 256);
	ck_assert_int_eq(metrics->folds_pending, MANY);
	scripted_set_up(true);
	until_nothing_pends();
	ck_assert_uint_eq(metrics->folded_operations, MANY + 1);
	ck_assert_int_eq(scripted_get("k2997").circuit.success_count, 1);
	ck_assert_uint_eq(metrics->reports_lost, 0);
}
END_TEST

START_TEST(much_that_is_held_back_goes_in_many_turns)
{
	hold_many();
	store_send_held(store);
	ck_assert_int_eq(metrics->reports_pending, MANY);
	ck_assert_uint_eq(store->in_flight, 0);
	event_base_loop(base, EVLOOP_ONCE);
	ck_assert_uint_le(store->in_flight, 256);
	most_in_a_turn();
	ck_assert_int_eq(scripted_get("k2999").circuit.success_count, 1);
}
END_TEST

/* Main is slow: the number of reports without an answer is bounded, and the rest waits. */
START_TEST(no_more_goes_than_main_can_take)
{
	hold_many();
	scripted->mood = HOLD;
	store_send_held(store);
	for (int i = 0; i < 100; i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert_uint_eq(store->in_flight, 1024);
	scripted->mood = ANSWER;
	scripted_release();
	until_nothing_pends();
	ck_assert_int_eq(scripted_get("k2999").circuit.success_count, 1);
	ck_assert_uint_eq(metrics->reports_lost, 0);
}
END_TEST

static bool a_stop_waits(void)
{
	struct store_health health;

	store_health(store, &health);
	return health.held > 0 || health.unsettled > 0;
}

/* Main goes away during a stop and comes back. The stop waits for the reports that were held back,
 * also for those that have become steps. */
START_TEST(a_stop_waits_for_main_that_was_there)
{
	bool refuses = _i == 1;

	if (refuses)
		store_fallback_refuse(store);
	hold_many();
	store_send_held(store);
	scripted_set_up(false);
	for (int i = 0; i < 100; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert(a_stop_waits());
	scripted_set_up(true);
	for (int i = 0; i < 10000 && a_stop_waits(); i++) {
		store_send_held(store);
		event_base_loop(base, EVLOOP_ONCE);
	}
	ck_assert(!a_stop_waits());
	ck_assert_int_eq(scripted_get("k2999").circuit.success_count, 1);
	ck_assert_uint_eq(metrics->reports_lost, 0);
}
END_TEST

/* Main was away when the stop began, and may stay so: the stop does not wait. */
START_TEST(a_stop_does_not_wait_for_main_that_is_away)
{
	acquire();
	report_successes(10);
	scripted_set_up(false);
	until_nothing_is_held_back();
	store_send_held(store);
	ck_assert(!a_stop_waits());
}
END_TEST

START_TEST(a_shorter_interval_holds_from_now_on)
{
	struct store_limits limits = store->limits;

	acquire();
	report_successes(1);
	limits.report_interval_ms = 20;
	store_reconfigure(store, &limits);
	until_nothing_pends();
	ck_assert_int_eq(scripted_get("k").circuit.success_count, 1);
}
END_TEST

/* The store is freed before what is held back has become steps in parts: everything becomes steps
 * then, which the state file can keep. */
START_TEST(what_is_held_back_when_main_has_just_gone_is_in_the_steps_at_the_end)
{
	hold_many();
	scripted_set_up(false);
	store_free(store);
	store = NULL;
	ck_assert_int_eq(metrics->folds_pending, MANY);
	ck_assert_uint_eq(metrics->reports_lost, 0);
}
END_TEST

/* Checks with max_circuits = 1 that circuit k takes no place in memory: z is kept there. */
static void another_is_answered_from_memory(void)
{
	unsigned answered = 0;

	call_key("z", CIRCUIT_ACQUIRE, &answered);
	while (!answered)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert(call_key("z", CIRCUIT_ACQUIRE, &answered));
}

/* A read in between made the circuit unknown again. Its held-back success then becomes a step when
 * a request comes while main is away. After that nothing of the circuit is left. */
START_TEST(a_circuit_with_nothing_left_makes_room_for_another)
{
	struct circuit open = {.state = CIRCUIT_OPEN, .last_state_change = 1};
	struct store_limits limits = store->limits;
	struct client reader;

	limits.max_circuits = 1;
	store_reconfigure(store, &limits);
	acquire();
	scripted->mood = HOLD;
	submit(&reader, OP_GET);
	report_successes(1);
	store_memory_put(scripted->circuits, "k", 1, &open);
	scripted->mood = ANSWER;
	scripted_release();
	until_answered(&reader);
	scripted_set_up(false);
	run(OP_GET);
	scripted_set_up(true);
	until_nothing_pends();
	another_is_answered_from_memory();
}
END_TEST

/* An acquire waits in its circuit's queue, and main answers it with an error. */
START_TEST(a_circuit_that_main_said_nothing_of_takes_no_place)
{
	struct store_limits limits = store->limits;
	struct client waits;

	limits.max_circuits = 1;
	store_reconfigure(store, &limits);
	scripted->mood = LOSE;
	run(OP_FAILURE);
	scripted->mood = HOLD;
	submit_acquire(&waits);
	event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert(!waits.answered);
	scripted->mood = FAIL;
	scripted->words = "OOM command not allowed";
	scripted_release();
	until_answered(&waits);
	scripted->mood = ANSWER;
	until_nothing_pends();
	another_is_answered_from_memory();
}
END_TEST

START_TEST(what_main_surely_did_not_take_is_folded)
{
	acquire();
	report_successes(10);
	scripted->mood = REFUSE;
	store_send_held(store);
	until_nothing_is_held_back();
	scripted->mood = ANSWER;
	until_nothing_pends();
	ck_assert_int_eq(scripted_get("k").circuit.success_count, 10);
}
END_TEST

START_TEST(what_main_may_have_taken_never_goes_again)
{
	acquire();
	report_successes(10);
	scripted->mood = LOSE;
	store_send_held(store);
	until_nothing_is_held_back();
	scripted->mood = ANSWER;
	until_nothing_pends();
	report_successes(1);
	store_send_held(store);
	until_nothing_pends();
	ck_assert_int_eq(scripted_get("k").circuit.success_count, 1);
	ck_assert_uint_eq(metrics->operations_in_doubt, 1);
}
END_TEST

START_TEST(a_store_that_refuses_answers_nothing_while_main_is_away)
{
	store_fallback_refuse(store);
	acquire();
	report_successes(10);
	scripted_set_up(false);
	ck_assert_int_eq(acquire().status, STORE_UNAVAILABLE);
	ck_assert_int_eq(report(BREAKER_SUCCESS).status, STORE_UNAVAILABLE);
	ck_assert_int_eq(run(OP_GET).status, STORE_UNAVAILABLE);
	ck_assert_int_eq(metrics->reports_pending, 10);
	scripted_set_up(true);
	until_nothing_pends();
	ck_assert_int_eq(scripted_get("k").circuit.success_count, 10);
	ck_assert_uint_eq(metrics->reports_lost, 0);
}
END_TEST

START_TEST(a_store_that_refuses_says_what_it_may_have_lost)
{
	store_fallback_refuse(store);
	acquire();
	report_successes(10);
	scripted->mood = LOSE;
	store_send_held(store);
	until_nothing_is_held_back();
	ck_assert_uint_eq(metrics->reports_lost, 10);
}
END_TEST

/* Main is up, but refuses each write: it is out of memory, or denies permission. */
START_TEST(successes_that_main_refuses_are_counted_as_lost)
{
	acquire();
	report_successes(10);
	scripted->mood = FAIL;
	scripted->words = "OOM command not allowed";
	store_send_held(store);
	until_nothing_is_held_back();
	ck_assert_uint_eq(metrics->reports_lost, 10);
}
END_TEST

START_TEST(with_read_cache_getState_is_from_memory_but_for_own_writes)
{
	struct store_limits limits = store->limits;

	limits.read_cache = true;
	store_reconfigure(store, &limits);
	acquire();
	ck_assert_int_eq(run(OP_GET).status, STORE_OK);
	ck_assert_str_eq(scripted->journal, "g:k");
	ck_assert_int_eq(run(OP_FAILURE).circuit.failure_count, 1);
	acquire();
	ck_assert_int_eq(run(OP_GET).circuit.failure_count, 1);
	report_successes(3);
	ck_assert_int_eq(run(OP_GET).circuit.success_count, 3);
}
END_TEST

#define CLIENTS 50

static void submit_acquires(struct client clients[CLIENTS])
{
	for (int i = 0; i < CLIENTS; i++) {
		submit_acquire(&clients[i]);
		ck_assert(!clients[i].answered);
	}
}

START_TEST(those_that_miss_share_one_read)
{
	struct client clients[CLIENTS];

	scripted->mood = HOLD;
	submit_acquires(clients);
	ck_assert_uint_eq(scripted->store.in_flight, 1);
	scripted->mood = ANSWER;
	scripted_release();
	for (int i = 0; i < CLIENTS; i++) {
		until_answered(&clients[i]);
		ck_assert(clients[i].result.decision.allowed && !clients[i].result.degraded);
	}
	ck_assert_str_eq(scripted->journal, "g:k");
	ck_assert_uint_eq(store->in_flight, 0);
}
END_TEST

/* Makes what is known too old, and sends a held-back success, which main holds. */
static void send_successes_late(void)
{
	teardown();
	open_with(400, LONG_MS);
	acquire();
	report_successes(1);
	let_pass(450);
	scripted->mood = HOLD;
	store_send_held(store);
	for (int i = 0; i < 1000 && scripted->store.in_flight == 0; i++)
		event_base_loop(base, EVLOOP_ONCE);
}

/* The copy here is too old, but the answer to the success will bring the circuit. */
START_TEST(those_that_miss_wait_for_successes_on_their_way)
{
	struct client clients[3];

	send_successes_late();
	for (int i = 0; i < 3; i++) {
		submit_acquire(&clients[i]);
		ck_assert(!clients[i].answered);
	}
	scripted->mood = ANSWER;
	scripted_release();
	for (int i = 0; i < 3; i++) {
		until_answered(&clients[i]);
		ck_assert(clients[i].result.decision.allowed);
	}
	ck_assert_str_eq(scripted->journal, "g:k r:k");
}
END_TEST

/* Main does not take the success: the acquire that waited for its answer asks main itself. */
START_TEST(those_that_wait_for_successes_that_are_refused_ask_main)
{
	struct client c;

	send_successes_late();
	submit_acquire(&c);
	scripted->mood = _i == 0 ? REFUSE : LOSE;
	scripted_release();
	scripted->mood = ANSWER;
	until_answered(&c);
	ck_assert(c.result.decision.allowed);
	ck_assert_int_eq(c.result.status, STORE_OK);
}
END_TEST

START_TEST(of_those_that_share_a_read_each_that_changes_something_asks)
{
	struct circuit half_open = {.state = CIRCUIT_HALF_OPEN, .last_state_change = 1};
	struct client clients[CLIENTS];
	unsigned probes = 0;

	store_memory_put(scripted->circuits, "k", 1, &half_open);
	scripted->mood = HOLD;
	submit_acquires(clients);
	scripted->mood = ANSWER;
	scripted_release();
	for (int i = 0; i < CLIENTS; i++) {
		until_answered(&clients[i]);
		probes += clients[i].result.decision.allowed;
	}
	ck_assert_uint_eq(probes, 1);
}
END_TEST

/* _i == 0: as with on_store_failure = local, the embedded store answers. _i == 1: as with `error`,
 * the acquire ends with an error. */
START_TEST(who_waits_for_a_read_waits_store_timeout_at_most)
{
	struct store_limits limits = store->limits;
	struct store_result r;

	limits.timeout_ms = 20;
	store_reconfigure(store, &limits);
	if (_i == 1)
		store_fallback_refuse(store);
	scripted->mood = HOLD;
	r = acquire();
	ck_assert_int_eq(r.status, _i == 1 ? STORE_UNAVAILABLE : STORE_OK);
	ck_assert(_i == 1 ? r.timed_out : r.degraded && r.decision.allowed);
	scripted->mood = ANSWER;
	scripted_release();
	ck_assert_uint_eq(store->in_flight, 0);
}
END_TEST

START_TEST(who_waits_for_a_read_that_is_lost_is_answered)
{
	static const enum mood moods[] = {LOSE, REFUSE, FAIL};
	struct store_result r;

	scripted->mood = moods[_i];
	scripted->words = "WRONGTYPE";
	r = acquire();
	ck_assert_int_eq(r.status, moods[_i] == FAIL ? STORE_ERROR : STORE_OK);
	ck_assert_uint_eq(store->in_flight, 0);
	scripted->mood = ANSWER;
	until_nothing_pends();
}
END_TEST

START_TEST(one_that_waits_for_a_read_may_be_cancelled)
{
	struct client clients[CLIENTS];

	scripted->mood = HOLD;
	submit_acquires(clients);
	store_cancel(clients[0].op);
	store_cancel(clients[7].op);
	store_cancel(clients[CLIENTS - 1].op);
	scripted->mood = ANSWER;
	scripted_release();
	until_answered(&clients[CLIENTS - 2]);
	ck_assert(clients[1].answered && !clients[0].answered && !clients[7].answered);
	ck_assert_uint_eq(store->in_flight, 0);
}
END_TEST

START_TEST(the_end_of_the_store_ends_who_waits_for_a_read)
{
	struct client clients[CLIENTS];

	scripted->mood = HOLD;
	submit_acquires(clients);
}
END_TEST

/* Tells the store of a change by `by`, after which the circuit is as given, with this override. */
static void tell_of(char by, struct circuit circuit, enum breaker_override_mode mode)
{
	struct breaker member;
	struct store_event event = {
		.key = "k",
		.key_len = 1,
		.by = by,
		.existed = true,
		.exists = by != 'd',
		.circuit = circuit,
		.breaker = &member,
	};

	breaker_none(&member);
	if (mode != BREAKER_NO_OVERRIDE) {
		member.exists = true;
		member.override = (struct breaker_override){.mode = mode,
							    .until_ms = clock_wall_ms() + 3600000};
	}
	scripted->store.on_event(scripted->store.on_event_arg, &event);
}

static void tell(enum circuit_state state, int64_t change_ms)
{
	tell_of('t', (struct circuit){.state = state, .last_state_change = change_ms},
		BREAKER_NO_OVERRIDE);
}

/* The time of an opening that is later than all changes before it. */
#define OPENED (clock_wall_ms() + 1)

START_TEST(what_a_message_says_is_obeyed)
{
	struct circuit closed = {.state = CIRCUIT_CLOSED, .last_state_change = OPENED - 1000};

	store_memory_put(scripted->circuits, "k", 1, &closed);
	acquire();
	tell(CIRCUIT_OPEN, OPENED);
	ck_assert(!acquire().decision.allowed);
	ck_assert_str_eq(scripted->journal, "g:k");
}
END_TEST

/* The message may be late (_i == 0); or the known stamp is that of another program whose clock is
 * ahead, and the message is right (_i == 1). Only main can tell. */
START_TEST(a_message_older_than_what_is_known_is_asked_for)
{
	const int64_t now = OPENED;
	struct circuit circuit = {.state = CIRCUIT_CLOSED, .last_state_change = now + 30000};

	store_memory_put(scripted->circuits, "k", 1, &circuit);
	acquire();
	if (_i == 1) {
		circuit = (struct circuit){.state = CIRCUIT_OPEN, .last_state_change = now};
		store_memory_put(scripted->circuits, "k", 1, &circuit);
	}
	tell(CIRCUIT_OPEN, now);
	ck_assert_int_eq(acquire().decision.allowed, _i == 0);
	ck_assert_uint_eq(journal_count("g:k"), 2);
}
END_TEST

static void until_main_is_idle(void)
{
	for (int i = 0; i < 1000 && scripted->store.in_flight > 0; i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert_uint_eq(scripted->store.in_flight, 0);
}

START_TEST(a_message_older_than_what_is_remembered_is_asked_for)
{
	const int64_t now = OPENED;
	struct circuit circuit = {.state = CIRCUIT_CLOSED, .last_state_change = now + 30000};

	store_memory_put(scripted->circuits, "k", 1, &circuit);
	run(OP_GET);
	circuit = (struct circuit){.state = CIRCUIT_OPEN, .last_state_change = now};
	store_memory_put(scripted->circuits, "k", 1, &circuit);
	tell(CIRCUIT_OPEN, now);
	until_main_is_idle();
	ck_assert_uint_eq(store->in_flight, 0);
	scripted_set_up(false);
	ck_assert(!acquire().decision.allowed);
}
END_TEST

START_TEST(the_end_of_the_store_ends_what_messages_asked_for)
{
	const int64_t now = OPENED;
	struct circuit circuit = {.state = CIRCUIT_CLOSED, .last_state_change = now + 30000};

	store_memory_put(scripted->circuits, "k", 1, &circuit);
	run(OP_GET);
	scripted->mood = HOLD;
	for (int i = 0; i < 5000; i++)
		tell(CIRCUIT_OPEN, now);
	ck_assert_uint_le(scripted->store.in_flight, 1024);
}
END_TEST

/* The message of an opening comes after the answer to the reset that followed the opening. */
START_TEST(an_own_reset_is_obeyed_whatever_message_comes_late)
{
	int64_t opened_ms;

	if (_i == 0)
		acquire();
	opened_ms = run((struct circuit_op){.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_OPEN})
			    .circuit.last_state_change;
	run((struct circuit_op){.verb = CIRCUIT_RESET});
	if (_i == 0)
		acquire();
	tell(CIRCUIT_OPEN, opened_ms);
	if (_i == 1) {
		until_main_is_idle();
		scripted_set_up(false);
	}
	for (int i = 0; i < 10; i++)
		ck_assert(acquire().decision.allowed);
}
END_TEST

START_TEST(two_changes_in_one_millisecond_are_asked_for)
{
	const int64_t now = OPENED;

	acquire();
	tell(CIRCUIT_OPEN, now);
	tell(CIRCUIT_CLOSED, now);
	ck_assert(acquire().decision.allowed);
	ck_assert_uint_eq(journal_count("g:k"), 2);
}
END_TEST

START_TEST(an_override_is_asked_for)
{
	struct breaker member;
	struct store_event event = {
		.key = "k", .key_len = 1, .by = 'o', .exists = false, .breaker = &member};

	breaker_none(&member);
	acquire();
	scripted->store.on_event(scripted->store.on_event_arg, &event);
	ck_assert(acquire().decision.allowed);
	ck_assert_uint_eq(journal_count("g:k"), 2);
}
END_TEST

START_TEST(a_main_too_far_away_for_a_read_first_is_asked_at_once)
{
	struct client c;

	teardown();
	open_with(400, 0);
	scripted->mood = HOLD;
	submit_acquire(&c);
	let_pass(250);
	scripted->mood = ANSWER;
	scripted_release();
	until_answered(&c);
	let_pass(450); /* what is known gets too old */
	scripted->journal[0] = '\0';
	acquire();
	ck_assert_str_eq(scripted->journal, "a:k");
}
END_TEST

/* The circuit was opened just now by main's clock, and an hour ago by ours. */
START_TEST(whether_an_opening_is_over_is_told_by_mains_clock)
{
	struct circuit open = {.state = CIRCUIT_OPEN,
			       .last_state_change = clock_wall_ms() - 3600000};

	scripted_set_up(false);
	scripted->offset_ms = -3600000;
	scripted_set_up(true);
	store_memory_put(scripted->circuits, "k", 1, &open);
	for (int i = 0; i < 10; i++)
		ck_assert(!acquire().decision.allowed);
	ck_assert_str_eq(scripted->journal, "g:k");
}
END_TEST

/* An hour ahead, while main is there: the next answer tells. */
START_TEST(a_clock_of_mains_that_is_set_is_followed)
{
	struct circuit open = {.state = CIRCUIT_OPEN, .last_state_change = clock_wall_ms()};

	store_memory_put(scripted->circuits, "k", 1, &open);
	ck_assert(!acquire().decision.allowed);
	scripted->offset_ms = 3600000;
	store_answered(&scripted->store);
	scripted->journal[0] = '\0';
	acquire();
	ck_assert_str_eq(scripted->journal, "a:k");
}
END_TEST

/* A message about a circuit for which nobody asks; then main goes away. */
static const struct told_of_a_quiet_one {
	bool known; /* from an earlier read */
	enum circuit_state before;
	char by;
	enum circuit_state state;
	enum breaker_override_mode override;
	bool allowed;
} told_of_quiet_ones[] = {
	{true, CIRCUIT_CLOSED, 't', CIRCUIT_OPEN, BREAKER_NO_OVERRIDE, false},
	{true, CIRCUIT_CLOSED, 'o', CIRCUIT_CLOSED, BREAKER_FORCED_OPEN, false},
	{true, CIRCUIT_OPEN, 'o', CIRCUIT_OPEN, BREAKER_FORCED_CLOSED, true},
	{true, CIRCUIT_OPEN, 't', CIRCUIT_CLOSED, BREAKER_NO_OVERRIDE, true},
	{true, CIRCUIT_OPEN, 'd', CIRCUIT_CLOSED, BREAKER_NO_OVERRIDE, true},
	{false, CIRCUIT_CLOSED, 't', CIRCUIT_OPEN, BREAKER_NO_OVERRIDE, false},
	{false, CIRCUIT_CLOSED, 'o', CIRCUIT_CLOSED, BREAKER_FORCED_OPEN, false},
};

START_TEST(without_main_what_a_message_said_of_a_quiet_circuit_goes_on)
{
	const struct told_of_a_quiet_one *t = &told_of_quiet_ones[_i];
	struct circuit before = {.state = t->before, .last_state_change = OPENED - 1000};
	struct circuit now = {.state = t->state, .last_state_change = OPENED - 1};

	if (t->known) {
		store_memory_put(scripted->circuits, "k", 1, &before);
		run(OP_GET);
	}
	if (t->by == 'o')
		now.last_state_change = t->known ? before.last_state_change : now.last_state_change;
	tell_of(t->by, now, t->override);
	scripted_set_up(false);
	ck_assert_int_eq(acquire().decision.allowed, t->allowed);
}
END_TEST

START_TEST(without_main_an_override_that_a_message_ended_is_over)
{
	struct circuit closed = {.last_state_change = OPENED};

	tell_of('o', closed, BREAKER_FORCED_OPEN);
	tell_of('x', closed, BREAKER_NO_OVERRIDE);
	scripted_set_up(false);
	ck_assert(acquire().decision.allowed);
}
END_TEST

static struct store_result list(void)
{
	const struct store_query query = {.limit = 10};
	struct client c = {0};

	c.op = store_list(store, &query, on_answer, &c, &c.result);
	c.answered = !c.op;
	until_answered(&c);
	ck_assert_int_eq(c.result.status, STORE_OK);
	store_page_free(c.result.page);
	return c.result;
}

static void put_in_main(enum circuit_state state, enum breaker_override_mode mode)
{
	struct circuit circuit = {.state = state, .last_state_change = OPENED - 1000};
	struct breaker member;

	breaker_none(&member);
	member.exists = mode != BREAKER_NO_OVERRIDE;
	member.override =
		(struct breaker_override){.mode = mode, .until_ms = clock_wall_ms() + 3600000};
	store_memory_put_breaker(scripted->circuits, "k", 1, &circuit, &member);
}

START_TEST(without_main_what_a_listing_showed_goes_on)
{
	put_in_main(_i == 0 ? CIRCUIT_OPEN : CIRCUIT_CLOSED,
		    _i == 0 ? BREAKER_NO_OVERRIDE : BREAKER_FORCED_OPEN);
	list();
	scripted_set_up(false);
	ck_assert(!acquire().decision.allowed);
}
END_TEST

START_TEST(without_main_an_override_that_a_listing_did_not_show_any_more_is_over)
{
	put_in_main(CIRCUIT_CLOSED, BREAKER_FORCED_OPEN);
	list();
	put_in_main(CIRCUIT_CLOSED, BREAKER_NO_OVERRIDE);
	let_pass(5);
	list();
	scripted_set_up(false);
	ck_assert(acquire().decision.allowed);
}
END_TEST

#define MANY_LISTED 20000

/* The circuit is reset after a listing has read it, while the listing goes on for some turns. */
START_TEST(what_a_listing_saw_before_a_reset_does_not_come_back)
{
	const struct store_query query = {.limit = 10, .has_state = true, .state = CIRCUIT_OPEN};
	struct store_limits limits = store->limits;
	struct circuit closed = {.last_state_change = OPENED};
	struct client c = {0};

	limits.max_circuits = MANY_LISTED + 1;
	store_reconfigure(scripted->circuits, &limits);
	put_in_main(CIRCUIT_OPEN, BREAKER_NO_OVERRIDE);
	for (int i = 0; i < MANY_LISTED; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%d", i);
		store_memory_put(scripted->circuits, key, strlen(key), &closed);
	}
	c.op = store_list(store, &query, on_answer, &c, &c.result);
	ck_assert_ptr_nonnull(c.op);
	run((struct circuit_op){.verb = CIRCUIT_RESET});
	ck_assert(!c.answered);
	until_answered(&c);
	ck_assert_uint_eq(c.result.page->count, 1);
	store_page_free(c.result.page);
	scripted_set_up(false);
	ck_assert(acquire().decision.allowed);
}
END_TEST

static void open_in_main(void)
{
	put_in_main(CIRCUIT_OPEN, BREAKER_NO_OVERRIDE);
}

static void override_in_main(void)
{
	put_in_main(CIRCUIT_CLOSED, BREAKER_FORCED_OPEN);
}

/* Main executes a read before the change, but its answer comes after the change's message. */
START_TEST(an_answer_older_than_a_message_is_not_obeyed)
{
	teardown();
	open_with(400, 0);
	acquire();
	acquire();
	scripted->mood = HOLD;
	for (int i = 0; i < 100 && scripted->store.in_flight == 0; i++)
		let_pass(100);
	ck_assert_uint_eq(scripted->store.in_flight, 1);
	tell(CIRCUIT_OPEN, OPENED);
	scripted->meanwhile = open_in_main;
	scripted->mood = ANSWER;
	scripted_release();
	until_main_is_idle();
	ck_assert(!acquire().decision.allowed);
}
END_TEST

/* First requests for a circuit. Main executes them before the circuit is opened, but the answer
 * comes after the message of the opening. */
static const struct circuit_op first_requests[] = {
	{.verb = CIRCUIT_ACQUIRE,
	 .call = &(struct breaker_call){.policy = &default_policy, .random = 1}},
	{.verb = CIRCUIT_REPORT,
	 .call = &(struct breaker_call){.policy = &default_policy,
					.count = 1,
					.outcome = BREAKER_SUCCESS}},
	{.verb = CIRCUIT_GET_STATE},
	{.verb = CIRCUIT_RECORD_SUCCESS},
};

static void cross(struct circuit_op op, char by, enum breaker_override_mode mode)
{
	struct circuit now = {.state = by == 't' ? CIRCUIT_OPEN : CIRCUIT_CLOSED,
			      .last_state_change = OPENED};
	struct store_limits limits = store->limits;
	struct client c;

	limits.read_cache = true;
	store_reconfigure(store, &limits);
	/* These would create the circuit, with a stamp later than that of the message. */
	if (op.verb == CIRCUIT_REPORT || op.verb == CIRCUIT_RECORD_SUCCESS)
		put_in_main(CIRCUIT_CLOSED, BREAKER_NO_OVERRIDE);
	scripted->mood = HOLD;
	submit(&c, op);
	tell_of(by, now, mode);
	scripted->meanwhile = by == 't' ? open_in_main : override_in_main;
	scripted->mood = ANSWER;
	scripted_release();
	until_answered(&c);
}

START_TEST(the_first_answer_older_than_a_message_is_not_obeyed)
{
	cross(first_requests[_i / 2], _i % 2 ? 'o' : 't',
	      _i % 2 ? BREAKER_FORCED_OPEN : BREAKER_NO_OVERRIDE);
	ck_assert(!acquire().decision.allowed);
}
END_TEST

START_TEST(without_main_the_first_answer_older_than_a_message_is_not_obeyed)
{
	cross(first_requests[_i / 2], _i % 2 ? 'o' : 't',
	      _i % 2 ? BREAKER_FORCED_OPEN : BREAKER_NO_OVERRIDE);
	scripted_set_up(false);
	ck_assert(!acquire().decision.allowed);
}
END_TEST

/* The answer to a read from before the message has a stamp that is ahead. It must not be taken for
 * a later state. */
START_TEST(an_answer_asked_for_before_a_message_is_not_obeyed_by_its_stamp)
{
	struct circuit closed = {.state = CIRCUIT_CLOSED, .last_state_change = OPENED + 30000};

	store_memory_put(scripted->circuits, "k", 1, &closed);
	cross(first_requests[0], 't', BREAKER_NO_OVERRIDE);
	ck_assert(!acquire().decision.allowed);
}
END_TEST

/* The same after more messages than are kept. */
START_TEST(an_answer_older_than_a_message_among_many_is_not_obeyed)
{
	struct breaker member;
	struct client c;

	breaker_none(&member);
	scripted->mood = HOLD;
	submit(&c, OP_GET);
	tell(CIRCUIT_OPEN, OPENED);
	for (int i = 0; i < 20000; i++) {
		char key[16];
		struct store_event event = {
			.key = key,
			.by = 't',
			.exists = true,
			.circuit = {.state = CIRCUIT_OPEN, .last_state_change = OPENED},
			.breaker = &member,
		};

		event.key_len = (size_t)snprintf(key, sizeof(key), "x%d", i);
		scripted->store.on_event(scripted->store.on_event_arg, &event);
	}
	scripted->mood = ANSWER;
	scripted_release();
	until_answered(&c);
	scripted_set_up(false);
	ck_assert(!acquire().decision.allowed);
}
END_TEST

/* Sets main's clock two hours behind ours, and tells of an override that holds for another hour by
 * main's clock. */
static void begin_behind(int64_t ttl_ms)
{
	struct store_limits limits = store->limits;
	struct breaker member;
	struct store_event event = {
		.key = "k",
		.key_len = 1,
		.by = 'o',
		.exists = true,
		.circuit = {.last_state_change = clock_wall_ms() - 7200000},
		.breaker = &member,
	};

	scripted_set_up(false);
	scripted->offset_ms = -7200000;
	scripted_set_up(true);
	limits.ttl_ms = ttl_ms;
	store_reconfigure(store, &limits);
	breaker_none(&member);
	member.exists = true;
	member.override = (struct breaker_override){
		.mode = BREAKER_FORCED_OPEN,
		.until_ms = event.circuit.last_state_change + 3600000,
	};
	scripted->store.on_event(scripted->store.on_event_arg, &event);
	scripted_set_up(false);
}

START_TEST(how_long_an_override_holds_is_told_by_mains_clock)
{
	/* The circuit's time to live is over; only the override keeps it. */
	begin_behind(1);
	let_pass(5);
	ck_assert(!acquire().decision.allowed);
}
END_TEST

START_TEST(an_override_that_holds_by_mains_clock_is_shown)
{
	begin_behind(3600000);
	/* Removes overrides that are over. */
	store_reconfigure(store, &store->limits);
	ck_assert_ptr_nonnull(run(OP_GET).override);
}
END_TEST

static Suite *seen_suite(void)
{
	Suite *s = suite_create("seen");
	TCase *t = tcase_create("memory");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, acquire_of_a_known_circuit_asks_nobody);
	tcase_add_test(t, with_max_staleness_0_each_acquire_asks);
	tcase_add_test(t, a_daemon_obeys_its_own_transition_at_once);
	tcase_add_test(t, an_answer_that_changes_something_is_not_from_memory);
	tcase_add_test(t, what_is_asked_for_steadily_is_refreshed_ahead);
	tcase_add_test(t, what_was_quiet_is_refreshed_ahead_at_once);
	tcase_add_test(t, many_that_wait_for_a_circuit_go_on_in_many_turns);
	tcase_add_test(t, what_nobody_asks_for_is_not_refreshed);
	tcase_add_test(t, one_refresh_is_under_way);
	tcase_add_test(t, successes_wait_and_go_together);
	tcase_add_test(t, a_failure_goes_at_once_behind_them);
	tcase_add_loop_test(t, an_operation_of_the_five_sends_them_first, 0, 3);
	tcase_add_test(t, what_is_held_back_when_main_goes_is_folded);
	tcase_add_test(t, much_that_is_held_back_when_main_goes_takes_many_turns);
	tcase_add_test(t, much_that_is_held_back_goes_in_many_turns);
	tcase_add_test(t, no_more_goes_than_main_can_take);
	tcase_add_loop_test(t, a_stop_waits_for_main_that_was_there, 0, 2);
	tcase_add_test(t, a_stop_does_not_wait_for_main_that_is_away);
	tcase_add_test(t, a_shorter_interval_holds_from_now_on);
	tcase_add_test(t, what_is_held_back_when_main_has_just_gone_is_in_the_steps_at_the_end);
	tcase_add_test(t, a_circuit_with_nothing_left_makes_room_for_another);
	tcase_add_test(t, a_circuit_that_main_said_nothing_of_takes_no_place);
	tcase_add_test(t, what_main_surely_did_not_take_is_folded);
	tcase_add_test(t, what_main_may_have_taken_never_goes_again);
	tcase_add_test(t, a_store_that_refuses_answers_nothing_while_main_is_away);
	tcase_add_test(t, a_store_that_refuses_says_what_it_may_have_lost);
	tcase_add_test(t, successes_that_main_refuses_are_counted_as_lost);
	tcase_add_test(t, with_read_cache_getState_is_from_memory_but_for_own_writes);
	tcase_add_test(t, those_that_miss_share_one_read);
	tcase_add_test(t, those_that_miss_wait_for_successes_on_their_way);
	tcase_add_loop_test(t, those_that_wait_for_successes_that_are_refused_ask_main, 0, 2);
	tcase_add_test(t, of_those_that_share_a_read_each_that_changes_something_asks);
	tcase_add_loop_test(t, who_waits_for_a_read_waits_store_timeout_at_most, 0, 2);
	tcase_add_loop_test(t, who_waits_for_a_read_that_is_lost_is_answered, 0, 3);
	tcase_add_test(t, one_that_waits_for_a_read_may_be_cancelled);
	tcase_add_test(t, the_end_of_the_store_ends_who_waits_for_a_read);
	tcase_add_test(t, what_a_message_says_is_obeyed);
	tcase_add_loop_test(t, a_message_older_than_what_is_known_is_asked_for, 0, 2);
	tcase_add_test(t, a_message_older_than_what_is_remembered_is_asked_for);
	tcase_add_test(t, the_end_of_the_store_ends_what_messages_asked_for);
	tcase_add_loop_test(t, an_own_reset_is_obeyed_whatever_message_comes_late, 0, 2);
	tcase_add_test(t, an_answer_asked_for_before_a_message_is_not_obeyed_by_its_stamp);
	tcase_add_test(t, two_changes_in_one_millisecond_are_asked_for);
	tcase_add_test(t, an_override_is_asked_for);
	tcase_add_test(t, a_main_too_far_away_for_a_read_first_is_asked_at_once);
	tcase_add_test(t, whether_an_opening_is_over_is_told_by_mains_clock);
	tcase_add_test(t, a_clock_of_mains_that_is_set_is_followed);
	tcase_add_test(t, an_answer_older_than_a_message_is_not_obeyed);
	tcase_add_loop_test(t, without_main_what_a_message_said_of_a_quiet_circuit_goes_on, 0,
			    sizeof(told_of_quiet_ones) / sizeof(told_of_quiet_ones[0]));
	tcase_add_test(t, without_main_an_override_that_a_message_ended_is_over);
	tcase_add_loop_test(t, without_main_what_a_listing_showed_goes_on, 0, 2);
	tcase_add_test(t, without_main_an_override_that_a_listing_did_not_show_any_more_is_over);
	tcase_add_test(t, what_a_listing_saw_before_a_reset_does_not_come_back);
	tcase_add_loop_test(t, the_first_answer_older_than_a_message_is_not_obeyed, 0, 8);
	tcase_add_loop_test(t, without_main_the_first_answer_older_than_a_message_is_not_obeyed, 0,
			    8);
	tcase_add_test(t, an_answer_older_than_a_message_among_many_is_not_obeyed);
	tcase_add_test(t, how_long_an_override_holds_is_told_by_mains_clock);
	tcase_add_test(t, an_override_that_holds_by_mains_clock_is_shown);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return suite_run(seen_suite());
}
