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
 *   one before it was set back. An opening since then is over.
 * - A probe that is found with more than probe_timeout left, as the setting was lowered or the
 * clock set back, has that much from then on.
 * - A permit of a circuit that did not exist counts where there is none, or a closed one that has
 *   not changed its state since it was created. Where no decision has been made on a circuit, it
 *   has not if something is counted in it. A reset leaves no trace by which a permit given before
 *   the circuit came to exist could be told from one given behind the reset: both count.
 * - What a permit is decides before the outcome `ignored` does.
 */
#ifndef BREAKERD_PROTO_BREAKER_H
#define BREAKERD_PROTO_BREAKER_H

#include "proto/breaker_types.h"

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

/* "closed", "probe", ..., "counted", "stale", ...: a static string, as in answers and metrics. */
const char *breaker_reason_name(enum breaker_reason reason);

/* Room for breaker_why, its NUL included. */
#define BREAKER_WHY_MAX 128

/* What led to a change, for a person: "5 consecutive failures", "63% of 41 calls failed,
 * 2 reporters". Returns the length. */
size_t breaker_why(char buf[BREAKER_WHY_MAX], const struct breaker_move *move);

#endif
