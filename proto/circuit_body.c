/*
 * The body of a transition (circuit_json.h). Transitions are rare, so jansson reads it. Most
 * of the code finds the words for a client whose body is wrong.
 */
#include "proto/circuit_json.h"
#include "proto/key.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define EXAMPLE "for example {\"to\":\"open\"}"
#define STATES  "\"closed\", \"open\", \"half-open\""

/* Bytes of a client's word that are shown; room for it, cleaned; room for a sentence with it. */
#define WORD_SHOWN   64
#define WORD_MAX     (3 * WORD_SHOWN + 4)
#define SENTENCE_MAX 512

/* A client's word, made safe to show and cut. */
static const char *shown(char out[WORD_MAX], const char *word, size_t len)
{
	size_t shown_len = len < WORD_SHOWN ? len : WORD_SHOWN, n;

	/* Cut between two characters. */
	while (shown_len < len && shown_len > 0 && (word[shown_len] & 0xC0) == 0x80)
		shown_len--;
	n = utf8_clean(out, WORD_MAX, word, shown_len);
	if (shown_len < len)
		strcpy(out + n, "...");
	return out;
}

__attribute__((format(printf, 3, 4))) static void explain(char *why, size_t why_size,
							  const char *fmt, ...)
{
	char sentence[SENTENCE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sentence, sizeof(sentence), fmt, ap);
	va_end(ap);
	utf8_clean(why, why_size, sentence, strlen(sentence));
}

static const char *type_name(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	default:
		return "null";
	}
}

static bool is_blank(const char *body, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!strchr(" \t\r\n", body[i]) || !body[i])
			return false;
	return true;
}

/* The name of the member that jansson met for the second time, if it is one of ours. */
static const char *repeated_member(const char *body, size_t len, const json_error_t *error)
{
	static const char *const quoted[] = {"\"from\"", "\"to\""};

	for (int i = 0; i < 2; i++) {
		int n = (int)strlen(quoted[i]);

		if (error->position >= n && (size_t)error->position <= len &&
		    memcmp(body + error->position - n, quoted[i], n) == 0)
			return i == 0 ? "the member `from`" : "the member `to`";
	}
	return "a member";
}

static void explain_syntax(const char *body, size_t len, const json_error_t *error, char *why,
			   size_t why_size)
{
	int line = error->line, column = error->column;

	if (is_blank(body, len)) {
		explain(why, why_size,
			"The body is empty; it must name the new state, " EXAMPLE ".");
		return;
	}
	switch (json_error_code(error)) {
	case json_error_duplicate_key:
		explain(why, why_size,
			"The body holds %s twice (line %d, column %d); send it once.",
			repeated_member(body, len, error), line, column);
		return;
	case json_error_end_of_input_expected:
		explain(why, why_size,
			"The body goes on after the JSON value (line %d, column %d); it must "
			"be one object and nothing else, " EXAMPLE ".",
			line, column);
		return;
	case json_error_invalid_utf8:
		explain(why, why_size,
			"The body is not valid UTF-8 (line %d, column %d); send JSON in UTF-8.",
			line, column);
		return;
	default:
		explain(why, why_size,
			"The body is not valid JSON (line %d, column %d: %s); send an "
			"object, " EXAMPLE ".",
			line, column, error->text);
	}
}

/* Checks everything but the names of the states. True if all is well. */
static bool check_body(json_t *body, char *why, size_t why_size)
{
	static const char *const known[] = {"to", "from"};
	char word[WORD_MAX];

	if (!json_is_object(body)) {
		explain(why, why_size, "The body is %s; it must be an object, " EXAMPLE ".",
			type_name(body));
		return false;
	}
	for (void *i = json_object_iter(body); i; i = json_object_iter_next(body, i)) {
		const char *name = json_object_iter_key(i);

		if (strcmp(name, known[0]) == 0 || strcmp(name, known[1]) == 0)
			continue;
		explain(why, why_size,
			"`%s` is no member of a transition; it takes `to` and, optionally, `from`.",
			shown(word, name, strlen(name)));
		return false;
	}
	if (!json_object_get(body, "to")) {
		explain(why, why_size,
			"The member `to` is missing; it names the new state, " EXAMPLE ".");
		return false;
	}
	for (int i = 0; i < 2; i++) {
		const json_t *value = json_object_get(body, known[i]);

		if (value && !json_is_string(value)) {
			explain(why, why_size, "`%s` is %s; it must be one of " STATES ".",
				known[i], type_name(value));
			return false;
		}
	}
	return true;
}

static bool read_state(const json_t *body, const char *name, enum circuit_state *state, char *why,
		       size_t why_size)
{
	const json_t *value = json_object_get(body, name);
	const char *word = json_string_value(value);
	size_t len = json_string_length(value);
	char buf[WORD_MAX];

	if (circuit_state_parse(word, len, state))
		return true;
	explain(why, why_size, "`%s` is \"%s\", which is no state; it must be one of " STATES ".",
		name, shown(buf, word, len));
	return false;
}

enum circuit_body circuit_json_decode_transition(const char *body, size_t len,
						 struct circuit_op *op, char *why, size_t why_size)
{
	struct circuit_op read = {.verb = CIRCUIT_TRANSITION};
	enum circuit_body result = CIRCUIT_BODY_INVALID;
	json_error_t error = {0};
	/* \u0000 is allowed, so that "open\u0000" is reported as no state, not as bad JSON. */
	json_t *root =
		json_loadb(len ? body : "", len,
			   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);

	if (!root) {
		explain_syntax(body, len, &error, why, why_size);
		return CIRCUIT_BODY_INVALID;
	}
	if (!check_body(root, why, why_size))
		goto out;
	result = CIRCUIT_BODY_STATE;
	if (!read_state(root, "to", &read.to, why, why_size))
		goto out;
	read.has_from = json_object_get(root, "from") != NULL;
	if (read.has_from && !read_state(root, "from", &read.from, why, why_size))
		goto out;
	*op = read;
	result = CIRCUIT_BODY_OK;
out:
	json_decref(root);
	return result;
}
