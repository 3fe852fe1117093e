/*
 * One operation of the fallback store. It goes to main; or it waits in its circuit's queue; or it
 * is answered here, on the embedded store, and what it did becomes part of the queue's step.
 */
#include "base/clock.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "store/fallback_private.h"

#include <stdlib.h>
#include <string.h>

/* At most this many operations end in one turn of the loop, each with its answer: some 2 ms. */
#define END_BUDGET 256

/* --- on the embedded store ------------------------------------------------------------------ */

/* To have an effect in main, the operation's own stamp must be later than this; 0: any will do. */
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
 * changed only the member, whose windows and permits stay here. */
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

/* The queue of a circuit that was written here. NULL when there is no room: the write to the
 * embedded store is then undone. */
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

/* True if the operation, answered here, would need a queue for which there is no room. *trial is
 * for its result. */
static bool lacks_room(struct fallback_store *f, const struct store_request *request,
		       struct store_result *trial)
{
	if (circuit_queues_count(&f->queues) < f->store.limits.max_circuits ||
	    circuit_queue_find(&f->queues, request->key, request->key_len))
		return false;
	return store_memory_try(f->local, request, trial) != CIRCUIT_CONFLICT &&
	       has_changed(&request->op, trial);
}

static void refuse_full(struct store_result *result)
{
	store_refuse(result, STORE_FULL, "max_circuits have been written since Redis went away");
	result->degraded = true;
}

/* An override is for all gateways or for none: it is never set or ended here alone. */
static bool is_override(const struct store_request *request)
{
	return request->op.verb >= CIRCUIT_OVERRIDE;
}

void op_run_here(struct fallback_store *f, const struct store_request *request,
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
	if (lacks_room(f, request, result)) {
		refuse_full(result);
		return;
	}
	run_embedded(f, request, &before, result);
	if (result->status != STORE_OK || !has_changed(&request->op, result))
		return;
	q = queue_of(f, request, &before);
	if (!q) {
		refuse_full(result);
		return;
	}
	if (request->op.call)
		circuit_queue_note_decision(q, &request->op, &result->decision, f->clock.stamp_ms,
					    f->clock.offset_ms);
	else
		circuit_queue_note(q, &request->op, effect, f->clock.stamp_ms, f->clock.offset_ms);
	fold_later(f, q);
}

/*
 * Answers an operation that main may have done: the caller sees its effect, but it is not sent to
 * main again. Main is asked for the circuit before anything else of it goes there.
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
	fold_later(f, q);
}

void op_settle(struct fallback_store *f, const struct store_request *request,
	       struct seen_asked asked, struct store_result *result)
{
	if (f->refuses && result->status != STORE_OK && result->status != STORE_CONFLICT)
		return;
	switch (result->status) {
	case STORE_OK:
	case STORE_CONFLICT:
		if (!result->overtaken)
			seen_learn(f, request, asked, result);
		break;
	case STORE_UNAVAILABLE:
		op_run_here(f, request, result);
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

/* --- an operation under way ----------------------------------------------------------------- */

struct store_request op_request(const struct fallback_op *o)
{
	return (struct store_request){
		.key = o->key,
		.key_len = o->key_len,
		.op = o->operation,
		.background = o->on_ended != NULL,
	};
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
	o->due_ms = 0;
}

void op_finish(struct fallback_store *f, struct fallback_op *o, struct store_result *result)
{
	timed_leave(f, o);
	if (o->on_ended)
		o->on_ended(f, o->on_ended_arg, &o->operation, result);
	store_drop_call(&o->operation);
	store_op_finish(&o->op, result);
}

void op_ignore_result(void *arg, struct store_result *result)
{
	(void)arg;
	(void)result;
}

static void on_main_done(void *arg, struct store_result *result)
{
	struct fallback_op *o = arg;
	struct fallback_store *f = fallback_of(o->op.store);
	struct store_request request = op_request(o);

	o->inner = NULL;
	op_settle(f, &request, o->asked, result);
	op_finish(f, o, result);
}

/* A read that comes after successes under way must see them: it goes behind them. */
bool op_submit_to_main(struct fallback_store *f, struct fallback_op *o,
		       struct store_request *request, struct store_result *result)
{
	request->behind_writes = !circuit_verb_writes(request->op.verb) &&
				 seen_reports_under_way(f, request->key, request->key_len);
	o->asked.told = f->seen.told_count;
	o->inner = store_submit(f->main, request, on_main_done, o, result);
	return !o->inner;
}

void op_pass_on(struct fallback_store *f, struct fallback_op *o)
{
	struct store_request request = op_request(o);
	struct store_result result;

	queue_leave(o);
	if (op_submit_to_main(f, o, &request, &result))
		on_main_done(o, &result);
}

void op_answer_here(struct fallback_store *f, struct fallback_op *o)
{
	struct store_request request = op_request(o);
	struct store_result result;

	queue_leave(o);
	op_run_here(f, &request, &result);
	op_finish(f, o, &result);
}

void op_refuse(struct fallback_store *f, struct fallback_op *o, const char *message)
{
	struct store_result result;

	queue_leave(o);
	store_refuse(&result, STORE_ERROR, message);
	op_finish(f, o, &result);
}

static void deadline_arm(struct fallback_store *f)
{
	const struct fallback_op *o = TAILQ_FIRST(&f->timed);
	int64_t due_ms = o ? o->due_ms : INT64_MAX;

	if (f->next_timed)
		due_ms = 0;
	/* The timer stays as it is when ops end in time: see store.c. */
	if (due_ms < f->deadline_ms && timer_arm(f->deadline, due_ms - clock_ms()) == 0)
		f->deadline_ms = due_ms;
}

