#include "base/log.h"
#include "base/log_json.h"
#include "proto/key.h"
#include "suite.h"

#include <check.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIME "2026-01-02T03:04:05.678Z"

static char line[LOG_JSON_MAX + 1];

/* Writes a line and checks what holds for every line. Returns the parsed object. */
static json_t *object(const char *words)
{
	size_t len = log_json(line, TIME, "info", words);
	json_t *root;
	json_error_t error;

	ck_assert_uint_eq(strlen(line), len);
	ck_assert_uint_le(len, LOG_JSON_MAX);
	ck_assert(utf8_valid(line, len));
	ck_assert_uint_eq(strcspn(line, "\n\r\t\x1b\x7f"), len);
	root = json_loads(line, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	ck_assert_msg(root != NULL, "%s: %s", error.text, line);
	ck_assert(json_is_object(root));
	return root;
}

#define HEAD "{\"time\":\"" TIME "\",\"level\":\"info\",\"event\":\"e\""

static const struct {
	const char *words, *behind;
} cases[] = {
	{"e", "}"},
	{"e ", "}"},
	{"e addr=127.0.0.1:8747", ",\"addr\":\"127.0.0.1:8747\"}"},
	{"e a=1 b=-2 c=0 d=1.25", ",\"a\":1,\"b\":-2,\"c\":0,\"d\":1.25}"},
	{"e a=01 b=1. c=.5 d=- e=1e3 f=0x10", ",\"a\":\"01\",\"b\":\"1.\",\"c\":\".5\",\"d\":\"-\","
					      "\"e\":\"1e3\",\"f\":\"0x10\"}"},
	/* A quoted value is a string, also if it looks like a number. */
	{"e key=\"1\"", ",\"key\":\"1\"}"},
	{"e key=\"a b=c\" to=open", ",\"key\":\"a b=c\",\"to\":\"open\"}"},
	{"e key=\"\"", ",\"key\":\"\"}"},
	{"e key=", ",\"key\":\"\"}"},
	{"e key=\"say \\\"hi\\\" \\\\\" to=open",
	 ",\"key\":\"say \\\"hi\\\" \\\\\",\"to\":\"open\"}"},
	{"e key=\"a\\x0ab\\x00c\\x7f\"", ",\"key\":\"a\\u000ab\\u0000c\\u007f\"}"},
	/* An escaped backslash before x0a is no newline. */
	{"e key=\"a\\\\x0ab\"", ",\"key\":\"a\\\\x0ab\"}"},
	{"e key=\"\xc3\xa9\"", ",\"key\":\"\xc3\xa9\"}"},
	/* A C1 control character as log_quote escapes it; bytes that are not UTF-8. */
	{"e key=\"\\xc2\\x9b\"", ",\"key\":\"\\u009b\"}"},
	{"e key=\"\\xff-\\xc3\"", ",\"key\":\"\xef\xbf\xbd-\xef\xbf\xbd\"}"},
	{"e key=\xff", ",\"key\":\"\xef\xbf\xbd\"}"},
	/* Some readers take U+2028 and U+2029 for ends of lines. */
	{"e key=\"\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xa7\"",
	 ",\"key\":\"\\u2028\\u2029\xe2\x80\xa7\"}"},
	/* Cut by log_quote, and cut at the end of the line. */
	{"e key=\"abc\"... to=open", ",\"key\":\"abc...\",\"to\":\"open\"}"},
	{"e key=\"abc...", ",\"key\":\"abc...\"}"},
	{"e key=\"abc\\x0", ",\"key\":\"abcx0\"}"},
	{"e key=\"abc\\", ",\"key\":\"abc\\\\\"}"},
	/* An unquoted value with a blank in it. */
	{"e file=/a b/c mode=1", ",\"file\":\"/a b/c\",\"mode\":1}"},
	{"e just words a=1", ",\"text\":\"just words\",\"a\":1}"},
	{"e time=1 level=2 event=3", ",\"time_\":1,\"level_\":2,\"event_\":3}"},
	/* A number of more digits than a double holds stays a string. */
	{"e n=12345678901234567890", ",\"n\":\"12345678901234567890\"}"},
	{"e n=9007199254740991", ",\"n\":9007199254740991}"},
};

START_TEST(pairs_become_members)
{
	json_decref(object(cases[_i].words));
	ck_assert_int_eq(strncmp(line, HEAD, strlen(HEAD)), 0);
	ck_assert_str_eq(line + strlen(HEAD), cases[_i].behind);
}
END_TEST

/* Values of growing length: each part of the object is once the first that does not fit. */
START_TEST(what_does_not_fit_is_cut_and_says_so)
{
	static const char *const units[] = {"x", "\"", "\xff", "\xf0\x9f\x98\x80", "\\"};
	char words[2 * LOG_JSON_MAX];
	bool cut_seen = false, whole_seen = false;

	for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
		for (size_t n = LOG_JSON_MAX / 7; n < LOG_JSON_MAX; n++) {
			size_t len = (size_t)sprintf(words, "e k=");
			json_t *root;

			if (len + n * strlen(units[u]) + 20 > sizeof(words))
				break;
			for (size_t i = 0; i < n; i++, len += strlen(units[u]))
				memcpy(words + len, units[u], strlen(units[u]));
			sprintf(words + len, " b=2 c=\"3\"");
			root = object(words);
			if (json_is_true(json_object_get(root, "cut"))) {
				cut_seen = true;
			} else {
				whole_seen = true;
				ck_assert_str_eq(json_string_value(json_object_get(root, "c")),
						 "3");
			}
			json_decref(root);
		}
	}
	ck_assert(cut_seen);
	ck_assert(whole_seen);
}
END_TEST

