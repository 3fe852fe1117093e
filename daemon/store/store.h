/*
 * The store interface: operations on circuits (circuit.h) and a listing, whatever keeps the
 * circuits.
 *
 * Completion. store_submit and store_list either finish at once (they return NULL, *result
 * is set, the callback never comes) or return an op (*result is not set, the callback
 * comes exactly once, later, never from inside the call). After store_cancel it never
 * comes. The embedded store, a refusal and a link that is down finish at once, and need no queue.
 *
 * Inside the callback the store may be used, but neither freed nor reconfigured.
 * Everything here belongs to the one event loop; nothing blocks.
 */
#ifndef BREAKERD_STORE_H
#define BREAKERD_STORE_H

#include "proto/breaker.h"
#include "proto/circuit.h"
#include "proto/key.h"

#include <stdint.h>

struct event_base;
struct log;
struct metrics;
struct store;
struct store_op;

enum store_status {
	STORE_OK,
	STORE_CONFLICT,    /* `from` did not hold; circuit is the current snapshot */
	STORE_UNAVAILABLE, /* the store is away; surely not applied */
	STORE_UNKNOWN,     /* a write that was handed over and not answered; may be applied */
	STORE_TIMEOUT,     /* a read that was not answered in time */
	STORE_ERROR,       /* the store's own error, its words in message; not applied */
	STORE_FULL,        /* the embedded store has no room; not applied */
	STORE_OVERLOADED,  /* max_in_flight operations are waiting; not applied */
	STORE_BAD_CURSOR,  /* the cursor of a listing did not come from this store */
};

struct store_request {
	const char *key; /* a valid key (key.h); need not outlive the call */
	size_t key_len;
	struct circuit_op op; /* nor need op.call, or its policy */
	/* CIRCUIT_GET_STATE on Redis: read behind all writes that were submitted before. */
	bool behind_writes;
	/* CIRCUIT_GET_STATE on Redis: the result has the member, and a circuit that does not exist
	 * has no lastStateChange. */
	bool with_member;
	/* CIRCUIT_GET_STATE on Redis: the result is `overtaken`, too, if a write of this circuit
	 * has not ended when the answer comes. */
	bool must_be_last;
	/* A write on Redis that nobody waits for: it has no deadline. */
	bool background;
};

/* Room for any cursor with its NUL: letters, digits, '-', '_' and '.' only. */
#define STORE_CURSOR_MAX 1536

struct store_query {
	bool has_state; /* only circuits in this state */
	enum circuit_state state;
	char prefix[KEY_MAX]; /* only keys that begin with this */
	size_t prefix_len;
	unsigned limit;                /* 1 to 1000 */
	bool background;               /* no client waits: max_in_flight does not limit it */
	char cursor[STORE_CURSOR_MAX]; /* "" to begin */
};

struct store_item {
	struct circuit circuit;
	char *key; /* no NUL */
	size_t key_len;
	struct breaker_override *override; /* or NULL */
};

/*
 * A page of a listing. It may have a cursor although it holds fewer items than the limit, or none:
 * a listing works in bounded steps. A circuit that exists from the first page to the last is in
 * exactly one of them.
 */
struct store_page {
	struct store_item *items;
	size_t count;
	char cursor[STORE_CURSOR_MAX]; /* "" behind the last page */
};

struct store_result {
	enum store_status status;
	bool timed_out;         /* the operation's deadline ended it */
	bool degraded;          /* answered by the fallback while Redis is away */
	bool absent;            /* a read of a circuit that does not exist */
	bool overtaken;         /* a read: a write of this circuit may have come after it */
	struct circuit circuit; /* STORE_OK (but for a reset and a listing), STORE_CONFLICT */
	enum circuit_state was; /* the state before what was applied */
	struct breaker_answer decision; /* STORE_OK of CIRCUIT_ACQUIRE and CIRCUIT_REPORT */
	/* The circuit's member, if a store that can be away has read it; else NULL. Valid as long
	 * as `message`. */
	const struct breaker *breaker;
	/* The override that holds (not for a listing), or NULL. Valid as long as `message`.
	 * `circuit` is the circuit underneath. */
	const struct breaker_override *override;
	bool was_overridden;     /* before CIRCUIT_OVERRIDE or CIRCUIT_END_OVERRIDE */
	int64_t now_ms;          /* the store's clock, where there is an override */
	const char *message;     /* why, for a person: NULL, or valid until the callback returns */
	struct store_page *page; /* a listing's STORE_OK: the receiver frees it, store_page_free */
};

typedef void store_done_fn(void *arg, struct store_result *result);

/* Runs one operation. "Completion" above says when the answer comes. */
struct store_op *store_submit(struct store *s, const struct store_request *request,
			      store_done_fn *done, void *arg, struct store_result *result);

/* Lists circuits, in no order. The answer comes as with store_submit. */
struct store_op *store_list(struct store *s, const struct store_query *query, store_done_fn *done,
			    void *arg, struct store_result *result);

/* Cancels an op whose callback has not come. What was handed over may still happen. */
void store_cancel(struct store_op *op);

void store_page_free(struct store_page *page);

/* Sends what was submitted now rather than in the next turn of the loop, if the store waits for no
 * answer: more may come meanwhile. To be called after the
 * last of the requests that came together. From the loop; of the store's callbacks, only
 * store_on_answered's may call it. */
void store_flush(struct store *s);

/* Calls answered(arg), from the loop, after the callbacks of operations that were answered
 * together. There is one such callback; NULL removes it. */
void store_on_answered(struct store *s, void (*answered)(void *arg), void *arg);

