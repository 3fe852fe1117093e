/*
 * What a store implementation is made of; only store*.c include this.
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
	void (*reconfigure)(struct store *s); /* s->limits is new; may be NULL */
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
	/* The store's clock less ours (clock_steady_ms) in milliseconds, as last measured, and by
	 * how much that may be wrong. */
	int64_t (*clock_offset_ms)(struct store *s, int64_t *error_ms);
	/* store_follow was called; NULL: s->follow is all that is needed. */
	void (*follow)(struct store *s);
};

/* A change: a transition, a reset, an override set or ended. */
struct store_event {
	const char *key;
	size_t key_len;
	char by; /* t transition, d reset, a acquire, r report, o override, x its end, w what was
		    recorded without main */
	bool existed;
	enum circuit_state was;
	bool exists;
	struct circuit circuit; /* last_state_change: when, of a reset, too */
	const struct breaker *breaker;
};

struct circuit_queues;
TAILQ_HEAD(store_op_list, store_op);

/* The first member of each implementation's struct. */
struct store {
	unsigned magic;
	const struct store_driver *driver;
	struct event_base *base;
	struct store_limits limits;
	int64_t end_ms; /* store_end_by, for the driver's free; 0: not told */
	unsigned in_flight;
	unsigned background;      /* of those, the ones that nobody waits for: max_in_flight is not
				     theirs */
	struct store_op_list ops; /* in the order of their deadlines */
	struct event *deadline;   /* of the first of them, or earlier */
	int64_t deadline_ms;      /* when that timer fires, monotonic; INT64_MAX: it is off */
	/* Told when the store comes and goes, if it can; NULL or set once by who holds it. */
	void (*on_change)(void *arg, bool ready);
	void *on_change_arg;
	/* Told of each change of state in main, whoever made it; NULL or set once. Some may be
	 * lost. */
	void (*on_event)(void *arg, const struct store_event *event);
	void *on_event_arg;
	void (*watcher)(void *arg); /* store_watch */
	void *watcher_arg;
	void (*on_answered)(void *arg); /* store_on_answered */
	void *on_answered_arg;
	store_follow_fn *follow; /* store_follow */
	void *follow_arg;
};

/* The first member of each implementation's op, which malloc made and free ends. */
struct store_op {
	unsigned magic;
	struct store *store;
	store_done_fn *done;
	void *arg;
	int64_t deadline_ms; /* monotonic */
	bool background;     /* store_op_background */
	TAILQ_ENTRY(store_op) entry;
};

/* 0, or -1 when out of memory. */
int store_init(struct store *s, const struct store_driver *driver, struct event_base *base,
	       const struct store_limits *limits);

/* Ends what store_init began; for the driver's free and its failed new. */
void store_fini(struct store *s);

/* Tells the watcher, if there is one, that the store's health is news. */
void store_changed(struct store *s);

/* Calls store_on_answered's, if there is one. */
void store_answered(struct store *s);

/* Tells the follower, if there is one. */
void store_tell(struct store *s, const struct store_change *change);

/* True if no further op may start: *result is then set to STORE_OVERLOADED. */
bool store_overloaded(struct store *s, struct store_result *result);

/* Puts op, just allocated, under way: it counts as in flight and its deadline runs. */
void store_op_start(struct store *s, struct store_op *op, store_done_fn *done, void *arg);

/* As that, for an op that something else is sure to end. */
void store_op_start_open(struct store *s, struct store_op *op, store_done_fn *done, void *arg);

/* No client waits for op, which is under way: it takes nothing from max_in_flight. */
void store_op_background(struct store_op *op);

/* Ends op with its answer: calls back, frees it. The driver has dropped its pointers. */
void store_op_finish(struct store_op *op, struct store_result *result);

/* Ends op now as its deadline would end it. */
void store_op_expire(struct store_op *op);

/* Sets *result to status and message, nothing else. Returns NULL, for `return`. */
struct store_op *store_refuse(struct store_result *result, enum store_status status,
			      const char *message);

/*
 * For an operation that is kept: op->call, if there is one, becomes a copy of its own, policy
 * included, for store_drop_call. False when out of memory, and then *op is as it was.
 */
bool store_keep_call(struct circuit_op *op);
void store_drop_call(struct circuit_op *op);

/* The wall clock, or the clock's own; and the same for no stamp. */
int64_t store_now_ms(const struct store_clock *clock);
int64_t store_look_ms(const struct store_clock *clock);

/*
 * Makes the embedded store hold this snapshot as if it had just been written; NULL removes
 * the circuit. A store that is full of tripped circuits keeps what it has.
 */
void store_memory_put(struct store *s, const char *key, size_t key_len,
		      const struct circuit *circuit);

/* Runs the operation as submit does, but changes nothing: says what it would have changed. */
enum circuit_effect store_memory_try(struct store *s, const struct store_request *request,
				     struct store_result *result);

/* As that, with the circuit's member; store_memory_put leaves the member that it has. */
void store_memory_put_breaker(struct store *s, const char *key, size_t key_len,
			      const struct circuit *circuit, const struct breaker *breaker);

/*
 * What a listing showed of a circuit, asked for at asked_ms (monotonic) or later: its snapshot and
 * override; the rest of the member stays. What was written here since is newer and stays. A circuit
 * that is not here is added if `add`.
 */
void store_memory_put_item(struct store *s, const struct store_item *item, int64_t asked_ms,
			   bool add);

/*
 * Keeps the steps of `queues`, and what s holds of their circuits, in a file from now on; s is
 * just made, and both are empty. As store_memory_keep. The queues outlive s, or
 * store_memory_keep_end.
 */
int store_memory_keep_steps(struct store *s, struct circuit_queues *queues, const char *path,
			    struct metrics *metrics, struct log *log, char *why, size_t why_size);

/* For a store that keeps its state in a file: is it one; the steps have changed; save at once
 * (state_keeper_save); save what is not saved and keep no more: true if all is on disk. */
bool store_memory_keeps(const struct store *s);
void store_memory_changed(struct store *s);
void store_memory_save(struct store *s, void (*done)(void *arg), void *arg);
bool store_memory_keep_end(struct store *s, int64_t end_ms);

/* Makes a page with room for `room` items; NULL when out of memory. */
struct store_page *store_page_new(size_t room);

/* Adds a copy of the item (`override`: NULL: none); the room must suffice. False when out of
 * memory. */
bool store_page_add(struct store_page *page, const char *key, size_t key_len,
		    const struct circuit *circuit, const struct breaker_override *override);

#endif
