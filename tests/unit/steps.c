/*
 * Runs steps on one circuit through C and Lua (steps.h).
 */
#include "steps.h"

#include "default_policy.h"
#include "proto/circuit_script.h"
#include "redis_server.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY       "k"
#define REDIS_KEY "stoma:cb:" KEY
#define BATCH_MAX 16
#define WORDS_MAX 24

extern const char circuit_lua[];

/* The stored value, decoded. */
struct world {
	struct circuit c;
	bool exists;
	struct breaker b;
	char member[BREAKER_TEXT_MAX]; /* "": none */
	size_t member_len;
};

struct batch {
	struct circuit_op ops[BATCH_MAX];
	struct breaker_call calls[BATCH_MAX];
	struct breaker_override overrides[BATCH_MAX];
	unsigned count;
	bool decides;
};

static __attribute__((format(printf, 2, 3))) bool say(char answer[STEPS_ANSWER_MAX],
						      const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(answer, STEPS_ANSWER_MAX, fmt, ap);
	va_end(ap);
	return false;
}

/* --- the script, with TIME from its last two arguments ------------------------------------- */

static void load_script(struct steps *steps)
{
	static const char clock[] =
		"local server = redis "
		"local redis = { pcall = function(command, ...) "
		"if command == 'TIME' then return { ARGV[#ARGV - 1], ARGV[#ARGV] } end "
		"return server.pcall(command, ...) "
		"end } ";
	redisReply *reply;
	char *text;

	if (asprintf(&text, "%s%s", clock, circuit_lua) < 0)
		abort();
	reply = redis_reply(steps->redis, "SCRIPT LOAD %s", text);
	snprintf(steps->sha, sizeof(steps->sha), "%s", reply->str);
	freeReplyObject(reply);
	free(text);
}

void steps_begin(struct steps *steps, redisContext *redis)
{
	if (redis && steps->redis != redis) {
		steps->redis = redis;
		load_script(steps);
	}
	if (redis)
		redis_run(redis, "DEL " REDIS_KEY);
	steps->policy = default_policy;
	steps->now_ms = STEPS_START;
	steps->value[0] = '\0';
	steps->permit_count = 0;
}

void steps_end(struct steps *steps)
{
	free(steps->permits);
	steps->permits = NULL;
	steps->permit_count = steps->permit_room = 0;
}

/* --- reading steps ------------------------------------------------------------------------- */

static bool read_policy_word(struct policy *p, const char *name, int64_t n)
{
	const struct {
		const char *name;
		uint32_t *number;
		int64_t *time;
	} fields[] = {
		{"consecutive_failures", &p->consecutive_failures, NULL},
		{"failure_rate", &p->failure_rate, NULL},
		{"slow_time", NULL, &p->slow_time_ms},
		{"slow_rate", &p->slow_rate, NULL},
		{"window", NULL, &p->window_ms},
		{"min_calls", &p->min_calls, NULL},
		{"min_reporters", &p->min_reporters, NULL},
		{"open_time", NULL, &p->open_time_ms},
		{"open_growth", &p->open_growth_milli, NULL},
		{"open_time_max", NULL, &p->open_time_max_ms},
		{"probes", &p->probes, NULL},
		{"probe_successes", &p->probe_successes, NULL},
		{"probe_timeout", NULL, &p->probe_timeout_ms},
	};

	if (strcmp(name, "enforce") == 0) {
		p->enforce = n != 0;
		return true;
	}
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strcmp(name, fields[i].name) != 0)
			continue;
		if (fields[i].time)
			*fields[i].time = n;
		else
			*fields[i].number = (uint32_t)n;
		return true;
	}
	return false;
}

static bool read_policy(struct steps *steps, char **words, unsigned count)
{
	steps->policy = default_policy;
	for (unsigned i = 1; i < count; i++) {
		char *equals = strchr(words[i], '=');

		if (!equals)
			return false;
		*equals = '\0';
		if (!read_policy_word(&steps->policy, words[i], strtoll(equals + 1, NULL, 10)))
			return false;
	}
	return true;
}

static bool read_report(struct steps *steps, char **words, unsigned count,
			struct breaker_call *call)
{
	static const char *const outcomes[] = {"success", "failure", "ignored"};
	int outcome = -1;

