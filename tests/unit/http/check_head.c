#include "http/head.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define NONE  HTTP_LINE_NONE
#define BEGUN HTTP_LINE_BEGUN
#define SOUND HTTP_LINE_SOUND
#define WRONG HTTP_LINE_WRONG

/* The first bytes of a connection. */
static const struct {
	const char *bytes;
	enum http_line_state state;
	const char *method; /* NULL: no known method */
	int status;         /* of a refusal */
} lines[] = {
	{"", NONE, NULL, 0},
	{"\r", NONE, NULL, 0},
	{"\r\n", NONE, NULL, 0},
	{"\r\n\r", WRONG, NULL, 0},
	{"\r\n\r\nGET /a HTTP/1.1\r\n", WRONG, NULL, 0},
	{"\n", WRONG, NULL, 0},
	{"\rG", WRONG, NULL, 0},
	{"\r\nG", BEGUN, NULL, 0},
	{"GET", BEGUN, NULL, 0},
	{"GET ", BEGUN, "GET", 0},
	{"GET /a HTTP/1.1", BEGUN, "GET", 0},
	{"GET /a HTTP/1.1\r", BEGUN, "GET", 0},
	{"GET /a HTTP/1.1\r\n", SOUND, "GET", 0},
	{"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n", SOUND, "GET", 0},
	{"X-Y!z * HTTP/1.0\r\n", SOUND, "X-Y!z", 0},
	{"GET /a HTTP/1.9\r\n", SOUND, "GET", 0},
	{"GET /a HTTP/1.1\n", WRONG, "GET", 0},
	{"GET /a HTTP/1.1 \r\n", WRONG, "GET", 0},
	{"GET /a HTTP/1.1x\r\n", WRONG, "GET", 0},
	{"GET /a http/1.1\r\n", WRONG, "GET", 0},
	{"GET /a HTTP/01.1\r\n", WRONG, "GET", 0},
	{"GET /a HTTP/2.0\r\n", WRONG, "GET", 505},
	{"PRI * HTTP/2.0\r\n", WRONG, "PRI", 505},
	{"GET /a HTTP/0.9\r\n", WRONG, "GET", 505},
	{"GET /a\r\n", WRONG, "GET", 0},
	{"GET \r\n", WRONG, "GET", 0},
	{"GET\r\n", WRONG, NULL, 0},
	{"GET HTTP/1.1\r\n", WRONG, "GET", 0},
	{"GET  HTTP/1.1\r\n", WRONG, "GET", 0},
	{"GET  /a HTTP/1.1\r\n", WRONG, "GET", 0},
	{"GET /a  HTTP/1.1\r\n", WRONG, "GET", 0},
	{"GET /a b HTTP/1.1\r\n", WRONG, "GET", 0},
	{"GET /a\tb HTTP/1.1\r\n", WRONG, "GET", 0},
	{"GET /a\x7f HTTP/1.1\r\n", WRONG, "GET", 0},
	{" / HTTP/1.1\r\n", WRONG, NULL, 0},
	{"G(T / HTTP/1.1\r\n", WRONG, NULL, 0},
	{"G\tT / HTTP/1.1\r\n", WRONG, NULL, 0},
	{"\x16\x03\x01", WRONG, NULL, 0},
	{"\xff", WRONG, NULL, 0},
};
#define LINES ((int)(sizeof(lines) / sizeof(lines[0])))

/* Checks a copy that ends where the bytes end, so that a sanitizer sees reads beyond it. */
START_TEST(first_line)
{
	size_t len = strlen(lines[_i].bytes), method_len = 0;
	char *bytes = malloc(len + !len);
	struct http_refusal no;
	const char *method;

	memcpy(bytes, lines[_i].bytes, len);
	ck_assert_msg(http_head_check_line(bytes, len, &method, &method_len, &no) ==
			      lines[_i].state,
		      "%s", lines[_i].bytes);
	ck_assert_int_eq(!!method, !!lines[_i].method);
	if (method)
		ck_assert_int_eq(strncmp(method, lines[_i].method, method_len), 0);
	if (method)
		ck_assert_uint_eq(method_len, strlen(lines[_i].method));
	if (lines[_i].state == WRONG) {
		ck_assert_ptr_nonnull(no.why);
		ck_assert_int_eq(no.status, lines[_i].status);
	}
	free(bytes);
}
END_TEST

START_TEST(nul_in_the_first_line)
{
	static const char method[] = "GE\0T / HTTP/1.1\r\n", target[] = "GET /\0 HTTP/1.1\r\n";
	struct http_refusal no;
	const char *at;
	size_t len;

	ck_assert_int_eq(http_head_check_line(method, sizeof(method) - 1, &at, &len, &no), WRONG);
	ck_assert_int_eq(http_head_check_line(target, sizeof(target) - 1, &at, &len, &no), WRONG);
	ck_assert_int_eq(no.problem, PROBLEM_INVALID_KEY);
}
END_TEST

/* Each byte at each place, in targets of each length up to three machine words of 8 bytes. */
START_TEST(bytes_of_a_target)
{
	char target[24];

	for (size_t len = 1; len <= sizeof(target); len++) {
		for (size_t at = 0; at < len; at++) {
			for (unsigned byte = 0; byte < 256; byte++) {
				memset(target, at % 2 ? '!' : 0xFF, sizeof(target));
				target[at] = (char)byte;
				ck_assert_int_eq(http_head_target_is_broken(target, len),
						 byte <= ' ' || byte == 0x7F);
			}
		}
	}
}
END_TEST

/* However little of a sound line has come, it is neither refused nor taken for complete. */
START_TEST(first_line_in_pieces)
{
	static const char line[] = "\r\nOPTIONS /v1/circuits/a?b=c HTTP/1.1\r\n";
	struct http_refusal no;
	const char *method;
	size_t method_len;

	for (size_t len = 0; len < sizeof(line) - 1; len++)
		ck_assert_int_eq(http_head_check_line(line, len, &method, &method_len, &no),
				 len < 3 ? NONE : BEGUN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("head");
	TCase *tc = tcase_create("first line");

	tcase_add_loop_test(tc, first_line, 0, LINES);
	tcase_add_test(tc, nul_in_the_first_line);
	tcase_add_test(tc, bytes_of_a_target);
	tcase_add_test(tc, first_line_in_pieces);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
