/*
 * The fallback store. Its `main`, the store in the place of Redis, is the scripted one.
 */
#include "base/log.h"
#include "base/metrics.h"
#include "scripted_store.h"
#include "store_contract.h"
#include "suite.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define T0 INT64_C(1700000000000)

/* --- the fixture -------------------------------------------------------------------------- */

static struct event_base *base;
static struct store *store;
static struct metrics *metrics;
static int64_t fake_now;

static int64_t fake_clock(void *arg)
{
	return *(int64_t *)arg;
}

static struct store *open_on(struct event_base *on, const struct store_limits *limits)
{
	struct store_clock clock = {.now_ms = fake_clock,
				    .monotonic_ms = fake_clock,
				    .arg = &fake_now};

	fake_now = T0;
	if (!metrics)
		metrics = calloc(1, sizeof(*metrics));
	memset(metrics, 0, sizeof(*metrics));
	return store_fallback_new(on, scripted_open(on, limits, clock), limits, clock, metrics,
				  NULL);
}

static struct store *open_away(struct event_base *on, const struct store_limits *limits)
{
	return open_on(on, limits);
}

static struct store *open_there(struct event_base *on, const struct store_limits *limits)
{
	struct store *s = open_on(on, limits);

	scripted_set_up(true);
	return s;
}

static int64_t now_ms(void)
{
	return fake_now;
}

static const struct store_fixture there = {.open = open_there, .now_ms = now_ms};

static void setup(void)
{
	struct store_limits limits = store_test_limits();

	base = event_base_new();
	limits.max_circuits = 3;
	store = open_there(base, &limits);
}

static void teardown(void)
{
	store_free(store);
	event_base_free(base);
}

static struct store_result run(const char *key, struct circuit_op op, enum store_status status,
			       bool degraded)
{
	struct store_result r = store_do(base, store, key, op, status);

	ck_assert_int_eq(r.degraded, degraded);
	return r;
}

static struct circuit there_ok(const char *key, struct circuit_op op)
{
	return run(key, op, STORE_OK, false).circuit;
}

static struct circuit away_ok(const char *key, struct circuit_op op)
{
	return run(key, op, STORE_OK, true).circuit;
}

static void until_folded(void)
{
	for (int i = 0; i < 10000 && metrics->folds_pending; i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(metrics->folds_pending, 0);
}

static void until_step_held(void)
{
	for (int i = 0; i < 10000 && !scripted_holds_step(); i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert(scripted_holds_step());
}

/* --- away ----------------------------------------------------------------------------------- */

START_TEST(goes_on_with_the_snapshots_last_seen)
{
	there_ok("k", OP_FAILURE);
	there_ok("k", OP_TO(CIRCUIT_OPEN));
	scripted_set_up(false);
	ck_assert_int_eq(away_ok("k", OP_GET).state, CIRCUIT_OPEN);
	ck_assert_int_eq(away_ok("k", OP_FAILURE).failure_count, 2);
	ck_assert_int_eq(away_ok("new", OP_FAILURE).failure_count, 1);
	run("k", OP_FROM_TO(CIRCUIT_CLOSED, CIRCUIT_OPEN), STORE_CONFLICT, true);
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 1);
}
END_TEST

START_TEST(what_others_did_and_we_saw_is_the_seed)
{
	struct circuit theirs = {.state = CIRCUIT_HALF_OPEN, .failure_count = 9};

	there_ok("k", OP_FAILURE);
	store_memory_put(scripted->circuits, "k", 1, &theirs);
	there_ok("k", OP_GET);
	store_memory_put(scripted->circuits, "gone", 4, &theirs);
	there_ok("gone", OP_GET);
	store_memory_put(scripted->circuits, "gone", 4, NULL);
	there_ok("gone", OP_GET);
	scripted_set_up(false);
	ck_assert_int_eq(away_ok("k", OP_FAILURE).failure_count, 10);
	ck_assert_int_eq(away_ok("gone", OP_FAILURE).failure_count, 1);
}
END_TEST

START_TEST(a_store_never_reached_is_away)
{
	struct store_health health;

	teardown();
	base = event_base_new();
	store = open_away(base, &(struct store_limits){5000, 100, 3600, 1000, 0, false, 0});
	ck_assert_int_eq(away_ok("k", OP_FAILURE).failure_count, 1);
	store_health(store, &health);
	ck_assert_int_eq(health.condition, STORE_DEGRADED);
	ck_assert_str_eq(health.reason, "down");
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 1);
	store_health(store, &health);
	ck_assert_int_eq(health.condition, STORE_READY);
}
END_TEST

