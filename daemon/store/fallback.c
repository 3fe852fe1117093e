/*
 * A store that holds two: `main`, and an embedded one for when main is away.
 *
 * While main is there, its answers pass through, and each snapshot seen is put into the
 * embedded store. While it is away, operations go on there, and what they did is noted for
 * each circuit as one step (circuit_fold.h). When main is back the steps are taken on it,
 * a few at a time; an operation on a circuit whose step has not been taken yet sends that
 * step ahead of itself. A step that was handed over is never handed over again, unless
 * main says that it surely did not take it. Where no answer came, the circuit itself tells,
 * for main was asked for it before the step: as it was, or as the step makes it.
 */
#include "base/clock.h"
#include "base/keytable.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Steps under way at once: enough to keep the link busy, little beside live traffic. */
#define FOLDS_IN_FLIGHT 64
/* After main has refused a step (out of memory, no permission), before the next try. */
#define FOLD_RETRY_MS 1000
/* The offset to main's clock is measured over a round trip, and so to a few milliseconds:
 * what differs by less is the same, and no stamp is moved for it. */
#define OFFSET_NOISE_MS   25
#define OFFSET_UNKNOWN_MS INT32_MAX
/* For the same reason a transition or a reset may seem to be earlier than what was
 * seen in main, and would not stand. By so much it is set right; beyond, a clock is wrong,
 * and not for us to follow. */
#define CLOCKS_APART_MS 1000
/* As that, where main merely has no room for it now. */
#define FOLD_PAUSE_MS 20
/* Circuits may be many: of what befalls their steps, a line now and then. */
#define FOLD_LOG_EACH_MS 15000

/* A step that was handed over, and may have been taken. */
struct fold_doubt {
	struct circuit_fold fold;
	uint64_t operations; /* in fold */
	int64_t offset_ms;
	bool has_before; /* main was asked for the circuit first */
	bool existed;
	struct circuit before;
};

/* The step to be taken on one circuit. */
struct fold_record {
	struct keynode node;
	TAILQ_ENTRY(fold_record) entry;
	struct circuit_fold fold;
	uint64_t operations;      /* in fold */
	int64_t offset_ms;        /* to main's clock, in the stamps of fold */
	struct fold_doubt *doubt; /* about the step before it; or NULL */
};
TAILQ_HEAD(fold_records, fold_record);

/* A step under way: main is asked for the circuit, then takes the step. */
struct fold_flight {
	TAILQ_ENTRY(fold_flight) entry;
	struct fallback_store *owner;
	struct store_op *op;
	struct circuit_fold fold;
	uint64_t operations;
	int64_t offset_ms;
	struct fold_doubt *doubt;
	bool asking; /* for the circuit; else the step is on its way */
	bool has_before;
	bool existed;
	struct circuit before;
	size_t key_len;
	char key[];
};
TAILQ_HEAD(fold_flights, fold_flight);

/* The kinds of lines that may be many. */
enum fold_line { FOLD_REFUSED, FOLD_LOST, FOLD_LINES };

struct fallback_store {
	struct store store;
	struct store *main;
	struct store *local;
	struct store_clock clock;
	bool ready;
	int64_t offset_ms; /* main's clock less ours, as the stamps made here use it */
	int64_t error_ms;  /* by how much that may be wrong; OFFSET_UNKNOWN_MS before the first */
	int64_t stamp_ms;  /* the last stamp made here */
	int64_t behind_ms; /* the next one comes behind this; 0: anywhere */
	struct keytable records;
	struct fold_records waiting; /* the same, the oldest first */
	struct fold_flights flights;
	unsigned in_flight;
	bool refused;       /* main is there, and did not take the last step */
	bool folding;       /* what an absence of main left, until all of it is settled */
	struct event *turn; /* hands over more steps */
	struct log_budget log_budgets[FOLD_LINES];
	struct metrics *metrics;
	struct log *log;
};

