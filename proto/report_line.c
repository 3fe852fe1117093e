/* Reports out of access logs: see report_line.h. */
#include "proto/report_line.h"

#include "proto/breaker_permit.h"

#include <jansson.h>
#include <string.h>

enum field { FIELD_CIRCUIT, FIELD_STATUS, FIELD_PERMIT, FIELD_TIME, FIELDS };

static const char *const names[FIELDS] = {"circuit", "status", "permit", "time"};

static const char *const twice[FIELDS] = {
	"circuit= stands twice.",
	"status= stands twice.",
	"permit= stands twice.",
	"time= stands twice.",
};

/* A piece of the line. */
struct span {
	const char *p, *end;
};

static bool is_blank(char c)
{
	return (unsigned char)c <= ' ' || c == 0x7F;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool span_is(struct span s, const char *text)
{
	size_t len = strlen(text);

	return (size_t)(s.end - s.p) == len && memcmp(s.p, text, len) == 0;
}

static void trim(struct span *s)
{
	while (s->p < s->end && is_blank(*s->p))
		s->p++;
	while (s->end > s->p && is_blank(s->end[-1]))
		s->end--;
}

/* --- values ----------------------------------------------------------------------------------- */

/* The last value of a list: nginx writes one for each server that it tried, "502, 200", and " : "
 * between groups of servers. */
static struct span last_of(struct span list)
{
	struct span last;

	trim(&list);
	last = list;
	for (const char *p = list.p; p < list.end; p++)
		if (*p == ',' || *p == ':')
			last.p = p + 1;
	trim(&last);
	return last;
}

static const char *read_status(struct span text, struct report_line *out)
{
	static const char wrong[] = "status= is neither 0, 100 to 599 nor '-'.";
	struct span s = last_of(text);
	int n = 0;

	/* HAProxy writes -1 where nginx writes '-': there was no answer, and nobody waits for one.
	 */
	if (span_is(s, "-") || span_is(s, "-1")) {
		out->status = REPORT_LINE_NO_STATUS;
		return NULL;
	}
	if (s.p == s.end || s.end - s.p > 3)
		return wrong;
	for (; s.p < s.end; s.p++) {
		if (!is_digit(*s.p))
			return wrong;
		n = n * 10 + (*s.p - '0');
	}
	if (n != 0 && (n < POLICY_STATUS_MIN || n > POLICY_STATUS_MAX))
		return wrong;
	out->status = n;
	return NULL;
}

/* Reads digits, and perhaps a point and further digits; at most 12 and 9, which is enough for any
 * duration. */
static bool read_decimal(struct span *s, double *out)
{
	double n = 0, scale = 1;
	const char *begin = s->p;

	for (; s->p < s->end && is_digit(*s->p); s->p++)
		n = n * 10 + (*s->p - '0');
	if (s->p == begin || s->p - begin > 12)
		return false;
	if (s->p < s->end && *s->p == '.') {
		for (begin = ++s->p; s->p < s->end && is_digit(*s->p); s->p++) {
			if (s->p - begin >= 9)
				continue;
			n = n * 10 + (*s->p - '0');
			scale *= 10;
		}
		if (s->p == begin)
			return false;
	}
	*out = n / scale;
	return true;
}

static const char *read_time(struct span text, struct report_line *out)
{
	struct span s = last_of(text);

	/* HAProxy's -1 as in read_status. */
	if (s.p == s.end || span_is(s, "-") || span_is(s, "-1") || span_is(s, "-1ms"))
		return NULL;
	if (!read_decimal(&s, &out->time_ms))
		return "time= is no number of seconds.";
	if (span_is(s, "ms"))
		return NULL;
	out->time_ms *= 1000;
	return s.p == s.end || span_is(s, "s") ? NULL : "time= has another unit than s and ms.";
}

static const char *read_permit(struct span text, struct report_line *out)
{
	size_t len = (size_t)(text.end - text.p);

	if (len == 0 || span_is(text, "-"))
		return NULL;
	if (len > sizeof(out->permit))
		return "permit= is too long for a permit.";
	memcpy(out->permit, text.p, len);
	out->permit_len = len;
	return NULL;
}

static const char *read_circuit(struct span text, struct report_line *out)
{
	/* A log has '-' or nothing for a variable that is not set. (The key '-' is written %2D.) */
	if (text.p == text.end || span_is(text, "-"))
		return "circuit= names no circuit.";
	return key_decode(text.p, (size_t)(text.end - text.p), out->key, &out->key_len);
}

static const char *read_value(enum field field, struct span value, struct report_line *out)
{
	switch (field) {
	case FIELD_CIRCUIT:
		return read_circuit(value, out);
	case FIELD_STATUS:
		return read_status(value, out);
	case FIELD_PERMIT:
		return read_permit(value, out);
	default:
		return read_time(value, out);
	}
}

/* --- words ------------------------------------------------------------------------------------ */

/* The field whose name and '=' are at p; FIELDS: none. */
static enum field field_at(const char *p, const char *end)
{
	for (unsigned f = 0; f < FIELDS; f++) {
		size_t len = strlen(names[f]);

		if (*p == names[f][0] && (size_t)(end - p) > len && p[len] == '=' &&
		    memcmp(p, names[f], len) == 0)
			return (enum field)f;
	}
	return FIELDS;
}

/* Where the list ends whose first value ends at p: "502, 200" and "502 : 200" are lists. */
static const char *list_end(const char *p, const char *end)
{
	for (;;) {
		const char *q = p;

		while (q < end && is_blank(*q))
			q++;
		if (q < end && *q == ':' && q > p)
			q++;
		else if (p[-1] != ',')
			return p;
		while (q < end && is_blank(*q))
			q++;
		if (q == end || !(is_digit(*q) || *q == '-'))
			return p;
		while (q < end && !is_blank(*q))
			q++;
		p = q;
	}
}

/* Reads the value that begins at p, which may be a list. False if a quote is not closed, or is
 * followed by anything but a blank. */
static bool take_value(const char *p, const char *end, bool list, struct span *out)
{
	const char *q = p;

	if (p < end && *p == '"') {
		q = memchr(p + 1, '"', (size_t)(end - p - 1));
		*out = (struct span){p + 1, q};
		return q && (q + 1 == end || is_blank(q[1]));
	}
	while (q < end && !is_blank(*q))
		q++;
	*out = (struct span){p, list && q > p ? list_end(q, end) : q};
	return true;
}

static const char *read_words(struct span line, struct span values[FIELDS])
{
	for (const char *p = line.p; p < line.end; p++) {
		enum field f;

		if (p > line.p && !is_blank(p[-1]))
			continue;
		f = field_at(p, line.end);
		if (f == FIELDS)
			continue;
		if (values[f].p)
			return twice[f];
		if (!take_value(p + strlen(names[f]) + 1, line.end,
				f == FIELD_STATUS || f == FIELD_TIME, &values[f]))
			return "A quoted value does not end, or something stands right behind it.";
	}
	return NULL;
}

static const char *read_text(struct span line, struct report_line *out)
{
	struct span values[FIELDS] = {0};
	const char *wrong = read_words(line, values);

	if (!wrong && !values[FIELD_CIRCUIT].p)
		wrong = "There is no circuit=.";
	if (!wrong && !values[FIELD_STATUS].p)
		wrong = "There is no status=.";
	for (unsigned f = 0; f < FIELDS && !wrong; f++)
		if (values[f].p)
			wrong = read_value((enum field)f, values[f], out);
	return wrong;
}

/* --- JSON ------------------------------------------------------------------------------------- */

static const char *read_json_number(enum field field, const json_t *value, struct report_line *out)
{
	double n = json_number_value(value);
	static const char none[] = "-1"; /* HAProxy's */

	if (n == -1 && (field == FIELD_STATUS || field == FIELD_TIME))
		return read_value(field, (struct span){none, none + 2}, out);
	if (field == FIELD_TIME && n >= 0) {
		out->time_ms = n * 1000;
		return NULL;
	}
	if (field != FIELD_STATUS)
		return "A number stands where none can be.";
	if (n != 0 && !(n >= POLICY_STATUS_MIN && n <= POLICY_STATUS_MAX))
		return "`status` is neither 0 nor 100 to 599.";
	out->status = (int)n;
	return out->status == n ? NULL : "`status` is no whole number.";
}

static const char *read_member(enum field field, const json_t *value, struct report_line *out)
{
	const char *text = json_string_value(value);

	if (!value || json_is_null(value))
		return field == FIELD_CIRCUIT || field == FIELD_STATUS
			       ? "`circuit` or `status` is missing."
			       : NULL;
	if (text)
		return read_value(field, (struct span){text, text + json_string_length(value)},
				  out);
	return json_is_number(value) ? read_json_number(field, value, out)
				     : "A member is neither a string nor a number.";
}

static const char *read_json(struct span line, struct report_line *out)
{
	json_t *root =
		json_loadb(line.p, (size_t)(line.end - line.p), JSON_REJECT_DUPLICATES, NULL);
	const char *wrong = root ? NULL : "It begins like JSON, but is not JSON.";

	for (unsigned f = 0; f < FIELDS && !wrong; f++)
		wrong = read_member((enum field)f, json_object_get(root, names[f]), out);
	json_decref(root);
	return wrong;
}

/* --- the whole -------------------------------------------------------------------------------- */

const char *report_line_read(const char *line, size_t len, struct report_line *out)
{
	struct span s = {line, line + len};

	out->key_len = out->permit_len = 0;
	out->status = REPORT_LINE_NO_STATUS;
	out->time_ms = -1;
	trim(&s);
	return s.p < s.end && *s.p == '{' ? read_json(s, out) : read_text(s, out);
}

static enum breaker_outcome outcome_of(int status, const struct policy *policy)
{
	if (status == REPORT_LINE_NO_STATUS ||
	    policy_statuses_have(&policy->ignore_status, (unsigned)status))
		return BREAKER_IGNORED;
	if (status == 0 || policy_statuses_have(&policy->failure_status, (unsigned)status))
		return BREAKER_FAILURE;
	return BREAKER_SUCCESS;
}

const char *report_line_fill(const struct report_line *line, struct breaker_call *call)
{
	const struct policy *policy = call->policy;

	call->permit = (struct breaker_permit){.kind = BREAKER_PERMIT_NONE};
	if (line->permit_len && !breaker_permit_decode(line->permit, line->permit_len, line->key,
						       line->key_len, &call->permit))
		return "permit= was not given for this circuit.";
	call->outcome = outcome_of(line->status, policy);
	call->slow = policy->slow_time_ms > 0 && line->time_ms >= (double)policy->slow_time_ms;
	return NULL;
}
