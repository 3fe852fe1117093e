/*
 * What was done to one circuit while Redis was away, gathered into a single step to be
 * taken on whatever Redis holds when it is back: counts are added (to nothing where the
 * circuit was closed or reset meanwhile), the later lastFailureTime and the state with the
 * later lastStateChange stand, a circuit reset meanwhile is removed if nobody wrote it
 * since. Pure functions, as circuit.h; circuit.lua does the same in circuit_fold_apply's place.
 */
#ifndef BREAKERD_PROTO_CIRCUIT_FOLD_H
#define BREAKERD_PROTO_CIRCUIT_FOLD_H

#include "proto/circuit.h"

/* Stamps are epoch milliseconds of Redis's clock, 0 is "none". */
struct circuit_fold {
	int64_t failures; /* to be added */
	int64_t successes;
	bool zero_failures; /* ... to nothing */
	bool zero_successes;
	bool writes;    /* something was written, behind the reset if there was one */
	bool has_state; /* the state is a transition's, or was seen in Redis before */
	enum circuit_state state;
	bool own_state_change; /* last_state_change was made meanwhile, by our clock */
	int64_t last_state_change;
	int64_t last_failure_time;
	bool own_failure_time;
	int64_t created; /* when the circuit came to be meanwhile: has_state is false */
	int64_t reset;   /* the last reset */
};

/* Nothing done yet, to the circuit last seen as *seen, or, with NULL, to one never seen. */
void circuit_fold_begin(struct circuit_fold *fold, const struct circuit *seen);

/* Adds an operation that was applied at now_ms with this effect. */
void circuit_fold_note(struct circuit_fold *fold, const struct circuit_op *op,
		       enum circuit_effect effect, int64_t now_ms);

/* True if there is nothing to be folded. */
bool circuit_fold_empty(const struct circuit_fold *fold);

/* Corrects the stamps made meanwhile, when a better offset to Redis's clock is known. */
void circuit_fold_shift(struct circuit_fold *fold, int64_t by_ms);

/* A stamp made meanwhile that is later than now becomes now: a clock was wrong, and an open circuit
 * would stay open until then. Up to CIRCUIT_FOLD_APART_MS clocks differ without being wrong. */
#define CIRCUIT_FOLD_APART_MS 1000
void circuit_fold_clamp(struct circuit_fold *fold, int64_t now_ms);

/* *fold becomes one step with the effect of first *fold, then *later. */
void circuit_fold_append(struct circuit_fold *fold, const struct circuit_fold *later);

/*
 * Takes the step on *c. `written_ms` is when the stored circuit was last written, by its
 * remaining time to live, 0 if that is not known. Never CIRCUIT_CONFLICT.
 */
enum circuit_effect circuit_fold_apply(struct circuit *c, bool exists, int64_t written_ms,
				       const struct circuit_fold *fold);

/* What a circuit says of whether a step, handed over and not answered, was taken on it. */
enum circuit_fold_trace {
	CIRCUIT_FOLD_UNSURE,
	CIRCUIT_FOLD_TAKEN,
	CIRCUIT_FOLD_NOT_TAKEN, /* it may be taken now */
};

/* How the circuit before the step is known. */
enum circuit_fold_known {
	CIRCUIT_FOLD_UNASKED, /* it is not */
	CIRCUIT_FOLD_SEEN,    /* some time before; others may have written it in between */
	CIRCUIT_FOLD_ASKED,   /* Redis was asked for it just before the step */
	CIRCUIT_FOLD_PARTS,   /* as SEEN (NULL: it is not), and the first part of the step may have
				 been taken without the rest */
};

/*
 * Looks at the circuit as it stands `now` (NULL: there is none) and as it stood before the
 * step, if that is known (NULL: there was none). Others may have written it since. Where it
 * was there before and is gone, or its counts and stamps fit both, the answer is UNSURE.
 *
 * Two things cannot be told. A circuit that was not there before the step and is not there now
 * counts as NOT_TAKEN, though the step may have made it and another one's reset removed it. And
 * a stamp of another gateway that is the same to the millisecond is taken for the step's own.
 */
enum circuit_fold_trace circuit_fold_trace(const struct circuit_fold *fold,
					   enum circuit_fold_known known,
					   const struct circuit *before, const struct circuit *now);

/* Room for circuit_fold_encode, its NUL included. */
#define CIRCUIT_FOLD_MAX 192

/*
 * The step as circuit.lua reads it: "w", then nine words, each behind a space: failures,
 * successes, zero_failures, zero_successes, writes (0 or 1 each), state (0 closed, 1 open,
 * 2 half-open, 3 none), last_state_change (created, if there is no state),
 * last_failure_time, reset. Returns the length without the NUL.
 */
size_t circuit_fold_encode(char buf[CIRCUIT_FOLD_MAX], const struct circuit_fold *fold);

#endif
