/*
 * daemon/redis/store.c, reads.c, writes.c, fold.c, list.c and events.c, on a real redis-server.
 */
#include "base/log.h"
#include "base/metrics.h"
#include "default_policy.h"
#include "fake_redis.h"
#include "proto/circuit_json.h"
#include "redis/store.h"
#include "redis/target.h"
#include "redis_server.h"
#include "store/driver.h"
#include "store_contract.h"
#include "suite.h"
#include "wait.h"

#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define PATIENCE_MS 10000

static struct redis_server_process server; /* one for all tests, which each test empties first */
static redisContext *redis;
static struct event_base *base;
static struct store *store;
static struct metrics *metrics;
static unsigned warnings;
static char warning[LOG_LINE_MAX + 1];

/* --- talking to the server --- */

#define RUN(...) redis_run(redis, __VA_ARGS__)

static int64_t now_ms(void)
{
	return redis_now_ms(redis);
}

/* The number that follows `name`, which includes ":" or "=", in INFO. */
static int64_t info(const char *section, const char *name)
{
	redisReply *reply = redis_reply(redis, "INFO %s", section);
	char *at = strstr(reply->str, name);
	int64_t n = at ? strtoll(at + strlen(name), NULL, 10) : 0;

	ck_assert_int_eq(reply->type, REDIS_REPLY_STRING);
	freeReplyObject(reply);
	return n;
}

static void start_server(void)
{
	redis_server_start(&server, NULL);
}

static void stop_server(void)
{
	redis_server_stop(&server);
}

/* --- the store --- */

static bool has_condition(enum store_condition condition)
{
	struct store_health health;

	store_health(store, &health);
	return health.condition == condition;
}

static void wait_for(enum store_condition condition)
{
	WAIT_UNTIL(base, PATIENCE_MS, has_condition(condition), "the store's condition");
}

static void on_line(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	if (level != LOG_LEVEL_WARNING || !strstr(line, "corrupt_entry"))
		return;
	warnings++;
	snprintf(warning, sizeof(warning), "%s", line);
}

static struct log test_log = {.level = LOG_LEVEL_INFO, .sink = on_line};

static void open_store(const char *url, const char *prefix, struct store_limits limits)
{
	struct redis_target target;
	char why[256];

	ck_assert_msg(redis_target_parse(url, &target, why, sizeof(why)), "%s", why);
	store = store_redis_new(base, &target, prefix, &limits, metrics, &test_log);
	ck_assert_ptr_nonnull(store);
}

static void open_ready(const char *prefix)
{
	open_store(server.store, prefix, store_test_limits());
	wait_for(STORE_READY);
}

/* A ready store, whose operations have 100 ms, on a server that is stopped now. */
static struct store_limits open_frozen(void)
{
	struct store_limits limits = store_test_limits();

	limits.timeout_ms = 100;
	open_store(server.store, "stoma:", limits);
	wait_for(STORE_READY);
	kill(server.pid, SIGSTOP);
	return limits;
}

static void setup(void)
{
	base = event_base_new();
	metrics = calloc(1, sizeof(*metrics));
	kill(server.pid, SIGCONT); /* a test that failed may have left the server frozen */
	redis = redis_server_connect(&server);
	store = NULL;
	warnings = 0;
	RUN("FLUSHALL");
}

static void teardown(void)
{
	store_free(store);
	redisFree(redis);
	free(metrics);
	event_base_free(base);
}

static struct circuit do_ok(const char *key, struct circuit_op op)
{
	return store_do(base, store, key, op, STORE_OK).circuit;
}

/* Many operations at once. */

struct answer {
	struct store_op *op; /* NULL once the answer has come */
	unsigned count;
	struct store_result result;
	char message[256];
	struct answer *cancels; /* what the callback cancels, or NULL */
};

static unsigned waiting;

static void keep(struct answer *a, const struct store_result *result)
{
	a->op = NULL;
	a->count++;
	a->result = *result;
	snprintf(a->message, sizeof(a->message), "%s", result->message ? result->message : "");
}

static void on_answer(void *arg, struct store_result *result)
{
	struct answer *a = arg;

	keep(a, result);
	waiting--;
	if (a->cancels && a->cancels->op) {
		store_cancel(a->cancels->op);
		a->cancels->op = NULL;
		waiting--;
	}
}

static void submit_request(struct answer *a, const struct store_request *request)
{
	struct store_result result;

	memset(a, 0, sizeof(*a));
	a->op = store_submit(store, request, on_answer, a, &result);
	if (a->op)
		waiting++;
	else
		keep(a, &result);
}

static void submit(struct answer *a, const char *key, struct circuit_op op)
{
	struct store_request request = {.key = key, .key_len = strlen(key), .op = op};

	submit_request(a, &request);
}

/* Submits an operation without a deadline, as held-back successes are. */
static void submit_in_background(struct answer *a, const char *key, struct circuit_op op)
{
	struct store_request request = {.key = key,
					.key_len = strlen(key),
					.op = op,
					.background = true};

	submit_request(a, &request);
}

static void wait_for_all(void)
{
	WAIT_UNTIL(base, PATIENCE_MS, waiting == 0, "the answers");
}

/* --- the contract of every store --- */

static struct store *contract_open(struct event_base *on, const struct store_limits *limits)
{
	struct store *opened;

	base = on;
	metrics = NULL;
	redis = redis_server_connect(&server);
	RUN("FLUSHALL");
	open_store(server.store, "stoma:", *limits);
	wait_for(STORE_READY);
	opened = store;
	return opened;
}

static void contract_close(void)
{
	redisFree(redis);
}

static const struct store_fixture contract = {
	.open = contract_open,
	.close = contract_close,
	.now_ms = now_ms,
};

/* --- operations --- */

START_TEST(the_layout_is_stomas)
{
	struct circuit c;
	redisReply *reply;

	open_ready("stoma:");
	RUN("SET %s %s", "stoma:cb:/api/users",
	    "{\"state\":\"open\",\"failureCount\":3,\"successCount\":4,"
	    "\"lastFailureTime\":5,\"lastStateChange\":6,\"tags\":[],\"w\":1.50}");
	c = do_ok("/api/users", OP_GET);
	ck_assert_int_eq(c.state, CIRCUIT_OPEN);
	ck_assert_int_eq(c.last_state_change, 6);
	c = do_ok("/api/users", OP_SUCCESS);
	ck_assert_int_eq(c.success_count, 5);
	reply = redis_reply(redis, "GET stoma:cb:/api/users");
	ck_assert_str_eq(reply->str,
			 "{\"state\":\"open\",\"failureCount\":3,\"successCount\":5,"
			 "\"lastFailureTime\":5,\"lastStateChange\":6,\"tags\":[],\"w\":1.50}");
	freeReplyObject(reply);
	ck_assert_uint_eq(metrics->corrupt_entries, 0);
	do_ok("/api/users", OP_RESET);
	ck_assert_int_eq(redis_integer(redis, "DBSIZE"), 0);
}
END_TEST

