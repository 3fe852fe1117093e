#include "base/metrics.h"
#include "store_contract.h"
#include "suite.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int64_t wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct store *open_plain(struct event_base *base, const struct store_limits *limits)
{
	struct store *s = store_memory_new(base, limits, (struct store_clock){0}, NULL);

	ck_assert_ptr_nonnull(s);
	return s;
}

static const struct store_fixture plain = {.open = open_plain, .now_ms = wall_ms};

/* --- with a clock that the test sets --------------------------------------------------- */

static struct event_base *base;
static struct store *store;
static struct metrics *metrics;
static int64_t fake_now;

static int64_t fake_clock(void *arg)
{
	return *(int64_t *)arg;
}

static void open_with(size_t max_circuits)
{
	struct store_limits limits = store_test_limits();

	limits.max_circuits = max_circuits;
	limits.ttl_ms = 10000;
	store = store_memory_new(base, &limits,
				 (struct store_clock){.now_ms = fake_clock,
						      .monotonic_ms = fake_clock,
						      .arg = &fake_now},
				 metrics);
	ck_assert_ptr_nonnull(store);
}

static void setup(void)
{
	base = event_base_new();
	metrics = calloc(1, sizeof(*metrics));
	fake_now = 1700000000000;
}

static void teardown(void)
{
	store_free(store);
	for (int i = 0; i < CIRCUIT_STATES; i++)
		ck_assert_int_eq(metrics->circuits[i], 0);
	free(metrics);
	event_base_free(base);
}

static struct circuit do_ok(const char *key, struct circuit_op op)
{
	return store_do(base, store, key, op, STORE_OK).circuit;
}

START_TEST(a_write_renews_the_time_to_live)
{
	open_with(10);
	do_ok("k", OP_FAILURE);
	fake_now += 9999;
	ck_assert_int_eq(do_ok("k", OP_FAILURE).failure_count, 2);
	fake_now += 9999;
	ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 2);
	fake_now += 1;
	ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 0);
	ck_assert_int_eq(do_ok("k", OP_FAILURE).failure_count, 1);
	ck_assert_uint_eq(metrics->expirations, 1);
}
END_TEST

START_TEST(a_refused_transition_renews_nothing)
{
	open_with(10);
	do_ok("k", OP_FAILURE);
	fake_now += 9999;
	store_do(base, store, "k", OP_FROM_TO(CIRCUIT_OPEN, CIRCUIT_CLOSED), STORE_CONFLICT);
	fake_now += 1;
	ck_assert_int_eq(do_ok("k", OP_GET).failure_count, 0);
}
END_TEST

START_TEST(the_least_recently_written_closed_one_makes_room)
{
	open_with(3);
	do_ok("open", OP_TO(CIRCUIT_OPEN));
	do_ok("a", OP_FAILURE);
	do_ok("b", OP_FAILURE);
	do_ok("a", OP_SUCCESS); /* now b is the least recently written */
	do_ok("b", OP_GET);     /* a read is no write */
	do_ok("c", OP_FAILURE);
	ck_assert_int_eq(do_ok("a", OP_GET).failure_count, 1);
	ck_assert_int_eq(do_ok("b", OP_GET).failure_count, 0);
	ck_assert_int_eq(do_ok("c", OP_GET).failure_count, 1);
	ck_assert_int_eq(do_ok("open", OP_GET).state, CIRCUIT_OPEN);
	ck_assert_uint_eq(metrics->evictions, 1);
}
END_TEST

START_TEST(tripped_ones_are_never_dropped)
{
	open_with(2);
	do_ok("open", OP_TO(CIRCUIT_OPEN));
	do_ok("half", OP_TO(CIRCUIT_HALF_OPEN));
	store_do(base, store, "new", OP_FAILURE, STORE_FULL);
	store_do(base, store, "new", OP_TO(CIRCUIT_OPEN), STORE_FULL);
	/* Circuits that exist can still be written, and what creates no circuit still works. */
	ck_assert_int_eq(do_ok("open", OP_FAILURE).failure_count, 1);
	do_ok("new", OP_GET);
	do_ok("new", OP_RESET);
	do_ok("half", OP_TO(CIRCUIT_CLOSED));
	do_ok("new", OP_FAILURE);
	ck_assert_int_eq(metrics->circuits[CIRCUIT_OPEN], 1);
	ck_assert_int_eq(metrics->circuits[CIRCUIT_CLOSED], 1);
	ck_assert_int_eq(metrics->circuits[CIRCUIT_HALF_OPEN], 0);
}
END_TEST