void op_give_up_read(struct fallback_store *f, struct fallback_op *o)
{
	struct store_request request = op_request(o);
	struct store_result result;

	op_leave_read(o);
	if (f->refuses) {
		store_refuse(&result, STORE_UNAVAILABLE, "no answer within store_timeout");
		result.timed_out = true;
	} else {
		op_run_here(f, &request, &result);
	}
	op_finish(f, o, &result);
}

/* Answers o, which waits in a queue, or one that waits before it. Those have more time left if
 * store_timeout has become shorter. */
static void answer_in_order(struct fallback_store *f, struct fallback_op *o)
{
	op_answer_here(f, TAILQ_FIRST(&o->queue->ops));
}

/* Main has gone: answers what waits in queues. What main had under way, main ends itself. */
static void answer_next_here(struct fallback_store *f)
{
	unsigned budget = END_BUDGET;
	struct fallback_op *o;

	if (f->ready)
		f->next_timed = NULL; /* it is back: they go to main */
	while ((o = f->next_timed) != NULL && budget-- > 0) {
		if (o->queue)
			answer_in_order(f, o);
		else
			f->next_timed = TAILQ_NEXT(o, in_timed);
	}
}

void op_answer_all_here(struct fallback_store *f)
{
	f->next_timed = TAILQ_FIRST(&f->timed);
	deadline_arm(f);
}

/* An operation that has waited and was passed on since ends as its deadline in main would end it.
 */
void op_on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	int64_t now = clock_ms();
	unsigned budget = END_BUDGET;
	struct fallback_op *o;

	(void)fd;
	(void)what;
	f->deadline_ms = INT64_MAX;
	answer_next_here(f);
	while ((o = TAILQ_FIRST(&f->timed)) != NULL && o->due_ms <= now && budget-- > 0) {
		if (o->inner && o->on_ended)
			timed_leave(f, o); /* nobody waits, and main is sure to answer */
		else if (o->inner)
			store_op_expire(o->inner);
		else if (o->reader_of)
			op_give_up_read(f, o);
		else
			answer_in_order(f, o);
	}
	deadline_arm(f);
}

struct fallback_op *op_new(const struct store_request *request)
{
	struct fallback_op *o = malloc(sizeof(*o) + request->key_len);

	if (!o)
		return NULL;
	o->inner = NULL;
	o->queue = NULL;
	o->reader_of = NULL;
	o->due_ms = 0;
	o->query = NULL;
	o->asked.ms = clock_ms();
	o->on_ended = NULL;
	o->on_ended_arg = NULL;
	o->operation = request->op;
	if (!store_keep_call(&o->operation)) {
		free(o);
		return NULL;
	}
	o->key_len = request->key_len;
	memcpy(o->key, request->key, request->key_len);
	return o;
}

/* An op that waits again keeps the deadline of the first time. */
static void timed_enter(struct fallback_store *f, struct fallback_op *o)
{
	struct fallback_op *before;

	if (o->due_ms != 0)
		return;
	o->due_ms = clock_ms() + f->store.limits.timeout_ms;
	/* Its place is at the end, unless store_timeout has just become shorter. */
	TAILQ_FOREACH_REVERSE(before, &f->timed, fallback_ops, in_timed)
	{
		if (before->due_ms <= o->due_ms)
			break;
	}
	if (before)
		TAILQ_INSERT_AFTER(&f->timed, before, o, in_timed);
	else
		TAILQ_INSERT_HEAD(&f->timed, o, in_timed);
	/* Main has just gone: those from next_timed on are answered here, and o must be among them.
	 */
	if (f->next_timed && f->next_timed->due_ms > o->due_ms)
		f->next_timed = o;
	deadline_arm(f);
}

void op_enter_queue(struct fallback_store *f, struct circuit_queue *q, struct fallback_op *o)
{
	o->queue = q;
	TAILQ_INSERT_TAIL(&q->ops, o, in_queue);
	q->op_count++;
	timed_enter(f, o);
}

void op_wait_for_read(struct fallback_store *f, struct seen_circuit *e, struct fallback_op *o)
{
	o->reader_of = e;
	TAILQ_INSERT_TAIL(&e->readers, o, in_queue);
	e->reader_count++;
	timed_enter(f, o);
}

void op_leave_read(struct fallback_op *o)
{
	TAILQ_REMOVE(&o->reader_of->readers, o, in_queue);
	o->reader_of->reader_count--;
	o->reader_of = NULL;
}

void op_detach(struct store_op *op, struct store_result *verdict)
{
	struct fallback_op *o = (struct fallback_op *)op;

	verdict->status = circuit_verb_writes(o->operation.verb) ? STORE_UNKNOWN : STORE_TIMEOUT;
	if (o->inner)
		store_cancel(o->inner);
	if (o->queue) {
		queue_leave(o);
		verdict->status = STORE_UNAVAILABLE;
	}
	if (o->reader_of) {
		op_leave_read(o);
		verdict->status = STORE_UNAVAILABLE;
	}
	timed_leave(fallback_of(op->store), o);
	if (o->on_ended) /* no client cancels these: it is the end of the store */
		o->on_ended(fallback_of(op->store), o->on_ended_arg, &o->operation,
			    &(struct store_result){.status = STORE_UNKNOWN,
						   .message = "stopped before Redis had them"});
	store_drop_call(&o->operation);
	free(o->query);
}
