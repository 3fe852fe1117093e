#include "base/metrics.h"
#include "store/count.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct metrics *m;

static void setup(void)
{
	m = calloc(1, sizeof(*m));
	ck_assert_ptr_nonnull(m);
	store_count_init(m);
}

static void teardown(void)
{
	free(m);
}

/* The index of the label's value with this name. */
static unsigned number(const struct metrics_label *label, const char *name)
{
	for (unsigned i = 0; i < label->count; i++)
		if (strcmp(label->name(i), name) == 0)
			return i;
	ck_abort_msg("no %s", name);
	return 0;
}

static uint64_t counted(const char *operation, const char *result)
{
	return m->operations[number(&m->operation_names, operation)]
			    [number(&m->result_names, result)];
}

static void count(unsigned operation, enum store_status status, uint64_t duration_ns)
{
	const struct store_result result = {.status = status};

	store_count(m, operation, &result, duration_ns);
}

START_TEST(operations_and_results_have_the_names_of_the_manual)
{
	static const char *const operations[] = {"get_state",  "record_success", "record_failure",
						 "transition", "reset",          "list"};
	static const char *const results[] = {"ok",      "conflict", "unavailable", "unknown",
					      "timeout", "error",    "full"};

	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		for (size_t k = 0; k < sizeof(results) / sizeof(results[0]); k++)
			ck_assert_uint_eq(counted(operations[i], results[k]), 0);
	for (unsigned i = 0; i < m->operation_names.count; i++)
		ck_assert_uint_eq(number(&m->operation_names, m->operation_names.name(i)), i);
}
END_TEST

START_TEST(every_status_has_its_result)
{
	static const struct {
		enum store_status status;
		const char *result;
	} cases[] = {
		{STORE_OK, "ok"},
		{STORE_CONFLICT, "conflict"},
		{STORE_UNAVAILABLE, "unavailable"},
		{STORE_OVERLOADED, "unavailable"},
		{STORE_UNKNOWN, "unknown"},
		{STORE_TIMEOUT, "timeout"},
		{STORE_ERROR, "error"},
		{STORE_FULL, "full"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(m->operations, 0, sizeof(m->operations));
		count(CIRCUIT_RESET, cases[i].status, 70000);
		ck_assert_msg(counted("reset", cases[i].result) == 1, "%s", cases[i].result);
	}
}
END_TEST

/* A cursor of another store is the client's mistake: it does not count as an operation. */
START_TEST(a_bad_cursor_is_not_counted)
{
	count(STORE_OPERATION_LIST, STORE_BAD_CURSOR, 0);
	for (unsigned r = 0; r < METRICS_RESULTS; r++)
		ck_assert_uint_eq(m->operations[STORE_OPERATION_LIST][r], 0);
	ck_assert_uint_eq(m->operation_seconds[STORE_OPERATION_LIST].buckets[0], 0);
	count(STORE_OPERATION_LIST, STORE_OK, 0);
	ck_assert_uint_eq(m->operation_seconds[STORE_OPERATION_LIST].buckets[0], 1);
}
END_TEST

START_TEST(what_max_in_flight_refuses_has_a_counter)
{
	const struct store_result waited = {.status = STORE_OVERLOADED, .timed_out = true};

	count(CIRCUIT_RESET, STORE_UNAVAILABLE, 0);
	store_count(m, STORE_OPERATION_LIST, &waited, 0);
	ck_assert_uint_eq(m->overloaded, 0);
	count(CIRCUIT_RESET, STORE_OVERLOADED, 0);
	ck_assert_uint_eq(m->overloaded, 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("count");
	TCase *tc = tcase_create("count");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, operations_and_results_have_the_names_of_the_manual);
	tcase_add_test(tc, every_status_has_its_result);
	tcase_add_test(tc, a_bad_cursor_is_not_counted);
	tcase_add_test(tc, what_max_in_flight_refuses_has_a_counter);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
