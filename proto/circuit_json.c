/*
 * Snapshot <-> JSON, as stored and as sent.
 *
 * A scanner of our own reads stored values. jansson would refuse 1e999 and big integers, also in
 * members that are not ours, and it allocates memory, which would cost time in every operation.
 */
#include "proto/circuit_json.h"

#include "proto/number.h"

#include <string.h>

enum member {
	STATE,
	FAILURE_COUNT,
	SUCCESS_COUNT,
	LAST_FAILURE_TIME,
	LAST_STATE_CHANGE,
	SNAPSHOT_MEMBERS,
	BREAKERD = SNAPSHOT_MEMBERS,
	MEMBERS
};

static const char *const member_names[MEMBERS] = {
	[STATE] = "state",
	[FAILURE_COUNT] = "failureCount",
	[SUCCESS_COUNT] = "successCount",
	[LAST_FAILURE_TIME] = "lastFailureTime",
	[LAST_STATE_CHANGE] = "lastStateChange",
	[BREAKERD] = "breakerd",
};

/* The text before each value, as circuit_json_encode writes it. */
static const char *const lead[MEMBERS] = {
	[STATE] = "{\"state\":\"",
	[FAILURE_COUNT] = "\",\"failureCount\":",
	[SUCCESS_COUNT] = ",\"successCount\":",
	[LAST_FAILURE_TIME] = ",\"lastFailureTime\":",
	[LAST_STATE_CHANGE] = ",\"lastStateChange\":",
	[BREAKERD] = ",\"breakerd\":\"",
};

static int64_t *number_member(struct circuit *c, enum member m)
{
	switch (m) {
	case FAILURE_COUNT:
		return &c->failure_count;
	case SUCCESS_COUNT:
		return &c->success_count;
	case LAST_FAILURE_TIME:
		return &c->last_failure_time;
	default:
		return &c->last_state_change;
	}
}

/* Writing. */

static char *put_text(char *to, const char *text)
{
	size_t len = strlen(text);

	memcpy(to, text, len);
	return to + len;
}

size_t circuit_json_encode(char buf[CIRCUIT_JSON_MAX], const struct circuit *c)
{
	char *to = put_text(buf, lead[STATE]);

	to = put_text(to, circuit_state_name(c->state));
	to = number_put(put_text(to, lead[FAILURE_COUNT]), c->failure_count);
	to = number_put(put_text(to, lead[SUCCESS_COUNT]), c->success_count);
	to = number_put(put_text(to, lead[LAST_FAILURE_TIME]), c->last_failure_time);
	to = number_put(put_text(to, lead[LAST_STATE_CHANGE]), c->last_state_change);
	*to++ = '}';
	*to = '\0';
	return (size_t)(to - buf);
}

size_t circuit_json_encode_member(char buf[CIRCUIT_JSON_MEMBER_MAX], const struct circuit *c,
				  const char *member, size_t len)
{
	char *to = buf + circuit_json_encode(buf, c);

	if (member) {
		to = put_text(to - 1, lead[BREAKERD]);
		memcpy(to, member, len);
		to = put_text(to + len, "\"}");
		*to = '\0';
	}
	return (size_t)(to - buf);
}

/* Scanning: each function steps over one thing, and returns whether it was there. */

struct scan {
	const char *p, *end;
};

/* The text of a string without its quotes, or of any other value; begin NULL: none. */
struct token {
	const char *begin, *end;
	bool is_string;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool at(const struct scan *s, char c)
{
	return s->p < s->end && *s->p == c;
}

static bool take(struct scan *s, char c)
{
	if (!at(s, c))
		return false;
	s->p++;
	return true;
}

static bool take_text(struct scan *s, const char *text)
{
	size_t len = strlen(text);

	if ((size_t)(s->end - s->p) < len || memcmp(s->p, text, len) != 0)
		return false;
	s->p += len;
	return true;
}

static void skip_space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
		s->p++;
}