START_TEST(writes_renew_the_time_to_live)
{
	struct store_limits limits = store_test_limits();

	open_ready("stoma:");
	do_ok("k", OP_FAILURE);
	ck_assert_int_gt(redis_integer(redis, "TTL stoma:cb:k"), 3500);
	limits.ttl_ms = 70000;
	store_reconfigure(store, &limits);
	do_ok("k", OP_GET);
	store_do(base, store, "k", OP_FROM_TO(CIRCUIT_OPEN, CIRCUIT_CLOSED), STORE_CONFLICT);
	ck_assert_int_gt(redis_integer(redis, "TTL stoma:cb:k"), 3500);
	do_ok("k", OP_SUCCESS);
	ck_assert_int_le(redis_integer(redis, "TTL stoma:cb:k"), 70);
}
END_TEST

START_TEST(every_transition_reaches_the_script)
{
	open_ready("");
	for (int from = 0; from < CIRCUIT_STATES; from++) {
		for (int to = 0; to < CIRCUIT_STATES; to++) {
			for (int expected = 0; expected < CIRCUIT_STATES; expected++) {
				struct store_result r;

				do_ok("k", OP_TO(from));
				r = store_do(base, store, "k", OP_FROM_TO(expected, to),
					     from == expected ? STORE_OK : STORE_CONFLICT);
				ck_assert_int_eq(r.circuit.state, from == expected ? to : from);
				ck_assert_int_eq(r.was, from);
			}
			do_ok("k", OP_TO(from));
			ck_assert_int_eq(do_ok("k", OP_TO(to)).state, to);
		}
	}
	ck_assert_int_eq(redis_integer(redis, "EXISTS cb:k"), 1);
}
END_TEST

START_TEST(a_forgotten_script_is_sent_again)
{
	struct answer answers[20];

	open_ready("stoma:");
	do_ok("k", OP_FAILURE);
	ck_assert_uint_eq(metrics->redis_noscript, 0);
	RUN("SCRIPT FLUSH");
	ck_assert_int_eq(do_ok("k", OP_FAILURE).failure_count, 2);
	ck_assert_uint_eq(metrics->redis_noscript, 1);
	ck_assert_int_eq(do_ok("k", OP_FAILURE).failure_count, 3);
	ck_assert_uint_eq(metrics->redis_noscript, 1);

	RUN("SCRIPT FLUSH");
	for (size_t i = 0; i < 20; i++)
		submit(&answers[i], "k", OP_FAILURE);
	wait_for_all();
	for (size_t i = 0; i < 20; i++)
		ck_assert_int_eq(answers[i].result.status, STORE_OK);
	ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 23);
}
END_TEST

/* A server that answers NOSCRIPT also to EVAL. */
START_TEST(a_script_refused_whole_is_an_error)
{
	static const char noscript[] = "-NOSCRIPT No matching script.\r\n";
	const struct circuit_fold fold = {.failures = 1, .writes = true};
	struct fake_redis *fake = fake_redis_new(base);
	struct store_result refusal;
	struct answer a[4];
	char url[64];

	fake_redis_on(fake, "EVALSHA", noscript, FAKE_STAY);
	fake_redis_on(fake, "EVAL", noscript, FAKE_STAY);
	snprintf(url, sizeof(url), "redis://127.0.0.1:%d", fake_redis_port(fake));
	open_store(url, "stoma:", store_test_limits());
	wait_for(STORE_READY);

	submit(&a[0], "k", OP_FAILURE);
	wait_for_all();
	ck_assert_uint_eq(metrics->redis_noscript, 1);

	memset(&a[1], 0, sizeof(a[1]));
	a[1].op = store->driver->fold(store, "k", 1, &fold, on_answer, &a[1], &refusal);
	ck_assert_ptr_nonnull(a[1].op);
	waiting++;
	wait_for_all();
	ck_assert_uint_eq(metrics->redis_noscript, 2);

	/* Two operations in one call. After the error of the whole call, each is sent by itself. */
	submit(&a[2], "k", OP_FAILURE);
	submit(&a[3], "l", OP_FAILURE);
	wait_for_all();
	ck_assert_uint_eq(metrics->redis_noscript, 5);

	for (size_t i = 0; i < 4; i++) {
		ck_assert_uint_eq(a[i].count, 1);
		ck_assert_int_eq(a[i].result.status, STORE_ERROR);
		ck_assert_str_eq(a[i].message, "NOSCRIPT No matching script.");
	}
	fake_redis_free(fake);
}
END_TEST

/* Before an error in the script itself, the script may have written: nothing of the call is sent
 * again. */
START_TEST(an_error_amid_the_script_leaves_all_unknown)
{
	static const char *const errors[] = {
		"-ERR Error running script (call to f_" FAKE_SHA "): @user_script:854: "
		"user_script:854: attempt to concatenate field '?' (a nil value)\r\n",
		"-ERR user_script:854: attempt to concatenate field '?' (a nil value) "
		"script: " FAKE_SHA ", on @user_script:854.\r\n",
	};
	const struct circuit_fold fold = {.failures = 1, .writes = true};
	struct fake_redis *fake = fake_redis_new(base);
	struct store_result refusal;
	struct answer a[3];
	char url[64];

	fake_redis_on(fake, "EVALSHA", errors[_i], FAKE_STAY);
	snprintf(url, sizeof(url), "redis://127.0.0.1:%d", fake_redis_port(fake));
	open_store(url, "stoma:", store_test_limits());
	wait_for(STORE_READY);
	submit(&a[0], "k", OP_FAILURE);
	submit(&a[1], "l", OP_FAILURE);
	wait_for_all();
	memset(&a[2], 0, sizeof(a[2]));
	a[2].op = store->driver->fold(store, "k", 1, &fold, on_answer, &a[2], &refusal);
	ck_assert_ptr_nonnull(a[2].op);
	waiting++;
	wait_for_all();
	for (size_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(a[i].count, 1);
		ck_assert_int_eq(a[i].result.status, STORE_UNKNOWN);
		ck_assert_msg(strstr(a[i].message, "user_script:854") != NULL, "%s", a[i].message);
	}
	ck_assert_uint_eq(fake_redis_calls(fake), 2);
	fake_redis_free(fake);
}
END_TEST

START_TEST(another_type_is_an_error_and_stays)
{
	const struct circuit_op ops[] = {OP_GET, OP_SUCCESS, OP_FAILURE, OP_TO(CIRCUIT_OPEN),
					 OP_RESET};
	struct answer a;

	open_ready("stoma:");
	RUN("RPUSH stoma:cb:k x");
	for (size_t i = 0; i < 5; i++) {
		submit(&a, "k", ops[i]);
		wait_for_all();
		ck_assert_int_eq(a.result.status, STORE_ERROR);
		ck_assert_msg(strncmp(a.message, "WRONGTYPE ", 10) == 0, "%s", a.message);
	}
	ck_assert_int_eq(redis_integer(redis, "LLEN stoma:cb:k"), 1);
	ck_assert_int_eq(redis_integer(redis, "TTL stoma:cb:k"), -1);
}
END_TEST

