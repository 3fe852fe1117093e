/*
 * The order of operations on one circuit after an outage: whichever messages are lost, the circuit
 * in main ends as the answers say, in the order in which they were given. `main` is the store in
 * the place of Redis.
 */
#include "base/metrics.h"
#include "scripted_store.h"
#include "store_contract.h"
#include "suite.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define T0 INT64_C(1700000000000)

static struct event_base *base;
static struct store *store;
static struct metrics *metrics;
static int64_t fake_now;

static int64_t fake_clock(void *arg)
{
	return *(int64_t *)arg;
}

static void open_with(struct store_limits limits)
{
	struct store_clock clock = {.now_ms = fake_clock,
				    .monotonic_ms = fake_clock,
				    .arg = &fake_now};

	fake_now = T0;
	metrics = calloc(1, sizeof(*metrics));
	base = event_base_new();
	store = store_fallback_new(base, scripted_open(base, &limits, clock), &limits, clock,
				   metrics, NULL);
	scripted_set_up(true);
}

static void setup(void)
{
	open_with(store_test_limits());
}

static void teardown(void)
{
	store_free(store);
	event_base_free(base);
	free(metrics);
}

/* An operation and its answer. */
struct client {
	struct store_op *op;
	bool answered;
	struct store_result result;
};

static void on_answer(void *arg, struct store_result *result)
{
	struct client *c = arg;

	ck_assert(!c->answered);
	c->answered = true;
	c->result = *result;
}

static void submit(struct client *c, const char *key, struct circuit_op op)
{
	struct store_request request = {.key = key, .key_len = strlen(key), .op = op};

	memset(c, 0, sizeof(*c));
	c->op = store_submit(store, &request, on_answer, c, &c->result);
	c->answered = !c->op;
}

