#include "redis/fold.h"

#include "proto/breaker_member.h"
#include "proto/circuit_script.h"

#include <stdlib.h>
#include <string.h>

struct redis_fold {
	struct redis_op base;
	bool whole; /* with the script, not its hash */
	size_t key_len;
	size_t step_len;
	char key[]; /* the whole Redis key; behind it step_len bytes, what the script is to do */
};

static int send_step(struct redis_fold *f);

static void on_step(struct redis_op *o, const redisReply *reply)
{
	struct redis_store *r = redis_store(o->op.store);
	struct redis_fold *f = (struct redis_fold *)o;
	struct circuit_script_answer a;
	struct store_result result;
	struct breaker b;

	if (redis_script_again(r, reply, &f->whole)) {
		if (send_step(f) != 0) {
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
	store_refuse(&result, STORE_OK, NULL);
	result.circuit = a.circuit;
	result.absent = !a.exists;
	result.breaker = &b;
	redis_op_finish(o, &result);
}

static int send_step(struct redis_fold *f)
{
	struct redis_store *r = redis_store(f->base.op.store);
	struct redis_script_words words = redis_script_words(r, f->whole);
	const char *argv[] = {
		words.command, words.script, "1", f->key, r->ttl, f->key + f->key_len, r->publish,
	};
	size_t argvlen[] = {
		words.command_len, words.script_len,   1, f->key_len, r->ttl_len,
		f->step_len,       strlen(r->publish),
	};

	return redis_op_send(&f->base, 7, argv, argvlen);
}

/* NULL when out of memory. */
static struct redis_fold *fold_new(struct redis_store *r, const char *key, size_t len,
				   const struct circuit_fold *fold)
{
	char step[CIRCUIT_FOLD_MAX];
	size_t step_len = circuit_fold_encode(step, fold), key_len = r->prefix_len + len;
	struct redis_fold *f = malloc(sizeof(*f) + key_len + step_len);

	if (!f)
		return NULL;
	memset(f, 0, sizeof(*f));
	f->base.op.store = &r->store;
	f->base.writes = true;
	f->base.on_reply = on_step;
	f->key_len = key_len;
	f->step_len = step_len;
	redis_store_put_key(r, f->key, key, len);
	memcpy(f->key + key_len, step, step_len);
	return f;
}

/* No deadline: the link answers or is lost, and until then it is not known which. */
struct store_op *redis_fold(struct store *s, const char *key, size_t key_len,
			    const struct circuit_fold *fold, store_done_fn *done, void *arg,
			    struct store_result *result)
{
	struct redis_store *r = redis_store_open(s, result);
	struct redis_fold *f;

	if (!r)
		return NULL;
	f = fold_new(r, key, key_len, fold);
	if (!f)
		return store_refuse(result, STORE_ERROR, "out of memory");
	if (send_step(f) != 0) {
		free(f);
		return redis_store_away(r, result);
	}
	store_op_start_open(s, &f->base.op, done, arg);
	return &f->base.op;
}
