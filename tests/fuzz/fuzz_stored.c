/*
 * The value in Redis: proto/circuit_json.c and proto/circuit.lua must read and change it alike. The
 * script runs here in Debian's Lua 5.1 (script.h).
 *
 * An input is a line of operations and then the value. The line has letters of circuit.lua, or a
 * step to be folded, which begins with w. Any other byte stands for one of the letters.
 */
#include "../unit/script_op.h"
#include "proto/circuit_fold.h"
#include "script.h"

#include <inttypes.h>
#include <string.h>

#define LETTERS "gsfdABCDEFGHIJKL"
#define OPS_MAX 24

/* --- members that are not ours ------------------------------------------------------------ */

/* Returns the place of the next of `ends` that is in no string and in no nested value. */
static const char *step_over(const char *p, const char *ends)
{
	for (int depth = 0; depth > 0 || !strchr(ends, *p); p++) {
		if (*p == '"') {
			for (p++; *p != '"'; p++)
				p += *p == '\\';
		}
		depth += *p == '{' || *p == '[';
		depth -= *p == '}' || *p == ']';
	}
	return p;
}

/* True if a quoted name, perhaps with escapes, is that of one of the five members. */
static bool is_ours(const char *name, const char *end)
{
	static const char *const ours[] = {"state", "failureCount", "successCount",
					   "lastFailureTime", "lastStateChange"};
	char plain[24];
	size_t n = 0;

	for (name++, end--; name < end; n++) {
		char hex[5] = "";

		if (n == sizeof(plain) - 1)
			return false;
		if (*name != '\\') {
			plain[n] = *name++;
			continue;
		}
		if (name[1] != 'u')
			return false;
		memcpy(hex, name + 2, 4);
		if (strtoul(hex, NULL, 16) > 0x7E)
			return false;
		plain[n] = (char)strtoul(hex, NULL, 16);
		name += 6;
	}
	plain[n] = '\0';
	for (size_t i = 0; i < 5; i++)
		if (n == strlen(ours[i]) && memcmp(plain, ours[i], n) == 0)
			return true;
	return false;
}

static const char *blank(const char *p)
{
	return p + strspn(p, " \t\r\n");
}

/* The members of an object that are not the five, each as it is written, with a comma before. The
 * caller frees the text. */
static char *others_of(struct fuzz_text value)
{
	char *text = fuzz_string(value), *others = malloc(2 * value.len + 1), *to = others;
	const char *p = blank(text);

	FUZZ_CHECK(others && *p == '{');
	/* A valid object has no NUL inside, so the copy's NUL ends it. */
	for (p = blank(p + 1); *p != '}';) {
		const char *name = p, *name_end = step_over(p, " \t\r\n:");
		const char *from = blank(blank(name_end) + 1), *end = step_over(from, " \t\r\n,}");

		if (!is_ours(name, name_end))
			to += sprintf(to, ",%.*s:%.*s", (int)(name_end - name), name,
				      (int)(end - from), from);
		p = blank(end);
		if (*p == ',')
			p = blank(p + 1);
	}
	*to = '\0';
	free(text);
	return others;
}

/* --- comparing ---------------------------------------------------------------------------- */

static void check_same(const struct circuit *a, const struct circuit *b)
{
	FUZZ_CHECK(a->state == b->state);
	FUZZ_CHECK(a->failure_count == b->failure_count);
	FUZZ_CHECK(a->success_count == b->success_count);
	FUZZ_CHECK(a->last_failure_time == b->last_failure_time);
	FUZZ_CHECK(a->last_state_change == b->last_state_change);
}

/* Checks the written value: it reads as c without a repair, and has the other members unchanged. */
static void check_written(const struct circuit *c, const char *others)
{
	struct fuzz_text written = {script.set, script.set_len};
	char head[CIRCUIT_JSON_MAX];
	struct circuit again;
	size_t len;

	FUZZ_CHECK(script.set);
	FUZZ_CHECK(circuit_json_decode_stored(written.p, written.len, &again) ==
		   CIRCUIT_STORED_SOUND);
	check_same(&again, c);
	/* Byte by byte: the five members, the others, the brace. */
	len = circuit_json_encode(head, c) - 1;
	FUZZ_CHECK(written.len == len + strlen(others) + 1);
	FUZZ_CHECK(memcmp(written.p, head, len) == 0);
	FUZZ_CHECK(memcmp(written.p + len, others, strlen(others)) == 0);
}

static void check_read(struct fuzz_text value, enum circuit_stored stored, const struct circuit *c)
{
	struct circuit_script_answer answer;

	script_eval(value, "g", &answer);
	FUZZ_CHECK(!script.set && !script.deleted);
	FUZZ_CHECK(answer.stored == stored && answer.exists == (stored != CIRCUIT_STORED_NONE));
	FUZZ_CHECK(!answer.exists || answer.now_ms == 0);
	if (answer.exists)
		check_same(&answer.circuit, c);
}