START_TEST(what_has_expired_makes_room_first)
{
	open_with(2);
	do_ok("open", OP_TO(CIRCUIT_OPEN));
	fake_now += 5000;
	do_ok("closed", OP_FAILURE);
	fake_now += 5000;
	do_ok("new", OP_FAILURE);
	ck_assert_int_eq(do_ok("closed", OP_GET).failure_count, 1);
	ck_assert_int_eq(do_ok("open", OP_GET).state, CIRCUIT_CLOSED);
}
END_TEST

START_TEST(a_lowered_bound_is_reached)
{
	struct store_limits limits = store_test_limits();
	char key[32];

	open_with(100);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		do_ok(key, OP_FAILURE);
	}
	limits.max_circuits = 10;
	store_reconfigure(store, &limits);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "n%d", i);
		do_ok(key, OP_FAILURE);
	}
	ck_assert_int_eq(metrics->circuits[CIRCUIT_CLOSED], 10);
	ck_assert_int_eq(do_ok("n99", OP_GET).failure_count, 1);
}
END_TEST

/* Circuits are dropped without a further write, some in each turn of the loop, the least recently
 * written closed ones first. */
START_TEST(a_lowered_bound_is_reached_without_a_write)
{
	enum { MANY = 5000 };
	struct store_limits limits = store_test_limits();
	char key[32];
	int turns = 0;

	open_with(MANY);
	do_ok("open", OP_TO(CIRCUIT_OPEN));
	do_ok("half", OP_TO(CIRCUIT_HALF_OPEN));
	for (int i = 2; i < MANY; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		do_ok(key, OP_FAILURE);
	}
	limits.max_circuits = 10;
	store_reconfigure(store, &limits);
	ck_assert_int_ge(metrics->circuits[CIRCUIT_CLOSED], MANY - 2 - 1000);
	for (; metrics->circuits[CIRCUIT_CLOSED] > 8 && turns < 100; turns++) {
		int64_t before = metrics->circuits[CIRCUIT_CLOSED];

		event_base_loop(base, EVLOOP_ONCE);
		ck_assert_int_ge(metrics->circuits[CIRCUIT_CLOSED], before - 1000);
	}
	ck_assert_int_eq(metrics->circuits[CIRCUIT_CLOSED], 8);
	ck_assert_int_eq(metrics->circuits[CIRCUIT_OPEN], 1);
	ck_assert_int_eq(do_ok("k4999", OP_GET).failure_count, 1);
	ck_assert_int_eq(do_ok("k4000", OP_GET).failure_count, 0);
	/* While more tripped circuits are left than the bound allows, one that closes is dropped.
	 */
	limits.max_circuits = 1;
	store_reconfigure(store, &limits);
	do_ok("half", OP_TO(CIRCUIT_CLOSED));
	event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(metrics->circuits[CIRCUIT_CLOSED], 0);
	ck_assert_int_eq(do_ok("open", OP_GET).state, CIRCUIT_OPEN);
}
END_TEST

START_TEST(many_circuits_are_all_found)
{
	enum { MANY = 50000 };
	struct store_query query = {.limit = 1000};
	char key[32];
	size_t listed = 0;

	open_with(MANY);
	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "circuit-%d", i);
		do_ok(key, OP_FAILURE);
	}
	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "circuit-%d", i);
		ck_assert_int_eq(do_ok(key, OP_GET).failure_count, 1);
	}
	do {
		struct store_result r = store_run_list(base, store, &query);

		ck_assert_int_eq(r.status, STORE_OK);
		listed += r.page->count;
		snprintf(query.cursor, sizeof(query.cursor), "%s", r.page->cursor);
		store_page_free(r.page);
	} while (query.cursor[0]);
	ck_assert_uint_eq(listed, MANY);
	for (int i = 0; i < MANY; i += 2) {
		snprintf(key, sizeof(key), "circuit-%d", i);
		do_ok(key, OP_RESET);
	}
	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "circuit-%d", i);
		ck_assert_int_eq(do_ok(key, OP_GET).failure_count, i % 2);
	}
	ck_assert_int_eq(metrics->circuits[CIRCUIT_CLOSED], MANY / 2);
}
END_TEST

/* So many that a listing needs several turns. */
#define MANY 20000

static void open_with_many(void)
{
	char key[32];

	open_with(MANY);
	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "circuit-%d", i);
		do_ok(key, OP_FAILURE);
	}
}

