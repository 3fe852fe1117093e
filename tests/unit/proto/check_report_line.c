#include "proto/report_line.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#define NONE REPORT_LINE_NO_STATUS

static const struct {
	const char *line;
	const char *key;
	int status;
	const char *permit;
	double ms;
} good[] = {
	{"circuit=orders status=200", "orders", 200, "", -1},
	{"status=503 circuit=orders\n", "orders", 503, "", -1},
	{"<190>Nov 26 10:00:00 nginx: circuit=a%2Fb%20c permit=c0.1-_x status=502 time=0.250",
	 "a/b c", 502, "c0.1-_x", 250},
	{"circuit=o permit=- status=- time=-", "o", NONE, "", -1},
	{"circuit=o permit= status=0 time=", "o", 0, "", -1},
	{"circuit=\"o\" permit=\"p\" status=\"200\" time=\"1.5\"", "o", 200, "p", 1500},
	{"circuit=o status=502, 200 time=0.001, 0.002", "o", 200, "", 2},
	{"circuit=o status=502 : 200 time=0.001 : 0.002 x", "o", 200, "", 2},
	{"circuit=o status=502, 504 : 200, - permit=p", "o", NONE, "p", -1},
	{"circuit=o status=\"502, 200\" time=\"0.1, 0.2 : 3\"", "o", 200, "", 3000},
	{"circuit=o status=502,200", "o", 200, "", -1},
	{"circuit=o status=-1 time=5ms", "o", NONE, "", 5},
	{"circuit=o status=-1 time=-1", "o", NONE, "", -1},
	{"circuit=o status=-1 time=-1ms permit=p", "o", NONE, "p", -1},
	{"{\"circuit\":\"o\",\"status\":-1,\"time\":-1}", "o", NONE, "", -1},
	{"circuit=o status=200 time=5s", "o", 200, "", 5000},
	{"GET /?circuit=x&status=1 \"circuit=y\" ustatus=3 circuit=o status=200", "o", 200, "", -1},
	{"{\"circuit\":\"o\",\"status\":502,\"time\":0.25,\"permit\":\"p\"}", "o", 502, "p", 250},
	{" {\"level\":\"info\",\"status\":\"502, "
	 "200\",\"circuit\":\"a%2fb\",\"permit\":\"\",\"x\":[{}]}\n",
	 "a/b", 200, "", -1},
	{"{\"circuit\":\"o\",\"status\":0,\"permit\":null,\"time\":\"7ms\"}", "o", 0, "", 7},
	{"{\"circuit\":\"o\",\"status\":\"-\"}", "o", NONE, "", -1},
	{"{\"circuit\":\"o\",\"status\":-1}", "o", NONE, "", -1},
	{"{\"circuit\":\"o\",\"status\":\"-1\"}", "o", NONE, "", -1},
};

START_TEST(test_good)
{
	struct report_line out;
	const char *wrong = report_line_read(good[_i].line, strlen(good[_i].line), &out);

	ck_assert_msg(!wrong, "%s: %s", good[_i].line, wrong);
	ck_assert_uint_eq(out.key_len, strlen(good[_i].key));
	ck_assert_mem_eq(out.key, good[_i].key, out.key_len);
	ck_assert_int_eq(out.status, good[_i].status);
	ck_assert_uint_eq(out.permit_len, strlen(good[_i].permit));
	ck_assert_mem_eq(out.permit, good[_i].permit, out.permit_len);
	ck_assert_double_eq_tol(out.time_ms, good[_i].ms, 1e-6);
}
END_TEST

