/*
 * Answers from memory: what main was seen to hold within max_staleness answers, unless the answer
 * would change something there. What is asked for steadily is asked for in main again before it is
 * too old, one read a circuit, those that are due together in one go.
 */
#include "base/clock.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "store/fallback_private.h"

#include <inttypes.h>

/* Asked for again within so many times max_staleness is steadily. Those that are due within a
 * fourth of it are refreshed together, and so once a turn in the end: what a read costs Redis is
 * mostly the packet. */
#define STEADILY 5
#define TOGETHER 4

/* Circuits that are refreshed in one turn of the loop: some 0.3 ms. */
#define REFRESH_BUDGET 256

static struct seen_circuit *find(struct fallback_store *f, const char *key, size_t len)
{
	if (f->seen.table.count == 0)
		return NULL;
	return (struct seen_circuit *)keytable_find(&f->seen.table, key, len);
}

/* How long it is worth knowing a circuit. */
static int64_t lifetime_ms(const struct fallback_store *f)
{
	const struct store_limits *limits = &f->store.limits;

	return limits->max_staleness_ms > limits->report_interval_ms ? limits->max_staleness_ms
								     : limits->report_interval_ms;
}

/* How long it is of interest when it was asked for last. */
static int64_t interest_ms(const struct fallback_store *f)
{
	int64_t steadily = STEADILY * (int64_t)f->store.limits.max_staleness_ms;
	int64_t lifetime = lifetime_ms(f);

	return steadily > lifetime ? steadily : lifetime;
}

/* The age at which a circuit is refreshed: the answer comes before it is too old, even if it takes
 * twice as long as of late. A different one each time, so that daemons do not ask together. */
static int64_t refresh_age_ms(struct fallback_store *f)
{
	int64_t most = f->store.limits.max_staleness_ms;
	int64_t age = most - most / 50 - 2 * f->seen.round_trip_ms - 2;

	f->seen.random = f->seen.random * UINT64_C(6364136223846793005) + 1442695040888963407;
	age -= (int64_t)(f->seen.random >> 33) % (most / 32 + 1);
	return age < most / 8 ? most / 8 : age;
}

static void list_leave(struct fallback_store *f, struct seen_circuit *e)
{
	if (e->list == SEEN_IN_FRESH)
		TAILQ_REMOVE(&f->seen.fresh, e, entry);
	if (e->list == SEEN_IN_AGING)
		TAILQ_REMOVE(&f->seen.aging, e, entry);
	e->list = SEEN_IN_NONE;
}

static void list_enter(struct fallback_store *f, struct seen_circuit *e, enum seen_list list)
{
	list_leave(f, e);
	TAILQ_INSERT_TAIL(list == SEEN_IN_FRESH ? &f->seen.fresh : &f->seen.aging, e, entry);
	e->list = list;
}

void seen_drop_if_idle(struct fallback_store *f, struct seen_circuit *e)
{
	if (e->list != SEEN_IN_NONE || e->refresh || e->held_count > 0 || e->held_sending > 0 ||
	    e->in_use)
		return;
	keytable_remove(&f->seen.table, &e->node);
}

static void forget(struct fallback_store *f, struct seen_circuit *e)
{
	e->known_ms = SEEN_NEVER;
	list_leave(f, e);
	seen_drop_if_idle(f, e);
}

/* --- refreshing --------------------------------------------------------------------------- */

static void tick_arm(struct fallback_store *f)
{
	const struct seen_circuit *fresh = TAILQ_FIRST(&f->seen.fresh);
	const struct seen_circuit *aging = TAILQ_FIRST(&f->seen.aging);
	int64_t due = INT64_MAX;

	if (evtimer_pending(f->seen.tick, NULL))
		return;
	if (fresh)
		due = fresh->known_ms + refresh_age_ms(f);
	if (fresh && f->seen.refreshing >= BACKGROUND_MAX && due < clock_ms() + BACKGROUND_MS)
		due = clock_ms() + BACKGROUND_MS;
	if (aging && aging->known_ms + interest_ms(f) < due)
		due = aging->known_ms + interest_ms(f);
	if (due != INT64_MAX)
		timer_arm(f->seen.tick, due - clock_ms());
}

static void refresh(struct fallback_store *f, struct seen_circuit *e);

