/*
 * proto/problem.c
 */
#include "proto/problem.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEMS (PROBLEM_STORE_TIMEOUT + 1)

static void encodes_to(enum problem p, const char *detail, enum problem_applied applied,
		       const struct circuit *circuit, const char *expected)
{
	size_t len = 0;
	char *line = problem_encode(p, detail, applied, circuit, &len);

	ck_assert_ptr_nonnull(line);
	ck_assert_str_eq(line, expected);
	ck_assert_uint_eq(len, strlen(line));
	free(line);
}

START_TEST(members_stand_in_order)
{
	const struct circuit c = {1, 2, 3, 9007199254740991, CIRCUIT_HALF_OPEN};

	encodes_to(PROBLEM_NOT_FOUND, "No route /x.", PROBLEM_APPLIED_NONE, NULL,
		   "{\"type\":\"urn:breakerd:problem:not_found\",\"title\":\"No such route\","
		   "\"status\":404,\"detail\":\"No route /x.\",\"code\":\"not_found\"}\n");
	encodes_to(PROBLEM_STORE_UNAVAILABLE, "", PROBLEM_APPLIED_NO, NULL,
		   "{\"type\":\"urn:breakerd:problem:store_unavailable\","
		   "\"title\":\"The store is away\",\"status\":503,\"detail\":\"\","
		   "\"code\":\"store_unavailable\",\"applied\":\"no\"}\n");
	encodes_to(PROBLEM_STORE_TIMEOUT, "Late.", PROBLEM_APPLIED_UNKNOWN, NULL,
		   "{\"type\":\"urn:breakerd:problem:store_timeout\","
		   "\"title\":\"The store did not answer in time\",\"status\":504,"
		   "\"detail\":\"Late.\",\"code\":\"store_timeout\",\"applied\":\"unknown\"}\n");
	encodes_to(PROBLEM_STATE_CONFLICT, "It is half-open.", PROBLEM_APPLIED_NO, &c,
		   "{\"type\":\"urn:breakerd:problem:state_conflict\","
		   "\"title\":\"Circuit is in another state\",\"status\":409,"
		   "\"detail\":\"It is half-open.\",\"code\":\"state_conflict\","
		   "\"applied\":\"no\",\"circuit\":{\"state\":\"half-open\",\"failureCount\":1,"
		   "\"successCount\":2,\"lastFailureTime\":3,"
		   "\"lastStateChange\":9007199254740991}}\n");
}
END_TEST

START_TEST(detail_is_made_safe)
{
	encodes_to(PROBLEM_STORE_ERROR, "WRONG\xFF \"q\" \\ a\nb\x1B \xD0\xBA",
		   PROBLEM_APPLIED_NONE, NULL,
		   "{\"type\":\"urn:breakerd:problem:store_error\","
		   "\"title\":\"The store answered with an error\",\"status\":502,"
		   "\"detail\":\"WRONG\xEF\xBF\xBD \\\"q\\\" \\\\ a b\xEF\xBF\xBD \xD0\xBA\","
		   "\"code\":\"store_error\"}\n");
}
END_TEST

START_TEST(detail_may_be_long)
{
	char *detail = malloc(100001), *line;
	size_t len = 0;

	ck_assert_ptr_nonnull(detail);
	memset(detail, 0xFF, 100000);
	detail[100000] = '\0';
	line = problem_encode(PROBLEM_STORE_ERROR, detail, PROBLEM_APPLIED_NO, NULL, &len);
	ck_assert_ptr_nonnull(line);
	ck_assert_uint_gt(len, 300000);
	ck_assert_uint_eq(len, strlen(line));
	free(line);
	free(detail);
}
END_TEST

START_TEST(every_problem_is_whole)
{
	char type[64];
	size_t len;
	char *line = problem_encode(_i, "d", PROBLEM_APPLIED_NONE, NULL, &len);

	snprintf(type, sizeof(type), "\"type\":\"urn:breakerd:problem:%s\"", problem_code(_i));
	ck_assert_ptr_nonnull(line);
	ck_assert_ptr_nonnull(strstr(line, type));
	ck_assert_int_ge(problem_status(_i), 400);
	ck_assert_int_le(problem_status(_i), 504);
	ck_assert_uint_gt(strlen(problem_title(_i)), 0);
	for (int other = 0; other < _i; other++)
		ck_assert_str_ne(problem_code(other), problem_code(_i));
	free(line);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("problem");
	TCase *t = tcase_create("problem");

	tcase_add_test(t, members_stand_in_order);
	tcase_add_test(t, detail_is_made_safe);
	tcase_add_test(t, detail_may_be_long);
	tcase_add_loop_test(t, every_problem_is_whole, 0, PROBLEMS);
	suite_add_tcase(s, t);
	return suite_run(s);
}
