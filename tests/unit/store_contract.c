#include "store_contract.h"

#include "wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 10000

static const struct store_fixture *fixture;
static struct event_base *base;
static struct store *store;

/* --- running one operation to its end ------------------------------------------------- */

struct answer {
	bool submitted; /* the call has returned: only now may the callback come */
	unsigned count;
	struct store_result result;
};

static void on_answer(void *arg, struct store_result *result)
{
	struct answer *a = arg;

	ck_assert_msg(a->submitted, "the callback came from inside the call");
	a->count++;
	a->result = *result;
	a->result.message = NULL;
}

static void run_until_answered(struct event_base *loop, struct answer *a)
{
	WAIT_UNTIL(loop, PATIENCE_MS, a->count > 0, "no answer");
	/* Lets a second answer come, which would be wrong. */
	event_base_loop(loop, EVLOOP_NONBLOCK);
	ck_assert_uint_eq(a->count, 1);
}

struct store_result store_run(struct event_base *loop, struct store *s,
			      const struct store_request *request)
{
	struct answer a = {0};
	struct store_op *op = store_submit(s, request, on_answer, &a, &a.result);

	ck_assert_uint_eq(a.count, 0);
	a.submitted = true;
	if (op)
		run_until_answered(loop, &a);
	return a.result;
}

struct store_result store_run_list(struct event_base *loop, struct store *s,
				   const struct store_query *query)
{
	struct answer a = {0};
	struct store_op *op = store_list(s, query, on_answer, &a, &a.result);

	a.submitted = true;
	if (op)
		run_until_answered(loop, &a);
	return a.result;
}

struct store_result store_do(struct event_base *loop, struct store *s, const char *key,
			     struct circuit_op op, enum store_status status)
{
	struct store_request request = {.key = key, .key_len = strlen(key), .op = op};
	struct store_result result = store_run(loop, s, &request);

	ck_assert_int_eq(result.status, status);
	return result;
}

struct store_limits store_test_limits(void)
{
	return (struct store_limits){
		.timeout_ms = 5000,
		.max_in_flight = 100,
		.ttl_ms = 3600000,
		.max_circuits = 1000,
	};
}

static struct circuit do_ok(const char *key, struct circuit_op op)
{
	return store_do(base, store, key, op, STORE_OK).circuit;
}

static void setup(void)
{
	struct store_limits limits = store_test_limits();

	base = event_base_new();
	store = fixture->open(base, &limits);
}

static void teardown(void)
{
	store_free(store);
	if (fixture->close)
		fixture->close();
	event_base_free(base);
}

/* --- the contract --------------------------------------------------------------------- */

START_TEST(a_read_creates_nothing)
{
	int64_t before = fixture->now_ms();
	struct circuit c = do_ok("nobody", OP_GET);
	struct store_query all = {.limit = 10};
	struct store_result listed;

	ck_assert_int_eq(c.state, CIRCUIT_CLOSED);
	ck_assert_int_eq(c.failure_count, 0);
	ck_assert_int_eq(c.success_count, 0);
	ck_assert_int_eq(c.last_failure_time, 0);
	ck_assert_int_ge(c.last_state_change, before);
	ck_assert_int_le(c.last_state_change, fixture->now_ms());
	listed = store_run_list(base, store, &all);
	ck_assert_int_eq(listed.status, STORE_OK);
	ck_assert_uint_eq(listed.page->count, 0);
	ck_assert_str_eq(listed.page->cursor, "");
	store_page_free(listed.page);
}
END_TEST

START_TEST(counts_add_up_and_stay)
{
	struct circuit c;
	int64_t before = fixture->now_ms();

	do_ok("k", OP_SUCCESS);
	c = do_ok("k", OP_FAILURE);
	ck_assert_int_eq(c.failure_count, 1);
	ck_assert_int_eq(c.success_count, 1);
	ck_assert_int_ge(c.last_failure_time, before);
	c = do_ok("k", OP_FAILURE);
	ck_assert_int_eq(c.failure_count, 2);
	c = do_ok("k", OP_GET);
	ck_assert_int_eq(c.failure_count, 2);
	ck_assert_int_eq(c.success_count, 1);
	ck_assert_int_eq(c.state, CIRCUIT_CLOSED);
}
END_TEST