static void turns(int count)
{
	for (int i = 0; i < count; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void until_answered(const struct client *c)
{
	for (int i = 0; i < 10000 && !c->answered; i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert(c->answered);
}

static void until_folded(void)
{
	for (int i = 0; i < 10000 && metrics->folds_pending; i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(metrics->folds_pending, 0);
}

/* What main holds when it is back: everything, so also the question for the circuit that comes
 * before its step; or only the step. */
static const enum mood slow[] = {HOLD, HOLD_STEP};
#define SLOW ((int)(sizeof(slow) / sizeof(slow[0])))

/* Main comes back and holds what the folding sends. */
static void main_comes_back_slow(enum mood mood)
{
	scripted->mood = mood;
	scripted_set_up(true);
	turns(20);
	ck_assert(!metrics->folds_pending || scripted->store.in_flight > 0);
}

/* Main refuses what it holds. Then it comes back, and everything is folded. */
static void main_refuses_and_comes_back(void)
{
	scripted->mood = REFUSE;
	scripted_release();
	turns(3);
	scripted->mood = ANSWER;
	scripted_set_up(true);
	until_folded();
}

static const struct circuit_op operations[] = {
	{.verb = CIRCUIT_GET_STATE},      {.verb = CIRCUIT_RECORD_SUCCESS},
	{.verb = CIRCUIT_RECORD_FAILURE}, {.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_OPEN},
	{.verb = CIRCUIT_RESET},
};
#define OPERATIONS ((int)(sizeof(operations) / sizeof(operations[0])))

/* Applies an operation to the expected circuit. Returns whether the circuit then exists. */
static bool model(struct circuit *c, bool exists, const struct circuit_op *op)
{
	switch (circuit_apply(c, exists, op, fake_now)) {
	case CIRCUIT_WRITTEN:
		return true;
	case CIRCUIT_REMOVED:
		return false;
	default:
		return exists;
	}
}

static void expect_in_main(const char *key, const struct circuit *c, bool exists)
{
	struct store_result r = scripted_get(key);

	ck_assert_int_eq(!r.absent, exists);
	if (!exists)
		return;
	ck_assert_int_eq(r.circuit.state, c->state);
	ck_assert_int_eq(r.circuit.failure_count, c->failure_count);
	ck_assert_int_eq(r.circuit.success_count, c->success_count);
}

/*
 * `away` is answered while main is away. Its step is sent when main is back, and is lost, or its
 * answer is. When main is back again, `live` comes. Main must apply both, in this order, once.
 */
static void behind_a_lost_step(enum mood mood, const struct circuit_op *away,
			       const struct circuit_op *live)
{
	struct circuit c = {.failure_count = 5,
			    .success_count = 7,
			    .last_failure_time = T0 - 500,
			    .last_state_change = T0 - 1000};
	struct client client;
	bool exists = true;

	store_memory_put(scripted->circuits, "k", 1, &c);
	submit(&client, "k", OP_GET);
	until_answered(&client);
	scripted_set_up(false);
	fake_now += 1000;
	submit(&client, "k", *away);
	ck_assert(client.answered && client.result.degraded);
	exists = model(&c, exists, away);
	fake_now += 1000;
	scripted->mood = mood;
	scripted_set_up(true);
	for (int i = 0; i < 100 && scripted->up && metrics->folds_pending; i++)
		event_base_loop(base, EVLOOP_ONCE);
	/* Main is back, but slow: `live` must not overtake `away`. */
	main_comes_back_slow(HOLD);
	submit(&client, "k", *live);
	turns(3);
	scripted->mood = ANSWER;
	scripted_release();
	until_answered(&client);
	ck_assert_int_eq(client.result.status, STORE_OK);
	exists = model(&c, exists, live);
	if (live->verb == CIRCUIT_GET_STATE && exists)
		ck_assert_int_eq(client.result.circuit.failure_count, c.failure_count);
	until_folded();
	expect_in_main("k", &c, exists);
	ck_assert_uint_eq(metrics->folded_operations_lost, 0);
}

START_TEST(an_operation_comes_behind_a_step_that_was_lost)
{
	behind_a_lost_step(LOSE_STEP, &operations[_i / OPERATIONS], &operations[_i % OPERATIONS]);
}
END_TEST

START_TEST(an_operation_comes_behind_a_step_whose_answer_was_lost)
{
	behind_a_lost_step(HIDE_STEP, &operations[_i / OPERATIONS], &operations[_i % OPERATIONS]);
}
END_TEST

#define MANY 600

/* Many operations wait when main goes away. They are answered in parts; an operation on their
 * circuit that comes meanwhile is answered after them. */
START_TEST(what_comes_when_main_has_just_gone_comes_behind_what_waits)
{
	static struct client waits[MANY];
	struct client away, late, other;
	unsigned answered = 0;
	struct store_limits limits = store->limits;

	limits.max_in_flight = 2 * MANY;
	store_reconfigure(store, &limits);
	scripted_set_up(false);
	submit(&away, "k", OP_FAILURE);
	main_comes_back_slow(slow[_i]);
	for (int i = 0; i < MANY; i++)
		submit(&waits[i], "k", OP_SUCCESS);
	scripted_set_up(false);
	submit(&late, "k", OP_GET);
	submit(&other, "other", OP_SUCCESS);
	ck_assert(!late.answered);
	ck_assert(other.answered);
	event_base_loop(base, EVLOOP_ONCE);
	for (int i = 0; i < MANY; i++)
		answered += waits[i].answered;
	ck_assert_uint_eq(answered, 256);
	until_answered(&late);
	ck_assert_int_eq(late.result.circuit.success_count, MANY);
	main_refuses_and_comes_back();
	ck_assert_int_eq(scripted_get("k").circuit.success_count, MANY);
}
END_TEST

/* A success waits behind the step of two failures when main goes away. */
START_TEST(what_waits_is_answered_when_main_goes)
{
	struct client away, waits;

	scripted_set_up(false);
	submit(&away, "k", OP_FAILURE);
	submit(&away, "k", OP_FAILURE);
	main_comes_back_slow(slow[_i]);
	submit(&waits, "k", OP_SUCCESS);
	ck_assert(!waits.answered);
	scripted_set_up(false);
	until_answered(&waits);
	ck_assert_int_eq(waits.result.status, STORE_OK);
	ck_assert(waits.result.degraded);
	ck_assert_int_eq(waits.result.circuit.failure_count, 2);
	main_refuses_and_comes_back();
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 2);
	ck_assert_int_eq(scripted_get("k").circuit.success_count, 1);
	ck_assert_uint_eq(metrics->folded_operations, 3);
}
END_TEST

/* The deadline of an operation passes while it waits. Main never got it, so it is done here. */
START_TEST(what_waits_for_too_long_is_done_here)
{
	struct store_limits limits = store_test_limits();
	struct client c;

	limits.timeout_ms = 20;
	store_reconfigure(store, &limits);
	scripted_set_up(false);
	submit(&c, "k", OP_FAILURE);
	main_comes_back_slow(slow[_i]);
	submit(&c, "k", OP_FAILURE);
	until_answered(&c);
	ck_assert_int_eq(c.result.status, STORE_OK);
	ck_assert(c.result.degraded);
	ck_assert_int_eq(c.result.circuit.failure_count, 2);
	scripted->mood = ANSWER;
	scripted_release();
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 2);
}
END_TEST

/* What waited before keeps its time and holds up no other circuit, and it keeps its place. */
START_TEST(a_shorter_store_timeout_holds_for_what_comes_then)
{
	struct store_limits limits = store_test_limits();
	struct client before, behind, other;

	scripted_set_up(false);
	submit(&before, "k", OP_FAILURE);
	submit(&other, "other", OP_FAILURE);
	main_comes_back_slow(slow[_i]);
	submit(&before, "k", OP_FAILURE);
	limits.timeout_ms = 20;
	store_reconfigure(store, &limits);
	submit(&other, "other", OP_FAILURE);
	until_answered(&other);
	ck_assert(other.result.degraded);
	ck_assert(!before.answered);
	submit(&behind, "k", OP_RESET);
	until_answered(&behind);
	ck_assert(before.answered);
	ck_assert_int_eq(before.result.circuit.failure_count, 2);
	scripted->mood = ANSWER;
	scripted_release();
	until_folded();
	ck_assert(scripted_get("k").absent);
	ck_assert_int_eq(scripted_get("other").circuit.failure_count, 2);
}
END_TEST

START_TEST(many_wait_in_their_order)
{
	struct client c[4];

	scripted_set_up(false);
	submit(&c[0], "k", OP_FAILURE);
	main_comes_back_slow(slow[_i]);
	submit(&c[0], "k", OP_RESET);
	submit(&c[1], "k", OP_SUCCESS);
	submit(&c[2], "k", OP_TO(CIRCUIT_OPEN));
	submit(&c[3], "k", OP_GET);
	scripted->journal[0] = '\0';
	scripted->mood = ANSWER;
	scripted_release();
	until_answered(&c[3]);
	ck_assert_str_eq(scripted->journal,
			 _i == 0 ? "g:k w:k d:k s:k t:k g:k" : "w:k d:k s:k t:k g:k");
	ck_assert(!c[3].result.degraded);
	ck_assert_int_eq(c[3].result.circuit.success_count, 1);
	ck_assert_int_eq(c[3].result.circuit.state, CIRCUIT_OPEN);
}
END_TEST

START_TEST(what_is_cancelled_while_it_waits_is_not_done)
{
	struct client a, b;

	scripted_set_up(false);
	submit(&a, "k", OP_FAILURE);
	main_comes_back_slow(slow[_i]);
	submit(&a, "k", OP_FAILURE);
	submit(&b, "k", OP_SUCCESS);
	store_cancel(a.op);
	scripted->mood = ANSWER;
	scripted_release();
	until_answered(&b);
	ck_assert_int_eq(b.result.circuit.failure_count, 1);
	ck_assert_int_eq(b.result.circuit.success_count, 1);
}
END_TEST

/* Another gateway resets the circuit after a step that is in doubt. The step must not be taken on
 * top of the reset. */
START_TEST(a_step_in_doubt_does_not_undo_a_reset_of_others)
{
	static const enum mood moods[] = {LOSE_STEP, HIDE_STEP};
	struct circuit theirs = {.failure_count = 5,
				 .last_failure_time = T0 - 500,
				 .last_state_change = T0 - 1000};
	struct circuit_op op = _i % 2 ? OP_FAILURE : OP_TO(CIRCUIT_OPEN);
	struct client c;

	store_memory_put(scripted->circuits, "k", 1, &theirs);
	scripted_set_up(false);
	submit(&c, "k", op);
	submit(&c, "k", op);
	scripted->mood = moods[_i / 2];
	scripted_set_up(true);
	for (int i = 0; i < 100 && scripted->up; i++)
		event_base_loop(base, EVLOOP_ONCE);
	store_memory_put(scripted->circuits, "k", 1, NULL);
	scripted->mood = ANSWER;
	scripted_set_up(true);
	until_folded();
	ck_assert(scripted_get("k").absent);
	ck_assert_uint_eq(metrics->folds_lost, 1);
	ck_assert_uint_eq(metrics->folded_operations_lost, 2);
}
END_TEST

/* A queue keeps its place while its step is under way, so a step that main refuses is not lost when
 * the table of queues is full. */
START_TEST(nothing_is_dropped_when_the_table_is_full)
{
	struct store_limits limits = store_test_limits();
	struct client c;

	teardown();
	limits.max_circuits = 2;
	open_with(limits);
	scripted_set_up(false);
	submit(&c, "a", OP_FAILURE);
	submit(&c, "b", OP_FAILURE);
	main_comes_back_slow(slow[_i]);
	/* Main goes away while both steps are under way: a third circuit gets no queue. */
	scripted_set_up(false);
	submit(&c, "c", OP_FAILURE);
	ck_assert_int_eq(c.result.status, STORE_FULL);
	submit(&c, "a", OP_FAILURE);
	ck_assert_int_eq(c.result.status, STORE_OK);
	main_refuses_and_comes_back();
	ck_assert_int_eq(scripted_get("a").circuit.failure_count, 2);
	ck_assert_int_eq(scripted_get("b").circuit.failure_count, 1);
	ck_assert_uint_eq(metrics->folded_operations_lost, 0);
}
END_TEST

START_TEST(operations_in_doubt_are_counted)
{
	struct client c;

	scripted->mood = LOSE;
	submit(&c, "k", OP_FAILURE);
	until_answered(&c);
	ck_assert_int_eq(c.result.status, STORE_OK);
	ck_assert(c.result.degraded);
	ck_assert_uint_eq(metrics->operations_in_doubt, 1);
	scripted->mood = ANSWER;
	until_folded();
	ck_assert_uint_eq(metrics->operations_in_doubt, 1);
}
END_TEST

/* Main takes a reset, but does not answer. What is recorded here afterwards must not bring back the
 * state that was seen before the reset. */
START_TEST(what_follows_a_reset_in_doubt_begins_at_nothing)
{
	struct circuit open = {.state = CIRCUIT_OPEN, .last_state_change = T0 - 5};
	struct client c;

	store_memory_put(scripted->circuits, "k", 1, &open);
	submit(&c, "k", OP_GET);
	until_answered(&c);
	scripted->mood = LOSE;
	submit(&c, "k", OP_RESET);
	until_answered(&c);
	store_memory_put(scripted->circuits, "k", 1, NULL);
	scripted_set_up(false);
	submit(&c, "k", OP_SUCCESS);
	ck_assert_int_eq(c.result.circuit.state, CIRCUIT_CLOSED);
	scripted->mood = ANSWER;
	scripted_set_up(true);
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.state, CIRCUIT_CLOSED);
	ck_assert_int_eq(scripted_get("k").circuit.success_count, 1);
}
END_TEST

/* Main refuses a step. A write that waits behind the step is refused too; a read is answered here
 * and shows the step's operations. */
START_TEST(behind_a_step_that_main_refuses)
{
	struct client write, read;

	scripted_set_up(false);
	submit(&write, "k", OP_FAILURE);
	scripted->words = "OOM command not allowed";
	scripted->mood = FAIL_STEP;
	scripted_set_up(true);
	submit(&write, "k", OP_FAILURE);
	submit(&read, "k", OP_GET);
	until_answered(&write);
	until_answered(&read);
	ck_assert_int_eq(write.result.status, STORE_ERROR);
	ck_assert_int_eq(read.result.status, STORE_OK);
	ck_assert_int_eq(read.result.circuit.failure_count, 1);
	scripted->mood = ANSWER;
	until_folded();
	ck_assert_int_eq(scripted_get("k").circuit.failure_count, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store_fallback_order");
	TCase *tc = tcase_create("order");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, an_operation_comes_behind_a_step_that_was_lost, 0,
			    OPERATIONS * OPERATIONS);
	tcase_add_loop_test(tc, an_operation_comes_behind_a_step_whose_answer_was_lost, 0,
			    OPERATIONS * OPERATIONS);
	tcase_add_loop_test(tc, what_waits_is_answered_when_main_goes, 0, SLOW);
	tcase_add_loop_test(tc, what_comes_when_main_has_just_gone_comes_behind_what_waits, 0,
			    SLOW);
	tcase_add_loop_test(tc, what_waits_for_too_long_is_done_here, 0, SLOW);
	tcase_add_loop_test(tc, a_shorter_store_timeout_holds_for_what_comes_then, 0, SLOW);
	tcase_add_loop_test(tc, many_wait_in_their_order, 0, SLOW);
	tcase_add_loop_test(tc, what_is_cancelled_while_it_waits_is_not_done, 0, SLOW);
	tcase_add_loop_test(tc, a_step_in_doubt_does_not_undo_a_reset_of_others, 0, 4);
	tcase_add_loop_test(tc, nothing_is_dropped_when_the_table_is_full, 0, SLOW);
	tcase_add_test(tc, operations_in_doubt_are_counted);
	tcase_add_test(tc, what_follows_a_reset_in_doubt_begins_at_nothing);
	tcase_add_test(tc, behind_a_step_that_main_refuses);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
