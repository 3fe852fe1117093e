/*
 * acquire and report in the embedded store: a long random history, compared with the pure machine
 * (breaker.h), which keeps its member unpacked.
 */
#include "base/metrics.h"
#include "proto/breaker_member.h"
#include "store/circuit_table.h"
#include "store/packed_breaker.h"
#include "store_contract.h"
#include "suite.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START INT64_C(1700000000000)
#define STEPS 20000
#define KEYS  3

static const struct policy policies[] = {
	{
		.consecutive_failures = 3,
		.failure_rate = 50,
		.slow_time_ms = 100,
		.slow_rate = 60,
		.window_ms = 5000,
		.min_calls = 6,
		.min_reporters = 1,
		.open_time_ms = 2000,
		.open_growth_milli = 1500,
		.open_time_max_ms = 10000,
		.probes = 100,
		.probe_successes = 4,
		.probe_timeout_ms = 3000,
		.enforce = true,
	},
	{
		.failure_rate = 70,
		.slow_rate = 100,
		.window_ms = 60000,
		.min_calls = 40,
		.min_reporters = 3,
		.open_time_ms = 500,
		.open_growth_milli = 1000,
		.open_time_max_ms = 500,
		.probes = 2,
		.probe_successes = 1,
		.probe_timeout_ms = 700,
	},
};

/* The same circuit, kept by the pure functions. */
struct model {
	struct circuit c;
	bool exists;
	struct breaker b;
	struct breaker_permit last; /* the last permit that was given */
};

static struct event_base *base;
static struct store *store;
static struct model models[KEYS];
static int64_t now;

static int64_t clock_of_test(void *arg)
{
	(void)arg;
	return now;
}

static void setup(void)
{
	struct store_limits limits = store_test_limits();

	limits.ttl_ms = 1000000000;
	now = START;
	base = event_base_new();
	store = store_memory_new(base, &limits,
				 (struct store_clock){.now_ms = clock_of_test,
						      .monotonic_ms = clock_of_test},
				 NULL);
	ck_assert_ptr_nonnull(store);
	memset(models, 0, sizeof(models));
	for (int i = 0; i < KEYS; i++)
		breaker_none(&models[i].b);
}

static void teardown(void)
{
	store_free(store);
	event_base_free(base);
}

static unsigned below(unsigned n)
{
	return (unsigned)random() % n;
}

static struct circuit_op random_op(const struct model *m, struct breaker_call *call)
{
	static const struct circuit_op fives[] = {
		{.verb = CIRCUIT_RECORD_SUCCESS},
		{.verb = CIRCUIT_RECORD_FAILURE},
		{.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_OPEN},
		{.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_HALF_OPEN},
		{.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_CLOSED},
		{.verb = CIRCUIT_RESET},
	};
	struct circuit_op op = {.verb = below(2) ? CIRCUIT_ACQUIRE : CIRCUIT_REPORT, .call = call};

	*call = (struct breaker_call){
		.policy = &policies[below(8) == 0],
		.random = (uint32_t)random() & 0xFFFFFF,
		.reporter = (uint16_t)below(BREAKER_REPORTERS),
		.count = 1,
		.outcome = below(4)   ? BREAKER_SUCCESS
			   : below(2) ? BREAKER_FAILURE
				      : BREAKER_IGNORED,
		.slow = below(5) == 0,
	};
	if (below(4))
		call->permit = m->last;
	if (below(100) == 0)
		return fives[below(6)];
	return op;
}

static enum circuit_effect run_model(struct model *m, const struct circuit_op *op,
				     struct breaker_answer *answer)
{
	struct circuit c = m->c;
	struct breaker b = m->b;
	enum circuit_effect effect;

	if (!m->exists)
		circuit_absent(&c, now);
	effect = breaker_run(&c, m->exists, &b, op, now, answer);
	if (effect == CIRCUIT_REMOVED) {
		m->exists = false;
		breaker_none(&m->b);
	} else if (effect == CIRCUIT_WRITTEN) {
		m->exists = true;
		m->c = c;
		m->b = b;
	}
	return effect;
}

