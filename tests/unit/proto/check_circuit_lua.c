/*
 * proto/circuit.lua, on a real redis-server.
 */
#include "cases.h"
#include "proto/circuit_script.h"
#include "redis_server.h"
#include "script_op.h"
#include "suite.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEY     "stoma:cb:k"
#define OLD_TTL 1000
#define TTL_S   5000
#define TTL     "5000000"
#define NOTHING 3 /* the script's digit for no value; the others are enum circuit_stored */

extern const char circuit_lua[];

static struct redis_server_process server;
static redisContext *redis;
static char sha[64];

static void setup(void)
{
	redisReply *reply;

	redis_server_start(&server, NULL);
	redis = redis_server_connect(&server);
	reply = redis_reply(redis, "SCRIPT LOAD %s", circuit_lua);
	ck_assert_msg(reply->type == REDIS_REPLY_STRING, "%s", reply->str);
	snprintf(sha, sizeof(sha), "%s", reply->str);
	freeReplyObject(reply);
}

static void teardown(void)
{
	redisFree(redis);
	redis_server_stop(&server);
}

struct answer {
	int stored;
	bool conflict;
	enum circuit_state was;
	struct circuit circuit;
};

/* The operations' results, computed from the script's answer as the store does it. */
static void answers_of(const redisReply *reply, const char *ops, struct answer *answers)
{
	struct circuit_script_answer found;
	bool exists;

	ck_assert_msg(reply->type == REDIS_REPLY_STRING, "no string but type %d: %s", reply->type,
		      reply->str ? reply->str : "");
	ck_assert_msg(circuit_script_read(reply->str, reply->len, &found), "%s", reply->str);
	exists = found.exists;
	for (; *ops; ops++, answers++) {
		struct circuit_op op = script_op(*ops);
		enum circuit_effect effect;

		answers->stored = reply->str[0] - '0';
		answers->was = exists ? found.circuit.state : CIRCUIT_CLOSED;
		effect = circuit_apply(&found.circuit, exists, &op, found.now_ms);
		answers->conflict = effect == CIRCUIT_CONFLICT;
		answers->circuit = found.circuit;
		exists = effect == CIRCUIT_WRITTEN || (exists && effect != CIRCUIT_REMOVED);
	}
}

/* Runs one operation, given by its letter, on KEY. */
static struct answer apply(const char *letter)
{
	redisReply *reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " %s", sha, letter);
	struct answer a;

	ck_assert_msg(reply->type == REDIS_REPLY_ARRAY && reply->elements == 1, "%s",
		      reply->str ? reply->str : "not one answer");
	answers_of(reply->element[0], letter, &a);
	freeReplyObject(reply);
	return a;
}

static void store(const char *value, size_t len)
{
	redis_run(redis, "SET " KEY " %b EX %d", value, len, OLD_TTL);
}

static void check_circuit(const struct circuit *is, const struct circuit *should, const char *name)
{
	ck_assert_msg(is->state == should->state, "%s: state %d", name, is->state);
	ck_assert_msg(is->failure_count == should->failure_count, "%s: failureCount %" PRId64, name,
		      is->failure_count);
	ck_assert_msg(is->success_count == should->success_count, "%s: successCount %" PRId64, name,
		      is->success_count);
	ck_assert_msg(is->last_failure_time == should->last_failure_time,
		      "%s: lastFailureTime %" PRId64, name, is->last_failure_time);
	ck_assert_msg(is->last_state_change == should->last_state_change,
		      "%s: lastStateChange %" PRId64, name, is->last_state_change);
}

static void check_value(const char *name, const char *should, size_t len)
{
	redisReply *reply = redis_reply(redis, "GET " KEY);

	ck_assert_msg(reply->type == (should ? REDIS_REPLY_STRING : REDIS_REPLY_NIL),
		      "%s: a value is %sthere", name, should ? "not " : "");
	if (should)
		ck_assert_msg((size_t)reply->len == len && memcmp(reply->str, should, len) == 0,
			      "%s: stored %s, not %s", name, reply->str, should);
	freeReplyObject(reply);
}

