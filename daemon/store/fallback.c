/*
 * A store that holds two: `main`, and an embedded one for when main is away.
 *
 * While main is there, its answers pass through, and each snapshot seen is put into the
 * embedded store. While it is away, operations go on there, and what they did becomes a step
 * in the circuit's queue (circuit_queue.h), which fold_back.c takes to main when it is back.
 * An operation on a circuit that has a queue waits in it: nothing overtakes anything. If its
 * deadline passes before it was handed over, it is answered here, as part of the step ahead.
 *
 * While main is there, memory answers what it may (seen.c), and successes wait (held.c). A store
 * that refuses does only that: it has no queues, and main's failures are its own.
 */
#include "base/clock.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "store/fallback_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fallback_store *fallback(struct store *s)
{
	return (struct fallback_store *)s;
}

/* --- answers from memory ------------------------------------------------------------------ */

void fallback_seen(struct fallback_store *f, const char *key, size_t len,
		   const struct circuit *circuit, const struct breaker *breaker)
{
	const struct circuit_queue *q = circuit_queue_find(&f->queues, key, len);

	/* The steps have changed what is here, and main does not have them yet. */
	if (q && circuit_queue_has_steps(q))
		return;
	if (circuit && breaker)
		store_memory_put_breaker(f->local, key, len, circuit, breaker);
	else
		store_memory_put(f->local, key, len, circuit);
}

/* The stamp that the operation's own must be later than, to have an effect in main; or 0. */
static int64_t must_follow(enum circuit_verb verb, const struct circuit *seen)
{
	if (verb == CIRCUIT_RESET && seen->last_failure_time > seen->last_state_change)
		return seen->last_failure_time;
	if (verb == CIRCUIT_GET_STATE || verb == CIRCUIT_RECORD_SUCCESS ||
	    verb == CIRCUIT_RECORD_FAILURE)
		return 0;
	return seen->last_state_change;
}

/* True if the operation, answered here, changed something that main shall get. A decision may have
 * changed the member alone: windows and permits of a time without main stay here. */
static bool has_changed(const struct circuit_op *op, const struct store_result *result)
{
	if (!op->call)
		return circuit_verb_writes(op->verb);
	return result->decision.counted > 0 || result->decision.was != result->decision.state;
}

/* Runs the operation on the embedded store; *before is the circuit as it was there. */
static void run_embedded(struct fallback_store *f, const struct store_request *request,
			 struct store_result *before, struct store_result *result)
{
	struct store_request get = *request;

	get.op.verb = CIRCUIT_GET_STATE;
	store_submit(f->local, &get, NULL, NULL, before);
	if (!before->absent)
		f->clock.after_ms = must_follow(request->op.verb, &before->circuit);
	store_submit(f->local, request, NULL, NULL, result);
	f->clock.after_ms = 0;
	result->degraded = true;
}

/* The queue of a circuit that was written here. NULL when there is no room: the embedded store
 * then is as it was before. */
static struct circuit_queue *queue_of(struct fallback_store *f, const struct store_request *request,
				      const struct store_result *before)
{
	const struct circuit *seen = before->absent ? NULL : &before->circuit;
	struct circuit_queue *q = circuit_queue_get(&f->queues, request->key, request->key_len,
						    seen, f->store.limits.max_circuits);

	if (!q)
		store_memory_put(f->local, request->key, request->key_len, seen);
	return q;
}

/* An override is for all gateways or for none: it is never set or ended here alone. */
static bool is_override(const struct store_request *request)
{
	return request->op.verb >= CIRCUIT_OVERRIDE;
}

/* Answers an operation that main surely has not done: what it did becomes a step. */
static void answer_as_step(struct fallback_store *f, const struct store_request *request,
			   struct store_result *result)
{
	enum circuit_effect effect =
		request->op.verb == CIRCUIT_RESET ? CIRCUIT_REMOVED : CIRCUIT_WRITTEN;
	struct store_result before;
	struct circuit_queue *q;

