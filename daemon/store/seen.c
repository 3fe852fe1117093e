/*
 * What is known of the circuits in main from its answers and messages, how old that is, and how
 * long it is of interest.
 */
#include "base/clock.h"
#include "base/timer.h"
#include "store/fallback_private.h"

struct seen_circuit *seen_find(struct fallback_store *f, const char *key, size_t len)
{
	if (f->seen.table.count == 0)
		return NULL;
	return (struct seen_circuit *)keytable_find(&f->seen.table, key, len);
}

/* How long what is known of a circuit can be used. */
static int64_t lifetime_ms(const struct fallback_store *f)
{
	const struct store_limits *limits = &f->store.limits;

	return limits->max_staleness_ms > limits->report_interval_ms ? limits->max_staleness_ms
								     : limits->report_interval_ms;
}

int64_t seen_interest_ms(const struct fallback_store *f)
{
	int64_t steadily = SEEN_STEADILY * (int64_t)f->store.limits.max_staleness_ms;
	int64_t lifetime = lifetime_ms(f);

	return steadily > lifetime ? steadily : lifetime;
}

/* The answer shall come before what is known is too old, even if it takes twice as long as of late;
 * and not much before, since each read costs Redis. If it takes longer still, requests that come
 * meanwhile wait for it: where main is slow because it has much to do, reading more often would not
 * help. The age differs each time, so that daemons do not ask together. */
int64_t seen_refresh_age_ms(struct fallback_store *f)
{
	int64_t most = f->store.limits.max_staleness_ms;
	int64_t age = most - most / 100 - f->seen.round_trip_eighths / 4 - 2;

	age -= (int64_t)random_below(&f->seen.random, (uint64_t)most / 64 + 1);
	return age < most / 2 ? most / 2 : age;
}

/* The answer to the successes tells what the circuit is. They cost Redis more than a read, and so
 * they go later: with time left for one short round trip. A request that comes after max_staleness
 * waits for the answer. */
int64_t seen_report_age_ms(struct fallback_store *f)
{
	int64_t most = f->store.limits.max_staleness_ms;
	int64_t age = most - most / 100 - f->seen.short_trip_512ths / 512 - 4;

	age -= (int64_t)random_below(&f->seen.random, (uint64_t)most / 64 + 1);
	return age < most / 2 ? most / 2 : age;
}

static struct seen_circuits *list_of(struct fallback_store *f, enum seen_list list)
{
	if (list == SEEN_IN_FRESH)
		return &f->seen.fresh;
	return list == SEEN_IN_HELD ? &f->seen.reporting : &f->seen.aging;
}

void seen_list_leave(struct fallback_store *f, struct seen_circuit *e)
{
	if (e->list != SEEN_IN_NONE)
		TAILQ_REMOVE(list_of(f, e->list), e, entry);
	e->list = SEEN_IN_NONE;
}

void seen_list_enter(struct fallback_store *f, struct seen_circuit *e, enum seen_list list)
{
	seen_list_leave(f, e);
	TAILQ_INSERT_TAIL(list_of(f, list), e, entry);
	e->list = list;
}

void seen_drop_if_idle(struct fallback_store *f, struct seen_circuit *e)
{
	if (e->list != SEEN_IN_NONE || e->refresh || e->held_count > 0 || e->held_sending > 0 ||
	    e->in_use || e->woken || !TAILQ_EMPTY(&e->readers))
		return;
	keytable_remove(&f->seen.table, &e->node);
}

void seen_forget(struct fallback_store *f, struct seen_circuit *e)
{
	e->known_ms = SEEN_NEVER;
	seen_list_leave(f, e);
	seen_drop_if_idle(f, e);
}

/* --- refreshing --------------------------------------------------------------------------- */

void seen_arm_refresh_timer(struct fallback_store *f)
{
	const struct seen_circuit *fresh = TAILQ_FIRST(&f->seen.fresh);
	const struct seen_circuit *reporting = TAILQ_FIRST(&f->seen.reporting);
	const struct seen_circuit *aging = TAILQ_FIRST(&f->seen.aging);
	int64_t due = INT64_MAX;

	if (fresh)
		due = fresh->known_ms + seen_refresh_age_ms(f);
	if (reporting && reporting->known_ms + seen_report_age_ms(f) < due)
		due = reporting->known_ms + seen_report_age_ms(f);
	if (due != INT64_MAX && fallback_is_busy(f) && due < clock_ms() + BACKGROUND_MS)
		due = clock_ms() + BACKGROUND_MS;
	if (aging && aging->known_ms + seen_interest_ms(f) < due)
		due = aging->known_ms + seen_interest_ms(f);
	/* Move the timer only if it is due clearly later, as for one in `aging`; the jitter of the
	 * age is no reason. */
	if (due == INT64_MAX ||
	    (evtimer_pending(f->seen.refresh_timer, NULL) &&
	     f->seen.refresh_timer_ms <= due + f->store.limits.max_staleness_ms / 64))
		return;
	f->seen.refresh_timer_ms = due;
	timer_arm(f->seen.refresh_timer, due - clock_ms());
}

