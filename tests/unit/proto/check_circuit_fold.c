#include "proto/circuit_fold.h"
#include "script_op.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>

#define T0 INT64_C(1700000000000)

static const struct circuit seen = {
	.state = CIRCUIT_CLOSED,
	.failure_count = 3,
	.success_count = 5,
	.last_failure_time = T0 - 500,
	.last_state_change = T0 - 1000,
};

static void note_op(struct circuit_fold *fold, const struct circuit_op *op, int64_t now)
{
	circuit_fold_note(fold, op, op->verb == CIRCUIT_RESET ? CIRCUIT_REMOVED : CIRCUIT_WRITTEN,
			  now);
}

static void note(struct circuit_fold *fold, enum circuit_verb verb, int64_t now)
{
	note_op(fold, &(struct circuit_op){.verb = verb}, now);
}

static void note_to(struct circuit_fold *fold, enum circuit_state to, int64_t now)
{
	note_op(fold, &(struct circuit_op){.verb = CIRCUIT_TRANSITION, .to = to}, now);
}

/* The step that these operations make, the first at T0, each a millisecond after the one before.
 * Letters as in circuit.lua: s success, f failure, d reset, A E I to closed, open, half-open. */
static struct circuit_fold fold_of(const struct circuit *before, const char *operations)
{
	struct circuit_fold fold;

	circuit_fold_begin(&fold, before);
	for (int64_t now = T0; *operations; operations++, now++) {
		struct circuit_op op = script_op(*operations);

		note_op(&fold, &op, now);
	}
	return fold;
}

static void expect(const struct circuit *c, enum circuit_state state, int64_t failures,
		   int64_t successes, int64_t failed, int64_t changed)
{
	ck_assert_int_eq(c->state, state);
	ck_assert_int_eq(c->failure_count, failures);
	ck_assert_int_eq(c->success_count, successes);
	ck_assert_int_eq(c->last_failure_time, failed);
	ck_assert_int_eq(c->last_state_change, changed);
}

START_TEST(reads_and_conflicts_leave_nothing)
{
	struct circuit_fold fold;
	struct circuit_op get = {.verb = CIRCUIT_GET_STATE};
	struct circuit_op to = {.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_OPEN};
	struct circuit c = seen;

	circuit_fold_begin(&fold, &seen);
	circuit_fold_note(&fold, &get, CIRCUIT_READ, T0);
	circuit_fold_note(&fold, &to, CIRCUIT_CONFLICT, T0);
	ck_assert(circuit_fold_empty(&fold));
	ck_assert_int_eq(circuit_fold_apply(&c, true, 0, &fold), CIRCUIT_READ);
	expect(&c, CIRCUIT_CLOSED, 3, 5, T0 - 500, T0 - 1000);
}
END_TEST

START_TEST(counts_are_added_to_what_others_recorded)
{
	struct circuit_fold fold = fold_of(&seen, "ffs");
	struct circuit c = seen;

	ck_assert(!circuit_fold_empty(&fold));
	c.failure_count = 10;
	c.last_failure_time = T0 + 7;
	ck_assert_int_eq(circuit_fold_apply(&c, true, 0, &fold), CIRCUIT_WRITTEN);
	expect(&c, CIRCUIT_CLOSED, 12, 6, T0 + 7, T0 - 1000);
}
END_TEST

START_TEST(counters_stop_at_the_largest_integer)
{
	struct circuit_fold fold;
	struct circuit c = seen;

	circuit_fold_begin(&fold, &seen);
	note(&fold, CIRCUIT_RECORD_FAILURE, T0);
	note(&fold, CIRCUIT_RECORD_FAILURE, T0);
	c.failure_count = CIRCUIT_INT_MAX - 1;
	circuit_fold_apply(&c, true, 0, &fold);
	ck_assert_int_eq(c.failure_count, CIRCUIT_INT_MAX);
}
END_TEST

START_TEST(a_close_meanwhile_adds_to_nothing)
{
	struct circuit_fold fold = fold_of(&seen, "fAf");
	struct circuit c = seen;

	circuit_fold_apply(&c, true, 0, &fold);
	expect(&c, CIRCUIT_CLOSED, 1, 0, T0 + 2, T0 + 1);
}
END_TEST