/* An operation that main has. */
struct fallback_op {
	struct store_op op;
	struct store_op *inner;
	struct store_query *query; /* of a listing, else NULL */
	struct circuit_op what;
	size_t key_len;
	char key[];
};

static struct fallback_store *fallback(struct store *s)
{
	return (struct fallback_store *)s;
}

/* Stamps that are made here are in main's time, as far as it is known. */
static int64_t now_in_main(void *arg)
{
	struct fallback_store *f = arg;

	f->stamp_ms = store_now_ms(&f->clock) + f->offset_ms;
	if (f->behind_ms >= f->stamp_ms && f->behind_ms - f->stamp_ms <= CLOCKS_APART_MS)
		f->stamp_ms = f->behind_ms + 1;
	return f->stamp_ms;
}

static int64_t monotonic(void *arg)
{
	struct fallback_store *f = arg;

	return f->clock.monotonic_ms ? f->clock.monotonic_ms(f->clock.arg) : clock_ms();
}

static void count_waiting(struct fallback_store *f)
{
	if (f->metrics)
		f->metrics->folds_pending = (int64_t)f->records.count + f->in_flight;
}

/* --- steps ------------------------------------------------------------------------------ */

static struct fold_record *record_find(struct fallback_store *f, const char *key, size_t len)
{
	return f->records.count ? (struct fold_record *)keytable_find(&f->records, key, len) : NULL;
}

static void record_remove(struct fallback_store *f, struct fold_record *record)
{
	TAILQ_REMOVE(&f->waiting, record, entry);
	free(record->doubt);
	keytable_remove(&f->records, &record->node);
}

static struct fold_flight *flight_find(const struct fallback_store *f, const char *key, size_t len)
{
	struct fold_flight *flight;

	TAILQ_FOREACH (flight, &f->flights, entry) {
		if (flight->key_len == len && memcmp(flight->key, key, len) == 0)
			return flight;
	}
	return NULL;
}

/* A snapshot from main (NULL: no circuit). What waits for main has been done since. */
static void note_seen(struct fallback_store *f, const char *key, size_t len,
		      const struct circuit *circuit)
{
	if (!record_find(f, key, len))
		store_memory_put(f->local, key, len, circuit);
}

/* The record of a circuit, last seen as `seen` (NULL: never). NULL when there is no room. */
static struct fold_record *record_get(struct fallback_store *f, const char *key, size_t len,
				      const struct circuit *seen)
{
	struct fold_record *record = record_find(f, key, len);

	if (record || f->records.count >= f->store.limits.max_circuits)
		return record;
	record = (struct fold_record *)keytable_add(&f->records, sizeof(*record), key, len);
	if (!record)
		return NULL;
	/* What a step under way brings is no state seen in main. */
	circuit_fold_begin(&record->fold, flight_find(f, key, len) ? NULL : seen);
	record->offset_ms = f->offset_ms;
	TAILQ_INSERT_TAIL(&f->waiting, record, entry);
	return record;
}

static bool log_affords(struct fallback_store *f, enum fold_line line)
{
	return log_budget_take(&f->log_budgets[line], 1, FOLD_LOG_EACH_MS);
}

static void log_step(struct fallback_store *f, const char *what, const struct fold_flight *flight,
		     const char *reason)
{
	if (!reason)
		reason = "";
	log_warning(f->log, what, "key=%s reason=%s waiting=%zu lost=%" PRIu64,
		    log_quote(flight->key, flight->key_len).text,
		    log_quote(reason, strlen(reason)).text, f->records.count + f->in_flight,
		    f->metrics->folds_lost);
}

static void lose(struct fallback_store *f, const struct fold_flight *flight, uint64_t operations,
		 const char *reason)
{
	f->metrics->folds_lost++;
	f->metrics->folded_operations_lost += operations;
	if (log_affords(f, FOLD_LOST))
		log_step(f, "fold_lost", flight, reason);
}