	if (is_override(request)) {
		store_refuse(result, STORE_UNAVAILABLE,
			     "Redis is away, and an override is for all gateways or for none");
		return;
	}
	run_embedded(f, request, &before, result);
	if (result->status != STORE_OK || !has_changed(&request->op, result))
		return;
	q = queue_of(f, request, &before);
	if (!q) {
		store_refuse(result, STORE_FULL,
			     "max_circuits have been written since Redis went away");
		result->degraded = true;
		return;
	}
	if (request->op.call)
		circuit_queue_note_decision(q, &request->op, &result->decision, f->clock.stamp_ms,
					    f->clock.offset_ms);
	else
		circuit_queue_note(q, &request->op, effect, f->clock.stamp_ms, f->clock.offset_ms);
	fold_back_later(f, q);
}

/*
 * Answers an operation that main may have done: the caller sees its effect, but main shall not
 * get it again. Main is asked for the circuit before anything else of it goes there.
 */
static void answer_in_doubt(struct fallback_store *f, const struct store_request *request,
			    struct store_result *result)
{
	const struct store_result unsure = *result;
	struct store_result before;
	struct circuit_queue *q;

	if (is_override(request))
		return;
	run_embedded(f, request, &before, result);
	if (result->status != STORE_OK && result->status != STORE_CONFLICT) {
		*result = unsure;
		return;
	}
	if (!circuit_verb_writes(request->op.verb))
		return;
	if (f->metrics)
		f->metrics->operations_in_doubt++;
	q = queue_of(f, request, &before);
	if (!q)
		return;
	circuit_queue_check(q);
	fold_back_later(f, q);
}

void fallback_learn(struct fallback_store *f, const struct store_request *request, int64_t asked_ms,
		    const struct store_result *result)
{
	bool gone = result->absent || request->op.verb == CIRCUIT_RESET;

	if (seen_is_old(f, request, asked_ms, result))
		return;
	fallback_seen(f, request->key, request->key_len, gone ? NULL : &result->circuit,
		      result->breaker);
	seen_learn(f, request, asked_ms, result);
}

/* Main has answered: what it says, or what the embedded store says in its place. */
static void settle(struct fallback_store *f, const struct store_request *request, int64_t asked_ms,
		   struct store_result *result)
{
	if (f->refuses && result->status != STORE_OK && result->status != STORE_CONFLICT)
		return;
	switch (result->status) {
	case STORE_OK:
	case STORE_CONFLICT:
		if (!result->overtaken)
			fallback_learn(f, request, asked_ms, result);
		break;
	case STORE_UNAVAILABLE:
		answer_as_step(f, request, result);
		break;
	case STORE_UNKNOWN:
	case STORE_TIMEOUT:
		answer_in_doubt(f, request, result);
		break;
	case STORE_ERROR:
	case STORE_FULL:
	case STORE_OVERLOADED:
	case STORE_BAD_CURSOR:
		break;
	}
}

/* --- operations --------------------------------------------------------------------------- */

static struct store_request request_of(const struct fallback_op *o)
{
	return (struct store_request){.key = o->key, .key_len = o->key_len, .op = o->what};
}

static void nobody_waits(void *arg, struct store_result *result)
{
	(void)arg;
	(void)result;
}

static void queue_leave(struct fallback_op *o)
{
	TAILQ_REMOVE(&o->queue->ops, o, in_queue);
	o->queue->op_count--;
	o->queue = NULL;
}

static void timed_leave(struct fallback_store *f, struct fallback_op *o)
{
	if (o->due_ms == 0)
		return;
	if (f->next_timed == o)
		f->next_timed = TAILQ_NEXT(o, in_timed);
	TAILQ_REMOVE(&f->timed, o, in_timed);
}