static void on_refreshed(void *arg, struct store_result *result)
{
	struct seen_circuit *e = arg;
	struct fallback_store *f = e->store;
	int64_t took_ms = clock_ms() - e->refresh_ms;

	e->refresh = NULL;
	f->seen.refreshing--;
	f->seen.round_trip_ms -= (f->seen.round_trip_ms + 7) / 8;
	if (took_ms > f->seen.round_trip_ms)
		f->seen.round_trip_ms = took_ms;
	if (e->stale_refresh) {
		e->stale_refresh = false;
		refresh(f, e);
		return;
	}
	if (result->status == STORE_OK && !result->overtaken && f->ready) {
		const struct store_request get = {
			.key = keynode_key(&e->node),
			.key_len = e->node.key_len,
			.op = {.verb = CIRCUIT_GET_STATE},
		};

		e->in_use = true;
		fallback_learn(f, &get, e->refresh_ms, result);
		e->in_use = false;
	}
	seen_drop_if_idle(f, e);
}

/* Asks main for the circuit; or sends the successes that are held back, whose answer says it
 * too. */
static void refresh(struct fallback_store *f, struct seen_circuit *e)
{
	const struct store_request get = {
		.key = keynode_key(&e->node),
		.key_len = e->node.key_len,
		.op = {.verb = CIRCUIT_GET_STATE},
		.with_member = true,
	};
	struct store_result result;

	list_leave(f, e);
	if (e->refresh || !f->ready ||
	    circuit_queue_find(&f->queues, get.key, get.key_len) != NULL) {
		seen_drop_if_idle(f, e);
		return;
	}
	if (e->held_count > 0) {
		held_send(f, e);
		return;
	}
	e->refresh_ms = clock_ms();
	e->refresh = store_submit(f->main, &get, on_refreshed, e, &result);
	if (e->refresh)
		f->seen.refreshing++;
	else
		seen_drop_if_idle(f, e);
}

/* Nothing is known any more, until main says it. */
static void refresh_now(struct fallback_store *f, struct seen_circuit *e)
{
	e->known_ms = SEEN_NEVER;
	e->stale_refresh = e->refresh != NULL;
	refresh(f, e);
}

/* Those that will be due soon are asked for with those that are. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	int64_t now = clock_ms();
	int64_t staleness_ms = f->store.limits.max_staleness_ms;
	int64_t soon = now + staleness_ms / TOGETHER - refresh_age_ms(f);
	unsigned budget = REFRESH_BUDGET;
	struct seen_circuit *e;

	(void)fd;
	(void)what;
	while ((e = TAILQ_FIRST(&f->seen.fresh)) != NULL && e->known_ms <= soon &&
	       f->seen.refreshing < BACKGROUND_MAX && budget-- > 0) {
		if (e->asked_ms != SEEN_NEVER && now - e->asked_ms < STEADILY * staleness_ms)
			refresh(f, e);
		else
			list_enter(f, e, SEEN_IN_AGING);
	}
	while ((e = TAILQ_FIRST(&f->seen.aging)) != NULL && e->known_ms + interest_ms(f) <= now &&
	       budget-- > 0)
		forget(f, e);
	tick_arm(f);
}

/* --- what main says ----------------------------------------------------------------------- */

static struct seen_circuit *get(struct fallback_store *f, const struct store_request *request)
{
	struct seen_circuit *e = find(f, request->key, request->key_len);

	if (e || lifetime_ms(f) == 0 || f->seen.table.count >= f->store.limits.max_circuits)
		return e;
	e = (struct seen_circuit *)keytable_add(&f->seen.table, sizeof(*e), request->key,
						request->key_len);
	if (!e)
		return NULL;
	e->store = f;
	e->known_ms = SEEN_NEVER;
	e->asked_ms = SEEN_NEVER;
	return e;
}

bool seen_is_old(struct fallback_store *f, const struct store_request *request, int64_t asked_ms,
		 const struct store_result *result)
{
	struct seen_circuit *e = find(f, request->key, request->key_len);

	if (!e || e->told_change_ms == 0 || e->told_ms < asked_ms)
		return false;
	if (!result->absent && result->circuit.last_state_change >= e->told_change_ms)
		return false;
	forget(f, e);
	return true;
}

void seen_learn(struct fallback_store *f, const struct store_request *request, int64_t asked_ms,
		const struct store_result *result)
{
	struct seen_circuit *e;

	if (!result->breaker) {
		/* The member was not seen: if the circuit has changed its state, what is known of
		 * it is no answer any more. */
		e = find(f, request->key, request->key_len);
		if (e && (request->op.verb >= CIRCUIT_TRANSITION || result->absent == e->exists ||
			  result->circuit.state != e->state ||
			  result->circuit.last_state_change != e->change_ms))
			forget(f, e);
		return;
	}
	/* What nobody asks memory for gets no entry. */
	if (request->op.call ||
	    (request->op.verb == CIRCUIT_GET_STATE && f->store.limits.read_cache))
		e = get(f, request);
	else
		e = find(f, request->key, request->key_len);
	if (!e)
		return;
	e->exists = !result->absent;
	e->state = result->circuit.state;
	e->change_ms = result->circuit.last_state_change;
	if (asked_ms > e->known_ms)
		e->known_ms = asked_ms;
	list_enter(f, e, SEEN_IN_FRESH);
	tick_arm(f);
}

