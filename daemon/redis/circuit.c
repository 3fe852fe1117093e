/*
 * One circuit in Redis: a read is a GETRANGE, which bounds what a large value costs, and asks for
 * Redis's time where that is part of the answer; a step that is folded in is a call of circuit.lua.
 */
#include "redis/circuit.h"

#include "proto/breaker_member.h"
#include "proto/circuit_script.h"
#include "redis/writes.h"

#include <stdlib.h>
#include <string.h>

/* A read, or a step that is folded in. */
struct redis_circuit_op {
	struct redis_op base;
	bool whole;       /* with the script, not its hash */
	bool with_member; /* as in the request */
	size_t key_len;
	size_t script_len;
	bool overtaken;          /* as in the result */
	struct breaker *breaker; /* of a circuit with an override, while the time is asked for */
	struct circuit circuit;  /* as that */
	char key[]; /* prefix, "cb:" and the circuit's key; then, script_len bytes, what the
		       script is to do */
};

static struct redis_circuit_op *circuit_op(struct redis_op *o)
{
	return (struct redis_circuit_op *)o;
}

/* `b`: its member. */
static void finish_circuit(struct redis_op *o, const struct circuit *c, bool absent,
			   const struct breaker *b)
{
	struct store_result result;

	store_refuse(&result, STORE_OK, NULL);
	result.circuit = *c;
	result.absent = absent;
	result.breaker = b;
	result.overtaken = circuit_op(o)->overtaken;
	redis_op_finish(o, &result);
}

/* --- a read: getState */

/* Redis's time has come for a circuit with an override, which may be over. */
static void finish_overridden(struct redis_circuit_op *q, int64_t now_ms)
{
	struct breaker b = *q->breaker;
	struct store_result result;

	store_refuse(&result, STORE_OK, NULL);
	result.circuit = q->circuit;
	result.overtaken = q->overtaken;
	result.breaker = &b;
	result.override = breaker_override_at(&b, now_ms);
	result.now_ms = now_ms;
	redis_op_finish(&q->base, &result);
}

static bool read_time(const redisReply *reply, int64_t *now_ms)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
	    reply->element[0]->type != REDIS_REPLY_STRING ||
	    reply->element[1]->type != REDIS_REPLY_STRING)
		return false;
	*now_ms = strtoll(reply->element[0]->str, NULL, 10) * 1000 +
		  strtoll(reply->element[1]->str, NULL, 10) / 1000;
	return true;
}

/* One TIME answers every read that waits: Redis executed all their reads before it. */
static void on_clock(void *arg, enum redis_outcome outcome, const redisReply *reply,
		     const char *why)
{
	struct redis_store *r = arg;
	struct redis_op *o;
	struct circuit c;
	struct breaker none;
	int64_t now_ms = 0;
	bool ok = outcome == REDIS_REPLY && read_time(reply, &now_ms);

	breaker_none(&none);

	/* A callback may cancel any of them, but none joins meanwhile. */
	while ((o = TAILQ_FIRST(&r->clock_queue)) != NULL) {
		TAILQ_REMOVE(&r->clock_queue, o, clock_entry);
		if (ok && circuit_op(o)->breaker) {
			finish_overridden(circuit_op(o), now_ms);
		} else if (ok) {
			circuit_absent(&c, now_ms);
			finish_circuit(o, &c, true, &none);
		} else if (outcome == REDIS_REPLY) {
			redis_op_fail_reply(o, reply);
		} else {
			redis_op_fail(o, STORE_UNAVAILABLE, why);
		}
	}
}

/*
 * The circuit does not exist: its lastStateChange is Redis's now. A write that Redis runs between
 * the read and TIME is answered first, and what was read is older than that. It is pending by now:
 * one that comes later is sent behind TIME.
 */
static void wait_for_clock(struct redis_op *o)
{
	struct redis_store *r = redis_store(o->op.store);
	struct redis_circuit_op *q = circuit_op(o);
	const char *argv[] = {"TIME"};
	size_t argvlen[] = {4};
	struct store_result result;

	q->overtaken = redis_writes_pending(r, q->key, q->key_len);
	if (TAILQ_EMPTY(&r->clock_queue) &&
	    !redis_link_send(r->link, on_clock, r, 1, argv, argvlen)) {
		redis_store_away(r, &result);
		redis_op_finish(o, &result);
		return;
	}
	TAILQ_INSERT_TAIL(&r->clock_queue, o, clock_entry);
}

