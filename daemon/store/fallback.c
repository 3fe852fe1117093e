/*
 * The fallback store. It holds two stores: `main`, and an embedded one for when main is away.
 *
 * While main is there, its answers pass through, and each snapshot seen is put into the
 * embedded store. While main is away, the embedded store answers, and what operations did becomes a
 * step in the circuit's queue (circuit_queue.h), which fold_back.c takes to main when it is back.
 * An operation on a circuit that has a queue waits in it: nothing overtakes anything. If its
 * deadline passes before it was handed over, it is answered here, as part of the step ahead.
 *
 * While main is there, memory answers what it may (refresh.c), and successes wait (held.c). A store
 * that refuses (store_fallback_refuse) does only this: it has no queues, and main's failures are
 * its answers.
 */
#include "base/metrics.h"
#include "store/fallback_private.h"

#include <stdlib.h>

/* --- operations --------------------------------------------------------------------------- */

/* True if operations on the circuit still wait in its queue: main has just gone, and they are
 * answered in the next turns of the loop. The request must come after them. */
static bool others_wait(struct fallback_store *f, const struct store_request *request)
{
	struct circuit_queue *q;

	if (!f->next_timed)
		return false;
	q = circuit_queue_find(&f->queues, request->key, request->key_len);
	return q && q->op_count > 0;
}