void seen_reconfigured(struct fallback_store *f)
{
	evtimer_del(f->seen.refresh_timer);
	seen_arm_refresh_timer(f);
}

/* --- what main says ----------------------------------------------------------------------- */

struct seen_circuit *seen_get(struct fallback_store *f, const char *key, size_t len)
{
	struct seen_circuit *e = seen_find(f, key, len);

	if (e || lifetime_ms(f) == 0 || f->seen.table.count >= f->store.limits.max_circuits)
		return e;
	e = (struct seen_circuit *)keytable_add(&f->seen.table, sizeof(*e), key, len);
	if (!e)
		return NULL;
	e->store = f;
	e->known_ms = SEEN_NEVER;
	e->asked_ms = SEEN_NEVER;
	TAILQ_INIT(&e->readers);
	return e;
}

/* The place for what is told of this circuit: its own if it has one, else the one told longest ago.
 */
static struct seen_told *told_place(struct fallback_store *f, uint64_t hash)
{
	struct seen_told *place =
		&f->seen.told[hash % (SEEN_TOLD / SEEN_TOLD_EACH) * SEEN_TOLD_EACH];
	struct seen_told *oldest = place;

	for (unsigned i = 0; i < SEEN_TOLD_EACH; i++) {
		if (place[i].hash == hash)
			return &place[i];
		if (place[i].number < oldest->number)
			oldest = &place[i];
	}
	return oldest;
}

void seen_note_told(struct fallback_store *f, const struct store_event *event, int64_t change_ms)
{
	uint64_t hash = siphash(&f->seen.table.secret, event->key, event->key_len);
	struct seen_told *place = told_place(f, hash);

	if (place->hash != hash && place->number > f->seen.told_lost)
		f->seen.told_lost = place->number;
	*place = (struct seen_told){
		.hash = hash,
		.number = ++f->seen.told_count,
		.change_ms = change_ms,
		.exists = event->exists,
	};
}

/* True if a message has told of a change that is later than this answer. Then nothing is known of
 * the circuit any more. `gone`: the circuit does not exist by this answer. */
static bool is_old(struct fallback_store *f, const struct store_request *request,
		   struct seen_asked asked, const struct store_result *result, bool gone)
{
	const struct seen_told *told;
	struct seen_circuit *e;
	uint64_t hash;

	if (f->seen.told_count <= asked.told)
		return false;
	hash = siphash(&f->seen.table.secret, request->key, request->key_len);
	told = told_place(f, hash);
	if (told->hash == hash) {
		if (told->number <= asked.told)
			return false;
		if (told->change_ms != SEEN_UNSURE &&
		    (gone ? !told->exists
			  : told->exists && result->circuit.last_state_change == told->change_ms))
			return false;
	} else if (f->seen.told_lost <= asked.told) {
		return false;
	}
	e = seen_find(f, request->key, request->key_len);
	if (e)
		seen_forget(f, e);
	return true;
}

static void note_round_trip(struct fallback_store *f, int64_t took_ms)
{
	if (f->seen.round_trip_eighths == 0) {
		f->seen.round_trip_eighths = 8 * took_ms;
		f->seen.short_trip_512ths = 512 * took_ms;
		return;
	}
	f->seen.round_trip_eighths += took_ms - f->seen.round_trip_eighths / 8;
	if (512 * took_ms < f->seen.short_trip_512ths)
		f->seen.short_trip_512ths = 512 * took_ms;
	else
		f->seen.short_trip_512ths += (512 * took_ms - f->seen.short_trip_512ths) / 64;
}

/* Brings the circuit's entry up to date with an answer of main. */
static void learn(struct fallback_store *f, const struct store_request *request, int64_t asked_ms,
		  const struct store_result *result)
{
	struct seen_circuit *e;

	if (!result->breaker) {
		/* The answer does not show the member. If the circuit has changed its state, what
		 * is known of it answers nothing any more. */
		e = seen_find(f, request->key, request->key_len);
		if (e && (request->op.verb >= CIRCUIT_TRANSITION || result->absent == e->exists ||
			  result->circuit.state != e->state ||
			  result->circuit.last_state_change != e->change_ms))
			seen_forget(f, e);
		return;
	}
	/* A circuit that nobody asks memory for gets no entry. */
	if (request->op.call ||
	    (request->op.verb == CIRCUIT_GET_STATE && f->store.limits.read_cache))
		e = seen_get(f, request->key, request->key_len);
	else
		e = seen_find(f, request->key, request->key_len);
	if (!e)
		return;
	e->exists = !result->absent;
	e->state = result->circuit.state;
	e->change_ms = result->circuit.last_state_change;
	if (asked_ms > e->known_ms || !seen_is_known(f, e))
		e->known_ms = asked_ms;
	e->generation = f->seen.generation;
	note_round_trip(f, clock_ms() - asked_ms);
	seen_list_enter(f, e, SEEN_IN_FRESH);
	seen_arm_refresh_timer(f);
}

