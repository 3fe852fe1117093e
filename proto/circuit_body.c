/*
 * The body of a transition (circuit_json.h). jansson reads it, as transitions are rare.
 */
#include "proto/body.h"
#include "proto/circuit_json.h"

#include <string.h>

#define EXAMPLE "for example {\"to\":\"open\"}"
#define STATES  "\"closed\", \"open\", \"half-open\""

static const char *const members[] = {"to", "from"};

static const struct body_words words = {
	.what = "a transition",
	.needs = "it must name the new state",
	.takes = "`to` and, optionally, `from`",
	.example = EXAMPLE,
	.members = members,
	.member_count = 2,
};

/* Checks everything but the names of the states. True if all is well. */
static bool check_types(json_t *body, char *why, size_t why_size)
{
	if (!json_object_get(body, "to")) {
		body_explain(why, why_size,
			     "The member `to` is missing; it names the new state, " EXAMPLE ".");
		return false;
	}
	for (int i = 0; i < 2; i++) {
		const json_t *value = json_object_get(body, members[i]);

		if (value && !json_is_string(value)) {
			body_explain(why, why_size, "`%s` is %s; it must be one of " STATES ".",
				     members[i], body_type_name(value));
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
	char buf[BODY_WORD_MAX];

	if (circuit_state_parse(word, len, state))
		return true;
	body_explain(why, why_size,
		     "`%s` is \"%s\", which is no state; it must be one of " STATES ".", name,
		     body_shown(buf, word, len));
	return false;
}

enum circuit_body circuit_json_decode_transition(const char *body, size_t len,
						 struct circuit_op *op, char *why, size_t why_size)
{
	struct circuit_op read = {.verb = CIRCUIT_TRANSITION};
	enum circuit_body result = CIRCUIT_BODY_INVALID;
	json_t *root = body_read(body, len, &words, why, why_size);

	if (!root)
		return CIRCUIT_BODY_INVALID;
	if (!check_types(root, why, why_size))
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
