/*
 * The policy machine: may a request pass, and what does its outcome do to the circuit. Pure
 * functions on a circuit, its member `breakerd` (struct breaker), a policy and a time: no I/O,
 * no clock, no allocation. The stores call these; circuit.lua says the same to Redis.
 *
 * What holds beyond the rules of states, windows and probes:
 * - The member belongs to one state of the circuit and one lastStateChange. If the circuit has
 *   another, someone else has moved it: the window is empty, no permits are out, n is 0 and the
 *   last opening is forgotten. An override stays.
 * - The length of an opening and the deadline of a probe are fixed when they begin. A changed
 *   policy holds for the next ones.
 * - A window never goes back: while the clock is behind its newest slot by less than a window,
 *   that slot is the current one. Further behind, as far ahead, the window is empty.
 * - A window of another length keeps the counts: each old slot's go to the new slot in which the
 *   old one began.
 * - min_reporters counts the numbers of daemons. A number is drawn at random, one of
 *   BREAKER_REPORTERS, so of two daemons one in 936 pairs is taken for one daemon (of 16, one
 *   fleet in eight has such a pair). They are never counted for more than they are. A slot
 *   remembers BREAKER_SLOT_REPORTERS of them, which is as many as a policy can ask for.
 * - A transition by one of the five that passes breaker_run or breaker_obey is obeyed at whatever
 *   time it comes. One by another program is told by its time, in milliseconds: one to the same
 *   state in the very millisecond of the change before it is not noticed. A permit of a closed
 *   circuit is told by lastStateChange alone: given earlier in the very millisecond of a transition
 *   from closed to closed, it still counts.
 * - A stamp ahead of the clock by more than BREAKER_AHEAD_MAX_MS is of another clock, or of this
 * one before it was set back. An opening since then is over; a probe whose deadline is further off
 *   than probe_timeout and that much is lost.
 * - A permit of a circuit that did not exist counts where there is none, or a closed one that has
 *   not changed its state since it was created. Where no decision has been made on a circuit, it
 *   has not if something is counted in it. A reset leaves no trace by which a permit given before
 *   the circuit came to exist could be told from one given behind the reset: both count.
 * - What a permit is decides before the outcome `ignored` does.
 */
#ifndef BREAKERD_PROTO_BREAKER_H
#define BREAKERD_PROTO_BREAKER_H

#include "proto/circuit.h"
#include "proto/policy.h"

#define BREAKER_SLOTS          10
#define BREAKER_REPORTERS      936 /* numbers of daemons: 0 to 935 */
#define BREAKER_SLOT_REPORTERS 16
#define BREAKER_REASON_MAX     200 /* bytes of an override's reason */

/* How long an override may be meant to last: 30 days. */
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
	bool exists;              /* there is such a member: what is written has it */
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

	/* The last half-open time, now or past. Once it is past, these are the permits that were
	 * out at its end, their deadlines without meaning. */
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
	BREAKER_PERMIT_OBSERVED,   /* would have been refused, but for enforce = no */
	BREAKER_PERMIT_OVERRIDDEN, /* would have been refused, but for an override */
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
 * What is asked: the argument of the operations from CIRCUIT_ACQUIRE on. `policy` and `override`
 * are read during the call only: a store that keeps the operation for later copies all of it.
 */
struct breaker_call {
	const struct policy *policy; /* CIRCUIT_ACQUIRE and CIRCUIT_REPORT; else NULL */
	uint32_t random;   /* CIRCUIT_ACQUIRE: 24 random bits or more, new for each call */
	uint16_t reporter; /* CIRCUIT_REPORT: this daemon's number, below BREAKER_REPORTERS */
	/* CIRCUIT_REPORT. So many reports alike, one behind the other: more than one only if each
	 * is a success, not slow, with no probe's permit. */
	uint32_t count;
	enum breaker_outcome outcome;
	bool slow; /* took policy->slow_time_ms or longer, which is not 0 */
	struct breaker_permit permit;
	/* CIRCUIT_OVERRIDE: mode and reason. It begins now; until_ms is how long it lasts. */
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

/* "closed", "probe", ..., "counted", "stale", ...: a static string, as in answers and metrics. */
const char *breaker_reason_name(enum breaker_reason reason);

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
 * The answer. In terms of the five operations the call came to `counted` times recordSuccess or
 * recordFailure, then, if was and state differ, a transition to state.
 */
struct breaker_answer {
	enum circuit_state was, state; /* before and behind; no more than one change a call */
	bool allowed;                  /* acquire */
	uint32_t counted;              /* report: how many of `count`; the others are stale */
	enum breaker_reason reason;    /* of a report that was not counted, or not all of it */
	int64_t retry_after_ms;        /* acquire: 0 if allowed */
	struct breaker_permit permit;  /* acquire: if allowed */
	struct breaker_move move;
};

/* Sets *b to what a circuit without a member `breakerd` has. */
void breaker_none(struct breaker *b);

/*
 * Runs CIRCUIT_ACQUIRE or CIRCUIT_REPORT on the circuit *c (as in circuit_apply) and its member
 * at now_ms. CIRCUIT_READ: nothing changed, though *b may have been tidied up; CIRCUIT_WRITTEN:
 * store *c and *b, and renew the time to live.
 */
enum circuit_effect breaker_apply(struct circuit *c, bool exists, struct breaker *b,
				  enum circuit_verb verb, const struct breaker_call *call,
				  int64_t now_ms, struct breaker_answer *answer);

/*
 * Runs any operation: circuit_apply and breaker_obey for the five, breaker_apply for the others,
 * *answer being theirs. A reset takes away the member. *c must be set, by circuit_absent where it
 * does not exist.
 */
enum circuit_effect breaker_run(struct circuit *c, bool exists, struct breaker *b,
				const struct circuit_op *op, int64_t now_ms,
				struct breaker_answer *answer);

/* After a transition by one of the five, which made *c: the member, if there is one, is as that
 * of a circuit of which nothing else is known, but for an override. It is to be stored, too. */
void breaker_obey(const struct circuit *c, struct breaker *b, int64_t now_ms);

/* What CIRCUIT_ACQUIRE answers on a closed or absent circuit without an override, whatever the
 * rest of its member says: a store need not unpack that. */
void breaker_acquire_closed(const struct circuit *c, bool exists, struct breaker_answer *answer);

/*
 * From when on the member has no say any more, and the circuit need not be kept for it: when the
 * opening is over and as much time again has passed (a new opening in that time is a longer one),
 * when the probes that are out are lost, when the override ends. A stamp that is further ahead
 * than any probe can be counts as that.
 */
int64_t breaker_matters_until(const struct breaker *b, int64_t now_ms);

/* The override that holds at now_ms; NULL: none. */
const struct breaker_override *breaker_override_at(const struct breaker *b, int64_t now_ms);

/* What getState shows of a circuit with this override: open since now, or closed. */
void breaker_override_show(const struct breaker_override *override, struct circuit *c,
			   int64_t now_ms);

/* "forced-open", "forced-closed": a static string. */
const char *breaker_override_name(enum breaker_override_mode mode);

/* How long an opening lasts under this policy if `openings` came before it without recovery:
 * whole milliseconds, rounded up. */
int64_t breaker_open_ms(const struct policy *policy, uint32_t openings);

/* Room for breaker_why, its NUL included. */
#define BREAKER_WHY_MAX 128

/* What led to a change, for a person: "5 consecutive failures", "63% of 41 calls failed,
 * 2 reporters". Returns the length. */
size_t breaker_why(char buf[BREAKER_WHY_MAX], const struct breaker_move *move);

#endif