static bool has_steps(struct fallback_store *f, const char *key, size_t len)
{
	const struct circuit_queue *q = circuit_queue_find(&f->queues, key, len);

	return q && circuit_queue_has_steps(q);
}

void seen_remember(struct fallback_store *f, const char *key, size_t len,
		   const struct circuit *circuit, const struct breaker *breaker)
{
	/* The embedded store has the circuit with its steps, which main does not have yet. */
	if (has_steps(f, key, len))
		return;
	if (circuit && breaker)
		store_memory_put_breaker(f->local, key, len, circuit, breaker);
	else
		store_memory_put(f->local, key, len, circuit);
}

/* A closed circuit without an override decides as one that does not exist: it needs no place in
 * memory until it is asked for. */
static bool is_worth_a_place(const struct circuit *circuit, const struct breaker_override *override)
{
	return circuit->state != CIRCUIT_CLOSED || override;
}

void seen_remember_told(struct fallback_store *f, const struct store_event *event, bool has_place)
{
	const struct breaker_override *override = &event->breaker->override;

	if (!event->exists)
		f->seen.removed_ms = clock_offset_monotonic(&f->clock);
	else if (!has_place && !is_worth_a_place(&event->circuit, override->mode ? override : NULL))
		return;
	seen_remember(f, event->key, event->key_len, event->exists ? &event->circuit : NULL,
		      event->breaker);
}

/* A page says what main had at some time since it was asked for. */
void seen_remember_page(struct fallback_store *f, const struct store_page *page, int64_t asked_ms)
{
	for (size_t i = 0; i < page->count; i++) {
		const struct store_item *item = &page->items[i];

		if (!has_steps(f, item->key, item->key_len))
			store_memory_put_item(f->local, item, asked_ms,
					      f->seen.removed_ms < asked_ms &&
						      is_worth_a_place(&item->circuit,
								       item->override));
	}
}

void seen_learn(struct fallback_store *f, const struct store_request *request,
		struct seen_asked asked, const struct store_result *result)
{
	bool gone = result->absent || request->op.verb == CIRCUIT_RESET;

	if (is_old(f, request, asked, result, gone))
		return;
	if (request->op.verb == CIRCUIT_RESET) {
		f->seen.removed_ms = clock_offset_monotonic(&f->clock);
		f->seen.reset_ms = clock_ms();
	}
	seen_remember(f, request->key, request->key_len, gone ? NULL : &result->circuit,
		      result->breaker);
	learn(f, request, asked.ms, result);
}

/* Main has just gone, and there may be many entries: they leave later, when they are due. */
void seen_forget_all(struct fallback_store *f)
{
	f->seen.generation++;
}

bool seen_is_known(const struct fallback_store *f, const struct seen_circuit *e)
{
	return e->known_ms != SEEN_NEVER && e->generation == f->seen.generation;
}

/* --- answers ------------------------------------------------------------------------------ */

struct seen_circuit *seen_known(struct fallback_store *f, const char *key, size_t len)
{
	struct seen_circuit *e = seen_find(f, key, len);
	int64_t lifetime = lifetime_ms(f);

	/* The answer to reports under way will renew what is known. */
	if (e && e->held_sending > 0)
		lifetime += lifetime / 2;
	if (!e || !seen_is_known(f, e) || clock_ms() - e->known_ms >= lifetime)
		return NULL;
	return e;
}

bool seen_reports_under_way(struct fallback_store *f, const char *key, size_t len)
{
	const struct seen_circuit *e = f->seen.pending ? seen_find(f, key, len) : NULL;

	return e && e->held_sending > 0;
}

void seen_wake_readers(struct fallback_store *f, struct seen_circuit *e)
{
	if (TAILQ_EMPTY(&e->readers) || e->refresh || e->woken)
		return;
	e->woken = true;
	TAILQ_INSERT_TAIL(&f->seen.woken, e, woken_entry);
	timer_arm(f->seen.wake_timer, 0);
}

/* --- beginning and end -------------------------------------------------------------------- */

int seen_init(struct fallback_store *f)
{
	random_init(&f->seen.random);
	TAILQ_INIT(&f->seen.fresh);
	TAILQ_INIT(&f->seen.reporting);
	TAILQ_INIT(&f->seen.woken);
	TAILQ_INIT(&f->seen.aging);
	return keytable_init(&f->seen.table);
}

void seen_fini(struct fallback_store *f)
{
	keytable_fini(&f->seen.table);
}