START_TEST(a_corrupt_value_reads_as_no_circuit)
{
	int64_t before;
	struct circuit c;

	open_ready("stoma:");
	RUN("SET stoma:cb:k garbage");
	before = now_ms();
	c = do_ok("k", OP_GET);
	ck_assert_int_eq(c.state, CIRCUIT_CLOSED);
	ck_assert_int_ge(c.last_state_change, before);
	ck_assert_int_le(c.last_state_change, now_ms());
	ck_assert_uint_eq(metrics->corrupt_entries, 1);
	ck_assert_uint_eq(warnings, 1);
	ck_assert_msg(strstr(warning, "stoma:cb:k") != NULL, "%s", warning);

	c = do_ok("k", OP_FAILURE);
	ck_assert_int_eq(c.failure_count, 1);
	ck_assert_uint_eq(metrics->corrupt_entries, 2);
	ck_assert_uint_eq(warnings, 1);

	do_ok("k", OP_GET);
	ck_assert_uint_eq(metrics->corrupt_entries, 2);

	RUN("SET stoma:cb:other {\"state\":\"open\"}");
	ck_assert_int_eq(do_ok("other", OP_GET).state, CIRCUIT_OPEN);
	ck_assert_int_eq(do_ok("other", OP_GET).last_state_change, 0);
	ck_assert_uint_eq(metrics->corrupt_entries, 4);
	ck_assert_uint_eq(warnings, 2);
}
END_TEST

START_TEST(absent_reads_share_the_clock)
{
	struct answer answers[50];
	int64_t before;

	open_ready("stoma:");
	RUN("CONFIG RESETSTAT");
	before = now_ms();
	for (size_t i = 0; i < 50; i++)
		submit(&answers[i], "nobody", OP_GET);
	wait_for_all();
	for (size_t i = 0; i < 50; i++) {
		ck_assert_int_eq(answers[i].result.status, STORE_OK);
		ck_assert_int_ge(answers[i].result.circuit.last_state_change, before);
		ck_assert_int_le(answers[i].result.circuit.last_state_change, now_ms());
	}
	/* The test itself made 51 of these calls. */
	ck_assert_int_le(info("commandstats", "cmdstat_time:calls="), 51 + 10);
	ck_assert_int_eq(redis_integer(redis, "DBSIZE"), 0);
}
END_TEST

START_TEST(reads_of_a_turn_share_a_command)
{
	struct store_limits limits = store_test_limits();
	struct answer *answers = calloc(2100, sizeof(*answers));

	limits.max_in_flight = 3000;
	open_store(server.store, "stoma:", limits);
	wait_for(STORE_READY);
	do_ok("a", OP_FAILURE);
	do_ok("b", OP_SUCCESS);
	RUN("CONFIG RESETSTAT");
	for (size_t i = 0; i < 50; i++)
		submit(&answers[i], i % 2 ? "a" : "b", OP_GET);
	wait_for_all();
	for (size_t i = 0; i < 50; i++) {
		ck_assert_int_eq(answers[i].result.status, STORE_OK);
		ck_assert_int_eq(answers[i].result.circuit.failure_count, i % 2);
		ck_assert_int_eq(answers[i].result.circuit.success_count, 1 - i % 2);
	}
	ck_assert_int_eq(info("commandstats", "cmdstat_getrange:calls="), 2);

	RUN("CONFIG RESETSTAT");
	for (size_t i = 0; i < 2100; i++)
		submit(&answers[i], "a", OP_GET);
	wait_for_all();
	for (size_t i = 0; i < 2100; i++)
		ck_assert_int_eq(answers[i].result.circuit.failure_count, 1);
	ck_assert_int_eq(info("commandstats", "cmdstat_getrange:calls="), 3);
	free(answers);
}
END_TEST

/* Else a read could be answered with a state from before the read came. */
START_TEST(a_read_does_not_share_what_was_sent)
{
	struct answer answers[3];

	open_ready("stoma:");
	do_ok("k", OP_FAILURE);
	RUN("CONFIG RESETSTAT");
	kill(server.pid, SIGSTOP);
	submit(&answers[0], "k", OP_GET);
	submit(&answers[1], "k", OP_GET);
	store_flush(store);
	submit(&answers[2], "k", OP_GET);
	store_flush(store);
	kill(server.pid, SIGCONT);
	wait_for_all();
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(answers[i].result.circuit.failure_count, 1);
	ck_assert_int_eq(info("commandstats", "cmdstat_getrange:calls="), 2);
}
END_TEST

static void cancel(struct answer *a)
{
	store_cancel(a->op);
	a->op = NULL;
	waiting--;
}

START_TEST(reads_that_share_can_be_cancelled)
{
	struct answer answers[6];

	open_ready("stoma:");
	do_ok("k", OP_FAILURE);
	for (int sent = 0; sent < 2; sent++) {
		/* Cancel three, two of them in the callbacks of others. */
		for (size_t i = 0; i < 6; i++)
			submit(&answers[i], "k", OP_GET);
		if (sent)
			store_flush(store);
		cancel(&answers[0]);
		answers[1].cancels = &answers[5];
		answers[2].cancels = &answers[3];
		wait_for_all();
		for (size_t i = 0; i < 6; i++)
			ck_assert_uint_eq(answers[i].count, i == 1 || i == 2 || i == 4);
		/* Cancel all. */
		for (size_t i = 0; i < 6; i++)
			submit(&answers[i], "k", OP_GET);
		if (sent)
			store_flush(store);
		for (size_t i = 0; i < 6; i++)
			cancel(&answers[i]);
		ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 1);
		for (size_t i = 0; i < 6; i++)
			ck_assert_uint_eq(answers[i].count, 0);
	}
}
END_TEST

START_TEST(one_that_waits_for_the_clock_can_be_cancelled)
{
	struct answer answers[6];

	open_ready("stoma:");
	for (size_t i = 0; i < 6; i++)
		submit(&answers[i], "nobody", OP_GET);
	answers[0].cancels = &answers[5]; /* the last that waits */
	answers[1].cancels = &answers[2];
	wait_for_all();
	do_ok("k", OP_FAILURE);
	for (size_t i = 0; i < 6; i++)
		ck_assert_uint_eq(answers[i].count, i != 5 && i != 2);
}
END_TEST

START_TEST(too_many_at_once_are_refused)
{
	struct store_limits limits = store_test_limits();
	struct store_query query = {.limit = 10};
	struct answer answers[3];

	limits.max_in_flight = 2;
	open_store(server.store, "stoma:", limits);
	wait_for(STORE_READY);
	for (size_t i = 0; i < 3; i++)
		submit(&answers[i], "k", OP_FAILURE);
	ck_assert_uint_eq(answers[2].count, 1);
	ck_assert_int_eq(answers[2].result.status, STORE_OVERLOADED);
	ck_assert_int_eq(store_run_list(base, store, &query).status, STORE_OVERLOADED);
	wait_for_all();
	ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 2);
}
END_TEST