START_TEST(a_listing_that_finds_little_lets_others_in)
{
	struct store_query none = {.limit = 10, .has_state = true, .state = CIRCUIT_OPEN};
	struct store_result r;

	open_with_many();
	do_ok("circuit-19999", OP_TO(CIRCUIT_OPEN));
	r = store_run_list(base, store, &none);
	ck_assert_int_eq(r.status, STORE_OK);
	ck_assert_uint_eq(r.page->count, 1);
	ck_assert_str_eq(r.page->cursor, "");
	store_page_free(r.page);
}
END_TEST

static void on_listed(void *arg, struct store_result *result)
{
	ck_assert_int_eq(result->status, STORE_OK);
	ck_assert_uint_eq(result->page->count, 0);
	ck_assert_str_eq(result->page->cursor, "");
	store_page_free(result->page);
	++*(unsigned *)arg;
}

START_TEST(of_many_listings_few_go_on_in_a_turn)
{
	enum { LISTINGS = 50 };
	struct store_query none = {.limit = 10, .has_state = true, .state = CIRCUIT_OPEN};
	unsigned listed = 0, most = 0;
	struct store_result result;

	open_with_many();
	for (int i = 0; i < LISTINGS; i++)
		ck_assert_ptr_nonnull(store_list(store, &none, on_listed, &listed, &result));
	while (listed < LISTINGS) {
		unsigned before = listed;

		event_base_loop(base, EVLOOP_ONCE);
		if (listed - before > most)
			most = listed - before;
	}
	ck_assert_uint_le(most, 8);
}
END_TEST

START_TEST(a_state_file_keeps_what_was_written)
{
	char directory[] = "/tmp/check_store_memory.XXXXXX", path[64], lock[80], why[256];

	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/state", directory);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	open_with(10);
	ck_assert_int_eq(store_memory_keep(store, path, NULL, why, sizeof(why)), 0);
	do_ok("reset", OP_FAILURE);
	do_ok("kept", OP_FAILURE);
	store_free(store);
	open_with(10);
	ck_assert_int_eq(store_memory_keep(store, path, NULL, why, sizeof(why)), 0);
	do_ok("reset", OP_RESET); /* a reset is a change to save, too */
	store_free(store);
	fake_now += 9999;
	open_with(10);
	ck_assert_int_eq(store_memory_keep(store, path, NULL, why, sizeof(why)), 0);
	ck_assert_int_eq(do_ok("reset", OP_GET).failure_count, 0);
	ck_assert_int_eq(do_ok("kept", OP_GET).failure_count, 1);
	ck_assert_int_eq(metrics->circuits[CIRCUIT_CLOSED], 1);
	fake_now += 1;
	ck_assert_int_eq(do_ok("kept", OP_GET).failure_count, 0);
	remove(path);
	remove(lock);
	ck_assert_int_eq(remove(directory), 0);
}
END_TEST

START_TEST(a_place_that_does_not_do_leaves_the_store)
{
	char why[256];

	open_with(10);
	ck_assert_int_eq(store_memory_keep(store, "/nonexistent/x", NULL, why, sizeof(why)), -1);
	ck_assert_str_ne(why, "");
	ck_assert_int_eq(do_ok("k", OP_FAILURE).failure_count, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store_memory");
	TCase *own = tcase_create("memory");

	suite_add_tcase(suite, store_contract(&plain));
	tcase_add_checked_fixture(own, setup, teardown);
	tcase_set_timeout(own, 60);
	tcase_add_test(own, a_write_renews_the_time_to_live);
	tcase_add_test(own, a_refused_transition_renews_nothing);
	tcase_add_test(own, the_least_recently_written_closed_one_makes_room);
	tcase_add_test(own, tripped_ones_are_never_dropped);
	tcase_add_test(own, what_has_expired_makes_room_first);
	tcase_add_test(own, a_lowered_bound_is_reached);
	tcase_add_test(own, a_lowered_bound_is_reached_without_a_write);
	tcase_add_test(own, many_circuits_are_all_found);
	tcase_add_test(own, a_listing_that_finds_little_lets_others_in);
	tcase_add_test(own, of_many_listings_few_go_on_in_a_turn);
	tcase_add_test(own, a_state_file_keeps_what_was_written);
	tcase_add_test(own, a_place_that_does_not_do_leaves_the_store);
	suite_add_tcase(suite, own);
	return suite_run(suite);
}