/* --- the cases --- */

static void check_stored(const struct circuit_case *row, int64_t now)
{
	char *text;
	size_t len;

	switch (row->after) {
	case CASE_AFTER_UNCHANGED:
		check_value(row->name, row->before, row->before_len);
		break;
	case CASE_AFTER_NOTHING:
		check_value(row->name, NULL, 0);
		break;
	case CASE_AFTER_TEXT:
		text = cases_after(row, now, &len);
		check_value(row->name, text, len);
		free(text);
		break;
	}
}

static void check_ttl(const struct circuit_case *row)
{
	int64_t ttl = redis_integer(redis, "TTL " KEY);
	int64_t most = row->effect == CIRCUIT_WRITTEN ? TTL_S : OLD_TTL;

	if (row->effect == CIRCUIT_REMOVED || (row->effect != CIRCUIT_WRITTEN && !row->before))
		ck_assert_msg(ttl == -2, "%s: it is still there", row->name);
	else
		ck_assert_msg(ttl <= most && ttl > most - 100, "%s: lives on for %" PRId64 " s",
			      row->name, ttl);
}

static void check_case(const struct circuit_case *row)
{
	static const int stored[] = {
		[CASE_ABSENT] = NOTHING,
		[CASE_SOUND] = CIRCUIT_STORED_SOUND,
		[CASE_REPAIRED] = CIRCUIT_STORED_REPAIRED,
		[CASE_NONE] = CIRCUIT_STORED_NONE,
	};
	struct circuit before = {0}, expected;
	const char letter[] = {circuit_script_letter(&row->op), '\0'};
	int64_t from, to, now = 0;
	struct answer a;

	redis_run(redis, "DEL " KEY);
	if (row->before) {
		store(row->before, row->before_len);
		circuit_json_decode_stored(row->before, row->before_len, &before);
	}
	from = redis_now_ms(redis);
	a = apply(letter);
	to = redis_now_ms(redis);
	ck_assert_msg(a.stored == stored[row->found], "%s: found %d", row->name, a.stored);
	ck_assert_msg(a.conflict == (row->effect == CIRCUIT_CONFLICT), "%s: conflict", row->name);
	ck_assert_msg(a.was == before.state, "%s: was %d", row->name, a.was);
	if (row->state_change_is_now)
		now = a.circuit.last_state_change;
	else if (row->failure_time_is_now)
		now = a.circuit.last_failure_time;
	if (row->state_change_is_now || row->failure_time_is_now)
		ck_assert_msg(now >= from && now <= to, "%s: now is %" PRId64, row->name, now);
	expected = cases_expected(row, now);
	if (row->effect != CIRCUIT_REMOVED)
		check_circuit(&a.circuit, &expected, row->name);
	check_stored(row, now);
	check_ttl(row);
}

START_TEST(every_case)
{
	struct cases cases;

	cases_load(&cases);
	for (size_t i = 0; i < cases.count; i++)
		check_case(&cases.rows[i]);
	cases_free(&cases);
}
END_TEST

/* --- calls --- */