/* The step was surely not taken: it waits again, as part of what was done since. */
static void put_back(struct fallback_store *f, struct fold_flight *flight)
{
	struct fold_record *record = record_get(f, flight->key, flight->key_len, NULL);

	if (!record || (record->doubt && flight->doubt)) {
		lose(f, flight,
		     flight->operations + (flight->doubt ? flight->doubt->operations : 0),
		     record ? "it is not known what became of it" : "out of memory");
		return;
	}
	circuit_fold_shift(&flight->fold, record->offset_ms - flight->offset_ms);
	circuit_fold_append(&flight->fold, &record->fold);
	record->fold = flight->fold;
	record->operations += flight->operations;
	if (flight->doubt)
		record->doubt = flight->doubt;
	flight->doubt = NULL;
}

/* The step may have been taken, and must not be taken twice: the circuit will tell. */
static void doubt(struct fallback_store *f, struct fold_flight *flight)
{
	if (circuit_fold_repeatable(&flight->fold)) {
		put_back(f, flight);
		return;
	}
	flight->doubt = malloc(sizeof(*flight->doubt));
	if (!flight->doubt) {
		lose(f, flight, flight->operations, "out of memory");
		return;
	}
	flight->doubt->fold = flight->fold;
	flight->doubt->operations = flight->operations;
	flight->operations = 0;
	flight->doubt->offset_ms = flight->offset_ms;
	flight->doubt->has_before = flight->has_before;
	flight->doubt->existed = flight->existed;
	flight->doubt->before = flight->before;
	circuit_fold_begin(&flight->fold, NULL);
	put_back(f, flight);
}

/* Main says what the circuit is: the step in doubt was taken, or goes ahead of this one. */
static void judge(struct fallback_store *f, struct fold_flight *flight, const struct circuit *now)
{
	struct fold_doubt *d = flight->doubt;

	flight->doubt = NULL;
	switch (circuit_fold_trace(&d->fold, d->has_before, d->existed ? &d->before : NULL, now)) {
	case CIRCUIT_FOLD_TAKEN:
		f->metrics->folds++;
		f->metrics->folded_operations += d->operations;
		break;
	case CIRCUIT_FOLD_NOT_TAKEN:
		circuit_fold_shift(&d->fold, flight->offset_ms - d->offset_ms);
		circuit_fold_append(&d->fold, &flight->fold);
		flight->fold = d->fold;
		flight->operations += d->operations;
		break;
	case CIRCUIT_FOLD_UNSURE:
		lose(f, flight, d->operations, "it may have been taken, and is not taken twice");
		break;
	}
	free(d);
}

static void fold_soon(struct fallback_store *f, unsigned ms)
{
	struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	if (f->ready && !TAILQ_EMPTY(&f->waiting) && !evtimer_pending(f->turn, NULL))
		evtimer_add(f->turn, &wait);
}

/* What became of a step, and when to go on with the others. */
static void fold_settle(struct fallback_store *f, struct fold_flight *flight,
			const struct store_result *result)
{
	unsigned pause_ms = 0;

	switch (result->status) {
	case STORE_OK:
		f->refused = false;
		f->metrics->folds += !circuit_fold_empty(&flight->fold);
		f->metrics->folded_operations += flight->operations;
		note_seen(f, flight->key, flight->key_len,
			  result->absent ? NULL : &result->circuit);
		break;
	case STORE_UNAVAILABLE:
	case STORE_OVERLOADED:
		put_back(f, flight);
		pause_ms = FOLD_PAUSE_MS;
		break;
	case STORE_TIMEOUT: /* of the question, not of the step */
		put_back(f, flight);
		pause_ms = FOLD_PAUSE_MS;
		break;
	case STORE_UNKNOWN:
		doubt(f, flight);
		pause_ms = FOLD_PAUSE_MS;
		break;
	default:
		if (result->message && strncmp(result->message, "WRONGTYPE", 9) == 0) {
			lose(f, flight, flight->operations, result->message);
			break;
		}
		put_back(f, flight);
		f->refused = true;
		pause_ms = FOLD_RETRY_MS;
		if (log_affords(f, FOLD_REFUSED))
			log_step(f, "fold_refused", flight, result->message);
		break;
	}
	if (f->folding && f->in_flight == 0 && f->records.count == 0) {
		f->folding = false;
		log_info(f->log, "folded", "total=%" PRIu64 " lost=%" PRIu64, f->metrics->folds,
			 f->metrics->folds_lost);
	}
	count_waiting(f);
	fold_soon(f, pause_ms);
}

