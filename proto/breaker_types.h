/*
 * What the policy machine works on: the circuit's member `breakerd`, permits, calls and answers.
 * The rules are in breaker.h.
 */
#ifndef BREAKERD_PROTO_BREAKER_TYPES_H
#define BREAKERD_PROTO_BREAKER_TYPES_H

#include "proto/circuit.h"
#include "proto/policy.h"

#define BREAKER_SLOTS          10
#define BREAKER_REPORTERS      936 /* numbers of daemons: 0 to 935 */
#define BREAKER_SLOT_REPORTERS 16
#define BREAKER_REASON_MAX     200 /* bytes of an override's reason */

/* The longest override: 30 days. */
#define BREAKER_OVERRIDE_MAX_MS INT64_C(2592000000)

/* The longest probe_timeout. */
#define BREAKER_PROBE_TIMEOUT_MAX_MS 3600000

/* How far the clocks that write to one store may be apart. */
#define BREAKER_AHEAD_MAX_MS 60000

/* Counters of the member stop here: nine digits. */
#define BREAKER_COUNT_MAX 999999999

/* A slot of the window. */
struct breaker_slot {
	uint32_t calls;
	uint32_t failures;
	uint32_t slow;
	uint16_t reporters[BREAKER_SLOT_REPORTERS]; /* daemons with a failure or a slow call */
	uint8_t reporter_count;
};

/* A probe's permit that is out. */
struct breaker_probe {
	uint32_t id;         /* 24 bits */
	int64_t deadline_ms; /* from then on it is lost */
};

enum breaker_override_mode { BREAKER_NO_OVERRIDE, BREAKER_FORCED_OPEN, BREAKER_FORCED_CLOSED };

struct breaker_override {
	enum breaker_override_mode mode;
	int64_t since_ms, until_ms; /* it holds while now is before until_ms */
	uint8_t reason_len;
	char reason[BREAKER_REASON_MAX]; /* UTF-8, no NUL */
};

/* The member `breakerd`, unpacked; breaker_member.h has its text. */
struct breaker {
	bool exists;              /* the circuit has, or is to be written with, such a member */
	enum circuit_state state; /* it belongs to this state of the circuit ... */
	int64_t since_ms;         /* ... with this lastStateChange */
	bool fresh;               /* closed, and has not changed its state since it was created */
	uint32_t openings;        /* n: openings without recovery before the last one */
	int64_t open_ms; /* how long the last opening was meant to last; 0: none is known */

	/* Closed. */
	uint32_t run;                             /* consecutive failures */
	int64_t window_ms;                        /* of these slots */
	int64_t newest;                           /* the number of the newest slot */
	unsigned slot_count;                      /* 0: an empty window */
	struct breaker_slot slots[BREAKER_SLOTS]; /* newest first */

	/* The current or last half-open time. Of a past one, `probes` are those that were out at
	 * its end, and their deadlines have no meaning. */
	int64_t half_open_ms; /* its lastStateChange; 0: none is known */
	uint32_t passed;      /* probes that succeeded */
	unsigned probe_count;
	struct breaker_probe probes[POLICY_PROBES_MAX]; /* as they were given */

	struct breaker_override override;
};

/* What a permit is. Its text is breaker_permit.h's. */
enum breaker_permit_kind {
	BREAKER_PERMIT_NONE,       /* a report without a permit */
	BREAKER_PERMIT_CLOSED,     /* of a closed circuit with this lastStateChange */
	BREAKER_PERMIT_ABSENT,     /* of a circuit that did not exist */
	BREAKER_PERMIT_PROBE,      /* a probe of the half-open time since then, with an id */
	BREAKER_PERMIT_OBSERVED,   /* given only because of enforce = no */
	BREAKER_PERMIT_OVERRIDDEN, /* given only because of an override */
};
#define BREAKER_PERMITS 6

struct breaker_permit {
	enum breaker_permit_kind kind;
	uint32_t id;      /* BREAKER_PERMIT_PROBE: 24 bits */
	int64_t since_ms; /* BREAKER_PERMIT_CLOSED and _PROBE: the circuit's lastStateChange */
};

enum breaker_outcome { BREAKER_SUCCESS, BREAKER_FAILURE, BREAKER_IGNORED };
#define BREAKER_OUTCOMES 3

/*
 * The argument of the operations from CIRCUIT_ACQUIRE on. `policy` and `override` need only live
 * during the call: a store that keeps the operation for later copies all of it.
 */
struct breaker_call {
	const struct policy *policy; /* CIRCUIT_ACQUIRE and CIRCUIT_REPORT; else NULL */
	uint32_t random;   /* CIRCUIT_ACQUIRE: 24 random bits or more, new for each call */
	uint16_t reporter; /* CIRCUIT_REPORT: this daemon's number, below BREAKER_REPORTERS */
	/* CIRCUIT_REPORT: how many equal reports in a row. More than one only for successes that
	 * are not slow and have no probe's permit. */
	uint32_t count;
	enum breaker_outcome outcome;
	bool slow; /* took policy->slow_time_ms or longer, which is not 0 */
	struct breaker_permit permit;
	/* CIRCUIT_OVERRIDE: mode and reason. The override begins now, and until_ms is how long it
	 * lasts. */
	const struct breaker_override *override;
};

/* Why acquire answered so, or why a report did not count. */
enum breaker_reason {
	BREAKER_CLOSED,
	BREAKER_PROBE,
	BREAKER_OPEN,
	BREAKER_PROBING,
	BREAKER_REASON_FORCED_OPEN,
	BREAKER_REASON_FORCED_CLOSED,
	BREAKER_OBSERVED,
	/* reports */
	BREAKER_COUNTED,
	BREAKER_STALE,
	BREAKER_SPENT,
	BREAKER_REASON_IGNORED,
	BREAKER_OVERRIDDEN,
};
#define BREAKER_REASONS 12

/* What moved a circuit. */
enum breaker_cause {
	BREAKER_NOT_MOVED,
	BREAKER_RUN,           /* closed to open: consecutive failures */
	BREAKER_FAILURE_RATE,  /* closed to open */
	BREAKER_SLOW_RATE,     /* closed to open */
	BREAKER_PROBE_FAILED,  /* half-open to open */
	BREAKER_PROBE_SLOW,    /* half-open to open */
	BREAKER_PROBE_LOST,    /* half-open to open */
	BREAKER_OPENING_OVER,  /* open to half-open */
	BREAKER_PROBES_PASSED, /* half-open to closed */
};

/* The figures that led to a change of state. */
struct breaker_move {
	enum breaker_cause cause;
	uint32_t run;
	uint64_t calls, of_them; /* in the window, and those that failed or were slow */
	unsigned reporters;
	uint32_t passed; /* probes */
	int64_t open_ms; /* how long the circuit is (was) to be open */
};

/*
 * The answer. In terms of the five operations, the call was `counted` times recordSuccess or
 * recordFailure, and then, if `was` and `state` differ, a transition to `state`.
 */
struct breaker_answer {
	enum circuit_state was, state; /* before and after; a call makes one change at most */
	bool allowed;                  /* acquire */
	uint32_t counted;              /* report: how many of `count`; the others are stale */
	enum breaker_reason reason;    /* of a report that was not counted, or not all of it */
	int64_t retry_after_ms;        /* acquire: 0 if allowed */
	struct breaker_permit permit;  /* acquire: if allowed */
	struct breaker_move move;
};

#endif
