/*
 * Shared by the files of the fallback store; nobody else includes this. Each file uses only those
 * above it in this list:
 *
 *	seen.c         what is known of the circuits in main
 *	fold_turn.c    when a circuit's queue gets its turn with main
 *	fallback_op.c  one operation: in main, in a queue, or answered here
 *	fold_back.c    takes the queues to main
 *	in_order.c     starts an operation: in main, or in its circuit's queue
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

/* Queues that have something under way in main at once: enough to keep the link busy, little beside
 * live traffic. Queues in which operations wait come on top. */
#define FOLDS_IN_FLIGHT 64
/* At most this many operations that send successes are under way, and as many that refresh. At the
 * bound the next ones wait until some have ended: Redis is slow, and clients come first. */
#define BACKGROUND_MAX 1024
#define BACKGROUND_MS  2 /* how long they wait before the next try */

/* The pause after main surely did not take a step, or did not answer. */
#define FOLD_PAUSE_MS 20

/* A circuit that is asked for again within this many times max_staleness is asked for steadily. */
#define SEEN_STEADILY 5

/* Log lines of which there may be many: each kind has a limit. */
enum fold_line {
	FOLD_BEGUN,
	FOLD_DONE,
	FOLD_REFUSED,
	FOLD_LOST,
	HELD_CHANGED,
	HELD_LOST,
	FOLD_LINES,
};

struct fallback_store {
	struct store store;
	struct store *main;  /* the one in Redis */
	struct store *local; /* the embedded one, which goes on while main is away */
	bool ready;          /* main is there */
	bool refuses;        /* while main is away, its refusals are the answers */
	bool stopping; /* a stop waits until all has arrived in main, which was there when it began
			*/
	struct seen seen;
	struct clock_offset clock;
	struct circuit_queues queues;
	TAILQ_HEAD(fallback_ops, fallback_op) timed; /* ops that have waited, by due_ms */
	struct fallback_op *next_timed; /* main has gone: from this op on they are answered here */
	struct event *deadline; /* next_timed is to be answered, or the first of timed is due */
	int64_t deadline_ms;    /* when `deadline` fires, monotonic; INT64_MAX: it is off */
	/* For fold_turn.c and fold_back.c only. */
	unsigned folds_in_flight;  /* queues that have something under way in main */
	size_t retries;            /* how many of the refused queues may be tried again now */
	bool folding;              /* an absence of main left queues, and some are still there */
	bool awaits_save;          /* no step goes to main before the file has its mark */
	struct event *save_timer;  /* the file takes too long for that */
	uint64_t told_changes;     /* queues.changes when the state keeper was last told */
	struct event *fold_timer;  /* hands over more steps */
	struct event *retry_timer; /* refused queues may be tried again */
	struct log_limit log_limits[FOLD_LINES];
	struct metrics *metrics;
	struct log *log;
};

/* An operation that no client waits for has ended. */
typedef void op_ended_fn(struct fallback_store *f, struct seen_circuit *e,
			 const struct circuit_op *op, const struct store_result *result);

/* An operation or a listing that is not answered yet. */
struct fallback_op {
	struct store_op op;
	struct store_op *inner;            /* it is under way in main */
	struct circuit_queue *queue;       /* or it waits in this queue */
	struct seen_circuit *reader_of;    /* or it waits for what main says of this circuit */
	TAILQ_ENTRY(fallback_op) in_queue; /* in queue->ops or reader_of->readers */
	TAILQ_ENTRY(fallback_op) in_timed;
	int64_t due_ms; /* monotonic; 0: it never waited, and main keeps its deadline */
	struct seen_asked asked;
	/* Not NULL: no client waits for the answer, and this is called at its end, also when the
	 * store ends. */
	op_ended_fn *on_ended;
	struct seen_circuit *on_ended_arg;
	struct store_query *query;   /* of a listing, else NULL */
	struct circuit_op operation; /* its call is kept (store_keep_call) */
	size_t key_len;
	char key[];
};

/* True if so many operations that no client waits for are under way that further ones must wait. */
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

/* The circuit's entry. NULL: there is none. */
struct seen_circuit *seen_find(struct fallback_store *f, const char *key, size_t len);

/* The circuit's entry, if what is known of it is recent enough to hold back successes. Else NULL.
 */
struct seen_circuit *seen_known(struct fallback_store *f, const char *key, size_t len);