	if (count < 3)
		return false;
	for (int i = 0; i < BREAKER_OUTCOMES; i++)
		if (strcmp(words[2], outcomes[i]) == 0)
			outcome = i;
	if (outcome < 0)
		return false;
	call->outcome = (enum breaker_outcome)outcome;
	if (strcmp(words[1], "-") != 0) {
		size_t n = strtoul(words[1], NULL, 10);

		if (n >= steps->permit_count ||
		    !breaker_permit_decode(steps->permits[n], strlen(steps->permits[n]), KEY,
					   strlen(KEY), &call->permit))
			return false;
	}
	for (unsigned i = 3; i < count; i++) {
		if (strcmp(words[i], "slow") == 0)
			call->slow = true;
		else if (strcmp(words[i], "by") == 0 && i + 1 < count)
			call->reporter = (uint16_t)strtoul(words[++i], NULL, 10);
		else if (words[i][0] == 'x')
			call->count = (uint32_t)strtoul(words[i] + 1, NULL, 10);
		else
			return false;
	}
	return true;
}

static bool read_state(const char *word, enum circuit_state *state)
{
	return circuit_state_parse(word, strlen(word), state);
}

static bool read_op(struct steps *steps, char **words, unsigned count, struct batch *batch)
{
	static const char *const verbs[CIRCUIT_VERBS] = {"get",        "success", "failure",
							 "transition", "reset",   "acquire",
							 "report",     "force",   "unforce"};
	struct circuit_op *op = &batch->ops[batch->count];
	struct breaker_call *call = &batch->calls[batch->count];
	int verb = -1;

	for (int i = 0; i < CIRCUIT_VERBS; i++)
		if (strcmp(words[0], verbs[i]) == 0)
			verb = i;
	if (verb < 0)
		return false;
	*op = (struct circuit_op){.verb = (enum circuit_verb)verb, .call = call};
	*call = (struct breaker_call){.policy = &steps->policy,
				      .random = (uint32_t)random(),
				      .count = 1};
	batch->count++;
	batch->decides = batch->decides || verb >= CIRCUIT_ACQUIRE;
	if (verb == CIRCUIT_REPORT)
		return read_report(steps, words, count, call);
	if (verb == CIRCUIT_OVERRIDE) {
		struct breaker_override *o = &batch->overrides[batch->count - 1];

		*call = (struct breaker_call){.override = o};
		*o = (struct breaker_override){.reason_len = 3, .reason = "why"};
		o->mode = count == 3 && strcmp(words[1], "forced-open") == 0
				  ? BREAKER_FORCED_OPEN
				  : BREAKER_FORCED_CLOSED;
		o->until_ms = count == 3 ? strtoll(words[2], NULL, 10) : 0;
		return count == 3;
	}
	if (verb != CIRCUIT_TRANSITION)
		return count == 1;
	if (count == 4) {
		op->has_from = true;
		if (!read_state(words[3], &op->from))
			return false;
	}
	return (count == 2 || count == 4) && read_state(words[1], &op->to);
}

static unsigned split(char *text, const char *between, char **parts, unsigned max)
{
	unsigned count = 0;
	char *save;

	for (char *p = strtok_r(text, between, &save); p && count < max;
	     p = strtok_r(NULL, between, &save))
		parts[count++] = p;
	return count;
}

/* --- running operations -------------------------------------------------------------------- */

static int64_t since_start(int64_t ms)
{
	return ms == 0 ? 0 : ms - STEPS_START;
}

static void add_permit(struct steps *steps, const struct breaker_permit *permit)
{
	if (steps->permit_count == steps->permit_room) {
		steps->permit_room = steps->permit_room * 2 + 64;
		steps->permits =
			reallocarray(steps->permits, steps->permit_room, sizeof(steps->permits[0]));
		if (!steps->permits)
			abort();
	}
	breaker_permit_encode(steps->permits[steps->permit_count++], permit, KEY, strlen(KEY));
}

static int write_answer(char *to, size_t size, const struct circuit_op *op, const struct world *w,
			const struct breaker_answer *a)
{
	const struct circuit *c = &w->c;

	if (op->verb == CIRCUIT_ACQUIRE)
		return snprintf(to, size, "%s %s %s %" PRId64, a->allowed ? "yes" : "no",
				circuit_state_name(a->state), breaker_reason_name(a->reason),
				a->retry_after_ms);
	if (op->verb == CIRCUIT_REPORT && op->call->count > 1)
		return snprintf(to, size, "%u counted %s %s", a->counted,
				circuit_state_name(a->was), circuit_state_name(a->state));
	if (op->verb == CIRCUIT_REPORT)
		return snprintf(to, size, "%s %s %s", breaker_reason_name(a->reason),
				circuit_state_name(a->was), circuit_state_name(a->state));
	if (op->verb == CIRCUIT_RESET || op->verb >= CIRCUIT_OVERRIDE)
		return snprintf(to, size, "ok");
	return snprintf(to, size, "%s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64,
			circuit_state_name(c->state), c->failure_count, c->success_count,
			since_start(c->last_failure_time), since_start(c->last_state_change));
}