/* A message that is older than what is known says nothing. One of the same time may be this
 * daemon's own, of which more is known by now; but an override leaves lastStateChange as it is. */
void seen_told(struct fallback_store *f, const struct store_event *event)
{
	struct seen_circuit *e = find(f, event->key, event->key_len);
	int64_t change_ms = event->circuit.last_state_change;

	if (!e)
		return;
	if (event->by == 'o' || event->by == 'x') {
		refresh_now(f, e);
		return;
	}
	if (change_ms < e->change_ms || (change_ms == e->change_ms && event->exists == e->exists &&
					 event->circuit.state == e->state))
		return;
	/* Two changes in one millisecond: which is the later one? */
	if (change_ms == e->change_ms) {
		refresh_now(f, e);
		return;
	}
	e->told_change_ms = change_ms;
	e->told_ms = clock_ms();
	e->exists = event->exists;
	e->state = event->circuit.state;
	e->change_ms = change_ms;
	fallback_seen(f, event->key, event->key_len, event->exists ? &event->circuit : NULL,
		      event->breaker);
}

void seen_forget_all(struct fallback_store *f)
{
	for (size_t i = 0; i < f->seen.table.slot_count; i++) {
		struct seen_circuit *e = (struct seen_circuit *)keytable_slot(&f->seen.table, i);

		if (e)
			forget(f, e);
	}
}

/* --- answers ------------------------------------------------------------------------------ */

bool seen_answer(struct fallback_store *f, const struct store_request *request,
		 struct store_result *result)
{
	const struct store_limits *limits = &f->store.limits;
	enum circuit_verb verb = request->op.verb;
	struct seen_circuit *e;
	int64_t now;

	if (limits->max_staleness_ms == 0 ||
	    (verb != CIRCUIT_ACQUIRE && (verb != CIRCUIT_GET_STATE || !limits->read_cache)))
		return false;
	e = find(f, request->key, request->key_len);
	if (!e)
		return false;
	now = clock_ms();
	e->asked_ms = now;
	if (e->known_ms == SEEN_NEVER || now - e->known_ms >= limits->max_staleness_ms)
		return false;
	/* What was held back is not in the snapshot yet. */
	if (verb == CIRCUIT_GET_STATE && (e->held_count > 0 || e->held_sending > 0))
		return false;
	if (circuit_queue_find(&f->queues, request->key, request->key_len))
		return false;
	/* A full memory may have dropped it. */
	if (store_memory_try(f->local, request, result) != CIRCUIT_READ ||
	    result->absent == e->exists)
		return false;
	if (e->list == SEEN_IN_AGING)
		refresh(f, e);
	if (f->metrics)
		f->metrics->cached_answers++;
	return true;
}

struct seen_circuit *seen_known(struct fallback_store *f, const char *key, size_t len)
{
	struct seen_circuit *e = find(f, key, len);

	if (!e || e->known_ms == SEEN_NEVER || clock_ms() - e->known_ms >= lifetime_ms(f))
		return NULL;
	return e;
}

struct seen_circuit *seen_find(struct fallback_store *f, const char *key, size_t len)
{
	return find(f, key, len);
}

/* --- beginning and end -------------------------------------------------------------------- */

int seen_init(struct fallback_store *f)
{
	struct siphash_key seed;

	siphash_key_init(&seed);
	f->seen.random = seed.k0;
	TAILQ_INIT(&f->seen.fresh);
	TAILQ_INIT(&f->seen.aging);
	TAILQ_INIT(&f->seen.held);
	f->seen.tick = evtimer_new(f->store.base, on_tick, f);
	f->seen.send = evtimer_new(f->store.base, held_on_timer, f);
	return f->seen.tick && f->seen.send && keytable_init(&f->seen.table) == 0 ? 0 : -1;
}

/* What is held back still, with Redis away. */
static void say_lost(struct fallback_store *f)
{
	if (f->seen.pending == 0)
		return;
	if (f->metrics)
		f->metrics->reports_lost += f->seen.pending;
	log_warning(f->log, "reports_lost", "count=%" PRIu64 " reason=%s", f->seen.pending,
		    "\"stopped before Redis had them\"");
}

void seen_fini(struct fallback_store *f)
{
	say_lost(f);
	for (size_t i = 0; i < f->seen.table.slot_count; i++) {
		struct seen_circuit *e = (struct seen_circuit *)keytable_slot(&f->seen.table, i);

		if (e)
			held_free(e);
	}
	keytable_fini(&f->seen.table);
	if (f->seen.tick)
		event_free(f->seen.tick);
	if (f->seen.send)
		event_free(f->seen.send);
}