/* Redis answers GETRANGE with "" for an empty value, too. That is no JSON object, and to be
 * counted: EXISTS tells. The read does not wait for it. */
struct empty_question {
	struct redis_store *r;
	size_t key_len;
	char key[];
};

static void on_exists(void *arg, enum redis_outcome outcome, const redisReply *reply,
		      const char *why)
{
	struct empty_question *q = arg;

	(void)why;
	if (outcome == REDIS_REPLY && reply->type == REDIS_REPLY_INTEGER && reply->integer == 1)
		redis_store_corrupt(q->r, q->key, q->key_len, CIRCUIT_STORED_NONE);
	free(q);
}

static void ask_whether_empty(struct redis_store *r, const char *key, size_t key_len)
{
	const char *argv[] = {"EXISTS", key};
	const size_t argvlen[] = {6, key_len};
	struct empty_question *q = malloc(sizeof(*q) + key_len);

	if (!q)
		return;
	q->r = r;
	q->key_len = key_len;
	memcpy(q->key, key, key_len);
	if (!redis_link_send(r->link, on_exists, q, 2, argv, argvlen))
		free(q);
}

static void release_breaker(struct redis_op *o)
{
	free(circuit_op(o)->breaker);
}

/* The circuit has an override: Redis is asked for the time, which says whether it holds. */
static void finish_by_clock(struct redis_circuit_op *q, const struct circuit *c,
			    const struct breaker *b)
{
	q->breaker = malloc(sizeof(*q->breaker));
	if (!q->breaker) {
		redis_op_fail(&q->base, STORE_ERROR, "out of memory");
		return;
	}
	*q->breaker = *b;
	q->circuit = *c;
	q->base.release = release_breaker;
	wait_for_clock(&q->base);
}

/* As circuit.lua says it. */
static const char too_large[] = "TOOLARGE the stored value is larger than 64 KiB";

/* One command and no more: this is asked again and again. What is wrong with a value is counted
 * where somebody else reads it. */
static void finish_with_member(struct redis_op *o, const redisReply *reply)
{
	struct store_result result;
	enum circuit_stored stored = CIRCUIT_STORED_NONE;
	const char *member = NULL;
	struct breaker b;
	size_t len;

	if (reply->len > CIRCUIT_STORED_BYTES_MAX) {
		redis_op_fail(o, STORE_ERROR, too_large);
		return;
	}
	store_refuse(&result, STORE_OK, NULL);
	breaker_none(&b);
	if (reply->len > 0)
		stored = circuit_json_decode_member(reply->str, reply->len, &result.circuit,
						    &member, &len);
	result.absent = stored == CIRCUIT_STORED_NONE;
	if (!result.absent && member)
		breaker_member_decode(member, len, &b);
	result.breaker = &b;
	redis_op_finish(o, &result);
}

static void on_get(struct redis_op *o, const redisReply *reply)
{
	struct redis_store *r = redis_store(o->op.store);
	struct redis_circuit_op *q = circuit_op(o);
	enum circuit_stored stored;
	struct circuit c;
	struct breaker b;
	const char *member;
	size_t member_len;

	if (reply->type != REDIS_REPLY_STRING) {
		redis_op_fail_reply(o, reply);
		return;
	}
	if (q->with_member) {
		finish_with_member(o, reply);
		return;
	}
	if (reply->len == 0) {
		ask_whether_empty(r, q->key, q->key_len);
		wait_for_clock(o);
		return;
	}
	if (reply->len > CIRCUIT_STORED_BYTES_MAX) {
		redis_op_fail(o, STORE_ERROR, too_large);
		return;
	}
	stored = circuit_json_decode_member(reply->str, reply->len, &c, &member, &member_len);
	if (stored != CIRCUIT_STORED_SOUND)
		redis_store_corrupt(r, q->key, q->key_len, stored);
	if (stored == CIRCUIT_STORED_NONE) {
		wait_for_clock(o);
		return;
	}
	breaker_none(&b);
	if (member)
		breaker_member_decode(member, member_len, &b);
	if (b.override.mode != BREAKER_NO_OVERRIDE)
		finish_by_clock(q, &c, &b);
	else
		finish_circuit(o, &c, false, &b);
}