static void op_finish(struct fallback_store *f, struct fallback_op *o, struct store_result *result)
{
	timed_leave(f, o);
	if (o->held)
		held_ended(f, o->held, &o->what, result);
	store_drop_call(&o->what);
	store_op_finish(&o->op, result);
}

static void on_main_done(void *arg, struct store_result *result)
{
	struct fallback_op *o = arg;
	struct fallback_store *f = fallback(o->op.store);
	struct store_request request = request_of(o);

	o->inner = NULL;
	settle(f, &request, o->asked_ms, result);
	op_finish(f, o, result);
}

/* True if main has answered at once. A read sees the successes that were answered before it. */
static bool submit_to_main(struct fallback_store *f, struct fallback_op *o,
			   struct store_request *request, struct store_result *result)
{
	request->behind_writes = !circuit_verb_writes(request->op.verb) &&
				 held_on_its_way(f, request->key, request->key_len);
	o->inner = store_submit(f->main, request, on_main_done, o, result);
	return !o->inner;
}

void fallback_pass_on(struct fallback_store *f, struct fallback_op *o)
{
	struct store_request request = request_of(o);
	struct store_result result;

	queue_leave(o);
	if (submit_to_main(f, o, &request, &result))
		on_main_done(o, &result);
}

void fallback_answer_here(struct fallback_store *f, struct fallback_op *o)
{
	struct store_request request = request_of(o);
	struct store_result result;

	queue_leave(o);
	answer_as_step(f, &request, &result);
	op_finish(f, o, &result);
}

void fallback_refuse(struct fallback_store *f, struct fallback_op *o, const char *message)
{
	struct store_result result;

	queue_leave(o);
	store_refuse(&result, STORE_ERROR, message);
	op_finish(f, o, &result);
}

static void deadline_arm(struct fallback_store *f)
{
	const struct fallback_op *o = TAILQ_FIRST(&f->timed);

	if (o && !evtimer_pending(f->deadline, NULL))
		timer_arm(f->deadline, o->due_ms - clock_ms());
}

/* Of operations that came to a queue: one that was passed on since ends as main's deadline
 * would end it. */
static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	int64_t now = clock_ms();
	struct fallback_op *o;

	(void)fd;
	(void)what;
	while ((o = TAILQ_FIRST(&f->timed)) != NULL && o->due_ms <= now) {
		if (o->inner)
			store_op_expire(o->inner);
		else
			fallback_answer_here(f, o);
	}
	deadline_arm(f);
}

static struct fallback_op *op_new(const struct store_request *request)
{
	struct fallback_op *o = malloc(sizeof(*o) + request->key_len);

	if (!o)
		return NULL;
	o->inner = NULL;
	o->queue = NULL;
	o->due_ms = 0;
	o->query = NULL;
	o->asked_ms = clock_ms();
	o->held = NULL;
	o->what = request->op;
	if (!store_keep_call(&o->what)) {
		free(o);
		return NULL;
	}
	o->key_len = request->key_len;
	memcpy(o->key, request->key, request->key_len);
	return o;
}

static void queue_enter(struct fallback_store *f, struct circuit_queue *q, struct fallback_op *o)
{
	o->queue = q;
	TAILQ_INSERT_TAIL(&q->ops, o, in_queue);
	q->op_count++;
	o->due_ms = clock_ms() + f->store.limits.timeout_ms;
	TAILQ_INSERT_TAIL(&f->timed, o, in_timed);
	deadline_arm(f);
	fold_back_now(f, q);
}

static void start(struct fallback_store *f, struct fallback_op *o, store_done_fn *done, void *arg)
{
	store_op_start_open(&f->store, &o->op, done, arg);
	if (o->held)
		store_op_background(&o->op);
}

