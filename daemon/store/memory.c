/*
 * The embedded store. Every operation ends at once; a listing may take a few turns of the
 * loop, so that one that matches little does not hold up the rest.
 */
#include "base/clock.h"
#include "base/later.h"
#include "base/timer.h"
#include "store/circuit_table.h"
#include "store/driver.h"
#include "store/packed_breaker.h"
#include "store/state_keeper.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Slots looked at in one turn of the loop, and circuits expired in one: some 100 us. */
#define LIST_STEP   4096
#define EXPIRE_STEP 1000

struct memory_store {
	struct store store;
	struct store_clock clock;
	struct circuit_table *table;
	struct metrics *metrics;
	struct state_keeper *keeper; /* or NULL */
	struct event *expiry;        /* set while the table is not empty */
	bool expiry_armed;           /* it is */
	int64_t started_ms;
	struct breaker_override override; /* of the last result */
};

struct memory_list {
	struct store_op op;
	struct store_query query;
	struct store_page *page;
	size_t slot;     /* the next to look at */
	int64_t stop_ms; /* monotonic: a page that is not full by then is short */
	struct later *turn;
};

static struct memory_store *memory(struct store *s)
{
	return (struct memory_store *)s;
}

/* What the time to live runs on. */
static int64_t table_now(struct memory_store *m)
{
	return m->clock.monotonic_ms ? m->clock.monotonic_ms(m->clock.arg) : clock_ms();
}

/* What openings and overrides end by. */
static int64_t circuits_now(void *arg)
{
	const struct memory_store *m = arg;

	return store_look_ms(&m->clock);
}

static void expiry_arm(struct memory_store *m, int64_t now, int64_t next)
{
	if (next >= 0)
		m->expiry_armed = timer_arm(m->expiry, next - now) == 0;
}

/* The table is not empty. */
static void expiry_ensure(struct memory_store *m, int64_t now)
{
	if (!m->expiry_armed)
		expiry_arm(m, now, now + m->store.limits.ttl_ms);
}

static void changed(struct memory_store *m)
{
	if (m->keeper)
		state_keeper_changed(m->keeper);
}

/* A step of what goes by itself: circuits whose time is over, and those over a bound that was
 * lowered. */
static void expire_step(struct memory_store *m)
{
	int64_t now = table_now(m);
	int64_t next = circuit_table_expire(m->table, now, EXPIRE_STEP);
	size_t before = circuit_table_count(m->table);

	if (circuit_table_shrink(m->table, EXPIRE_STEP))
		next = now;
	if (circuit_table_count(m->table) < before)
		changed(m);
	expiry_arm(m, now, next);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg)
{
	struct memory_store *m = arg;

	(void)fd;
	(void)what;
	m->expiry_armed = false;
	expire_step(m);
}

/* Something was to be written: it was, or *result says why it was not. */
static void note_written(struct memory_store *m, enum circuit_table_status status, int64_t now,
			 struct store_result *result)
{
	switch (status) {
	case TABLE_OK:
		break;
	case TABLE_FULL:
		store_refuse(result, STORE_FULL,
			     "max_circuits are stored, and none of them is closed");
		return;
	case TABLE_NO_MEMORY:
		store_refuse(result, STORE_ERROR, "out of memory");
		return;
	}
	changed(m);
	if (circuit_table_count(m->table) > m->store.limits.max_circuits)
		expiry_arm(m, now, now); /* it may just have been closed */
	else
		expiry_ensure(m, now);
}

/* The override that holds, kept until the next one is asked for; or NULL. */
static const struct breaker_override *override_of(struct memory_store *m,
						  const struct circuit_entry *entry, int64_t now_ms)
{
	size_t len;
	const unsigned char *member = circuit_entry_member(entry, &len);
	struct breaker b;

	if (!packed_breaker_has_override(member, len))
		return NULL;
	packed_breaker_read(member, len, &b);
	m->override = b.override;
	return breaker_override_at(&b, now_ms) ? &m->override : NULL;
}

