/*
 * proto/circuit.c
 */
#include "cases.h"
#include "proto/circuit.h"
#include "proto/circuit_json.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(state_names_read_back)
{
	static const char *const not_names[] = {"",       "Closed", "half_open",
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
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_ACQUIRE), "acquire");
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_REPORT), "report");
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_OVERRIDE), "override");
	ck_assert_str_eq(circuit_verb_name(CIRCUIT_END_OVERRIDE), "end_override");
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

static struct cases cases;

/* Does what a store does: decodes the stored value, applies the operation, encodes the result. */
START_TEST(table)
{
	static const enum case_found founds[] = {
		[CIRCUIT_STORED_SOUND] = CASE_SOUND,
		[CIRCUIT_STORED_REPAIRED] = CASE_REPAIRED,
		[CIRCUIT_STORED_NONE] = CASE_NONE,
	};
	const struct circuit_case *row = &cases.rows[_i];
	struct circuit expected = cases_expected(row, row->now_ms);
	struct circuit c = {-1, -1, -1, -1, CIRCUIT_OPEN}, again;
	enum case_found found = CASE_ABSENT;
	char json[CIRCUIT_JSON_MAX], json_again[CIRCUIT_JSON_MAX];
	size_t len;

	if (row->before)
		found = founds[circuit_json_decode_stored(row->before, row->before_len, &c)];
	ck_assert_msg(found == row->found, "line %d, %s: found %d", row->line, row->name, found);
	ck_assert_msg(circuit_apply(&c, found == CASE_SOUND || found == CASE_REPAIRED, &row->op,
				    row->now_ms) == row->effect,
		      "line %d, %s: another effect", row->line, row->name);
	if (row->effect == CIRCUIT_REMOVED)
		return;
	len = circuit_json_encode(json, &c);
	ck_assert_msg(c.state == expected.state && c.failure_count == expected.failure_count &&
			      c.success_count == expected.success_count &&
			      c.last_failure_time == expected.last_failure_time &&
			      c.last_state_change == expected.last_state_change,
		      "line %d, %s: got %s", row->line, row->name, json);
	ck_assert_int_eq(circuit_json_decode_stored(json, len, &again), CIRCUIT_STORED_SOUND);
	circuit_json_encode(json_again, &again);
	ck_assert_str_eq(json, json_again);
	/* The table's text begins with the five members; only members we do not know follow. */
	if (row->after == CASE_AFTER_TEXT) {
		size_t after_len;
		char *after = cases_after(row, row->now_ms, &after_len);

		ck_assert_msg(after_len >= len && memcmp(after, json, len - 1) == 0,
			      "line %d, %s: writes %s", row->line, row->name, json);
		free(after);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("circuit");
	TCase *t = tcase_create("circuit");
	int status;

	cases_load(&cases);
	tcase_add_loop_test(t, table, 0, cases.count);
	tcase_add_test(t, state_names_read_back);
	tcase_add_test(t, state_names_are_as_long_as_said);
	tcase_add_test(t, verbs_have_the_names_of_the_metrics);
	tcase_add_test(t, reset_leaves_an_absent_circuit);
	suite_add_tcase(s, t);
	status = suite_run(s);
	cases_free(&cases);
	return status;
}