START_TEST(one_call_for_several_circuits)
{
	redisReply *reply;
	struct answer a[3];

	redis_run(redis, "RPUSH list x");
	redis_run(redis, "SET b %s", "{\"state\":\"open\",\"n\":1}");
	reply = redis_reply(redis, "EVALSHA %s 3 a list b 60 fsE ssd Hs", sha);
	ck_assert_int_eq(reply->type, REDIS_REPLY_ARRAY);
	ck_assert_uint_eq(reply->elements, 3);

	answers_of(reply->element[0], "fsE", a);
	ck_assert_int_eq(a[0].stored, NOTHING);
	ck_assert_int_eq(a[0].circuit.failure_count, 1);
	ck_assert_int_eq(a[0].circuit.success_count, 0);
	ck_assert_int_eq(a[1].circuit.success_count, 1);
	ck_assert_int_eq(a[2].was, CIRCUIT_CLOSED);
	ck_assert_int_eq(a[2].circuit.state, CIRCUIT_OPEN);

	ck_assert_int_eq(reply->element[1]->type, REDIS_REPLY_ERROR);
	ck_assert_int_eq(strncmp(reply->element[1]->str, "WRONGTYPE ", 10), 0);

	answers_of(reply->element[2], "Hs", a);
	ck_assert_int_eq(a[0].stored, CIRCUIT_STORED_REPAIRED);
	ck_assert(a[0].conflict);
	ck_assert_int_eq(a[0].circuit.state, CIRCUIT_OPEN);
	ck_assert_int_eq(a[1].circuit.success_count, 1);
	freeReplyObject(reply);

	ck_assert_int_eq(redis_integer(redis, "LLEN list"), 1);
	ck_assert_int_eq(redis_integer(redis, "TTL list"), -1);
	reply = redis_reply(redis, "GET b");
	ck_assert_str_eq(reply->str, "{\"state\":\"open\",\"failureCount\":0,\"successCount\":1,"
				     "\"lastFailureTime\":0,\"lastStateChange\":0,\"n\":1}");
	freeReplyObject(reply);
	ck_assert_int_eq(redis_integer(redis, "DBSIZE"), 3);
}
END_TEST

/* A value may have 64 KiB, before and after the write. A larger one is an error for that circuit,
 * not for the whole call. */
START_TEST(a_large_value_is_left_alone)
{
	static const char *const letters[] = {"g", "s", "f", "d", "F", "w 1 0 0 0 1 3 0 5 0"};
	static char value[65537 + 1];
	redisReply *reply;

	for (size_t len = 65536 - 1; len <= 65537; len++) {
		memset(value, 'x', len);
		memcpy(value, "{\"n\":\"", 6);
		memcpy(value + len - 2, "\"}", 2);
		for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++) {
			bool fits = len <= 65536 && *letters[i] == 'g';
			bool gone = len <= 65536 && *letters[i] == 'd';

			store(value, len);
			reply = redis_reply(redis, "EVALSHA %s 2 " KEY " other " TTL " %s f", sha,
					    letters[i]);
			ck_assert_int_eq(reply->type, REDIS_REPLY_ARRAY);
			ck_assert_uint_eq(reply->elements, 2);
			ck_assert_int_eq(reply->element[0]->type,
					 fits || gone ? REDIS_REPLY_STRING : REDIS_REPLY_ERROR);
			if (!fits && !gone)
				ck_assert_int_eq(strncmp(reply->element[0]->str, "TOOLARGE ", 9),
						 0);
			ck_assert_int_eq(reply->element[1]->type, REDIS_REPLY_STRING);
			check_value(letters[i], gone ? NULL : value, len);
			freeReplyObject(reply);
		}
	}
}
END_TEST

START_TEST(operations_on_one_circuit_in_order)
{
	redisReply *reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " fdgsf", sha);
	struct answer a[5];

	ck_assert_uint_eq(reply->elements, 1);
	answers_of(reply->element[0], "fdgsf", a);
	ck_assert_int_eq(a[2].circuit.failure_count, 0);
	ck_assert_int_gt(a[2].circuit.last_state_change, 0);
	ck_assert_int_eq(a[4].circuit.failure_count, 1);
	ck_assert_int_eq(a[4].circuit.success_count, 1);
	freeReplyObject(reply);

	reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " fd", sha);
	freeReplyObject(reply);
	check_value("removed last", NULL, 0);
}
END_TEST

