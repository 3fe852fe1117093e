/*
 * Bodies of reports: the fast scanner and jansson must read the same. The contract's cases are in
 * tests/e2e/test_decisions.py.
 */
#include "proto/report_body.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static struct policy policy = {.slow_time_ms = 100};
static char permit_text[BREAKER_PERMIT_MAX];

static void setup(void)
{
	const struct breaker_permit permit = {.kind = BREAKER_PERMIT_CLOSED,
					      .since_ms = 1700000000000};

	/* 500 to 599, and 404. */
	for (unsigned status = 500; status < 600; status++)
		policy.failure_status.bits[(status - 100) / 64] |= UINT64_C(1)
								   << (status - 100) % 64;
	policy.ignore_status.bits[(404 - 100) / 64] |= UINT64_C(1) << (404 - 100) % 64;
	breaker_permit_encode(permit_text, &permit, "k", 1);
}

static enum report_body_status read_body(const char *body, struct breaker_call *call)
{
	char why[512] = "";
	enum report_body_status status =
		report_body_read(body, strlen(body), &policy, "k", 1, call, why, sizeof(why));

	ck_assert_msg((status == REPORT_BODY_OK) == (why[0] == '\0'), "%s: \"%s\"", body, why);
	return status;
}

/* Reads the body as it is, which the scanner can do, and with an escape, which only jansson can. */
static void check_both(const char *plain, enum report_body_status want,
		       enum breaker_outcome outcome, bool slow)
{
	const char *brace = strchr(plain, '"');
	char escaped[512];

	/* Writes the first letter of the first name as an escape. */
	snprintf(escaped, sizeof(escaped), "%.*s\"\\u%04x%s", (int)(brace - plain), plain, brace[1],
		 brace + 2);
	for (int i = 0; i < 2; i++) {
		const char *body = i ? escaped : plain;
		struct breaker_call call = {.outcome = BREAKER_IGNORED, .slow = !slow};

		ck_assert_msg(read_body(body, &call) == want, "%s", body);
		if (want != REPORT_BODY_OK)
			continue;
		ck_assert_msg(call.outcome == outcome, "%s", body);
		ck_assert_msg(call.slow == slow, "%s", body);
		ck_assert_msg((call.permit.kind == BREAKER_PERMIT_CLOSED) ==
				      (strstr(plain, "permit") != NULL),
			      "%s", body);
	}
}

START_TEST(both_ways_of_reading_agree)
{
	char body[256];

	check_both("{\"outcome\":\"failure\"}", REPORT_BODY_OK, BREAKER_FAILURE, false);
	check_both("{\"outcome\":\"ignored\",\"durationMs\":100}", REPORT_BODY_OK, BREAKER_IGNORED,
		   true);
	check_both("{\"status\":200,\"durationMs\":99.999}", REPORT_BODY_OK, BREAKER_SUCCESS,
		   false);
	check_both("{\"status\":404}", REPORT_BODY_OK, BREAKER_IGNORED, false);
	check_both("{\"status\":0}", REPORT_BODY_OK, BREAKER_FAILURE, false);
	check_both("{\"durationMs\":999999999.999,\"status\":599}", REPORT_BODY_OK, BREAKER_FAILURE,
		   true);
	check_both("{\"status\":600}", REPORT_BODY_OUTCOME, 0, false);
	check_both("{\"outcome\":\"fail\"}", REPORT_BODY_OUTCOME, 0, false);
	check_both("{\"status\":200,\"status\":200}", REPORT_BODY_INVALID, 0, false);
	check_both("{\"status\":200,\"outcome\":\"success\"}", REPORT_BODY_INVALID, 0, false);
	check_both("{\"durationMs\":1}", REPORT_BODY_INVALID, 0, false);
	check_both("{\"status\":200,\"durationMs\":-1}", REPORT_BODY_INVALID, 0, false);
	check_both("{\"outcome\":\"success\",\"permit\":\"c0\"}", REPORT_BODY_PERMIT, 0, false);
	snprintf(body, sizeof(body), "{\"permit\":\"%s\",\"outcome\":\"success\"}", permit_text);
	check_both(body, REPORT_BODY_OK, BREAKER_SUCCESS, false);
	snprintf(body, sizeof(body), "{\"status\": 503 , \"permit\" : \"%s\"}\n", permit_text);
	check_both(body, REPORT_BODY_OK, BREAKER_FAILURE, false);
}
END_TEST

START_TEST(a_permit_with_escapes_is_read)
{
	struct breaker_call call = {0};
	char body[256];

	snprintf(body, sizeof(body), "{\"permit\":\"\\u0063%s\",\"outcome\":\"success\"}",
		 permit_text + 1);
	ck_assert_int_eq(read_body(body, &call), REPORT_BODY_OK);
	ck_assert_int_eq(call.permit.since_ms, 1700000000000);
}
END_TEST

START_TEST(a_refused_body_changes_nothing)
{
	struct breaker_call call = {.outcome = BREAKER_IGNORED, .slow = true}, before = call;

	read_body("{\"status\":99}", &call);
	read_body("{\"status\":200,\"permit\":\"x\"}", &call);
	read_body("[]", &call);
	ck_assert_mem_eq(&call, &before, sizeof(call));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("report_body");
	TCase *tc = tcase_create("report_body");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, both_ways_of_reading_agree);
	tcase_add_test(tc, a_permit_with_escapes_is_read);
	tcase_add_test(tc, a_refused_body_changes_nothing);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
