/*
 * Simulates the three worked examples of docs/policies.md with the policy machine. The page must
 * contain each table exactly as computed here; if not, the failing test prints the table.
 *
 * A simulated call is acquired and reported in the same millisecond. The random numbers are the
 * same in each run.
 */
#include "default_policy.h"
#include "proto/breaker.h"
#include "suite.h"

#include <check.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

/* A circuit, and the calls to its upstream. */
struct world {
	struct circuit c;
	bool exists;
	struct breaker b;
	struct policy policy;
	int64_t now;
	uint64_t random;
	unsigned openings;
	unsigned passed, failed, slow; /* calls */
	bool open;                     /* after the last call */
};

static void begin(struct world *w, const struct policy *policy)
{
	*w = (struct world){.policy = *policy, .now = INT64_C(1700000000000), .random = 1};
	breaker_none(&w->b);
}

static void zero_counts(struct world *w)
{
	w->openings = w->passed = w->failed = w->slow = 0;
}

/* True with a probability of of_thousand / 1000 (SplitMix64). */
static bool chance(struct world *w, unsigned of_thousand)
{
	uint64_t z = w->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (z ^ z >> 31) % 1000 < of_thousand;
}

static struct breaker_answer apply(struct world *w, enum circuit_verb verb,
				   struct breaker_call *call)
{
	struct breaker_answer answer;

	call->policy = &w->policy;
	if (breaker_apply(&w->c, w->exists, &w->b, verb, call, w->now, &answer) == CIRCUIT_WRITTEN)
		w->exists = true;
	w->openings += answer.was != answer.state && answer.state == CIRCUIT_OPEN;
	w->open = answer.state == CIRCUIT_OPEN;
	return answer;
}

/* Asks for a call and, unless it is refused, makes and reports it. */
static void call(struct world *w, bool fails, bool slow)
{
	struct breaker_call acquire = {.random = (uint32_t)w->random};
	struct breaker_answer answer = apply(w, CIRCUIT_ACQUIRE, &acquire);
	struct breaker_call report = {
		.count = 1,
		.outcome = fails ? BREAKER_FAILURE : BREAKER_SUCCESS,
		.slow = slow && w->policy.slow_time_ms > 0,
		.permit = answer.permit,
	};

	if (!answer.allowed)
		return;
	w->passed++;
	w->failed += fails;
	w->slow += slow;
	apply(w, CIRCUIT_REPORT, &report);
}

/* --- the page ----------------------------------------------------------------------------- */

struct table {
	char text[4096];
	size_t len;
};

__attribute__((format(printf, 2, 3))) static void line(struct table *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	t->len += (size_t)vsnprintf(t->text + t->len, sizeof(t->text) - t->len, fmt, ap);
	va_end(ap);
	ck_assert_uint_lt(t->len, sizeof(t->text));
}

static void check_page(const struct table *t)
{
	static char page[65536];
	FILE *f = fopen("docs/policies.md", "rb");

	ck_assert_ptr_nonnull(f);
	page[fread(page, 1, sizeof(page) - 1, f)] = '\0';
	fclose(f);
	ck_assert_msg(strstr(page, t->text) != NULL, "docs/policies.md has not:\n%s", t->text);
}

/* --- an API with 1% noise ------------------------------------------------------------------ */

/* 200 calls a second, of which `failing` in a thousand fail. */
static void minutes_of_noise(struct world *w, unsigned minutes, unsigned failing)
{
	for (unsigned i = 0; i < minutes * 60 * 200; i++) {
		w->now += 5;
		call(w, chance(w, failing), false);
	}
}

/* The number of calls that pass before the circuit opens; 0 if it does not within a minute. */
static unsigned calls_until_open(const struct policy *policy, unsigned failing)
{
	struct world w;

	begin(&w, policy);
	minutes_of_noise(&w, 2, 10);
	zero_counts(&w);
	for (unsigned i = 0; i < 60 * 200 && !w.open; i++) {
		w.now += 5;
		call(&w, chance(&w, failing), false);
	}
	return w.open ? w.passed : 0;
}

static void put_calls(struct table *t, unsigned calls)
{
	if (calls)
		line(t, " %u |", calls);
	else
		line(t, " never |");
}

START_TEST(an_api_with_noise)
{
	struct policy run = default_policy, rate = default_policy, low = default_policy;
	const struct {
		const char *name;
		const struct policy *policy;
	} rows[] = {
		{"`failure_rate = 0` (only 5 failures in a row)", &run},
		{"the defaults (5 in a row, or 50%)", &default_policy},
		{"`consecutive_failures = 0` (only 50%)", &rate},
		{"`consecutive_failures = 0`, `failure_rate = 20`", &low},
	};
	struct table t = {.len = 0};

	run.failure_rate = 0;
	rate.consecutive_failures = 0;
	low.consecutive_failures = 0;
	low.failure_rate = 20;
	line(&t, "| policy | openings in an hour of 1%% errors | calls until it opens: all fail | "
		 "half fail"
		 " | 30%% fail |\n| --- | --- | --- | --- | --- |\n");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct world w;

		begin(&w, rows[i].policy);
		minutes_of_noise(&w, 60, 10);
		line(&t, "| %s | %u |", rows[i].name, w.openings);
		put_calls(&t, calls_until_open(rows[i].policy, 1000));
		put_calls(&t, calls_until_open(rows[i].policy, 500));
		put_calls(&t, calls_until_open(rows[i].policy, 300));
		line(&t, "\n");
	}
	check_page(&t);
}
END_TEST