START_TEST(the_longest_prefix_and_key)
{
	char prefix[258], key[KEY_MAX + 1];
	struct store_query query = {.limit = 10, .prefix_len = KEY_MAX};
	struct redis_target target;
	struct store_limits limits = store_test_limits();
	struct store_result r;
	char why[256];

	memset(prefix, '*', 257);
	prefix[257] = '\0';
	redis_target_parse(server.store, &target, why, sizeof(why));
	ck_assert_ptr_null(store_redis_new(base, &target, prefix, &limits, NULL, NULL));
	prefix[256] = '\0';
	memset(key, '[', KEY_MAX);
	key[KEY_MAX] = '\0';
	open_ready(prefix);
	do_ok(key, OP_FAILURE);
	RUN("SET %s%s {}", "x", prefix);
	memset(query.prefix, '[', KEY_MAX);
	r = store_run_list(base, store, &query);
	ck_assert_int_eq(r.status, STORE_OK);
	ck_assert_uint_eq(r.page->count, 1);
	ck_assert_uint_eq(r.page->items[0].key_len, KEY_MAX);
	store_page_free(r.page);
}
END_TEST

/* --- the listing --- */

#define CIRCUITS 1000
#define FOREIGN  5000

static void add_foreign(unsigned from, unsigned to)
{
	for (unsigned n = from; n < to; n++)
		redisAppendCommand(redis, "SET cache:%u x", n);
	for (unsigned n = from; n < to; n++) {
		void *reply;

		ck_assert_int_eq(redisGetReply(redis, &reply), REDIS_OK);
		freeReplyObject(reply);
	}
}

/* Stores circuits svc*N (N odd) and svc[N (N even), every tenth of them open, and keys that are no
 * circuits. */
static void fill_server(void)
{
	add_foreign(0, FOREIGN);
	for (unsigned n = 0; n < CIRCUITS; n++)
		RUN("SET %s%u {\"state\":\"%s\",\"failureCount\":%u,\"successCount\":0,"
		    "\"lastFailureTime\":0,\"lastStateChange\":0}",
		    n % 2 ? "stoma:cb:svc*" : "stoma:cb:svc[", n, n % 10 == 0 ? "open" : "closed",
		    n);
	RUN("RPUSH stoma:cb:svc*list x");
	RUN("SET stoma:cb:svc*none garbage");
	RUN("SET stoma:cb: {}");
	RUN("SET stoma:cb:%b {}", "\xff", (size_t)1);
	RUN("SET stoma:cbsvc*1 {}");
	RUN("SET stomaxcb:svc*1 {}");
}

struct listed {
	unsigned seen[CIRCUITS];
	unsigned pages;
};

static void take_page(struct listed *listed, const struct store_page *page)
{
	for (size_t i = 0; i < page->count; i++) {
		const struct store_item *item = &page->items[i];
		char key[32];
		unsigned n;

		ck_assert_uint_lt(item->key_len, sizeof(key));
		memcpy(key, item->key, item->key_len);
		key[item->key_len] = '\0';
		ck_assert_msg(strncmp(key, "svc", 3) == 0, "%s", key);
		n = (unsigned)strtoul(key + 4, NULL, 10);
		ck_assert_uint_lt(n, CIRCUITS);
		ck_assert_int_eq(key[3], n % 2 ? '*' : '[');
		ck_assert_int_eq(item->circuit.failure_count, n);
		listed->seen[n]++;
	}
}

/* Lists all pages. Calls `meanwhile` after each, unless that is NULL. */
static void list_all(struct listed *listed, struct store_query query,
		     void (*meanwhile)(unsigned page))
{
	memset(listed, 0, sizeof(*listed));
	do {
		struct store_result r = store_run_list(base, store, &query);

		ck_assert_msg(r.status == STORE_OK, "status %d", r.status);
		ck_assert_uint_le(r.page->count, query.limit);
		take_page(listed, r.page);
		snprintf(query.cursor, sizeof(query.cursor), "%s", r.page->cursor);
		ck_assert_uint_eq(strspn(query.cursor, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
						       "abcdefghijklmnopqrstuvwxyz0123456789-_."),
				  strlen(query.cursor));
		store_page_free(r.page);
		ck_assert_uint_lt(++listed->pages, 10000);
		if (meanwhile)
			meanwhile(listed->pages);
	} while (query.cursor[0]);
}

START_TEST(a_listing_among_foreign_keys)
{
	static const unsigned limits[] = {7, 100, 1000};
	struct listed listed;

	open_ready("stoma:");
	fill_server();
	for (size_t l = 0; l < 3; l++) {
		list_all(&listed, (struct store_query){.limit = limits[l]}, NULL);
		for (unsigned n = 0; n < CIRCUITS; n++)
			ck_assert_msg(listed.seen[n] == 1, "limit %u: %u is there %u times",
				      limits[l], n, listed.seen[n]);
	}
	/* A page is filled, however many SCAN steps that takes. */
	ck_assert_uint_le(listed.pages, 2);
	ck_assert_uint_eq(warnings, 1);
}
END_TEST

START_TEST(a_listing_by_state_and_prefix)
{
	struct store_query by_state = {.limit = 7, .has_state = true, .state = CIRCUIT_OPEN};
	struct store_query by_star = {.limit = 100, .prefix = "svc*", .prefix_len = 4};
	struct store_query by_bracket = {.limit = 100, .prefix = "svc[1", .prefix_len = 5};
	struct store_query by_none = {.limit = 100, .prefix = "svc?", .prefix_len = 4};
	struct listed listed;

	open_ready("stoma:");
	fill_server();
	list_all(&listed, by_state, NULL);
	for (unsigned n = 0; n < CIRCUITS; n++)
		ck_assert_uint_eq(listed.seen[n], n % 10 == 0);
	list_all(&listed, by_star, NULL);
	for (unsigned n = 0; n < CIRCUITS; n++)
		ck_assert_uint_eq(listed.seen[n], n % 2);
	list_all(&listed, by_bracket, NULL);
	for (unsigned n = 0; n < CIRCUITS; n++)
		ck_assert_uint_eq(listed.seen[n],
				  n % 2 == 0 && (n == 1 || n / 10 == 1 || n / 100 == 1));
	list_all(&listed, by_none, NULL);
	for (unsigned n = 0; n < CIRCUITS; n++)
		ck_assert_uint_eq(listed.seen[n], 0);
}
END_TEST

/* Removes foreign keys after the first pages, then adds some, so that a SCAN step that is repeated
 * gives other keys. */
static void churn(unsigned page)
{
	if (page <= 40) {
		for (unsigned n = 0; n < 60; n++)
			RUN("DEL cache:%u", (page - 1) * 60 + n);
	} else if (page <= 140) {
		add_foreign(FOREIGN + page * 100, FOREIGN + page * 100 + 100);
	}
}

START_TEST(a_listing_while_keys_come_and_go)
{
	struct listed listed;

	open_ready("stoma:");
	fill_server();
	list_all(&listed, (struct store_query){.limit = 7}, churn);
	for (unsigned n = 0; n < CIRCUITS; n++)
		ck_assert_msg(listed.seen[n] == 1, "%u is there %u times", n, listed.seen[n]);
}
END_TEST