/* The circuit's entry, made if need be. NULL: there is no room. */
struct seen_circuit *seen_get(struct fallback_store *f, const char *key, size_t len);

/* Keeps for the next absence what main has just been seen to hold (NULL: no circuit), and the
 * circuit's member (NULL: it was not read). */
void seen_remember(struct fallback_store *f, const char *key, size_t len,
		   const struct circuit *circuit, const struct breaker *breaker);

/* The same from a message; `has_place`: the circuit is in memory already. And from a page of a
 * listing, asked for at asked_ms (the embedded store's monotonic time). A circuit that decides as
 * if it did not exist is not added to memory. */
void seen_remember_told(struct fallback_store *f, const struct store_event *event, bool has_place);
void seen_remember_page(struct fallback_store *f, const struct store_page *page, int64_t asked_ms);

/* A message has come, of a change at change_ms (SEEN_UNSURE: unknown when): answers that were asked
 * for before it and do not show the change are ignored. */
void seen_note_told(struct fallback_store *f, const struct store_event *event, int64_t change_ms);

/* Main has answered the request, which came at `asked`: remembers what the answer says of the
 * circuit. */
void seen_learn(struct fallback_store *f, const struct store_request *request,
		struct seen_asked asked, const struct store_result *result);

/* True if something is known of the circuit, however old. */
bool seen_is_known(const struct fallback_store *f, const struct seen_circuit *e);

/* From now on nothing is known of the circuit; of any circuit. The first may free e. */
void seen_forget(struct fallback_store *f, struct seen_circuit *e);
void seen_forget_all(struct fallback_store *f);

/* Frees e if nothing is known of it, held back or under way. */
void seen_drop_if_idle(struct fallback_store *f, struct seen_circuit *e);

/* True if successes of the circuit are on their way to main. */
bool seen_reports_under_way(struct fallback_store *f, const char *key, size_t len);

/* Reports of the circuit have been answered: the operations that wait for that go on in the next
 * turn of the loop. */
void seen_wake_readers(struct fallback_store *f, struct seen_circuit *e);

/* The lists by age, and the timer for the first entry that is due in them. */
void seen_list_leave(struct fallback_store *f, struct seen_circuit *e);
void seen_list_enter(struct fallback_store *f, struct seen_circuit *e, enum seen_list list);
void seen_arm_refresh_timer(struct fallback_store *f);

/* The age at which a circuit is refreshed by a read; or by sending the successes that are held
 * back. */
int64_t seen_refresh_age_ms(struct fallback_store *f);
int64_t seen_report_age_ms(struct fallback_store *f);

/* The age at which what is known of a circuit that nobody asks for is dropped. */
int64_t seen_interest_ms(const struct fallback_store *f);

/* The limits have changed. */
void seen_reconfigured(struct fallback_store *f);

/* --- fold_turn.c */

/* The queue has something for main: it gets its turn within FOLD_PAUSE_MS. */
void fold_later(struct fallback_store *f, struct circuit_queue *q);

/* The queue, which has nothing under way in main, gets its turn in pause_ms. */
void fold_wait_for_turn(struct fallback_store *f, struct circuit_queue *q, unsigned pause_ms);

/* The queues may have changed: tells the metrics and the state keeper. */
void fold_count_waiting(struct fallback_store *f);

/* Sets the timer, unless it is set. */
void fold_timer_add(struct event *timer, unsigned ms);

/* --- fallback_op.c */

/* NULL when out of memory. */
struct fallback_op *op_new(const struct store_request *request);

/* The request that o was made for, pointing into o. */
struct store_request op_request(const struct fallback_op *o);

/* Hands o to main. True if main has answered at once; else o is under way in main. */
bool op_submit_to_main(struct fallback_store *f, struct fallback_op *o,
		       struct store_request *request, struct store_result *result);

/* o waits in the queue from now on, for at most store_timeout. */
void op_enter_queue(struct fallback_store *f, struct circuit_queue *q, struct fallback_op *o);

/* o waits from now on, for at most store_timeout, for the answer to e->refresh or to reports of e;
 * o no longer waits for it. */
void op_wait_for_read(struct fallback_store *f, struct seen_circuit *e, struct fallback_op *o);
void op_leave_read(struct fallback_op *o);

/* The answer for which o waits has not come in time: o ends without main. */
void op_give_up_read(struct fallback_store *f, struct fallback_op *o);

