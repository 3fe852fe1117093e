#include "store/circuit_queue.h"

#include <string.h>

int circuit_queues_init(struct circuit_queues *all)
{
	memset(all, 0, sizeof(*all));
	TAILQ_INIT(&all->ready);
	TAILQ_INIT(&all->refused);
	return keytable_init(&all->table);
}

void circuit_queues_fini(struct circuit_queues *all)
{
	keytable_fini(&all->table);
}

void circuit_queues_clear(struct circuit_queues *all)
{
	for (size_t i = 0; i < all->table.slot_count; i++) {
		struct circuit_queue *q = (struct circuit_queue *)keytable_slot(&all->table, i);

		if (q)
			circuit_queue_remove(q);
	}
}

void circuit_queues_fold(struct circuit_queues *all)
{
	all->folding = true;
	all->mark++;
}

static size_t mark_list(const struct queue_list_head *list, size_t most)
{
	struct circuit_queue *q;

	TAILQ_FOREACH (q, list, entry) {
		if (circuit_queue_is_marked(q))
			continue;
		if (most == 0)
			break;
		q->mark = q->all->mark;
		most--;
	}
	return most;
}

void circuit_queues_mark(struct circuit_queues *all, size_t most)
{
	mark_list(&all->refused, mark_list(&all->ready, most));
}

struct circuit_queue *circuit_queue_find(struct circuit_queues *all, const char *key, size_t len)
{
	if (all->table.count == 0)
		return NULL;
	return (struct circuit_queue *)keytable_find(&all->table, key, len);
}

static void before_set(struct circuit_queue *q, enum circuit_fold_known known,
		       const struct circuit *circuit)
{
	q->before.known = known;
	q->before.exists = circuit != NULL;
	if (circuit)
		q->before.circuit = *circuit;
}

static void step_begin(struct queue_step *step, const struct circuit *seen)
{
	memset(step, 0, sizeof(*step));
	circuit_fold_begin(&step->fold, seen);
}

struct circuit_queue *circuit_queue_get(struct circuit_queues *all, const char *key, size_t len,
					const struct circuit *seen, size_t max)
{
	struct circuit_queue *q = circuit_queue_find(all, key, len);

	if (q || all->table.count >= max)
		return q;
	q = (struct circuit_queue *)keytable_add(&all->table, sizeof(*q), key, len);
	if (!q)
		return NULL;
	q->all = all;
	q->mark = all->folding ? all->mark : 0;
	TAILQ_INIT(&q->ops);
	step_begin(&q->next, seen);
	before_set(q, seen ? CIRCUIT_FOLD_SEEN : CIRCUIT_FOLD_UNASKED, seen);
	return q;
}

void circuit_queue_remove(struct circuit_queue *q)
{
	circuit_queue_unwait(q);
	keytable_remove(&q->all->table, &q->node);
}

void circuit_queue_unwait(struct circuit_queue *q)
{
	if (q->list == QUEUE_IN_READY)
		TAILQ_REMOVE(&q->all->ready, q, entry);
	if (q->list == QUEUE_IN_REFUSED) {
		TAILQ_REMOVE(&q->all->refused, q, entry);
		q->all->refused_count--;
	}
	q->list = QUEUE_IN_NONE;
}

void circuit_queue_wait(struct circuit_queue *q, enum queue_list list)
{
	struct queue_list_head *head = list == QUEUE_IN_READY ? &q->all->ready : &q->all->refused;

	circuit_queue_unwait(q);
	if (TAILQ_EMPTY(&q->ops))
		TAILQ_INSERT_TAIL(head, q, entry);
	else
		TAILQ_INSERT_HEAD(head, q, entry);
	q->list = list;
	q->all->refused_count += list == QUEUE_IN_REFUSED;
}

bool circuit_queue_has_steps(const struct circuit_queue *q)
{
	return q->phase == QUEUE_SENT || q->in_doubt || !circuit_fold_empty(&q->next.fold);
}

