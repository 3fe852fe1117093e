/*
 * Answers from memory. What main was seen to hold within max_staleness answers a request, unless
 * the request would change something in main. Circuits that are asked for steadily are read from
 * main again before they are too old: one read for each, and all that are due together in one go.
 */
#include "base/clock.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "store/fallback_private.h"

/* Circuits that are due within 1/TOGETHER of max_staleness are refreshed together, in one turn:
 * what a read costs Redis is mostly the packet. */
#define TOGETHER 8
/* The same for circuits whose successes are sent: these cost Redis more than the packet. */
#define REPORTS_TOGETHER 16

/* At most this many circuits are refreshed in one turn of the loop: some 0.3 ms. */
#define REFRESH_BUDGET 256
/* At most WAKE_BUDGET operations go on in one turn because what they waited for has come. With the
 * answer to a read the first WAKE_FIRST of the circuit go on at once. */
#define WAKE_BUDGET 256
#define WAKE_FIRST  64

/* At most this many operations wait for one read. Further ones ask main for themselves. */
#define READERS_MAX 1024

/* --- refreshing --------------------------------------------------------------------------- */

static void refresh(struct fallback_store *f, struct seen_circuit *e);
static bool answer(struct fallback_store *f, const struct store_request *request,
		   struct store_result *result);

/* Ends the wait of up to `most` operations for the read: memory answers them now, or they ask main
 * for themselves. An operation that comes meanwhile is not among them. Returns how many they were.
 */
static unsigned answer_readers(struct fallback_store *f, struct seen_circuit *e, bool in_time,
			       unsigned most)
{
	unsigned count = e->reader_count < most ? e->reader_count : most, done = 0;
	struct fallback_op *o;

	for (; done < count && (o = TAILQ_FIRST(&e->readers)) != NULL; done++) {
		struct store_request request = op_request(o);
		struct store_result result;

		if (!in_time) {
			op_give_up_read(f, o);
			continue;
		}
		op_leave_read(o);
		if (f->ready && answer(f, &request, &result))
			op_finish(f, o, &result);
		else
			in_order_go_on(f, o);
	}
	return done;
}

static void on_refreshed(void *arg, struct store_result *result)
{
	struct seen_circuit *e = arg;
	struct fallback_store *f = e->store;
	bool stale = e->stale_refresh;

	e->refresh = NULL;
	e->stale_refresh = false;
	e->in_use = true;
	f->seen.refreshing--;
	if (!stale && result->status == STORE_OK && !result->overtaken && f->ready) {
		const struct store_request get = {
			.key = keynode_key(&e->node),
			.key_len = e->node.key_len,
			.op = {.verb = CIRCUIT_GET_STATE},
		};

		seen_learn(f, &get, e->refresh_asked, result);
	}
	if (result->status == STORE_TIMEOUT)
		answer_readers(f, e, false, READERS_MAX);
	else
		answer_readers(f, e, true, WAKE_FIRST);
	if (stale)
		refresh(f, e);
	seen_wake_readers(f, e);
	e->in_use = false;
	seen_drop_if_idle(f, e);
}

/* Main has answered reads or reports of circuits for which operations wait. */
static void on_wake_timer(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	unsigned budget = WAKE_BUDGET;
	struct seen_circuit *e;

	(void)fd;
	(void)what;
	while (budget > 0 && (e = TAILQ_FIRST(&f->seen.woken)) != NULL) {
		TAILQ_REMOVE(&f->seen.woken, e, woken_entry);
		if (!e->refresh)
			budget -= answer_readers(f, e, true, budget);
		e->woken = false;
		/* Those that are left go on in the next turn, unless something new is under way. */
		if (!e->refresh && e->held_sending == 0)
			seen_wake_readers(f, e);
		seen_drop_if_idle(f, e);
	}
	if (!TAILQ_EMPTY(&f->seen.woken))
		timer_arm(f->seen.wake_timer, 0);
}

