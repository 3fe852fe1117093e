/*
 * The policy machine: acquire and report.
 */
#include "proto/breaker.h"

#include "proto/breaker_window.h"

#include <string.h>

/* After this many openings any growth over 1 has reached any open_time_max. */
#define OPENINGS_MAX 20000

/* How far apart deadlines can be: the member's text has six hexadecimal digits for that. */
#define DEADLINES_APART_MAX INT64_C(0xFFFFFF)
/* How far apart clocks may be without one being wrong. */
#define CLOCKS_APART_MS 1000

/* One call: what it works on. */
struct step {
	struct circuit *c;
	struct breaker *b;
	const struct policy *policy;
	int64_t now_ms;
	struct breaker_move *move;
};

void breaker_none(struct breaker *b)
{
	b->exists = false;
	b->state = CIRCUIT_CLOSED;
	b->since_ms = 0;
	b->fresh = false;
	b->openings = 0;
	b->open_ms = 0;
	breaker_window_clear(b);
	b->half_open_ms = 0;
	b->passed = 0;
	b->probe_count = 0;
	b->override.mode = BREAKER_NO_OVERRIDE;
}

int64_t breaker_open_ms(const struct policy *p, uint32_t openings)
{
	double ms = (double)p->open_time_ms;
	int64_t whole;

	/* One rounding for each factor, as circuit.lua has it, so that both come to the same result
	 * to the last bit. Products that are whole numbers are exact. */
	if (p->open_growth_milli > 1000)
		for (; openings > 0 && ms < (double)p->open_time_max_ms; openings--)
			ms = ms * p->open_growth_milli / 1000;
	if (ms >= (double)p->open_time_max_ms)
		return p->open_time_max_ms;
	whole = (int64_t)ms;
	return whole + ((double)whole < ms);
}

const struct breaker_override *breaker_override_at(const struct breaker *b, int64_t now_ms)
{
	if (b->override.mode == BREAKER_NO_OVERRIDE || b->override.until_ms <= now_ms)
		return NULL;
	return &b->override;
}

int64_t breaker_matters_until(const struct breaker *b, int64_t now_ms)
{
	int64_t last = b->since_ms;

	if (b->state == CIRCUIT_HALF_OPEN) {
		for (unsigned i = 0; i < b->probe_count; i++)
			if (b->probes[i].deadline_ms > last)
				last = b->probes[i].deadline_ms;
	}
	if (last > now_ms + BREAKER_PROBE_TIMEOUT_MAX_MS)
		last = now_ms + BREAKER_PROBE_TIMEOUT_MAX_MS;
	last += b->state == CIRCUIT_OPEN ? 2 * b->open_ms : b->open_ms;
	if (b->override.mode != BREAKER_NO_OVERRIDE && b->override.until_ms > last)
		last = b->override.until_ms;
	return last;
}

static void drop_ended(struct breaker *b, int64_t now_ms)
{
	if (b->override.mode != BREAKER_NO_OVERRIDE && b->override.until_ms <= now_ms)
		b->override.mode = BREAKER_NO_OVERRIDE;
}

/* Resets the member to that of a circuit of which only *c is known. An override stays. */
static void forget(const struct circuit *c, bool exists, struct breaker *b)
{
	struct breaker_override override = {.mode = BREAKER_NO_OVERRIDE};
	bool found = b->exists;

	if (found && b->override.mode != BREAKER_NO_OVERRIDE)
		override = b->override;
	breaker_none(b);
	b->exists = found;
	b->override = override;
	b->state = c->state;
	b->since_ms = c->last_state_change;
	/* Without a member only the counts tell a creation from a transition to closed. */
	b->fresh = c->state == CIRCUIT_CLOSED &&
		   (!exists || (!found && (c->failure_count > 0 || c->success_count > 0)));
	if (c->state == CIRCUIT_HALF_OPEN)
		b->half_open_ms = c->last_state_change;
}

/* Resets the member after a change of state that the machine did not make, and removes an override
 * that has ended. */
static void tidy(const struct circuit *c, bool exists, struct breaker *b, int64_t now_ms)
{
	drop_ended(b, now_ms);
	if (!exists || !b->exists || b->state != c->state || b->since_ms != c->last_state_change)
		forget(c, exists, b);
}

void breaker_obey(const struct circuit *c, struct breaker *b, int64_t now_ms)
{
	if (!b->exists)
		return;
	drop_ended(b, now_ms);
	forget(c, true, b);
}

/* --- changes of state --------------------------------------------------------------------- */

static void move(struct step *s, enum circuit_state to, enum breaker_cause cause)
{
	struct circuit_op op = {.verb = CIRCUIT_TRANSITION, .to = to};

	circuit_apply(s->c, true, &op, s->now_ms);
	s->b->state = to;
	s->b->since_ms = s->now_ms;
	s->b->fresh = false;
	breaker_window_clear(s->b);
	s->move->cause = cause;
}