START_TEST(a_half_open_meanwhile_zeroes_the_successes)
{
	struct circuit_fold fold = fold_of(&seen, "sIs");
	struct circuit c = seen;

	circuit_fold_apply(&c, true, 0, &fold);
	expect(&c, CIRCUIT_HALF_OPEN, 3, 1, T0 - 500, T0 + 1);
}
END_TEST

START_TEST(the_later_state_stands)
{
	struct circuit_fold fold = fold_of(&seen, "E");
	struct circuit later = seen, earlier = seen;

	later.state = CIRCUIT_HALF_OPEN;
	later.last_state_change = T0 + 1;
	circuit_fold_apply(&later, true, 0, &fold);
	expect(&later, CIRCUIT_HALF_OPEN, 3, 5, T0 - 500, T0 + 1);
	circuit_fold_apply(&earlier, true, 0, &fold);
	expect(&earlier, CIRCUIT_OPEN, 3, 5, T0 - 500, T0);
}
END_TEST

START_TEST(a_circuit_that_came_to_be_meanwhile_closes_nothing)
{
	struct circuit_fold fold = fold_of(NULL, "f");
	struct circuit c = seen;

	c.state = CIRCUIT_OPEN;
	circuit_fold_apply(&c, true, 0, &fold);
	expect(&c, CIRCUIT_OPEN, 4, 5, T0, T0 - 1000);
	circuit_fold_apply(&c, false, 0, &fold);
	expect(&c, CIRCUIT_CLOSED, 1, 0, T0, T0);
}
END_TEST

START_TEST(what_redis_has_lost_is_as_it_was_last_seen)
{
	struct circuit_fold fold;
	struct circuit open = seen, c;

	open.state = CIRCUIT_OPEN;
	circuit_fold_begin(&fold, &open);
	note(&fold, CIRCUIT_RECORD_FAILURE, T0);
	ck_assert_int_eq(circuit_fold_apply(&c, false, 0, &fold), CIRCUIT_WRITTEN);
	expect(&c, CIRCUIT_OPEN, 1, 0, T0, T0 - 1000);
}
END_TEST

START_TEST(a_reset_removes_what_nobody_wrote_since)
{
	struct circuit_fold fold;
	struct circuit same = seen, failed = seen, changed = seen, renewed = seen;

	circuit_fold_begin(&fold, &seen);
	note(&fold, CIRCUIT_RECORD_FAILURE, T0 - 1);
	note(&fold, CIRCUIT_RESET, T0);
	ck_assert(!circuit_fold_empty(&fold));
	ck_assert_int_eq(circuit_fold_apply(&same, true, T0, &fold), CIRCUIT_REMOVED);
	failed.last_failure_time = T0 + 1;
	ck_assert_int_eq(circuit_fold_apply(&failed, true, T0, &fold), CIRCUIT_READ);
	changed.last_state_change = T0 + 1;
	ck_assert_int_eq(circuit_fold_apply(&changed, true, T0, &fold), CIRCUIT_READ);
	ck_assert_int_eq(circuit_fold_apply(&renewed, true, T0 + 1, &fold), CIRCUIT_READ);
	ck_assert_int_eq(circuit_fold_apply(&same, false, 0, &fold), CIRCUIT_READ);
}
END_TEST

START_TEST(what_follows_a_reset_begins_at_nothing)
{
	struct circuit_fold fold = fold_of(&seen, "df");
	struct circuit c = seen;

	ck_assert_int_eq(circuit_fold_apply(&c, true, 0, &fold), CIRCUIT_WRITTEN);
	expect(&c, CIRCUIT_CLOSED, 1, 0, T0 + 1, T0 + 1);
}
END_TEST