/* One byte more than the largest value that is read, if there is one. */
static int send_get(struct redis_circuit_op *q)
{
	const char *argv[] = {"GETRANGE", q->key, "0", "65536"};
	size_t argvlen[] = {8, q->key_len, 1, 5};

	_Static_assert(CIRCUIT_STORED_BYTES_MAX == 65536, "as above");
	return redis_op_send(&q->base, 4, argv, argvlen);
}

/* --- steps to be folded in */

static int send_script(struct redis_circuit_op *q);

static void on_step(struct redis_op *o, const redisReply *reply)
{
	struct redis_store *r = redis_store(o->op.store);
	struct redis_circuit_op *q = circuit_op(o);
	struct circuit_script_answer a;
	struct store_result result;
	struct breaker b;

	if (redis_script_again(r, reply, &q->whole)) {
		if (send_script(q) != 0) {
			redis_store_away(r, &result);
			redis_op_finish(o, &result);
		}
		return;
	}
	if (redis_script_broke(reply)) {
		redis_op_fail(o, STORE_UNKNOWN, reply->str);
		return;
	}
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1)
		reply = reply->element[0];
	if (reply->type != REDIS_REPLY_STRING || !circuit_script_read(reply->str, reply->len, &a)) {
		redis_op_fail_reply(o, reply);
		return;
	}
	breaker_none(&b);
	if (a.member)
		breaker_member_decode(a.member, a.member_len, &b);
	finish_circuit(o, &a.circuit, !a.exists, &b);
}

static int send_script(struct redis_circuit_op *q)
{
	struct redis_store *r = redis_store(q->base.op.store);
	struct redis_script_words words = redis_script_words(r, q->whole);
	const char *argv[] = {
		words.command, words.script, "1", q->key, r->ttl, q->key + q->key_len, r->publish,
	};
	size_t argvlen[] = {
		words.command_len, words.script_len,   1, q->key_len, r->ttl_len,
		q->script_len,     strlen(r->publish),
	};

	return redis_op_send(&q->base, 7, argv, argvlen);
}

/* --- how they begin */

/* NULL when out of memory. `script` is what circuit.lua shall do, none of it for a read. */
static struct redis_circuit_op *circuit_op_new(struct redis_store *r, const char *key, size_t len,
					       const char *script, size_t script_len)
{
	size_t key_len = r->prefix_len + len;
	struct redis_circuit_op *q = malloc(sizeof(*q) + key_len + script_len);

	if (!q)
		return NULL;
	memset(q, 0, sizeof(*q));
	q->base.op.store = &r->store;
	q->base.writes = script_len > 0;
	q->base.on_reply = q->base.writes ? on_step : on_get;
	q->key_len = key_len;
	q->script_len = script_len;
	memcpy(q->key, r->prefix, r->prefix_len);
	memcpy(q->key + r->prefix_len, key, len);
	memcpy(q->key + key_len, script, script_len);
	return q;
}

struct store_op *redis_circuit_read(struct redis_store *r, const struct store_request *request,
				    store_done_fn *done, void *arg, struct store_result *result)
{
	struct redis_circuit_op *q = circuit_op_new(r, request->key, request->key_len, "", 0);

	if (!q)
		return store_refuse(result, STORE_ERROR, "out of memory");
	q->with_member = request->with_member;
	if (send_get(q) != 0) {
		free(q);
		return redis_store_away(r, result);
	}
	store_op_start(&r->store, &q->base.op, done, arg);
	return &q->base.op;
}

/* No deadline: the link answers or is lost, and until then it is not known which. */
struct store_op *redis_circuit_fold(struct store *s, const char *key, size_t key_len,
				    const struct circuit_fold *fold, store_done_fn *done, void *arg,
				    struct store_result *result)
{
	struct redis_store *r = redis_store_open(s, result);
	char step[CIRCUIT_FOLD_MAX];
	size_t step_len = circuit_fold_encode(step, fold);
	struct redis_circuit_op *q;

	if (!r)
		return NULL;
	q = circuit_op_new(r, key, key_len, step, step_len);
	if (!q)
		return store_refuse(result, STORE_ERROR, "out of memory");
	if (send_script(q) != 0) {
		free(q);
		return redis_store_away(r, result);
	}
	store_op_start_open(s, &q->base.op, done, arg);
	return &q->base.op;
}
