/* Bodies of requests: see body.h. */
#include "proto/body.h"

#include "proto/key.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How many bytes of a client's word are shown, and room for a sentence with it. */
#define WORD_SHOWN   64
#define SENTENCE_MAX 512

const char *body_shown(char out[BODY_WORD_MAX], const char *word, size_t len)
{
	size_t shown_len = len < WORD_SHOWN ? len : WORD_SHOWN, n;

	/* Cut between two characters. */
	while (shown_len < len && shown_len > 0 && (word[shown_len] & 0xC0) == 0x80)
		shown_len--;
	n = utf8_clean(out, BODY_WORD_MAX, word, shown_len);
	if (shown_len < len)
		strcpy(out + n, "...");
	return out;
}

void body_explain(char *why, size_t why_size, const char *fmt, ...)
{
	char sentence[SENTENCE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sentence, sizeof(sentence), fmt, ap);
	va_end(ap);
	utf8_clean(why, why_size, sentence, strlen(sentence));
}

const char *body_type_name(const json_t *value)
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

/* The name of the member that jansson found twice, if it is a known one; else NULL. */
static const char *repeated_member(const char *body, size_t len, const json_error_t *error,
				   const struct body_words *words)
{
	for (size_t i = 0; i < words->member_count; i++) {
		const char *name = words->members[i];
		size_t n = strlen(name) + 2, end = (size_t)error->position;

		if (end >= n && end <= len && body[end - n] == '"' && body[end - 1] == '"' &&
		    memcmp(body + end - n + 1, name, n - 2) == 0)
			return name;
	}
	return NULL;
}

static void explain_syntax(const char *body, size_t len, const json_error_t *error,
			   const struct body_words *words, char *why, size_t why_size)
{
	int line = error->line, column = error->column;
	const char *name;

	if (is_blank(body, len)) {
		body_explain(why, why_size, "The body is empty; %s, %s.", words->needs,
			     words->example);
		return;
	}
	switch (json_error_code(error)) {
	case json_error_duplicate_key:
		name = repeated_member(body, len, error, words);
		body_explain(why, why_size,
			     "The body holds %s%s%s twice (line %d, column %d); send it once.",
			     name ? "the member `" : "a member", name ? name : "", name ? "`" : "",
			     line, column);
		return;
	case json_error_end_of_input_expected:
		body_explain(why, why_size,
			     "The body goes on after the JSON value (line %d, column %d); it must "
			     "be one object and nothing else, %s.",
			     line, column, words->example);
		return;
	case json_error_invalid_utf8:
		body_explain(
			why, why_size,
			"The body is not valid UTF-8 (line %d, column %d); send JSON in UTF-8.",
			line, column);
		return;
	default:
		body_explain(why, why_size,
			     "The body is not valid JSON (line %d, column %d: %s); send an object, "
			     "%s.",
			     line, column, error->text, words->example);
	}
}

static bool is_known(const char *name, const struct body_words *words)
{
	for (size_t i = 0; i < words->member_count; i++)
		if (strcmp(name, words->members[i]) == 0)
			return true;
	return false;
}

static bool check_object(json_t *root, const struct body_words *words, char *why, size_t why_size)
{
	char word[BODY_WORD_MAX];

	if (!json_is_object(root)) {
		body_explain(why, why_size, "The body is %s; it must be an object, %s.",
			     body_type_name(root), words->example);
		return false;
	}
	for (void *i = json_object_iter(root); i; i = json_object_iter_next(root, i)) {
		const char *name = json_object_iter_key(i);

		if (is_known(name, words))
			continue;
		body_explain(why, why_size, "`%s` is no member of %s; it takes %s.",
			     body_shown(word, name, strlen(name)), words->what, words->takes);
		return false;
	}
	return true;
}

json_t *body_read(const char *body, size_t len, const struct body_words *words, char *why,
		  size_t why_size)
{
	json_error_t error = {0};
	/* \u0000 is allowed, so that "open\u0000" is reported as no state, not as bad JSON. */
	json_t *root =
		json_loadb(len ? body : "", len,
			   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);

	if (!root) {
		explain_syntax(body, len, &error, words, why, why_size);
		return NULL;
	}
	if (check_object(root, words, why, why_size))
		return root;
	json_decref(root);
	return NULL;
}