/* Random operations, many to a call: the stored circuit is what they make one by one. */
START_TEST(many_operations_come_to_what_each_does)
{
	static const char letters[] = "gsfdABCDEFGHIJKLffffssss";
	unsigned random = 20250102;

	for (int round = 0; round < 2000; round++) {
		struct answer a[40] = {0};
		struct circuit stored;
		char ops[41];
		size_t count = 1 + (size_t)rand_r(&random) % 40;
		redisReply *reply, *value;

		for (size_t i = 0; i < count; i++)
			ops[i] = i && rand_r(&random) % 2
					 ? ops[i - 1]
					 : letters[(size_t)rand_r(&random) % (sizeof(letters) - 1)];
		ops[count] = '\0';
		reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " %s", sha, ops);
		ck_assert_int_eq(reply->type, REDIS_REPLY_ARRAY);
		answers_of(reply->element[0], ops, a);
		value = redis_reply(redis, "GET " KEY);
		if (value->type == REDIS_REPLY_STRING) {
			ck_assert_int_eq(circuit_json_decode_stored(value->str, value->len,
								    &stored),
					 CIRCUIT_STORED_SOUND);
			check_circuit(&stored, &a[count - 1].circuit, ops);
		} else {
			ck_assert_msg(strpbrk(ops, "gd") || a[count - 1].conflict, "%s", ops);
		}
		freeReplyObject(value);
		freeReplyObject(reply);
	}
}
END_TEST

START_TEST(another_type_is_left_alone)
{
	static const char *const letters[] = {"g", "s", "f", "d", "A", "F", "L"};

	redis_run(redis, "RPUSH " KEY " x");
	for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++) {
		redisReply *reply =
			redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " %s", sha, letters[i]);

		ck_assert_int_eq(reply->type, REDIS_REPLY_ARRAY);
		ck_assert_uint_eq(reply->elements, 1);
		ck_assert_int_eq(reply->element[0]->type, REDIS_REPLY_ERROR);
		ck_assert_int_eq(strncmp(reply->element[0]->str, "WRONGTYPE ", 10), 0);
		freeReplyObject(reply);
	}
	ck_assert_int_eq(redis_integer(redis, "LLEN " KEY), 1);
	ck_assert_int_eq(redis_integer(redis, "TTL " KEY), -1);
}
END_TEST

/* An error of the server is the whole call's error, in Redis's words: so the link recognizes it. */
START_TEST(a_full_server_says_so)
{
	redisReply *reply;

	store("{}", 2);
	redis_run(redis, "CONFIG SET maxmemory 1");
	reply = redis_reply(redis, "EVALSHA %s 2 " KEY " other " TTL " s f", sha);
	ck_assert_int_eq(reply->type, REDIS_REPLY_ERROR);
	ck_assert_msg(strncmp(reply->str, "OOM ", 4) == 0, "%s", reply->str);
	freeReplyObject(reply);
	reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " d", sha);
	ck_assert_int_eq(reply->type, REDIS_REPLY_ARRAY);
	freeReplyObject(reply);
	redis_run(redis, "CONFIG SET maxmemory 0");
	ck_assert_int_eq(redis_integer(redis, "DBSIZE"), 0);
}
END_TEST

START_TEST(a_replica_says_so)
{
	redisReply *reply;

	redis_run(redis, "REPLICAOF 127.0.0.1 1");
	reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " f", sha);
	ck_assert_int_eq(reply->type, REDIS_REPLY_ERROR);
	ck_assert_msg(strncmp(reply->str, "READONLY ", 9) == 0, "%s", reply->str);
	freeReplyObject(reply);
}
END_TEST