/* The operation has changed the circuit, and the follower is to know. */
static void tell(struct memory_store *m, const struct store_request *request,
		 const struct store_result *result, const struct breaker_override *override)
{
	static const enum store_by by[CIRCUIT_VERBS] = {
		[CIRCUIT_TRANSITION] = STORE_BY_TRANSITION,
		[CIRCUIT_RESET] = STORE_BY_RESET,
		[CIRCUIT_ACQUIRE] = STORE_BY_ACQUIRE,
		[CIRCUIT_REPORT] = STORE_BY_REPORT,
		[CIRCUIT_OVERRIDE] = STORE_BY_OVERRIDE,
		[CIRCUIT_END_OVERRIDE] = STORE_BY_OVERRIDE,
	};
	char why[BREAKER_WHY_MAX] = "";
	const struct store_change change = {
		.key = request->key,
		.key_len = request->key_len,
		.circuit = result->circuit,
		.override = override,
		.by = by[request->op.verb],
		.why = why,
	};

	if (request->op.verb == CIRCUIT_ACQUIRE || request->op.verb == CIRCUIT_REPORT)
		breaker_why(why, &result->decision.move);
	store_tell(&m->store, &change);
}

/* An operation that needs the circuit's member, on the circuit as it is stored: what it answers,
 * and what it makes of the member. */
static enum circuit_effect run_decision(struct memory_store *m, const struct circuit_entry *entry,
					const struct circuit_op *op, struct breaker *b,
					struct store_result *result)
{
	const unsigned char *member = NULL;
	size_t len = 0;

	store_refuse(result, STORE_OK, NULL);
	if (entry) {
		result->circuit = *circuit_entry_get(entry);
		member = circuit_entry_member(entry, &len);
	}
	result->absent = !entry;
	if (op->verb == CIRCUIT_ACQUIRE && result->circuit.state == CIRCUIT_CLOSED &&
	    !packed_breaker_has_override(member, len)) {
		b->override.mode = BREAKER_NO_OVERRIDE;
		breaker_acquire_closed(&result->circuit, entry != NULL, &result->decision);
		return CIRCUIT_READ;
	}
	packed_breaker_read(member, len, b);
	result->now_ms = store_now_ms(&m->clock);
	result->was = result->circuit.state;
	result->was_overridden = breaker_override_at(b, result->now_ms) != NULL;
	return breaker_run(&result->circuit, entry != NULL, b, op, result->now_ms,
			   &result->decision);
}

static void show_override(struct memory_store *m, const struct circuit_entry *entry,
			  struct store_result *result)
{
	result->absent = !entry;
	if (!entry || !circuit_entry_is_held(entry))
		return;
	result->now_ms = store_now_ms(&m->clock);
	result->override = override_of(m, entry, result->now_ms);
}

enum circuit_effect store_memory_try(struct store *s, const struct store_request *request,
				     struct store_result *result)
{
	struct memory_store *m = memory(s);
	const struct circuit_entry *entry =
		circuit_table_find(m->table, request->key, request->key_len, table_now(m));
	enum circuit_effect effect;
	struct breaker b;

	if (request->op.verb >= CIRCUIT_ACQUIRE)
		return run_decision(m, entry, &request->op, &b, result);
	store_refuse(result, STORE_OK, NULL);
	if (entry)
		result->circuit = *circuit_entry_get(entry);
	result->was = result->circuit.state;
	effect = circuit_apply(&result->circuit, entry != NULL, &request->op,
			       store_now_ms(&m->clock));
	show_override(m, entry, result);
	return effect;
}

/* The operations that need the circuit's member. */
static void decide(struct memory_store *m, const struct store_request *request,
		   struct store_result *result)
{
	unsigned char packed[PACKED_BREAKER_MAX];
	int64_t now = table_now(m);
	struct circuit_entry *entry =
		circuit_table_find(m->table, request->key, request->key_len, now);
	struct breaker b;
	size_t len;

	if (run_decision(m, entry, &request->op, &b, result) == CIRCUIT_WRITTEN) {
		result->absent = false;
		len = packed_breaker_write(packed, &b);
		note_written(m,
			     circuit_table_write_member(m->table, entry, request->key,
							request->key_len, &result->circuit, packed,
							len, now),
			     now, result);
		if (request->op.verb == CIRCUIT_OVERRIDE)
			expiry_arm(m, now, now); /* its end is looked for */
	}
	if (b.override.mode != BREAKER_NO_OVERRIDE) {
		m->override = b.override;
		result->override = &m->override;
	}
	if (result->status == STORE_OK &&
	    (result->was != result->circuit.state || request->op.verb >= CIRCUIT_OVERRIDE))
		tell(m, request, result, result->override);
}