START_TEST(a_listing_in_short_time_has_a_short_page)
{
	struct store_limits limits = store_test_limits();
	struct listed listed;

	open_ready("stoma:");
	fill_server();
	limits.timeout_ms = 1;
	store_reconfigure(store, &limits);
	/* If the first SCAN step takes over 1 ms, there is no page: try again. */
	for (;;) {
		struct store_query query = {.limit = 1000};
		struct store_result r = store_run_list(base, store, &query);

		if (r.status == STORE_TIMEOUT)
			continue;
		ck_assert_int_eq(r.status, STORE_OK);
		ck_assert_uint_lt(r.page->count, CIRCUITS);
		ck_assert_str_ne(r.page->cursor, "");
		store_page_free(r.page);
		break;
	}
	store_reconfigure(store, &(struct store_limits){.timeout_ms = 5000, .max_in_flight = 100});
	list_all(&listed, (struct store_query){.limit = 1000}, NULL);
}
END_TEST

START_TEST(cursors_that_are_none)
{
	static const char *const cursors[] = {
		"0",  "1.",     "1.2",        "1.2.",     "1.2.=",   "1.2.a2V5.",
		"-1", "1.2.a",  "1.2.a2Vz\n", "1.2.AAAA", "1.2._w",  "18446744073709551616",
		"1 ", "1.2.a3", " 1",         "1..a2V5",  ".2.a2V5",
	};
	struct store_query query = {.limit = 10};

	open_ready("stoma:");
	for (size_t i = 0; i < sizeof(cursors) / sizeof(cursors[0]); i++) {
		snprintf(query.cursor, sizeof(query.cursor), "%s", cursors[i]);
		ck_assert_msg(store_run_list(base, store, &query).status == STORE_BAD_CURSOR, "%s",
			      cursors[i]);
	}
	memset(query.cursor, 'a', sizeof(query.cursor) - 1);
	memcpy(query.cursor, "1.2.", 4);
	ck_assert_int_eq(store_run_list(base, store, &query).status, STORE_BAD_CURSOR);
}
END_TEST

/* --- when Redis is away --- */

START_TEST(no_server_is_said_at_once)
{
	char nowhere[160];
	struct store_query query = {.limit = 10};
	struct store_health health;
	struct answer a;

	snprintf(nowhere, sizeof(nowhere), "redis+unix://%s/no", server.dir);
	open_store(nowhere, "stoma:", store_test_limits());
	for (int i = 0; i < 20; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	submit(&a, "k", OP_FAILURE);
	ck_assert_uint_eq(a.count, 1);
	ck_assert_int_eq(a.result.status, STORE_UNAVAILABLE);
	ck_assert_str_ne(a.message, "");
	submit(&a, "k", OP_GET);
	ck_assert_uint_eq(a.count, 1);
	ck_assert_int_eq(a.result.status, STORE_UNAVAILABLE);
	ck_assert_int_eq(store_run_list(base, store, &query).status, STORE_UNAVAILABLE);
	store_health(store, &health);
	ck_assert_int_eq(health.condition, STORE_AWAY);
	ck_assert_str_ne(health.reason, "");
	ck_assert_int_eq(metrics->store_up, 0);
}
END_TEST

START_TEST(a_frozen_server_costs_the_deadline)
{
	struct store_limits limits = store_test_limits();
	struct answer read, write, absent, later;

	limits.timeout_ms = 100;
	open_store(server.store, "stoma:", limits);
	wait_for(STORE_READY);
	ck_assert_int_eq(metrics->store_up, 1);
	do_ok("k", OP_FAILURE);
	kill(server.pid, SIGSTOP);
	submit(&read, "k", OP_GET);
	submit(&write, "k", OP_FAILURE);
	submit(&absent, "nobody", OP_GET);
	wait_for_all();
	ck_assert_int_eq(read.result.status, STORE_TIMEOUT);
	ck_assert(read.result.timed_out);
	ck_assert_int_eq(write.result.status, STORE_UNKNOWN);
	ck_assert(write.result.timed_out);
	ck_assert_int_eq(absent.result.status, STORE_TIMEOUT);

	/* After three missed deadlines the link is suspect: the next operation fails at once. */
	submit(&later, "k", OP_GET);
	ck_assert_uint_eq(later.count, 1);
	ck_assert_int_eq(later.result.status, STORE_UNAVAILABLE);
	ck_assert_int_eq(metrics->store_up, 0);

	kill(server.pid, SIGCONT);
	wait_for(STORE_READY);
	limits.timeout_ms = 5000; /* for a busy machine */
	store_reconfigure(store, &limits);
	ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 2);
	ck_assert_uint_eq(read.count + write.count + absent.count, 3);
}
END_TEST

/* Missed deadlines make the link suspect, and that ends the operations that wait. A callback of one
 * of these may cancel the very operation whose deadline has just passed. */
START_TEST(one_whose_deadline_ends_others_can_be_cancelled)
{
	struct answer sent, first, second, third, waits;

	open_frozen();
	submit_in_background(&sent, "k", OP_SUCCESS);
	store_flush(store);
	submit(&first, "a", OP_GET);
	submit(&second, "b", OP_GET);
	submit(&third, "c", OP_GET);
	submit_in_background(&waits, "k", OP_SUCCESS);
	waits.cancels = &third;
	while (!waits.count)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(waits.result.status, STORE_UNAVAILABLE);
	ck_assert_int_eq(second.result.status, STORE_TIMEOUT);
	ck_assert_uint_eq(first.count + second.count + third.count, 2);
	kill(server.pid, SIGCONT);
	wait_for(STORE_READY);
	wait_for_all();
	ck_assert_uint_eq(third.count, 0);
}
END_TEST

START_TEST(a_listing_has_a_deadline_too)
{
	struct store_query query = {.limit = 10};

	open_frozen();
	ck_assert_int_eq(store_run_list(base, store, &query).status, STORE_TIMEOUT);
	kill(server.pid, SIGCONT);
	do_ok("k", OP_FAILURE);
}
END_TEST

static void on_page(void *arg, struct store_result *result)
{
	(void)arg;
	(void)result;
	ck_abort_msg("a cancelled listing has answered");
}

START_TEST(freed_with_everything_in_flight)
{
	struct answer answers[20];
	struct store_query query = {.limit = 1000};
	struct store_result result;
	struct store_op *op;

	open_ready("stoma:");
	fill_server();
	op = store_list(store, &query, on_page, NULL, &result);
	ck_assert_ptr_nonnull(op);
	event_base_loop(base, EVLOOP_ONCE);
	store_cancel(op);
	for (int turns = 0; turns < 4; turns++) {
		for (size_t i = 0; i < 20; i++)
			submit(&answers[i], i % 2 ? "k" : "nobody", i % 3 ? OP_GET : OP_FAILURE);
		store_list(store, &query, on_page, NULL, &result);
		for (int i = 0; i < turns; i++)
			event_base_loop(base, EVLOOP_ONCE);
		store_free(store);
		for (size_t i = 0; i < 20; i++)
			answers[i].op = NULL;
		waiting = 0;
		open_ready("stoma:");
	}
}
END_TEST

