/*
 * Takes the steps of the circuit queues to main. For each queue, one thing at a time: main is
 * asked for the circuit; a step in doubt is judged by it; then the step of what was done since
 * goes out. When all are settled, the operations that waited behind them are passed on, and
 * the queue is gone. A step that was handed over never goes again, unless it surely was not
 * taken: where that cannot be told, it is lost, and that is counted and said.
 */
#include "base/metrics.h"
#include "base/timer.h"
#include "store/fallback_private.h"

#include <inttypes.h>
#include <string.h>

/* The pause before a step is tried again that main refused (out of memory, no permission). */
#define FOLD_RETRY_MS 1000
/* The least time between two lines of one kind: there may be many circuits. */
#define FOLD_LOG_EACH_MS 15000
/* How long the file may take to say that steps are being handed over, before they are. */
#define HOLD_MS 2000
/* Circuits are marked in parts of 1/MARK_PART of those that wait, FOLDS_IN_FLIGHT at least. A crash
 * leaves at most one part in doubt, and the file is written once a part. */
#define MARK_PART 8
/* Operations of one queue that are passed on in one turn of the loop. */
#define PASS_ON_BUDGET 256

static struct fallback_store *store_of(const struct circuit_queue *q)
{
	return (struct fallback_store *)((char *)q->all - offsetof(struct fallback_store, queues));
}

/* --- what is said of it ------------------------------------------------------------------- */

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
		fold_timer_add(f->turn, 0);
}

/* Main has nothing of the queue any more. */
static void main_is_done(struct fallback_store *f, struct circuit_queue *q)
{
	q->phase = QUEUE_WAITS;
	q->op = NULL;
	f->busy--;
}

static void pass_on(struct fallback_store *f, struct circuit_queue *q)
{
	struct fallback_op *o;
	unsigned budget = PASS_ON_BUDGET;

	/* An operation that main refuses at once becomes a step, and the others then wait for it.
	 */
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

/* No step is left: main has what the result says. */
static void settle(struct fallback_store *f, struct circuit_queue *q,
		   const struct store_result *result)
{
	const struct circuit *circuit = result->absent ? NULL : &result->circuit;

	q->check = false;
	circuit_queue_seen(q, circuit);
	seen_remember(f, keynode_key(&q->node), q->node.key_len, circuit, result->breaker);
	pass_on(f, q);
}

/* True for a refusal that stands however often main is asked: what is at the key is none of ours
 * to change. */
static bool is_final(const char *message)
{
	return message &&
	       (strncmp(message, "WRONGTYPE ", 10) == 0 || strncmp(message, "TOOLARGE ", 9) == 0);
}

/*
 * Main is there and has refused to be asked, or to take the step. Whoever waits behind it is
 * told so; but what the step holds can be read here, if main would have let it be read.
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
	fold_timer_add(f->retry, FOLD_RETRY_MS);
	while (count-- > 0 && (o = TAILQ_FIRST(&q->ops)) != NULL) {
		if (reads_too || circuit_verb_writes(o->what.verb))
			op_refuse(f, o, message);
		else
			op_answer_here(f, o);
	}
	go_on(f);
}

/*
 * A step that the file has is folded once, whatever becomes of this process: before it is handed
 * over, its circuit is marked in the file, and a next start takes what is marked as in doubt. The
 * circuits are marked in parts, as their turn comes: what is not marked is not in doubt.
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

	if (needs_mark(f, q)) { /* main went and came while it was asked */
		fold_wait_for_turn(f, q, 0);
		return;
	}
	circuit_queue_send(q, f->clock.offset_ms, clock_offset_now(&f->clock), before);
	q->phase = QUEUE_SENT;
	f->busy++;
	q->op = f->main->driver->fold(f->main, keynode_key(&q->node), q->node.key_len,
				      &q->sent.fold, on_folded, q, &result);
	if (q->op)
		return;
	main_is_done(f, q);
	circuit_queue_sent_refused(q);
	fold_wait_for_turn(f, q, FOLD_PAUSE_MS);
}

/* Main has this circuit (NULL: none): it tells of the step in doubt. */
static void judge(struct fallback_store *f, struct circuit_queue *q, const struct circuit *circuit)
{
	uint64_t operations;

	switch (circuit_queue_judge(q, circuit, &operations)) {
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
		result->status = STORE_UNAVAILABLE; /* older than an answer: main is asked again */
	switch (result->status) {
	case STORE_OK:
		if (q->in_doubt)
			judge(f, q, circuit);
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

/* An answer at once is a refusal. It ends no operation: one of them may just be coming. */
static void ask(struct fallback_store *f, struct circuit_queue *q)
{
	struct store_request get = {
		.key = keynode_key(&q->node),
		.key_len = q->node.key_len,
		.op = {.verb = CIRCUIT_GET_STATE},
	};
	struct store_result result;

	circuit_queue_unwait(q);
	q->phase = QUEUE_ASKING;
	f->busy++;
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

	if (!f->held)
		return;
	f->held = false;
	evtimer_del(f->hold);
	go_on(f);
}

static void mark_more(struct fallback_store *f)
{
	size_t part = circuit_queues_count(&f->queues) / MARK_PART;

	circuit_queues_mark(&f->queues, part > FOLDS_IN_FLIGHT ? part : FOLDS_IN_FLIGHT);
	f->held = true;
	timer_arm(f->hold, HOLD_MS);
	store_memory_save(f->local, on_saved, f);
}

/* A disk that hangs is no reason to keep from Redis what it should have: all counts as marked. */
static void on_hold_over(evutil_socket_t fd, short what, void *arg)
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

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;
	struct circuit_queue *q;
	/* A queue that is refused at once goes to the end of the list: at most this many a turn. */
	unsigned most = FOLDS_IN_FLIGHT;

	(void)fd;
	(void)what;
	while (f->ready && !f->held && most-- > 0 && f->busy < FOLDS_IN_FLIGHT &&
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

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	struct fallback_store *f = arg;

	(void)fd;
	(void)what;
	f->retries = f->queues.refused_count;
	fold_timer_add(f->turn, 0);
}

void fold_back_now(struct fallback_store *f, struct circuit_queue *q)
{
	if (!f->ready || q->phase != QUEUE_WAITS)
		return;
	if (needs_mark(f, q))
		fold_wait_for_turn(f, q, 0); /* among the first: somebody waits */
	else if (f->held)
		return;
	else if (circuit_queue_has_steps(q) || q->check)
		ask(f, q);
}

void fold_back_restored(struct fallback_store *f)
{
	size_t count = circuit_queues_count(&f->queues);

	f->told = f->queues.changes;
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
	log_info(f->log, "folding", "circuits=%zu", circuit_queues_count(&f->queues));
	go_on(f);
}

void fold_back_stop(struct fallback_store *f)
{
	evtimer_del(f->turn);
	evtimer_del(f->retry);
	evtimer_del(f->hold);
	f->held = false;
	f->queues.folding = false;
	f->queues.changes++;
	fold_count_waiting(f);
}

int fold_back_init(struct fallback_store *f)
{
	f->turn = evtimer_new(f->store.base, on_turn, f);
	f->retry = evtimer_new(f->store.base, on_retry, f);
	f->hold = evtimer_new(f->store.base, on_hold_over, f);
	if (!f->turn || !f->retry || !f->hold)
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
	/* Nothing goes out any more: what the last save says is exact. */
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
	if (f->turn)
		event_free(f->turn);
	if (f->retry)
		event_free(f->retry);
	if (f->hold)
		event_free(f->hold);
}