static struct store_op *fallback_submit(struct store *s, const struct store_request *request,
					store_done_fn *done, void *arg, struct store_result *result)
{
	struct fallback_store *f = fallback_of(s);
	struct fallback_op *o;
	struct store_op *op;

	if (!f->ready && !f->refuses && !others_wait(f, request)) {
		held_send_before(f, request);
		op_run_here(f, request, result);
		return NULL;
	}
	if (f->ready && (refresh_answer(f, request, result) || held_take(f, request, result)))
		return NULL;
	if (store_overloaded(s, result))
		return NULL;
	held_send_before(f, request);
	o = op_new(request);
	if (!o)
		return store_refuse(result, STORE_ERROR, "out of memory");
	op = refresh_wait(f, o, done, arg);
	return op ? op : in_order_submit(f, o, done, arg, result);
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

/* Main has answered a listing: remembers what it shows. */
static void learn_page(struct fallback_store *f, const struct fallback_op *o,
		       const struct store_result *result)
{
	if (f->ready && result->status == STORE_OK)
		seen_remember_page(f, result->page, o->asked.ms);
}

static void on_main_listed(void *arg, struct store_result *result)
{
	struct fallback_op *o = arg;
	struct fallback_store *f = fallback_of(o->op.store);

	o->inner = NULL;
	learn_page(f, o, result);
	if (!f->refuses &&
	    (result->status == STORE_UNAVAILABLE || result->status == STORE_TIMEOUT)) {
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
	struct fallback_store *f = fallback_of(s);
	struct fallback_op *o = calloc(1, sizeof(*o));
	bool ready = f->ready || f->refuses;

	if (o)
		o->query = malloc(sizeof(*query));
	if (!o || !o->query) {
		free(o);
		return store_refuse(result, STORE_ERROR, "out of memory");
	}
	*o->query = *query;
	if (ready && !query->background && store_overloaded(s, result)) {
		free(o->query);
		free(o);
		return NULL;
	}
	if (ready) {
		o->asked.ms = clock_offset_monotonic(&f->clock);
		o->inner = store_list(f->main, query, on_main_listed, o, result);
		if (!o->inner)
			learn_page(f, o, result);
		ready = o->inner || f->refuses || result->status != STORE_UNAVAILABLE;
	}
	if (!ready)
		o->inner = store_list(f->local, query, on_local_listed, o, result);
	if (o->inner) {
		store_op_start_open(s, &o->op, done, arg);
		if (query->background)
			store_op_background(&o->op);
		return &o->op;
	}
	result->degraded = !ready;
	free(o->query);
	free(o);
	return NULL;
}

/* --- main comes and goes ------------------------------------------------------------------ */

/* Main may have measured its clock again. */
static void take_clock(struct fallback_store *f)
{
	int64_t error_ms, offset_ms = f->main->driver->clock_offset_ms(f->main, &error_ms);

	clock_offset_measured(&f->clock, offset_ms, error_ms);
}

static void on_main_change(void *arg, bool ready)
{
	struct fallback_store *f = arg;

	f->ready = ready;
	if (f->metrics && !f->refuses)
		metrics_run(&f->metrics->degraded_time, !ready);
	if (ready) {
		take_clock(f);
		held_send_all(f);
		fold_back_begin(f);
		return;
	}
	fold_back_stop(f);
	seen_forget_all(f);
	if (f->refuses)
		return;
	held_send_all(f);
	op_answer_all_here(f);
}

static void on_main_event(void *arg, const struct store_event *event)
{
	struct fallback_store *f = arg;

	if (f->ready)
		refresh_told(f, event);
}

static void on_main_answered(void *arg)
{
	struct fallback_store *f = arg;

	if (f->ready)
		take_clock(f);
	store_answered(&f->store);
}

static void on_main_health(void *arg)
{
	struct fallback_store *f = arg;

	store_changed(&f->store);
}

/* --- the driver --------------------------------------------------------------------------- */

static void fallback_health(struct store *s, struct store_health *health)
{
	struct fallback_store *f = fallback_of(s);

	store_health(f->main, health);
	health->in_flight = s->in_flight - s->background;
	if (health->condition == STORE_AWAY && !f->refuses)
		health->condition = STORE_DEGRADED;
	/* A store that refuses cannot send them while main is away. */
	health->held = f->ready || f->stopping || !f->refuses ? f->seen.pending : 0;
	if (f->ready || f->stopping)
		health->unsettled = circuit_queues_count(&f->queues) - f->queues.refused_count;
}

/* This store bounds how many requests wait (max_in_flight). Main must have room for them and for
 * what comes besides: a step ahead of each request, FOLDS_IN_FLIGHT other steps, and BACKGROUND_MAX
 * each of reports, refreshes and reads for memory. */
static void fallback_reconfigure(struct store *s)
{
	struct fallback_store *f = fallback_of(s);
	struct store_limits limits = s->limits;

	store_reconfigure(f->local, &limits);
	limits.max_in_flight = 2 * limits.max_in_flight + FOLDS_IN_FLIGHT + 3 * BACKGROUND_MAX;
	store_reconfigure(f->main, &limits);
	held_reconfigured(f);
	seen_reconfigured(f);
}

static void fallback_send_held(struct store *s)
{
	struct fallback_store *f = fallback_of(s);
	struct store_health health;

	store_health(f->main, &health);
	if (f->ready || health.suspect)
		f->stopping = true;
	held_send_all(f);
}

static void fallback_flush(struct store *s)
{
	store_flush(fallback_of(s)->main);
}

static void fallback_free(struct store *s)
{
	struct fallback_store *f = fallback_of(s);

	f->main->on_change = NULL;
	f->main->on_event = NULL;
	store_watch(f->main, NULL, NULL);
	store_on_answered(f->main, NULL, NULL);
	if (!f->ready && !f->refuses)
		held_send_all_now(f);
	fold_back_end(f);
	refresh_fini(f);
	held_fini(f);
	seen_fini(f);
	store_free(f->main);
	store_free(f->local);
	fold_back_fini(f);
	if (f->deadline)
		event_free(f->deadline);
	store_fini(s);
	free(f);
}

static void fallback_follow(struct store *s)
{
	store_follow(fallback_of(s)->main, s->follow, s->follow_arg);
	store_follow(fallback_of(s)->local, s->follow, s->follow_arg);
}

static int64_t fallback_clock_offset_ms(struct store *s, int64_t *error_ms)
{
	return fallback_of(s)->main->driver->clock_offset_ms(fallback_of(s)->main, error_ms);
}

static const struct store_driver fallback_driver = {
	.follow = fallback_follow,
	.clock_offset_ms = fallback_clock_offset_ms,
	.name = "fallback",
	.submit = fallback_submit,
	.list = fallback_list,
	.detach = op_detach,
	.health = fallback_health,
	.reconfigure = fallback_reconfigure,
	.send_held = fallback_send_held,
	.flush = fallback_flush,
	.free = fallback_free,
};

struct store *store_fallback_new(struct event_base *base, struct store *main,
				 const struct store_limits *limits, struct store_clock clock,
				 struct metrics *metrics, struct log *log)
{
	struct fallback_store *f = calloc(1, sizeof(*f));
	struct store_clock local_clock;

	if (f)
		local_clock = (struct store_clock){clock_offset_now, clock_offset_monotonic,
						   &f->clock, clock_offset_peek};
	if (!f || store_init(&f->store, &fallback_driver, base, limits) != 0)
		goto fail;
	clock_offset_init(&f->clock, &clock);
	f->metrics = metrics;
	f->log = log;
	TAILQ_INIT(&f->timed);
	f->deadline_ms = INT64_MAX;
	f->deadline = evtimer_new(base, op_on_deadline, f);
	f->local = store_memory_new(base, limits, local_clock, NULL);
	if (!f->deadline || !f->local || fold_back_init(f) != 0 || seen_init(f) != 0 ||
	    held_init(f) != 0 || refresh_init(f) != 0)
		goto fail;
	if (metrics)
		metrics_run(&metrics->degraded_time, true);
	f->main = main;
	main->on_change = on_main_change;
	main->on_change_arg = f;
	main->on_event = on_main_event;
	main->on_event_arg = f;
	store_watch(main, on_main_health, f);
	store_on_answered(main, on_main_answered, f);
	fallback_reconfigure(&f->store);
	return &f->store;
fail:
	if (f) {
		refresh_fini(f);
		held_fini(f);
		seen_fini(f);
		fold_back_fini(f);
		if (f->deadline)
			event_free(f->deadline);
		store_free(f->local);
		store_fini(&f->store);
		free(f);
	}
	store_free(main);
	return NULL;
}

int store_fallback_keep(struct store *s, const char *path, char *why, size_t why_size)
{
	struct fallback_store *f = fallback_of(s);

	if (store_memory_keep_steps(f->local, &f->queues, path, f->metrics, f->log, why,
				    why_size) != 0)
		return -1;
	fold_back_restored(f);
	return 0;
}

void store_fallback_refuse(struct store *s)
{
	struct fallback_store *f = fallback_of(s);

	f->refuses = true;
	if (f->metrics)
		metrics_run(&f->metrics->degraded_time, false);
}
