/*
 * One call of circuit.lua: what it says to Redis, and what becomes of its operations.
 */
#include "base/clock.h"
#include "proto/breaker_member.h"
#include "proto/circuit_script.h"
#include "proto/number.h"
#include "redis/writes_private.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct redis_write *call_take(struct redis_call *call, size_t index)
{
	struct redis_write *write = call->ops[index].write;

	call->ops[index].write = NULL;
	return write;
}

/* Ends each operation of a part in the same way. */
static void part_fail(struct redis_call *call, const struct call_part *part,
		      enum store_status status, const char *message)
{
	for (size_t i = part->first; i < part->first + part->count; i++) {
		struct redis_write *write = call_take(call, i);

		if (write)
			redis_write_fail(write, status, message);
	}
}

/* Tells each operation of a part its own snapshot. */
static void part_answer(struct redis_call *call, const struct call_part *part,
			const struct circuit_script_answer *answer)
{
	struct circuit c = answer->circuit;
	bool exists = answer->exists;
	struct breaker b;

	if (answer->stored != CIRCUIT_STORED_SOUND)
		redis_store_corrupt(call->r, keynode_key(&part->circuit->node),
				    part->circuit->node.key_len, answer->stored, false);
	breaker_none(&b);
	if (answer->member)
		breaker_member_decode(answer->member, answer->member_len, &b);
	if (!exists)
		circuit_absent(&c, answer->now_ms);
	for (size_t i = part->first; i < part->first + part->count; i++) {
		struct redis_write *write = call_take(call, i);
		struct store_result result;

		store_refuse(&result, STORE_OK, NULL);
		result.was = c.state;
		result.was_overridden = breaker_override_at(&b, answer->now_ms) != NULL;
		switch (breaker_run(&c, exists, &b, &call->ops[i].what, answer->now_ms,
				    &result.decision)) {
		case CIRCUIT_READ:
			break;
		case CIRCUIT_CONFLICT:
			result.status = STORE_CONFLICT;
			break;
		case CIRCUIT_REMOVED:
			exists = false;
			break;
		case CIRCUIT_WRITTEN:
			exists = true;
			break;
		}
		result.absent = !exists;
		result.circuit = c;
		result.breaker = &b;
		if (answer->now_ms > 0)
			result.override = breaker_override_at(&b, answer->now_ms);
		result.now_ms = answer->now_ms;
		if (write)
			redis_op_finish(&write->base, &result);
	}
}

/* --- calls -------------------------------------------------------------------------------- */

/* The part is done: operations that came for its circuit meanwhile may be sent. */
static void part_end(struct redis_call *call, const struct call_part *part)
{
	part->circuit->under_way = false;
	write_queue_settle(call->r, part->circuit);
}

static void call_free(struct redis_call *call)
{
	for (size_t i = 0; i < call->op_count; i++)
		store_drop_call(&call->ops[i].what);
	if (call->tokens)
		evbuffer_free(call->tokens);
	free(call);
}

static void call_fail(struct redis_call *call, enum store_status status, const char *message)
{
	for (size_t i = 0; i < call->part_count; i++) {
		part_fail(call, &call->parts[i], status, message);
		if (status == STORE_UNAVAILABLE)
			write_queue_give_up(call->r, call->parts[i].circuit);
		part_end(call, &call->parts[i]);
	}
	call_free(call);
}

struct redis_call *redis_call_new(struct redis_store *r, size_t op_count)
{
	struct redis_call *call = malloc(sizeof(*call) + op_count * sizeof(call->ops[0]));

	if (!call)
		return NULL;
	call->r = r;
	call->whole = false;
	call->part_count = 0;
	call->op_count = 0;
	call->may_publish = false;
	call->tokens = NULL;
	return call;
}

