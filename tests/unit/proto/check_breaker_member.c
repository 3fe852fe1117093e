/*
 * The text of the member `breakerd`.
 */
#include "proto/breaker_member.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct breaker b;

static void check_again(const char *should)
{
	char text[BREAKER_TEXT_MAX], again[BREAKER_TEXT_MAX];
	size_t len = breaker_member_encode(text, &b);

	ck_assert_uint_eq(len, strlen(text));
	if (should)
		ck_assert_str_eq(text, should);
	ck_assert(breaker_member_decode(text, len, &b));
	ck_assert_uint_eq(breaker_member_encode(again, &b), len);
	ck_assert_str_eq(again, text);
}

START_TEST(texts_are_as_the_header_says)
{
	breaker_none(&b);
	check_again("1 0 0 0 0 0 0");
	b.since_ms = 1700000000000;
	b.fresh = true;
	b.run = 2;
	b.window_ms = 30000;
	b.newest = 566666666;
	b.slot_count = 3;
	memset(b.slots, 0, sizeof(b.slots));
	b.slots[0] = (struct breaker_slot){.calls = 12};
	b.slots[2] = (struct breaker_slot){7, 3, 1, {0, 935}, 2};
	check_again("1 0 1700000000000 1 0 0 2 w30000.566666666:12,0,7.3.1.AaZ9");
	breaker_none(&b);
	b.state = CIRCUIT_HALF_OPEN;
	b.since_ms = b.half_open_ms = 1700000000000;
	b.openings = 3;
	b.open_ms = 240000;
	check_again("1 2 1700000000000 0 3 240000 0 h0.0:");
	b.passed = 1;
	b.probe_count = 2;
	b.probes[0] = (struct breaker_probe){0xABCDEF, 1700000030000};
	b.probes[1] = (struct breaker_probe){1, 1700000029744};
	check_again("1 2 1700000000000 0 3 240000 0 h1.1700000029744:abcdef000100000001000000");
	b.state = CIRCUIT_OPEN;
	b.since_ms = 1700000000001;
	b.override = (struct breaker_override){BREAKER_FORCED_OPEN, 5, 6, 3, "a\"\xFF"};
	check_again("1 1 1700000000001 0 3 240000 0 q1700000000000:abcdef000001 o1.5.6:6122ff");
}
END_TEST

START_TEST(everything_at_once_has_room)
{
	char text[BREAKER_TEXT_MAX];
	size_t len;

	breaker_none(&b);
	b.since_ms = b.half_open_ms = CIRCUIT_INT_MAX;
	b.openings = 20000;
	b.open_ms = 604800000;
	b.run = b.passed = BREAKER_COUNT_MAX;
	b.window_ms = 3600000;
	b.newest = 277777777;
	b.slot_count = BREAKER_SLOTS;
	for (int i = 0; i < BREAKER_SLOTS; i++)
		b.slots[i] = (struct breaker_slot){BREAKER_COUNT_MAX,
						   BREAKER_COUNT_MAX,
						   BREAKER_COUNT_MAX,
						   {0},
						   BREAKER_SLOT_REPORTERS};
	b.probe_count = POLICY_PROBES_MAX;
	for (int i = 0; i < POLICY_PROBES_MAX; i++)
		b.probes[i] = (struct breaker_probe){0xFFFFFF, 99999999999999 - (i ? 0xFFFFFF : 0)};
	b.override.mode = BREAKER_FORCED_CLOSED;
	b.override.since_ms = b.override.until_ms = 99999999999999;
	b.override.reason_len = BREAKER_REASON_MAX;
	memset(b.override.reason, 0xFF, BREAKER_REASON_MAX);
	/* As a closed circuit, then as a half-open one, which has no window. */
	check_again(NULL);
	b.state = CIRCUIT_HALF_OPEN;
	b.slot_count = 0;
	for (int i = 0; i < POLICY_PROBES_MAX; i++)
		b.probes[i].deadline_ms = 99999999999999 - (i ? 0xFFFFFF : 0);
	check_again(NULL);
	len = breaker_member_encode(text, &b);
	ck_assert_uint_gt(len, 1700);
	ck_assert_uint_le(len, 2048 - 1);
}
END_TEST

