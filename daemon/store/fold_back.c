/*
 * Takes the steps of the circuit queues to main. For each queue, one thing at a time: main is
 * asked for the circuit; that decides what became of a step in doubt; then the step of what was
 * done since goes out. When all are settled, the operations that waited behind them are passed on,
 * and the queue is gone. A step that was handed over is sent again only if it surely was not taken.
 * Where that cannot be told, it is lost, which is counted and logged.
 */
#include "base/metrics.h"
#include "base/timer.h"
#include "store/fallback_private.h"

#include <inttypes.h>
#include <string.h>

/* The pause after main refused a step (out of memory, no permission). */
#define FOLD_RETRY_MS 1000
/* The least time between two lines of one kind: there may be many circuits. */
#define FOLD_LOG_EACH_MS 15000
/* How long a save of the marks may take. Then steps are handed over without it. */
#define SAVE_WAIT_MS 2000
/* Circuits are marked in parts of 1/MARK_PART of those that wait, but at least FOLDS_IN_FLIGHT. A
 * crash leaves at most one part in doubt, and the file is written once for each part. */
#define MARK_PART 8
/* At most this many operations of one queue are passed on in one turn of the loop. */
#define PASS_ON_BUDGET 256

static struct fallback_store *store_of(const struct circuit_queue *q)
{
	return (struct fallback_store *)((char *)q->all - offsetof(struct fallback_store, queues));
}

/* --- logs and metrics --------------------------------------------------------------------- */

static void log_step(struct fallback_store *f, enum fold_line line, const struct circuit_queue *q,
		     const char *reason)
{
	const char *token = line == FOLD_LOST ? "fold_lost" : "fold_refused";

	if (!log_allows_one(f->log, &f->log_limits[line], LOG_LEVEL_WARNING, token,
			    FOLD_LOG_EACH_MS))
		return;
	if (!reason)
		reason = "";
	log_warning(f->log, token, "key=%s reason=%s waiting=%zu lost=%" PRIu64,
		    log_quote(keynode_key(&q->node), q->node.key_len).text,
		    log_quote_text(reason).text, circuit_queues_count(&f->queues),
		    f->metrics ? f->metrics->folds_lost : 0);
}

static void count_lost(struct fallback_store *f, const struct circuit_queue *q, uint64_t operations,
		       const char *reason)
{
	if (f->metrics) {
		f->metrics->folds_lost++;
		f->metrics->folded_operations_lost += operations;
	}
	log_step(f, FOLD_LOST, q, reason);
}

static void count_taken(struct fallback_store *f, uint64_t operations)
{
	if (f->metrics) {
		f->metrics->folds++;
		f->metrics->folded_operations += operations;
	}
}

/* --- one queue ---------------------------------------------------------------------------- */

/* Main has room again: the next queues get their turn. */
static void go_on(struct fallback_store *f)
{
	if (f->ready && (!TAILQ_EMPTY(&f->queues.ready) || f->retries > 0))
		fold_timer_add(f->fold_timer, 0);
}

/* The queue has nothing under way in main any more. */
static void main_is_done(struct fallback_store *f, struct circuit_queue *q)
{
	q->phase = QUEUE_WAITS;
	q->op = NULL;
	f->folds_in_flight--;
}

static void pass_on(struct fallback_store *f, struct circuit_queue *q)
{
	struct fallback_op *o;
	unsigned budget = PASS_ON_BUDGET;

	/* An operation that main refuses at once becomes a step, and those after it then wait. */
	while (f->ready && !circuit_queue_has_steps(q) && !q->check && budget-- > 0 &&
	       (o = TAILQ_FIRST(&q->ops)) != NULL)
		op_pass_on(f, o);
	if (TAILQ_EMPTY(&q->ops) && !circuit_queue_has_steps(q) && !q->check) {
		circuit_queue_remove(q);
		fold_count_waiting(f);
		go_on(f);
	} else {
		fold_wait_for_turn(f, q, 0);
	}
}