/* Asks main for the circuit. No read or report of it is under way. May free e. */
static void read_main(struct fallback_store *f, struct seen_circuit *e)
{
	const struct store_request get = {
		.key = keynode_key(&e->node),
		.key_len = e->node.key_len,
		.op = {.verb = CIRCUIT_GET_STATE},
		.with_member = true,
	};
	struct store_result result;

	seen_list_leave(f, e);
	e->refresh_asked = (struct seen_asked){clock_ms(), f->seen.told_count};
	e->refresh = store_submit(f->main, &get, on_refreshed, e, &result);
	if (e->refresh)
		f->seen.refreshing++;
	else
		seen_drop_if_idle(f, e);
}

/* Asks main for the circuit; or sends the successes that are held back, whose answer tells the
 * same. May free e. */
static void refresh(struct fallback_store *f, struct seen_circuit *e)
{
	seen_list_leave(f, e);
	if (e->refresh || !f->ready ||
	    circuit_queue_find(&f->queues, keynode_key(&e->node), e->node.key_len) != NULL)
		seen_drop_if_idle(f, e);
	else if (e->held_count > 0)
		held_send(f, e);
	else
		read_main(f, e);
}

/* What is known of the circuit is wrong: nothing is known until main says it. */
static void refresh_now(struct fallback_store *f, struct seen_circuit *e)
{
	e->known_ms = SEEN_NEVER;
	e->stale_refresh = e->refresh != NULL;
	refresh(f, e);
}

/* Refreshes circuits by their successes that are held back, unless these have gone already. */
static void refresh_by_reports(struct fallback_store *f, int64_t now)
{
	int64_t staleness_ms = f->store.limits.max_staleness_ms;
	int64_t due = now - seen_report_age_ms(f);
	int64_t soon = due + staleness_ms / REPORTS_TOGETHER;
	struct seen_circuit *e = TAILQ_FIRST(&f->seen.reporting);
	unsigned budget = REFRESH_BUDGET;

	if (!e || e->known_ms > due)
		return;
	while ((e = TAILQ_FIRST(&f->seen.reporting)) != NULL && e->known_ms <= soon &&
	       !fallback_is_busy(f) && budget > 0) {
		budget--;
		if (!seen_is_known(f, e))
			seen_forget(f, e);
		else if (e->held_sending > 0)
			seen_list_leave(f, e);
		else
			refresh(f, e);
	}
}

/* A circuit is due: it is refreshed, and with it those that will be due soon. */
static void on_refresh_timer(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	int64_t now = clock_ms();
	int64_t staleness_ms = f->store.limits.max_staleness_ms;
	int64_t soon = now + staleness_ms / TOGETHER - seen_refresh_age_ms(f);
	unsigned budget = REFRESH_BUDGET;
	struct seen_circuit *e;

	(void)fd;
	(void)what;
	while ((e = TAILQ_FIRST(&f->seen.fresh)) != NULL && e->known_ms <= soon &&
	       !fallback_is_busy(f) && budget > 0) {
		budget--;
		if (!seen_is_known(f, e))
			seen_forget(f, e);
		else if (e->asked_ms == SEEN_NEVER ||
			 now - e->asked_ms >= SEEN_STEADILY * staleness_ms)
			seen_list_enter(f, e, SEEN_IN_AGING);
		else if (e->held_count > 0 || e->held_sending > 0)
			seen_list_enter(f, e, SEEN_IN_HELD);
		else
			refresh(f, e);
	}
	refresh_by_reports(f, now);
	budget = REFRESH_BUDGET;
	while ((e = TAILQ_FIRST(&f->seen.aging)) != NULL &&
	       e->known_ms + seen_interest_ms(f) <= now && budget > 0) {
		budget--;
		seen_forget(f, e);
	}
	seen_arm_refresh_timer(f);
}

/* --- what others tell --------------------------------------------------------------------- */

/* A message compared with what is known. */
enum told {
	TOLD_NEWS,  /* the message is later */
	TOLD_KNOWN, /* the same change: it may be this daemon's own */
	TOLD_DOUBT, /* it cannot be told which of the two is later */
};

