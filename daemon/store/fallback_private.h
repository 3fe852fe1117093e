/*
 * What fallback.c and fold_back.c share; nobody else includes this.
 */
#ifndef BREAKERD_FALLBACK_PRIVATE_H
#define BREAKERD_FALLBACK_PRIVATE_H

#include "base/log.h"
#include "store/circuit_queue.h"
#include "store/clock_offset.h"
#include "store/driver.h"

/* Queues that main is busy with at once: enough to keep the link busy, little beside live
 * traffic. Those in which operations wait come on top, one for each such operation at most. */
#define FOLDS_IN_FLIGHT 64
/* After main surely did not take a step, or did not answer, before the next try. */
#define FOLD_PAUSE_MS 20

/* The kinds of lines that may be many. */
enum fold_line { FOLD_REFUSED, FOLD_LOST, FOLD_LINES };

struct fallback_store {
	struct store store;
	struct store *main;
	struct store *local;
	bool ready; /* main is there */
	struct clock_offset clock;
	struct circuit_queues queues;
	TAILQ_HEAD(fallback_ops, fallback_op) timed; /* ops that came to a queue, oldest first */
	struct fallback_op *next_timed; /* where a walk over them stands, while one goes on */
	struct event *deadline;         /* of the first of them */
	/* fold_back.c's own */
	unsigned busy;       /* queues that main has something of */
	size_t retries;      /* of the refused queues, those that may be tried again now */
	bool folding;        /* an absence of main left queues, and some are still there */
	bool held;           /* nothing goes to main before the file says that it may have */
	struct event *hold;  /* that takes too long */
	uint64_t told;       /* queues.changes that the file's keeper knows of */
	struct event *turn;  /* hands over more steps */
	struct event *retry; /* refused queues may be tried again */
	struct log_budget log_budgets[FOLD_LINES];
	struct metrics *metrics;
	struct log *log;
};

/* An operation or a listing that is not answered yet. */
struct fallback_op {
	struct store_op op;
	struct store_op *inner;      /* main has it */
	struct circuit_queue *queue; /* or it waits there */
	TAILQ_ENTRY(fallback_op) in_queue;
	TAILQ_ENTRY(fallback_op) in_timed;
	int64_t due_ms;            /* monotonic; 0: it never waited, and main has its deadline */
	struct store_query *query; /* of a listing, else NULL */
	struct circuit_op what;    /* its call is kept (store_keep_call) */
	size_t key_len;
	char key[];
};

/* --- fold_back.c */

/* 0, or -1 when out of memory; fini is for then, and behind fold_back_end. */
int fold_back_init(struct fallback_store *f);
void fold_back_fini(struct fallback_store *f);

/* Main is there: what waits begins to go to it, in the next turn of the loop. */
void fold_back_begin(struct fallback_store *f);

/* Main is gone. */
void fold_back_stop(struct fallback_store *f);

/* What the file left waits for main. */
void fold_back_restored(struct fallback_store *f);

/* Ends what main has under way: it is in doubt. Says what of the queues is kept or lost. */
void fold_back_end(struct fallback_store *f);

/* The queue has something for main: it gets its turn within FOLD_PAUSE_MS. */
void fold_back_later(struct fallback_store *f, struct circuit_queue *q);

/* As that, but now: an operation waits in the queue. Finishes no operation. */
void fold_back_now(struct fallback_store *f, struct circuit_queue *q);

/* --- fallback.c */

/* What main has just been seen to hold (NULL: no circuit), and the circuit's member (NULL: it was
 * not looked at); kept for the next absence. */
void fallback_seen(struct fallback_store *f, const char *key, size_t len,
		   const struct circuit *circuit, const struct breaker *breaker);

/* The first operation that waits in the queue goes to main, with its deadline as it was. */
void fallback_pass_on(struct fallback_store *f, struct fallback_op *o);

/* The operation is answered from memory, and is part of the queue's step then. */
void fallback_answer_here(struct fallback_store *f, struct fallback_op *o);

/* The operation ends with this error of main's. */
void fallback_refuse(struct fallback_store *f, struct fallback_op *o, const char *message);

#endif