/* No step is left, and main has the circuit as the result says. */
static void settle(struct fallback_store *f, struct circuit_queue *q,
		   const struct store_result *result)
{
	const struct circuit *circuit = result->absent ? NULL : &result->circuit;

	q->check = false;
	circuit_queue_seen(q, circuit);
	seen_remember(f, keynode_key(&q->node), q->node.key_len, circuit, result->breaker);
	pass_on(f, q);
}

/* True for a refusal that another try does not change: the key holds a value that is not ours to
 * change. */
static bool is_final(const char *message)
{
	return message &&
	       (strncmp(message, "WRONGTYPE ", 10) == 0 || strncmp(message, "TOOLARGE ", 9) == 0);
}

/*
 * Main is there and has refused a read (`reads_too`) or the step. Operations that wait get this
 * error; but if only the step was refused, reads are answered here, where they see what the step
 * did.
 */
static void refused(struct fallback_store *f, struct circuit_queue *q, const char *message,
		    bool reads_too)
{
	unsigned count = q->op_count;
	struct fallback_op *o;

	if (is_final(message)) {
		count_lost(f, q, circuit_queue_drop_steps(q), message);
		q->check = false;
		pass_on(f, q);
		return;
	}
	log_step(f, FOLD_REFUSED, q, message);
	circuit_queue_wait(q, QUEUE_IN_REFUSED);
	fold_timer_add(f->retry_timer, FOLD_RETRY_MS);
	while (count-- > 0 && (o = TAILQ_FIRST(&q->ops)) != NULL) {
		if (reads_too || circuit_verb_writes(o->operation.verb))
			op_refuse(f, o, message);
		else
			op_answer_here(f, o);
	}
	go_on(f);
}

/*
 * True if the circuit must be marked in the file before its step is handed over. The next start
 * takes the steps of marked circuits as in doubt, so that none is folded twice if this process
 * crashes. The circuits are marked in parts, as their turn comes: those not marked are not in
 * doubt.
 */
static bool needs_mark(const struct fallback_store *f, const struct circuit_queue *q)
{
	return store_memory_keeps(f->local) && !circuit_queue_is_marked(q);
}

static void send_step(struct fallback_store *f, struct circuit_queue *q,
		      const struct circuit *before);

static void on_folded(void *arg, struct store_result *result)
{
	struct circuit_queue *q = arg;
	struct fallback_store *f = store_of(q);
	const struct circuit *circuit = result->absent ? NULL : &result->circuit;

	main_is_done(f, q);
	switch (result->status) {
	case STORE_OK:
		count_taken(f, circuit_queue_sent_taken(q));
		if (circuit_queue_has_steps(q))
			send_step(f, q, circuit);
		else
			settle(f, q, result);
		break;
	case STORE_UNAVAILABLE:
	case STORE_OVERLOADED:
		circuit_queue_sent_refused(q);
		fold_wait_for_turn(f, q, FOLD_PAUSE_MS);
		break;
	case STORE_UNKNOWN:
	case STORE_TIMEOUT:
		circuit_queue_sent_unknown(q);
		fold_wait_for_turn(f, q, FOLD_PAUSE_MS);
		break;
	default:
		circuit_queue_sent_refused(q);
		refused(f, q, result->message, false);
	}
}

/* Main has *before. An answer at once is a refusal: the step surely was not taken. */
static void send_step(struct fallback_store *f, struct circuit_queue *q,
		      const struct circuit *before)
{
	struct store_result result;

	if (needs_mark(f, q)) { /* main went away and came back during the read */
		fold_wait_for_turn(f, q, 0);
		return;
	}
	circuit_queue_send(q, f->clock.offset_ms, clock_offset_now(&f->clock), before);
	q->phase = QUEUE_SENT;
	f->folds_in_flight++;
	q->op = f->main->driver->fold(f->main, keynode_key(&q->node), q->node.key_len,
				      &q->sent.fold, on_folded, q, &result);
	if (q->op)
		return;
	main_is_done(f, q);
	circuit_queue_sent_refused(q);
	fold_wait_for_turn(f, q, FOLD_PAUSE_MS);
}