START_TEST(a_server_killed_with_operations_in_flight)
{
	struct redis_server_process doomed;
	struct answer reads[3], write;

	redis_server_start(&doomed, NULL);
	open_store(doomed.store, "stoma:", store_test_limits());
	wait_for(STORE_READY);
	kill(doomed.pid, SIGSTOP);
	submit(&reads[0], "k", OP_GET);
	submit(&reads[1], "k", OP_GET);
	submit(&write, "k", OP_FAILURE);
	event_base_loop(base, EVLOOP_NONBLOCK);
	submit(&reads[2], "k", OP_GET);
	redis_server_kill(&doomed);
	wait_for_all();
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(reads[i].result.status, STORE_UNAVAILABLE);
	ck_assert_int_eq(write.result.status, STORE_UNKNOWN);
	ck_assert(!write.result.timed_out);
	ck_assert_str_ne(write.message, "");
	redis_server_stop(&doomed);
}
END_TEST

START_TEST(a_demoted_master_refuses_and_is_away)
{
	struct redis_server_process demoted;
	redisContext *its;
	struct store_health health;
	struct answer write;

	redis_server_start(&demoted, NULL);
	its = redis_server_connect(&demoted);
	open_store(demoted.store, "stoma:", store_test_limits());
	wait_for(STORE_READY);
	freeReplyObject(redisCommand(its, "REPLICAOF 127.0.0.1 1"));
	submit(&write, "k", OP_FAILURE);
	wait_for_all();
	ck_assert_msg(write.result.status == STORE_UNAVAILABLE, "%d %s", write.result.status,
		      write.message);
	store_health(store, &health);
	ck_assert_int_eq(health.condition, STORE_AWAY);
	ck_assert_str_ne(health.reason, "");
	redisFree(its);
	redis_server_stop(&demoted);
}
END_TEST

/* Commands that reply with an integer are renamed to those that the store uses. */
START_TEST(strange_replies_are_errors)
{
	static const char *const renamed[] = {
		"--rename-command",
		"GETRANGE",
		"",
		"--rename-command",
		"EVALSHA",
		"",
		"--rename-command",
		"SCAN",
		"",
		"--rename-command",
		"LPUSH",
		"GETRANGE",
		"--rename-command",
		"EXISTS",
		"EVALSHA",
		"--rename-command",
		"TOUCH",
		"SCAN",
		NULL,
	};
	struct redis_server_process strange;
	struct store_query query = {.limit = 10};
	struct answer a;

	redis_server_start(&strange, renamed);
	open_store(strange.store, "stoma:", store_test_limits());
	wait_for(STORE_READY);
	submit(&a, "k", OP_GET);
	wait_for_all();
	ck_assert_int_eq(a.result.status, STORE_ERROR);
	ck_assert_str_eq(a.message, "unexpected reply from Redis");
	submit(&a, "k", OP_FAILURE);
	wait_for_all();
	ck_assert_int_eq(a.result.status, STORE_ERROR);
	ck_assert_str_eq(a.message, "unexpected reply from Redis");
	ck_assert_int_eq(store_run_list(base, store, &query).status, STORE_ERROR);
	redis_server_stop(&strange);
}
END_TEST

START_TEST(a_full_server_is_an_error)
{
	struct answer a;

	open_ready("stoma:");
	do_ok("k", OP_FAILURE);
	RUN("CONFIG SET maxmemory 1");
	submit(&a, "k", OP_FAILURE);
	wait_for_all();
	RUN("CONFIG SET maxmemory 0");
	ck_assert_int_eq(a.result.status, STORE_ERROR);
	ck_assert_msg(strncmp(a.message, "OOM ", 4) == 0, "%s", a.message);
	ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 1);
}
END_TEST

/* --- group commit --- */

/* Operations of one turn go in one call, and each is answered with the snapshot after itself. */
START_TEST(together_each_is_a_step_of_its_own)
{
	enum { MANY = 90 };
	struct answer answers[MANY];
	static const char *const keys[] = {"a", "b", "c"};
	int64_t calls;

	open_ready("stoma:");
	calls = info("commandstats", "cmdstat_evalsha:calls=");
	for (int i = 0; i < MANY; i++)
		submit(&answers[i], keys[i % 3], OP_FAILURE);
	wait_for_all();
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(answers[i].result.status, STORE_OK);
		ck_assert_int_eq(answers[i].result.circuit.failure_count, i / 3 + 1);
	}
	ck_assert_int_eq(do_ok("b", OP_GET).failure_count, MANY / 3);
	ck_assert_int_eq(info("commandstats", "cmdstat_evalsha:calls=") - calls, 1);
}
END_TEST

START_TEST(together_the_order_is_kept)
{
	struct answer a[6];

	open_ready("stoma:");
	submit(&a[0], "k", OP_FAILURE);
	submit(&a[1], "k", OP_TO(CIRCUIT_OPEN));
	submit(&a[2], "k", OP_FROM_TO(CIRCUIT_OPEN, CIRCUIT_HALF_OPEN));
	submit(&a[3], "k", OP_FROM_TO(CIRCUIT_OPEN, CIRCUIT_HALF_OPEN));
	submit(&a[4], "k", OP_RESET);
	submit(&a[5], "k", OP_SUCCESS);
	wait_for_all();
	ck_assert_int_eq(a[1].result.was, CIRCUIT_CLOSED);
	ck_assert_int_eq(a[1].result.circuit.failure_count, 1);
	ck_assert_int_eq(a[2].result.status, STORE_OK);
	ck_assert_int_eq(a[2].result.was, CIRCUIT_OPEN);
	ck_assert_int_eq(a[3].result.status, STORE_CONFLICT);
	ck_assert_int_eq(a[3].result.circuit.state, CIRCUIT_HALF_OPEN);
	ck_assert_int_eq(a[4].result.status, STORE_OK);
	ck_assert_int_eq(a[5].result.circuit.failure_count, 0);
	ck_assert_int_eq(a[5].result.circuit.success_count, 1);
	ck_assert_int_eq(do_ok("k", OP_GET).success_count, 1);
}
END_TEST

