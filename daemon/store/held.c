/*
 * Successes that are held back. A success that only counts, on a circuit that is known to be
 * closed, is answered at once and goes to main later, together with others: after report_interval,
 * before the next operation of another kind, or at a stop. They go as one report of the circuit, in
 * its order (in_order.c), and fare as any report: main takes it, or it becomes a step, or it is in
 * doubt and never sent again.
 */
#include "base/clock.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "store/fallback_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* When this many successes of one circuit are held back, they are sent at once. */
#define HELD_MAX 100000
/* At most this many circuits' successes are sent in one turn of the loop. */
#define SEND_BUDGET 256
/* The pause after main did not take them. */
#define RETRY_MS 20
/* Changes of state that reports led to are logged, but not more often than this. */
#define LOG_EACH_MS 1000

static void show_pending(struct fallback_store *f)
{
	if (f->metrics)
		f->metrics->reports_pending = (int64_t)f->seen.pending;
}

static void timer_start(struct fallback_store *f, int64_t wait_ms)
{
	if (!evtimer_pending(f->seen.send_timer, NULL))
		timer_arm(f->seen.send_timer, wait_ms);
}

/* Sets the timer for the circuit that is due first. */
static void start_for_first(struct fallback_store *f)
{
	const struct seen_circuit *e = TAILQ_FIRST(&f->seen.held);
	int64_t wait_ms;

	if (!e)
		return;
	wait_ms = e->held_ms + f->store.limits.report_interval_ms - clock_ms();
	if (f->store.background >= BACKGROUND_MAX)
		timer_start(f, BACKGROUND_MS);
	else if (e->held_ms <= f->seen.send_until_ms)
		timer_start(f, 0);
	else
		timer_start(f, wait_ms > 0 ? wait_ms : 1);
}

void held_reconfigured(struct fallback_store *f)
{
	evtimer_del(f->seen.send_timer);
	start_for_first(f);
}

static void enlist(struct fallback_store *f, struct seen_circuit *e)
{
	if (!e->held_listed)
		TAILQ_INSERT_TAIL(&f->seen.held, e, held_entry);
	e->held_listed = true;
}

static void delist(struct fallback_store *f, struct seen_circuit *e)
{
	if (e->held_listed)
		TAILQ_REMOVE(&f->seen.held, e, held_entry);
	e->held_listed = false;
}

/* --- taking ------------------------------------------------------------------------------- */

/* True if the reports can be sent as one: they differ in their number only. */
static bool same_kind(const struct breaker_call *a, const struct breaker_call *b)
{
	return a->permit.kind == b->permit.kind && a->permit.since_ms == b->permit.since_ms &&
	       a->reporter == b->reporter && policy_equal(a->policy, b->policy);
}

static struct circuit_op *slot_for(struct seen_circuit *e, const struct breaker_call *call)
{
	struct circuit_op *empty = NULL;

	for (unsigned i = 0; i < HELD_KINDS; i++) {
		if (e->held[i].call && same_kind(e->held[i].call, call))
			return &e->held[i];
		if (!e->held[i].call)
			empty = &e->held[i];
	}
	return empty;
}

/* Holds back `count` more successes of this kind. False if that is not possible. */
static bool add(struct fallback_store *f, struct seen_circuit *e, const struct circuit_op *op,
		uint32_t count)
{
	struct circuit_op *place = slot_for(e, op->call);
	struct breaker_call *call;

	if (!place) {
		e->held_sending++; /* keeps e */
		held_send(f, e);
		e->held_sending--;
		place = slot_for(e, op->call);
		if (!place) /* main refused at once, and they are held back again */
			return false;
	}
	if (place->call) {
		/* The copy that store_keep_call made may be changed. */
		call = (struct breaker_call *)(uintptr_t)place->call;
		call->count += count;
	} else {
		*place = *op;
		if (!store_keep_call(place)) {
			place->call = NULL;
			return false;
		}
		call = (struct breaker_call *)(uintptr_t)place->call;
		call->count = count;
	}
	if (e->held_count == 0)
		e->held_ms = clock_ms();
	e->held_count += count;
	enlist(f, e);
	return true;
}