static void open_circuit(struct step *s, uint32_t openings, enum breaker_cause cause)
{
	s->b->openings = openings < OPENINGS_MAX ? openings : OPENINGS_MAX;
	s->b->open_ms = breaker_open_ms(s->policy, s->b->openings);
	s->move->open_ms = s->b->open_ms;
	move(s, CIRCUIT_OPEN, cause);
}

/* How long this opening lasts. Of one that the machine did not make no length is known. */
static int64_t opening_ms(const struct step *s)
{
	return s->b->open_ms > 0 ? s->b->open_ms : breaker_open_ms(s->policy, 0);
}

/* How long the circuit has been in its state. */
static int64_t age_ms(const struct step *s)
{
	int64_t age = s->now_ms - s->c->last_state_change;

	if (age < -BREAKER_AHEAD_MAX_MS)
		return INT64_MAX;
	return age > 0 ? age : 0;
}

static void begin_probing(struct step *s)
{
	s->b->open_ms = opening_ms(s);
	s->move->open_ms = s->b->open_ms;
	move(s, CIRCUIT_HALF_OPEN, BREAKER_OPENING_OVER);
	s->b->half_open_ms = s->now_ms;
	s->b->passed = 0;
	s->b->probe_count = 0;
}

/* --- probes ------------------------------------------------------------------------------- */

/* The index of the probe with this id; -1 if it is not out. */
static int find_probe(const struct breaker *b, uint32_t id)
{
	for (unsigned i = 0; i < b->probe_count; i++)
		if (b->probes[i].id == id)
			return (int)i;
	return -1;
}

static void take_probe(struct breaker *b, unsigned i)
{
	b->probe_count--;
	memmove(&b->probes[i], &b->probes[i + 1], (b->probe_count - i) * sizeof(b->probes[0]));
}

static int64_t first_deadline(const struct breaker *b)
{
	int64_t first = b->probes[0].deadline_ms;

	for (unsigned i = 1; i < b->probe_count; i++)
		if (b->probes[i].deadline_ms < first)
			first = b->probes[i].deadline_ms;
	return first;
}

/*
 * Opens the circuit again if a probe is lost. A probe with more than probe_timeout left gets that
 * much from now on: the setting was lowered, or the clock was set back. Up to a second more is left
 * alone, as the clocks of a daemon and of Redis may differ. True if something changed.
 */
static bool check_deadlines(struct step *s)
{
	struct breaker *b = s->b;
	int64_t last = s->now_ms + s->policy->probe_timeout_ms;
	bool lost = false, shortened = false;

	if (b->state != CIRCUIT_HALF_OPEN)
		return false;
	for (unsigned i = b->probe_count; i-- > 0;) {
		if (b->probes[i].deadline_ms <= s->now_ms) {
			take_probe(b, i);
			lost = true;
		} else if (b->probes[i].deadline_ms > last + CLOCKS_APART_MS) {
			b->probes[i].deadline_ms = last;
			shortened = true;
		}
	}
	if (lost)
		open_circuit(s, b->openings, BREAKER_PROBE_LOST);
	return lost || shortened;
}

static void give_probe(struct step *s, uint32_t random, struct breaker_permit *permit)
{
	struct breaker *b = s->b;
	uint32_t id = random & 0xFFFFFF;
	int64_t last;

	while (find_probe(b, id) >= 0)
		id = (id + 1) & 0xFFFFFF;
	b->probes[b->probe_count++] =
		(struct breaker_probe){.id = id,
				       .deadline_ms = s->now_ms + s->policy->probe_timeout_ms};
	last = first_deadline(b) + DEADLINES_APART_MAX;
	for (unsigned i = 0; i < b->probe_count; i++)
		if (b->probes[i].deadline_ms > last)
			b->probes[i].deadline_ms = last;
	*permit = (struct breaker_permit){.kind = BREAKER_PERMIT_PROBE,
					  .id = id,
					  .since_ms = b->since_ms};
}

/* --- acquire ------------------------------------------------------------------------------ */

static void allow(struct breaker_answer *a, enum breaker_reason reason,
		  enum breaker_permit_kind kind)
{
	a->allowed = true;
	a->reason = reason;
	a->permit.kind = kind;
}

static void refuse(struct breaker_answer *a, enum breaker_reason reason, int64_t retry_after_ms)
{
	a->allowed = false;
	a->reason = reason;
	a->retry_after_ms = retry_after_ms > 1 ? retry_after_ms : 1;
}

void breaker_acquire_closed(const struct circuit *c, bool exists, struct breaker_answer *a)
{
	*a = (struct breaker_answer){.allowed = true, .reason = BREAKER_CLOSED};
	a->permit.kind = exists ? BREAKER_PERMIT_CLOSED : BREAKER_PERMIT_ABSENT;
	a->permit.since_ms = exists ? c->last_state_change : 0;
}