START_TEST(only_stamps_of_our_own_are_corrected)
{
	struct circuit_fold fold = fold_of(&seen, "s");
	struct circuit c = seen, absent;

	circuit_fold_shift(&fold, 100);
	circuit_fold_apply(&c, true, 0, &fold);
	expect(&c, CIRCUIT_CLOSED, 3, 6, T0 - 500, T0 - 1000);
	note(&fold, CIRCUIT_RECORD_FAILURE, T0);
	note_to(&fold, CIRCUIT_OPEN, T0 + 5);
	circuit_fold_shift(&fold, 100);
	circuit_fold_apply(&c, true, 0, &fold);
	expect(&c, CIRCUIT_OPEN, 4, 7, T0 + 100, T0 + 105);
	circuit_fold_begin(&fold, NULL);
	note(&fold, CIRCUIT_RECORD_SUCCESS, T0);
	circuit_fold_shift(&fold, -100);
	circuit_fold_apply(&absent, false, 0, &fold);
	expect(&absent, CIRCUIT_CLOSED, 0, 1, 0, T0 - 100);
}
END_TEST

/* Random operations, split into two steps at a random place: the two appended do what one does. */
START_TEST(two_steps_are_one)
{
	unsigned seed = 1;

	for (int round = 0; round < 20000; round++) {
		struct circuit_fold whole, first, second;
		struct circuit a = seen, b = seen;
		bool exists = rand_r(&seed) % 2;
		int count = rand_r(&seed) % 6, cut = count ? rand_r(&seed) % count : 0;
		const struct circuit *start = rand_r(&seed) % 2 ? &seen : NULL;
		enum circuit_effect effect;

		circuit_fold_begin(&whole, start);
		circuit_fold_begin(&first, start);
		circuit_fold_begin(&second, NULL);
		for (int i = 0; i < count; i++) {
			struct circuit_fold *part = i < cut ? &first : &second;
			int what = rand_r(&seed) % 6;

			if (what < 3) {
				note_to(&whole, (enum circuit_state)what, T0 + i);
				note_to(part, (enum circuit_state)what, T0 + i);
			} else {
				static const enum circuit_verb verbs[] = {CIRCUIT_RECORD_SUCCESS,
									  CIRCUIT_RECORD_FAILURE,
									  CIRCUIT_RESET};

				note(&whole, verbs[what - 3], T0 + i);
				note(part, verbs[what - 3], T0 + i);
			}
		}
		circuit_fold_append(&first, &second);
		effect = circuit_fold_apply(&a, exists, 0, &whole);
		ck_assert_int_eq(circuit_fold_apply(&b, exists, 0, &first), effect);
		if (effect == CIRCUIT_WRITTEN)
			expect(&b, a.state, a.failure_count, a.success_count, a.last_failure_time,
			       a.last_state_change);
	}
}
END_TEST

static enum circuit_fold_trace trace(const struct circuit_fold *fold, const struct circuit *before,
				     const struct circuit *now)
{
	return circuit_fold_trace(fold, CIRCUIT_FOLD_ASKED, before, now);
}

static enum circuit_fold_trace blind_trace(const struct circuit_fold *fold,
					   const struct circuit *now)
{
	return circuit_fold_trace(fold, CIRCUIT_FOLD_UNASKED, NULL, now);
}

START_TEST(a_step_leaves_a_trace)
{
	struct circuit_fold fold = fold_of(NULL, "s");
	struct circuit c = seen, other;

	circuit_fold_apply(&c, true, 0, &fold);
	ck_assert_int_eq(trace(&fold, &seen, &seen), CIRCUIT_FOLD_NOT_TAKEN);
	ck_assert_int_eq(trace(&fold, &seen, &c), CIRCUIT_FOLD_TAKEN);
	ck_assert_int_eq(trace(&fold, NULL, NULL), CIRCUIT_FOLD_NOT_TAKEN);
	other = c;
	other.success_count++;
	ck_assert_int_eq(trace(&fold, &seen, &other), CIRCUIT_FOLD_UNSURE);
	ck_assert_int_eq(blind_trace(&fold, &c), CIRCUIT_FOLD_UNSURE);
}
END_TEST

/* Another gateway may have reset the circuit: the step must not be sent again after that. */
START_TEST(a_circuit_that_is_gone_tells_nothing)
{
	static const char *const steps[] = {"s", "f", "E", "A", "I", "df", "fE"};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct circuit_fold fold = fold_of(&seen, steps[i]);

		ck_assert_int_eq(trace(&fold, &seen, NULL), CIRCUIT_FOLD_UNSURE);
		ck_assert_int_eq(blind_trace(&fold, NULL), CIRCUIT_FOLD_UNSURE);
	}
}
END_TEST

