/*
 * Compares the policy machine in C with the one in Lua, on any text of the member `breakerd`.
 *
 * An input is 16 bytes for the policy, one for the circuit's state, one for the number of
 * operations (at most OPS_MAX), 4 bytes for each operation, and the member's text.
 */
#include "script.h"

#include <string.h>

#define OPS_MAX 8

struct input {
	struct policy policy;
	struct circuit circuit;
	unsigned count;
	struct circuit_op ops[OPS_MAX];
	struct breaker_call calls[OPS_MAX];
};

static void read_policy(struct policy *p, const uint8_t *b)
{
	static const int64_t windows[] = {1000, 1005, 30000, 3600000};

	*p = (struct policy){
		.consecutive_failures = b[0] % 8,
		.failure_rate = b[1] % 101,
		.slow_time_ms = b[2] % 2,
		.slow_rate = 1 + b[3] % 100,
		.window_ms = windows[b[4] % 4],
		.min_calls = 1 + b[5] % 32,
		.min_reporters = 1 + b[6] % 16,
		.open_time_ms = 10 + b[7] * 100,
		.open_growth_milli = 1000 + b[8] * 9,
		.probes = 1 + b[10] % 100,
		.probe_successes = 1 + b[11] % 4,
		.probe_timeout_ms = 10 + b[12] * 1000,
		.enforce = b[13] % 2,
	};
	p->open_time_max_ms = p->open_time_ms * (1 + b[9]);
}

static void read_op(struct input *in, const uint8_t *b)
{
	struct circuit_op *op = &in->ops[in->count];
	struct breaker_call *call = &in->calls[in->count++];
	static const enum circuit_verb verbs[] = {CIRCUIT_ACQUIRE,        CIRCUIT_REPORT,
						  CIRCUIT_REPORT,         CIRCUIT_REPORT,
						  CIRCUIT_RECORD_SUCCESS, CIRCUIT_RECORD_FAILURE,
						  CIRCUIT_TRANSITION,     CIRCUIT_RESET};

	*op = (struct circuit_op){.verb = verbs[b[0] % 8], .to = b[1] % 3, .call = call};
	*call = (struct breaker_call){
		.policy = &in->policy,
		.random = b[1],
		.reporter = (uint16_t)(b[2] * 4 % BREAKER_REPORTERS),
		.count = 1,
		.outcome = (enum breaker_outcome)(b[0] / 8 % BREAKER_OUTCOMES),
		.slow = in->policy.slow_time_ms > 0 && b[0] / 32 % 2,
		.permit = {.kind = (enum breaker_permit_kind)(b[3] % BREAKER_PERMITS),
			   .id = b[1],
			   .since_ms = in->circuit.last_state_change + b[3] / 6 % 2},
	};
	if (call->outcome == BREAKER_SUCCESS && !call->slow &&
	    call->permit.kind != BREAKER_PERMIT_PROBE)
		call->count = 1 + b[2] % 64;
}

/* Reads all but the member's text, which *member gets. False if the input is too short or too long.
 */
static bool read_input(const uint8_t *data, size_t size, struct input *in, struct fuzz_text *member)
{
	size_t count;

	if (size < 18 || size < 18 + 4 * (count = 1 + data[17] % OPS_MAX))
		return false;
	read_policy(&in->policy, data);
	in->circuit = (struct circuit){
		.state = data[16] % 3,
		.failure_count = data[16] / 3 % 3,
		/* The time that the members in the corpus have, or now. */
		.last_state_change = data[16] & 0x80 ? NOW_MS : NOW_MS - 20000,
	};
	in->count = 0;
	while (in->count < count)
		read_op(in, data + 18 + (size_t)4 * in->count);
	*member = (struct fuzz_text){(const char *)data + 18 + 4 * count, size - 18 - 4 * count};
	return member->len <= 3000;
}

static char *script_ops(const struct input *in)
{
	static char ops[(OPS_MAX + 1) * CIRCUIT_SCRIPT_TOKEN_MAX];
	size_t len = 1;

	ops[0] = 'm';
	len += circuit_script_policy(ops + len, &in->policy);
	for (unsigned i = 0; i < in->count; i++) {
		ops[len++] = ';';
		len += circuit_script_token(ops + len, &in->ops[i]);
	}
	return ops;
}

struct outcome {
	struct circuit c;
	bool exists;
	enum circuit_effect last; /* of the last operation that was no read */
	struct breaker_answer answers[OPS_MAX];
	char member[BREAKER_TEXT_MAX]; /* the text that was written last */
	size_t member_len;
	bool removed; /* at some time */
};