START_TEST(no_permission_says_so)
{
	redisReply *reply;

	redis_run(redis, "ACL SETUSER default -set");
	reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " f", sha);
	ck_assert_int_eq(reply->type, REDIS_REPLY_ERROR);
	ck_assert_msg(strcasestr(reply->str, "user") != NULL, "%s", reply->str);
	freeReplyObject(reply);
	redis_run(redis, "ACL SETUSER default +set -time");
	reply = redis_reply(redis, "EVALSHA %s 2 a b " TTL " f f", sha);
	ck_assert_int_eq(reply->type, REDIS_REPLY_ERROR);
	freeReplyObject(reply);
	ck_assert_int_eq(redis_integer(redis, "DBSIZE"), 0);

	/* On a circuit that exists, a failure needs TIME; reads, successes and resets do not. */
	store("{}", 2);
	reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " f", sha);
	ck_assert_int_eq(reply->type, REDIS_REPLY_ERROR);
	freeReplyObject(reply);
	check_value("no permission", "{}", 2);
	reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " gssd", sha);
	ck_assert_int_eq(reply->type, REDIS_REPLY_ARRAY);
	ck_assert_int_eq(reply->element[0]->type, REDIS_REPLY_STRING);
	freeReplyObject(reply);
	check_value("no permission", NULL, 0);
}
END_TEST

/* --- the time to live of a circuit with an override --- */

static void store_member(const char *member)
{
	char value[512];
	int len = snprintf(value, sizeof(value),
			   "{\"state\":\"closed\",\"failureCount\":0,\"successCount\":0,"
			   "\"lastFailureTime\":0,\"lastStateChange\":5,\"breakerd\":\"%s\"}",
			   member);

	store(value, (size_t)len);
}

static int64_t ttl_after(const char *ops)
{
	redisReply *reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " %s", sha, ops);

	ck_assert_msg(reply->type == REDIS_REPLY_ARRAY &&
			      reply->element[0]->type == REDIS_REPLY_STRING,
		      "%s: %s", ops, reply->str ? reply->str : reply->element[0]->str);
	freeReplyObject(reply);
	return redis_integer(redis, "TTL " KEY);
}

static const char *const writing[] = {"s",   "f",   "ss",
				      "sf",  "E",   "I",
				      "m;s", "m;E", "w 1 0 0 0 1 3 0 5 0"};

START_TEST(a_circuit_lives_as_long_as_its_override)
{
	int64_t now = (int64_t)time(NULL) * 1000;
	char member[128];

	for (size_t i = 0; i < sizeof(writing) / sizeof(writing[0]); i++) {
		int64_t left;

		snprintf(member, sizeof(member), "1 0 5 0 0 0 0 o1.%" PRId64 ".%" PRId64 ":61", now,
			 now + 200000000);
		store_member(member);
		left = ttl_after(writing[i]);
		ck_assert_msg(left > 199000 && left <= 200001, "%s: %" PRId64, writing[i], left);
		/* An override that is over, and one that begins in the far future. */
		store_member("1 0 5 0 0 0 0 o1.1700000000000.1700000060000:61");
		ck_assert_int_le(ttl_after(writing[i]), TTL_S);
		store_member("1 0 5 0 0 0 0 o1.99999999000000.99999999999999:61");
		ck_assert_int_le(ttl_after(writing[i]), 2592000);
	}
}
END_TEST

START_TEST(a_member_that_is_none_of_ours_has_no_override)
{
	static const char *const members[] = {
		"2 whatever o1.5.9999999999999999999999:",
		"2 whatever o1.1700000000000.9999999999999:61",
		"1 0 5 0 0 0 0 o1.5.9999999999999999999999:61",
		"1 0 5 0 0 0 0 o1.5.99999999999999:61",
		"1 0 5 0 0 0 0 o1.5.9999999999999:6",
		"o1.5.9999999999999:61 o1.5.9999999999999:61",
	};

	for (size_t n = 0; n < sizeof(members) / sizeof(members[0]); n++) {
		for (size_t i = 0; i < sizeof(writing) / sizeof(writing[0]); i++) {
			store_member(members[n]);
			ck_assert_msg(ttl_after(writing[i]) <= TTL_S, "%s: %s", members[n],
				      writing[i]);
		}
	}
}
END_TEST

/* A write to a circuit with an override needs TIME. If TIME is forbidden, the other circuits of the
 * call still succeed. */
