/* Steps: see circuit_fold.h. */
#include "proto/circuit_fold.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void circuit_fold_begin(struct circuit_fold *fold, const struct circuit *seen)
{
	memset(fold, 0, sizeof(*fold));
	if (!seen)
		return;
	fold->has_state = true;
	fold->state = seen->state;
	fold->last_state_change = seen->last_state_change;
	fold->last_failure_time = seen->last_failure_time;
}

static int64_t add(int64_t a, int64_t b)
{
	return a > CIRCUIT_INT_MAX - b ? CIRCUIT_INT_MAX : a + b;
}

static void note_reset(struct circuit_fold *fold, int64_t now_ms)
{
	memset(fold, 0, sizeof(*fold));
	fold->reset = now_ms;
	fold->zero_failures = true;
	fold->zero_successes = true;
}

static void note_transition(struct circuit_fold *fold, enum circuit_state to, int64_t now_ms)
{
	fold->has_state = true;
	fold->state = to;
	fold->last_state_change = now_ms;
	fold->own_state_change = true;
	if (to == CIRCUIT_CLOSED) {
		fold->failures = 0;
		fold->zero_failures = true;
	}
	if (to != CIRCUIT_OPEN) {
		fold->successes = 0;
		fold->zero_successes = true;
	}
}

void circuit_fold_note(struct circuit_fold *fold, const struct circuit_op *op,
		       enum circuit_effect effect, int64_t now_ms)
{
	if (effect == CIRCUIT_REMOVED) {
		note_reset(fold, now_ms);
		return;
	}
	if (effect != CIRCUIT_WRITTEN)
		return;
	/* A decision is noted as the operations it came to (breaker.h). */
	if (op->verb >= CIRCUIT_ACQUIRE)
		return;
	fold->writes = true;
	if (!fold->has_state && fold->created == 0)
		fold->created = now_ms;
	switch (op->verb) {
	case CIRCUIT_RECORD_SUCCESS:
		fold->successes = add(fold->successes, 1);
		break;
	case CIRCUIT_RECORD_FAILURE:
		fold->failures = add(fold->failures, 1);
		fold->last_failure_time = now_ms;
		fold->own_failure_time = true;
		break;
	case CIRCUIT_TRANSITION:
		note_transition(fold, op->to, now_ms);
		break;
	case CIRCUIT_GET_STATE:
	case CIRCUIT_RESET:
	case CIRCUIT_ACQUIRE:
	case CIRCUIT_REPORT:
	case CIRCUIT_OVERRIDE:
	case CIRCUIT_END_OVERRIDE:
		break;
	}
}

bool circuit_fold_empty(const struct circuit_fold *fold)
{
	return !fold->writes && fold->reset == 0;
}

/* Moves the stamp, within the range that may be stored; 0 would mean "none". */
static void shift(int64_t *stamp, int64_t by_ms)
{
	*stamp += by_ms;
	if (*stamp < 1)
		*stamp = 1;
	if (*stamp > CIRCUIT_INT_MAX)
		*stamp = CIRCUIT_INT_MAX;
}

void circuit_fold_shift(struct circuit_fold *fold, int64_t by_ms)
{
	if (fold->own_state_change)
		shift(&fold->last_state_change, by_ms);
	if (fold->own_failure_time)
		shift(&fold->last_failure_time, by_ms);
	if (fold->created)
		shift(&fold->created, by_ms);
	if (fold->reset)
		shift(&fold->reset, by_ms);
}

static void clamp(int64_t *stamp, int64_t now_ms)
{
	if (*stamp - CIRCUIT_FOLD_APART_MS > now_ms)
		*stamp = now_ms;
}

void circuit_fold_clamp(struct circuit_fold *fold, int64_t now_ms)
{
	if (fold->own_state_change)
		clamp(&fold->last_state_change, now_ms);
	if (fold->own_failure_time)
		clamp(&fold->last_failure_time, now_ms);
	clamp(&fold->created, now_ms);
	clamp(&fold->reset, now_ms);
}

void circuit_fold_append(struct circuit_fold *fold, const struct circuit_fold *later)
{
	if (later->reset) {
		*fold = *later;
		return;
	}
	fold->failures = add(later->zero_failures ? 0 : fold->failures, later->failures);
	fold->successes = add(later->zero_successes ? 0 : fold->successes, later->successes);
	fold->zero_failures |= later->zero_failures;
	fold->zero_successes |= later->zero_successes;
	fold->writes |= later->writes;
	if (later->has_state && (!fold->has_state || later->own_state_change)) {
		fold->has_state = true;
		fold->state = later->state;
		fold->last_state_change = later->last_state_change;
		fold->own_state_change = later->own_state_change;
	}
	if (later->last_failure_time > fold->last_failure_time) {
		fold->last_failure_time = later->last_failure_time;
		fold->own_failure_time = later->own_failure_time;
	}
	if (fold->created == 0)
		fold->created = later->created;
}

static bool written_since(const struct circuit *c, int64_t written_ms, int64_t when)
{
	return c->last_failure_time > when || c->last_state_change > when || written_ms > when;
}

enum circuit_effect circuit_fold_apply(struct circuit *c, bool exists, int64_t written_ms,
				       const struct circuit_fold *fold)
{
	bool removed = false;

	if (fold->reset && exists && !written_since(c, written_ms, fold->reset)) {
		exists = false;
		removed = true;
	}
	if (!fold->writes)
		return removed ? CIRCUIT_REMOVED : CIRCUIT_READ;
	if (!exists) {
		circuit_absent(c, 0);
		/* -1 loses to any known transition; otherwise use the creation time. */
		c->last_state_change = fold->has_state ? -1 : fold->created;
	}
	c->failure_count = add(fold->zero_failures ? 0 : c->failure_count, fold->failures);
	c->success_count = add(fold->zero_successes ? 0 : c->success_count, fold->successes);
	if (fold->last_failure_time > c->last_failure_time)
		c->last_failure_time = fold->last_failure_time;
	if (fold->has_state && fold->last_state_change > c->last_state_change) {
		c->state = fold->state;
		c->last_state_change = fold->last_state_change;
	}
	return CIRCUIT_WRITTEN;
}

