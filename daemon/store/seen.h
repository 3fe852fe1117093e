/*
 * Which circuits were seen in main, and when: what may be answered from memory, and the successes
 * that are held back. The circuits themselves are in the embedded store that goes on when main is
 * away: one memory for both.
 *
 * A table of those that are asked for now. Who is not asked for any more leaves it when what is
 * known of it has become too old to be an answer.
 */
#ifndef BREAKERD_SEEN_H
#define BREAKERD_SEEN_H

#include "base/keytable.h"
#include "base/random.h"
#include "proto/circuit.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct fallback_op;
struct fallback_store;
struct store_op;

/* Reports alike, by their permits: those of a closed circuit, and those without or of one that did
 * not exist. More kinds at once are rare, and go out one after the other. */
#define HELD_KINDS 2

TAILQ_HEAD(seen_readers, fallback_op);

/* When main was asked for something. */
struct seen_asked {
	int64_t ms;    /* the request came then (monotonic) */
	uint64_t told; /* messages that had come when it was handed to main */
};

enum seen_list {
	SEEN_IN_NONE,  /* it is being refreshed, or nothing is known */
	SEEN_IN_FRESH, /* known, and not yet to be refreshed */
	SEEN_IN_HELD,  /* to be refreshed, by the successes that are held back: a bit later */
	SEEN_IN_AGING, /* it would be refreshed, but nobody asks */
};

struct seen_circuit {
	struct keynode node;
	struct fallback_store *store;
	TAILQ_ENTRY(seen_circuit) entry;
	enum seen_list list;
	bool in_use;         /* not to be removed now */
	int64_t asked_ms;    /* when it was last asked for (monotonic), but for the first time */
	int64_t known_ms;    /* main had it so then (monotonic), or later; SEEN_NEVER */
	uint32_t generation; /* of known_ms; an earlier one: nothing is known */
	bool exists;         /* what is known: whether it is there, ... */
	enum circuit_state state; /* ... its state ... */
	int64_t change_ms;        /* ... and its lastStateChange */
	struct store_op *refresh; /* main is asked for it */
	struct seen_asked refresh_asked;
	bool stale_refresh;          /* something happened since: its answer says nothing */
	struct seen_readers readers; /* operations that wait for its answer, or for that of
					reports under way, */
	unsigned reader_count;       /* and how many */
	TAILQ_ENTRY(seen_circuit) woken_entry;
	bool woken; /* reports have been answered: they wait no longer */
	/* Successes that were answered and that main does not have. */
	TAILQ_ENTRY(seen_circuit) held_entry;
	struct circuit_op held[HELD_KINDS]; /* no call: none. Its call's count says how many */
	uint32_t held_count;
	int64_t held_ms;       /* since when (monotonic) */
	unsigned held_sending; /* operations that take some to main */
	bool held_listed;
};
TAILQ_HEAD(seen_circuits, seen_circuit);

#define SEEN_NEVER INT64_MIN

/*
 * What a message told of a circuit of late, whether it has an entry or not: an answer of main that
 * was asked for before the message came and does not know of the change is older than the message.
 */
struct seen_told {
	uint64_t hash;     /* of the key */
	uint64_t number;   /* of the message */
	int64_t change_ms; /* lastStateChange; or SEEN_UNSURE */
	bool exists;
};

/* It is not known which of two changes is the later one: no answer asked for before knows of it. */
#define SEEN_UNSURE INT64_MAX

/* Those of late, by hash: a few for each remainder. */
#define SEEN_TOLD_EACH 8
#define SEEN_TOLD      1024

struct seen {
	struct keytable table;
	struct seen_circuits fresh;     /* in the order of known_ms */
	struct seen_circuits reporting; /* SEEN_IN_HELD; the same */
	struct seen_circuits aging;     /* the same */
	struct seen_circuits held;      /* in the order of held_ms */
	struct seen_circuits woken;     /* those with `woken`: operations go on ... */
	struct event *wake;             /* ... in the next turn of the loop */
	uint32_t generation;            /* main has gone so often */
	int64_t send_until_ms;          /* what was held back until then goes out (monotonic) */
	struct event *tick;             /* the first of a list by known_ms is due, ... */
	int64_t tick_ms;                /* ... at this time (monotonic), while it is pending */
	struct event *send;             /* the first in held is due */
	int64_t round_trip_eighths;     /* of a millisecond, an average of late; */
	int64_t short_trip_512ths;      /* that of the short ones: it rises slowly */
	struct random_state random;
	unsigned refreshing; /* circuits that main is asked for, ... */
	unsigned asking;     /* ... and those for memory alone */
	uint64_t pending;    /* successes held back or on their way */
	uint64_t told_count; /* messages that have come, ... */
	uint64_t told_lost;  /* ... and the last of those that have no place in `told` any more */
	struct seen_told told[SEEN_TOLD];
	int64_t reset_ms;   /* when main last answered a reset (monotonic) */
	int64_t removed_ms; /* when a circuit was last seen to be reset (the embedded store's
			       monotonic time) */
};

#endif
