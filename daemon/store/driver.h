/*
 * The driver interface: what a store implementation provides, and what it may use. Only stores
 * include this.
 */
#ifndef BREAKERD_STORE_DRIVER_H
#define BREAKERD_STORE_DRIVER_H

#include "proto/circuit_fold.h"
#include "store/store.h"

#include <event2/event.h>
#include <sys/queue.h>

struct store_driver {
	const char *name;
	/* As store_submit and store_list: finish at once, or store_op_start an op. */
	struct store_op *(*submit)(struct store *s, const struct store_request *request,
				   store_done_fn *done, void *arg, struct store_result *result);
	struct store_op *(*list)(struct store *s, const struct store_query *query,
				 store_done_fn *done, void *arg, struct store_result *result);
	/*
	 * The op ends without its answer (deadline, cancel, end of the store). The driver
	 * drops every pointer to it; a reply that still comes goes nowhere. It sets
	 * verdict->status to what is true now: UNAVAILABLE if nothing was handed over, else
	 * UNKNOWN for a write and TIMEOUT for a read. NULL if the driver never starts an op.
	 */
	void (*detach)(struct store_op *op, struct store_result *verdict);
	void (*health)(struct store *s, struct store_health *health);
	void (*reconfigure)(struct store *s); /* s->limits has changed; may be NULL */
	void (*free)(struct store *s);        /* frees s itself; no ops are pending */
	void (*send_held)(struct store *s);   /* as store_send_held; may be NULL */
	void (*flush)(struct store *s);       /* as store_flush; may be NULL */
	/*
	 * For a store that can be away, else NULL. fold takes a step on a circuit as submit
	 * runs an operation, but without a deadline: STORE_UNAVAILABLE says that it surely was
	 * not taken, STORE_UNKNOWN that it may have been, STORE_ERROR that it cannot be now.
	 */
	struct store_op *(*fold)(struct store *s, const char *key, size_t key_len,
				 const struct circuit_fold *fold, store_done_fn *done, void *arg,
				 struct store_result *result);
	/* The store's clock minus ours (clock_steady_ms) in milliseconds, as last measured, and by
	 * how much that may be wrong. */
	int64_t (*clock_offset_ms)(struct store *s, int64_t *error_ms);
	/* store_follow was called. May be NULL. */
	void (*follow)(struct store *s);
};

/* A change: a transition, a reset, an override set or ended. */
struct store_event {
	const char *key;
	size_t key_len;
	char by; /* t transition, d reset, a acquire, r report, o override set, x override ended,
		    w a step that was recorded while main was away */
	bool existed;
	enum circuit_state was;
	bool exists;
	struct circuit circuit; /* last_state_change: when it changed, also for a reset */
	const struct breaker *breaker;
};

struct circuit_queues;
TAILQ_HEAD(store_op_list, store_op);

/* The first member of each implementation's struct. */
struct store {
	const struct store_driver *driver;
	struct event_base *base;
	struct store_limits limits;
	int64_t end_ms; /* store_end_by, for the driver's free; 0: not told */
	unsigned in_flight;
	unsigned background; /* those in flight that no client waits for: max_in_flight does not
				limit them */
	struct store_op_list ops;      /* in the order of their deadlines */
	struct store_op_list open_ops; /* those without one */
	struct event *deadline;        /* fires at the first op's deadline, or earlier */
	int64_t deadline_ms;           /* when `deadline` fires, monotonic; INT64_MAX: it is off */
	/* Called when a store that can be away comes and goes. NULL, or set once by its owner. */
	void (*on_change)(void *arg, bool ready);
	void *on_change_arg;
	/* Called for each change of state in main, whichever daemon made it; some may be lost.
	 * NULL, or set once by its owner. */
	void (*on_event)(void *arg, const struct store_event *event);
	void *on_event_arg;
	void (*watcher)(void *arg); /* store_watch */
	void *watcher_arg;
	void (*on_answered)(void *arg); /* store_on_answered */
	void *on_answered_arg;
	store_follow_fn *follow; /* store_follow */
	void *follow_arg;
};

/* The first member of each implementation's op, which comes from malloc and ends with free. */
struct store_op {
	struct store *store;
	store_done_fn *done;
	void *arg;
	int64_t deadline_ms; /* monotonic; INT64_MAX: none */
	bool background;     /* store_op_background */
	bool expiring;       /* its deadline is ending it, and its callback has not come */
	TAILQ_ENTRY(store_op) entry;
};