/* The error of one circuit, WRONGTYPE or NOPERM, does not affect the others of the call. */
START_TEST(together_each_fails_by_itself)
{
	struct answer good, list, forbidden, fine;
	char url[128];

	RUN("ACL SETUSER half on >pw ~stoma:cb:good ~stoma:cb:list ~stoma:cb:fine +@all");
	RUN("RPUSH stoma:cb:list x");
	snprintf(url, sizeof(url), "redis://half:pw@127.0.0.1:%d", server.port);
	open_store(url, "stoma:", store_test_limits());
	wait_for(STORE_READY);
	submit(&good, "good", OP_FAILURE);
	submit(&list, "list", OP_FAILURE);
	submit(&fine, "fine", OP_SUCCESS);
	wait_for_all();
	ck_assert_int_eq(good.result.status, STORE_OK);
	ck_assert_int_eq(list.result.status, STORE_ERROR);
	ck_assert_msg(strncmp(list.message, "WRONGTYPE ", 10) == 0, "%s", list.message);
	ck_assert_int_eq(fine.result.status, STORE_OK);

	submit(&good, "good", OP_FAILURE);
	submit(&forbidden, "forbidden", OP_FAILURE);
	submit(&fine, "fine", OP_SUCCESS);
	wait_for_all();
	ck_assert_int_eq(good.result.circuit.failure_count, 2);
	ck_assert_int_eq(fine.result.circuit.success_count, 2);
	ck_assert_int_eq(forbidden.result.status, STORE_ERROR);
	ck_assert_msg(strncmp(forbidden.message, "NOPERM ", 7) == 0, "%s", forbidden.message);
	RUN("ACL DELUSER half");
}
END_TEST

/* An operation that waits for an earlier call to return was not sent, so its result is "surely not
 * applied". */
START_TEST(what_waited_was_surely_not_applied)
{
	struct store_limits limits = open_frozen();
	struct answer under_way, waits, cancelled;

	submit(&under_way, "k", OP_FAILURE);
	event_base_loop(base, EVLOOP_NONBLOCK); /* the call goes out */
	submit(&waits, "k", OP_FAILURE);
	submit(&cancelled, "k", OP_FAILURE);
	store_cancel(cancelled.op);
	waiting--;
	wait_for_all();
	ck_assert_int_eq(under_way.result.status, STORE_UNKNOWN);
	ck_assert_int_eq(waits.result.status, STORE_UNAVAILABLE);
	ck_assert(waits.result.timed_out);
	ck_assert_uint_eq(cancelled.count, 0);
	kill(server.pid, SIGCONT);
	wait_for(STORE_READY);
	limits.timeout_ms = 5000; /* for a busy machine */
	store_reconfigure(store, &limits);
	ck_assert_int_eq(do_ok("k", OP_FAILURE).failure_count, 2);
}
END_TEST

/* An operation in the background has no deadline. But if a later operation of its circuit is given
 * up, it is given up first, because the two must not change places. */
START_TEST(what_nobody_waits_for_has_no_deadline)
{
	struct answer sent, alone, ahead, late;

	open_frozen();
	submit_in_background(&sent, "k", OP_SUCCESS);
	submit_in_background(&alone, "alone", OP_SUCCESS);
	event_base_loop(base, EVLOOP_NONBLOCK); /* the call goes out */
	submit_in_background(&ahead, "k", OP_SUCCESS);
	submit(&late, "k", OP_FAILURE);
	while (!late.count)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert(late.result.timed_out);
	ck_assert_int_eq(late.result.status, STORE_UNAVAILABLE);
	ck_assert_uint_eq(ahead.count, 1);
	ck_assert_int_eq(ahead.result.status, STORE_UNAVAILABLE);
	ck_assert_uint_eq(sent.count + alone.count, 0);
	kill(server.pid, SIGCONT);
	wait_for_all();
	ck_assert_int_eq(sent.result.status, STORE_OK);
	ck_assert_int_eq(sent.result.circuit.success_count, 1);
	ck_assert_int_eq(alone.result.status, STORE_OK);
}
END_TEST

/* Submits the success again each time it was surely not applied. */
static void on_not_applied(void *arg, struct store_result *result)
{
	const struct store_request request = {.key = "k",
					      .key_len = 1,
					      .op = OP_SUCCESS,
					      .background = true};
	struct store_result refused;
	struct answer *a = arg;

	keep(a, result);
	ck_assert_uint_lt(a->count, 10);
	if (result->status != STORE_UNAVAILABLE)
		return;
	a->op = store_submit(store, &request, on_not_applied, a, &refused);
	ck_assert_ptr_nonnull(a->op);
}

/* An operation that a callback submits is a new one: it waits for the call, and is not given up
 * together with those that waited before, without an end. */
START_TEST(what_a_callback_submits_is_not_given_up_with_the_others)
{
	struct store_result unavailable = {.status = STORE_UNAVAILABLE};
	struct answer sent, late, behind = {0};

	open_frozen();
	submit_in_background(&sent, "k", OP_SUCCESS);
	event_base_loop(base, EVLOOP_NONBLOCK); /* the call goes out */
	submit(&late, "k", OP_FAILURE);
	on_not_applied(&behind, &unavailable);
	WAIT_UNTIL(base, PATIENCE_MS, behind.count == 2, "it was given up");
	ck_assert(late.result.timed_out);
	kill(server.pid, SIGCONT);
	wait_for_all();
	WAIT_UNTIL(base, PATIENCE_MS, !behind.op, "its answer");
	ck_assert_int_eq(behind.result.status, STORE_OK);
	ck_assert_uint_eq(behind.count, 3);
	ck_assert_int_eq(do_ok("k", OP_GET).success_count, 2);
}
END_TEST

/* --- with on_store_failure = error --- */

static void open_refusing(struct store_limits limits)
{
	struct store_clock clock = {0};

	open_store(server.store, "stoma:", limits);
	store = store_fallback_new(base, store, &limits, clock, metrics, NULL);
	ck_assert_ptr_nonnull(store);
	store_fallback_refuse(store);
	wait_for(STORE_READY);
}

static void report(struct answer *a, enum breaker_outcome outcome, enum breaker_permit_kind kind,
		   int64_t since_ms)
{
	struct breaker_call call = {.policy = &default_policy,
				    .count = 1,
				    .outcome = outcome,
				    .permit = {.kind = kind, .since_ms = since_ms}};

	submit(a, "k", (struct circuit_op){.verb = CIRCUIT_REPORT, .call = &call});
}

/* Successes of three kinds wait behind a frozen server, and one that comes later is given up. */
START_TEST(successes_of_three_kinds_wait_for_a_frozen_server)
{
	static const enum breaker_permit_kind kinds[] = {BREAKER_PERMIT_NONE, BREAKER_PERMIT_ABSENT,
							 BREAKER_PERMIT_CLOSED};
	struct store_limits limits = store_test_limits();
	struct answer first, sent, held[3], late;

	limits.timeout_ms = 200;
	limits.max_staleness_ms = limits.report_interval_ms = PATIENCE_MS;
	open_refusing(limits);
	report(&first, BREAKER_FAILURE, BREAKER_PERMIT_NONE, 0);
	wait_for_all();
	kill(server.pid, SIGSTOP);
	report(&sent, BREAKER_FAILURE, BREAKER_PERMIT_NONE, 0);
	event_base_loop(base, EVLOOP_NONBLOCK); /* the call goes out */
	for (size_t i = 0; i < 3; i++) {
		report(&held[i], BREAKER_SUCCESS, kinds[i], first.result.circuit.last_state_change);
		ck_assert_uint_eq(held[i].count, 1);
		ck_assert_uint_eq(held[i].result.decision.counted, 1);
	}
	report(&late, BREAKER_FAILURE, BREAKER_PERMIT_NONE, 0);
	wait_for_all();
	ck_assert_int_eq(late.result.status, STORE_UNAVAILABLE);
	kill(server.pid, SIGCONT);
	store_send_held(store);
	WAIT_UNTIL(base, PATIENCE_MS, metrics->reports_pending == 0, "the successes");
	ck_assert_uint_eq(metrics->reports_lost, 0);
	ck_assert_int_eq(do_ok("k", OP_GET).success_count, 3);
}
END_TEST

