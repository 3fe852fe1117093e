/*
 * Compares the policy machine in C with the one in circuit.lua, on a real redis-server: the steps
 * of tests/cases/breaker.tsv, and a random history that a model in Python makes
 * (tests/model/breaker_history.py). BREAKER_STEPS is its length, BREAKER_SEED its seed.
 */
#include "redis_server.h"
#include "steps.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CASES "tests/cases/breaker.tsv"

static struct redis_server_process server;
static struct steps steps;

static void setup(void)
{
	redis_server_start(&server, NULL);
	steps_begin(&steps, redis_server_connect(&server));
}

static void teardown(void)
{
	redisFree(steps.redis);
	steps_end(&steps);
	redis_server_stop(&server);
}

/* Runs a line: a step, a tab and the expected answer. `where` is for the message of a failure. */
static void check_step(char *line, const char *where)
{
	char answer[STEPS_ANSWER_MAX], *should = strchr(line, '\t');
	bool ok;

	line[strcspn(line, "\n")] = '\0';
	ck_assert_msg(should, "%s: no tab: %s", where, line);
	*should++ = '\0';
	if (strcmp(line, "begin") == 0) {
		steps_begin(&steps, steps.redis);
		return;
	}
	ok = steps_run(&steps, line, answer);
	ck_assert_msg(ok && strcmp(answer, should) == 0, "%s: %s: %s, not %s; stored: %s", where,
		      line, answer, should, steps.value);
}

START_TEST(every_case)
{
	FILE *f = fopen(CASES, "r");
	char line[1024], where[1100] = "";
	unsigned count = 0;

	ck_assert_msg(f, "%s: %s", CASES, strerror(errno));
	for (unsigned number = 1; fgets(line, sizeof(line), f); number++) {
		if (line[0] == '#') {
			line[strcspn(line, "\n")] = '\0';
			snprintf(where, sizeof(where), "%s", line + 1);
		} else if (line[0] != '\n') {
			char at[1200];

			snprintf(at, sizeof(at), "line %u,%s", number, where);
			check_step(line, at);
			count++;
		}
	}
	fclose(f);
	ck_assert_uint_gt(count, 200);
}
END_TEST

START_TEST(random_history)
{
	const char *seed = getenv("BREAKER_SEED"), *length = getenv("BREAKER_STEPS");
	char command[256], line[2048], where[64];
	unsigned count = 0, wanted = length ? (unsigned)strtoul(length, NULL, 10) : 6000;
	unsigned first = seed ? (unsigned)strtoul(seed, NULL, 10) : (unsigned)time(NULL);
	FILE *f;

	snprintf(command, sizeof(command), "python3 tests/model/breaker_history.py %u %u", first,
		 wanted);
	f = popen(command, "r");
	ck_assert(f);
	for (; fgets(line, sizeof(line), f); count++) {
		snprintf(where, sizeof(where), "BREAKER_SEED=%u, step %u", first, count);
		check_step(line, where);
	}
	ck_assert_int_eq(pclose(f), 0);
	ck_assert_uint_eq(count, wanted);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("breaker.lua");
	TCase *t = tcase_create("breaker.lua");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 1200);
	tcase_add_test(t, every_case);
	tcase_add_test(t, random_history);
	suite_add_tcase(s, t);
	return suite_run(s);
}