/* Takes o, just made, to main or into the circuit's queue. As store_submit. */
static struct store_op *submit(struct fallback_store *f, struct fallback_op *o, store_done_fn *done,
			       void *arg, struct store_result *result)
{
	struct circuit_queue *q = circuit_queue_find(&f->queues, o->key, o->key_len);
	struct store_request request = request_of(o);

	if (q) {
		start(f, o, done, arg);
		queue_enter(f, q, o);
		return &o->op;
	}
	if (!submit_to_main(f, o, &request, result)) {
		start(f, o, done, arg);
		return &o->op;
	}
	settle(f, &request, o->asked_ms, result);
	store_drop_call(&o->what);
	free(o);
	return NULL;
}

static struct store_op *fallback_submit(struct store *s, const struct store_request *request,
					store_done_fn *done, void *arg, struct store_result *result)
{
	struct fallback_store *f = fallback(s);
	struct fallback_op *o;

	if (!f->ready && !f->refuses) {
		answer_as_step(f, request, result);
		return NULL;
	}
	if (f->ready && (seen_answer(f, request, result) || held_take(f, request, result)))
		return NULL;
	if (store_overloaded(s, result))
		return NULL;
	held_send_before(f, request);
	o = op_new(request);
	if (!o)
		return store_refuse(result, STORE_ERROR, "out of memory");
	return submit(f, o, done, arg, result);
}