/* Stores what one of the five made. A transition changes the circuit's member, too. */
static enum circuit_table_status write_circuit(struct memory_store *m, struct circuit_entry *entry,
					       const struct store_request *request,
					       const struct circuit *c, int64_t now)
{
	unsigned char packed[PACKED_BREAKER_MAX];
	const unsigned char *member;
	struct breaker b;
	size_t len = 0;

	if (entry && request->op.verb == CIRCUIT_TRANSITION)
		member = circuit_entry_member(entry, &len);
	if (len == 0)
		return circuit_table_write(m->table, entry, request->key, request->key_len, c, now);
	packed_breaker_read(member, len, &b);
	breaker_obey(c, &b, store_now_ms(&m->clock));
	len = packed_breaker_write(packed, &b);
	return circuit_table_write_member(m->table, entry, request->key, request->key_len, c,
					  packed, len, now);
}

static struct store_op *memory_submit(struct store *s, const struct store_request *request,
				      store_done_fn *done, void *arg, struct store_result *result)
{
	struct memory_store *m = memory(s);
	const struct breaker_override *override;
	struct circuit_entry *entry;
	int64_t now, wall_ms = 0;

	(void)done;
	(void)arg;
	if (request->op.verb >= CIRCUIT_ACQUIRE) {
		decide(m, request, result);
		return NULL;
	}
	now = table_now(m);
	entry = circuit_table_find(m->table, request->key, request->key_len, now);
	store_refuse(result, STORE_OK, NULL);
	if (entry)
		result->circuit = *circuit_entry_get(entry);
	result->was = result->circuit.state;
	/* A circuit that exists is read without the time. */
	if (!entry || request->op.verb != CIRCUIT_GET_STATE)
		wall_ms = store_now_ms(&m->clock);
	switch (circuit_apply(&result->circuit, entry != NULL, &request->op, wall_ms)) {
	case CIRCUIT_READ:
		show_override(m, entry, result);
		break;
	case CIRCUIT_CONFLICT:
		result->status = STORE_CONFLICT;
		break;
	case CIRCUIT_REMOVED:
		if (entry) {
			circuit_table_remove(m->table, entry);
			changed(m);
			tell(m, request, result, NULL);
		}
		break;
	case CIRCUIT_WRITTEN:
		/* The entry may move. */
		override = result->was != result->circuit.state && entry &&
					   circuit_entry_is_held(entry)
				   ? override_of(m, entry, circuits_now(m))
				   : NULL;
		note_written(m, write_circuit(m, entry, request, &result->circuit, now), now,
			     result);
		if (result->was != result->circuit.state && result->status == STORE_OK)
			tell(m, request, result, override);
		break;
	}
	return NULL;
}

void store_memory_put(struct store *s, const char *key, size_t key_len,
		      const struct circuit *circuit)
{
	struct memory_store *m = memory(s);
	int64_t now = table_now(m);
	struct circuit_entry *entry = circuit_table_find(m->table, key, key_len, now);

	if (!circuit) {
		if (entry)
			circuit_table_remove(m->table, entry);
		return;
	}
	circuit_table_write(m->table, entry, key, key_len, circuit, now);
	expiry_ensure(m, now);
}

void store_memory_put_breaker(struct store *s, const char *key, size_t key_len,
			      const struct circuit *circuit, const struct breaker *breaker)
{
	struct memory_store *m = memory(s);
	int64_t now = table_now(m);
	struct circuit_entry *entry = circuit_table_find(m->table, key, key_len, now);
	unsigned char packed[PACKED_BREAKER_MAX];
	size_t len = packed_breaker_write(packed, breaker);

	circuit_table_write_member(m->table, entry, key, key_len, circuit, packed, len, now);
	expiry_ensure(m, now);
}