/* Ends o, which is under way, with this result, and frees it. */
void op_finish(struct fallback_store *f, struct fallback_op *o, struct store_result *result);

/* The callback of an op that no client waits for: does nothing. */
void op_ignore_result(void *arg, struct store_result *result);

/* Main has answered the request, which came at `asked`: *result stays as main says, or becomes what
 * the embedded store says in its place. */
void op_settle(struct fallback_store *f, const struct store_request *request,
	       struct seen_asked asked, struct store_result *result);

/* Answers a request that main surely has not done: what the operation did becomes a step. */
void op_run_here(struct fallback_store *f, const struct store_request *request,
		 struct store_result *result);

/* o, the first operation that waits in its queue, goes to main; its deadline stays. */
void op_pass_on(struct fallback_store *f, struct fallback_op *o);

/* o, which waits in a queue, is answered from memory and becomes part of the queue's step. */
void op_answer_here(struct fallback_store *f, struct fallback_op *o);

/* o, which waits in a queue, ends with this error, which main gave. */
void op_refuse(struct fallback_store *f, struct fallback_op *o, const char *message);

/* Main has gone: what waits in queues is answered here, in the next turns of the loop. */
void op_answer_all_here(struct fallback_store *f);

/* The timer f->deadline. For libevent. */
void op_on_deadline(evutil_socket_t fd, short what, void *arg);

/* The driver's detach. */
void op_detach(struct store_op *op, struct store_result *verdict);

/* --- fold_back.c */

/* 0, or -1 when out of memory; fini is called then, or after fold_back_end. */
int fold_back_init(struct fallback_store *f);
void fold_back_fini(struct fallback_store *f);

/* Main is there: what waits begins to go to it, in the next turn of the loop. */
void fold_back_begin(struct fallback_store *f);

/* Main is gone. */
void fold_back_stop(struct fallback_store *f);

/* The queues have been filled from the state file. */
void fold_back_restored(struct fallback_store *f);

/* The end of the store: steps that are under way in main are in doubt. Saves the queues, and logs
 * how many are kept or lost. */
void fold_back_end(struct fallback_store *f);

/* An operation waits in the queue: the queue gets its turn now, if it can. Finishes no operation.
 */
void fold_back_now(struct fallback_store *f, struct circuit_queue *q);

/* --- in_order.c */

/* Takes o, just made, to main or into the circuit's queue. As store_submit. */
struct store_op *in_order_submit(struct fallback_store *f, struct fallback_op *o,
				 store_done_fn *done, void *arg, struct store_result *result);

/* The same for an operation under way that has waited for a read. */
void in_order_go_on(struct fallback_store *f, struct fallback_op *o);

/* --- held.c */

/* As seen_init, and called after it; fini before seen_fini. */
int held_init(struct fallback_store *f);
void held_fini(struct fallback_store *f);

/* The limits have changed. */
void held_reconfigured(struct fallback_store *f);

/* True, with *result set, if the request is a success that can wait. Main is there. */
bool held_take(struct fallback_store *f, const struct store_request *request,
	       struct store_result *result);

/* Sends what is held back of a circuit. May free e. */
void held_send(struct fallback_store *f, struct seen_circuit *e);

/* The same for the circuit of a request that is about to go. An acquire may overtake successes. */
void held_send_before(struct fallback_store *f, const struct store_request *request);

/* Sends all that is held back, in the next turns of the loop. */
void held_send_all(struct fallback_store *f);

/* The end of the store while main is away: all that is held back becomes steps now, which a file
 * may keep. */
void held_send_all_now(struct fallback_store *f);

/* --- refresh.c */

/* As seen_init, and called after it. */
int refresh_init(struct fallback_store *f);
void refresh_fini(struct fallback_store *f);

/* True, with *result set, if memory answers the request. Main is there. */
bool refresh_answer(struct fallback_store *f, const struct store_request *request,
		    struct store_result *result);

/* For a request that memory did not answer; o was just made for it. If memory may answer it once
 * main has said what the circuit is, o waits for that: there is one read for all that wait, and
 * none if successes of the circuit are on their way. Else NULL, with *o as it was. */
struct store_op *refresh_wait(struct fallback_store *f, struct fallback_op *o, store_done_fn *done,
			      void *arg);

/* A message: a daemon, perhaps this one, has changed a circuit. */
void refresh_told(struct fallback_store *f, const struct store_event *event);

#endif