START_TEST(listings_come_from_what_is_at_hand)
{
	struct store_query all = {.limit = 10};
	struct store_result r;

	there_ok("k", OP_FAILURE);
	scripted_set_up(false);
	away_ok("l", OP_FAILURE);
	r = store_run_list(base, store, &all);
	ck_assert_int_eq(r.status, STORE_OK);
	ck_assert(r.degraded);
	ck_assert_uint_eq(r.page->count, 2);
	store_page_free(r.page);
}
END_TEST

/* --- lost on the way -------------------------------------------------------------------------- */

START_TEST(what_may_have_been_applied_is_not_folded)
{
	there_ok("k", OP_FAILURE);
	scripted->mood = LOSE;
	ck_assert_int_eq(away_ok("k", OP_FAILURE).failure_count, 2);
	scripted_set_up(false);
	ck_assert_int_eq(away_ok("k", OP_FAILURE).failure_count, 3);
	scripted->mood = ANSWER;
	scripted_set_up(true);
	until_folded();
	/* One from before the outage and one folded. The lost one is not sent again: main may have
	 * taken it. */
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 2);
}
END_TEST

START_TEST(what_was_surely_not_applied_is_folded)
{
	there_ok("k", OP_FAILURE);
	scripted->mood = REFUSE;
	ck_assert_int_eq(away_ok("k", OP_FAILURE).failure_count, 2);
	scripted->mood = ANSWER;
	scripted_set_up(false);
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 2);
}
END_TEST

START_TEST(an_answer_that_does_not_come_in_time_is_made_here)
{
	struct store_limits limits = store_test_limits();

	limits.timeout_ms = 20;
	store_reconfigure(store, &limits);
	there_ok("k", OP_FAILURE);
	scripted->mood = HOLD;
	ck_assert_int_eq(away_ok("k", OP_FAILURE).failure_count, 2);
	ck_assert_int_eq(away_ok("k", OP_GET).failure_count, 2);
	/* Main is asked for the circuit, because only main knows whether it took the operation. No
	 * step is sent. */
	scripted->mood = ANSWER;
	until_folded();
	ck_assert_uint_eq(metrics->folds, 0);
	ck_assert_ptr_null(strchr(scripted->journal, 'w'));
	scripted_set_up(false);
	ck_assert_int_eq(away_ok("k", OP_GET).failure_count, 1);
}
END_TEST

START_TEST(an_error_of_the_store_is_the_answer)
{
	scripted->mood = FAIL;
	scripted->words = "OOM";
	run("k", OP_FAILURE, STORE_ERROR, false);
	run("k", OP_GET, STORE_ERROR, false);
}
END_TEST

/* --- folding ------------------------------------------------------------------------------ */

START_TEST(steps_go_in_the_order_of_the_circuits)
{
	scripted_set_up(false);
	away_ok("b", OP_FAILURE);
	away_ok("a", OP_FAILURE);
	away_ok("b", OP_FAILURE);
	away_ok("c", OP_SUCCESS);
	ck_assert_int_eq(metrics->folds_pending, 3);
	scripted_set_up(true);
	until_folded();
	ck_assert_str_eq(scripted->journal, "g:b g:a g:c w:b w:a w:c");
	ck_assert_int_eq(scripted_get("b").circuit.failure_count, 2);
	ck_assert_uint_eq(metrics->folds, 3);
}
END_TEST

START_TEST(an_operation_sends_its_step_ahead)
{
	scripted_set_up(false);
	away_ok("a", OP_FAILURE);
	away_ok("b", OP_FAILURE);
	scripted_set_up(true);
	ck_assert_int_eq(there_ok("b", OP_FAILURE).failure_count, 2);
	until_folded();
	ck_assert_str_eq(scripted->journal, "g:b w:b g:a f:b w:a");
	ck_assert_int_eq(scripted_get("b").circuit.failure_count, 2);
}
END_TEST