void fallback_report(struct fallback_store *f, struct seen_circuit *e, const struct circuit_op *op)
{
	const struct store_request request = {
		.key = keynode_key(&e->node),
		.key_len = e->node.key_len,
		.op = *op,
	};
	struct store_result result;
	struct fallback_op *o;

	e->held_sending++;
	if (!f->ready && !f->refuses) {
		answer_as_step(f, &request, &result);
		held_ended(f, e, op, &result);
		return;
	}
	o = op_new(&request);
	if (!o) {
		store_refuse(&result, STORE_UNAVAILABLE, "out of memory");
		held_ended(f, e, op, &result);
		return;
	}
	o->held = e;
	if (!submit(f, o, nobody_waits, NULL, &result))
		held_ended(f, e, op, &result);
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
	struct fallback_store *f = fallback(s);
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
		o->inner = store_list(f->main, query, on_main_listed, o, result);
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

static void on_main_change(void *arg, bool ready)
{
	struct fallback_store *f = arg;
	struct fallback_op *o;
	int64_t offset_ms, error_ms;

	f->ready = ready;
	if (f->metrics && !f->refuses)
		metrics_run(&f->metrics->degraded_time, !ready);
	if (ready) {
		offset_ms = f->main->driver->clock_offset_ms(f->main, &error_ms);
		clock_offset_measured(&f->clock, offset_ms, error_ms);
		held_send_all(f);
		fold_back_begin(f);
		return;
	}
	fold_back_stop(f);
	seen_forget_all(f);
	if (f->refuses)
		return;
	held_send_all(f);
	/* Nothing waits for a link. What main has it ends itself. */
	f->next_timed = TAILQ_FIRST(&f->timed);
	while ((o = f->next_timed) != NULL) {
		f->next_timed = TAILQ_NEXT(o, in_timed);
		if (o->queue)
			fallback_answer_here(f, o);
	}
}

static void on_main_event(void *arg, const struct store_event *event)
{
	struct fallback_store *f = arg;

	if (f->ready)
		seen_told(f, event);
}

static void on_main_news(void *arg)
{
	struct fallback_store *f = arg;

	store_changed(&f->store);
}

/* --- the driver --------------------------------------------------------------------------- */

static void fallback_detach(struct store_op *op, struct store_result *verdict)
{
	struct fallback_op *o = (struct fallback_op *)op;

	verdict->status = circuit_verb_writes(o->what.verb) ? STORE_UNKNOWN : STORE_TIMEOUT;
	if (o->inner)
		store_cancel(o->inner);
	if (o->queue) {
		queue_leave(o);
		verdict->status = STORE_UNAVAILABLE;
	}
	timed_leave(fallback(op->store), o);
	if (o->held) /* the end of the store */
		held_ended(fallback(op->store), o->held, &o->what,
			   &(struct store_result){.status = STORE_UNKNOWN,
						  .message = "stopped before Redis had them"});
	store_drop_call(&o->what);
	free(o->query);
}

static void fallback_health(struct store *s, struct store_health *health)
{
	struct fallback_store *f = fallback(s);

	store_health(f->main, health);
	health->in_flight = s->in_flight - s->background;
	if (health->condition == STORE_AWAY && !f->refuses)
		health->condition = STORE_DEGRADED;
	health->held = f->ready ? f->seen.pending : 0;
	if (f->ready)
		health->unsettled = circuit_queues_count(&f->queues) - f->queues.refused_count;
}

/* How many requests wait is bounded here. Main has room for the rest besides: the steps in the
 * background, and one ahead of each request; successes that were held back; and refreshes. */
static void fallback_reconfigure(struct store *s)
{
	struct fallback_store *f = fallback(s);
	struct store_limits limits = s->limits;

	store_reconfigure(f->local, &limits);
	limits.max_in_flight = 2 * limits.max_in_flight + FOLDS_IN_FLIGHT + 2 * BACKGROUND_MAX;
	store_reconfigure(f->main, &limits);
}

static void fallback_send_held(struct store *s)
{
	held_send_all(fallback(s));
}

static void fallback_free(struct store *s)
{
	struct fallback_store *f = fallback(s);

	f->main->on_change = NULL;
	f->main->on_event = NULL;
	store_watch(f->main, NULL, NULL);
	fold_back_end(f);
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
	store_follow(fallback(s)->main, s->follow, s->follow_arg);
	store_follow(fallback(s)->local, s->follow, s->follow_arg);
}

static int64_t fallback_clock_offset_ms(struct store *s, int64_t *error_ms)
{
	return fallback(s)->main->driver->clock_offset_ms(fallback(s)->main, error_ms);
}

static const struct store_driver fallback_driver = {
	.follow = fallback_follow,
	.clock_offset_ms = fallback_clock_offset_ms,
	.name = "fallback",
	.submit = fallback_submit,
	.list = fallback_list,
	.detach = fallback_detach,
	.health = fallback_health,
	.reconfigure = fallback_reconfigure,
	.send_held = fallback_send_held,
	.free = fallback_free,
};

struct store *store_fallback_new(struct event_base *base, struct store *main,
				 const struct store_limits *limits, struct store_clock clock,
				 struct metrics *metrics, struct log *log)
{
	struct fallback_store *f = calloc(1, sizeof(*f));
	struct store_clock local_clock;

	if (f)
		local_clock =
			(struct store_clock){clock_offset_now, clock_offset_monotonic, &f->clock};
	if (!f || store_init(&f->store, &fallback_driver, base, limits) != 0)
		goto fail;
	clock_offset_init(&f->clock, &clock);
	f->metrics = metrics;
	f->log = log;
	TAILQ_INIT(&f->timed);
	f->deadline = evtimer_new(base, on_deadline, f);
	f->local = store_memory_new(base, limits, local_clock, NULL);
	if (!f->deadline || !f->local || fold_back_init(f) != 0 || seen_init(f) != 0)
		goto fail;
	if (metrics)
		metrics_run(&metrics->degraded_time, true);
	f->main = main;
	main->on_change = on_main_change;
	main->on_change_arg = f;
	main->on_event = on_main_event;
	main->on_event_arg = f;
	store_watch(main, on_main_news, f);
	fallback_reconfigure(&f->store);
	return &f->store;
fail:
	if (f) {
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
	struct fallback_store *f = fallback(s);

	if (store_memory_keep_steps(f->local, &f->queues, path, f->metrics, f->log, why,
				    why_size) != 0)
		return -1;
	fold_back_restored(f);
	return 0;
}

void store_fallback_refuse(struct store *s)
{
	struct fallback_store *f = fallback(s);

	f->refuses = true;
	if (f->metrics)
		metrics_run(&f->metrics->degraded_time, false);
}