static void check_answer(int step, const struct breaker_answer *want,
			 const struct breaker_answer *got)
{
	ck_assert_msg(want->was == got->was && want->state == got->state &&
			      want->allowed == got->allowed && want->counted == got->counted &&
			      want->reason == got->reason &&
			      want->retry_after_ms == got->retry_after_ms &&
			      want->permit.kind == got->permit.kind &&
			      want->permit.id == got->permit.id &&
			      want->permit.since_ms == got->permit.since_ms &&
			      want->move.cause == got->move.cause,
		      "step %d: %s %d in place of %s %d", step, breaker_reason_name(got->reason),
		      got->counted, breaker_reason_name(want->reason), want->counted);
}

START_TEST(the_store_decides_as_the_pure_machine_does)
{
	static const char *const keys[KEYS] = {"a", "/api/users", "the third circuit"};
	unsigned moves = 0;

	srandom(1);
	for (int step = 0; step < STEPS; step++) {
		int k = (int)below(KEYS);
		struct model *m = &models[k];
		struct breaker_call call;
		struct circuit_op op = random_op(m, &call);
		struct breaker_answer want = {0};
		struct store_result got;
		struct circuit now_there;

		/* Now and then a long pause, in which windows empty and openings end. */
		now += below(200) ? below(120) : below(20000);
		run_model(m, &op, &want);
		got = store_do(base, store, keys[k], op, STORE_OK);
		if (op.verb == CIRCUIT_ACQUIRE || op.verb == CIRCUIT_REPORT)
			check_answer(step, &want, &got.decision);
		if (want.allowed)
			m->last = want.permit;
		moves += want.was != want.state;
		now_there = store_do(base, store, keys[k], OP_GET, STORE_OK).circuit;
		if (m->exists)
			ck_assert_mem_eq(&now_there, &m->c, sizeof(m->c));
	}
	/* The history had enough changes of state. */
	ck_assert_uint_gt(moves, 100);
}
END_TEST

/* --- the packed form ------------------------------------------------------------------------ */

static void full(struct breaker *b, enum circuit_state state)
{
	breaker_none(b);
	b->exists = true;
	b->state = state;
	b->since_ms = CIRCUIT_INT_MAX;
	b->openings = 20000;
	b->open_ms = 604800000;
	b->half_open_ms = CIRCUIT_INT_MAX;
	b->probe_count = POLICY_PROBES_MAX;
	for (unsigned i = 0; i < POLICY_PROBES_MAX; i++)
		b->probes[i] =
			(struct breaker_probe){.id = 0xFFFFFF - i,
					       .deadline_ms = state == CIRCUIT_HALF_OPEN
								      ? START + (i ? 0xFFFFFF : 0)
								      : 0};
	b->override.mode = BREAKER_FORCED_CLOSED;
	b->override.since_ms = START;
	b->override.until_ms = START + 1000;
	b->override.reason_len = BREAKER_REASON_MAX;
	memset(b->override.reason, 'x', BREAKER_REASON_MAX);
	if (state != CIRCUIT_CLOSED)
		return;
	b->run = BREAKER_COUNT_MAX;
	b->window_ms = 3600000;
	b->newest = START / 360000;
	b->slot_count = BREAKER_SLOTS;
	for (unsigned i = 0; i < BREAKER_SLOTS; i++) {
		b->slots[i].calls = BREAKER_COUNT_MAX;
		b->slots[i].failures = BREAKER_COUNT_MAX;
		b->slots[i].reporter_count = BREAKER_SLOT_REPORTERS;
		for (unsigned j = 0; j < BREAKER_SLOT_REPORTERS; j++)
			b->slots[i].reporters[j] = (uint16_t)(BREAKER_REPORTERS - 1 - j);
	}
}