static void flight_end(struct fold_flight *flight, const struct store_result *result)
{
	struct fallback_store *f = flight->owner;

	TAILQ_REMOVE(&f->flights, flight, entry);
	f->in_flight--;
	fold_settle(f, flight, result);
	free(flight->doubt);
	free(flight);
}

static void on_folded(void *arg, struct store_result *result)
{
	flight_end(arg, result);
}

static void flight_step(struct fold_flight *flight)
{
	struct fallback_store *f = flight->owner;
	struct store_result result;

	flight->op = f->main->driver->fold(f->main, flight->key, flight->key_len, &flight->fold,
					   on_folded, flight, &result);
	if (!flight->op)
		flight_end(flight, &result);
}

static void on_asked(void *arg, struct store_result *result)
{
	struct fold_flight *flight = arg;

	flight->asking = false;
	if (result->status != STORE_OK) {
		flight_end(flight, result);
		return;
	}
	flight->has_before = true;
	flight->existed = !result->absent;
	flight->before = result->circuit;
	if (flight->doubt)
		judge(flight->owner, flight, result->absent ? NULL : &result->circuit);
	if (circuit_fold_empty(&flight->fold))
		flight_end(flight, result);
	else
		flight_step(flight);
}

static void flight_ask(struct fold_flight *flight)
{
	struct store_request get = {
		.key = flight->key,
		.key_len = flight->key_len,
		.op = {.verb = CIRCUIT_GET_STATE},
	};
	struct store_result result;

	flight->asking = true;
	flight->op = store_submit(flight->owner->main, &get, on_asked, flight, &result);
	if (!flight->op)
		on_asked(flight, &result);
}

/*
 * Takes the step to main. If it is in a `hurry`, an operation follows at once and the step
 * must go ahead of that: the circuit is only asked for if there is a doubt to be settled.
 * Without memory the step goes on waiting.
 */
static void fold_launch(struct fallback_store *f, struct fold_record *record, bool hurry)
{
	size_t len = record->node.key_len;
	struct fold_flight *flight = calloc(1, sizeof(*flight) + len);

	if (!flight) {
		fold_soon(f, FOLD_PAUSE_MS);
		return;
	}
	flight->owner = f;
	flight->fold = record->fold;
	flight->operations = record->operations;
	flight->offset_ms = f->offset_ms;
	circuit_fold_shift(&flight->fold, f->offset_ms - record->offset_ms);
	flight->doubt = record->doubt;
	record->doubt = NULL;
	flight->key_len = len;
	memcpy(flight->key, keynode_key(&record->node), len);
	record_remove(f, record);
	TAILQ_INSERT_TAIL(&f->flights, flight, entry);
	f->in_flight++;
	if (flight->doubt || circuit_fold_empty(&flight->fold) || !hurry)
		flight_ask(flight);
	else
		flight_step(flight);
}