/* Within this time after a reset by this daemon, a message of a circuit that exists may be older
 * than the reset: messages come over a connection of their own, and an absence has no stamp. */
#define RESET_LATELY_MS 1000

static bool is_override(const struct store_event *event)
{
	return event->by == 'o' || event->by == 'x';
}

/* True if the circuit is known not to exist, perhaps since the message was sent. */
static bool is_absent_of_late(struct fallback_store *f, const struct seen_circuit *e)
{
	if (e && seen_is_known(f, e))
		return !e->exists;
	return f->seen.reset_ms && clock_ms() - f->seen.reset_ms < RESET_LATELY_MS;
}

/* Compares by stamps, which other programs set by other clocks. What was known last is in the entry
 * of a circuit that is asked for, or in the memory for an absence of main, which has more circuits.
 */
static enum told compare(struct fallback_store *f, const struct seen_circuit *e,
			 const struct store_event *event, const struct store_result *remembered)
{
	bool by_entry =
		e && (remembered->absent || e->change_ms >= remembered->circuit.last_state_change);
	bool exists = by_entry ? e->exists : !remembered->absent;
	enum circuit_state state = by_entry ? e->state : remembered->circuit.state;
	int64_t known_ms = by_entry ? e->change_ms : remembered->circuit.last_state_change;
	int64_t told_ms = event->circuit.last_state_change;

	if (!exists && !event->exists)
		return TOLD_NEWS;
	if (!exists)
		return is_absent_of_late(f, e) ? TOLD_DOUBT : TOLD_NEWS;
	if (told_ms != known_ms)
		return told_ms > known_ms ? TOLD_NEWS : TOLD_DOUBT;
	if (is_override(event)) /* it leaves lastStateChange as it is */
		return TOLD_NEWS;
	return event->exists && event->circuit.state == state ? TOLD_KNOWN : TOLD_DOUBT;
}

/* Main has answered a read that was only for memory. */
static void on_asked(struct fallback_store *f, struct seen_circuit *e, const struct circuit_op *op,
		     const struct store_result *result)
{
	(void)e;
	(void)op;
	(void)result;
	f->seen.asking--;
}

/* Asks main for a circuit that is only in the memory for an absence. */
static void ask(struct fallback_store *f, const struct store_request *get)
{
	struct store_result result;
	struct fallback_op *o;

	if (f->seen.asking >= BACKGROUND_MAX)
		return;
	o = op_new(get);
	if (!o)
		return;
	o->on_ended = on_asked;
	f->seen.asking++;
	if (!in_order_submit(f, o, op_ignore_result, NULL, &result))
		f->seen.asking--;
}

/* If a message is not clearly later than what is known, main is asked for the circuit. It is also
 * asked after an override, because two overrides may have the same stamp. */
void refresh_told(struct fallback_store *f, const struct store_event *event)
{
	struct seen_circuit *e = seen_find(f, event->key, event->key_len);
	const struct store_request get = {
		.key = event->key,
		.key_len = event->key_len,
		.op = {.verb = CIRCUIT_GET_STATE},
	};
	struct store_result remembered;
	enum told told;

	store_memory_try(f->local, &get, &remembered);
	told = compare(f, e, event, &remembered);
	if (told == TOLD_KNOWN)
		return;
	if (told == TOLD_NEWS)
		seen_remember_told(f, event, !remembered.absent);
	if (told == TOLD_DOUBT || is_override(event)) {
		seen_note_told(f, event, SEEN_UNSURE);
		if (e)
			refresh_now(f, e);
		else if (told == TOLD_DOUBT)
			ask(f, &get);
		return;
	}
	seen_note_told(f, event, event->circuit.last_state_change);
	if (!e)
		return;
	e->exists = event->exists;
	e->state = event->circuit.state;
	e->change_ms = event->circuit.last_state_change;
}

/* --- answers ------------------------------------------------------------------------------ */

/* True, with *result set, if what is known answers. */
static bool answer(struct fallback_store *f, const struct store_request *request,
		   struct store_result *result)
{
	const struct seen_circuit *e = seen_find(f, request->key, request->key_len);

