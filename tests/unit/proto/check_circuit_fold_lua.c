/*
 * Compares circuit_fold_apply with circuit.lua: random steps on random circuits, on a real Redis.
 */
#include "proto/circuit_fold.h"
#include "proto/circuit_json.h"
#include "redis_server.h"
#include "suite.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const char circuit_lua[];

#define T0  INT64_C(1700000000000)
#define TTL 1000

static struct redis_server_process server;
static redisContext *redis;

static void setup(void)
{
	static const char *const plain[] = {NULL};

	redis_server_start(&server, plain);
	redis = redis_server_connect(&server);
}

static void teardown(void)
{
	redisFree(redis);
	redis_server_stop(&server);
}

static redisReply *run(const char *step)
{
	redisReply *reply = redis_reply(redis, "EVAL %s 1 k %d %s", circuit_lua, TTL * 1000, step);

	ck_assert_msg(reply->type == REDIS_REPLY_ARRAY, "%s", reply->str);
	return reply;
}

static void set(const char *value)
{
	redis_run(redis, "SET k %s EX %d", value, TTL);
}

static void expect_stored(const char *value)
{
	redisReply *reply = redis_reply(redis, "GET k");

	if (value)
		ck_assert_str_eq(reply->str, value);
	else
		ck_assert_int_eq(reply->type, REDIS_REPLY_NIL);
	freeReplyObject(reply);
}

/* One of a few values, so that equal ones meet often. */
static int64_t some(unsigned *seed, const int64_t *of, int count)
{
	return of[rand_r(seed) % count];
}

static struct circuit random_circuit(unsigned *seed)
{
	static const int64_t counts[] = {0, 1, 7, CIRCUIT_INT_MAX - 1, CIRCUIT_INT_MAX};
	static const int64_t stamps[] = {0, T0 - 1, T0, T0 + 1, CIRCUIT_INT_MAX};

	return (struct circuit){
		.state = (enum circuit_state)(rand_r(seed) % CIRCUIT_STATES),
		.failure_count = some(seed, counts, 5),
		.success_count = some(seed, counts, 5),
		.last_failure_time = some(seed, stamps, 5),
		.last_state_change = some(seed, stamps, 5),
	};
}

static struct circuit_fold random_fold(unsigned *seed)
{
	struct circuit seen = random_circuit(seed);
	struct circuit_fold fold;
	int count = rand_r(seed) % 5;

	circuit_fold_begin(&fold, rand_r(seed) % 2 ? &seen : NULL);
	for (int i = 0; i < count; i++) {
		struct circuit_op op = {
			.verb = (enum circuit_verb)(1 + rand_r(seed) % CIRCUIT_RESET),
			.to = (enum circuit_state)(rand_r(seed) % CIRCUIT_STATES),
		};

		circuit_fold_note(&fold, &op,
				  op.verb == CIRCUIT_RESET ? CIRCUIT_REMOVED : CIRCUIT_WRITTEN,
				  T0 + rand_r(seed) % 3 - 1);
	}
	return fold;
}

START_TEST(the_script_folds_as_the_function_does)
{
	unsigned seed = 7;

	for (int round = 0; round < 5000; round++) {
		struct circuit c = random_circuit(&seed);
		struct circuit_fold fold = random_fold(&seed);
		bool exists = rand_r(&seed) % 4 != 0;
		char before[CIRCUIT_JSON_MAX], after[CIRCUIT_JSON_MAX], step[CIRCUIT_FOLD_MAX];
		enum circuit_effect effect;

		circuit_json_encode(before, &c);
		if (exists) /* no time to live, so the script cannot tell when it was written */
			redis_run(redis, "SET k %s", before);
		else
			redis_run(redis, "DEL k");
		effect = circuit_fold_apply(&c, exists, 0, &fold);
		circuit_fold_encode(step, &fold);
		freeReplyObject(run(step));
		circuit_json_encode(after, &c);
		switch (effect) {
		case CIRCUIT_WRITTEN:
			expect_stored(after);
			break;
		case CIRCUIT_REMOVED:
			expect_stored(NULL);
			break;
		default:
			expect_stored(exists ? before : NULL);
		}
	}
}
END_TEST

/* A recorded success leaves no stamp. The script tells from the remaining time to live when the
 * circuit was written. */
START_TEST(a_success_recorded_since_keeps_a_circuit_from_its_reset)
{
	static const char value[] = "{\"state\":\"closed\",\"failureCount\":0,\"successCount\":1,"
				    "\"lastFailureTime\":0,\"lastStateChange\":1}";
	int64_t now = redis_now_ms(redis);
	char step[CIRCUIT_FOLD_MAX];

	set(value);
	snprintf(step, sizeof(step), "w 0 0 1 1 0 3 0 0 %" PRId64, now - 5000);
	freeReplyObject(run(step));
	expect_stored(value);
	snprintf(step, sizeof(step), "w 0 0 1 1 0 3 0 0 %" PRId64, now + 5000);
	freeReplyObject(run(step));
	expect_stored(NULL);
}
END_TEST

/* Without PTTL or TIME the script cannot tell whether the circuit was written since. */
START_TEST(a_circuit_whose_age_is_not_told_is_not_reset)
{
	static const char *const commands[] = {"pttl", "time"};
	int64_t now = redis_now_ms(redis);
	char step[CIRCUIT_FOLD_MAX];

	snprintf(step, sizeof(step), "w 0 0 1 1 0 3 0 0 %" PRId64, now + 5000);
	set("{}");
	redis_run(redis, "ACL SETUSER default -%s", commands[_i]);
	freeReplyObject(run(step));
	expect_stored("{}");
	redis_run(redis, "ACL SETUSER default +%s", commands[_i]);
	freeReplyObject(run(step));
	expect_stored(NULL);
}
END_TEST

START_TEST(members_of_others_are_kept)
{
	set("{\"x\":[ ],\"state\":\"open\",\"failureCount\":1,\"successCount\":0,"
	    "\"lastFailureTime\":5,\"lastStateChange\":6,\"n\":1.00}");
	freeReplyObject(run("w 2 1 0 0 1 3 9 8 0"));
	expect_stored("{\"state\":\"open\",\"failureCount\":3,\"successCount\":1,"
		      "\"lastFailureTime\":8,\"lastStateChange\":6,\"x\":[ ],\"n\":1.00}");
	ck_assert_int_ge(redis_integer(redis, "TTL k"), TTL - 5);
}
END_TEST

START_TEST(another_type_is_left_alone)
{
	redisReply *reply;

	redis_run(redis, "DEL k");
	redis_run(redis, "RPUSH k a");
	reply = run("w 2 1 0 0 1 3 9 8 0");
	ck_assert_int_eq(reply->element[0]->type, REDIS_REPLY_ERROR);
	freeReplyObject(reply);
	reply = redis_reply(redis, "TYPE k");
	ck_assert_str_eq(reply->str, "list");
	freeReplyObject(reply);
	redis_run(redis, "DEL k");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("circuit_fold_lua");
	TCase *tc = tcase_create("fold");

	tcase_add_unchecked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, the_script_folds_as_the_function_does);
	tcase_add_test(tc, a_success_recorded_since_keeps_a_circuit_from_its_reset);
	tcase_add_loop_test(tc, a_circuit_whose_age_is_not_told_is_not_reset, 0, 2);
	tcase_add_test(tc, members_of_others_are_kept);
	tcase_add_test(tc, another_type_is_left_alone);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