static const char *const bad[] = {
	"",
	" ",
	"circuit=o",
	"status=200",
	"circuit= status=200",
	"circuit=- status=200",
	"circuit=%zz status=200",
	"circuit=%00 status=200",
	"circuit=o status=",
	"circuit=o status=99",
	"circuit=o status=600",
	"circuit=o status=0200",
	"circuit=o status=2e2",
	"circuit=o status=200, nothing 300",
	"circuit=o status=-2",
	"circuit=o status=200 time=x",
	"circuit=o status=200 time=-2",
	"circuit=o status=200 time=1m",
	"circuit=o status=200 time=1.",
	"circuit=o status=200 time=9999999999999",
	"circuit=o status=\"200",
	"circuit=\"o\"x status=200",
	/* What an end user can put into a log line. */
	"circuit=o status=200 ua=x circuit=o",
	"circuit=o status=200 ua=\"x circuit=p\"",
	"circuit=o status=200 ua=x status=500",
	"circuit=o status=200 permit=a ua=\t permit=b",
	"circuit=o status=200 time=1 x\x01time=2",
	"ua=\" status=500 \" circuit=o status=200",
	"ua=x: {\"circuit\":\"p\",\"status\":500}",
	"{\"circuit\":\"o\",\"status\":200,\"status\":500}",
	"{\"circuit\":\"o\",\"status\":200} circuit=p status=500",
	"{\"circuit\":\"o\"}",
	"{\"status\":200}",
	"{\"circuit\":1,\"status\":200}",
	"{\"circuit\":\"o\",\"status\":true}",
	"{\"circuit\":\"o\",\"status\":200.5}",
	"{\"circuit\":\"o\",\"status\":1e99}",
	"{\"circuit\":\"o\",\"status\":200,\"time\":-2}",
	"{\"circuit\":\"o\",\"status\":200,\"permit\":7}",
	"{\"x\":{\"circuit\":\"o\",\"status\":200}}",
	"[{\"circuit\":\"o\",\"status\":200}]",
};

START_TEST(test_bad)
{
	struct report_line out;

	ck_assert_msg(report_line_read(bad[_i], strlen(bad[_i]), &out) != NULL, "%s", bad[_i]);
}
END_TEST

START_TEST(test_long_values)
{
	char line[3000], permit[66];
	struct report_line out;

	memset(permit, 'p', 65);
	permit[65] = '\0';
	snprintf(line, sizeof(line), "circuit=o status=200 permit=%s", permit);
	ck_assert_ptr_nonnull(report_line_read(line, strlen(line), &out));
	ck_assert_ptr_null(report_line_read(line, strlen(line) - 1, &out));
	ck_assert_uint_eq(out.permit_len, 64);
	memset(line, 'k', sizeof(line));
	memcpy(line, "status=200 circuit=", 19);
	ck_assert_ptr_null(report_line_read(line, 19 + KEY_MAX, &out));
	ck_assert_uint_eq(out.key_len, KEY_MAX);
	ck_assert_ptr_nonnull(report_line_read(line, 19 + KEY_MAX + 1, &out));
}
END_TEST

START_TEST(test_judge)
{
	struct policy policy = {.slow_time_ms = 100};
	struct breaker_call call = {.policy = &policy};
	struct report_line line = {.key = "o", .key_len = 1, .status = 503, .time_ms = -1};

	policy.failure_status.bits[(503 - 100) / 64] |= UINT64_C(1) << ((503 - 100) % 64);
	policy.ignore_status.bits[(404 - 100) / 64] |= UINT64_C(1) << ((404 - 100) % 64);
	ck_assert_ptr_null(report_line_fill(&line, &call));
	ck_assert_int_eq(call.outcome, BREAKER_FAILURE);
	ck_assert(!call.slow);
	line.status = 0;
	line.time_ms = 100;
	ck_assert_ptr_null(report_line_fill(&line, &call));
	ck_assert_int_eq(call.outcome, BREAKER_FAILURE);
	ck_assert(call.slow);
	line.status = 200;
	ck_assert_ptr_null(report_line_fill(&line, &call));
	ck_assert_int_eq(call.outcome, BREAKER_SUCCESS);
	line.status = 404;
	ck_assert_ptr_null(report_line_fill(&line, &call));
	ck_assert_int_eq(call.outcome, BREAKER_IGNORED);
	line.status = NONE;
	ck_assert_ptr_null(report_line_fill(&line, &call));
	ck_assert_int_eq(call.outcome, BREAKER_IGNORED);
	memcpy(line.permit, "forged", 6);
	line.permit_len = 6;
	ck_assert_ptr_nonnull(report_line_fill(&line, &call));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("report_line");
	TCase *t = tcase_create("report_line");

	tcase_add_loop_test(t, test_good, 0, sizeof(good) / sizeof(*good));
	tcase_add_loop_test(t, test_bad, 0, sizeof(bad) / sizeof(*bad));
	tcase_add_test(t, test_long_values);
	tcase_add_test(t, test_judge);
	suite_add_tcase(s, t);
	return suite_run(s);
}
