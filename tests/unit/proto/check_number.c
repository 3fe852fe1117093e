/*
 * proto/number.c: writing numbers. Reading them is tested in check_circuit_json.c.
 */
#include "proto/number.h"
#include "suite.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>

static void is_put_as_printf_does(int64_t number)
{
	char expected[24], text[24];
	char *end = number_put(text, number);

	*end = '\0';
	snprintf(expected, sizeof(expected), "%" PRId64, number);
	ck_assert_str_eq(text, expected);
}

START_TEST(each_length_and_its_limits)
{
	int64_t power = 1;

	for (int digits = 1; digits <= 19; digits++) {
		for (int64_t off = -1; off <= 1; off++) {
			is_put_as_printf_does(power + off);
			is_put_as_printf_does(-power - off);
		}
		is_put_as_printf_does(power * 9);
		power *= digits < 19 ? 10 : 1;
	}
	is_put_as_printf_does(INT64_MAX);
	is_put_as_printf_does(INT64_MIN);
	is_put_as_printf_does(1795779062000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("number");
	TCase *t = tcase_create("number");

	tcase_add_test(t, each_length_and_its_limits);
	suite_add_tcase(s, t);
	return suite_run(s);
}
