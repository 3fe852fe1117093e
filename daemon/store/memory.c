/*
 * The embedded store itself: its start and end, what is put into it, and its state file.
 */
#include "base/random.h"
#include "store/memory_private.h"
#include "store/packed_breaker.h"

#include <stdio.h>
#include <stdlib.h>

/* The clock by which openings and overrides end. */
static int64_t circuits_now(void *arg)
{
	const struct memory_store *m = arg;

	return store_peek_ms(&m->clock);
}

void store_memory_put(struct store *s, const char *key, size_t key_len,
		      const struct circuit *circuit)
{
	struct memory_store *m = memory(s);
	int64_t now = memory_now(m);
	struct circuit_entry *entry = circuit_table_find(m->table, key, key_len, now);

	if (!circuit) {
		if (entry)
			circuit_table_remove(m->table, entry);
		return;
	}
	circuit_table_write(m->table, entry, key, key_len, circuit, now);
	memory_expiry_ensure(m, now);
}

void store_memory_put_breaker(struct store *s, const char *key, size_t key_len,
			      const struct circuit *circuit, const struct breaker *breaker)
{
	struct memory_store *m = memory(s);
	int64_t now = memory_now(m);
	struct circuit_entry *entry = circuit_table_find(m->table, key, key_len, now);
	unsigned char packed[PACKED_BREAKER_MAX];
	size_t len = packed_breaker_write(packed, breaker);

	circuit_table_write_member(m->table, entry, key, key_len, circuit, packed, len, now);
	memory_expiry_ensure(m, now);
}

void store_memory_put_item(struct store *s, const struct store_item *item, int64_t asked_ms,
			   bool add)
{
	struct memory_store *m = memory(s);
	const struct circuit_entry *entry =
		circuit_table_find(m->table, item->key, item->key_len, memory_now(m));
	const unsigned char *member = NULL;
	struct breaker b;
	size_t len = 0;

	if (entry ? circuit_entry_written(entry) >= asked_ms ||
			    circuit_entry_get(entry)->last_state_change >
				    item->circuit.last_state_change
		  : !add)
		return;
	if (entry)
		member = circuit_entry_member(entry, &len);
	packed_breaker_read(member, len, &b);
	if (item->override) {
		b.exists = true;
		b.override = *item->override;
	} else {
		b.override.mode = BREAKER_NO_OVERRIDE;
	}
	store_memory_put_breaker(s, item->key, item->key_len, &item->circuit, &b);
}

static void memory_health(struct store *s, struct store_health *health)
{
	struct memory_store *m = memory(s);

	health->condition = STORE_READY;
	health->since_ms = m->started_ms;
	health->counts_circuits = true;
	snprintf(health->detail, sizeof(health->detail), "%zu of at most %zu circuits",
		 circuit_table_count(m->table), s->limits.max_circuits);
}

static void memory_reconfigure(struct store *s)
{
	struct memory_store *m = memory(s);

	circuit_table_limit(m->table, s->limits.max_circuits, s->limits.ttl_ms);
	memory_expire_step(m);
}

static void memory_free(struct store *s)
{
	struct memory_store *m = memory(s);

	state_keeper_free(m->keeper, s->end_ms);
	if (m->expiry)
		event_free(m->expiry);
	later_free(m->list_turn);
	circuit_table_free(m->table);
	store_fini(s);
	free(m);
}

static const struct store_driver memory_driver = {
	.name = "memory",
	.submit = memory_submit,
	.list = memory_list,
	.detach = memory_detach,
	.health = memory_health,
	.reconfigure = memory_reconfigure,
	.free = memory_free,
};

struct store *store_memory_new(struct event_base *base, const struct store_limits *limits,
			       struct store_clock clock, struct metrics *metrics)
{
	struct memory_store *m = calloc(1, sizeof(*m));
	struct random_state random;

	if (!m)
		return NULL;
	if (store_init(&m->store, &memory_driver, base, limits) != 0)
		goto fail;
	m->clock = clock;
	m->metrics = metrics;
	m->started_ms = store_now_ms(&clock);
	random_init(&random);
	m->cursor_mark = (uint32_t)random_next(&random);
	m->expiry = evtimer_new(base, memory_on_expiry, m);
	TAILQ_INIT(&m->lists);
	m->list_turn = later_new(base, memory_on_list_turn, m);
	m->table = circuit_table_new(limits->max_circuits, limits->ttl_ms, metrics);
	if (!m->expiry || !m->list_turn || !m->table)
		goto fail;
	circuit_table_set_clock(m->table, circuits_now, m);
	return &m->store;
fail:
	memory_free(&m->store);
	return NULL;
}

int store_memory_keep_steps(struct store *s, struct circuit_queues *queues, const char *path,
			    struct metrics *metrics, struct log *log, char *why, size_t why_size)
{
	struct memory_store *m = memory(s);
	struct state_keeper_options options = {
		.path = path,
		.ttl_ms = s->limits.ttl_ms,
		.queues = queues,
	};
	int64_t now;

	m->keeper = state_keeper_new(&options, s->base, m->table, m->clock, metrics, log, why,
				     why_size);
	if (!m->keeper)
		return -1;
	now = memory_now(m);
	memory_expiry_arm(m, now, circuit_table_expire(m->table, now, EXPIRE_STEP));
	return 0;
}

int store_memory_keep(struct store *s, const char *path, struct log *log, char *why,
		      size_t why_size)
{
	return store_memory_keep_steps(s, NULL, path, memory(s)->metrics, log, why, why_size);
}

bool store_memory_keeps(const struct store *s)
{
	return ((const struct memory_store *)s)->keeper != NULL;
}

void store_memory_changed(struct store *s)
{
	memory_changed(memory(s));
}

void store_memory_save(struct store *s, void (*done)(void *arg), void *arg)
{
	state_keeper_save(memory(s)->keeper, done, arg);
}

bool store_memory_keep_end(struct store *s, int64_t end_ms)
{
	struct memory_store *m = memory(s);
	bool saved = state_keeper_free(m->keeper, end_ms);

	m->keeper = NULL;
	return saved;
}