/* Runs the operations on w and writes the answers. Permits are added to `steps` unless that is
 * NULL. */
static void replay(struct world *w, const struct batch *batch, int64_t now_ms, struct steps *steps,
		   char answer[STEPS_ANSWER_MAX])
{
	size_t len = 0;

	for (unsigned i = 0; i < batch->count; i++) {
		const struct circuit_op *op = &batch->ops[i];
		struct breaker_answer a = {0};
		enum circuit_effect effect;

		effect = breaker_run(&w->c, w->exists, &w->b, op, now_ms, &a);
		if (effect == CIRCUIT_WRITTEN && w->b.exists &&
		    (op->verb >= CIRCUIT_ACQUIRE || op->verb == CIRCUIT_TRANSITION))
			w->member_len = breaker_member_encode(w->member, &w->b);
		if (effect == CIRCUIT_REMOVED)
			w->member_len = 0;
		if (effect == CIRCUIT_WRITTEN)
			w->exists = true;
		if (effect == CIRCUIT_REMOVED)
			w->exists = false;
		if (steps && op->verb == CIRCUIT_ACQUIRE && a.allowed)
			add_permit(steps, &a.permit);
		len += (size_t)snprintf(answer + len, STEPS_ANSWER_MAX - len, i ? " | " : "");
		len += (size_t)write_answer(answer + len, STEPS_ANSWER_MAX - len, op, w, &a);
	}
}

static void read_member(struct world *w, const char *member, size_t len)
{
	w->member_len = 0;
	breaker_none(&w->b);
	if (member && breaker_member_decode(member, len, &w->b)) {
		memcpy(w->member, member, len);
		w->member_len = len;
	}
}

static void read_value(const char *value, int64_t now_ms, struct world *w)
{
	const char *member;
	size_t len;

	w->exists = circuit_json_decode_member(value, strlen(value), &w->c, &member, &len) !=
		    CIRCUIT_STORED_NONE;
	if (!w->exists)
		circuit_absent(&w->c, now_ms);
	read_member(w, w->exists ? member : NULL, len);
}

static void write_value(char value[CIRCUIT_JSON_MEMBER_MAX], const struct world *w)
{
	value[0] = '\0';
	if (w->exists)
		circuit_json_encode_member(value, &w->c, w->member_len ? w->member : NULL,
					   w->member_len);
}

static char *script_ops(const struct steps *steps, const struct batch *batch)
{
	static char ops[(BATCH_MAX + 1) * CIRCUIT_SCRIPT_TOKEN_MAX];
	size_t len = 0;

	if (batch->decides) {
		ops[len++] = 'm';
		len += circuit_script_policy(ops + len, &steps->policy);
	}
	for (unsigned i = 0; i < batch->count; i++) {
		if (batch->decides)
			ops[len++] = ';';
		len += circuit_script_token(ops + len, &batch->ops[i]);
	}
	return ops;
}

/* Runs the operations in Redis and writes the answers. False if Redis then holds another value
 * than `value`, or if anything fails. */