START_TEST(a_reset_is_folded_too)
{
	there_ok("k", OP_FAILURE);
	there_ok("l", OP_FAILURE);
	fake_now += 1000;
	scripted_set_up(false);
	away_ok("k", OP_RESET);
	away_ok("l", OP_RESET);
	ck_assert_int_eq(away_ok("k", OP_GET).failure_count, 0);
	away_ok("l", OP_FAILURE);
	scripted_set_up(true);
	until_folded();
	ck_assert(scripted_get("k").absent);
	ck_assert_int_eq(scripted_get("l").circuit.failure_count, 1);
}
END_TEST

START_TEST(stamps_are_in_the_time_of_main)
{
	teardown();
	base = event_base_new();
	store = open_away(base, &(struct store_limits){5000, 100, 3600, 1000, 0, false, 0});
	ck_assert_int_eq(away_ok("k", OP_TO(CIRCUIT_OPEN)).last_state_change, T0);
	scripted->offset_ms = 5000; /* unknown until main is reached */
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.last_state_change, T0 + 5000);
	scripted_set_up(false);
	ck_assert_int_eq(away_ok("k", OP_FAILURE).last_failure_time, T0 + 5000);
	ck_assert_int_eq(away_ok("l", OP_FAILURE).last_failure_time, T0 + 5000);
	scripted->offset_ms = 5100;
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.last_failure_time, T0 + 5100);
	ck_assert_int_eq(scripted_get("k").circuit.last_state_change, T0 + 5000);
}
END_TEST

START_TEST(what_is_done_here_is_later_than_what_was_seen)
{
	struct circuit theirs = {.state = CIRCUIT_OPEN, .last_state_change = T0 + 7};

	/* Main's clock is a little ahead of the offset that was measured. */
	store_memory_put(scripted->circuits, "k", 1, &theirs);
	there_ok("k", OP_GET);
	theirs.last_failure_time = T0 + 9;
	store_memory_put(scripted->circuits, "r", 1, &theirs);
	there_ok("r", OP_GET);
	scripted_set_up(false);
	away_ok("r", OP_RESET);
	ck_assert_int_eq(away_ok("k", OP_TO(CIRCUIT_HALF_OPEN)).last_state_change, T0 + 8);
	ck_assert_int_eq(away_ok("l", OP_TO(CIRCUIT_OPEN)).last_state_change, T0);
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.state, CIRCUIT_HALF_OPEN);
	ck_assert(scripted_get("r").absent);
}
END_TEST

START_TEST(noise_in_the_clocks_moves_no_stamp)
{
	scripted_set_up(false);
	away_ok("k", OP_FAILURE);
	scripted->offset_ms = 3;
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.last_failure_time, T0);
}
END_TEST

/* Main comes back, with this measurement of its clock. */
static void back_with_clock(int64_t offset_ms, int64_t error_ms)
{
	scripted->offset_ms = offset_ms;
	scripted->error_ms = error_ms;
	scripted_set_up(true);
	until_folded();
}

/* A measurement over a slow round trip that allows for the offset in use changes nothing: what is
 * done here still comes after what was seen. */
START_TEST(a_poor_measurement_of_the_clocks_moves_no_stamp)
{
	there_ok("k", OP_TO(CIRCUIT_OPEN));
	scripted_set_up(false);
	fake_now += 10;
	away_ok("k", OP_TO(CIRCUIT_HALF_OPEN));
	back_with_clock(-80, 100);
	ck_assert_int_eq(scripted_get("k").circuit.state, CIRCUIT_HALF_OPEN);
	ck_assert_int_eq(scripted_get("k").circuit.last_state_change, T0 + 10);
	/* One that contradicts the offset in use replaces it. */
	scripted_set_up(false);
	away_ok("l", OP_FAILURE);
	back_with_clock(-200, 100);
	ck_assert_int_eq(scripted_get("l").circuit.last_failure_time, T0 + 10 - 200);
	/* So does a more exact one, though it does not contradict the offset in use. */
	scripted_set_up(false);
	away_ok("r", OP_FAILURE);
	back_with_clock(-130, 1);
	ck_assert_int_eq(scripted_get("r").circuit.last_failure_time, T0 + 10 - 130);
}
END_TEST

/* Records three failures on k and three successes on l while main is away. Main then goes away
 * `times` times while these are folded. At last one more of each is recorded. */