/* An operation on the circuit follows: main takes things in their order. */
static void fold_ahead(struct fallback_store *f, const char *key, size_t len)
{
	struct fold_flight *flight = flight_find(f, key, len);
	struct fold_record *record = record_find(f, key, len);

	if (flight && flight->asking && !flight->doubt && !circuit_fold_empty(&flight->fold)) {
		store_cancel(flight->op);
		flight->asking = false;
		flight_step(flight);
	}
	if (record)
		fold_launch(f, record, true);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	/* One that comes back at once must not keep us here. */
	unsigned most = FOLDS_IN_FLIGHT;

	(void)fd;
	(void)what;
	while (f->ready && most-- > 0 && f->in_flight < FOLDS_IN_FLIGHT &&
	       !TAILQ_EMPTY(&f->waiting))
		fold_launch(f, TAILQ_FIRST(&f->waiting), false);
}

/* --- main comes and goes ------------------------------------------------------------------ */

/*
 * A measurement that is poorer than the one we have, as over a slow round trip, is taken only
 * if the two cannot both be right: then a clock was set.
 */
static void measure_offset(struct fallback_store *f)
{
	int64_t error_ms, offset_ms = f->main->driver->clock_offset_ms(f->main, &error_ms);
	int64_t apart_ms = llabs(offset_ms - f->offset_ms);
	bool better = error_ms <= f->error_ms;

	if (!better && apart_ms <= error_ms + f->error_ms + OFFSET_NOISE_MS)
		return;
	f->error_ms = error_ms;
	if (apart_ms > OFFSET_NOISE_MS)
		f->offset_ms = offset_ms;
}

static void on_main_change(void *arg, bool ready)
{
	struct fallback_store *f = arg;

	f->ready = ready;
	if (f->metrics)
		metrics_run(&f->metrics->degraded_time, !ready);
	if (!ready) {
		evtimer_del(f->turn);
		return;
	}
	measure_offset(f);
	f->refused = false;
	f->folding = f->records.count > 0;
	if (f->folding)
		log_info(f->log, "folding", "circuits=%zu", f->records.count);
	fold_soon(f, 0);
}

static void on_main_news(void *arg)
{
	struct fallback_store *f = arg;

	store_changed(&f->store);
}

/* --- operations --------------------------------------------------------------------------- */

/* The stamp behind which that of the operation must be, to have an effect in main; or 0. */
static int64_t comes_behind(enum circuit_verb verb, const struct circuit *seen)
{
	if (verb == CIRCUIT_RESET && seen->last_failure_time > seen->last_state_change)
		return seen->last_failure_time;
	return verb == CIRCUIT_RESET || verb == CIRCUIT_TRANSITION ? seen->last_state_change : 0;
}

/*
 * Runs an operation on the embedded store. `fold` is false for one that main may have
 * applied: the caller sees its effect, but main shall not get it again. The record that is
 * made all the same holds what main had before, for what is done next.
 */
static struct store_op *run_local(struct fallback_store *f, const struct store_request *request,
				  bool fold, struct store_result *result)
{
	struct store_request get = *request;
	struct store_result before;
	struct fold_record *record;
	enum circuit_effect effect = CIRCUIT_WRITTEN;

	get.op.verb = CIRCUIT_GET_STATE;
	store_submit(f->local, &get, NULL, NULL, &before);
	if (!before.absent)
		f->behind_ms = comes_behind(request->op.verb, &before.circuit);
	store_submit(f->local, request, NULL, NULL, result);
	f->behind_ms = 0;
	result->degraded = true;
	if (result->status != STORE_OK || !circuit_verb_writes(request->op.verb))
		return NULL;
	record = record_get(f, request->key, request->key_len,
			    before.absent ? NULL : &before.circuit);
	fold_soon(f, FOLD_PAUSE_MS);
	if (!fold)
		return NULL;
	if (!record) {
		store_memory_put(f->local, request->key, request->key_len,
				 before.absent ? NULL : &before.circuit);
		store_refuse(result, STORE_FULL,
			     "max_circuits have been written since Redis went away");
		result->degraded = true;
		return NULL;
	}
	if (request->op.verb == CIRCUIT_RESET)
		effect = CIRCUIT_REMOVED;
	circuit_fold_shift(&record->fold, f->offset_ms - record->offset_ms);
	record->offset_ms = f->offset_ms;
	record->operations++;
	circuit_fold_note(&record->fold, &request->op, effect, f->stamp_ms);
	count_waiting(f);
	return NULL;
}

