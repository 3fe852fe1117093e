/*
 * The body of a transition: proto/circuit_body.c, compared with a second reader, which knows only
 * what such a body may use of RFC 8259.
 */
#include "fuzz.h"
#include "proto/circuit_json.h"
#include "proto/key.h"

#include <string.h>

static void blank(struct fuzz_text *t)
{
	while (t->len && *t->p && strchr(" \t\r\n", *t->p)) {
		t->p++;
		t->len--;
	}
}

static bool take(struct fuzz_text *t, char c)
{
	if (!t->len || *t->p != c)
		return false;
	t->p++;
	t->len--;
	return true;
}

/* Takes a string of ASCII and decodes it. False also if it is longer than any name or state. */
static bool word(struct fuzz_text *t, char out[16])
{
	size_t n = 0;

	memset(out, 0, 16);
	if (!take(t, '"'))
		return false;
	while (t->len && *t->p != '"') {
		char c = *t->p;

		t->p++;
		t->len--;
		if (c == '\\' && t->len > 4 && *t->p == 'u') {
			char hex[5] = "";

			memcpy(hex, t->p + 1, 4);
			if (strspn(hex, "0123456789abcdefABCDEF") != 4 ||
			    strtoul(hex, NULL, 16) > 0x7E)
				return false;
			c = (char)strtoul(hex, NULL, 16);
			t->p += 5;
			t->len -= 5;
		} else if (c == '\\') {
			return false;
		}
		if (n == 15 || c < ' ')
			return false;
		out[n++] = c;
	}
	return take(t, '"');
}

/* True if the text is an object of "to":STATE and perhaps "from":STATE, in any order. */
static bool is_transition(struct fuzz_text t, struct circuit_op *op)
{
	bool has_to = false;
	char name[16], value[16];
	enum circuit_state state;

	*op = (struct circuit_op){.verb = CIRCUIT_TRANSITION};
	blank(&t);
	if (!take(&t, '{'))
		return false;
	do {
		blank(&t);
		if (!word(&t, name))
			return false;
		blank(&t);
		if (!take(&t, ':'))
			return false;
		blank(&t);
		if (!word(&t, value) || !circuit_state_parse(value, strlen(value), &state))
			return false;
		if (strcmp(name, "to") == 0 && !has_to) {
			has_to = true;
			op->to = state;
		} else if (strcmp(name, "from") == 0 && !op->has_from) {
			op->has_from = true;
			op->from = state;
		} else {
			return false;
		}
		blank(&t);
	} while (take(&t, ','));
	if (!take(&t, '}'))
		return false;
	blank(&t);
	return t.len == 0 && has_to;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text text = {size ? (const char *)data : "", size};
	struct circuit_op op, same;
	enum circuit_body result;
	char why[512] = "unset", little[8];

	op = (struct circuit_op){.verb = CIRCUIT_RESET,
				 .to = CIRCUIT_HALF_OPEN,
				 .has_from = true,
				 .from = CIRCUIT_OPEN};
	result = circuit_json_decode_transition(text.p, size, &op, why, sizeof(why));
	if (result == CIRCUIT_BODY_OK) {
		FUZZ_CHECK(is_transition(text, &same));
		FUZZ_CHECK(op.verb == same.verb && op.to == same.to &&
			   op.has_from == same.has_from);
		FUZZ_CHECK(!op.has_from || op.from == same.from);
		return 0;
	}
	FUZZ_CHECK(op.verb == CIRCUIT_RESET && op.to == CIRCUIT_HALF_OPEN && op.has_from &&
		   op.from == CIRCUIT_OPEN);
	FUZZ_CHECK(!is_transition(text, &same));
	fuzz_check_sentence(why, sizeof(why));
	FUZZ_CHECK(utf8_valid(why, strlen(why)));
	FUZZ_CHECK(circuit_json_decode_transition(text.p, size, &same, little, sizeof(little)) ==
		   result);
	FUZZ_CHECK(strnlen(little, sizeof(little)) < sizeof(little));
	FUZZ_CHECK(utf8_valid(little, strlen(little)));
	return 0;
}