START_TEST(each_key_is_its_own_circuit)
{
	static const char *const keys[] = {
		"/api/users", "a b", "ключ", "100%", "..", "a", "A", "*", "a\"b\\c", "[x]?",
	};
	char longest[KEY_MAX + 1];
	size_t count = sizeof(keys) / sizeof(keys[0]);

	memset(longest, 'x', KEY_MAX);
	longest[KEY_MAX] = '\0';
	for (size_t i = 0; i < count; i++) {
		for (size_t n = 0; n <= i; n++)
			do_ok(keys[i], OP_FAILURE);
	}
	do_ok(longest, OP_TO(CIRCUIT_OPEN));
	for (size_t i = 0; i < count; i++)
		ck_assert_int_eq(do_ok(keys[i], OP_GET).failure_count, (int64_t)i + 1);
	ck_assert_int_eq(do_ok(longest, OP_GET).state, CIRCUIT_OPEN);
	longest[KEY_MAX - 1] = '\0';
	ck_assert_int_eq(do_ok(longest, OP_GET).state, CIRCUIT_CLOSED);
}
END_TEST

START_TEST(a_transition_zeroes_what_it_should)
{
	struct store_result r;

	do_ok("k", OP_FAILURE);
	do_ok("k", OP_SUCCESS);
	r = store_do(base, store, "k", OP_TO(CIRCUIT_OPEN), STORE_OK);
	ck_assert_int_eq(r.was, CIRCUIT_CLOSED);
	ck_assert_int_eq(r.circuit.state, CIRCUIT_OPEN);
	ck_assert_int_eq(r.circuit.failure_count, 1);
	ck_assert_int_eq(r.circuit.success_count, 1);
	r = store_do(base, store, "k", OP_TO(CIRCUIT_HALF_OPEN), STORE_OK);
	ck_assert_int_eq(r.was, CIRCUIT_OPEN);
	ck_assert_int_eq(r.circuit.failure_count, 1);
	ck_assert_int_eq(r.circuit.success_count, 0);
	r = store_do(base, store, "k", OP_TO(CIRCUIT_CLOSED), STORE_OK);
	ck_assert_int_eq(r.was, CIRCUIT_HALF_OPEN);
	ck_assert_int_eq(r.circuit.failure_count, 0);
	ck_assert_int_gt(r.circuit.last_failure_time, 0);
}
END_TEST

START_TEST(the_expected_state_decides)
{
	struct store_result r;

	r = store_do(base, store, "k", OP_FROM_TO(CIRCUIT_OPEN, CIRCUIT_HALF_OPEN), STORE_CONFLICT);
	ck_assert_int_eq(r.circuit.state, CIRCUIT_CLOSED);
	do_ok("k", OP_TO(CIRCUIT_OPEN));
	do_ok("k", OP_FROM_TO(CIRCUIT_OPEN, CIRCUIT_HALF_OPEN));
	r = store_do(base, store, "k", OP_FROM_TO(CIRCUIT_OPEN, CIRCUIT_HALF_OPEN), STORE_CONFLICT);
	ck_assert_int_eq(r.circuit.state, CIRCUIT_HALF_OPEN);
	ck_assert_int_eq(do_ok("k", OP_GET).state, CIRCUIT_HALF_OPEN);
}
END_TEST

START_TEST(a_reset_removes_all)
{
	do_ok("k", OP_FAILURE);
	do_ok("k", OP_TO(CIRCUIT_OPEN));
	do_ok("k", OP_RESET);
	ck_assert_int_eq(do_ok("k", OP_GET).state, CIRCUIT_CLOSED);
	ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 0);
	ck_assert_int_eq(do_ok("k", OP_GET).last_failure_time, 0);
	do_ok("k", OP_RESET);
}
END_TEST

/* Lists all pages and counts how often each of k0, k1, ... is listed. */
static void list_counting(struct store_query *query, unsigned *seen, size_t room)
{
	size_t pages = 0;

	do {
		struct store_result r = store_run_list(base, store, query);

		ck_assert_int_eq(r.status, STORE_OK);
		ck_assert_uint_le(r.page->count, query->limit);
		ck_assert_uint_lt(++pages, 10000);
		for (size_t i = 0; i < r.page->count; i++) {
			const struct store_item *item = &r.page->items[i];
			char key[32];
			unsigned long n;

			ck_assert_uint_lt(item->key_len, sizeof(key));
			memcpy(key, item->key, item->key_len);
			key[item->key_len] = '\0';
			n = strtoul(key + 1, NULL, 10);
			ck_assert_uint_lt(n, room);
			ck_assert_int_eq(item->circuit.failure_count, (int64_t)n + 1);
			seen[n]++;
		}
		memcpy(query->cursor, r.page->cursor, sizeof(query->cursor));
		store_page_free(r.page);
	} while (query->cursor[0]);
}