/* --- with on_store_failure = local --- */

/* Returns the store in Redis. The circuit "k" has one failure. */
static struct store *open_local(unsigned timeout_ms)
{
	struct store_limits limits = store_test_limits();
	struct store_clock clock = {0};
	struct store *main;
	struct answer first;

	limits.timeout_ms = timeout_ms;
	limits.report_interval_ms = 20;
	limits.max_staleness_ms = PATIENCE_MS;
	open_store(server.store, "stoma:", limits);
	main = store;
	store = store_fallback_new(base, main, &limits, clock, metrics, NULL);
	ck_assert_ptr_nonnull(store);
	wait_for(STORE_READY);
	report(&first, BREAKER_FAILURE, BREAKER_PERMIT_NONE, 0);
	wait_for_all();
	return main;
}

static void wait_until_folded(void)
{
	WAIT_UNTIL(base, PATIENCE_MS, !metrics->folds_pending && !metrics->reports_pending,
		   "it is folded");
}

/* A success waits in Redis's store behind an operation whose deadline passes; then a transition is
 * answered here. The step must not overtake the success, which was answered before. */
START_TEST(a_step_comes_behind_what_went_straight_to_redis)
{
	struct store *main = open_local(200);
	struct answer in_doubt, held, here;
	struct circuit c;

	kill(server.pid, SIGSTOP);
	submit(&in_doubt, "k", OP_FAILURE);
	event_base_loop(base, EVLOOP_NONBLOCK); /* the call goes out */
	report(&held, BREAKER_SUCCESS, BREAKER_PERMIT_NONE, 0);
	ck_assert_uint_eq(held.result.decision.counted, 1);
	wait_for_all();
	ck_assert(in_doubt.result.degraded);
	ck_assert_int_eq(metrics->reports_pending, 1);
	submit(&here, "k", OP_TO(CIRCUIT_OPEN));
	wait_for_all();
	ck_assert(here.result.degraded);
	WAIT_UNTIL(base, PATIENCE_MS, main->in_flight == 2, "the success, and a read");
	kill(server.pid, SIGCONT);
	wait_until_folded();
	c = do_ok("k", OP_GET);
	ck_assert_int_eq(c.state, CIRCUIT_OPEN);
	ck_assert_int_eq(c.failure_count, 2);
	ck_assert_int_eq(c.success_count, 1);
}
END_TEST

/* Redis takes no writes, and says so to a success. A reset that came behind it ends behind it. */
START_TEST(what_waits_ends_behind_what_was_refused)
{
	struct answer held, reset;
	struct store *main = open_local(5000);

	RUN("CONFIG SET min-replicas-to-write 1");
	kill(server.pid, SIGSTOP);
	report(&held, BREAKER_SUCCESS, BREAKER_PERMIT_NONE, 0);
	ck_assert_uint_eq(held.result.decision.counted, 1);
	WAIT_UNTIL(base, PATIENCE_MS, main->in_flight == 1, "the success");
	for (int i = 0; i < 3; i++)
		event_base_loop(base, EVLOOP_NONBLOCK); /* the call goes out */
	submit(&reset, "k", OP_RESET);
	kill(server.pid, SIGCONT);
	wait_for_all();
	ck_assert(reset.result.degraded);
	RUN("CONFIG SET min-replicas-to-write 0");
	wait_until_folded();
	ck_assert_int_eq(redis_integer(redis, "EXISTS stoma:cb:k"), 0);
}
END_TEST

static TCase *cases(void)
{
	TCase *t = tcase_create("redis");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, the_layout_is_stomas);
	tcase_add_test(t, writes_renew_the_time_to_live);
	tcase_add_test(t, every_transition_reaches_the_script);
	tcase_add_test(t, a_forgotten_script_is_sent_again);
	tcase_add_test(t, a_script_refused_whole_is_an_error);
	tcase_add_loop_test(t, an_error_amid_the_script_leaves_all_unknown, 0, 2);
	tcase_add_test(t, another_type_is_an_error_and_stays);
	tcase_add_test(t, a_corrupt_value_reads_as_no_circuit);
	tcase_add_test(t, absent_reads_share_the_clock);
	tcase_add_test(t, reads_of_a_turn_share_a_command);
	tcase_add_test(t, a_read_does_not_share_what_was_sent);
	tcase_add_test(t, reads_that_share_can_be_cancelled);
	tcase_add_test(t, one_that_waits_for_the_clock_can_be_cancelled);
	tcase_add_test(t, too_many_at_once_are_refused);
	tcase_add_test(t, the_longest_prefix_and_key);
	tcase_add_test(t, a_listing_among_foreign_keys);
	tcase_add_test(t, a_listing_by_state_and_prefix);
	tcase_add_test(t, a_listing_while_keys_come_and_go);
	tcase_add_test(t, a_listing_in_short_time_has_a_short_page);
	tcase_add_test(t, cursors_that_are_none);
	tcase_add_test(t, no_server_is_said_at_once);
	tcase_add_test(t, a_frozen_server_costs_the_deadline);
	tcase_add_test(t, one_whose_deadline_ends_others_can_be_cancelled);
	tcase_add_test(t, a_listing_has_a_deadline_too);
	tcase_add_test(t, freed_with_everything_in_flight);
	tcase_add_test(t, a_server_killed_with_operations_in_flight);
	tcase_add_test(t, a_demoted_master_refuses_and_is_away);
	tcase_add_test(t, strange_replies_are_errors);
	tcase_add_test(t, a_full_server_is_an_error);
	tcase_add_test(t, together_each_is_a_step_of_its_own);
	tcase_add_test(t, together_the_order_is_kept);
	tcase_add_test(t, together_each_fails_by_itself);
	tcase_add_test(t, what_waited_was_surely_not_applied);
	tcase_add_test(t, what_nobody_waits_for_has_no_deadline);
	tcase_add_test(t, what_a_callback_submits_is_not_given_up_with_the_others);
	tcase_add_test(t, successes_of_three_kinds_wait_for_a_frozen_server);
	tcase_add_test(t, a_step_comes_behind_what_went_straight_to_redis);
	tcase_add_test(t, what_waits_ends_behind_what_was_refused);
	return t;
}

int main(void)
{
	Suite *s = suite_create("store_redis");
	TCase *both[] = {store_contract(&contract), cases()};

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < 2; i++) {
		tcase_add_unchecked_fixture(both[i], start_server, stop_server);
		suite_add_tcase(s, both[i]);
	}
	return suite_run(s);
}
