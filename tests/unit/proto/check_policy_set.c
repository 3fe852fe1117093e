#include "proto/policy_set.h"
#include "suite.h"

#include <check.h>
#include <string.h>

static const struct {
	const char *pattern, *key;
	bool matches;
} cases[] = {
	{"a", "a", true},
	{"a", "b", false},
	{"a", "ab", false},
	{"ab", "a", false},
	{"*", "", true},
	{"*", "anything/at all", true},
	{"/api/*", "/api/", true},
	{"/api/*", "/api/users/7", true},
	{"/api/*", "/api", false},
	{"*/users", "/api/users", true},
	{"*/users", "/api/users/7", false},
	{"/api/*/users", "/api/v1/users", true},
	{"/api/*/users", "/api//users", true},
	{"/api/*/users", "/api/users", false},
	{"*a*b*", "xxaxxbxx", true},
	{"*a*b*", "xxbxxaxx", false},
	{"**", "x", true},
	{"a**b", "ab", true},
	{"*ab", "aab", true},
	{"*aab", "aaaab", true},
	{"*abab", "abaabab", true},
	{"a*b?c", "aXbYbZc", true},
	{"?", "a", true},
	{"?", "", false},
	{"?", "ab", false},
	{"?", "\xc3\xa9", true},         /* U+00E9 */
	{"?", "\xf0\x9f\x98\x80", true}, /* U+1F600 */
	{"??", "\xc3\xa9", false},
	{"a?b",
	 "a\xe2\x82\xac"
	 "b",
	 true},
	{"*?", "\xe2\x82\xac", true},
	{"*\xac", "\xe2\x82\xac", false}, /* a "*" ends between characters */
	{"caf\xc3\xa9*", "caf\xc3\xa9/1", true},
	{"[ab]", "a", false}, /* nothing else is special */
	{"a.c", "abc", false},
	{"\\*", "*", false},
	{"A", "a", false},
};

START_TEST(patterns)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ck_assert_msg(policy_key_matches(cases[i].pattern, cases[i].key,
						 strlen(cases[i].key)) == cases[i].matches,
			      "%s %s", cases[i].pattern, cases[i].key);
	/* The key ends at its length, not at a NUL. */
	ck_assert(policy_key_matches("ab", "abc", 2));
	ck_assert(!policy_key_matches("abc", "abc", 2));
}
END_TEST

/* Takes exponential time in a matcher that backtracks; here at most 1024 x 256 steps. */
START_TEST(a_bad_pattern_ends)
{
	char pattern[257], key[1024];

	for (size_t i = 0; i < 256; i++)
		pattern[i] = "a*"[i % 2];
	pattern[255] = 'b';
	pattern[256] = '\0';
	memset(key, 'a', sizeof(key));
	ck_assert(!policy_key_matches(pattern, key, sizeof(key)));
}
END_TEST

#define find(set, key) policy_set_entry(&(set), (key), strlen(key))->name

START_TEST(the_first_that_matches_is_the_one)
{
	static const char *const api[] = {"/api/*", "*.api"}, *const slow[] = {"/api/slow", "x?"};
	static const char *const all[] = {"*"};
	static const struct policy_entry entries[] = {
		{.name = "api", .keys = api, .key_count = 2, .policy = {.probes = 1}},
		{.name = "slow", .keys = slow, .key_count = 2, .policy = {.probes = 2}},
		{.name = "default", .keys = all, .key_count = 1, .policy = {.probes = 3}},
	};
	struct policy_set set = {entries, 3};

	ck_assert_str_eq(find(set, "/api/slow"), "api");
	ck_assert_str_eq(find(set, "users.api"), "api");
	ck_assert_str_eq(find(set, "xy"), "slow");
	ck_assert_str_eq(find(set, "other"), "default");
	ck_assert_uint_eq(policy_set_find(&set, "xy", 2)->probes, 2);
	ck_assert_uint_eq(policy_set_find(&set, "", 0)->probes, 3);
	/* The patterns of the last entry are not compared: it holds for all other keys. */
	set = (struct policy_set){&entries[1], 1};
	ck_assert_str_eq(find(set, "anything"), "slow");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policy_set");
	TCase *tc = tcase_create("policy_set");

	tcase_add_test(tc, patterns);
	tcase_add_test(tc, a_bad_pattern_ends);
	tcase_add_test(tc, the_first_that_matches_is_the_one);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