/* Adds an operation to the last part; *what is moved there. */
static void call_add_op(struct redis_call *call, struct redis_write *write, struct circuit_op *what)
{
	struct call_part *part = &call->parts[call->part_count - 1];
	size_t i = call->op_count++;

	part->count++;
	/* A read is told of an override. */
	part->decides = part->decides || what->call || what->verb == CIRCUIT_GET_STATE;
	call->may_publish = call->may_publish || (what->verb != CIRCUIT_RECORD_SUCCESS &&
						  what->verb != CIRCUIT_RECORD_FAILURE);
	call->ops[i].write = write;
	call->ops[i].what = *what;
	call->letters[i] = circuit_script_letter(what);
	what->call = NULL;
	if (write) {
		write->call = call;
		write->index = i;
	}
}

static void call_add_part(struct redis_call *call, struct write_queue *q)
{
	struct call_part *part = &call->parts[call->part_count++];

	part->circuit = q;
	part->first = call->op_count;
	part->count = 0;
	part->decides = false;
}

/* The whole call failed and did nothing. One circuit may be the cause: send each by itself. */
static void call_split(struct redis_call *call)
{
	for (size_t n = 0; n < call->part_count; n++) {
		const struct call_part *part = &call->parts[n];
		struct redis_call *single = redis_call_new(call->r, part->count);

		if (!single) {
			part_fail(call, part, STORE_UNAVAILABLE, "out of memory");
			write_queue_give_up(call->r, part->circuit);
			part_end(call, part);
			continue;
		}
		call_add_part(single, part->circuit);
		for (size_t i = part->first; i < part->first + part->count; i++)
			call_add_op(single, call->ops[i].write, &call->ops[i].what);
		redis_call_send(single);
	}
	call_free(call);
}

static void call_error(struct redis_call *call, const redisReply *reply)
{
	if (redis_script_again(call->r, reply, &call->whole))
		redis_call_send(call);
	else if (redis_script_broke(reply))
		call_fail(call, STORE_UNKNOWN, reply->str);
	else if (call->part_count > 1)
		call_split(call);
	else
		call_fail(call, STORE_ERROR, reply->str);
}

static void call_answer(struct redis_call *call, const redisReply *reply)
{
	bool fits = reply->type == REDIS_REPLY_ARRAY && reply->elements == call->part_count;
	bool told = false;

	for (size_t i = 0; i < call->part_count; i++) {
		const struct call_part *part = &call->parts[i];
		const redisReply *one = fits ? reply->element[i] : NULL;
		struct circuit_script_answer answer;

		if (one && one->type == REDIS_REPLY_STRING &&
		    circuit_script_read(one->str, one->len, &answer)) {
			/* The script has one time for the whole call, but reads it only when it is
			 * needed. */
			if (!told && answer.now_ms > 0)
				redis_link_told_clock(call->r->link, call->sent_ms, answer.now_ms);
			told = told || answer.now_ms > 0;
			part_answer(call, part, &answer);
		} else {
			part_fail(call, part, STORE_ERROR, redis_reply_words(one));
		}
		part_end(call, part);
	}
	call_free(call);
}

/* The time falls at once and rises slowly. */
static void measure(struct redis_writes *writes, int64_t took_ms)
{
	if (took_ms > writes->took_ms)
		took_ms = writes->took_ms + (took_ms - writes->took_ms + 3) / 4;
	writes->took_ms = took_ms;
}

static void on_call(void *arg, enum redis_outcome outcome, const redisReply *reply, const char *why)
{
	struct redis_call *call = arg;
	struct redis_store *r = call->r;

	TAILQ_REMOVE(&r->writes->calls, call, entry);
	r->writes->under_way--;
	if (outcome == REDIS_REPLY)
		measure(r->writes, clock_ms() - call->sent_ms);
	switch (outcome) {
	case REDIS_REPLY:
		if (reply->type == REDIS_REPLY_ERROR)
			call_error(call, reply);
		else
			call_answer(call, reply);
		break;
	case REDIS_REFUSED:
		call_fail(call, STORE_UNAVAILABLE, why);
		break;
	case REDIS_LOST:
		call_fail(call, STORE_UNKNOWN, why);
		break;
	}
	if (!TAILQ_EMPTY(&r->writes->ready))
		later_run(r->flush);
}

/* Writes the part's operations as circuit.lua reads them if acquire and report are among them.
 * False when out of memory. */
