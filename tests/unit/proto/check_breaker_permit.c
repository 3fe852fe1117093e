/*
 * The text of a permit.
 */
#include "proto/breaker_permit.h"
#include "suite.h"

#include <check.h>
#include <string.h>

static const struct breaker_permit permits[] = {
	{.kind = BREAKER_PERMIT_CLOSED, .since_ms = 1700000000000},
	{.kind = BREAKER_PERMIT_CLOSED, .since_ms = 0},
	{.kind = BREAKER_PERMIT_CLOSED, .since_ms = CIRCUIT_INT_MAX},
	{.kind = BREAKER_PERMIT_ABSENT},
	{.kind = BREAKER_PERMIT_PROBE, .since_ms = 1700000000000, .id = 0xFFFFFF},
	{.kind = BREAKER_PERMIT_PROBE, .since_ms = CIRCUIT_INT_MAX, .id = 0},
	{.kind = BREAKER_PERMIT_OBSERVED},
	{.kind = BREAKER_PERMIT_OVERRIDDEN},
};

START_TEST(permits_read_as_they_were_written)
{
	const struct breaker_permit *p = &permits[_i];
	struct breaker_permit again = {0};
	char text[BREAKER_PERMIT_MAX];
	size_t len = breaker_permit_encode(text, p, "k", 1);

	ck_assert_uint_eq(len, strlen(text));
	ck_assert(len >= 1 && len <= 64);
	ck_assert_uint_eq(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				       "0123456789._-"),
			  len);
	ck_assert(breaker_permit_decode(text, len, "k", 1, &again));
	ck_assert_int_eq(again.kind, p->kind);
	ck_assert_int_eq(again.since_ms, p->since_ms);
	ck_assert_uint_eq(again.id, p->id);
}
END_TEST

START_TEST(whatever_is_changed_is_refused)
{
	struct breaker_permit again;
	char text[BREAKER_PERMIT_MAX], key[3] = "";
	size_t len = breaker_permit_encode(text, &permits[_i], "k", 1);

	/* For another circuit. */
	for (int c = 1; c < 256; c++) {
		key[0] = (char)c;
		ck_assert(c == 'k' || !breaker_permit_decode(text, len, key, 1, &again));
		key[0] = 'k';
		key[1] = (char)c;
		ck_assert(!breaker_permit_decode(text, len, key, 2, &again));
		key[1] = '\0';
	}
	/* Shortened, lengthened, or with one byte changed. */
	for (size_t cut = 0; cut < len; cut++)
		ck_assert(!breaker_permit_decode(text, cut, "k", 1, &again));
	text[len] = '0';
	ck_assert(!breaker_permit_decode(text, len + 1, "k", 1, &again));
	for (size_t at = 0; at < len; at++) {
		char was = text[at];

		for (int c = 0; c < 256; c++) {
			text[at] = (char)c;
			ck_assert(text[at] == was ||
				  !breaker_permit_decode(text, len, "k", 1, &again));
		}
		text[at] = was;
	}
}
END_TEST

START_TEST(anything_else_is_refused)
{
	char long_text[200];
	struct breaker_permit again;

	memset(long_text, 'c', sizeof(long_text));
	for (size_t len = 0; len < sizeof(long_text); len++)
		ck_assert(!breaker_permit_decode(long_text, len, "k", 1, &again));
	ck_assert(!breaker_permit_decode("-.0000000000", 12, "k", 1, &again));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("breaker_permit");
	TCase *t = tcase_create("breaker_permit");
	int count = sizeof(permits) / sizeof(permits[0]);

	tcase_add_loop_test(t, permits_read_as_they_were_written, 0, count);
	tcase_add_loop_test(t, whatever_is_changed_is_refused, 0, count);
	tcase_add_test(t, anything_else_is_refused);
	suite_add_tcase(s, t);
	return suite_run(s);
}
