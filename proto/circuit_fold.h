/*
 * A step: all that was done to one circuit while Redis was away, to be applied to whatever Redis
 * holds when it is back. Counts are added (to 0 if the circuit was closed or reset meanwhile). The
 * later lastFailureTime stands, and so does the state with the later lastStateChange. A circuit
 * that was reset meanwhile is removed if nobody has written it since.
 *
 * Pure functions, as in circuit.h. In Redis circuit.lua does what circuit_fold_apply does.
 */
#ifndef BREAKERD_PROTO_CIRCUIT_FOLD_H
#define BREAKERD_PROTO_CIRCUIT_FOLD_H

#include "proto/circuit.h"

/* Stamps are epoch milliseconds of Redis's clock; 0 is "none". */
struct circuit_fold {
	int64_t failures; /* to be added */
	int64_t successes;
	bool zero_failures; /* they are added to 0 */
	bool zero_successes;
	bool writes;    /* something was written, after the reset if there was one */
	bool has_state; /* the state is known: from a transition, or seen in Redis before */
	enum circuit_state state;
	bool own_state_change; /* last_state_change was made meanwhile, by our clock */
	int64_t last_state_change;
	int64_t last_failure_time;
	bool own_failure_time; /* last_failure_time was made meanwhile, by our clock */
	int64_t created;       /* when the circuit was created meanwhile, if has_state is false */
	int64_t reset;         /* the last reset */
};

/* Begins an empty step for the circuit last seen as *seen, or for one never seen if that is NULL.
 */
void circuit_fold_begin(struct circuit_fold *fold, const struct circuit *seen);

/* Adds an operation that was applied at now_ms with this effect. */
void circuit_fold_note(struct circuit_fold *fold, const struct circuit_op *op,
		       enum circuit_effect effect, int64_t now_ms);

/* True if there is nothing to be folded. */
bool circuit_fold_empty(const struct circuit_fold *fold);

/* Moves the stamps made meanwhile, when a better offset to Redis's clock is known. */
void circuit_fold_shift(struct circuit_fold *fold, int64_t by_ms);

/* Sets stamps made meanwhile that are later than now to now: a clock was wrong, and an open circuit
 * would stay open for too long. Stamps up to CIRCUIT_FOLD_APART_MS later are left, as clocks differ
 * that much without being wrong. */
#define CIRCUIT_FOLD_APART_MS 1000
void circuit_fold_clamp(struct circuit_fold *fold, int64_t now_ms);

/* Makes *fold a step with the effect of *fold, and then of *later. */
void circuit_fold_append(struct circuit_fold *fold, const struct circuit_fold *later);

/*
 * Applies the step to *c. `written_ms` is when the stored circuit was last written, which its
 * remaining time to live tells; 0 if that is not known. Never returns CIRCUIT_CONFLICT.
 */
enum circuit_effect circuit_fold_apply(struct circuit *c, bool exists, int64_t written_ms,
				       const struct circuit_fold *fold);

/* Whether a step that was sent and not answered has been applied to a circuit. */
enum circuit_fold_trace {
	CIRCUIT_FOLD_UNSURE,
	CIRCUIT_FOLD_TAKEN,
	CIRCUIT_FOLD_NOT_TAKEN, /* it may be sent now */
};

/* How the circuit before the step is known. */
enum circuit_fold_known {
	CIRCUIT_FOLD_UNASKED, /* it is not known */
	CIRCUIT_FOLD_SEEN,    /* it was seen some time before; others may have written it since */
	CIRCUIT_FOLD_ASKED,   /* Redis was asked for it just before the step */
	CIRCUIT_FOLD_PARTS,   /* as CIRCUIT_FOLD_SEEN (NULL: not known), and the first part of the
				 step may have been applied without the rest */
};

/*
 * Compares the circuit as it is `now` (NULL: there is none) with the circuit `before` the step
 * (NULL: there was none), if that is known. Others may have written it in between. UNSURE if the
 * circuit existed before and does not exist now, or if its counts and stamps fit both answers.
 *
 * Two cases cannot be told. If the circuit existed neither before the step nor now, the answer is
 * NOT_TAKEN, though the step may have created it and somebody's reset removed it. And if another
 * gateway's stamp is the same to the millisecond, it is taken for the step's own.
 */
enum circuit_fold_trace circuit_fold_trace(const struct circuit_fold *fold,
					   enum circuit_fold_known known,
					   const struct circuit *before, const struct circuit *now);

/* Room for circuit_fold_encode, its NUL included. */
#define CIRCUIT_FOLD_MAX 192

/*
 * Writes the step as circuit.lua reads it: "w" and nine words, a space before each: failures,
 * successes, zero_failures, zero_successes and writes (0 or 1 each), state (0 closed, 1 open,
 * 2 half-open, 3 not known), last_state_change (if the state is not known: created),
 * last_failure_time, reset. Returns the length without the NUL.
 */
size_t circuit_fold_encode(char buf[CIRCUIT_FOLD_MAX], const struct circuit_fold *fold);

#endif