/* Through the log itself: a reader of the JSON gets the key that the client sent. */
static char written[LOG_JSON_MAX + 8];

static void keep(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	(void)level;
	snprintf(written, sizeof(written), "%s", text);
}

static const struct {
	const char *key, *read;
} keys[] = {
	{"a\"b\\c", "a\"b\\c"},
	{"a\nb", "a\nb"},
	{"\",\"level\":\"error", "\",\"level\":\"error"},
	{"a event=forged", "a event=forged"},
	{"\\x41 \\u0041", "\\x41 \\u0041"},
	{"\xc3", "\xef\xbf\xbd"},
	{"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
	{"\xc2\x85", "\xc2\x85"},
	{"\x1b[2J", "\x1b[2J"},
	{"\xe2\x80\xa8", "\xe2\x80\xa8"},
};

START_TEST(a_hostile_key_is_one_string)
{
	struct log log = {.level = LOG_LEVEL_INFO, .json = true, .sink = keep};
	json_t *root;

	log_info(&log, "state_change", "key=%s from=%s", log_quote_text(keys[_i].key).text, "open");
	root = json_loads(written, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_msg(root != NULL, "%s", written);
	ck_assert_uint_eq(json_object_size(root), 5);
	ck_assert_str_eq(json_string_value(json_object_get(root, "key")), keys[_i].read);
	ck_assert_str_eq(json_string_value(json_object_get(root, "event")), "state_change");
	ck_assert_str_eq(json_string_value(json_object_get(root, "level")), "info");
	ck_assert_str_eq(json_string_value(json_object_get(root, "from")), "open");
	json_decref(root);
}
END_TEST

START_TEST(the_journal_has_its_priority_in_front)
{
	struct log log = {.level = LOG_LEVEL_INFO, .json = true, .journal = 1, .sink = keep};

	log_warning(&log, "e", "x=1");
	ck_assert_int_eq(strncmp(written, "<4>{\"time\":\"20", 14), 0);
}
END_TEST

START_TEST(any_bytes_make_an_object)
{
	struct log log = {.level = LOG_LEVEL_INFO, .json = true, .sink = keep};
	unsigned seed = 1;

	for (int round = 0; round < 3000; round++) {
		char text[400];
		json_t *root;

		for (size_t i = 0; i < sizeof(text) - 1; i++) {
			seed = seed * 1103515245 + 12345;
			text[i] = (char)(seed >> 16);
			if (round % 3 == 0)
				text[i] = "\"\\x0 =a{"[(seed >> 20) % 8];
		}
		text[round % 399] = '\0';
		log_info(&log, "e", "raw=%s quoted=%s", text, log_quote(text, 399).text);
		ck_assert(utf8_valid(written, strlen(written)));
		root = json_loads(written, 0, NULL);
		ck_assert_msg(json_is_object(root) || strstr(written, "\\u0000"), "%s", written);
		json_decref(root);
	}
}
END_TEST

START_TEST(a_line_is_written_in_one_piece)
{
	/* With the journal's prefix and the newline (log.c) the line fits into one atomic write. */
	ck_assert_uint_le(3 + LOG_JSON_MAX + 1, PIPE_BUF);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("log_json");
	TCase *tcase = tcase_create("log_json");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, pairs_become_members, 0, sizeof(cases) / sizeof(cases[0]));
	tcase_add_test(tcase, what_does_not_fit_is_cut_and_says_so);
	tcase_add_loop_test(tcase, a_hostile_key_is_one_string, 0, sizeof(keys) / sizeof(keys[0]));
	tcase_add_test(tcase, the_journal_has_its_priority_in_front);
	tcase_add_test(tcase, any_bytes_make_an_object);
	tcase_add_test(tcase, a_line_is_written_in_one_piece);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