/* Main has answered: what it says, or what the embedded store says in its place. */
static void settle(struct fallback_store *f, const struct store_request *request,
		   struct store_result *result)
{
	switch (result->status) {
	case STORE_OK:
	case STORE_CONFLICT:
		note_seen(f, request->key, request->key_len,
			  result->absent || request->op.verb == CIRCUIT_RESET ? NULL
									      : &result->circuit);
		break;
	case STORE_UNAVAILABLE:
		run_local(f, request, true, result);
		break;
	case STORE_UNKNOWN:
	case STORE_TIMEOUT:
		run_local(f, request, false, result);
		break;
	case STORE_ERROR:
	case STORE_FULL:
	case STORE_OVERLOADED:
	case STORE_BAD_CURSOR:
		break;
	}
}

static void on_main_done(void *arg, struct store_result *result)
{
	struct fallback_op *o = arg;
	struct fallback_store *f = fallback(o->op.store);
	struct store_request request = {.key = o->key, .key_len = o->key_len, .op = o->what};

	o->inner = NULL;
	settle(f, &request, result);
	store_op_finish(&o->op, result);
}

static struct store_op *fallback_submit(struct store *s, const struct store_request *request,
					store_done_fn *done, void *arg, struct store_result *result)
{
	struct fallback_store *f = fallback(s);
	struct fallback_op *o;

	if (!f->ready)
		return run_local(f, request, true, result);
	if (store_overloaded(s, result))
		return NULL;
	fold_ahead(f, request->key, request->key_len);
	o = malloc(sizeof(*o) + request->key_len);
	if (!o)
		return store_refuse(result, STORE_ERROR, "out of memory");
	o->query = NULL;
	o->what = request->op;
	o->key_len = request->key_len;
	memcpy(o->key, request->key, request->key_len);
	o->inner = store_submit(f->main, request, on_main_done, o, result);
	if (o->inner) {
		store_op_start_open(s, &o->op, done, arg);
		return &o->op;
	}
	settle(f, request, result);
	free(o);
	return NULL;
}

/* --- listings ----------------------------------------------------------------------------- */

static void on_local_listed(void *arg, struct store_result *result)
{
	struct fallback_op *o = arg;

	o->inner = NULL;
	free(o->query);
	result->degraded = true;
	store_op_finish(&o->op, result);
}

static void on_main_listed(void *arg, struct store_result *result)
{
	struct fallback_op *o = arg;
	struct fallback_store *f = fallback(o->op.store);

	o->inner = NULL;
	if (result->status == STORE_UNAVAILABLE || result->status == STORE_TIMEOUT) {
		o->inner = store_list(f->local, o->query, on_local_listed, o, result);
		if (o->inner)
			return;
		result->degraded = true;
	}
	free(o->query);
	store_op_finish(&o->op, result);
}

static struct store_op *fallback_list(struct store *s, const struct store_query *query,
				      store_done_fn *done, void *arg, struct store_result *result)
{
	struct fallback_store *f = fallback(s);
	struct fallback_op *o = calloc(1, sizeof(*o));
	bool ready = f->ready;

	if (o)
		o->query = malloc(sizeof(*query));
	if (!o || !o->query) {
		free(o);
		return store_refuse(result, STORE_ERROR, "out of memory");
	}
	*o->query = *query;
	if (ready && store_overloaded(s, result)) {
		free(o->query);
		free(o);
		return NULL;
	}
	if (ready) {
		o->inner = store_list(f->main, query, on_main_listed, o, result);
		ready = o->inner || result->status != STORE_UNAVAILABLE;
	}
	if (!ready)
		o->inner = store_list(f->local, query, on_local_listed, o, result);
	if (o->inner) {
		store_op_start_open(s, &o->op, done, arg);
		return &o->op;
	}
	result->degraded = !ready;
	free(o->query);
	free(o);
	return NULL;
}