START_TEST(no_permission_for_the_time_amid_a_call)
{
	redisReply *reply;

	store_member("1 0 5 0 0 0 0 o1.1700000000000.1700000060000:61");
	redis_run(redis, "SET plain {}");
	redis_run(redis, "ACL SETUSER default -time");
	reply = redis_reply(redis, "EVALSHA %s 2 plain " KEY " " TTL " s s", sha);
	ck_assert_msg(reply->type == REDIS_REPLY_ARRAY, "%s", reply->str);
	ck_assert_int_eq(reply->element[0]->type, REDIS_REPLY_STRING);
	ck_assert_int_eq(reply->element[1]->type, REDIS_REPLY_ERROR);
	ck_assert_msg(!strstr(reply->element[1]->str, "user_script"), "%s", reply->element[1]->str);
	freeReplyObject(reply);
	reply = redis_reply(redis, "EVALSHA %s 1 " KEY " " TTL " %s", sha, "w 1 0 0 0 1 3 0 5 0");
	ck_assert_int_eq(reply->type, REDIS_REPLY_ERROR);
	freeReplyObject(reply);
	ck_assert_int_le(redis_integer(redis, "TTL " KEY), OLD_TTL);
}
END_TEST

/* --- Lua and C read the same --- */

struct text {
	char bytes[16384];
	size_t len;
};

static uint64_t seed;

/* splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014) */
static unsigned below(unsigned bound)
{
	uint64_t z = seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (unsigned)((z ^ z >> 31) % bound);
}

static void add(struct text *t, const char *s, size_t len)
{
	if (t->len + len > sizeof(t->bytes))
		return;
	memcpy(t->bytes + t->len, s, len);
	t->len += len;
}

static void puts_to(struct text *t, const char *s)
{
	add(t, s, strlen(s));
}

#define ONE_OF(t, list) puts_to((t), (list)[below(sizeof(list) / sizeof((list)[0]))])

static void put_blank(struct text *t)
{
	static const char *const blanks[] = {" ", "\t", "\n", "\r", " \r\n\t ", "\f", "\v"};

	if (below(8) == 0)
		puts_to(t, blanks[below(below(100) ? 5 : 7)]);
}

static void put_number(struct text *t)
{
	static const char *const numbers[] = {
		"0",
		"-0",
		"-0.0",
		"3.0",
		"1.7e12",
		"1.7E+12",
		"17e-1",
		"170e-1",
		"9007199254740991",
		"9007199254740992",
		"9007199254740990.5",
		"9007199254740991.4",
		"9007199254740991.5",
		"90071992547409910e-1",
		"999999999999999",
		"1000000000000000",
		"1e400",
		"-1e400",
		"1e-400",
		"-1e-400",
		"0e999999999999999999999",
		"0.0000000000000000000000000001e28",
		"-1",
		"0.1",
		"1e15",
		"1e16",
		"00",
		"01",
		"-01",
		"1.",
		".5",
		"+1",
		"1e",
		"1e+",
		"0x10",
		"0x1p3",
		"inf",
		"nan",
		"-",
		"--1",
		"1_000",
		"18446744073709551616",
	};

	if (below(4) != 0) {
		char buf[32];

		snprintf(buf, sizeof(buf), "%u%0*u", 1 + below(1000), (int)below(14), below(10));
		puts_to(t, buf);
	} else if (below(40) == 0) {
		/* A token longer than any fixed buffer. */
		puts_to(t, "1.");
		for (unsigned n = below(2000); n > 0; n--)
			puts_to(t, "0");
		ONE_OF(t, ((const char *const[]){"", "1", "e0", "e12", "1e3"}));
	} else {
		ONE_OF(t, numbers);
	}
}

static void put_string(struct text *t)
{
	static const char *const pieces[] = {
		"a",    "closed", "open",    "half-open", "\\\"",       "\\\\", "\\/",
		"\\n",  "\\u00",  "\\u0061", "\\ud800",   "\\u0000",    "\xff", "\xc3\xa9",
		"\x7f", "\\x",    "\\u12G4", "\\U0061",   "\\u006Fpen", "{",    "]",
	};

	puts_to(t, "\"");
	for (unsigned n = below(4); n > 0; n--)
		ONE_OF(t, pieces);
	if (below(30) == 0)
		add(t, &(char){(char)below(256)}, 1);
	puts_to(t, "\"");
}