static void interrupt(enum mood mood, int times)
{
	static const struct circuit theirs = {.failure_count = 5, .success_count = 7};

	store_memory_put(scripted->circuits, "k", 1, &theirs);
	store_memory_put(scripted->circuits, "l", 1, &theirs);
	scripted_set_up(false);
	for (int i = 0; i < 3; i++) {
		away_ok("k", OP_FAILURE);
		away_ok("l", OP_SUCCESS);
	}
	for (int i = 0; i < times; i++) {
		scripted->mood = mood;
		scripted_set_up(true);
		while (scripted->up && metrics->folds_pending)
			event_base_loop(base, EVLOOP_ONCE);
	}
	scripted->mood = ANSWER;
	scripted_set_up(false);
	fake_now += 10;
	away_ok("k", OP_FAILURE);
	away_ok("l", OP_SUCCESS);
}

/* Main comes back for good. Checks the counts of k and l, and the number of lost steps. */
static void expect_folded(int64_t failures, int64_t successes, uint64_t lost)
{
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, failures);
	ck_assert_int_eq(scripted_get("l").circuit.success_count, successes);
	ck_assert_uint_eq(metrics->folds_lost, lost);
}

START_TEST(a_step_lost_on_the_way_is_taken_again)
{
	interrupt(LOSE_STEP, 2);
	expect_folded(9, 11, 0);
	ck_assert_int_eq(scripted_get("k").circuit.last_failure_time, T0 + 10);
}
END_TEST

START_TEST(a_step_whose_answer_was_lost_is_not_taken_twice)
{
	interrupt(HIDE_STEP, 2);
	expect_folded(9, 11, 0);
}
END_TEST

START_TEST(a_step_is_given_up_where_the_circuit_does_not_tell)
{
	struct circuit c;

	interrupt(HIDE_STEP, 1);
	c = scripted_get("k").circuit;
	c.failure_count++;
	c.last_failure_time += 5;
	store_memory_put(scripted->circuits, "k", 1, &c);
	c = scripted_get("l").circuit;
	c.success_count++;
	store_memory_put(scripted->circuits, "l", 1, &c);
	expect_folded(10, 12, 2);
}
END_TEST

START_TEST(what_may_have_been_applied_is_no_seed)
{
	there_ok("k", OP_FAILURE);
	there_ok("k", OP_TO(CIRCUIT_OPEN));
	fake_now += 10;
	scripted->mood = LOSE;
	ck_assert_int_eq(away_ok("k", OP_TO(CIRCUIT_CLOSED)).failure_count, 0);
	scripted_set_up(false);
	ck_assert_int_eq(away_ok("k", OP_FAILURE).failure_count, 1);
	scripted->mood = ANSWER;
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.state, CIRCUIT_OPEN);
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 2);
}
END_TEST

START_TEST(a_step_surely_not_taken_is_taken_later)
{
	scripted_set_up(false);
	away_ok("k", OP_FAILURE);
	away_ok("k", OP_TO(CIRCUIT_OPEN));
	scripted->mood = HOLD_STEP;
	scripted_set_up(true);
	until_step_held();
	/* Main goes away while the step is under way. The next failure becomes a second step. */
	scripted_set_up(false);
	away_ok("k", OP_FAILURE);
	scripted->mood = REFUSE;
	scripted_release();
	event_base_loop(base, EVLOOP_ONCE);
	ck_assert_uint_eq(scripted->store.in_flight, 0);
	scripted->mood = ANSWER;
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 2);
	ck_assert_int_eq(scripted_get("k").circuit.state, CIRCUIT_OPEN);
	ck_assert_uint_eq(metrics->folds_lost, 0);
}
END_TEST

START_TEST(a_step_that_main_refuses_for_now_is_tried_again)
{
	scripted_set_up(false);
	away_ok("k", OP_FAILURE);
	scripted->mood = FAIL;
	scripted->words = "OOM command not allowed";
	scripted_set_up(true);
	event_base_loop(base, EVLOOP_ONCE);
	event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(metrics->folds_pending, 1);
	scripted->mood = ANSWER;
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 1);
}
END_TEST

