/* The language of circuit.lua: see circuit_script.h. */
#include "proto/circuit_script.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

char circuit_script_letter(const struct circuit_op *op)
{
	switch (op->verb) {
	case CIRCUIT_GET_STATE:
	case CIRCUIT_ACQUIRE: /* no letter */
	case CIRCUIT_REPORT:
	case CIRCUIT_OVERRIDE:
	case CIRCUIT_END_OVERRIDE:
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

size_t circuit_script_policy(char buf[CIRCUIT_SCRIPT_TOKEN_MAX], const struct policy *p)
{
	return (size_t)snprintf(buf, CIRCUIT_SCRIPT_TOKEN_MAX,
				"p%u %u %d %u %" PRId64 " %u %u %" PRId64 " %u %" PRId64
				" %u %u %" PRId64,
				p->consecutive_failures, p->failure_rate, p->slow_time_ms > 0,
				p->slow_rate, p->window_ms, p->min_calls, p->min_reporters,
				p->open_time_ms, p->open_growth_milli, p->open_time_max_ms,
				p->probes, p->probe_successes, p->probe_timeout_ms);
}

static size_t override_token(char buf[CIRCUIT_SCRIPT_TOKEN_MAX], const struct breaker_override *o)
{
	size_t len = (size_t)snprintf(buf, CIRCUIT_SCRIPT_TOKEN_MAX, "o%d %" PRId64 " ",
				      o->mode == BREAKER_FORCED_OPEN ? 1 : 2, o->until_ms);

	for (unsigned i = 0; i < o->reason_len; i++, len += 2)
		sprintf(buf + len, "%02x", (unsigned char)o->reason[i]);
	return len;
}

size_t circuit_script_token(char buf[CIRCUIT_SCRIPT_TOKEN_MAX], const struct circuit_op *op)
{
	static const char kinds[BREAKER_PERMITS] = {'-', 'c', 'n', 'p', 'x', 'x'};
	const struct breaker_call *call = op->call;
	char daemon[3];

	if (op->verb == CIRCUIT_ACQUIRE)
		return (size_t)snprintf(buf, CIRCUIT_SCRIPT_TOKEN_MAX, "a%u",
					call->random & 0xFFFFFF);
	if (op->verb == CIRCUIT_REPORT) {
		breaker_member_reporter(daemon, call->reporter);
		return (size_t)snprintf(buf, CIRCUIT_SCRIPT_TOKEN_MAX,
					"r%c %" PRId64 " %06x %c %d %s %u",
					kinds[call->permit.kind], call->permit.since_ms,
					call->permit.id, "sfi"[call->outcome], call -> slow, daemon,
					call -> count);
	}
	if (op->verb == CIRCUIT_OVERRIDE)
		return override_token(buf, call->override);
	buf[0] = op->verb == CIRCUIT_END_OVERRIDE ? 'x' : circuit_script_letter(op);
	buf[1] = '\0';
	return 1;
}

/* Reads a number of at most `max`, and the space after it unless it is the last one. */
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
	a->member = text < end && *text != '-' ? text : NULL;
	a->member_len = a->member ? (size_t)(end - text) : 0;
	a->exists = found < CIRCUIT_STORED_NONE;
	a->stored = found == 3 ? CIRCUIT_STORED_SOUND : (enum circuit_stored)found;
	a->circuit.state = (enum circuit_state)state;
	return a->member || (end[-1] != ' ' && (text == end || text + 1 == end));
}

/* Reads the next part of a message, up to the line feed. */
static bool read_part(const char **p, const char *end, const char **part, size_t *len)
{
	const char *feed = memchr(*p, '\n', (size_t)(end - *p));

	if (!feed)
		return false;
	*part = *p;
	*len = (size_t)(feed - *p);
	*p = feed + 1;
	return true;
}

bool circuit_script_read_message(const char *text, size_t len, struct circuit_script_message *m)
{
	const char *end = text + len, *words, *words_end;
	int64_t db, was, state;
	size_t words_len;

	if (!read_part(&text, end, &words, &words_len) ||
	    !read_part(&text, end, &m->member, &m->member_len))
		return false;
	words_end = words + words_len;
	if (words_len < 2 || memcmp(words, "1 ", 2) != 0)
		return false;
	words += 2;
	if (!read_number(&words, words_end, INT32_MAX, &db) || words_end - words < 2 ||
	    !memchr("tdarowx", words[0], 7) || words[1] != ' ')
		return false;
	m->db = (unsigned)db;
	m->by = words[0];
	words += 2;
	if (!read_number(&words, words_end, CIRCUIT_STATES, &was) ||
	    !read_number(&words, words_end, CIRCUIT_STATES, &state) ||
	    !read_number(&words, words_end, CIRCUIT_INT_MAX, &m->circuit.failure_count) ||
	    !read_number(&words, words_end, CIRCUIT_INT_MAX, &m->circuit.success_count) ||
	    !read_number(&words, words_end, CIRCUIT_INT_MAX, &m->circuit.last_failure_time) ||
	    !read_number(&words, words_end, CIRCUIT_INT_MAX, &m->circuit.last_state_change) ||
	    words != words_end)
		return false;
	m->existed = was < CIRCUIT_STATES;
	m->was = m->existed ? (enum circuit_state)was : CIRCUIT_CLOSED;
	m->exists = state < CIRCUIT_STATES;
	m->circuit.state = m->exists ? (enum circuit_state)state : CIRCUIT_CLOSED;
	if (m->member_len == 0 || m->member[0] == '-')
		m->member = NULL;
	m->key = text;
	m->key_len = (size_t)(end - text);
	return true;
}
