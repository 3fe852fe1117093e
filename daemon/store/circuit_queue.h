/*
 * The order of one circuit that cannot simply be passed on to main: one queue a circuit, in a table
 * by key. Its entries, in the order in which they go to main:
 *
 *	sent   a step that was handed over: main has it, or it is in doubt (no answer came)
 *	next   the step of what was answered here since: each further operation that is
 *	       answered here becomes part of it
 *	ops    operations that wait, unanswered, in the order in which they came
 *
 * Nothing behind `sent` goes to main before it is known what became of `sent`; nothing behind
 * `next` before `next` is settled. A queue that has nothing left is removed, and operations on the
 * circuit pass straight to main again.
 *
 * This keeps the order and does no I/O: fold_back.c talks to main, fallback_op.c answers
 * operations. The queue does not look into operations: what one did is in its step
 * (circuit_fold.h).
 */
#ifndef BREAKERD_CIRCUIT_QUEUE_H
#define BREAKERD_CIRCUIT_QUEUE_H

#include "base/keytable.h"
#include "proto/breaker.h"
#include "proto/circuit_fold.h"

#include <sys/queue.h>

struct fallback_op;
struct store_op;

/* Operations answered here, as one step to be taken on main. */
struct queue_step {
	struct circuit_fold fold;
	uint64_t operations; /* in it */
	int64_t offset_ms;   /* the offset to main's clock that is in the stamps of fold */
};

/* The circuit as main had it before the step `sent`; if there is no such step, as it was last seen
 * there. */
struct queue_before {
	enum circuit_fold_known known;
	bool exists;
	struct circuit circuit; /* if it exists */
};

enum queue_phase {
	QUEUE_WAITS,  /* nothing of it is under way in main */
	QUEUE_ASKING, /* main is asked for the circuit */
	QUEUE_SENT,   /* main has the step `sent` */
};

/* The list in which it waits for its turn. */
enum queue_list { QUEUE_IN_NONE, QUEUE_IN_READY, QUEUE_IN_REFUSED };

struct circuit_queue {
	struct keynode node;
	TAILQ_ENTRY(circuit_queue) entry;
	enum queue_list list;
	enum queue_phase phase;
	struct circuit_queues *all;
	struct store_op *op; /* in main, while the phase is QUEUE_ASKING or QUEUE_SENT */
	bool in_doubt;       /* sent was handed over, and no answer came */
	bool check;          /* an operation is in doubt: main is to be asked for the circuit */
	uint64_t mark;       /* for circuit_queue_is_marked */
	struct queue_step sent;
	struct queue_before before;
	struct queue_step next;
	TAILQ_HEAD(queue_ops, fallback_op) ops;
	unsigned op_count;
};
TAILQ_HEAD(queue_list_head, circuit_queue);

struct circuit_queues {
	struct keytable table;
	struct queue_list_head ready;   /* those that wait for their turn */
	struct queue_list_head refused; /* those that wait because main refused the last try */
	size_t refused_count;
	uint64_t changes; /* counts changes of steps, for the state file */
	bool folding;     /* steps are being handed over */
	uint64_t mark;    /* the number of this folding: a new one begins with no queue marked */
};

/* 0, or -1 when out of memory. fini frees the queues, and is allowed after a failed init. */
int circuit_queues_init(struct circuit_queues *all);
void circuit_queues_fini(struct circuit_queues *all);

/* A folding begins: steps are handed over from now on. Queues made from now on are marked. */
void circuit_queues_fold(struct circuit_queues *all);

/* Marked: its steps may be handed over at any time, so a restart takes those in the file as in
 * doubt. Not marked: its steps were not handed over, and a restart can fold them as the file has
 * them. */
static inline bool circuit_queue_is_marked(const struct circuit_queue *q)
{
	return q->all->folding && q->mark == q->all->mark;
}

/* Marks up to `most` of the waiting queues that are not marked yet, in the order of their turns. */
void circuit_queues_mark(struct circuit_queues *all, size_t most);

/* Removes all queues. They must have no ops, and nothing under way in main. */
void circuit_queues_clear(struct circuit_queues *all);

static inline size_t circuit_queues_count(const struct circuit_queues *all)
{
	return all->table.count;
}

/* NULL: the circuit has no queue. Costs nothing while there are no queues at all. */
struct circuit_queue *circuit_queue_find(struct circuit_queues *all, const char *key, size_t len);

/* The circuit's queue, made if need be: main last had the circuit as *seen (NULL: main had no such
 * circuit, or it was never seen). NULL if there are `max` queues already, or when out of memory. */
struct circuit_queue *circuit_queue_get(struct circuit_queues *all, const char *key, size_t len,
					const struct circuit *seen, size_t max);

/* Takes the queue out of the table and frees it. It must have no ops, and nothing under way in
 * main. */
void circuit_queue_remove(struct circuit_queue *q);

/* Puts the queue into a list to wait for its turn: at the head if operations wait in it. */
void circuit_queue_wait(struct circuit_queue *q, enum queue_list list);

/* Takes the queue out of its list, if it is in one. */
void circuit_queue_unwait(struct circuit_queue *q);

/* True if there is a step, sent or not, that is not settled. */
bool circuit_queue_has_steps(const struct circuit_queue *q);

/* An operation was answered here, with this effect: adds it to `next`. now_ms is on main's clock,
 * as offset_ms has it. */
void circuit_queue_note(struct circuit_queue *q, const struct circuit_op *op,
			enum circuit_effect effect, int64_t now_ms, int64_t offset_ms);

/* It is unknown whether main has done an operation, so what was last seen of the circuit is no
 * state for `next` to begin with. Main is to be asked for the circuit. */
void circuit_queue_check(struct circuit_queue *q);

/* A decision was made here: adds the operations that it came to, as circuit_queue_note. */
void circuit_queue_note_decision(struct circuit_queue *q, const struct circuit_op *op,
				 const struct breaker_answer *answer, int64_t now_ms,
				 int64_t offset_ms);

/* Main has answered with the circuit (NULL: there is none): `next` begins with that. For a queue
 * without steps. */
void circuit_queue_seen(struct circuit_queue *q, const struct circuit *circuit);

/* `next` becomes `sent`. Its stamps are moved to this offset, none later than now_ms. Main has
 * *before (NULL: no circuit) just before the step. */
void circuit_queue_send(struct circuit_queue *q, int64_t offset_ms, int64_t now_ms,
			const struct circuit *before);

/* Main has taken `sent`. Returns how many operations were in it. */
uint64_t circuit_queue_sent_taken(struct circuit_queue *q);

/* Main surely has not taken `sent`: it becomes the first part of `next`. */
void circuit_queue_sent_refused(struct circuit_queue *q);

/* No answer came to `sent`: it is in doubt. */
void circuit_queue_sent_unknown(struct circuit_queue *q);

/* Decides by the circuit that main has now (NULL: none) what became of the step in doubt: TAKEN;
 * NOT_TAKEN, and it goes again; or UNSURE, and it is given up. *operations: how many were in it. */
enum circuit_fold_trace circuit_queue_resolve(struct circuit_queue *q, const struct circuit *now,
					      uint64_t *operations);

/* Gives up all steps. Returns how many operations were in them. */
uint64_t circuit_queue_drop_steps(struct circuit_queue *q);

#endif
