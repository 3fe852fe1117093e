/*
 * The order of one circuit that cannot simply be passed on to main: one queue a circuit, in a
 * table by key. Its entries, in the order in which they go to main:
 *
 *	sent   a step that was handed over: main has it, or it is in doubt (no answer came)
 *	next   the step of what was answered here since: each further operation that is
 *	       answered here becomes part of it
 *	ops    operations that wait, unanswered, in the order of their coming
 *
 * Nothing behind `sent` goes to main before it is known what became of `sent`; nothing behind
 * `next` before `next` is settled. A queue that has nothing left is removed, and operations
 * on the circuit pass straight to main again.
 *
 * Here is the order alone, no I/O: fold_back.c talks to main, fallback_op.c answers operations.
 * An operation is not looked into: what it does stands in its step (circuit_fold.h).
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
	int64_t offset_ms;   /* to main's clock, in the stamps of fold */
};

/* The circuit as main had it before the step `sent`; without one, as it was last seen. */
struct queue_before {
	enum circuit_fold_known known;
	bool exists;
	struct circuit circuit; /* if it exists */
};

enum queue_phase {
	QUEUE_WAITS,  /* main has nothing of it */
	QUEUE_ASKING, /* main is asked for the circuit */
	QUEUE_SENT,   /* main has the step `sent` */
};

/* In which of the lists it waits for its turn. */
enum queue_list { QUEUE_IN_NONE, QUEUE_IN_READY, QUEUE_IN_REFUSED };

struct circuit_queue {
	struct keynode node;
	TAILQ_ENTRY(circuit_queue) entry;
	enum queue_list list;
	enum queue_phase phase;
	struct circuit_queues *all;
	struct store_op *op; /* main's, while it asks or has the step */
	bool in_doubt;       /* sent was handed over, and no answer came */
	bool check;          /* an operation is in doubt: main is to be asked for the circuit */
	uint64_t mark;       /* circuit_queue_is_marked */
	struct queue_step sent;
	struct queue_before before;
	struct queue_step next;
	TAILQ_HEAD(queue_ops, fallback_op) ops;
	unsigned op_count;
};
TAILQ_HEAD(queue_list_head, circuit_queue);

struct circuit_queues {
	struct keytable table;
	struct queue_list_head ready;   /* something is to be done, and main has nothing of it */
	struct queue_list_head refused; /* as that, but main refused the last try */
	size_t refused_count;
	uint64_t changes; /* of the steps, for whoever keeps them in a file */
	bool folding;     /* steps are being handed over */
	uint64_t mark;    /* of this folding; another one begins with nothing marked */
};

/* 0, or -1 when out of memory. fini frees the queues, and is allowed then too. */
int circuit_queues_init(struct circuit_queues *all);
void circuit_queues_fini(struct circuit_queues *all);

/* Steps are handed over from now on. What is made from now on is marked. */
void circuit_queues_fold(struct circuit_queues *all);

/* Marked: its steps may be handed over at any time, so that those in the file are in doubt. What is
 * not marked is in the file exactly as it is to be folded. */
static inline bool circuit_queue_is_marked(const struct circuit_queue *q)
{
	return q->all->folding && q->mark == q->all->mark;
}

/* Marks up to `most` of the queues that wait and are not, those first that come first. */
void circuit_queues_mark(struct circuit_queues *all, size_t most);

/* Removes all queues. They have no ops, and main nothing of them. */
void circuit_queues_clear(struct circuit_queues *all);

static inline size_t circuit_queues_count(const struct circuit_queues *all)
{
	return all->table.count;
}

/* NULL: the circuit has none. Costs nothing while there are none at all. */
struct circuit_queue *circuit_queue_find(struct circuit_queues *all, const char *key, size_t len);

/* The circuit's queue, made if need be: main last had the circuit as *seen (NULL: none, or
 * never seen). NULL if there are `max` queues already, or no memory. */
struct circuit_queue *circuit_queue_get(struct circuit_queues *all, const char *key, size_t len,
					const struct circuit *seen, size_t max);

/* Takes it out of the table and frees it. It has no ops, and main nothing of it. */
void circuit_queue_remove(struct circuit_queue *q);

/* Puts it into a list in which it waits: at the head if operations wait in it. */
void circuit_queue_wait(struct circuit_queue *q, enum queue_list list);

/* Takes it out of the list, if it is in one. */
void circuit_queue_unwait(struct circuit_queue *q);

/* True if there is a step, sent or not, that main has surely not taken. */
bool circuit_queue_has_steps(const struct circuit_queue *q);

/* An operation was answered here, with this effect; stamps are in main's time by offset_ms. */
void circuit_queue_note(struct circuit_queue *q, const struct circuit_op *op,
			enum circuit_effect effect, int64_t now_ms, int64_t offset_ms);

/* Main may have done an operation, or not: what was last seen of the circuit may be gone, and is
 * no state for `next` to begin with. Main is to be asked. */
void circuit_queue_check(struct circuit_queue *q);

/* A decision was made here: as the operations that it came to. */
void circuit_queue_note_decision(struct circuit_queue *q, const struct circuit_op *op,
				 const struct breaker_answer *answer, int64_t now_ms,
				 int64_t offset_ms);

/* Main has answered with the circuit (NULL: there is none): from here on `next` begins. For a
 * queue without steps. */
void circuit_queue_seen(struct circuit_queue *q, const struct circuit *circuit);

/* `next` becomes `sent`, with stamps by this offset, none later than now_ms; before it, main has
 * *before (NULL: no circuit). */
void circuit_queue_send(struct circuit_queue *q, int64_t offset_ms, int64_t now_ms,
			const struct circuit *before);

/* Main has taken the step. Returns how many operations it was. */
uint64_t circuit_queue_sent_taken(struct circuit_queue *q);

/* Main surely has not taken it: it goes again, ahead of what was done since. */
void circuit_queue_sent_refused(struct circuit_queue *q);

/* No answer came: the circuit will tell. */
void circuit_queue_sent_unknown(struct circuit_queue *q);

/* The circuit as main has it now (NULL: none) tells of the step in doubt: TAKEN; NOT_TAKEN, and
 * then it goes again; or UNSURE, and then it is given up. In *operations what was settled. */
enum circuit_fold_trace circuit_queue_judge(struct circuit_queue *q, const struct circuit *now,
					    uint64_t *operations);

/* Gives up all steps. Returns how many operations they were. */
uint64_t circuit_queue_drop_steps(struct circuit_queue *q);

#endif