/* Decides for a circuit that is not closed, without regard to enforce and override. True if
 * something changed. */
static bool decide(struct step *s, uint32_t random, struct breaker_answer *a)
{
	struct breaker *b = s->b;

	if (b->state == CIRCUIT_OPEN) {
		int64_t left = opening_ms(s) - age_ms(s);

		if (left > 0) {
			refuse(a, BREAKER_OPEN, left);
			return false;
		}
		begin_probing(s);
	}
	if (b->probe_count >= s->policy->probes || b->probe_count >= POLICY_PROBES_MAX) {
		int64_t left = first_deadline(b) - s->now_ms;

		refuse(a, BREAKER_PROBING, left < 1000 ? left : 1000);
		return false;
	}
	allow(a, BREAKER_PROBE, BREAKER_PERMIT_PROBE);
	give_probe(s, random, &a->permit);
	return true;
}

static bool acquire(struct step *s, bool exists, uint32_t random, struct breaker_answer *a)
{
	const struct breaker_override *override = breaker_override_at(s->b, s->now_ms);
	bool changed = check_deadlines(s);

	if (override && override->mode == BREAKER_FORCED_OPEN) {
		refuse(a, BREAKER_REASON_FORCED_OPEN, override->until_ms - s->now_ms);
		return changed;
	}
	if (s->b->state == CIRCUIT_CLOSED)
		breaker_acquire_closed(s->c, exists, a);
	else
		changed = decide(s, random, a) || changed;
	if (override) {
		if (!a->allowed)
			a->permit.kind = BREAKER_PERMIT_OVERRIDDEN;
		a->allowed = true;
		a->reason = BREAKER_REASON_FORCED_CLOSED;
		a->retry_after_ms = 0;
	} else if (!a->allowed && !s->policy->enforce) {
		allow(a, BREAKER_OBSERVED, BREAKER_PERMIT_OBSERVED);
		a->retry_after_ms = 0;
	}
	return changed;
}

/* --- report ------------------------------------------------------------------------------- */

/* BREAKER_COUNTED if a report with this probe's permit counts, else why it does not. */
static enum breaker_reason check_probe(const struct breaker *b, const struct breaker_permit *permit)
{
	bool out;

	if (permit->since_ms != b->half_open_ms)
		return BREAKER_STALE;
	out = find_probe(b, permit->id) >= 0;
	if (b->state == CIRCUIT_HALF_OPEN)
		return out ? BREAKER_COUNTED : BREAKER_SPENT;
	return out ? BREAKER_STALE : BREAKER_SPENT;
}

static enum breaker_reason check_permit(const struct step *s, bool exists,
					const struct breaker_permit *permit)
{
	bool closed = s->c->state == CIRCUIT_CLOSED;

	switch (permit->kind) {
	case BREAKER_PERMIT_NONE:
		return closed ? BREAKER_COUNTED : BREAKER_STALE;
	case BREAKER_PERMIT_CLOSED:
		return exists && closed && s->c->last_state_change == permit->since_ms
			       ? BREAKER_COUNTED
			       : BREAKER_STALE;
	case BREAKER_PERMIT_ABSENT:
		return closed && s->b->fresh ? BREAKER_COUNTED : BREAKER_STALE;
	case BREAKER_PERMIT_PROBE:
		return check_probe(s->b, permit);
	case BREAKER_PERMIT_OBSERVED:
		return BREAKER_STALE;
	case BREAKER_PERMIT_OVERRIDDEN:
		return BREAKER_OVERRIDDEN;
	}
	return BREAKER_STALE;
}

/* Applies recordSuccess or recordFailure to the snapshot, `count` times. */
static void record(struct step *s, bool failed, uint32_t count)
{
	struct circuit_op op = {.verb = failed ? CIRCUIT_RECORD_FAILURE : CIRCUIT_RECORD_SUCCESS};

	circuit_apply(s->c, true, &op, s->now_ms);
	if (count > 1) {
		int64_t room = CIRCUIT_INT_MAX - s->c->success_count;

		s->c->success_count += count - 1 < room ? count - 1 : room;
	}
}

static void report_closed(struct step *s, const struct breaker_call *call, struct breaker_answer *a)
{
	struct breaker *b = s->b;
	enum breaker_cause cause;

	breaker_window_advance(b, s->policy->window_ms, s->now_ms);
	a->counted = breaker_window_count(b, s->policy, call, &cause, s->move);
	record(s, call->outcome == BREAKER_FAILURE, a->counted);
	if (cause != BREAKER_NOT_MOVED) {
		bool again = b->open_ms > 0 && age_ms(s) < b->open_ms;

		open_circuit(s, again ? b->openings + 1 : 0, cause);
	}
}