/* Main has this circuit (NULL: none), which decides what became of the step in doubt. */
static void resolve_doubt(struct fallback_store *f, struct circuit_queue *q,
			  const struct circuit *circuit)
{
	uint64_t operations;

	switch (circuit_queue_resolve(q, circuit, &operations)) {
	case CIRCUIT_FOLD_TAKEN:
		count_taken(f, operations);
		break;
	case CIRCUIT_FOLD_NOT_TAKEN:
		break;
	case CIRCUIT_FOLD_UNSURE:
		count_lost(f, q, operations, "it may have been taken, and is not taken twice");
		break;
	}
}

static void on_asked(void *arg, struct store_result *result)
{
	struct circuit_queue *q = arg;
	struct fallback_store *f = store_of(q);
	const struct circuit *circuit = result->absent ? NULL : &result->circuit;

	main_is_done(f, q);
	if (result->status == STORE_OK && result->overtaken)
		result->status = STORE_UNAVAILABLE; /* a write is on its way: main is asked again */
	switch (result->status) {
	case STORE_OK:
		if (q->in_doubt)
			resolve_doubt(f, q, circuit);
		if (circuit_queue_has_steps(q))
			send_step(f, q, circuit);
		else
			settle(f, q, result);
		break;
	case STORE_UNAVAILABLE:
	case STORE_OVERLOADED:
	case STORE_UNKNOWN:
	case STORE_TIMEOUT:
		fold_wait_for_turn(f, q, FOLD_PAUSE_MS);
		break;
	default:
		refused(f, q, result->message, true);
	}
}

/*
 * Operations that went straight to main before the circuit had a queue may still wait there: the
 * step must come behind them. An answer at once is a refusal. It ends no operation that waits: the
 * caller may be submitting one.
 */
static void ask(struct fallback_store *f, struct circuit_queue *q)
{
	struct store_request get = {
		.key = keynode_key(&q->node),
		.key_len = q->node.key_len,
		.op = {.verb = CIRCUIT_GET_STATE},
		.must_be_last = true,
	};
	struct store_result result;

	circuit_queue_unwait(q);
	q->phase = QUEUE_ASKING;
	f->folds_in_flight++;
	q->op = store_submit(f->main, &get, on_asked, q, &result);
	if (q->op)
		return;
	main_is_done(f, q);
	fold_wait_for_turn(f, q, FOLD_PAUSE_MS);
}

/* --- marks ---------------------------------------------------------------------------------- */

static void on_saved(void *arg)
{
	struct fallback_store *f = arg;

	if (!f->awaits_save)
		return;
	f->awaits_save = false;
	evtimer_del(f->save_timer);
	go_on(f);
}

static void mark_more(struct fallback_store *f)
{
	size_t part = circuit_queues_count(&f->queues) / MARK_PART;

	circuit_queues_mark(&f->queues, part > FOLDS_IN_FLIGHT ? part : FOLDS_IN_FLIGHT);
	f->awaits_save = true;
	timer_arm(f->save_timer, SAVE_WAIT_MS);
	store_memory_save(f->local, on_saved, f);
}

/* The disk hangs. Redis shall get the steps all the same, so all queues count as marked. */
static void on_save_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;

	(void)fd;
	(void)what;
	log_warning(f->log, "fold_unsaved",
		    "hint=\"state_file cannot be written in time; a crash now could fold twice\"");
	circuit_queues_mark(&f->queues, SIZE_MAX);
	on_saved(f);
}

/* --- all queues --------------------------------------------------------------------------- */

static struct circuit_queue *next_in_turn(struct fallback_store *f)
{
	struct circuit_queue *q = TAILQ_FIRST(&f->queues.ready);

	if (q || f->retries == 0)
		return q;
	q = TAILQ_FIRST(&f->queues.refused);
	f->retries = q ? f->retries - 1 : 0;
	return q;
}

