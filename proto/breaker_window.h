/*
 * The window of the policy machine: counts of calls in ten slots of time, and whether they open the
 * circuit. For breaker.c alone.
 */
#ifndef BREAKERD_PROTO_BREAKER_WINDOW_H
#define BREAKERD_PROTO_BREAKER_WINDOW_H

#include "proto/breaker_types.h"

/* Empties the window and ends the run of failures. */
void breaker_window_clear(struct breaker *b);

/* Makes the newest slot the one of now_ms, in a window of window_ms. */
void breaker_window_advance(struct breaker *b, int64_t window_ms, int64_t now_ms);

/*
 * Counts call->count equal reports in the newest slot, up to the one that opens the circuit.
 * Returns how many were counted. *cause is BREAKER_NOT_MOVED, or why the last of them opens the
 * circuit; then the figures are in *move.
 */
uint32_t breaker_window_count(struct breaker *b, const struct policy *policy,
			      const struct breaker_call *call, enum breaker_cause *cause,
			      struct breaker_move *move);

#endif
