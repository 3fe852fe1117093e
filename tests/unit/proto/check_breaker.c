/*
 * proto/breaker.c: long runs, random histories, and cases that do not fit the table of steps,
 * tests/cases/breaker.tsv.
 */
#include "default_policy.h"
#include "proto/breaker.h"
#include "proto/breaker_member.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START INT64_C(1700000000000)

/* A stored circuit with its policy and clock. */
struct bench {
	struct circuit c;
	bool exists;
	struct breaker b;
	struct policy policy;
	int64_t now;
	struct breaker_answer answer;
};

static void bench_init(struct bench *t)
{
	memset(t, 0, sizeof(*t));
	breaker_none(&t->b);
	t->policy = default_policy;
	t->now = START;
}

/* Runs an operation. The member is encoded and decoded each time, as on Redis. */
static void apply(struct bench *t, enum circuit_verb verb, const struct breaker_call *call)
{
	char text[BREAKER_TEXT_MAX];
	struct circuit c = t->c;
	struct breaker b = t->b;
	size_t len;

	if (breaker_apply(&c, t->exists, &b, verb, call, t->now, &t->answer) != CIRCUIT_WRITTEN)
		return;
	t->exists = true;
	t->c = c;
	len = breaker_member_encode(text, &b);
	ck_assert_uint_lt(len, BREAKER_TEXT_MAX);
	ck_assert(breaker_member_decode(text, len, &t->b));
}

static const struct breaker_answer *acquire(struct bench *t)
{
	struct breaker_call call = {.policy = &t->policy, .random = (uint32_t)random()};

	apply(t, CIRCUIT_ACQUIRE, &call);
	return &t->answer;
}

static const struct breaker_answer *report(struct bench *t, const struct breaker_permit *permit,
					   enum breaker_outcome outcome, uint16_t reporter)
{
	struct breaker_call call = {.policy = &t->policy,
				    .reporter = reporter,
				    .count = 1,
				    .outcome = outcome};

	if (permit)
		call.permit = *permit;
	apply(t, CIRCUIT_REPORT, &call);
	return &t->answer;
}

/* Makes `calls` calls 5 ms apart, of which `failing` out of each `of` fail, evenly spread. Returns
 * the number of the call that opened the circuit; 0: none did. */
static unsigned run_calls(struct bench *t, unsigned calls, unsigned failing, unsigned of)
{
	for (unsigned i = 1; i <= calls; i++) {
		bool fails = i * failing / of != (i - 1) * failing / of;
		struct breaker_permit permit;

		t->now += 5;
		if (!acquire(t)->allowed)
			return i;
		permit = t->answer.permit;
		if (report(t, &permit, fails ? BREAKER_FAILURE : BREAKER_SUCCESS, 7)->state ==
		    CIRCUIT_OPEN)
			return i;
	}
	return 0;
}

START_TEST(one_failure_in_a_thousand_never_opens)
{
	struct bench t;

	bench_init(&t);
	ck_assert_uint_eq(run_calls(&t, 1000000, 1, 1000), 0);
	ck_assert_int_eq(t.c.failure_count, 1000);
	ck_assert_int_eq(t.c.success_count, 999000);
}
END_TEST

START_TEST(a_rate_opens_where_it_is_reached)
{
	struct bench t;

	/* All calls fail: without consecutive_failures, and with it. */
	bench_init(&t);
	t.policy.consecutive_failures = 0;
	ck_assert_uint_eq(run_calls(&t, 1000, 100, 100), 20);
	bench_init(&t);
	ck_assert_uint_eq(run_calls(&t, 1000, 100, 100), 5);
	/* All calls fail after a window full of successes: it opens within half a window. */
	bench_init(&t);
	t.policy.consecutive_failures = 0;
	ck_assert_uint_eq(run_calls(&t, 10000, 0, 100), 0);
	ck_assert_uint_le(run_calls(&t, 10000, 100, 100), 3000);
	/* 50% fail, and 49%. */
	bench_init(&t);
	t.policy.consecutive_failures = 0;
	ck_assert_uint_eq(run_calls(&t, 10000, 50, 100), 20);
	bench_init(&t);
	t.policy.consecutive_failures = 0;
	ck_assert_uint_eq(run_calls(&t, 100000, 49, 100), 0);
}
END_TEST

START_TEST(one_sick_daemon_trips_nothing)
{
	struct bench t;

	bench_init(&t);
	t.policy.min_reporters = 2;
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(report(&t, NULL, BREAKER_FAILURE, 3)->state, CIRCUIT_CLOSED);
	ck_assert_int_eq(report(&t, NULL, BREAKER_FAILURE, 935)->state, CIRCUIT_OPEN);
	ck_assert_uint_eq(t.answer.move.reporters, 2);
}
END_TEST