static void put_value(struct text *t, unsigned depth);

static void put_members(struct text *t, unsigned depth, bool top)
{
	static const char *const names[] = {
		"\"state\"",
		"\"failureCount\"",
		"\"successCount\"",
		"\"lastFailureTime\"",
		"\"lastStateChange\"",
		"\"\\u0073tate\"",
		"\"stat\\u0065\"",
		"\"failure\\u0043ount\"",
		"\"failure\\u0063ount\"",
		"\"\\\\u0073tate\"",
		"\"sta\\te\"",
		"\"State\"",
		"\"state\\u0000\"",
		"\"\"",
	};
	static const char *const states[] = {
		"\"closed\"",
		"\"open\"",
		"\"half-open\"",
		"\"o\\u0070en\"",
		"\"half\\u002dopen\"",
		"\"closed\"",
		"\"open\"",
		"\"OPEN\"",
		"open",
		"\"half_open\"",
		"\"\\u006fpe\"",
		"null",
	};
	unsigned all = top && below(3) ? 5 : 0;
	unsigned count = all + below(top ? 6 : 3);

	for (unsigned i = 0; i < count; i++) {
		unsigned n = i < all ? i : below(sizeof(names) / sizeof(names[0]));

		if (i > 0)
			puts_to(t, ",");
		put_blank(t);
		if (below(4) == 0 && i >= all)
			put_string(t);
		else
			puts_to(t, names[n]);
		put_blank(t);
		puts_to(t, ":");
		put_blank(t);
		if (below(16) == 0)
			put_value(t, depth + 1);
		else if (n == 0 || n == 5 || n == 6)
			ONE_OF(t, states);
		else
			put_number(t);
		put_blank(t);
	}
}

static void put_value(struct text *t, unsigned depth)
{
	static const char *const words[] = {"true", "false", "null", "nul", "True", "[ ]", "{ }"};

	switch (below(depth > 4 ? 3 : 5)) {
	case 0:
		put_number(t);
		break;
	case 1:
		put_string(t);
		break;
	case 2:
		ONE_OF(t, words);
		break;
	case 3:
		puts_to(t, "[");
		for (unsigned n = below(4); n > 0; n--) {
			put_value(t, depth + 1);
			put_blank(t);
			puts_to(t, n > 1 ? "," : "");
		}
		puts_to(t, "]");
		break;
	case 4:
		puts_to(t, "{");
		put_members(t, depth, false);
		puts_to(t, "}");
		break;
	}
}

/* Nearly the form that breakerd writes, for which the script has a fast pattern. */
static void put_plain(struct text *t)
{
	static const char *const states[] = {"closed", "open", "half-open", "halfopen", "-"};

	puts_to(t, "{\"state\":\"");
	ONE_OF(t, states);
	puts_to(t, "\",\"failureCount\":");
	put_number(t);
	puts_to(t, ",\"successCount\":");
	put_number(t);
	puts_to(t, ",\"lastFailureTime\":");
	put_number(t);
	puts_to(t, ",\"lastStateChange\":");
	put_number(t);
	puts_to(t, "}");
}

static void put_deep(struct text *t)
{
	unsigned depth = CIRCUIT_JSON_DEPTH - 3 + below(6);
	bool open = below(4) == 0, objects = below(2) == 0;

	puts_to(t, "{\"x\":");
	for (unsigned i = 1; i < depth; i++)
		puts_to(t, objects ? "{\"\":" : "[");
	puts_to(t, objects || below(2) ? "1" : "");
	for (unsigned i = 1; i < depth - open; i++)
		puts_to(t, objects ? "}" : "]");
	puts_to(t, "}");
}