/* 0, or -1 when out of memory. */
int store_init(struct store *s, const struct store_driver *driver, struct event_base *base,
	       const struct store_limits *limits);

/* Undoes store_init. For the driver's free, and for its new when that fails. */
void store_fini(struct store *s);

/* Tells the watcher, if there is one, that the store's health has changed. */
void store_changed(struct store *s);

/* Calls the callback that store_on_answered set, if there is one. */
void store_answered(struct store *s);

/* Tells the follower, if there is one. */
void store_tell(struct store *s, const struct store_change *change);

/* True if no further op may start: *result is then set to STORE_OVERLOADED. */
bool store_overloaded(struct store *s, struct store_result *result);

/* Puts op, just allocated, under way: it counts as in flight and its deadline runs. */
void store_op_start(struct store *s, struct store_op *op, store_done_fn *done, void *arg);

/* The same without a deadline, for an op that something else is sure to end. */
void store_op_start_open(struct store *s, struct store_op *op, store_done_fn *done, void *arg);

/* Marks op, which is under way, as one that no client waits for: max_in_flight does not limit it.
 */
void store_op_background(struct store_op *op);

/* Ends op with its answer: calls back, frees it. The driver has dropped its pointers. */
void store_op_finish(struct store_op *op, struct store_result *result);

/* Ends op now as its deadline would end it. */
void store_op_expire(struct store_op *op);

/* Sets *result to status and message, nothing else. Returns NULL, for `return`. */
struct store_op *store_refuse(struct store_result *result, enum store_status status,
			      const char *message);

/*
 * Makes *op outlive the request: op->call, if there is one, is replaced by a copy, with its policy
 * or override, which store_drop_call frees. False when out of memory, and *op is unchanged.
 */
bool store_keep_call(struct circuit_op *op);
void store_drop_call(struct circuit_op *op);

/* The time, for a stamp; and the time to compare with, which makes no stamp. */
int64_t store_now_ms(const struct store_clock *clock);
int64_t store_peek_ms(const struct store_clock *clock);

/*
 * Makes the embedded store hold this snapshot as if it had just been written; NULL removes
 * the circuit. A circuit that has a member keeps it. A store that is full of tripped circuits stays
 * as it is.
 */
void store_memory_put(struct store *s, const char *key, size_t key_len,
		      const struct circuit *circuit);

/* The same, and the circuit's member becomes *breaker. */
void store_memory_put_breaker(struct store *s, const char *key, size_t key_len,
			      const struct circuit *circuit, const struct breaker *breaker);

/*
 * Puts what a listing showed of a circuit: its snapshot and its override; the rest of the member
 * stays. The listing was asked for at asked_ms (monotonic): what was written here since is newer
 * and stays. A circuit that is not here is added only if `add`.
 */
void store_memory_put_item(struct store *s, const struct store_item *item, int64_t asked_ms,
			   bool add);

/* Answers the operation as submit does, but changes nothing. Returns what it would have changed. */
enum circuit_effect store_memory_try(struct store *s, const struct store_request *request,
				     struct store_result *result);

/*
 * As store_memory_keep, but the file keeps the steps of `queues` and what s holds of their
 * circuits. Both are new and empty. The queues must live until store_memory_keep_end or the end of
 * s.
 */
int store_memory_keep_steps(struct store *s, struct circuit_queues *queues, const char *path,
			    struct metrics *metrics, struct log *log, char *why, size_t why_size);

/* True if s keeps its state in a file. */
bool store_memory_keeps(const struct store *s);

/* The steps have changed: they are saved soon, if s keeps a file. */
void store_memory_changed(struct store *s);

/* Saves at once (state_keeper_save). s must keep a file. */
void store_memory_save(struct store *s, void (*done)(void *arg), void *arg);

/* Saves what is not saved yet and keeps the file no longer (state_keeper_free). True if all is on
 * disk. */
bool store_memory_keep_end(struct store *s, int64_t end_ms);

/* Makes a page with room for `room` items; NULL when out of memory. */
struct store_page *store_page_new(size_t room);

/* Adds a copy of the item (`override`: NULL: none); the room must suffice. False when out of
 * memory. */
bool store_page_add(struct store_page *page, const char *key, size_t key_len,
		    const struct circuit *circuit, const struct breaker_override *override);

#endif
