/*
 * proto/key.c
 */
#include "proto/key.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* A string literal with its length, because it may contain NUL. */
struct text {
	const char *bytes;
	size_t len;
};
#define T(literal)                                                                                 \
	{                                                                                          \
		literal, sizeof(literal) - 1                                                       \
	}

static const struct {
	struct text in, out;
} decodes[] = {
	{T("a"), T("a")},
	{T("%2Fapi%2Fusers"), T("/api/users")},
	{T("a%2fb"), T("a/b")},
	{T("a%2Fb"), T("a/b")},
	{T(".."), T("..")},
	{T("%2E%2e"), T("..")},
	{T("+"), T("+")},
	{T("a+b%2B"), T("a+b+")},
	{T("a%20b"), T("a b")},
	{T("100%25"), T("100%")},
	{T("%2525"), T("%25")},
	{T("%D0%BA%D0%BB%D1%8E%D1%87"), T("ключ")},
	{T("%C2%80"), T("\xC2\x80")}, /* U+0080: C1, which the contract allows */
	{T("%EF%BF%BF"), T("\xEF\xBF\xBF")},
	{T("%F4%8F%BF%BF"), T("\xF4\x8F\xBF\xBF")}, /* U+10FFFF */
	{T("%ED%9F%BF"), T("\xED\x9F\xBF")},        /* U+D7FF */
	{T("%EE%80%80"), T("\xEE\x80\x80")},        /* U+E000 */
	{T("-._~!$&'()*+,;=:@%7e"), T("-._~!$&'()*+,;=:@~")},
};

START_TEST(segments_decode)
{
	char key[KEY_MAX];
	size_t len = 0;

	ck_assert_ptr_null(key_decode(decodes[_i].in.bytes, decodes[_i].in.len, key, &len));
	ck_assert_uint_eq(len, decodes[_i].out.len);
	ck_assert_mem_eq(key, decodes[_i].out.bytes, len);
}
END_TEST

/* Decodes from memory that ends where the segment ends, so that a sanitizer sees reads beyond. */
static const char *decode(const struct text *in, char key[KEY_MAX], size_t *len)
{
	char *copy = malloc(in->len ? in->len : 1);
	const char *why;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, in->bytes, in->len);
	why = key_decode(copy, in->len, key, len);
	free(copy);
	return why;
}

/* Segments that are refused, with a word that the explanation must contain. */
static const struct {
	struct text in;
	const char *why;
} refusals[] = {
	{T(""), "empty"},
	{T("%"), "hexadecimal"},
	{T("a%"), "hexadecimal"},
	{T("%2"), "hexadecimal"},
	{T("%g0"), "hexadecimal"},
	{T("%0g"), "hexadecimal"},
	{T("%%25"), "hexadecimal"},
	{T("%-1"), "hexadecimal"},
	{T("% 1"), "hexadecimal"},
	{T("%u0041"), "hexadecimal"},
	{T("%00"), "control"},
	{T("a%00b"), "control"},
	{T("a\0b"), "control"},
	{T("%0A"), "control"},
	{T("%1F"), "control"},
	{T("%7F"), "control"},
	{T("\x7F"), "control"},
	{T("%C3%28"), "UTF-8"},
	{T("%C3"), "UTF-8"},
	{T("%80"), "UTF-8"},
	{T("%FF"), "UTF-8"},
	{T("%C0%AF"), "UTF-8"},       /* overlong slash */
	{T("%C1%BF"), "UTF-8"},       /* overlong */
	{T("%E0%9F%BF"), "UTF-8"},    /* overlong */
	{T("%F0%8F%BF%BF"), "UTF-8"}, /* overlong */
	{T("%ED%A0%80"), "UTF-8"},    /* surrogate */
	{T("%ED%BF%BF"), "UTF-8"},    /* surrogate */
	{T("%F4%90%80%80"), "UTF-8"}, /* beyond U+10FFFF */
	{T("%F5%80%80%80"), "UTF-8"},
	{T("%E2%82"), "UTF-8"},    /* cut */
	{T("%F0%9F%98"), "UTF-8"}, /* cut */
	{T("ключ"), "percent-encoded"},
	{T("a b"), "percent-encoded"},
	{T("a%20b "), "percent-encoded"},
	{T("\""), "percent-encoded"},
	{T("#"), "percent-encoded"},
	{T("<"), "percent-encoded"},
	{T(">"), "percent-encoded"},
	{T("["), "percent-encoded"},
	{T("\\"), "percent-encoded"},
	{T("]"), "percent-encoded"},
	{T("^"), "percent-encoded"},
	{T("`"), "percent-encoded"},
	{T("{"), "percent-encoded"},
	{T("|"), "percent-encoded"},
	{T("}"), "percent-encoded"},
	{T("/"), "percent-encoded"},
	{T("?"), "percent-encoded"},
	{T("%E2%82a"), "UTF-8"},
	{T("%F0%9F%98a"), "UTF-8"},
};

START_TEST(segments_are_refused)
{
	char key[KEY_MAX];
	size_t len;
	const char *why = decode(&refusals[_i].in, key, &len);

	ck_assert_ptr_nonnull(why);
	ck_assert_msg(strstr(why, refusals[_i].why), "%s: %s", refusals[_i].in.bytes, why);
}
END_TEST