static bool write_tokens(struct redis_call *call, const struct call_part *part, size_t *len)
{
	const struct policy *policy = NULL;
	size_t before = evbuffer_get_length(call->tokens);
	char token[CIRCUIT_SCRIPT_TOKEN_MAX + 1];
	bool ok = evbuffer_add(call->tokens, "m", 1) == 0;

	for (size_t i = part->first; i < part->first + part->count && ok; i++) {
		const struct circuit_op *what = &call->ops[i].what;

		if (what->call && what->call->policy &&
		    (!policy || !policy_equal(policy, what->call->policy))) {
			policy = what->call->policy;
			token[0] = ';';
			ok = evbuffer_add(call->tokens, token,
					  1 + circuit_script_policy(token + 1, policy)) == 0;
		}
		token[0] = ';';
		ok = ok && evbuffer_add(call->tokens, token,
					1 + circuit_script_token(token + 1, what)) == 0;
	}
	*len = evbuffer_get_length(call->tokens) - before;
	return ok;
}

/* Sets the arguments that say what to do to each key. False when out of memory. */
static bool call_operations(struct redis_call *call, const char **argv, size_t *lens)
{
	const char *text;

	for (size_t i = 0; i < call->part_count; i++) {
		const struct call_part *part = &call->parts[i];

		argv[i] = part->decides ? NULL : call->letters + part->first;
		lens[i] = part->count;
		if (!part->decides)
			continue;
		if (!call->tokens)
			call->tokens = evbuffer_new();
		if (!call->tokens || !write_tokens(call, part, &lens[i]))
			return false;
	}
	if (!call->tokens)
		return true;
	text = (const char *)evbuffer_pullup(call->tokens, -1);
	for (size_t i = 0; i < call->part_count && text; i++) {
		if (argv[i])
			continue;
		argv[i] = text;
		text += lens[i];
	}
	return text != NULL;
}

/* The arguments have been copied. */
static void call_sent(struct redis_call *call)
{
	if (call->tokens)
		evbuffer_free(call->tokens);
	call->tokens = NULL;
}

/* Hands the call over, or ends it. */
void redis_call_send(struct redis_call *call)
{
	struct redis_store *r = call->r;
	struct redis_script_words words = redis_script_words(r, call->whole);
	const char *argv[5 + 2 * CALL_CIRCUITS];
	size_t lens[5 + 2 * CALL_CIRCUITS];
	size_t n = call->part_count, argc = 4 + 2 * n;
	char keys[24];

	argv[0] = words.command;
	argv[1] = words.script;
	argv[2] = keys;
	argv[3 + n] = r->ttl;
	lens[0] = words.command_len;
	lens[1] = words.script_len;
	lens[2] = (size_t)(number_put(keys, (int64_t)n) - keys);
	lens[3 + n] = r->ttl_len;
	for (size_t i = 0; i < n; i++) {
		const struct call_part *part = &call->parts[i];

		argv[3 + i] = keynode_key(&part->circuit->node);
		lens[3 + i] = part->circuit->node.key_len;
	}
	if (!call_operations(call, argv + 4 + n, lens + 4 + n)) {
		call_fail(call, STORE_UNAVAILABLE, "out of memory");
		return;
	}
	if (call->may_publish) {
		argv[argc] = r->publish;
		lens[argc++] = strlen(r->publish);
	}
	if (!redis_link_send(r->link, on_call, call, (int)argc, argv, lens)) {
		call_fail(call, STORE_UNAVAILABLE, redis_store_why(r));
		return;
	}
	call_sent(call);
	call->sent_ms = clock_ms();
	TAILQ_INSERT_TAIL(&r->writes->calls, call, entry);
	r->writes->under_way++;
}

/* The circuit's waiting operations, as far as they fit. */
void redis_call_fill_part(struct redis_call *call, struct write_queue *q)
{
	struct redis_write *write;

	call_add_part(call, q);
	while (call->op_count < CALL_OPS && (write = TAILQ_FIRST(&q->waiting)) != NULL) {
		TAILQ_REMOVE(&q->waiting, write, entry);
		call_add_op(call, write, &write->what);
	}
	q->under_way = true;
}
