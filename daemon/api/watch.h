/*
 * What is known of circuits that are not closed or have an override, and the last changes of each
 * circuit. Fed by the store's changes (store_follow), by listings of the store when changes may
 * have been missed, and by reads: those of clients, and its own of circuits that are not closed or
 * have an override (recheck.h). Whatever is told twice is noted once.
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

/* A circuit of which something is known. */
struct watched {
	struct keynode node;
	TAILQ_ENTRY(watched) entry; /* in `active`, or in `past` in the order of the last change */
	struct watch *watch;
	uint64_t serial; /* of its last move into one of these lists; both are sorted by it */
	struct circuit circuit; /* closed and zeros if it is past */
	struct breaker_override *override;
	struct event *end;        /* of the override */
	struct minheap_node open; /* if it is not closed; value: when it left closed */
	int64_t told_ms;          /* monotonic: when something was last heard of it */
	int64_t listed_ms;        /* the same, by a listing; 0: never */
	struct recheck_node check;
	bool ends;   /* its override is over, and it is being read */
	bool unsure; /* what was told last was done without Redis, which may have refused it */
	bool wrote;  /* this daemon did what is read again, and this is what it was: */
	enum store_by wrote_by;
	int64_t wrote_at_ms;
	/* Of a change that is not known yet: what led to it. */
	char *why;
	int64_t why_at_ms;
	bool active;
	unsigned char change_count, change_at; /* a ring: change_at is the next place */
	struct watch_change *changes;
};
TAILQ_HEAD(watched_list, watched);

/* Something has changed: `before` is the state before it. Called once for each. */
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
	/* The circuit leaves its place in `active`, for the end of it perhaps. */
	void (*moves)(void *arg, const struct watched *w);
	/* True while who is told has still to take what was told: a listing waits a little. */
	bool (*busy)(void *arg);
	/* An override is over by itself; `changed` comes next. */
	void (*override_over)(void *arg, const struct watched *w);
	void *arg;
	size_t max;
	struct keytable table;
	struct watched_list active, past;
	uint64_t serial; /* of the last move */
	struct minheap
		open; /* circuits that are not closed, those that left closed first in front */
	size_t change_count; /* of all circuits, at most max */
	/* A listing. */
	struct store_op *op;
	struct store_page *page; /* read, and not taken yet */
	struct store_query query;
	int64_t list_began_ms;
	int64_t busy_ms;       /* since when the listing waits; 0: it does not */
	bool sweeping;         /* all pages are noted: circuits that were in none are gone */
	struct watched *sweep; /* the next one to look at */
	uint64_t list_number;  /* of the last one that has begun */
	bool listing, list_again;
	bool live;     /* the store tells of all changes */
	bool embedded; /* and the store is this process's own */
	bool complete; /* all that an embedded store has is known */
	struct event *retry;
	struct recheck recheck; /* circuits that are active, and those that are doubted */
};

int watch_init(struct watch *w, struct event_base *base, struct store *store, size_t max,
	       struct metrics *metrics);
void watch_fini(struct watch *w);

/* Lists the store, anew if it is being listed. Returns the listing's number, for `listed`. */
uint64_t watch_list(struct watch *w);

/* Something has been read, of whichever circuit: one that is not as it is known is looked after. */
void watch_read(struct watch *w, const char *key, size_t len, enum circuit_state state,
		const struct breaker_override *override);

/* This daemon has done something, `by`: if nobody tells of it, for want of PUBLISH or SUBSCRIBE,
 * the circuit is read. */
void watch_wrote(struct watch *w, const char *key, size_t len, const struct circuit *circuit,
		 const struct breaker_override *override, enum store_by by);

/* What was told last of the circuit was done while the store did not answer: it is read once it
 * does. */
void watch_unsure(struct watch *w, const char *key, size_t len);

/* What led to the change that made the circuit this, which the store does not tell. */
void watch_explain(struct watch *w, const char *key, size_t len, const struct circuit *circuit,
		   const char *why);

/* NULL: nothing is known of it. */
struct watched *watch_find(struct watch *w, const char *key, size_t len);

/* Writes the `max` circuits that have not been closed for longest to out, in that order; how many.
 */
size_t watch_open(const struct watch *w, const struct watched **out, size_t max);

/* For how many milliseconds it has not been closed. */
int64_t watch_open_ms(const struct watched *c);

const char *watch_by_name(unsigned by);

#endif