static const char *const unsound[] = {
	"",
	" ",
	"1",
	"2 0 0 0 0 0 0",
	"10 0 0 0 0 0 0",
	"1 0 0 0 0 0",
	"1 0 0 0 0 0 0 ",
	"1 0 0 0 0 0 0 x",
	"1  0 0 0 0 0 0",
	"1 3 0 0 0 0 0",
	"1 00 0 0 0 0 0",
	"1 0 9007199254740992 0 0 0 0",
	"1 0 0 2 0 0 0",
	"1 0 0 0 -1 0 0",
	"1 0 0 0 0 0 1000000000",
	"1 2 0 0 0 0 0",
	"1 2 0 0 0 0 0 q1:",
	"1 2 0 0 0 0 0 h0.0:00000000000",
	"1 2 0 0 0 0 0 h0.0:00000000000G",
	"1 2 0 0 0 0 0 h0.0:00000000000A",
	"1 2 0 0 0 0 0 h0.100000000000000:",
	"1 0 0 0 0 0 0 h0.0:",
	"1 0 0 0 0 0 0 q0:",
	"1 0 0 0 0 0 0 o1.5.2592000006:61",
	"1 0 0 0 0 0 0 o1.5.99999999999999:61",
	"1 0 0 0 0 0 0 o1.5.9999999999999999999999:61",
	"1 0 0 0 0 0 0 q1",
	"1 0 0 0 0 0 0 w0.0:1",
	"1 0 0 0 0 0 0 w30000.5:",
	"1 0 0 0 0 0 0 w30000.5:1,",
	"1 0 0 0 0 0 0 w30000.5:1,,1",
	"1 0 0 0 0 0 0 w30000.1:1,1,1",
	"1 0 0 0 0 0 0 w30000.50:1,1,1,1,1,1,1,1,1,1,1",
	"1 0 0 0 0 0 0 w30000.50:1.1",
	"1 0 0 0 0 0 0 w30000.50:1.0.0.",
	"1 0 0 0 0 0 0 w30000.50:1.1.01.",
	"1 0 0 0 0 0 0 w030000.50:1",
	"1 0 00 0 0 0 0",
	"1 0 0 0 0 0 0 w30000.50:1.1.1",
	"1 0 0 0 0 0 0 w30000.50:1.1.1.A",
	"1 0 0 0 0 0 0 w30000.50:1.1.1.aA",
	"1 0 0 0 0 0 0 w30000.50:1.1.1.AaAaAaAaAaAaAaAaAaAaAaAaAaAaAaAaAa",
	"1 0 0 0 0 0 0 w999999999.99999999999999:1",
	"1 0 0 0 0 0 0 o0.1.1:61",
	"1 0 0 0 0 0 0 o3.1.1:61",
	"1 0 0 0 0 0 0 o1.1.1:6",
	"1 0 0 0 0 0 0 o1.1.1:6A",
	"1 0 0 0 0 0 0 o1.1.1:61 w30000.5:1",
	"1 0 0 0 0 0 0 q1: w30000.5:1",
	"1 1 0 0 0 0 0 w30000.5:1",
	"1 2 0 0 0 0 0 w30000.5:1 h0.0:",
};

START_TEST(what_is_unsound_is_no_member)
{
	const char *text = unsound[_i];
	char *copy = malloc(strlen(text) + !*text);

	memcpy(copy, text, strlen(text));
	ck_assert_msg(!breaker_member_decode(copy, strlen(text), &b), "%s", text);
	ck_assert(!b.exists && b.slot_count == 0 && b.probe_count == 0);
	ck_assert_int_eq(b.override.mode, BREAKER_NO_OVERRIDE);
	free(copy);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("breaker_member");
	TCase *t = tcase_create("breaker_member");

	tcase_add_test(t, texts_are_as_the_header_says);
	tcase_add_test(t, everything_at_once_has_room);
	tcase_add_loop_test(t, what_is_unsound_is_no_member, 0,
			    sizeof(unsound) / sizeof(unsound[0]));
	suite_add_tcase(s, t);
	return suite_run(s);
}