START_TEST(as_many_daemons_as_a_policy_can_ask_for)
{
	struct bench t;

	bench_init(&t);
	t.policy.min_reporters = 16;
	for (uint16_t i = 0; i < 15; i++) {
		t.now += 1000;
		for (int again = 0; again < 20; again++)
			ck_assert_int_eq(report(&t, NULL, BREAKER_FAILURE, i)->state,
					 CIRCUIT_CLOSED);
	}
	ck_assert_int_eq(report(&t, NULL, BREAKER_FAILURE, 15)->state, CIRCUIT_OPEN);
}
END_TEST

/* 1,000 openings, after which probes are at random reported, lost, reported as ignored or reported
 * too late. The circuit is never stuck and never has more probes out than the policy allows. */
START_TEST(a_circuit_is_never_stuck)
{
	struct breaker_permit out[3];
	unsigned count = 0, openings = 0, refused_since_s = 0;
	struct bench t;

	bench_init(&t);
	t.policy.probes = 3;
	t.policy.probe_successes = 4;
	t.policy.open_time_ms = 1000;
	t.policy.open_time_max_ms = 10000;
	srandom(12);
	while (openings < 1000) {
		unsigned pick = count ? (unsigned)random() % count : 0;

		t.now += random() % 2000;
		if (t.c.state == CIRCUIT_CLOSED || random() % 2) {
			if (acquire(&t)->reason == BREAKER_PROBE) {
				ck_assert_uint_le(t.b.probe_count, 3);
				if (t.answer.was == CIRCUIT_OPEN)
					count = 0;
				ck_assert_uint_lt(count, 3);
				out[count++] = t.answer.permit;
			}
			refused_since_s = t.answer.allowed ? 0 : refused_since_s + 1;
			/* Steps are a second apart on average: enough for the longest opening and
			 * the longest probe. */
			ck_assert_uint_lt(refused_since_s, 200);
		} else if (count > 0 && random() % 3) {
			report(&t, &out[pick], (enum breaker_outcome)(random() % BREAKER_OUTCOMES),
			       1);
			out[pick] = out[--count];
		}
		if (t.c.state == CIRCUIT_CLOSED)
			while (report(&t, NULL, BREAKER_FAILURE, 1)->state == CIRCUIT_CLOSED)
				;
		if (t.answer.was != CIRCUIT_OPEN && t.answer.state == CIRCUIT_OPEN) {
			openings++;
			count = 0;
		}
	}
}
END_TEST

START_TEST(openings_grow_to_the_millisecond)
{
	static const struct {
		int64_t open_time, max;
		uint32_t growth, n;
		int64_t should;
	} rows[] = {
		{30000, 300000, 2000, 0, 30000},
		{30000, 300000, 2000, 1, 60000},
		{30000, 300000, 2000, 3, 240000},
		{30000, 300000, 2000, 4, 300000},
		{30000, 300000, 1000, 9999, 30000},
		{10, 604800000, 1100, 1, 11},
		{10, 604800000, 1100, 2, 13},
		{10, 604800000, 1001, 1, 11},
		{10, 604800000, 1001, 20000, 604800000},
		{1000, 604800000, 1500, 3, 3375},
		{86400000, 604800000, 10000, 1, 604800000},
		{1000, 1000, 10000, 5, 1000},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct policy p = default_policy;

		p.open_time_ms = rows[i].open_time;
		p.open_time_max_ms = rows[i].max;
		p.open_growth_milli = rows[i].growth;
		ck_assert_msg(breaker_open_ms(&p, rows[i].n) == rows[i].should, "row %zu: %ld", i,
			      (long)breaker_open_ms(&p, rows[i].n));
	}
}
END_TEST

START_TEST(many_successes_are_as_one_after_the_other)
{
	srandom(3);
	for (int round = 0; round < 2000; round++) {
		struct breaker_call many = {.count = 1 + (uint32_t)random() % 30};
		struct bench one, all;
		uint32_t counted = 0;

		bench_init(&one);
		one.policy.consecutive_failures = 0;
		one.policy.min_calls = 1 + (uint32_t)random() % 40;
		one.policy.failure_rate = 1 + (uint32_t)random() % 100;
		for (long i = random() % 30; i > 0; i--)
			report(&one, NULL, random() % 3 ? BREAKER_SUCCESS : BREAKER_FAILURE, 1);
		all = one;
		many.policy = &all.policy;
		apply(&all, CIRCUIT_REPORT, &many);
		for (uint32_t i = 0; i < many.count; i++)
			counted += report(&one, NULL, BREAKER_SUCCESS, 0)->counted;
		ck_assert_uint_eq(all.answer.counted, counted);
		ck_assert_mem_eq(&all.c, &one.c, sizeof(all.c));
		ck_assert_int_eq(all.b.slot_count, one.b.slot_count);
		if (one.b.slot_count > 0)
			ck_assert_uint_eq(all.b.slots[0].calls, one.b.slots[0].calls);
		ck_assert_int_eq(all.answer.reason,
				 counted < many.count ? BREAKER_STALE : BREAKER_COUNTED);
	}
}
END_TEST

