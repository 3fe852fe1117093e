/*
 * What fallback.c and fold_back.c share; nobody else includes this.
 */
#ifndef BREAKERD_FALLBACK_PRIVATE_H
#define BREAKERD_FALLBACK_PRIVATE_H

#include "base/log.h"
#include "store/circuit_queue.h"
#include "store/clock_offset.h"
#include "store/driver.h"
#include "store/seen.h"

/* Queues that main is busy with at once: enough to keep the link busy, little beside live
 * traffic. Those in which operations wait come on top, one for each such operation at most. */
#define FOLDS_IN_FLIGHT 64
/* Operations under way that send successes, and as many that refresh. With so many, the next ones
 * wait until some have ended: Redis is slow, and clients come first. */
#define BACKGROUND_MAX 1024
#define BACKGROUND_MS  2 /* before it is looked again */

/* After main surely did not take a step, or did not answer, before the next try. */
#define FOLD_PAUSE_MS 20

/* The kinds of lines that may be many. */
enum fold_line { FOLD_REFUSED, FOLD_LOST, HELD_CHANGED, HELD_LOST, FOLD_LINES };

struct fallback_store {
	struct store store;
	struct store *main;
	struct store *local;
	bool ready;   /* main is there */
	bool refuses; /* while it is not, operations end as it ends them */
	struct seen seen;
	struct clock_offset clock;
	struct circuit_queues queues;
	TAILQ_HEAD(fallback_ops, fallback_op) timed; /* ops that came to a queue, oldest first */
	struct fallback_op *next_timed; /* where a walk over them stands, while one goes on */
	struct event *deadline;         /* of the first of them */
	/* fold_back.c's own */
	unsigned busy;       /* queues that main has something of */
	size_t retries;      /* of the refused queues, those that may be tried again now */
	bool folding;        /* an absence of main left queues, and some are still there */
	bool held;           /* nothing more goes to main before the file says that it may have */
	struct event *hold;  /* that takes too long */
	uint64_t told;       /* queues.changes that the file's keeper knows of */
	struct event *turn;  /* hands over more steps */
	struct event *retry; /* refused queues may be tried again */
	struct log_limit log_limits[FOLD_LINES];
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
	int64_t asked_ms;          /* when it came (monotonic) */
	struct seen_circuit *held; /* successes that were held back: nobody waits for the answer */
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

/* Main has answered the request, which came at asked_ms, with this: what it says of the circuit is
 * remembered. */
void fallback_learn(struct fallback_store *f, const struct store_request *request, int64_t asked_ms,
		    const struct store_result *result);

/* Sends successes that were held back, one report, behind what was submitted before. It ends with
 * held_ended. */
void fallback_report(struct fallback_store *f, struct seen_circuit *e, const struct circuit_op *op);

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

/* --- seen.c */

/* 0, or -1 when out of memory; fini is allowed then too. No operation is under way. */
int seen_init(struct fallback_store *f);
void seen_fini(struct fallback_store *f);

/* True, with *result set, if memory answers the request. Main is there. */
bool seen_answer(struct fallback_store *f, const struct store_request *request,
		 struct store_result *result);

/* True if a message has told a later change than this answer to a read, which was asked before. */
bool seen_is_old(struct fallback_store *f, const struct store_request *request, int64_t asked_ms,
		 const struct store_result *result);

/* The local store has just been given what main answered. */
void seen_learn(struct fallback_store *f, const struct store_request *request, int64_t asked_ms,
		const struct store_result *result);

/* Somebody has changed a circuit. */
void seen_told(struct fallback_store *f, const struct store_event *event);

/* From now on nothing is known. */
void seen_forget_all(struct fallback_store *f);

/* NULL: there is no entry; or nothing is known of late. */
struct seen_circuit *seen_find(struct fallback_store *f, const char *key, size_t len);
struct seen_circuit *seen_known(struct fallback_store *f, const char *key, size_t len);

/* Frees it if nothing is known, held back or under way. */
void seen_drop_if_idle(struct fallback_store *f, struct seen_circuit *e);

/* --- held.c */

/* True, with *result set, if the request is a success that can wait. Main is there. */
bool held_take(struct fallback_store *f, const struct store_request *request,
	       struct store_result *result);

/* Sends what is held back: of a circuit; before a request on it; of all. */
void held_send(struct fallback_store *f, struct seen_circuit *e);
void held_send_before(struct fallback_store *f, const struct store_request *request);
void held_send_all(struct fallback_store *f);

/* True if successes of the circuit are on their way to main. */
bool held_on_its_way(struct fallback_store *f, const char *key, size_t len);

/* What fallback_report sent has ended. */
void held_ended(struct fallback_store *f, struct seen_circuit *e, const struct circuit_op *op,
		const struct store_result *result);

void held_on_timer(evutil_socket_t fd, short what, void *arg);
void held_free(struct seen_circuit *e);

#endif