static void report_probe(struct step *s, const struct breaker_call *call, struct breaker_answer *a)
{
	struct breaker *b = s->b;
	bool failed = call->outcome == BREAKER_FAILURE;

	take_probe(b, (unsigned)find_probe(b, call->permit.id));
	a->counted = 1;
	record(s, failed, 1);
	s->move->reporters = 1;
	if (failed || call->slow) {
		open_circuit(s, b->openings + 1,
			     failed ? BREAKER_PROBE_FAILED : BREAKER_PROBE_SLOW);
	} else {
		b->passed++;
		s->move->passed = b->passed;
		if (b->passed >= s->policy->probe_successes)
			move(s, CIRCUIT_CLOSED, BREAKER_PROBES_PASSED);
	}
}

static bool report(struct step *s, bool exists, const struct breaker_call *call,
		   struct breaker_answer *a)
{
	bool changed = check_deadlines(s), probe;

	a->reason = check_permit(s, exists, &call->permit);
	if (a->reason != BREAKER_COUNTED)
		return changed;
	probe = call->permit.kind == BREAKER_PERMIT_PROBE;
	if (call->outcome == BREAKER_IGNORED) {
		a->reason = BREAKER_REASON_IGNORED;
		if (probe)
			take_probe(s->b, (unsigned)find_probe(s->b, call->permit.id));
		return probe;
	}
	if (probe)
		report_probe(s, call, a);
	else
		report_closed(s, call, a);
	if (a->counted < call->count)
		a->reason = BREAKER_STALE;
	return true;
}

/* --- all ---------------------------------------------------------------------------------- */

enum circuit_effect breaker_apply(struct circuit *c, bool exists, struct breaker *b,
				  enum circuit_verb verb, const struct breaker_call *call,
				  int64_t now_ms, struct breaker_answer *answer)
{
	struct step s = {c, b, call->policy, now_ms, &answer->move};
	enum circuit_state was;
	bool changed;

	if (!exists)
		circuit_absent(c, now_ms);
	tidy(c, exists, b, now_ms);
	*answer = (struct breaker_answer){0};
	was = c->state;
	changed = verb == CIRCUIT_ACQUIRE ? acquire(&s, exists, call->random, answer)
					  : report(&s, exists, call, answer);
	answer->was = was;
	answer->state = c->state;
	if (changed)
		b->exists = true;
	return changed ? CIRCUIT_WRITTEN : CIRCUIT_READ;
}

/* Sets or ends an override. To end one that is over changes nothing. */
static enum circuit_effect override(struct circuit *c, bool exists, struct breaker *b,
				    const struct circuit_op *op, int64_t now_ms)
{
	bool had;

	if (!exists)
		circuit_absent(c, now_ms);
	tidy(c, exists, b, now_ms);
	had = b->override.mode != BREAKER_NO_OVERRIDE;
	if (op->verb == CIRCUIT_END_OVERRIDE) {
		b->override.mode = BREAKER_NO_OVERRIDE;
		return had ? CIRCUIT_WRITTEN : CIRCUIT_READ;
	}
	b->override = *op->call->override;
	b->override.since_ms = now_ms;
	b->override.until_ms += now_ms;
	b->exists = true;
	return CIRCUIT_WRITTEN;
}

void breaker_override_show(const struct breaker_override *o, struct circuit *c, int64_t now_ms)
{
	c->state = o->mode == BREAKER_FORCED_OPEN ? CIRCUIT_OPEN : CIRCUIT_CLOSED;
	if (o->mode == BREAKER_FORCED_OPEN)
		c->last_state_change = now_ms;
}

const char *breaker_override_name(enum breaker_override_mode mode)
{
	return breaker_reason_name(mode == BREAKER_FORCED_OPEN ? BREAKER_REASON_FORCED_OPEN
							       : BREAKER_REASON_FORCED_CLOSED);
}

enum circuit_effect breaker_run(struct circuit *c, bool exists, struct breaker *b,
				const struct circuit_op *op, int64_t now_ms,
				struct breaker_answer *answer)
{
	enum circuit_effect effect;

	if (op->verb == CIRCUIT_ACQUIRE || op->verb == CIRCUIT_REPORT)
		return breaker_apply(c, exists, b, op->verb, op->call, now_ms, answer);
	if (op->verb >= CIRCUIT_OVERRIDE)
		return override(c, exists, b, op, now_ms);
	effect = circuit_apply(c, exists, op, now_ms);
	if (effect == CIRCUIT_REMOVED)
		breaker_none(b);
	if (effect == CIRCUIT_WRITTEN && op->verb == CIRCUIT_TRANSITION)
		breaker_obey(c, b, now_ms);
	return effect;
}