static bool same(const struct circuit *a, const struct circuit *b)
{
	if (!a || !b)
		return a == b;
	return a->state == b->state && a->failure_count == b->failure_count &&
	       a->success_count == b->success_count &&
	       a->last_failure_time == b->last_failure_time &&
	       a->last_state_change == b->last_state_change;
}

/* True if the step makes *now of *before, with this written_ms, which decides on a reset. */
static bool made(const struct circuit_fold *fold, const struct circuit *before, int64_t written_ms,
		 const struct circuit *now)
{
	struct circuit c = {0};

	if (before)
		c = *before;
	return circuit_fold_apply(&c, before != NULL, written_ms, fold) == CIRCUIT_WRITTEN &&
	       same(&c, now);
}

/* For a step with a transition: its stamp and the stored one tell, as the later of them stands. */
static enum circuit_fold_trace trace_state_change(const struct circuit_fold *fold,
						  const struct circuit *now)
{
	bool counts =
		fold->failures || fold->successes || fold->zero_failures || fold->zero_successes;

	if (now->last_state_change < fold->last_state_change)
		return CIRCUIT_FOLD_NOT_TAKEN;
	if (now->last_state_change == fold->last_state_change && now->state == fold->state)
		return CIRCUIT_FOLD_TAKEN;
	/* A later transition stands. If the step has no counts, it would change nothing any more.
	 */
	return counts ? CIRCUIT_FOLD_UNSURE : CIRCUIT_FOLD_TAKEN;
}

/* For a step without a transition, if nobody has moved or reset the circuit since *before: its
 * counts have only grown. */
static enum circuit_fold_trace trace_counts(const struct circuit_fold *fold,
					    const struct circuit *before, const struct circuit *now)
{
	if (now->failure_count - before->failure_count < fold->failures ||
	    now->success_count - before->success_count < fold->successes)
		return CIRCUIT_FOLD_NOT_TAKEN;
	if (!fold->own_failure_time || now->last_failure_time > fold->last_failure_time)
		return CIRCUIT_FOLD_UNSURE;
	return now->last_failure_time == fold->last_failure_time ? CIRCUIT_FOLD_TAKEN
								 : CIRCUIT_FOLD_NOT_TAKEN;
}

/*
 * For any other step: its stamps tell. After a reset by others lastFailureTime is 0, and then
 * nothing can be told. Any other lastFailureTime before the step's says that the step was not
 * taken.
 */
static enum circuit_fold_trace trace_stamps(const struct circuit_fold *fold, bool was_absent,
					    const struct circuit *now)
{
	int64_t creation = fold->has_state ? fold->last_state_change : fold->created;

	if (was_absent && now->last_state_change == creation)
		return CIRCUIT_FOLD_TAKEN;
	if (!fold->own_failure_time || now->last_failure_time > fold->last_failure_time ||
	    now->last_failure_time == 0)
		return CIRCUIT_FOLD_UNSURE;
	return now->last_failure_time == fold->last_failure_time ? CIRCUIT_FOLD_TAKEN
								 : CIRCUIT_FOLD_NOT_TAKEN;
}

enum circuit_fold_trace circuit_fold_trace(const struct circuit_fold *fold,
					   enum circuit_fold_known known,
					   const struct circuit *before, const struct circuit *now)
{
	bool has_before = known == CIRCUIT_FOLD_ASKED || (known != CIRCUIT_FOLD_UNASKED && before);
	bool stamped = fold->own_failure_time || fold->own_state_change;

	/* A step that is a reset alone may be sent again: it removes only what is older than
	 * itself.
	 */
	if (!fold->writes || (has_before && same(before, now)))
		return CIRCUIT_FOLD_NOT_TAKEN;
	/* The circuit existed and is gone. Somebody has reset it, and this step must not undo that.
	 */
	if (!now)
		return CIRCUIT_FOLD_UNSURE;
	/* If *before is old, others may have made the same of it, and only a stamp of ours is
	 * proof. */
	if (has_before && (known == CIRCUIT_FOLD_ASKED || stamped) &&
	    (made(fold, before, 0, now) || made(fold, before, INT64_MAX, now)))
		return CIRCUIT_FOLD_TAKEN;
	if (known == CIRCUIT_FOLD_PARTS)
		return CIRCUIT_FOLD_UNSURE;
	if (fold->own_state_change)
		return trace_state_change(fold, now);
	if (has_before && before && fold->reset == 0 && now->state == before->state &&
	    now->last_state_change == before->last_state_change)
		return trace_counts(fold, before, now);
	return trace_stamps(fold, known != CIRCUIT_FOLD_UNASKED && !before, now);
}

size_t circuit_fold_encode(char buf[CIRCUIT_FOLD_MAX], const struct circuit_fold *fold)
{
	int len =
		snprintf(buf, CIRCUIT_FOLD_MAX,
			 "w %" PRId64 " %" PRId64 " %d %d %d %d %" PRId64 " %" PRId64 " %" PRId64,
			 fold->failures, fold->successes, fold->zero_failures, fold->zero_successes,
			 fold->writes, fold->has_state ? (int)fold->state : CIRCUIT_STATES,
			 fold->has_state ? fold->last_state_change : fold->created,
			 fold->last_failure_time, fold->reset);

	return (size_t)len;
}