static void mutate(struct text *t)
{
	static const char *const pieces[] = {"\"", "\\", "{", "}", "[", "]", ",",   ":",
					     "0",  "-",  "e", ".", " ", "/", "\x01"};
	size_t at = t->len ? below((unsigned)t->len) : 0;

	switch (below(4)) {
	case 0:
		if (t->len > 0)
			memmove(t->bytes + at, t->bytes + at + 1, --t->len - at);
		break;
	case 1:
		if (t->len > 0)
			t->bytes[at] = (char)below(256);
		break;
	case 2:
		t->len = at;
		break;
	case 3:
		if (t->len > 0)
			t->bytes[at] = pieces[below(sizeof(pieces) / sizeof(pieces[0]))][0];
		break;
	}
}

static void make_value(struct text *t)
{
	t->len = 0;
	switch (below(8)) {
	case 0:
	case 1:
		put_plain(t);
		break;
	case 2:
		if (below(4) == 0)
			put_deep(t);
		else
			put_value(t, 0);
		break;
	default:
		put_blank(t);
		puts_to(t, "{");
		put_members(t, 0, true);
		puts_to(t, "}");
		put_blank(t);
		break;
	}
	if (below(4) == 0)
		for (unsigned n = 1 + below(3); n > 0; n--)
			mutate(t);
}

static void compare_readings(const struct text *t, unsigned *seen)
{
	struct circuit c = {0}, again;
	enum circuit_stored stored = circuit_json_decode_stored(t->bytes, t->len, &c);
	char what[512];
	struct answer a;
	redisReply *reply;

	snprintf(what, sizeof(what), "%.*s", (int)t->len, t->bytes);
	store(t->bytes, t->len);
	a = apply("g");
	ck_assert_msg(a.stored == (int)stored, "C says %d, Lua %d: %s", stored, a.stored, what);
	seen[stored]++;
	if (stored != CIRCUIT_STORED_NONE)
		check_circuit(&a.circuit, &c, what);

	/* A success then writes a sound value, which has the success counted. */
	a = apply("s");
	reply = redis_reply(redis, "GET " KEY);
	ck_assert_msg(circuit_json_decode_stored(reply->str, reply->len, &again) ==
			      CIRCUIT_STORED_SOUND,
		      "wrote %s for %s", reply->str, what);
	check_circuit(&a.circuit, &again, what);
	if (stored != CIRCUIT_STORED_NONE && c.success_count < CIRCUIT_INT_MAX)
		c.success_count++;
	if (stored != CIRCUIT_STORED_NONE)
		check_circuit(&again, &c, what);
	freeReplyObject(reply);
}

START_TEST(lua_reads_as_c_does)
{
	unsigned seen[3] = {0};
	struct text *t = malloc(sizeof(*t));

	seed = 20250101;
	for (int i = 0; i < 6000; i++) {
		make_value(t);
		compare_readings(t, seen);
	}
	free(t);
	/* The generator made enough values of each kind. */
	for (int i = 0; i < 3; i++)
		ck_assert_msg(seen[i] > 300, "%u, %u, %u", seen[0], seen[1], seen[2]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("circuit.lua");
	TCase *t = tcase_create("circuit.lua");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, every_case);
	tcase_add_test(t, one_call_for_several_circuits);
	tcase_add_test(t, a_large_value_is_left_alone);
	tcase_add_test(t, operations_on_one_circuit_in_order);
	tcase_add_test(t, many_operations_come_to_what_each_does);
	tcase_add_test(t, another_type_is_left_alone);
	tcase_add_test(t, a_full_server_says_so);
	tcase_add_test(t, a_replica_says_so);
	tcase_add_test(t, no_permission_says_so);
	tcase_add_test(t, a_circuit_lives_as_long_as_its_override);
	tcase_add_test(t, a_member_that_is_none_of_ours_has_no_override);
	tcase_add_test(t, no_permission_for_the_time_amid_a_call);
	tcase_add_test(t, lua_reads_as_c_does);
	suite_add_tcase(s, t);
	return suite_run(s);
}