void store_memory_put_item(struct store *s, const struct store_item *item, int64_t asked_ms,
			   bool add)
{
	struct memory_store *m = memory(s);
	const struct circuit_entry *entry =
		circuit_table_find(m->table, item->key, item->key_len, table_now(m));
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

/* Looks at LIST_STEP slots at most. True when the page is done, with its cursor. */
static bool list_step(struct memory_store *m, const struct store_query *query, size_t *slot,
		      struct store_page *page, bool *no_memory)
{
	int64_t now = table_now(m);
	size_t slots = circuit_table_slots(m->table);
	size_t stop = *slot + LIST_STEP;

	while (*slot < slots && *slot < stop && page->count < query->limit) {
		struct circuit_entry *e = circuit_table_slot(m->table, (*slot)++, now);
		const struct circuit *c;
		const char *key;
		size_t len;

		if (!e)
			continue;
		c = circuit_entry_get(e);
		key = circuit_entry_key(e, &len);
		if (store_query_matches(query, key, len, c->state) &&
		    !store_page_add(page, key, len, c,
				    circuit_entry_is_held(e)
					    ? override_of(m, e, store_now_ms(&m->clock))
					    : NULL)) {
			*no_memory = true;
			return true;
		}
	}
	if (*slot >= slots)
		return true;
	snprintf(page->cursor, sizeof(page->cursor), "%zu", *slot);
	return page->count >= query->limit;
}

static void list_answer(struct store_result *result, struct store_page *page, bool no_memory)
{
	store_refuse(result, STORE_OK, NULL);
	result->page = page;
	if (no_memory) {
		store_page_free(page);
		store_refuse(result, STORE_ERROR, "out of memory");
	}
}

static void on_list_turn(void *arg)
{
	struct memory_list *l = arg;
	struct memory_store *m = memory(l->op.store);
	struct store_result result;
	bool no_memory = false;

	l->page->cursor[0] = '\0';
	if (!list_step(m, &l->query, &l->slot, l->page, &no_memory) && clock_ms() < l->stop_ms) {
		later_run(l->turn);
		return;
	}
	list_answer(&result, l->page, no_memory);
	later_free(l->turn);
	store_op_finish(&l->op, &result);
}

static bool cursor_read(const char *cursor, size_t *slot)
{
	char *end;
	unsigned long long value;

	*slot = 0;
	if (!cursor[0])
		return true;
	if (cursor[0] < '0' || cursor[0] > '9')
		return false;
	errno = 0;
	value = strtoull(cursor, &end, 10);
	*slot = (size_t)value;
	return errno == 0 && *end == '\0' && value <= UINT32_MAX;
}

static struct memory_list *list_continue(struct memory_store *m, const struct store_query *query,
					 size_t slot, struct store_page *page)
{
	struct memory_list *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->turn = later_new(m->store.base, on_list_turn, l);
	if (!l->turn) {
		free(l);
		return NULL;
	}
	l->query = *query;
	l->page = page;
	l->slot = slot;
	l->stop_ms = clock_ms() + m->store.limits.timeout_ms / 2;
	later_run(l->turn);
	return l;
}

static struct store_op *memory_list(struct store *s, const struct store_query *query,
				    store_done_fn *done, void *arg, struct store_result *result)
{
	struct memory_store *m = memory(s);
	struct memory_list *l;
	struct store_page *page;
	bool no_memory = false;
	size_t slot;

	if (!cursor_read(query->cursor, &slot))
		return store_refuse(result, STORE_BAD_CURSOR, "the cursor is none of ours");
	if (!query->background && store_overloaded(s, result))
		return NULL;
	page = store_page_new(query->limit);
	if (!page)
		return store_refuse(result, STORE_ERROR, "out of memory");
	if (list_step(m, query, &slot, page, &no_memory)) {
		list_answer(result, page, no_memory);
		return NULL;
	}
	l = list_continue(m, query, slot, page);
	if (!l) {
		store_page_free(page);
		return store_refuse(result, STORE_ERROR, "out of memory");
	}
	store_op_start(s, &l->op, done, arg);
	return &l->op;
}

static void memory_detach(struct store_op *op, struct store_result *verdict)
{
	struct memory_list *l = (struct memory_list *)op;

	later_free(l->turn);
	store_page_free(l->page);
	verdict->status = STORE_TIMEOUT;
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
	expire_step(m);
}

static void memory_free(struct store *s)
{
	struct memory_store *m = memory(s);

	state_keeper_free(m->keeper, s->end_ms);
	if (m->expiry)
		event_free(m->expiry);
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

	if (!m)
		return NULL;
	if (store_init(&m->store, &memory_driver, base, limits) != 0)
		goto fail;
	m->clock = clock;
	m->metrics = metrics;
	m->started_ms = store_now_ms(&clock);
	m->expiry = evtimer_new(base, on_expiry, m);
	m->table = circuit_table_new(limits->max_circuits, limits->ttl_ms, metrics);
	if (!m->expiry || !m->table)
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
	now = table_now(m);
	expiry_arm(m, now, circuit_table_expire(m->table, now, EXPIRE_STEP));
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
	changed(memory(s));
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