static void on_fold_timer(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	struct circuit_queue *q;
	/* A queue that is refused at once goes to the end of the list, so the loop needs a bound.
	 */
	unsigned most = FOLDS_IN_FLIGHT;

	(void)fd;
	(void)what;
	while (f->ready && !f->awaits_save && most-- > 0 && f->folds_in_flight < FOLDS_IN_FLIGHT &&
	       (q = next_in_turn(f)) != NULL) {
		if (needs_mark(f, q)) {
			f->retries += q->list == QUEUE_IN_REFUSED;
			mark_more(f);
		} else if (circuit_queue_has_steps(q) || q->check)
			ask(f, q);
		else
			pass_on(f, q);
	}
}

static void on_retry_timer(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;

	(void)fd;
	(void)what;
	f->retries = f->queues.refused_count;
	fold_timer_add(f->fold_timer, 0);
}

void fold_back_now(struct fallback_store *f, struct circuit_queue *q)
{
	if (!f->ready || q->phase != QUEUE_WAITS)
		return;
	if (needs_mark(f, q))
		fold_wait_for_turn(f, q, 0); /* at the head of the list: an operation waits */
	else if (f->awaits_save)
		return;
	else if (circuit_queue_has_steps(q) || q->check)
		ask(f, q);
}

void fold_back_restored(struct fallback_store *f)
{
	size_t count = circuit_queues_count(&f->queues);

	f->told_changes = f->queues.changes;
	fold_count_waiting(f);
	if (count)
		log_info(f->log, "steps_restored", "circuits=%zu", count);
}

/* --- main comes and goes ------------------------------------------------------------------- */

void fold_back_begin(struct fallback_store *f)
{
	f->retries = f->queues.refused_count;
	f->folding = circuit_queues_count(&f->queues) > 0;
	circuit_queues_fold(&f->queues);
	if (!f->folding)
		return;
	if (log_allows(f->log, &f->log_limits[FOLD_BEGUN], LOG_LEVEL_INFO, "folding"))
		log_info(f->log, "folding", "circuits=%zu", circuit_queues_count(&f->queues));
	go_on(f);
}

void fold_back_stop(struct fallback_store *f)
{
	evtimer_del(f->fold_timer);
	evtimer_del(f->retry_timer);
	evtimer_del(f->save_timer);
	f->awaits_save = false;
	f->queues.folding = false;
	f->queues.changes++;
	fold_count_waiting(f);
}

int fold_back_init(struct fallback_store *f)
{
	f->fold_timer = evtimer_new(f->store.base, on_fold_timer, f);
	f->retry_timer = evtimer_new(f->store.base, on_retry_timer, f);
	f->save_timer = evtimer_new(f->store.base, on_save_timeout, f);
	if (!f->fold_timer || !f->retry_timer || !f->save_timer)
		return -1;
	return circuit_queues_init(&f->queues);
}

void fold_back_end(struct fallback_store *f)
{
	size_t circuits = 0;
	uint64_t operations = 0;
	bool keeps = store_memory_keeps(f->local);

	for (size_t i = 0; i < f->queues.table.slot_count; i++) {
		struct circuit_queue *q =
			(struct circuit_queue *)keytable_slot(&f->queues.table, i);

		if (!q)
			continue;
		if (q->op)
			store_cancel(q->op);
		if (q->phase == QUEUE_SENT)
			circuit_queue_sent_unknown(q);
		q->phase = QUEUE_WAITS;
		circuits += circuit_queue_has_steps(q);
		operations += q->next.operations + q->sent.operations;
	}
	/* Nothing goes out any more: the last save needs no marks. */
	f->queues.folding = false;
	if (circuits)
		store_memory_changed(f->local);
	if (keeps && store_memory_keep_end(f->local, f->store.end_ms) && circuits)
		log_info(f->log, "folds_kept", "circuits=%zu operations=%" PRIu64, circuits,
			 operations);
	else if (circuits)
		log_warning(f->log, "folds_dropped",
			    "circuits=%zu operations=%" PRIu64
			    " reason=\"stopped before Redis had them\"",
			    circuits, operations);
}

void fold_back_fini(struct fallback_store *f)
{
	circuit_queues_fini(&f->queues);
	if (f->fold_timer)
		event_free(f->fold_timer);
	if (f->retry_timer)
		event_free(f->retry_timer);
	if (f->save_timer)
		event_free(f->save_timer);
}