/* --- a slow database ------------------------------------------------------------------------ */

/* 50 calls a second, which all succeed. For ten minutes each takes 2 s, then none is slow. */
static void slow_ten_minutes(struct world *w, int64_t *recovered_after)
{
	int64_t end;

	for (unsigned i = 0; i < 60 * 50; i++) {
		w->now += 20;
		call(w, false, false);
	}
	zero_counts(w);
	end = w->now + 10 * MINUTE;
	while (w->now < end) {
		w->now += 20;
		call(w, false, true);
	}
	*recovered_after = -1;
	for (unsigned i = 0; i < 10 * 60 * 50; i++) {
		w->now += 20;
		call(w, false, false);
		if (w->c.state == CIRCUIT_CLOSED && *recovered_after < 0)
			*recovered_after = w->now - end;
	}
}

START_TEST(a_slow_database)
{
	struct policy slow = default_policy, even = default_policy, quick = default_policy;
	const struct {
		const char *name;
		const struct policy *policy;
	} rows[] = {
		{"the defaults", &default_policy},
		{"`slow_time = 500ms`, `slow_rate = 50`", &slow},
		{"... and `open_growth = 1`", &even},
		{"... and `window = 10s`, `open_time = 5s`, `open_time_max = 30s`", &quick},
	};
	struct table t = {.len = 0};

	slow.slow_time_ms = 500;
	slow.slow_rate = 50;
	even = slow;
	even.open_growth_milli = 1000;
	quick = slow;
	quick.window_ms = 10 * SECOND;
	quick.open_time_ms = 5 * SECOND;
	quick.open_time_max_ms = 30 * SECOND;
	line(&t, "| policy | calls that waited 2 s | of them probes | closed again after |\n"
		 "| --- | --- | --- | --- |\n");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t after;
		struct world w;

		begin(&w, rows[i].policy);
		slow_ten_minutes(&w, &after);
		line(&t, "| %s | %u | %u |", rows[i].name, w.slow, w.openings ? w.openings - 1 : 0);
		if (w.openings)
			line(&t, " %" PRId64 " s |\n", after / SECOND);
		else
			line(&t, " it never opened |\n");
	}
	check_page(&t);
}
END_TEST

/* --- a batch of rare calls ------------------------------------------------------------------- */

/* A call every two minutes. All fail for six hours, then all succeed. */
static void rare_calls(struct world *w, int64_t *recovered_after)
{
	int64_t end;

	for (unsigned i = 0; i < 100; i++) {
		w->now += 2 * MINUTE;
		call(w, chance(w, 20), false);
	}
	zero_counts(w);
	end = w->now + 6 * HOUR;
	while (w->now < end) {
		w->now += 2 * MINUTE;
		call(w, true, false);
	}
	*recovered_after = -1;
	for (unsigned i = 0; i < 100; i++) {
		w->now += 2 * MINUTE;
		call(w, false, false);
		if (w->c.state == CIRCUIT_CLOSED && *recovered_after < 0)
			*recovered_after = w->now - end;
	}
}

START_TEST(a_batch_of_rare_calls)
{
	struct policy rate = default_policy, two = default_policy, long_open = default_policy;
	const struct {
		const char *name;
		const struct policy *policy;
	} rows[] = {
		{"`consecutive_failures = 0` (only 50% of 20 calls in 30 s)", &rate},
		{"the defaults", &default_policy},
		{"`consecutive_failures = 2`", &two},
		{"... and `open_time = 10m`, `open_time_max = 30m`", &long_open},
	};
	struct table t = {.len = 0};

	rate.consecutive_failures = 0;
	two.consecutive_failures = 2;
	long_open = two;
	long_open.open_time_ms = 10 * MINUTE;
	long_open.open_time_max_ms = 30 * MINUTE;
	line(&t,
	     "| policy | calls that failed, of 180 | closed again after |\n| --- | --- | --- |\n");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t after;
		struct world w;

		begin(&w, rows[i].policy);
		rare_calls(&w, &after);
		line(&t, "| %s | %u |", rows[i].name, w.failed);
		if (w.openings)
			line(&t, " %" PRId64 " min |\n", after / MINUTE);
		else
			line(&t, " it never opened |\n");
	}
	check_page(&t);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("docs/policies.md");
	TCase *tc = tcase_create("examples");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, an_api_with_noise);
	tcase_add_test(tc, a_slow_database);
	tcase_add_test(tc, a_batch_of_rare_calls);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