START_TEST(length_counts_after_decoding)
{
	char segment[3 * (KEY_MAX + 1)], key[KEY_MAX];
	size_t len;
	const char *why;

	memset(segment, 'k', sizeof(segment));
	ck_assert_ptr_null(key_decode(segment, KEY_MAX, key, &len));
	ck_assert_uint_eq(len, KEY_MAX);
	why = key_decode(segment, KEY_MAX + 1, key, &len);
	ck_assert_ptr_nonnull(why);
	ck_assert_ptr_nonnull(strstr(why, "1024"));

	for (size_t i = 0; i < sizeof(segment); i += 3)
		memcpy(segment + i, "%2F", 3);
	ck_assert_ptr_null(key_decode(segment, 3 * KEY_MAX, key, &len));
	ck_assert_uint_eq(len, KEY_MAX);
	ck_assert_ptr_nonnull(key_decode(segment, 3 * (KEY_MAX + 1), key, &len));
}
END_TEST

START_TEST(keys_are_checked_as_they_are)
{
	static char key[KEY_MAX + 1];

	memset(key, '%', sizeof(key));
	ck_assert_ptr_null(key_check(key, KEY_MAX));
	ck_assert_ptr_nonnull(key_check(key, KEY_MAX + 1));
	ck_assert_ptr_nonnull(key_check("", 0));
	ck_assert_ptr_nonnull(key_check("a\nb", 3));
	ck_assert_ptr_null(key_check("a\nb", 1));
	ck_assert_ptr_nonnull(key_check("\xC3\xA9", 1));
}
END_TEST

START_TEST(percent_decoding)
{
	char out[8], same[] = "%41%42c";

	ck_assert_int_eq(percent_decode("a+b", 3, out, sizeof(out), true), 3);
	ck_assert_mem_eq(out, "a b", 3);
	ck_assert_int_eq(percent_decode("a+%2B", 5, out, sizeof(out), true), 3);
	ck_assert_mem_eq(out, "a +", 3);
	ck_assert_int_eq(percent_decode("%00", 3, out, sizeof(out), false), 1);
	ck_assert_int_eq(out[0], 0);
	ck_assert_int_eq(percent_decode("", 0, out, 0, false), 0);
	ck_assert_int_eq(percent_decode("a", 1, out, 0, false), PERCENT_TOO_LONG);
	ck_assert_int_eq(percent_decode("12345678", 8, out, 8, false), 8);
	ck_assert_int_eq(percent_decode("12345678%39", 11, out, 8, false), PERCENT_TOO_LONG);
	/* An escape must end within the given length, whatever follows in memory. */
	ck_assert_int_eq(percent_decode("%41", 2, out, 8, false), PERCENT_BROKEN);
	ck_assert_int_eq(percent_decode("%41", 1, out, 8, false), PERCENT_BROKEN);
	ck_assert_int_eq(percent_decode(same, 7, same, 7, false), 3);
	ck_assert_mem_eq(same, "ABc", 3);
}
END_TEST

static const struct {
	struct text in;
	const char *out;
} cleans[] = {
	{T(""), ""},
	{T("plain ключ"), "plain ключ"},
	{T("a\nb\r\tc"), "a b  c"},
	{T("a\0b\x1B[1m\x7F"), "a\xEF\xBF\xBD"
			       "b\xEF\xBF\xBD[1m\xEF\xBF\xBD"},
	{T("\xC2\x9Bm"), "\xEF\xBF\xBDm"},
	{T("\xC2\xA0"), "\xC2\xA0"},
	{T("\xFFx\xC3"), "\xEF\xBF\xBDx\xEF\xBF\xBD"},
	{T("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
};

START_TEST(text_is_made_safe)
{
	char out[64];
	size_t n = utf8_clean(out, sizeof(out), cleans[_i].in.bytes, cleans[_i].in.len);

	ck_assert_str_eq(out, cleans[_i].out);
	ck_assert_uint_eq(n, strlen(out));
	ck_assert_uint_le(n, 3 * cleans[_i].in.len);
	ck_assert(utf8_valid(out, n));
}
END_TEST

START_TEST(text_is_cut_between_characters)
{
	char out[8] = "unset!!";

	ck_assert_uint_eq(utf8_clean(out, 5, "abcdef", 6), 4);
	ck_assert_str_eq(out, "abcd");
	ck_assert_uint_eq(utf8_clean(out, 4, "ключ", 8), 2);
	ck_assert_str_eq(out, "к");
	ck_assert_uint_eq(utf8_clean(out, 3, "\xFF", 1), 0);
	ck_assert_str_eq(out, "");
	ck_assert_uint_eq(utf8_clean(out, 1, "a", 1), 0);
	ck_assert_str_eq(out, "");
	out[0] = 'x';
	ck_assert_uint_eq(utf8_clean(out, 0, "a", 1), 0);
	ck_assert_int_eq(out[0], 'x');
}
END_TEST

int main(void)
{
	Suite *s = suite_create("key");
	TCase *t = tcase_create("key");

	tcase_add_loop_test(t, segments_decode, 0, COUNT(decodes));
	tcase_add_loop_test(t, segments_are_refused, 0, COUNT(refusals));
	tcase_add_test(t, length_counts_after_decoding);
	tcase_add_test(t, keys_are_checked_as_they_are);
	tcase_add_test(t, percent_decoding);
	tcase_add_loop_test(t, text_is_made_safe, 0, COUNT(cleans));
	tcase_add_test(t, text_is_cut_between_characters);
	suite_add_tcase(s, t);
	return suite_run(s);
}