/* Sending a reset twice does no harm: it removes only what was written before it. */
START_TEST(a_reset_may_be_taken_again)
{
	struct circuit_fold fold = fold_of(&seen, "fd");
	struct circuit later = {.success_count = 1, .last_state_change = T0 + 9};

	ck_assert_int_eq(trace(&fold, &seen, NULL), CIRCUIT_FOLD_NOT_TAKEN);
	ck_assert_int_eq(trace(&fold, &seen, &later), CIRCUIT_FOLD_NOT_TAKEN);
	ck_assert_int_eq(circuit_fold_apply(&later, true, T0 + 9, &fold), CIRCUIT_READ);
}
END_TEST

START_TEST(the_trace_of_a_step_on_nothing)
{
	struct circuit_fold fold = fold_of(NULL, "ds"), success = fold_of(NULL, "s");
	struct circuit c = {0}, other;

	circuit_fold_apply(&c, false, 0, &fold);
	ck_assert_int_eq(trace(&fold, NULL, &c), CIRCUIT_FOLD_TAKEN);
	/* The same if there was a circuit before, which the step's reset removed. */
	ck_assert_int_eq(trace(&fold, &seen, &c), CIRCUIT_FOLD_TAKEN);
	ck_assert_int_eq(trace(&fold, NULL, &seen), CIRCUIT_FOLD_UNSURE);
	/* Others wrote it since, but its lastStateChange shows that the step created it. */
	circuit_fold_apply(&c, false, 0, &success);
	other = c;
	other.success_count += 5;
	ck_assert_int_eq(trace(&success, NULL, &other), CIRCUIT_FOLD_TAKEN);
}
END_TEST

/* Whatever the counts are, a stamp shows it: the step's own that it was taken, an older one that it
 * was not; a newer one or none proves nothing. */
START_TEST(stamps_are_a_trace)
{
	struct circuit_fold fold = fold_of(&seen, "f");
	struct circuit c = {.failure_count = 99};

	ck_assert_int_eq(blind_trace(&fold, &c), CIRCUIT_FOLD_UNSURE); /* reset by others? */
	c.last_failure_time = T0 - 1;
	ck_assert_int_eq(blind_trace(&fold, &c), CIRCUIT_FOLD_NOT_TAKEN);
	c.last_failure_time = T0;
	ck_assert_int_eq(blind_trace(&fold, &c), CIRCUIT_FOLD_TAKEN);
	c.last_failure_time = T0 + 1;
	ck_assert_int_eq(blind_trace(&fold, &c), CIRCUIT_FOLD_UNSURE);
	note_to(&fold, CIRCUIT_CLOSED, T0 + 2);
	c.last_state_change = T0 + 1;
	ck_assert_int_eq(blind_trace(&fold, &c), CIRCUIT_FOLD_NOT_TAKEN);
	c.last_state_change = T0 + 2;
	ck_assert_int_eq(blind_trace(&fold, &c), CIRCUIT_FOLD_TAKEN);
	c.last_state_change = T0 + 3;
	ck_assert_int_eq(blind_trace(&fold, &c), CIRCUIT_FOLD_UNSURE);
}
END_TEST

/* Counts only grow if neither a transition nor a reset came in between, so a count lower than the
 * step would have made it shows that the step was not taken. */
START_TEST(counts_are_a_trace)
{
	struct circuit_fold successes = fold_of(&seen, "sss"), failure = fold_of(&seen, "f");
	struct circuit c = seen;

	c.success_count += 2;
	ck_assert_int_eq(trace(&successes, &seen, &c), CIRCUIT_FOLD_NOT_TAKEN);
	c.success_count += 2;
	ck_assert_int_eq(trace(&successes, &seen, &c), CIRCUIT_FOLD_UNSURE);
	ck_assert_int_eq(trace(&failure, &seen, &c), CIRCUIT_FOLD_NOT_TAKEN);
	c.failure_count += 2;
	c.last_failure_time = T0 - 1;
	ck_assert_int_eq(trace(&failure, &seen, &c), CIRCUIT_FOLD_NOT_TAKEN);
	c.last_failure_time = T0;
	ck_assert_int_eq(trace(&failure, &seen, &c), CIRCUIT_FOLD_TAKEN);
	c.last_failure_time = T0 + 1;
	ck_assert_int_eq(trace(&failure, &seen, &c), CIRCUIT_FOLD_UNSURE);
}
END_TEST