/* Makes k0 to k19: kN has N + 1 failures; every third is open. */
static void fill(void)
{
	for (unsigned n = 0; n < 20; n++) {
		char key[32];

		snprintf(key, sizeof(key), "k%u", n);
		for (unsigned i = 0; i <= n; i++)
			do_ok(key, OP_FAILURE);
		if (n % 3 == 0)
			do_ok(key, OP_TO(CIRCUIT_OPEN));
	}
}

START_TEST(a_listing_has_each_once)
{
	static const unsigned limits[] = {1, 3, 20, 1000};

	fill();
	for (size_t l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
		struct store_query query = {.limit = limits[l]};
		unsigned seen[20] = {0};

		list_counting(&query, seen, 20);
		for (size_t n = 0; n < 20; n++)
			ck_assert_uint_eq(seen[n], 1);
	}
}
END_TEST

START_TEST(a_listing_can_be_narrowed)
{
	struct store_query by_state = {.limit = 4, .has_state = true, .state = CIRCUIT_OPEN};
	struct store_query by_prefix = {.limit = 4, .prefix = "k1", .prefix_len = 2};
	unsigned open[20] = {0}, prefixed[20] = {0};

	fill();
	list_counting(&by_state, open, 20);
	list_counting(&by_prefix, prefixed, 20);
	for (size_t n = 0; n < 20; n++) {
		ck_assert_uint_eq(open[n], n % 3 == 0);
		ck_assert_uint_eq(prefixed[n], n == 1 || n >= 10);
	}
}
END_TEST

START_TEST(a_strange_cursor_is_refused)
{
	static const char *const cursors[] = {"x", "-1", "1x", "99999999999999999999999", "."};

	for (size_t i = 0; i < sizeof(cursors) / sizeof(cursors[0]); i++) {
		struct store_query query = {.limit = 4};
		struct store_result r;

		snprintf(query.cursor, sizeof(query.cursor), "%s", cursors[i]);
		r = store_run_list(base, store, &query);
		ck_assert_msg(r.status == STORE_BAD_CURSOR, "cursor %s: status %d", cursors[i],
			      r.status);
	}
}
END_TEST

START_TEST(what_is_cancelled_is_not_heard_of)
{
	struct answer a = {0};
	struct store_request request = {.key = "k", .key_len = 1, .op = OP_FAILURE};
	struct store_op *op = store_submit(store, &request, on_answer, &a, &a.result);

	a.submitted = true;
	if (op)
		store_cancel(op);
	/* Operations before this one are answered before it. */
	do_ok("other", OP_FAILURE);
	event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert_uint_eq(a.count, 0);
}
END_TEST

START_TEST(it_can_be_freed_at_any_time)
{
	struct answer answers[50] = {{0}};
	struct store_request request = {.key = "k", .key_len = 1, .op = OP_FAILURE};

	for (size_t i = 0; i < 50; i++) {
		struct store_result r;

		store_submit(store, &request, on_answer, &answers[i], &r);
		answers[i].submitted = true;
	}
	store_free(store);
	event_base_loop(base, EVLOOP_NONBLOCK);
	for (size_t i = 0; i < 50; i++)
		ck_assert_uint_eq(answers[i].count, 0);
	store = NULL;
}
END_TEST

START_TEST(it_says_how_it_is)
{
	struct store_health health;

	store_health(store, &health);
	ck_assert_int_eq(health.condition, STORE_READY);
	ck_assert_str_eq(health.reason, "");
	ck_assert_int_gt(health.since_ms, 0);
	ck_assert_uint_eq(health.in_flight, 0);
}
END_TEST

TCase *store_contract(const struct store_fixture *of)
{
	TCase *tc = tcase_create("contract");

	fixture = of;
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_read_creates_nothing);
	tcase_add_test(tc, counts_add_up_and_stay);
	tcase_add_test(tc, each_key_is_its_own_circuit);
	tcase_add_test(tc, a_transition_zeroes_what_it_should);
	tcase_add_test(tc, the_expected_state_decides);
	tcase_add_test(tc, a_reset_removes_all);
	tcase_add_test(tc, a_listing_has_each_once);
	tcase_add_test(tc, a_listing_can_be_narrowed);
	tcase_add_test(tc, a_strange_cursor_is_refused);
	tcase_add_test(tc, what_is_cancelled_is_not_heard_of);
	tcase_add_test(tc, it_can_be_freed_at_any_time);
	tcase_add_test(tc, it_says_how_it_is);
	return tc;
}