/* --- the driver --------------------------------------------------------------------------- */

static void fallback_detach(struct store_op *op, struct store_result *verdict)
{
	struct fallback_op *o = (struct fallback_op *)op;

	if (o->inner)
		store_cancel(o->inner);
	free(o->query);
	verdict->status = circuit_verb_writes(o->what.verb) ? STORE_UNKNOWN : STORE_TIMEOUT;
}

static void fallback_health(struct store *s, struct store_health *health)
{
	struct fallback_store *f = fallback(s);

	store_health(f->main, health);
	health->in_flight = s->in_flight;
	if (health->condition == STORE_AWAY)
		health->condition = STORE_DEGRADED;
	if (f->ready && !f->refused)
		health->unsettled = f->records.count + f->in_flight;
}

/* How many requests wait is bounded here. Main has room for the steps besides: those in
 * the background, and one ahead of each request. */
static void fallback_reconfigure(struct store *s)
{
	struct fallback_store *f = fallback(s);
	struct store_limits limits = s->limits;

	store_reconfigure(f->local, &limits);
	limits.max_in_flight = 2 * limits.max_in_flight + FOLDS_IN_FLIGHT;
	store_reconfigure(f->main, &limits);
}

static void fallback_free(struct store *s)
{
	struct fallback_store *f = fallback(s);
	struct fold_flight *flight;

	while ((flight = TAILQ_FIRST(&f->flights)) != NULL) {
		TAILQ_REMOVE(&f->flights, flight, entry);
		store_cancel(flight->op);
		free(flight->doubt);
		free(flight);
	}
	if (f->records.count)
		log_warning(f->log, "folds_dropped",
			    "circuits=%zu reason=\"stopped before Redis was back\"",
			    f->records.count);
	while (!TAILQ_EMPTY(&f->waiting))
		record_remove(f, TAILQ_FIRST(&f->waiting));
	f->main->on_change = NULL;
	store_watch(f->main, NULL, NULL);
	store_free(f->main);
	store_free(f->local);
	keytable_fini(&f->records);
	if (f->turn)
		event_free(f->turn);
	store_fini(s);
	free(f);
}

static const struct store_driver fallback_driver = {
	.name = "fallback",
	.submit = fallback_submit,
	.list = fallback_list,
	.detach = fallback_detach,
	.health = fallback_health,
	.reconfigure = fallback_reconfigure,
	.free = fallback_free,
};

struct store *store_fallback_new(struct event_base *base, struct store *main,
				 const struct store_limits *limits, struct store_clock clock,
				 struct metrics *metrics, struct log *log)
{
	struct fallback_store *f = calloc(1, sizeof(*f));
	struct store_clock local_clock = {now_in_main, monotonic, f};

	if (!f || store_init(&f->store, &fallback_driver, base, limits) != 0)
		goto fail;
	f->clock = clock;
	f->error_ms = OFFSET_UNKNOWN_MS;
	f->metrics = metrics;
	f->log = log;
	TAILQ_INIT(&f->waiting);
	TAILQ_INIT(&f->flights);
	f->turn = evtimer_new(base, on_turn, f);
	f->local = store_memory_new(base, limits, local_clock, NULL);
	if (!f->turn || !f->local || keytable_init(&f->records) != 0)
		goto fail;
	if (metrics)
		metrics_run(&metrics->degraded_time, true);
	f->main = main;
	main->on_change = on_main_change;
	main->on_change_arg = f;
	store_watch(main, on_main_news, f);
	fallback_reconfigure(&f->store);
	return &f->store;
fail:
	if (f) {
		if (f->turn)
			event_free(f->turn);
		store_free(f->local);
		store_fini(&f->store);
		free(f);
	}
	store_free(main);
	return NULL;
}
