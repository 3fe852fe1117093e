#include "api/watch.h"
#include "base/metrics.h"
#include "scripted_store.h"
#include "suite.h"

#include <check.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX 4

static struct event_base *base;
static struct store *store;
static struct metrics *metrics;
static struct watch *watch;

static void on_changed(void *arg, const struct watched *c, enum circuit_state before,
		       enum store_by by)
{
	(void)arg;
	(void)c;
	(void)before;
	(void)by;
}

static void on_listed(void *arg, uint64_t number)
{
	(void)arg;
	(void)number;
}

static void on_circuit(void *arg, const struct watched *c)
{
	(void)arg;
	(void)c;
}

static bool is_busy(void *arg)
{
	(void)arg;
	return false;
}

static void setup(void)
{
	struct store_limits limits = {.timeout_ms = 1000,
				      .max_in_flight = 100,
				      .ttl_ms = 1000000,
				      .max_circuits = 100};
	struct store_clock clock = {0};

	base = event_base_new();
	store = scripted_open(base, &limits, clock);
	metrics = calloc(1, sizeof(*metrics));
	watch = calloc(1, sizeof(*watch));
	watch->changed = on_changed;
	watch->listed = on_listed;
	watch->moves = watch->override_over = on_circuit;
	watch->busy = is_busy;
	ck_assert_int_eq(watch_init(watch, base, store, MAX, metrics), 0);
}

static void teardown(void)
{
	watch_fini(watch);
	store_free(store);
	event_base_free(base);
	free(watch);
	free(metrics);
}

START_TEST(what_clients_read_takes_no_more_than_max_circuits)
{
	for (int i = 0; i < 10 * MAX; i++) {
		char key[16];
		int len = snprintf(key, sizeof(key), "k%d", i);

		watch_read(watch, key, (size_t)len, CIRCUIT_OPEN, NULL);
		ck_assert_ptr_nonnull(watch_find(watch, key, (size_t)len));
	}
	ck_assert_uint_le(watch->table.count, MAX);
	ck_assert_ptr_null(watch_find(watch, "k0", 2));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("watch");
	TCase *tc = tcase_create("watch");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_clients_read_takes_no_more_than_max_circuits);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