enum store_condition {
	STORE_READY,
	STORE_DEGRADED, /* Redis is away, the embedded store serves */
	STORE_AWAY,     /* no operation can succeed */
};

struct store_health {
	enum store_condition condition;
	const char *store;    /* "memory", "redis": static */
	char reason[256];     /* why it is not ready, for a person and without secrets; or "" */
	int64_t since_ms;     /* since when, epoch milliseconds */
	unsigned in_flight;   /* operations waiting for an answer */
	bool suspect;         /* Redis is away, but connected: it may be ready again in a moment */
	uint64_t held;        /* successes held back or on their way, while they can be sent */
	size_t unsettled;     /* circuits that changed while Redis was away and are now folded in */
	bool counts_circuits; /* metrics->circuits counts all of its circuits by state */
	char detail[256];     /* where it is and what it says of itself, for GET /; or "" */
};

void store_health(struct store *s, struct store_health *health);

/* Calls changed(arg) whenever the condition or the reason in the store's health changes, from the
 * loop or from inside a call; it must not free the store. There is one watcher; NULL removes it. */
void store_watch(struct store *s, void (*changed)(void *arg), void *arg);

/* What can change while the store runs. */
struct store_limits {
	unsigned timeout_ms;    /* of one operation */
	unsigned max_in_flight; /* operations waiting for an answer */
	int64_t ttl_ms;         /* time to live of a circuit, renewed by each write */
	size_t max_circuits;    /* embedded store */
	/* On Redis. With all of them 0 each operation asks Redis. */
	unsigned max_staleness_ms;   /* knowledge up to this age answers acquire ... */
	bool read_cache;             /* ... and getState */
	unsigned report_interval_ms; /* successes are held back for at most this long */
};

void store_reconfigure(struct store *s, const struct store_limits *limits);

/* For a stop: sends what is held back. All has arrived when `held` and `unsettled` in the health
 * are 0. If Redis is there now, both count from now on also while it is briefly away. */
void store_send_held(struct store *s);

/* What changed a circuit. */
enum store_by {
	STORE_BY_REPORT,
	STORE_BY_ACQUIRE,
	STORE_BY_TRANSITION,
	STORE_BY_RESET,
	STORE_BY_OVERRIDE,
	STORE_BY_ELSEWHERE, /* another program, or unknown */
};

/* A circuit's state or override has changed, or it was reset. */
struct store_change {
	/* NULL: this tells no change, and only `live` is set. */
	const char *key;
	/* True: from now on all changes are told, but some before may have been missed. False: some
	 * may be missed from now on. */
	bool live;
	size_t key_len;
	struct circuit circuit; /* as it is now; a reset one is closed, with zeros */
	const struct breaker_override *override; /* or NULL */
	enum store_by by;
	const char *why; /* the figures that led to it, or NULL */
};

/*
 * Calls fn for changes of circuits, whichever daemon made them, in the order in which the store
 * made them; from the loop or from inside a call. A change may be told twice. What other programs
 * change is told when it is read. There is one follower; NULL removes it.
 */
typedef void store_follow_fn(void *arg, const struct store_change *change);
void store_follow(struct store *s, store_follow_fn *fn, void *arg);

/* The store's clock, as last measured: epoch milliseconds. */
int64_t store_clock_ms(struct store *s);

/* True if the circuit fits the query. */
bool store_query_matches(const struct store_query *query, const char *key, size_t key_len,
			 enum circuit_state state);

/*
 * Tells the store by when store_free must be over (monotonic, clock_ms), whatever the disk
 * does meanwhile. A store that holds stores tells them in its own free.
 */
void store_end_by(struct store *s, int64_t end_ms);

/* Ops still pending are cancelled: their callbacks never come. NULL is allowed. */
void store_free(struct store *s);

/* Where a store gets the time, in milliseconds; NULL for the system's clocks. */
typedef int64_t store_clock_fn(void *arg);
struct store_clock {
	store_clock_fn *now_ms;       /* since the epoch: stamps; NULL: clock_forward_ms */
	store_clock_fn *monotonic_ms; /* the time to live */
	void *arg;
	store_clock_fn *peek_ms; /* as now_ms, but no stamp is made of it; NULL: now_ms */
};

/* The embedded store. NULL when out of memory. `metrics` may be NULL; all but `limits` must
 * outlive the store. */
struct store *store_memory_new(struct event_base *base, const struct store_limits *limits,
			       struct store_clock clock, struct metrics *metrics);

/*
 * Keeps the embedded store s, just made and empty, in a file from now on (state_keeper.h):
 * restores it at once, which blocks. 0; or -1 with one sentence in why, and s is as before.
 * `log` may be NULL and must outlive the store.
 */
int store_memory_keep(struct store *s, const char *path, struct log *log, char *why,
		      size_t why_size);

/*
 * A store in front of `main`. It remembers the circuits seen there, answers from memory what
 * max_staleness allows, and holds back successes. While main is away it goes on with what it
 * remembers; when main is back, it folds what was recorded meanwhile into main. It owns main from
 * now on, and frees it also when it returns NULL.
 */
struct store *store_fallback_new(struct event_base *base, struct store *main,
				 const struct store_limits *limits, struct store_clock clock,
				 struct metrics *metrics, struct log *log);

/* While main is away s, which is new, does not go on by itself: it answers as main does. */
void store_fallback_refuse(struct store *s);

/*
 * Keeps what waits to be folded into main in a file from now on; s is new. What an earlier process
 * left there waits again. 0; or -1 with one sentence in why, and s is as before.
 */
int store_fallback_keep(struct store *s, const char *path, char *why, size_t why_size);

#endif
