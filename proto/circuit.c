/*
 * The circuit and its five operations.
 */
#include "proto/circuit.h"

#include <string.h>

static const char *const state_names[CIRCUIT_STATES] = {
	[CIRCUIT_CLOSED] = "closed",
	[CIRCUIT_OPEN] = "open",
	[CIRCUIT_HALF_OPEN] = "half-open",
};

static const char *const verb_names[CIRCUIT_VERBS] = {
	[CIRCUIT_GET_STATE] = "get_state",
	[CIRCUIT_RECORD_SUCCESS] = "record_success",
	[CIRCUIT_RECORD_FAILURE] = "record_failure",
	[CIRCUIT_TRANSITION] = "transition",
	[CIRCUIT_RESET] = "reset",
	[CIRCUIT_ACQUIRE] = "acquire",
	[CIRCUIT_REPORT] = "report",
	[CIRCUIT_OVERRIDE] = "override",
	[CIRCUIT_END_OVERRIDE] = "end_override",
};

const char *circuit_state_name(enum circuit_state state)
{
	return state_names[state];
}

bool circuit_state_parse(const char *name, size_t len, enum circuit_state *out)
{
	for (int i = 0; i < CIRCUIT_STATES; i++) {
		if (strlen(state_names[i]) == len && memcmp(state_names[i], name, len) == 0) {
			*out = i;
			return true;
		}
	}
	return false;
}

const char *circuit_verb_name(enum circuit_verb verb)
{
	return verb_names[verb];
}

bool circuit_verb_writes(enum circuit_verb verb)
{
	return verb != CIRCUIT_GET_STATE;
}

void circuit_absent(struct circuit *c, int64_t now_ms)
{
	*c = (struct circuit){.state = CIRCUIT_CLOSED, .last_state_change = now_ms};
}

static void count(int64_t *counter)
{
	if (*counter < CIRCUIT_INT_MAX)
		++*counter;
}

static void move(struct circuit *c, enum circuit_state to, int64_t now_ms)
{
	c->state = to;
	c->last_state_change = now_ms;
	if (to == CIRCUIT_CLOSED)
		c->failure_count = 0;
	if (to != CIRCUIT_OPEN)
		c->success_count = 0;
}

enum circuit_effect circuit_apply(struct circuit *c, bool exists, const struct circuit_op *op,
				  int64_t now_ms)
{
	if (!exists)
		circuit_absent(c, now_ms);

	switch (op->verb) {
	case CIRCUIT_GET_STATE:
		return CIRCUIT_READ;
	case CIRCUIT_RECORD_SUCCESS:
		count(&c->success_count);
		return CIRCUIT_WRITTEN;
	case CIRCUIT_RECORD_FAILURE:
		count(&c->failure_count);
		c->last_failure_time = now_ms;
		return CIRCUIT_WRITTEN;
	case CIRCUIT_TRANSITION:
		/* A circuit that does not exist is closed for `from` too. */
		if (op->has_from && c->state != op->from)
			return CIRCUIT_CONFLICT;
		move(c, op->to, now_ms);
		return CIRCUIT_WRITTEN;
	case CIRCUIT_RESET:
		circuit_absent(c, now_ms);
		return CIRCUIT_REMOVED;
	case CIRCUIT_ACQUIRE:
	case CIRCUIT_REPORT:
	case CIRCUIT_OVERRIDE:
	case CIRCUIT_END_OVERRIDE:
		break;
	}
	return CIRCUIT_READ;
}
