/*
 * The circuit and its operations, as pure functions: no I/O, no clock, no allocation. The
 * memory store calls these, and circuit.lua does the same in Redis. One table of cases,
 * tests/cases/circuit.tsv, runs through both.
 */
#ifndef BREAKERD_PROTO_CIRCUIT_H
#define BREAKERD_PROTO_CIRCUIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest integer that every JSON client can hold, 2^53 - 1 (RFC 8259, section 6).
 * Counters stop here, and a stored number beyond it is ill-typed. */
#define CIRCUIT_INT_MAX INT64_C(9007199254740991)

enum circuit_state {
	CIRCUIT_CLOSED,
	CIRCUIT_OPEN,
	CIRCUIT_HALF_OPEN,
};
#define CIRCUIT_STATES 3

/* A snapshot: always all five. Stamps are milliseconds since the epoch, 0 is "never". */
struct circuit {
	int64_t failure_count;
	int64_t success_count;
	int64_t last_failure_time;
	int64_t last_state_change;
	enum circuit_state state;
};

enum circuit_verb {
	CIRCUIT_GET_STATE,
	CIRCUIT_RECORD_SUCCESS,
	CIRCUIT_RECORD_FAILURE,
	CIRCUIT_TRANSITION,
	CIRCUIT_RESET,
	CIRCUIT_ACQUIRE, /* breaker.h */
	CIRCUIT_REPORT,
	CIRCUIT_OVERRIDE,
	CIRCUIT_END_OVERRIDE,
};
#define CIRCUIT_VERBS 9

struct breaker_call;

/* An operation. `to`, `has_from` and `from` belong to CIRCUIT_TRANSITION, `call` to the operations
 * from CIRCUIT_ACQUIRE on. Whoever keeps an operation copies what `call` points to. */
struct circuit_op {
	enum circuit_verb verb;
	enum circuit_state to;
	bool has_from;
	enum circuit_state from;
	const struct breaker_call *call;
};

/* What circuit_apply did, and so what a store has to do. */
enum circuit_effect {
	CIRCUIT_READ,     /* nothing changed */
	CIRCUIT_WRITTEN,  /* store *c and renew its time to live */
	CIRCUIT_REMOVED,  /* forget the circuit */
	CIRCUIT_CONFLICT, /* `from` did not hold: nothing changed */
};

/* "closed", "open", "half-open": a static string. */
const char *circuit_state_name(enum circuit_state state);

/* Reads the name of a state. False, and *out untouched, for anything else. */
bool circuit_state_parse(const char *name, size_t len, enum circuit_state *out);

/* "get_state", "record_success", ...: the name of an operation in metrics and logs. */
const char *circuit_verb_name(enum circuit_verb verb);

/* True for every operation but getState. (acquire writes only now and then.) */
bool circuit_verb_writes(enum circuit_verb verb);

/* Sets *c to what a circuit that does not exist reads as. */
void circuit_absent(struct circuit *c, int64_t now_ms);

/*
 * Applies op, one of the first five, to *c at now_ms; breaker_run does the others. `exists` says
 * whether the circuit is stored; if it is not, *c need not be set. On return *c is the snapshot to
 * answer with (after CIRCUIT_REMOVED: an absent circuit).
 */
enum circuit_effect circuit_apply(struct circuit *c, bool exists, const struct circuit_op *op,
				  int64_t now_ms);

#endif
