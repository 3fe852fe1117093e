/*
 * What is known of circuits that are not closed or have an override, and the last changes of each
 * circuit. It comes from four sources: the store's changes (store_follow), listings of the store
 * when changes may have been missed, what clients read, and rechecks (recheck.h) of circuits that
 * are not closed or have an override. A change that several of them tell is noted once.
 */
#ifndef BREAKERD_API_WATCH_H
#define BREAKERD_API_WATCH_H

#include "api/recheck.h"
#include "base/keytable.h"
#include "base/minheap.h"
#include "store/store.h"

#include <sys/queue.h>

struct event_base;
struct metrics;
struct watch;

#define WATCH_CHANGES 20

struct watch_change {
	int64_t at_ms;
	char *why; /* or NULL */
	unsigned char from, to, by;
};

/* A circuit of which something is known. It is active if it is not closed or has an override, else
 * past. */
struct watched {
	struct keynode node;
	TAILQ_ENTRY(watched) entry;         /* in watch->active or watch->past */
	TAILQ_ENTRY(watched) history_entry; /* in watch->histories, if it has changes */
	struct watch *watch;
	uint64_t serial; /* of its last move into one of these lists; both are sorted by it */
	struct circuit circuit;
	struct breaker_override *override;
	struct event *override_timer; /* of the override */
	struct minheap_node
		open;      /* in watch->open if it is not closed; value: when it left closed */
	int64_t heard_ms;  /* when something was last heard of it; monotonic */
	int64_t listed_ms; /* when a listing last showed it; monotonic; 0: never */
	struct recheck_node check;
	bool override_ending; /* its override is over, and it is being read */
	bool unsure;          /* the last change was made without Redis, which may yet refuse it */
	/* A change that this daemon made and that is being read back: by which operation, and its
	 * lastStateChange. */
	bool wrote;
	enum store_by wrote_by;
	int64_t wrote_at_ms;
	/* What led to a change of which the store has not told yet; and its lastStateChange. */
	char *why;
	int64_t why_at_ms;
	bool active;
	/* Of the ring `changes`: the last change_count places before change_at, which is written
	 * next. */
	unsigned char change_count, change_at;
	struct watch_change *changes;
};
TAILQ_HEAD(watched_list, watched);

/* A circuit has changed; `before` is its state before. Called once for each change. */
typedef void watch_fn(void *arg, const struct watched *w, enum circuit_state before,
		      enum store_by by);

struct watch {
	struct event_base *base;
	struct store *store;
	struct metrics *metrics;
	watch_fn *changed;
	/* The listings up to this number are over: all that the store had when they began is known.
	 */
	void (*listed)(void *arg, uint64_t number);
	/* The circuit is about to leave its place in `active`, perhaps to go to its end. */
	void (*moves)(void *arg, const struct watched *w);
	/* True while the listener is behind with what `changed` told: a listing pauses a little. */
	bool (*busy)(void *arg);
	/* An override has expired; `changed` is called next. */
	void (*override_over)(void *arg, const struct watched *w);
	void *arg;
	size_t max; /* circuits, and changes of all of them together */
	struct keytable table;
	struct watched_list active, past;
	struct watched_list histories; /* circuits with changes, in the order of the last ones */
	uint64_t serial;               /* of the last move into one of these lists */
	struct minheap open;           /* circuits that are not closed, the longest first */
	size_t change_count;
	/* A listing. */
	struct store_op *op;
	struct store_page *page; /* read, but not noted yet */
	struct store_query query;
	int64_t list_began_ms;
	int64_t busy_ms;       /* when the listing's pause began; 0: it does not pause */
	bool sweeping;         /* all pages are noted; circuits that were in none are removed */
	struct watched *sweep; /* the next circuit to check then */
	uint64_t list_number;  /* of the last listing that has begun */
	bool listing;          /* one is under way */
	bool list_again;       /* another one begins at its end */
	bool live;             /* the store tells of all changes */
	bool embedded;         /* the store is this process's own */
	bool complete;         /* all that the embedded store has is known */
	struct event *list_timer;
	struct recheck recheck; /* of circuits that are active or in doubt */
};

int watch_init(struct watch *w, struct event_base *base, struct store *store, size_t max,
	       struct metrics *metrics);
void watch_fini(struct watch *w);

/* Lists the store, or lists it again after the listing that is under way. Returns the number of the
 * new listing, for `listed`. */
uint64_t watch_list(struct watch *w);

/* A client has read a circuit. If it is not as it is known, a recheck finds out. */
void watch_read(struct watch *w, const char *key, size_t len, enum circuit_state state,
		const struct breaker_override *override);

/* This daemon has changed a circuit by the operation `by`. If no message tells of it, as where
 * Redis forbids PUBLISH or SUBSCRIBE, a recheck finds out. */
void watch_wrote(struct watch *w, const char *key, size_t len, const struct circuit *circuit,
		 const struct breaker_override *override, enum store_by by);

/* The circuit's last change was made while the store did not answer: it is rechecked once the store
 * does. */
void watch_unsure(struct watch *w, const char *key, size_t len);

/* Says what led to the change that made the circuit *circuit, for the store does not. */
void watch_explain(struct watch *w, const char *key, size_t len, const struct circuit *circuit,
		   const char *why);

/* The circuit's entry; NULL: nothing is known of it. */
struct watched *watch_find(struct watch *w, const char *key, size_t len);

/* Writes to out the circuits that have not been closed for the longest time, the longest first, at
 * most `max`. Returns how many. */
size_t watch_open(const struct watch *w, const struct watched **out, size_t max);

/* The n-th of the circuit's changes, of which there are change_count; 0 is the newest. */
static inline struct watch_change *watch_change_of(const struct watched *c, unsigned n)
{
	return &c->changes[(c->change_at + WATCH_CHANGES - 1 - n) % WATCH_CHANGES];
}

/* For how many milliseconds the circuit has not been closed. */
int64_t watch_open_ms(const struct watched *c);

const char *watch_by_name(unsigned by);

#endif