	if (!e || !seen_is_known(f, e) ||
	    clock_ms() - e->known_ms >= f->store.limits.max_staleness_ms)
		return false;
	/* The snapshot does not have the successes that are held back or under way. */
	if (request->op.verb == CIRCUIT_GET_STATE && (e->held_count > 0 || e->held_sending > 0))
		return false;
	if (circuit_queue_find(&f->queues, request->key, request->key_len))
		return false;
	/* A full memory may have dropped the circuit. */
	return store_memory_try(f->local, request, result) == CIRCUIT_READ &&
	       result->absent != e->exists;
}

static bool is_for_memory(const struct fallback_store *f, enum circuit_verb verb)
{
	const struct store_limits *limits = &f->store.limits;

	return limits->max_staleness_ms > 0 &&
	       (verb == CIRCUIT_ACQUIRE || (verb == CIRCUIT_GET_STATE && limits->read_cache));
}

bool refresh_answer(struct fallback_store *f, const struct store_request *request,
		    struct store_result *result)
{
	struct seen_circuit *e;

	if (!is_for_memory(f, request->op.verb))
		return false;
	e = seen_find(f, request->key, request->key_len);
	if (!e)
		return false;
	e->asked_ms = clock_ms();
	if (!answer(f, request, result))
		return false;
	if (e->list == SEEN_IN_AGING)
		refresh(f, e);
	if (f->metrics)
		f->metrics->cached_answers++;
	return true;
}

/* True if an acquire would change something, by what was known last. */
static bool likely_changes(struct fallback_store *f, const struct store_request *request)
{
	struct store_result result;

	return store_memory_try(f->local, request, &result) != CIRCUIT_READ;
}

/* Asks for the circuit. Successes that would go soon anyway go now and save the read. May free e.
 */
static void ask_main(struct fallback_store *f, struct seen_circuit *e)
{
	if (e->held_count > 0 && !fallback_is_busy(f) &&
	    clock_ms() - e->held_ms >= f->store.limits.report_interval_ms / 2)
		held_send(f, e);
	else
		read_main(f, e);
}

struct store_op *refresh_wait(struct fallback_store *f, struct fallback_op *o, store_done_fn *done,
			      void *arg)
{
	struct store_request request = op_request(o);
	struct seen_circuit *e;

	if (!f->ready || request.op.verb != CIRCUIT_ACQUIRE || !is_for_memory(f, request.op.verb) ||
	    likely_changes(f, &request))
		return NULL;
	/* The answer would be too old when it comes. */
	if (f->seen.round_trip_eighths / 4 >= f->store.limits.max_staleness_ms)
		return NULL;
	if (circuit_queue_find(&f->queues, o->key, o->key_len) != NULL)
		return NULL;
	e = seen_get(f, o->key, o->key_len);
	if (!e || e->reader_count >= READERS_MAX)
		return NULL;
	if (!e->refresh && e->held_sending == 0)
		ask_main(f, e);
	e = seen_find(f, o->key, o->key_len);
	if (!e || (!e->refresh && e->held_sending == 0) || e->stale_refresh)
		return NULL;
	store_op_start_open(&f->store, &o->op, done, arg);
	op_wait_for_read(f, e, o);
	return &o->op;
}

/* --- beginning and end -------------------------------------------------------------------- */

int refresh_init(struct fallback_store *f)
{
	f->seen.refresh_timer = evtimer_new(f->store.base, on_refresh_timer, f);
	f->seen.wake_timer = evtimer_new(f->store.base, on_wake_timer, f);
	return f->seen.refresh_timer && f->seen.wake_timer ? 0 : -1;
}

void refresh_fini(struct fallback_store *f)
{
	if (f->seen.refresh_timer)
		event_free(f->seen.refresh_timer);
	if (f->seen.wake_timer)
		event_free(f->seen.wake_timer);
	f->seen.refresh_timer = f->seen.wake_timer = NULL;
}