static bool may_wait(const struct circuit_op *op)
{
	const struct breaker_call *call = op->call;

	return op->verb == CIRCUIT_REPORT && call->outcome == BREAKER_SUCCESS && !call->slow &&
	       (call->permit.kind == BREAKER_PERMIT_NONE ||
		call->permit.kind == BREAKER_PERMIT_CLOSED ||
		call->permit.kind == BREAKER_PERMIT_ABSENT);
}

bool held_take(struct fallback_store *f, const struct store_request *request,
	       struct store_result *result)
{
	struct breaker_call all;
	struct store_request trial = *request;
	struct seen_circuit *e;

	if (f->store.limits.report_interval_ms == 0 || !may_wait(&request->op))
		return false;
	e = seen_known(f, request->key, request->key_len);
	if (!e || circuit_queue_find(&f->queues, request->key, request->key_len))
		return false;
	/* A success that would open the circuit together with those that wait must not wait. */
	all = *request->op.call;
	all.count += e->held_count;
	trial.op.call = &all;
	if (store_memory_try(f->local, &trial, result) != CIRCUIT_WRITTEN ||
	    result->decision.counted != all.count || result->decision.was != CIRCUIT_CLOSED ||
	    result->decision.state != CIRCUIT_CLOSED)
		return false;
	/* One success belongs to the acquire before it; only further ones show steady use. */
	if (e->held_count > 0)
		e->asked_ms = clock_ms();
	if (!add(f, e, &request->op, request->op.call->count))
		return false;
	result->absent = false;
	result->was = CIRCUIT_CLOSED;
	result->decision.counted = request->op.call->count;
	f->seen.pending += request->op.call->count;
	show_pending(f);
	if (e->held_count >= HELD_MAX)
		held_send(f, e);
	else
		timer_start(f, f->store.limits.report_interval_ms);
	return true;
}

/* --- sending ------------------------------------------------------------------------------ */

static void on_ended(struct fallback_store *f, struct seen_circuit *e, const struct circuit_op *op,
		     const struct store_result *result);

/* Sends successes of one kind as one report, behind what was submitted before. */
static void submit_report(struct fallback_store *f, struct seen_circuit *e,
			  const struct circuit_op *op)
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
		op_run_here(f, &request, &result);
		on_ended(f, e, op, &result);
		return;
	}
	o = op_new(&request);
	if (!o) {
		store_refuse(&result, STORE_UNAVAILABLE, "out of memory");
		on_ended(f, e, op, &result);
		return;
	}
	o->on_ended = on_ended;
	o->on_ended_arg = e;
	if (!in_order_submit(f, o, op_ignore_result, NULL, &result))
		on_ended(f, e, op, &result);
}

void held_send(struct fallback_store *f, struct seen_circuit *e)
{
	struct circuit_op held[HELD_KINDS];

	if (e->held_count == 0)
		return;
	memcpy(held, e->held, sizeof(held));
	memset(e->held, 0, sizeof(e->held));
	e->held_count = 0;
	delist(f, e);
	e->held_sending++;
	for (unsigned i = 0; i < HELD_KINDS; i++) {
		if (!held[i].call)
			continue;
		submit_report(f, e, &held[i]);
		store_drop_call(&held[i]);
	}
	e->held_sending--;
	seen_drop_if_idle(f, e);
}

void held_send_before(struct fallback_store *f, const struct store_request *request)
{
	struct seen_circuit *e;

	if (f->seen.pending == 0 || request->op.verb == CIRCUIT_ACQUIRE)
		return;
	e = seen_find(f, request->key, request->key_len);
	if (e)
		held_send(f, e);
}

void held_send_all(struct fallback_store *f)
{
	if (TAILQ_EMPTY(&f->seen.held))
		return;
	f->seen.send_until_ms = clock_ms();
	timer_arm(f->seen.send_timer, 0);
}

