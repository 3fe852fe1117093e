#include "base/log_state.h"
#include "suite.h"

#include <check.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINES   2
#define EACH_MS 100

static struct event_base *base;
static char text[4096]; /* the lines that were written */
static uint64_t suppressed;
static struct log to;
static struct log_state state;

static void on_line(void *arg, enum log_level level, const char *line)
{
	size_t at = strlen(text);

	(void)arg;
	(void)level;
	/* Without the stamp and the level. */
	snprintf(text + at, sizeof(text) - at, "%s\n", strchr(strchr(line, ' ') + 1, ' ') + 1);
}

static void setup(void)
{
	text[0] = '\0';
	suppressed = 0;
	base = event_base_new();
	to = (struct log){.level = LOG_LEVEL_INFO, .sink = on_line, .suppressed = &suppressed};
	ck_assert_int_eq(log_state_init(&state, base, &to, "thing", LINES, EACH_MS), 0);
}

static void teardown(void)
{
	log_state_fini(&state);
	event_base_free(base);
}

static void flap(unsigned times)
{
	for (unsigned n = 0; n < times; n++) {
		log_state_say(&state, LOG_LEVEL_WARNING, "away", "n=%u", n);
		log_state_say(&state, LOG_LEVEL_INFO, "ready", "n=%u", n);
	}
}

START_TEST(what_there_is_room_for_is_written_at_once)
{
	flap(1);
	ck_assert_str_eq(text, "away n=0\nready n=0\n");
	ck_assert_uint_eq(suppressed, 0);
}
END_TEST

START_TEST(the_last_line_comes_by_itself_and_the_others_are_counted)
{
	static const char all[] = "away n=0\nready n=0\nsuppressed kind=thing lines=3\n"
				  "ready n=2 late_ms=";

	flap(3);
	ck_assert_str_eq(text, "away n=0\nready n=0\n");
	ck_assert_uint_eq(suppressed, 3);
	/* Returns after the last timer has fired. */
	event_base_dispatch(base);
	ck_assert_msg(strncmp(text, all, strlen(all)) == 0, "%s", text);
	ck_assert_int_ge(atoi(text + strlen(all)), EACH_MS / 2);
	ck_assert_uint_eq(suppressed, 3);
}
END_TEST

START_TEST(the_end_does_not_wait)
{
	flap(2);
	log_state_fini(&state);
	ck_assert_ptr_nonnull(strstr(text, "\nsuppressed kind=thing lines=1\nready n=1 late_ms="));
}
END_TEST

/* At level warning "ready" is not written: it uses nothing of the limit and is not counted. But a
 * rate-limited "away" before it is out of date, and is dropped. */
START_TEST(what_the_level_leaves_out_is_not_counted)
{
	to.level = LOG_LEVEL_WARNING;
	flap(3);
	ck_assert_str_eq(text, "away n=0\naway n=1\n");
	ck_assert_uint_eq(suppressed, 1);
	log_state_say(&state, LOG_LEVEL_WARNING, "away", "n=3");
	log_state_fini(&state);
	ck_assert_ptr_nonnull(strstr(text, "suppressed kind=thing lines=1\naway n=3 late_ms="));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("log_state");
	TCase *tc = tcase_create("log_state");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_there_is_room_for_is_written_at_once);
	tcase_add_test(tc, the_last_line_comes_by_itself_and_the_others_are_counted);
	tcase_add_test(tc, the_end_does_not_wait);
	tcase_add_test(tc, what_the_level_leaves_out_is_not_counted);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