/* If the circuit was only seen some time before the step, a higher count proves nothing, because
 * others may have recorded too. The step's own stamp still proves that it was taken. */
START_TEST(a_circuit_seen_long_before_proves_less)
{
	struct circuit_fold success = fold_of(&seen, "s"), failure = fold_of(&seen, "f");
	struct circuit c = seen, d = seen;

	circuit_fold_apply(&c, true, 0, &success);
	ck_assert_int_eq(circuit_fold_trace(&success, CIRCUIT_FOLD_SEEN, &seen, &c),
			 CIRCUIT_FOLD_UNSURE);
	ck_assert_int_eq(circuit_fold_trace(&success, CIRCUIT_FOLD_SEEN, &seen, &seen),
			 CIRCUIT_FOLD_NOT_TAKEN);
	circuit_fold_apply(&d, true, 0, &failure);
	ck_assert_int_eq(circuit_fold_trace(&failure, CIRCUIT_FOLD_SEEN, &seen, &d),
			 CIRCUIT_FOLD_TAKEN);
}
END_TEST

START_TEST(what_only_moves_the_state_has_no_more_to_do_behind_a_later_one)
{
	struct circuit_fold fold = fold_of(&seen, "E");
	struct circuit c = seen;

	circuit_fold_apply(&c, true, 0, &fold);
	ck_assert_int_eq(trace(&fold, &seen, &c), CIRCUIT_FOLD_TAKEN);
	c.state = CIRCUIT_HALF_OPEN;
	c.last_state_change = T0 + 7;
	ck_assert_int_eq(trace(&fold, &seen, &c), CIRCUIT_FOLD_TAKEN);
}
END_TEST

START_TEST(it_is_encoded_for_the_script)
{
	struct circuit_fold fold;
	char buf[CIRCUIT_FOLD_MAX];

	circuit_fold_begin(&fold, NULL);
	note(&fold, CIRCUIT_RESET, 7);
	note(&fold, CIRCUIT_RECORD_FAILURE, 8);
	ck_assert_uint_eq(circuit_fold_encode(buf, &fold), 19);
	ck_assert_str_eq(buf, "w 1 0 1 1 1 3 8 8 7");
	note_to(&fold, CIRCUIT_HALF_OPEN, 9);
	circuit_fold_encode(buf, &fold);
	ck_assert_str_eq(buf, "w 1 0 1 1 1 2 9 8 7");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("circuit_fold");
	TCase *tc = tcase_create("fold");

	tcase_add_test(tc, reads_and_conflicts_leave_nothing);
	tcase_add_test(tc, counts_are_added_to_what_others_recorded);
	tcase_add_test(tc, counters_stop_at_the_largest_integer);
	tcase_add_test(tc, a_close_meanwhile_adds_to_nothing);
	tcase_add_test(tc, a_half_open_meanwhile_zeroes_the_successes);
	tcase_add_test(tc, the_later_state_stands);
	tcase_add_test(tc, a_circuit_that_came_to_be_meanwhile_closes_nothing);
	tcase_add_test(tc, what_redis_has_lost_is_as_it_was_last_seen);
	tcase_add_test(tc, a_reset_removes_what_nobody_wrote_since);
	tcase_add_test(tc, what_follows_a_reset_begins_at_nothing);
	tcase_add_test(tc, only_stamps_of_our_own_are_corrected);
	tcase_add_test(tc, two_steps_are_one);
	tcase_add_test(tc, a_step_leaves_a_trace);
	tcase_add_test(tc, the_trace_of_a_step_on_nothing);
	tcase_add_test(tc, stamps_are_a_trace);
	tcase_add_test(tc, a_circuit_that_is_gone_tells_nothing);
	tcase_add_test(tc, a_reset_may_be_taken_again);
	tcase_add_test(tc, counts_are_a_trace);
	tcase_add_test(tc, a_circuit_seen_long_before_proves_less);
	tcase_add_test(tc, what_only_moves_the_state_has_no_more_to_do_behind_a_later_one);
	tcase_add_test(tc, it_is_encoded_for_the_script);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