START_TEST(counters_stop)
{
	struct breaker_call many = {.count = 1000};
	struct bench t;

	bench_init(&t);
	t.exists = true;
	t.c.success_count = CIRCUIT_INT_MAX - 7;
	t.c.failure_count = CIRCUIT_INT_MAX;
	many.policy = &t.policy;
	apply(&t, CIRCUIT_REPORT, &many);
	ck_assert_int_eq(t.c.success_count, CIRCUIT_INT_MAX);
	report(&t, NULL, BREAKER_FAILURE, 1);
	ck_assert_int_eq(t.c.failure_count, CIRCUIT_INT_MAX);
	many.count = BREAKER_COUNT_MAX;
	for (int i = 0; i < 3; i++)
		apply(&t, CIRCUIT_REPORT, &many);
	ck_assert_uint_eq(t.b.slots[0].calls, BREAKER_COUNT_MAX);
}
END_TEST

static const char *why(struct bench *t)
{
	static char buf[BREAKER_WHY_MAX];

	ck_assert_uint_eq(breaker_why(buf, &t->answer.move), strlen(buf));
	return buf;
}

START_TEST(changes_say_why)
{
	struct breaker_permit permit;
	struct bench t;

	bench_init(&t);
	run_calls(&t, 100, 100, 100);
	ck_assert_str_eq(why(&t), "5 consecutive failures");
	t.now += 30000;
	permit = acquire(&t)->permit;
	ck_assert_str_eq(why(&t), "open for 30000 ms");
	report(&t, &permit, BREAKER_FAILURE, 1);
	ck_assert_str_eq(why(&t), "a probe failed");
	t.now += 60000;
	acquire(&t);
	t.now += 30000;
	ck_assert_int_eq(acquire(&t)->state, CIRCUIT_OPEN);
	ck_assert_str_eq(why(&t), "a probe was lost");
	t.now += 60000;
	permit = acquire(&t)->permit;
	report(&t, &permit, BREAKER_SUCCESS, 1);
	ck_assert_str_eq(why(&t), "1 probe succeeded");
	for (int i = 0; i < 41; i++) {
		bool fails = i % 3 < 2;

		report(&t, NULL, fails ? BREAKER_FAILURE : BREAKER_SUCCESS, i % 2);
		t.policy.min_calls = 41;
	}
	ck_assert_str_eq(why(&t), "68% of 41 calls failed, 2 reporters");
	ck_assert_str_eq(breaker_reason_name(BREAKER_OVERRIDDEN), "overridden");
}
END_TEST

START_TEST(overrides_are_obeyed_and_end)
{
	struct breaker_permit forced;
	struct bench t;

	bench_init(&t);
	run_calls(&t, 100, 100, 100);
	t.b.override =
		(struct breaker_override){BREAKER_FORCED_CLOSED, t.now, t.now + 1000, 3, "why"};
	forced = acquire(&t)->permit;
	ck_assert(t.answer.allowed && t.answer.reason == BREAKER_REASON_FORCED_CLOSED);
	ck_assert_int_eq(t.answer.state, CIRCUIT_OPEN);
	ck_assert_int_eq(report(&t, &forced, BREAKER_FAILURE, 1)->reason, BREAKER_OVERRIDDEN);
	t.b.override.mode = BREAKER_FORCED_OPEN;
	t.now += 400;
	ck_assert(!acquire(&t)->allowed);
	ck_assert_int_eq(t.answer.reason, BREAKER_REASON_FORCED_OPEN);
	ck_assert_int_eq(t.answer.retry_after_ms, 600);
	/* The override outlives another program's transition and the decision after it. */
	t.c = (struct circuit){.state = CIRCUIT_CLOSED, .last_state_change = t.now};
	ck_assert_int_eq(report(&t, NULL, BREAKER_FAILURE, 1)->counted, 1);
	ck_assert_int_eq(t.b.override.mode, BREAKER_FORCED_OPEN);
	ck_assert(!acquire(&t)->allowed);
	t.now += 600;
	ck_assert_int_eq(acquire(&t)->reason, BREAKER_CLOSED);
	report(&t, NULL, BREAKER_FAILURE, 1);
	ck_assert_int_eq(t.b.override.mode, BREAKER_NO_OVERRIDE);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("breaker");
	TCase *t = tcase_create("breaker");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, one_failure_in_a_thousand_never_opens);
	tcase_add_test(t, a_rate_opens_where_it_is_reached);
	tcase_add_test(t, one_sick_daemon_trips_nothing);
	tcase_add_test(t, as_many_daemons_as_a_policy_can_ask_for);
	tcase_add_test(t, a_circuit_is_never_stuck);
	tcase_add_test(t, openings_grow_to_the_millisecond);
	tcase_add_test(t, many_successes_are_as_one_after_the_other);
	tcase_add_test(t, counters_stop);
	tcase_add_test(t, changes_say_why);
	tcase_add_test(t, overrides_are_obeyed_and_end);
	suite_add_tcase(s, t);
	return suite_run(s);
}
