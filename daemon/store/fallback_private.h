/*
 * What the files of the store that holds two share; nobody else includes this. From below, each
 * using those above it in this list alone:
 *
 *	seen.c         what is known of the circuits in main
 *	fold_turn.c    when a circuit's queue gets its turn with main
 *	fallback_op.c  one operation: in main, in a queue, or answered here
 *	fold_back.c    takes the queues to main
 *	in_order.c     an operation sets out: to main, or into its circuit's queue
 *	held.c         successes that are held back
 *	refresh.c      answers from memory, and what keeps it fresh
 *	fallback.c     the store itself
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

/* Asked for again within so many times max_staleness is steadily. */
#define SEEN_STEADILY 5

/* The kinds of lines that may be many. */
enum fold_line { FOLD_REFUSED, FOLD_LOST, HELD_CHANGED, HELD_LOST, FOLD_LINES };

struct fallback_store {
	struct store store;
	struct store *main;
	struct store *local;
	bool ready;    /* main is there */
	bool refuses;  /* while it is not, operations end as it ends them */
	bool stopping; /* everything that waits for main is to arrive there: it was there when the
			  stop began */
	struct seen seen;
	struct clock_offset clock;
	struct circuit_queues queues;
	TAILQ_HEAD(fallback_ops, fallback_op) timed; /* ops that have waited, oldest first */
	struct fallback_op *next_timed; /* main has gone: those from here on are answered here */
	struct event *deadline;         /* of the first of them; or the next of those is due */
	/* fold_turn.c's and fold_back.c's own */
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

/* What was kept of successes, as one report, has ended. */
typedef void op_ended_fn(struct fallback_store *f, struct seen_circuit *e,
			 const struct circuit_op *op, const struct store_result *result);

/* An operation or a listing that is not answered yet. */
struct fallback_op {
	struct store_op op;
	struct store_op *inner;            /* main has it */
	struct circuit_queue *queue;       /* or it waits there */
	struct seen_circuit *reads;        /* or it waits for what main says of the circuit */
	TAILQ_ENTRY(fallback_op) in_queue; /* of one of the two */
	TAILQ_ENTRY(fallback_op) in_timed;
	int64_t due_ms; /* monotonic; 0: it never waited, and main has its deadline */
	struct seen_asked asked;
	/* Nobody waits for the answer, but this is told of it, the end of the store included. */
	op_ended_fn *ended;
	struct seen_circuit *reporter; /* ended's argument */
	struct store_query *query;     /* of a listing, else NULL */
	struct circuit_op what;        /* its call is kept (store_keep_call) */
	size_t key_len;
	char key[];
};

/* So much that nobody waits for is under way that the rest has to wait. */
static inline bool fallback_is_busy(const struct fallback_store *f)
{
	return f->store.background >= BACKGROUND_MAX || f->seen.refreshing >= BACKGROUND_MAX;
}

static inline struct fallback_store *fallback_of(struct store *s)
{
	return (struct fallback_store *)s;
}

/* --- seen.c */

/* 0, or -1 when out of memory; fini is allowed then too. No operation is under way. */
int seen_init(struct fallback_store *f);
void seen_fini(struct fallback_store *f);

/* NULL: there is no entry; or nothing is known of late. */
struct seen_circuit *seen_find(struct fallback_store *f, const char *key, size_t len);
struct seen_circuit *seen_known(struct fallback_store *f, const char *key, size_t len);

/* The entry, made if need be. NULL: there is no room. */
struct seen_circuit *seen_get(struct fallback_store *f, const char *key, size_t len);

/* What main has just been seen to hold (NULL: no circuit), and the circuit's member (NULL: it was
 * not looked at); kept for the next absence. */
void seen_remember(struct fallback_store *f, const char *key, size_t len,
		   const struct circuit *circuit, const struct breaker *breaker);

/* The same from a message, of a circuit that has a place in memory, or not; and from a page of a
 * listing that was asked for then (the embedded store's monotonic time). What decides as if it were
 * not there gets no place. */
void seen_remember_told(struct fallback_store *f, const struct store_event *event, bool has_place);
void seen_remember_page(struct fallback_store *f, const struct store_page *page, int64_t asked_ms);

/* A message has come, of a change at change_ms, or SEEN_UNSURE: answers that were asked for before
 * and do not know of it are not believed. */
void seen_note_told(struct fallback_store *f, const struct store_event *event, int64_t change_ms);

/* Main has answered the request, asked for then, with this: what it says of the circuit is
 * remembered. */
void seen_learn(struct fallback_store *f, const struct store_request *request,
		struct seen_asked asked, const struct store_result *result);

/* True if something is known of the circuit, however old. */
bool seen_is_known(const struct fallback_store *f, const struct seen_circuit *e);

/* From now on nothing is known: of the circuit; of all. */
void seen_forget(struct fallback_store *f, struct seen_circuit *e);
void seen_forget_all(struct fallback_store *f);

/* Frees it if nothing is known, held back or under way. */
void seen_drop_if_idle(struct fallback_store *f, struct seen_circuit *e);

/* True if successes of the circuit are on their way to main. */
bool seen_reports_under_way(struct fallback_store *f, const char *key, size_t len);

/* Reports of the circuit have been answered: operations that wait for that go on, in the next turn
 * of the loop. */
void seen_wake_readers(struct fallback_store *f, struct seen_circuit *e);

/* The lists by age. f->seen.tick is armed for the first that is due. */
void seen_list_leave(struct fallback_store *f, struct seen_circuit *e);
void seen_list_enter(struct fallback_store *f, struct seen_circuit *e, enum seen_list list);
void seen_tick_arm(struct fallback_store *f);

/* The age at which a circuit is refreshed, by a read or by the successes that are held back; how
 * long it is of interest when it was last asked for. */
int64_t seen_refresh_age_ms(struct fallback_store *f);
int64_t seen_report_age_ms(struct fallback_store *f);
int64_t seen_interest_ms(const struct fallback_store *f);

/* The limits have changed. */
void seen_reconfigured(struct fallback_store *f);

/* --- fold_turn.c */

/* The queue has something for main: it gets its turn within FOLD_PAUSE_MS. */
void fold_later(struct fallback_store *f, struct circuit_queue *q);

/* The queue, of which main has nothing, gets its turn in pause_ms. */
void fold_wait_for_turn(struct fallback_store *f, struct circuit_queue *q, unsigned pause_ms);

/* The queues have changed: tells metrics and the file's keeper. */
void fold_count_waiting(struct fallback_store *f);

/* Arms it unless it is armed. */
void fold_timer_add(struct event *timer, unsigned ms);

/* --- fallback_op.c */

/* NULL when out of memory. */
struct fallback_op *op_new(const struct store_request *request);

/* What it asks; valid as long as it. */
struct store_request op_request(const struct fallback_op *o);

/* Hands it to main. True if main has answered at once; else it is under way in main. */
bool op_submit_to_main(struct fallback_store *f, struct fallback_op *o,
		       struct store_request *request, struct store_result *result);

/* It waits in the queue from now on, store_timeout at most. */
void op_enter_queue(struct fallback_store *f, struct circuit_queue *q, struct fallback_op *o);

/* It waits for the answer to e->refresh, or to reports of e, from now on, store_timeout at most; it
 * does not any more.
 */
void op_wait_for_read(struct fallback_store *f, struct seen_circuit *e, struct fallback_op *o);
void op_leave_read(struct fallback_op *o);

/* The answer has not come in time: it ends without main. */
void op_give_up_read(struct fallback_store *f, struct fallback_op *o);

/* One that is under way ends. */
void op_finish(struct fallback_store *f, struct fallback_op *o, struct store_result *result);

/* Main has answered the request, asked for then: *result becomes what main says, or what the
 * embedded store says in its place. */
void op_settle(struct fallback_store *f, const struct store_request *request,
	       struct seen_asked asked, struct store_result *result);

/* Answers a request that main surely has not done: what it did becomes a step. */
void op_run_here(struct fallback_store *f, const struct store_request *request,
		 struct store_result *result);

/* The first operation that waits in its queue goes to main, with its deadline as it was. */
void op_pass_on(struct fallback_store *f, struct fallback_op *o);

/* One that waits in a queue is answered from memory, and is part of the queue's step then. */
void op_answer_here(struct fallback_store *f, struct fallback_op *o);

/* One that waits in a queue ends with this error of main's. */
void op_refuse(struct fallback_store *f, struct fallback_op *o, const char *message);

/* Main has gone: what waits in queues is answered here, in the next turns of the loop. */
void op_answer_all_here(struct fallback_store *f);

/* f->deadline; store_driver's detach. */
void op_on_deadline(evutil_socket_t fd, short what, void *arg);
void op_detach(struct store_op *op, struct store_result *verdict);

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

/* An operation waits in the queue: it gets its turn now, if it can. Finishes no operation. */
void fold_back_now(struct fallback_store *f, struct circuit_queue *q);

/* --- in_order.c */

/* Takes o, just made, to main or into the circuit's queue. As store_submit. */
struct store_op *in_order_submit(struct fallback_store *f, struct fallback_op *o,
				 store_done_fn *done, void *arg, struct store_result *result);

/* The same for one that has waited for something else, and is under way. */
void in_order_go_on(struct fallback_store *f, struct fallback_op *o);

/* --- held.c */

/* As seen_init, and behind it; fini before seen_fini. */
int held_init(struct fallback_store *f);
void held_fini(struct fallback_store *f);

/* The limits have changed. */
void held_reconfigured(struct fallback_store *f);

/* True, with *result set, if the request is a success that can wait. Main is there. */
bool held_take(struct fallback_store *f, const struct store_request *request,
	       struct store_result *result);

/* Sends what is held back: of a circuit; before a request on it. */
void held_send(struct fallback_store *f, struct seen_circuit *e);
void held_send_before(struct fallback_store *f, const struct store_request *request);

/* Sends all that is held back, in the next turns of the loop; or now, at the end of the store, if
 * main is away: then it becomes steps, which a file may keep. */
void held_send_all(struct fallback_store *f);
void held_send_all_now(struct fallback_store *f);

/* --- refresh.c */

/* As seen_init, and behind it. */
int refresh_init(struct fallback_store *f);
void refresh_fini(struct fallback_store *f);

/* True, with *result set, if memory answers the request. Main is there. */
bool refresh_answer(struct fallback_store *f, const struct store_request *request,
		    struct store_result *result);

/* The request was not answered from memory. If memory may answer it when main has said what the
 * circuit is, o, just made for it, waits for that, with all others that do: one read for all, none
 * if successes of it are on their way. Else NULL, with *o as it was. */
struct store_op *refresh_wait(struct fallback_store *f, struct fallback_op *o, store_done_fn *done,
			      void *arg);

/* Somebody has changed a circuit. */
void refresh_told(struct fallback_store *f, const struct store_event *event);

#endif
