#include "proto/circuit_script.h"

char circuit_script_letter(const struct circuit_op *op)
{
	switch (op->verb) {
	case CIRCUIT_GET_STATE:
	case CIRCUIT_ACQUIRE: /* no letter */
	case CIRCUIT_REPORT:
		break;
	case CIRCUIT_RECORD_SUCCESS:
		return 's';
	case CIRCUIT_RECORD_FAILURE:
		return 'f';
	case CIRCUIT_TRANSITION:
		return (char)('A' + op->to * 4 + (op->has_from ? op->from + 1 : 0));
	case CIRCUIT_RESET:
		return 'd';
	}
	return 'g';
}

/* A number of at most `max`, and the space behind it unless it is the last. */
static bool read_number(const char **p, const char *end, int64_t max, int64_t *out)
{
	const char *begin = *p;
	int64_t n = 0;

	while (*p < end && **p >= '0' && **p <= '9' && *p - begin < 16)
		n = n * 10 + (*(*p)++ - '0');
	*out = n;
	if (*p == begin || n > max)
		return false;
	return *p == end || *(*p)++ == ' ';
}

bool circuit_script_read(const char *text, size_t len, struct circuit_script_answer *a)
{
	const char *end = text + len;
	int64_t found, state;

	if (!read_number(&text, end, 3, &found) ||
	    !read_number(&text, end, CIRCUIT_INT_MAX, &a->now_ms) ||
	    !read_number(&text, end, CIRCUIT_STATES - 1, &state) ||
	    !read_number(&text, end, CIRCUIT_INT_MAX, &a->circuit.failure_count) ||
	    !read_number(&text, end, CIRCUIT_INT_MAX, &a->circuit.success_count) ||
	    !read_number(&text, end, CIRCUIT_INT_MAX, &a->circuit.last_failure_time) ||
	    !read_number(&text, end, CIRCUIT_INT_MAX, &a->circuit.last_state_change))
		return false;
	a->exists = found < CIRCUIT_STORED_NONE;
	a->stored = found == 3 ? CIRCUIT_STORED_SOUND : (enum circuit_stored)found;
	a->circuit.state = (enum circuit_state)state;
	return text == end && end[-1] != ' ';
}