START_TEST(a_step_that_can_never_be_taken_is_given_up)
{
	static const char *const words[] = {"WRONGTYPE Operation against a key",
					    "TOOLARGE the stored value is larger than 64 KiB"};

	scripted_set_up(false);
	away_ok("k", OP_FAILURE);
	scripted->mood = FAIL;
	scripted->words = words[_i];
	scripted_set_up(true);
	until_folded();
	ck_assert_uint_eq(metrics->folds_lost, 1);
}
END_TEST

static unsigned lines;

static void on_line(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	lines += strstr(line, "folding ") || strstr(line, "folded ");
}

START_TEST(main_that_comes_and_goes_fills_no_log)
{
	struct log log = {.level = LOG_LEVEL_INFO, .sink = on_line};
	struct store_limits limits = store_test_limits();
	struct store_clock clock = {0};

	store_free(store);
	store = store_fallback_new(base, scripted_open(base, &limits, clock), &limits, clock,
				   metrics, &log);
	for (int i = 0; i < 1000; i++) {
		run("k", OP_FAILURE, STORE_OK, true);
		scripted_set_up(true);
		until_folded();
		scripted_set_up(false);
	}
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 1000);
	ck_assert_uint_ge(lines, 2);
	ck_assert_uint_lt(lines, 1000);
	store_free(store);
	store = NULL;
}
END_TEST

START_TEST(what_waits_is_bounded)
{
	scripted_set_up(false);
	away_ok("a", OP_RESET);
	away_ok("b", OP_RESET);
	away_ok("c", OP_RESET);
	run("d", OP_FAILURE, STORE_FULL, true);
	ck_assert_int_eq(away_ok("d", OP_GET).failure_count, 0);
	ck_assert_int_eq(away_ok("a", OP_FAILURE).failure_count, 1);
}
END_TEST

START_TEST(it_can_be_freed_with_steps_under_way)
{
	scripted_set_up(false);
	away_ok("a", OP_FAILURE);
	away_ok("b", OP_FAILURE);
	scripted->mood = HOLD;
	scripted_set_up(true);
	event_base_loop(base, EVLOOP_ONCE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store_fallback");
	TCase *own = tcase_create("fallback");

	suite_add_tcase(suite, store_contract(&there));
	tcase_add_checked_fixture(own, setup, teardown);
	tcase_set_timeout(own, 60);
	tcase_add_test(own, goes_on_with_the_snapshots_last_seen);
	tcase_add_test(own, what_others_did_and_we_saw_is_the_seed);
	tcase_add_test(own, a_store_never_reached_is_away);
	tcase_add_test(own, listings_come_from_what_is_at_hand);
	tcase_add_test(own, what_may_have_been_applied_is_not_folded);
	tcase_add_test(own, what_was_surely_not_applied_is_folded);
	tcase_add_test(own, an_answer_that_does_not_come_in_time_is_made_here);
	tcase_add_test(own, an_error_of_the_store_is_the_answer);
	tcase_add_test(own, steps_go_in_the_order_of_the_circuits);
	tcase_add_test(own, an_operation_sends_its_step_ahead);
	tcase_add_test(own, a_reset_is_folded_too);
	tcase_add_test(own, stamps_are_in_the_time_of_main);
	tcase_add_test(own, what_is_done_here_is_later_than_what_was_seen);
	tcase_add_test(own, noise_in_the_clocks_moves_no_stamp);
	tcase_add_test(own, a_poor_measurement_of_the_clocks_moves_no_stamp);
	tcase_add_test(own, what_may_have_been_applied_is_no_seed);
	tcase_add_test(own, a_step_lost_on_the_way_is_taken_again);
	tcase_add_test(own, a_step_whose_answer_was_lost_is_not_taken_twice);
	tcase_add_test(own, a_step_is_given_up_where_the_circuit_does_not_tell);
	tcase_add_test(own, a_step_surely_not_taken_is_taken_later);
	tcase_add_test(own, a_step_that_main_refuses_for_now_is_tried_again);
	tcase_add_loop_test(own, a_step_that_can_never_be_taken_is_given_up, 0, 2);
	tcase_add_test(own, main_that_comes_and_goes_fills_no_log);
	tcase_add_test(own, what_waits_is_bounded);
	tcase_add_test(own, it_can_be_freed_with_steps_under_way);
	suite_add_tcase(suite, own);
	return suite_run(suite);
}