void held_send_all_now(struct fallback_store *f)
{
	size_t count = f->seen.table.count;
	struct seen_circuit *e;

	/* A circuit whose successes are held back again at once must not be sent twice. */
	while (count-- > 0 && (e = TAILQ_FIRST(&f->seen.held)) != NULL)
		held_send(f, e);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	int64_t interval_ms = f->store.limits.report_interval_ms;
	int64_t now = clock_ms();
	/* What would be due soon goes together with what is due, in the same call of the script. */
	int64_t since_ms = now - interval_ms / 2;
	unsigned budget = SEND_BUDGET;
	struct seen_circuit *e;

	(void)fd;
	(void)what;
	if (!f->ready && f->refuses)
		return; /* held_send_all sends them when main is back */
	e = TAILQ_FIRST(&f->seen.held);
	if (e && e->held_ms + interval_ms > now)
		since_ms = INT64_MIN;
	if (since_ms < f->seen.send_until_ms)
		since_ms = f->seen.send_until_ms;
	while ((e = TAILQ_FIRST(&f->seen.held)) != NULL && e->held_ms <= since_ms &&
	       f->store.background < BACKGROUND_MAX && budget-- > 0)
		held_send(f, e);
	start_for_first(f);
}

/* --- their end ---------------------------------------------------------------------------- */

static void note_change(struct fallback_store *f, struct seen_circuit *e,
			const struct breaker_answer *answer)
{
	char why[BREAKER_WHY_MAX];

	if (answer->was == answer->state)
		return;
	if (f->metrics)
		f->metrics->transitions[answer->was][answer->state]++;
	if (!log_allows_one(f->log, &f->log_limits[HELD_CHANGED], LOG_LEVEL_INFO, "state_change",
			    LOG_EACH_MS))
		return;
	breaker_why(why, &answer->move);
	log_info(f->log, "state_change", "key=%s from=%s to=%s by=reports why=%s",
		 log_quote(keynode_key(&e->node), e->node.key_len).text,
		 circuit_state_name(answer->was), circuit_state_name(answer->state),
		 log_quote_text(why).text);
}

static void note_lost(struct fallback_store *f, struct seen_circuit *e, uint32_t count,
		      const char *reason)
{
	if (f->metrics)
		f->metrics->reports_lost += count;
	if (!log_allows_one(f->log, &f->log_limits[HELD_LOST], LOG_LEVEL_WARNING, "reports_lost",
			    LOG_EACH_MS))
		return;
	log_warning(f->log, "reports_lost", "key=%s count=%" PRIu32 " reason=%s",
		    log_quote(keynode_key(&e->node), e->node.key_len).text, count,
		    log_quote_text(reason ? reason : "").text);
}

static void on_ended(struct fallback_store *f, struct seen_circuit *e, const struct circuit_op *op,
		     const struct store_result *result)
{
	uint32_t count = op->call->count;

	e->held_sending--;
	seen_wake_readers(f, e);
	switch (result->status) {
	case STORE_OK:
		note_change(f, e, &result->decision);
		break;
	case STORE_UNAVAILABLE:
	case STORE_OVERLOADED:
		/* Main surely did not take them: they are held back again. */
		if (add(f, e, op, count)) {
			timer_start(f, RETRY_MS);
			return;
		}
		note_lost(f, e, count, result->message);
		break;
	default:
		note_lost(f, e, count, result->message);
	}
	f->seen.pending -= count;
	show_pending(f);
	seen_drop_if_idle(f, e);
}

/* --- beginning and end -------------------------------------------------------------------- */

int held_init(struct fallback_store *f)
{
	TAILQ_INIT(&f->seen.held);
	f->seen.send_timer = evtimer_new(f->store.base, on_timer, f);
	return f->seen.send_timer ? 0 : -1;
}

/* The end of the store: what is still held back is lost. */
static void log_lost(struct fallback_store *f)
{
	if (f->seen.pending == 0)
		return;
	if (f->metrics)
		f->metrics->reports_lost += f->seen.pending;
	log_warning(f->log, "reports_lost", "count=%" PRIu64 " reason=%s", f->seen.pending,
		    "\"stopped before Redis had them\"");
}

static void drop_calls(struct seen_circuit *e)
{
	for (unsigned i = 0; i < HELD_KINDS; i++)
		store_drop_call(&e->held[i]);
}

void held_fini(struct fallback_store *f)
{
	log_lost(f);
	for (size_t i = 0; i < f->seen.table.slot_count; i++) {
		struct seen_circuit *e = (struct seen_circuit *)keytable_slot(&f->seen.table, i);

		if (e)
			drop_calls(e);
	}
	if (f->seen.send_timer)
		event_free(f->seen.send_timer);
}