static void run(struct outcome *o, const struct circuit *c, bool exists, const char *member,
		size_t len, const struct input *in)
{
	struct breaker b;

	memset(o, 0, sizeof(*o));
	o->c = *c;
	o->exists = exists;
	if (!exists)
		circuit_absent(&o->c, NOW_MS);
	breaker_none(&b);
	if (member)
		breaker_member_decode(member, len, &b);
	for (unsigned i = 0; i < in->count; i++) {
		const struct circuit_op *op = &in->ops[i];
		enum circuit_effect effect =
			breaker_run(&o->c, o->exists, &b, op, NOW_MS, &o->answers[i]);

		if (effect == CIRCUIT_READ)
			continue;
		o->last = effect;
		o->exists = effect == CIRCUIT_WRITTEN;
		o->removed = o->removed || effect == CIRCUIT_REMOVED;
		if (effect == CIRCUIT_REMOVED)
			o->member_len = 0;
		else if (b.exists &&
			 (op->verb >= CIRCUIT_ACQUIRE || op->verb == CIRCUIT_TRANSITION))
			o->member_len = breaker_member_encode(o->member, &b);
	}
}

static void check_same(const struct circuit *a, const struct circuit *b)
{
	FUZZ_CHECK(a->state == b->state);
	FUZZ_CHECK(a->failure_count == b->failure_count);
	FUZZ_CHECK(a->success_count == b->success_count);
	FUZZ_CHECK(a->last_failure_time == b->last_failure_time);
	FUZZ_CHECK(a->last_state_change == b->last_state_change);
}

static void check_same_answer(const struct breaker_answer *a, const struct breaker_answer *b)
{
	FUZZ_CHECK(a->was == b->was && a->state == b->state && a->reason == b->reason);
	FUZZ_CHECK(a->allowed == b->allowed && a->counted == b->counted);
	FUZZ_CHECK(a->retry_after_ms == b->retry_after_ms);
	FUZZ_CHECK(a->permit.kind == b->permit.kind && a->permit.id == b->permit.id);
	FUZZ_CHECK(a->permit.since_ms == b->permit.since_ms);
	FUZZ_CHECK(a->move.cause == b->move.cause);
}

static void check_written(const struct outcome *o, const char *member, size_t member_len)
{
	char should[CIRCUIT_JSON_MEMBER_MAX + 3000];
	size_t len;

	if (o->member_len > 0) {
		len = circuit_json_encode_member(should, &o->c, o->member, o->member_len);
	} else {
		bool kept = member && !o->removed;

		len = circuit_json_encode(should, &o->c);
		if (kept) /* unchanged, even if it is not understood */
			len = len - 1 +
			      (size_t)sprintf(should + len - 1, ",\"breakerd\":\"%.*s\"}",
					      (int)member_len, member);
	}
	FUZZ_CHECK(script.set_len == len && memcmp(script.set, should, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct circuit_script_answer answer;
	struct fuzz_text text, value;
	struct outcome c, lua;
	struct circuit stored;
	struct input in;
	const char *member;
	char buf[4096];
	size_t member_len;
	bool exists;

	if (!read_input(data, size, &in, &text))
		return 0;
	value.p = buf;
	value.len = circuit_json_encode(buf, &in.circuit) - 1;
	memcpy(buf + value.len, ",\"breakerd\":\"", 13);
	memcpy(buf + value.len + 13, text.p, text.len);
	memcpy(buf + value.len + 13 + text.len, "\"}", 2);
	value.len += 15 + text.len;

	exists = circuit_json_decode_member(value.p, value.len, &stored, &member, &member_len) !=
		 CIRCUIT_STORED_NONE;
	run(&c, &stored, exists, exists ? member : NULL, exists ? member_len : 0, &in);
	script_eval(value, script_ops(&in), &answer);
	run(&lua, &answer.circuit, answer.exists, answer.member, answer.member_len, &in);
	check_same(&c.c, &lua.c);
	for (unsigned i = 0; i < in.count; i++)
		check_same_answer(&c.answers[i], &lua.answers[i]);
	FUZZ_CHECK(script.deleted == (c.last == CIRCUIT_REMOVED));
	FUZZ_CHECK((script.set != NULL) == (c.last == CIRCUIT_WRITTEN));
	/* A quote in the text may begin other members; fuzz_stored.c checks those. */
	if (script.set && !memchr(text.p, '"', text.len) && !memchr(text.p, '\\', text.len) &&
	    !memchr(text.p, '\0', text.len))
		check_written(&c, exists ? member : NULL, member_len);
	script_forget();
	return 0;
}
