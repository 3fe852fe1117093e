/*
 * proto/circuit.c
 */
#include "cases.h"
#include "circuit.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(state_names_read_back)
{
	static const char *const not_names[] = {"",	  "Closed", "half_open",
						"opened", "ope",    "half-"};

	for (int i = 0; i < CIRCUIT_STATES; i++) {
		const char *name = circuit_state_name(i);
		enum circuit_state state = (i + 1) % CIRCUIT_STATES;

		ck_assert(circuit_state_parse(name, strlen(name), &state));
		ck_assert_int_eq(state, i);
	}
	for (size_t i = 0; i < sizeof(not_names) / sizeof(*not_names); i++) {
		enum circuit_state state = CIRCUIT_HALF_OPEN;

		ck_assert(!circuit_state_parse(not_names[i], strlen(not_names[i]), &state));
		ck_assert_int_eq(state, CIRCUIT_HALF_OPEN);
	}
}
END_TEST

START_TEST(state_names_are_as_long_as_said)
{
	enum circuit_state state = CIRCUIT_CLOSED;

	ck_assert(circuit_state_parse("opened", 4, &state));
	ck_assert_int_eq(state, CIRCUIT_OPEN);
	ck_assert(!circuit_state_parse("open\0", 5, &state));
}
END_TEST

START_TEST(verbs_have_the_names_of_the_metrics)
{
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_GET_STATE), "get_state");
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_RECORD_SUCCESS), "record_success");
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_RECORD_FAILURE), "record_failure");
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_TRANSITION), "transition");
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_RESET), "reset");
	for (int i = 0; i < CIRCUIT_VERBS; i++)
		ck_assert_int_eq(circuit_verb_writes(i), i != CIRCUIT_GET_STATE);
}
END_TEST

START_TEST(reset_leaves_an_absent_circuit)
{
	struct circuit c = {7, 8, 9, 10, CIRCUIT_OPEN};
	struct circuit_op op = {.verb = CIRCUIT_RESET};

	ck_assert_int_eq(circuit_apply(&c, true, &op, 11), CIRCUIT_REMOVED);
	ck_assert_int_eq(c.state, CIRCUIT_CLOSED);
	ck_assert_int_eq(c.failure_count, 0);
	ck_assert_int_eq(c.success_count, 0);
	ck_assert_int_eq(c.last_failure_time, 0);
	ck_assert_int_eq(c.last_state_change, 11);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("circuit");
	TCase *t = tcase_create("circuit");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(t, state_names_read_back);
	tcase_add_test(t, state_names_are_as_long_as_said);
	tcase_add_test(t, verbs_have_the_names_of_the_metrics);
	tcase_add_test(t, reset_leaves_an_absent_circuit);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
