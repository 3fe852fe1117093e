/*
 * A circuit queue's steps as text, for a line of the state file (state_file.h): what was
 * answered without Redis and waits to be folded into it. Four words, each after a space:
 *
 *	sent    the step that is in doubt, or "-"
 *	next    the step of what was answered since, or "-"
 *	before  the circuit as Redis had it before the step in doubt, or, if there is none, as it
 *	        was last seen there: a snapshot, "none", or "-" if that is not known
 *	now     the circuit as it is answered here: a snapshot, or "none"
 *
 * A step is fifteen integers with commas between them: its operations, the offset of the clock
 * in its stamps, then the members of struct circuit_fold in their order there.
 */
#ifndef BREAKERD_STATE_STEPS_H
#define BREAKERD_STATE_STEPS_H

#include "proto/circuit_json.h"
#include "store/circuit_queue.h"

/* Room for the text, its NUL included. */
#define STATE_STEPS_MAX (2 * 15 * 21 + 2 * CIRCUIT_JSON_MAX + 8)

/* Writes the steps of q; `now` is the circuit as it is answered here (NULL: none). Returns the
 * length. */
size_t state_steps_encode(char buf[STATE_STEPS_MAX], const struct circuit_queue *q,
			  const struct circuit *now);

struct state_steps {
	bool in_doubt;
	struct queue_step sent, next;
	struct queue_before before;
	bool exists; /* now */
	struct circuit now;
};

/* Reads that text; false if it is something else. */
bool state_steps_decode(const char *text, size_t len, struct state_steps *out);

/*
 * Fills q, which is new, with what was read. `folding`: its steps may have been handed over
 * since they were written, so that all of them are in doubt.
 */
void state_steps_restore(struct circuit_queue *q, const struct state_steps *steps, bool folding);

#endif
