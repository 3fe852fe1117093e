/*
 * The policy machine: whether a request may pass, and what its outcome does to the circuit. Pure
 * functions on a circuit, its member `breakerd` (struct breaker), a policy and a time: no I/O, no
 * clock, no allocation. The stores call these; circuit.lua does the same in Redis.
 *
 * What holds beyond the rules of states, windows and probes:
 * - The member belongs to one state and one lastStateChange of the circuit. If the circuit has
 *   others, somebody else has moved it. Then the window is empty, no permits are out, `openings` is
 *   0 and the last opening is forgotten. An override stays.
 * - The length of an opening and the deadline of a probe are fixed when they begin. A changed
 *   policy holds for the next ones; but see below for probes.
 * - A probe that has more than probe_timeout left, because the setting was lowered or the clock was
 *   set back, has that much from then on.
 * - A window never goes back. While the clock is behind the newest slot by less than a window, that
 *   slot is the current one. If the clock is further behind, or as far ahead, the window is empty.
 * - If the window's length changes, the counts are kept: those of each old slot go to the new slot
 *   in which the old one began.
 * - min_reporters counts numbers of daemons. A daemon draws its number at random, one of
 *   BREAKER_REPORTERS, so one pair of daemons in 936 has the same number and counts as one daemon.
 *   (Of fleets of 16, one in eight has such a pair.) Daemons never count for more than they are. A
 *   slot has room for BREAKER_SLOT_REPORTERS, the most that a policy can ask for.
 * - A transition that passes breaker_run or breaker_obey always resets the member. One by another
 *   program is noticed by its lastStateChange, so it is missed if it is to the same state and in
 * the same millisecond as the change before it. In the same way a permit of a closed circuit, told
 * by lastStateChange alone, still counts after a transition from closed to closed in that
 *   millisecond.
 * - A stamp that is ahead of the clock by more than BREAKER_AHEAD_MAX_MS comes from another clock,
 *   or from this one before it was set back. An opening with such a stamp is over.
 * - A permit of a circuit that did not exist counts if the circuit does not exist, or is closed and
 *   has not changed its state since it was created. If a circuit has no member, it counts as
 *   unchanged if something was recorded in it. A reset leaves no trace. So a permit that was given
 *   before the circuit was first created cannot be told from one given after the reset: both count.
 * - The permit is checked before the outcome `ignored`.
 */
#ifndef BREAKERD_PROTO_BREAKER_H
#define BREAKERD_PROTO_BREAKER_H

#include "proto/breaker_types.h"

/* Sets *b to what a circuit without a member `breakerd` has. */
void breaker_none(struct breaker *b);

/*
 * Runs CIRCUIT_ACQUIRE or CIRCUIT_REPORT at now_ms on the circuit *c (as in circuit_apply) and its
 * member. CIRCUIT_READ: nothing changed that is to be stored, though *b may have been reset.
 * CIRCUIT_WRITTEN: store *c and *b, and renew the time to live.
 */
enum circuit_effect breaker_apply(struct circuit *c, bool exists, struct breaker *b,
				  enum circuit_verb verb, const struct breaker_call *call,
				  int64_t now_ms, struct breaker_answer *answer);

/*
 * Runs any operation: the five by circuit_apply and breaker_obey, acquire and report by
 * breaker_apply, which sets *answer. A reset removes the member. *c must be set; circuit_absent
 * sets it if the circuit does not exist.
 */
enum circuit_effect breaker_run(struct circuit *c, bool exists, struct breaker *b,
				const struct circuit_op *op, int64_t now_ms,
				struct breaker_answer *answer);

/* To be called after a transition has made *c: resets the member, if there is one, to that of a
 * circuit of which only *c is known. An override stays. The member is to be stored, too. */
void breaker_obey(const struct circuit *c, struct breaker *b, int64_t now_ms);

/* What CIRCUIT_ACQUIRE answers on a closed or absent circuit without an override, whatever the
 * rest of its member says: a store need not unpack that. */
void breaker_acquire_closed(const struct circuit *c, bool exists, struct breaker_answer *answer);

/*
 * Until when the member matters; from then on the circuit need not be kept for it. That is the
 * latest of: the end of the opening and as much time again (a new opening in that time is longer),
 * the deadlines of probes that are out, and the end of the override. A stamp further ahead than any
 * probe can have counts as the latest that a probe can have.
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

/* "closed", "probe", ..., "counted", "stale", ...: a static string, as in answers and metrics. */
const char *breaker_reason_name(enum breaker_reason reason);

/* Room for breaker_why, its NUL included. */
#define BREAKER_WHY_MAX 128

/* What led to a change, for a person: "5 consecutive failures", "63% of 41 calls failed,
 * 2 reporters". Returns the length. */
size_t breaker_why(char buf[BREAKER_WHY_MAX], const struct breaker_move *move);

#endif