/* The value of four hexadecimal digits, -1 if they are not there. */
static int take_hex4(struct scan *s)
{
	int value = 0;

	if (s->end - s->p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = *s->p++;

		if (is_digit(c))
			value = value * 16 + (c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value * 16 + (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			value = value * 16 + (c - 'A' + 10);
		else
			return -1;
	}
	return value;
}

/* Reads a character of a string. Returns it decoded; 0x80 for any beyond ASCII; -1 if it is not
 * allowed there. */
static int take_char(struct scan *s)
{
	static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	unsigned char c;
	const char *escape;

	if (s->p == s->end)
		return -1;
	c = (unsigned char)*s->p++;
	if (c < 0x20)
		return -1;
	if (c != '\\')
		return c < 0x80 ? c : 0x80;
	if (take(s, 'u')) {
		int value = take_hex4(s);

		return value < 0x80 ? value : 0x80;
	}
	escape = s->p < s->end ? memchr(escapes, *s->p, strlen(escapes)) : NULL;
	if (!escape)
		return -1;
	s->p++;
	return meant[escape - escapes];
}

static bool take_string(struct scan *s, struct token *t)
{
	if (!take(s, '"'))
		return false;
	t->is_string = true;
	t->begin = s->p;
	while (!at(s, '"'))
		if (take_char(s) < 0)
			return false;
	t->end = s->p++;
	return true;
}

static bool take_digits(struct scan *s)
{
	const char *begin = s->p;

	while (s->p < s->end && is_digit(*s->p))
		s->p++;
	return s->p > begin;
}

static bool take_number(struct scan *s)
{
	take(s, '-');
	if (!take(s, '0') && !take_digits(s))
		return false;
	if (take(s, '.') && !take_digits(s))
		return false;
	if (take(s, 'e') || take(s, 'E')) {
		if (!take(s, '+'))
			take(s, '-');
		return take_digits(s);
	}
	return true;
}

static bool take_scalar(struct scan *s)
{
	struct token ignored;

	/* A broken string must end the scan: the other attempts would begin in its middle. */
	if (at(s, '"'))
		return take_string(s, &ignored);
	return take_text(s, "true") || take_text(s, "false") || take_text(s, "null") ||
	       take_number(s);
}

static bool take_name(struct scan *s, struct token *name)
{
	skip_space(s);
	if (!take_string(s, name))
		return false;
	skip_space(s);
	return take(s, ':');
}

/* Steps over a value within the outermost object. A loop and not a recursion, so that a stored
 * value does not decide how much stack is used. */
static bool take_value(struct scan *s)
{
	char closers[CIRCUIT_JSON_DEPTH - 1];
	unsigned depth = 0;
	struct token ignored;

	for (;;) {
		bool opened = false;

		skip_space(s);
		if (at(s, '{') || at(s, '[')) {
			if (depth == sizeof(closers))
				return false;
			closers[depth++] = *s->p++ == '{' ? '}' : ']';
			opened = true;
		} else if (!take_scalar(s)) {
			return false;
		}
		/* Close the arrays and objects that end here, then go on to the next element. */
		for (; depth > 0; depth--, opened = false) {
			skip_space(s);
			if (!take(s, closers[depth - 1]))
				break;
		}
		if (depth == 0)
			return true;
		if (!opened && !take(s, ','))
			return false;
		if (closers[depth - 1] == '}' && !take_name(s, &ignored))
			return false;
	}
}

/* True if the string t, once decoded, is `text`, which is ASCII. */
static bool token_says(const struct token *t, const char *text)
{
	struct scan s = {t->begin, t->end};

	while (*text)
		if (s.p == s.end || take_char(&s) != *text++)
			return false;
	return s.p == s.end;
}

/* Finds the values of our members; false if this is no JSON object. */
static bool take_object(struct scan *s, struct token values[MEMBERS])
{
	skip_space(s);
	if (!take(s, '{'))
		return false;
	skip_space(s);
	if (!at(s, '}')) {
		do {
			struct token name, value;
			enum member m = 0;

			if (!take_name(s, &name))
				return false;
			skip_space(s);
			value.is_string = at(s, '"');
			value.begin = s->p + value.is_string;
			if (!take_value(s))
				return false;
			value.end = s->p - value.is_string;
			while (m < MEMBERS && !token_says(&name, member_names[m]))
				m++;
			if (m < MEMBERS)
				values[m] = value; /* of several the last counts */
			skip_space(s);
		} while (take(s, ','));
	}
	if (!take(s, '}'))
		return false;
	skip_space(s);
	return s->p == s->end;
}

/* Reading. */

static bool token_state(const struct token *t, enum circuit_state *out)
{
	for (int i = 0; i < CIRCUIT_STATES; i++) {
		if (token_says(t, circuit_state_name(i))) {
			*out = i;
			return true;
		}
	}
	return false;
}

static enum circuit_stored read_members(const struct token values[MEMBERS], struct circuit *c)
{
	enum circuit_stored stored = CIRCUIT_STORED_SOUND;

	*c = (struct circuit){.state = CIRCUIT_CLOSED};
	if (!values[STATE].is_string || !token_state(&values[STATE], &c->state))
		stored = CIRCUIT_STORED_REPAIRED;
	for (enum member m = STATE + 1; m < SNAPSHOT_MEMBERS; m++) {
		int64_t n = 0;

		if (values[m].begin && !values[m].is_string &&
		    number_from_json(values[m].begin, values[m].end, &n))
			*number_member(c, m) = n;
		else
			stored = CIRCUIT_STORED_REPAIRED;
	}
	return stored;
}

/* The text of the member `breakerd`: a string without escapes. */
static struct token member_text(const struct token *t)
{
	struct token none = {0};

	if (!t->begin || !t->is_string || memchr(t->begin, '\\', (size_t)(t->end - t->begin)))
		return none;
	return *t;
}

/* True for the characters of a member's text. None of them needs an escape. */
static bool is_member_char(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == ' ' ||
	       c == '.' || c == ',' || c == ':';
}

static bool take_member(struct scan *s, struct token *member)
{
	if (!take_text(s, lead[BREAKERD]))
		return false;
	member->is_string = true;
	member->begin = s->p;
	while (s->p < s->end && is_member_char(*s->p))
		s->p++;
	member->end = s->p;
	return take(s, '"');
}

/* Reads a value as circuit_json_encode_member writes it, which almost all are; false for others. */
static bool decode_canonical(const char *text, size_t len, struct circuit *c, struct token *member)
{
	struct scan s = {text, text + len};
	struct circuit read = {0};
	const char *quote;

	if (!take_text(&s, lead[STATE]))
		return false;
	quote = memchr(s.p, '"', (size_t)(s.end - s.p));
	if (!quote || !circuit_state_parse(s.p, (size_t)(quote - s.p), &read.state))
		return false;
	s.p = quote;
	for (enum member m = STATE + 1; m < SNAPSHOT_MEMBERS; m++) {
		struct token t = {0};

		if (!take_text(&s, lead[m]))
			return false;
		t.begin = s.p;
		if (!take(&s, '0') && !take_digits(&s))
			return false;
		t.end = s.p;
		if (!number_from_json(t.begin, t.end, number_member(&read, m)))
			return false;
	}
	if (at(&s, ',') && !take_member(&s, member))
		return false;
	if (!take(&s, '}') || s.p != s.end)
		return false;
	*c = read;
	return true;
}

enum circuit_stored circuit_json_decode_member(const char *text, size_t len, struct circuit *c,
					       const char **member, size_t *member_len)
{
	struct scan s = {text, text + len};
	struct token values[MEMBERS] = {{0}}, found = {0};
	enum circuit_stored stored = CIRCUIT_STORED_SOUND;

	if (!decode_canonical(text, len, c, &found)) {
		found = (struct token){0};
		if (take_object(&s, values)) {
			stored = read_members(values, c);
			found = member_text(&values[BREAKERD]);
		} else {
			stored = CIRCUIT_STORED_NONE;
		}
	}
	*member = found.begin;
	*member_len = found.begin ? (size_t)(found.end - found.begin) : 0;
	return stored;
}

enum circuit_stored circuit_json_decode_stored(const char *text, size_t len, struct circuit *c)
{
	const char *member;
	size_t member_len;

	return circuit_json_decode_member(text, len, c, &member, &member_len);
}