static void restamp(struct queue_step *step, int64_t offset_ms)
{
	circuit_fold_shift(&step->fold, offset_ms - step->offset_ms);
	step->offset_ms = offset_ms;
}

void circuit_queue_note(struct circuit_queue *q, const struct circuit_op *op,
			enum circuit_effect effect, int64_t now_ms, int64_t offset_ms)
{
	restamp(&q->next, offset_ms);
	circuit_fold_note(&q->next.fold, op, effect, now_ms);
	q->next.operations++;
	q->all->changes++;
}

void circuit_queue_check(struct circuit_queue *q)
{
	q->check = true;
	if (circuit_queue_has_steps(q))
		return;
	step_begin(&q->next, NULL);
	before_set(q, CIRCUIT_FOLD_UNASKED, NULL);
}

void circuit_queue_note_decision(struct circuit_queue *q, const struct circuit_op *op,
				 const struct breaker_answer *answer, int64_t now_ms,
				 int64_t offset_ms)
{
	const struct circuit_op move = {.verb = CIRCUIT_TRANSITION, .to = answer->state};
	struct circuit_op record = {.verb = CIRCUIT_RECORD_SUCCESS};

	if (op->verb == CIRCUIT_REPORT && op->call->outcome == BREAKER_FAILURE)
		record.verb = CIRCUIT_RECORD_FAILURE;
	for (uint32_t i = 0; i < answer->counted; i++)
		circuit_queue_note(q, &record, CIRCUIT_WRITTEN, now_ms, offset_ms);
	if (answer->was != answer->state)
		circuit_queue_note(q, &move, CIRCUIT_WRITTEN, now_ms, offset_ms);
}

void circuit_queue_seen(struct circuit_queue *q, const struct circuit *circuit)
{
	step_begin(&q->next, circuit);
	before_set(q, CIRCUIT_FOLD_SEEN, circuit);
}

void circuit_queue_send(struct circuit_queue *q, int64_t offset_ms, int64_t now_ms,
			const struct circuit *before)
{
	restamp(&q->next, offset_ms);
	circuit_fold_clamp(&q->next.fold, now_ms);
	q->sent = q->next;
	before_set(q, CIRCUIT_FOLD_ASKED, before);
	/* The circuit behind `sent` has not been seen in main. */
	step_begin(&q->next, NULL);
	q->all->changes++;
}

uint64_t circuit_queue_sent_taken(struct circuit_queue *q)
{
	uint64_t operations = q->sent.operations;

	q->in_doubt = false;
	q->sent.operations = 0;
	q->all->changes++;
	return operations;
}

void circuit_queue_sent_refused(struct circuit_queue *q)
{
	restamp(&q->sent, q->next.operations ? q->next.offset_ms : q->sent.offset_ms);
	circuit_fold_append(&q->sent.fold, &q->next.fold);
	q->sent.operations += q->next.operations;
	q->next = q->sent;
	q->sent.operations = 0;
	q->in_doubt = false;
	q->all->changes++;
}

void circuit_queue_sent_unknown(struct circuit_queue *q)
{
	q->in_doubt = true;
	q->all->changes++;
}

enum circuit_fold_trace circuit_queue_resolve(struct circuit_queue *q, const struct circuit *now,
					      uint64_t *operations)
{
	enum circuit_fold_trace trace =
		circuit_fold_trace(&q->sent.fold, q->before.known,
				   q->before.exists ? &q->before.circuit : NULL, now);

	*operations = q->sent.operations;
	if (trace == CIRCUIT_FOLD_NOT_TAKEN)
		circuit_queue_sent_refused(q);
	else
		circuit_queue_sent_taken(q);
	return trace;
}

uint64_t circuit_queue_drop_steps(struct circuit_queue *q)
{
	uint64_t operations = q->next.operations + q->sent.operations;

	q->sent.operations = 0;
	q->in_doubt = false;
	step_begin(&q->next, NULL);
	q->all->changes++;
	return operations;
}