static bool run_lua(struct steps *steps, const struct batch *batch, const char *value,
		    char answer[STEPS_ANSWER_MAX])
{
	char usec[16], wrong[STEPS_ANSWER_MAX] = "";
	struct circuit_script_answer found;
	redisReply *reply, *stored;
	struct world w;

	snprintf(usec, sizeof(usec), "%d000", (int)(steps->now_ms % 1000));
	redisAppendCommand(steps->redis, "EVALSHA %s 1 " REDIS_KEY " 86400000 %s %lld %s",
			   steps->sha, script_ops(steps, batch), (long long)(steps->now_ms / 1000),
			   usec);
	redisAppendCommand(steps->redis, "GET " REDIS_KEY);
	if (redisGetReply(steps->redis, (void **)&reply) != REDIS_OK ||
	    redisGetReply(steps->redis, (void **)&stored) != REDIS_OK)
		return say(answer, "Redis is gone");
	if (reply->type != REDIS_REPLY_ARRAY || reply->element[0]->type != REDIS_REPLY_STRING ||
	    !circuit_script_read(reply->element[0]->str, reply->element[0]->len, &found)) {
		say(wrong, "Lua answered %s", reply->str ? reply->str : reply->element[0]->str);
	} else {
		w.c = found.circuit;
		w.exists = found.exists;
		if (!w.exists)
			circuit_absent(&w.c, found.now_ms);
		read_member(&w, found.member, found.member_len);
		replay(&w, batch, found.now_ms, NULL, answer);
		if (strcmp(stored->type == REDIS_REPLY_STRING ? stored->str : "", value) != 0)
			say(wrong, "Lua left %.220s instead of %.220s",
			    stored->type == REDIS_REPLY_STRING ? stored->str : "nothing", value);
	}
	freeReplyObject(reply);
	freeReplyObject(stored);
	if (wrong[0])
		strcpy(answer, wrong);
	return !wrong[0];
}

static bool run_batch(struct steps *steps, const struct batch *batch, char answer[STEPS_ANSWER_MAX])
{
	char lua[STEPS_ANSWER_MAX], value[CIRCUIT_JSON_MEMBER_MAX];
	struct world w;

	strcpy(value, steps->value);
	read_value(value, steps->now_ms, &w);
	replay(&w, batch, steps->now_ms, steps, answer);
	write_value(steps->value, &w);
	if (!steps->redis)
		return true;
	if (!run_lua(steps, batch, steps->value, lua))
		return say(answer, "%s", lua);
	if (strcmp(lua, answer) != 0) {
		strcpy(value, answer);
		return say(answer, "C answers %.200s, Lua %.200s", value, lua);
	}
	return true;
}

/* --- what another program does ------------------------------------------------------------- */

static bool put(struct steps *steps, const struct world *w, char answer[STEPS_ANSWER_MAX])
{
	write_value(steps->value, w);
	if (steps->redis && w->exists)
		redis_run(steps->redis, "SET " REDIS_KEY " %s", steps->value);
	say(answer, "ok");
	return true;
}

static bool run_member(struct steps *steps, const char *text, char answer[STEPS_ANSWER_MAX])
{
	struct world w;

	read_value(steps->value, steps->now_ms, &w);
	w.member_len = (size_t)snprintf(w.member, sizeof(w.member), "%s", text);
	return put(steps, &w, answer);
}

/* Runs a line that is no operation, and sets *ok to whether it worked. False if it is an
 * operation. */
static bool run_other(struct steps *steps, const char *line, char **words, unsigned count,
		      char answer[STEPS_ANSWER_MAX], bool *ok)
{
	*ok = true;
	if (strcmp(words[0], "policy") == 0)
		*ok = read_policy(steps, words, count);
	else if (strcmp(words[0], "wait") == 0 && count == 2)
		steps->now_ms += strtoll(words[1], NULL, 10);
	else if (strcmp(words[0], "back") == 0 && count == 2)
		steps->now_ms -= strtoll(words[1], NULL, 10);
	else if (strcmp(words[0], "drop") == 0)
		*ok = run_member(steps, "", answer);
	else if (strncmp(line, "member ", 7) == 0)
		*ok = run_member(steps, line + 7, answer);
	else
		return false;
	say(answer, *ok ? "ok" : "no step: %s", line);
	return true;
}

bool steps_run(struct steps *steps, const char *line, char answer[STEPS_ANSWER_MAX])
{
	char *words[WORDS_MAX], *parts[BATCH_MAX], copy[1024], again[1024];
	struct batch batch = {.count = 0};
	unsigned count;
	bool ok;

	snprintf(copy, sizeof(copy), "%s", line);
	count = split(copy, " ", words, WORDS_MAX);
	if (count == 0)
		return say(answer, "nothing to do");
	if (run_other(steps, line, words, count, answer, &ok))
		return ok;
	snprintf(again, sizeof(again), "%s", line);
	count = split(again, "|", parts, BATCH_MAX);
	for (unsigned i = 0; i < count; i++) {
		unsigned n = split(parts[i], " ", words, WORDS_MAX);

		if (n == 0 || !read_op(steps, words, n, &batch))
			return say(answer, "no step: %s", line);
	}
	return run_batch(steps, &batch, answer);
}