static void check_operations(struct fuzz_text value, const char *ops, struct circuit c, bool exists,
			     char *others)
{
	struct circuit_script_answer answer;
	enum circuit_effect last = CIRCUIT_READ;

	script_eval(value, ops, &answer);
	for (; *ops; ops++) {
		struct circuit_op op = script_op(*ops);
		enum circuit_effect effect = circuit_apply(&c, exists, &op, NOW_MS);

		if (effect == CIRCUIT_REMOVED)
			others[0] = '\0';
		if (effect == CIRCUIT_WRITTEN || effect == CIRCUIT_REMOVED) {
			exists = effect == CIRCUIT_WRITTEN;
			last = effect;
		}
	}
	FUZZ_CHECK(script.deleted == (last == CIRCUIT_REMOVED));
	FUZZ_CHECK((script.set != NULL) == (last == CIRCUIT_WRITTEN));
	if (script.set)
		check_written(&c, others);
}

/* Makes a step from the words after the w, with numbers that circuit_fold.c can produce. */
static void fold_of(struct fuzz_text words, struct circuit_fold *fold)
{
	int64_t n[9] = {0};

	for (size_t i = 0; i < 9; i++) {
		char *word = fuzz_string(fuzz_until(&words, " "));

		n[i] = (int64_t)(strtoull(word, NULL, 10) % ((uint64_t)CIRCUIT_INT_MAX + 1));
		free(word);
	}
	*fold = (struct circuit_fold){
		.failures = n[0],
		.successes = n[1],
		.zero_failures = n[2] % 2,
		.zero_successes = n[3] % 2,
		.writes = n[4] % 2,
		.has_state = n[5] % 4 != 3,
		.state = (enum circuit_state)(n[5] % 3),
		.last_failure_time = n[7],
		.reset = n[8],
	};
	if (fold->has_state)
		fold->last_state_change = n[6];
	else
		fold->created = n[6];
}

static void check_fold(struct fuzz_text value, struct fuzz_text words, struct circuit c,
		       bool exists, char *others)
{
	const int64_t written = NOW_MS - (TTL_S * INT64_C(1000) - LEFT_MS);
	struct circuit_script_answer answer;
	struct circuit_fold fold;
	enum circuit_effect effect;
	char step[CIRCUIT_FOLD_MAX];
	bool removed;

	fold_of(words, &fold);
	circuit_fold_encode(step, &fold);
	script_eval(value, step, &answer);
	removed = exists && fold.reset > 0 && c.last_failure_time <= fold.reset &&
		  c.last_state_change <= fold.reset && written <= fold.reset;
	effect = circuit_fold_apply(&c, exists, exists ? written : 0, &fold);
	FUZZ_CHECK(script.deleted == (effect == CIRCUIT_REMOVED));
	FUZZ_CHECK((script.set != NULL) == (effect == CIRCUIT_WRITTEN));
	FUZZ_CHECK(answer.exists ==
		   (effect == CIRCUIT_WRITTEN || (exists && effect != CIRCUIT_REMOVED)));
	if (answer.exists)
		check_same(&answer.circuit, &c);
	if (removed)
		others[0] = '\0';
	if (script.set)
		check_written(&c, others);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text value = {(const char *)data, size}, spaced;
	struct fuzz_text line = fuzz_until(&value, "\n");
	struct circuit c = {0};
	enum circuit_stored stored;
	char *others, *copy, ops[OPS_MAX + 1] = "";

	if (!value.p)
		value.p = "";
	stored = circuit_json_decode_stored(value.p, value.len, &c);
	check_read(value, stored, &c);
	/* With a space in front the script does not use its fast pattern for plain values. */
	copy = malloc(value.len + 1);
	FUZZ_CHECK(copy);
	copy[0] = ' ';
	memcpy(copy + 1, value.p, value.len);
	spaced = (struct fuzz_text){copy, value.len + 1};
	check_read(spaced, stored, &c);

	others = stored == CIRCUIT_STORED_NONE ? fuzz_string((struct fuzz_text){"", 0})
					       : others_of(value);
	if (line.len > 0 && line.p[0] == 'w') {
		line.p += line.len > 1 ? 2 : 1;
		line.len -= line.len > 1 ? 2 : 1;
		check_fold(value, line, c, stored != CIRCUIT_STORED_NONE, others);
	} else {
		for (size_t i = 0; i < line.len && i < OPS_MAX; i++)
			ops[i] = line.p[i] && strchr(LETTERS, line.p[i])
					 ? line.p[i]
					 : LETTERS[(unsigned char)line.p[i] % strlen(LETTERS)];
		if (ops[0])
			check_operations(value, ops, c, stored != CIRCUIT_STORED_NONE, others);
	}
	free(others);
	free(copy);
	script_forget();
	return 0;
}