static void check_round_trip(const struct breaker *b, size_t at_most)
{
	char want[BREAKER_TEXT_MAX], got[BREAKER_TEXT_MAX];
	unsigned char packed[PACKED_BREAKER_MAX];
	size_t len = packed_breaker_write(packed, b);
	struct breaker again;

	ck_assert_uint_le(len, at_most);
	memset(&again, 0xa5, sizeof(again));
	packed_breaker_read(packed, len, &again);
	breaker_member_encode(want, b);
	breaker_member_encode(got, &again);
	ck_assert_str_eq(got, want);
	ck_assert(packed_breaker_has_override(packed, len));
}

START_TEST(the_fullest_member_is_packed_and_unpacked)
{
	struct breaker b;

	for (int state = 0; state < CIRCUIT_STATES; state++) {
		full(&b, (enum circuit_state)state);
		check_round_trip(&b, PACKED_BREAKER_MAX);
	}
}
END_TEST

START_TEST(no_member_takes_nothing)
{
	unsigned char packed[PACKED_BREAKER_MAX];
	struct breaker b;

	breaker_none(&b);
	ck_assert_uint_eq(packed_breaker_write(packed, &b), 0);
	ck_assert(!packed_breaker_has_override(packed, 0));
	memset(&b, 0xa5, sizeof(b));
	packed_breaker_read(packed, 0, &b);
	ck_assert(!b.exists);
	ck_assert_uint_eq(b.probe_count, 0);
}
END_TEST

/* --- members in the table ------------------------------------------------------------------- */

START_TEST(a_member_grows_shrinks_and_goes)
{
	static const size_t sizes[] = {1, 1400, 14, 300, 0, 48, 100, 1000, 900, 0};
	struct metrics *metrics = calloc(1, sizeof(*metrics));
	struct circuit_table *t = circuit_table_new(1000, 3600000, metrics);
	unsigned char bytes[1400];
	char key[32];

	for (size_t step = 0; step < sizeof(sizes) / sizeof(sizes[0]); step++) {
		memset(bytes, (int)step + 1, sizeof(bytes));
		for (int k = 0; k < 1000; k++) {
			struct circuit c = {.failure_count = (int64_t)step};
			const struct circuit_entry *e;
			const unsigned char *member;
			size_t key_len = (size_t)snprintf(key, sizeof(key), "circuit %d", k), len;

			ck_assert_int_eq(circuit_table_write_member(
						 t, circuit_table_find(t, key, key_len, 0), key,
						 key_len, &c, bytes, sizes[step], 0),
					 TABLE_OK);
			/* A write by one of the five operations keeps the member. */
			ck_assert_int_eq(circuit_table_write(t,
							     circuit_table_find(t, key, key_len, 0),
							     key, key_len, &c, 0),
					 TABLE_OK);
			e = circuit_table_find(t, key, key_len, 0);
			ck_assert_int_eq(circuit_entry_get(e)->failure_count, (int64_t)step);
			member = circuit_entry_member(e, &len);
			ck_assert_uint_eq(len, sizes[step]);
			if (len)
				ck_assert_mem_eq(member, bytes, len);
		}
	}
	ck_assert_uint_eq(circuit_table_count(t), 1000);
	ck_assert_int_eq(metrics->circuits[CIRCUIT_CLOSED], 1000);
	circuit_table_free(t);
	free(metrics);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("decisions in the embedded store");
	TCase *history = tcase_create("history"), *parts = tcase_create("parts");

	tcase_add_checked_fixture(history, setup, teardown);
	tcase_set_timeout(history, 60);
	tcase_add_test(history, the_store_decides_as_the_pure_machine_does);
	suite_add_tcase(suite, history);
	tcase_add_test(parts, the_fullest_member_is_packed_and_unpacked);
	tcase_add_test(parts, no_member_takes_nothing);
	tcase_add_test(parts, a_member_grows_shrinks_and_goes);
	suite_add_tcase(suite, parts);
	return suite_run(suite);
}
