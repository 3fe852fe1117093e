/*
 * Which circuits were seen in main (Redis), and when: what may be answered from memory, and the
 * successes that are held back. The circuits themselves are in the embedded store that goes on when
 * main is away: one memory for both.
 *
 * The table has the circuits that are asked for now. One that nobody asks for any more leaves it
 * when what is known of it has become too old to be an answer.
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

/* Reports of one kind, by their permits, can be sent as one. Two kinds are common: with the permit
 * of a closed circuit; and without a permit, or with that of a circuit that did not exist. A third
 * kind is rare, and sends out the others. */
#define HELD_KINDS 2

TAILQ_HEAD(seen_readers, fallback_op);

/* When main was asked for something. */
struct seen_asked {
	int64_t ms;    /* when the request came (monotonic) */
	uint64_t told; /* how many messages had come when the request was handed to main */
};

enum seen_list {
	SEEN_IN_NONE,  /* it is being refreshed, or nothing is known */
	SEEN_IN_FRESH, /* known, and not due to be refreshed yet */
	SEEN_IN_HELD,  /* to be refreshed a bit later, by the successes that are held back */
	SEEN_IN_AGING, /* due to be refreshed, but nobody asks for it */
};

struct seen_circuit {
	struct keynode node;
	struct fallback_store *store;
	TAILQ_ENTRY(seen_circuit) entry;
	enum seen_list list;
	bool in_use;      /* a function uses it: it must not be freed */
	int64_t asked_ms; /* when it was last asked for (monotonic); SEEN_NEVER: only once so far */
	int64_t known_ms; /* main had it so at this time (monotonic) or later; SEEN_NEVER */
	uint32_t generation; /* of known_ms; not that of struct seen: nothing is known */
	/* What is known of it. */
	bool exists;
	enum circuit_state state;
	int64_t change_ms; /* lastStateChange */
	/* The read that is under way in main, or NULL. */
	struct store_op *refresh;
	struct seen_asked refresh_asked;
	bool stale_refresh; /* the circuit changed since: the answer is to be ignored */
	/* Operations that wait for the answer to the read, or to reports that are under way. */
	struct seen_readers readers;
	unsigned reader_count;
	TAILQ_ENTRY(seen_circuit) woken_entry;
	bool woken; /* in the list `woken`: the answer has come */
	/* Successes that were answered and that main does not have. */
	TAILQ_ENTRY(seen_circuit) held_entry;
	struct circuit_op held[HELD_KINDS]; /* call->count says how many; without a call: none */
	uint32_t held_count;
	int64_t held_ms;       /* since when (monotonic) */
	unsigned held_sending; /* operations under way that take some to main */
	bool held_listed;
};
TAILQ_HEAD(seen_circuits, seen_circuit);

#define SEEN_NEVER INT64_MIN

/*
 * What a message told of a circuit of late, whether the circuit has an entry or not. An answer of
 * main that was asked for before the message came and does not show the change is older than the
 * message.
 */
struct seen_told {
	uint64_t hash;     /* of the key */
	uint64_t number;   /* of the message */
	int64_t change_ms; /* lastStateChange; or SEEN_UNSURE */
	bool exists;
};

/* It is unknown which of two changes is the later one: any answer that was asked for before the
 * message counts as older. */
#define SEEN_UNSURE INT64_MAX

/* The last ones are kept by hash: SEEN_TOLD_EACH places for each remainder. */
#define SEEN_TOLD_EACH 8
#define SEEN_TOLD      1024

struct seen {
	struct keytable table;
	struct seen_circuits fresh;     /* SEEN_IN_FRESH, in the order of known_ms */
	struct seen_circuits reporting; /* SEEN_IN_HELD, in the order of known_ms */
	struct seen_circuits aging;     /* SEEN_IN_AGING, in the order of known_ms */
	struct seen_circuits held;      /* in the order of held_ms */
	struct seen_circuits woken;     /* those whose readers go on in the next turn of the loop */
	struct event *wake_timer;       /* for `woken` */
	struct event *send_timer;       /* the first in `held` is due */
	struct event *refresh_timer;    /* the first in a list by known_ms is due */
	int64_t refresh_timer_ms;       /* when it fires (monotonic), while it is pending */
	int64_t send_until_ms;          /* what was held back until then goes out now (monotonic) */
	uint32_t generation;            /* how often main has gone away */
	int64_t round_trip_eighths;     /* the average round trip of late, in 1/8 ms */
	int64_t short_trip_512ths; /* the same of the short ones, in 1/512 ms: it rises slowly */
	struct random_state random;
	unsigned refreshing; /* reads under way for entries */
	unsigned asking;     /* reads under way for the memory for an absence only */
	uint64_t pending;    /* successes held back or on their way */
	uint64_t told_count; /* how many messages have come */
	uint64_t told_lost;  /* the number of the last message that has lost its place in `told` */
	struct seen_told told[SEEN_TOLD];
	int64_t reset_ms;   /* when main last answered a reset (monotonic) */
	int64_t removed_ms; /* when a circuit was last seen to be reset (the embedded store's
			       monotonic time) */
};

#endif
