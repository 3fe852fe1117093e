#include "scripted_store.h"

#include "store_contract.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scripted_store *scripted;

static void journal(const char *what, const char *key, size_t len)
{
	size_t used = strlen(scripted->journal);

	snprintf(scripted->journal + used, sizeof(scripted->journal) - used, "%s%s:%.*s",
		 used ? " " : "", what, (int)len, key);
}

static void apply_fold(struct scripted_op *o, struct store_result *result)
{
	struct store_request get = {.key = o->key, .key_len = o->key_len, .op = OP_GET};
	struct store_result before;

	store_submit(scripted->circuits, &get, NULL, NULL, &before);
	store_refuse(result, STORE_OK, NULL);
	switch (circuit_fold_apply(&before.circuit, !before.absent, 0, &o->fold)) {
	case CIRCUIT_WRITTEN:
		store_memory_put(scripted->circuits, o->key, o->key_len, &before.circuit);
		break;
	case CIRCUIT_REMOVED:
		store_memory_put(scripted->circuits, o->key, o->key_len, NULL);
		result->absent = true;
		break;
	default:
		result->absent = before.absent;
	}
	result->circuit = before.circuit;
}

void scripted_set_up(bool up)
{
	scripted->up = up;
	scripted->store.on_change(scripted->store.on_change_arg, up);
}

static void answer(struct scripted_op *o, const struct store_request *request,
		   struct store_result *result)
{
	static struct breaker member;
	static const char letters[] = "gsftdar";
	char letter[2] = {o->is_fold ? 'w' : letters[o->what.verb], '\0'};
	bool silent = o->is_fold && (o->mood == LOSE_STEP || o->mood == HIDE_STEP);

	if (!o->is_fold || o->mood != LOSE_STEP)
		journal(letter, o->key, o->key_len);
	if (!o->is_fold) {
		store_submit(scripted->circuits, request, NULL, NULL, result);
		/* As the store in Redis answers. Of the member `breakerd` the tests need only
		 * that it was read, and its override. */
		if (result->absent && o->with_member)
			result->circuit.last_state_change = 0;
		breaker_none(&member);
		if (result->override) {
			member.exists = true;
			member.override = *result->override;
		}
		if (request->op.call || o->with_member)
			result->breaker = &member;
	} else if (o->mood != LOSE_STEP)
		apply_fold(o, result);
	if (silent) {
		scripted_set_up(false);
		store_refuse(result, STORE_UNKNOWN, "lost");
	}
}

static void on_deferred(evutil_socket_t fd, short what, void *arg)
{
	struct scripted_op *o = arg;
	struct store_request request = {.key = o->key, .key_len = o->key_len, .op = o->what};
	struct store_result result;
	void (*meanwhile)(void);

	(void)fd;
	(void)what;
	event_free(o->deferred);
	switch (o->mood == FAIL_STEP && o->is_fold ? FAIL : o->mood) {
	case LOSE:
		store_refuse(&result, o->writes ? STORE_UNKNOWN : STORE_UNAVAILABLE, "lost");
		break;
	case REFUSE:
		store_refuse(&result, STORE_UNAVAILABLE, "refused");
		break;
	case FAIL:
		store_refuse(&result, STORE_ERROR, scripted->words);
		break;
	default:
		answer(o, &request, &result);
	}
	if (scripted->meanwhile) {
		meanwhile = scripted->meanwhile;
		scripted->meanwhile = NULL;
		meanwhile();
	}
	store_drop_call(&o->what);
	store_op_finish(&o->op, &result);
}

static bool is_held(const struct scripted_op *o)
{
	return o->mood == HOLD || (o->mood == HOLD_STEP && o->is_fold);
}

static struct scripted_op *scripted_start(struct store *s, const char *key, size_t key_len,
					  bool is_fold)
{
	struct scripted_op *o = calloc(1, sizeof(*o));

	ck_assert_uint_le(key_len, sizeof(o->key));
	memcpy(o->key, key, key_len);
	o->key_len = key_len;
	o->is_fold = is_fold;
	o->mood = scripted->mood;
	o->deferred = evtimer_new(s->base, on_deferred, o);
	if (!is_held(o))
		event_active(o->deferred, EV_TIMEOUT, 0);
	return o;
}

static struct store_op *scripted_submit(struct store *s, const struct store_request *request,
					store_done_fn *done, void *arg, struct store_result *result)
{
	struct scripted_op *o;

	if (!scripted->up)
		return store_refuse(result, STORE_UNAVAILABLE, "down");
	o = scripted_start(s, request->key, request->key_len, false);
	o->what = request->op;
	ck_assert(store_keep_call(&o->what));
	o->with_member = request->with_member;
	o->writes = circuit_verb_writes(request->op.verb);
	store_op_start(s, &o->op, done, arg);
	return &o->op;
}

static struct store_op *scripted_fold(struct store *s, const char *key, size_t key_len,
				      const struct circuit_fold *fold, store_done_fn *done,
				      void *arg, struct store_result *result)
{
	struct scripted_op *o;

	if (!scripted->up)
		return store_refuse(result, STORE_UNAVAILABLE, "down");
	o = scripted_start(s, key, key_len, true);
	o->writes = true;
	o->fold = *fold;
	store_op_start_open(s, &o->op, done, arg);
	return &o->op;
}

static struct store_op *scripted_list(struct store *s, const struct store_query *query,
				      store_done_fn *done, void *arg, struct store_result *result)
{
	(void)s;
	if (!scripted->up)
		return store_refuse(result, STORE_UNAVAILABLE, "down");
	return store_list(scripted->circuits, query, done, arg, result);
}

static void scripted_detach(struct store_op *op, struct store_result *verdict)
{
	struct scripted_op *o = (struct scripted_op *)op;

	event_free(o->deferred);
	store_drop_call(&o->what);
	verdict->status = o->writes ? STORE_UNKNOWN : STORE_TIMEOUT;
}

static void scripted_health(struct store *s, struct store_health *health)
{
	(void)s;
	health->condition = scripted->up ? STORE_READY : STORE_AWAY;
	health->since_ms = 1;
	snprintf(health->reason, sizeof(health->reason), "%s", scripted->up ? "" : "down");
}

static void scripted_free(struct store *s)
{
	store_free(scripted->circuits);
	store_fini(s);
	free(scripted);
}

static int64_t scripted_offset(struct store *s, int64_t *error_ms)
{
	(void)s;
	*error_ms = scripted->error_ms;
	return scripted->offset_ms;
}

static const struct store_driver scripted_driver = {
	.name = "scripted",
	.submit = scripted_submit,
	.list = scripted_list,
	.detach = scripted_detach,
	.health = scripted_health,
	.free = scripted_free,
	.fold = scripted_fold,
	.clock_offset_ms = scripted_offset,
};

struct store *scripted_open(struct event_base *base, const struct store_limits *limits,
			    struct store_clock clock)
{
	scripted = calloc(1, sizeof(*scripted));
	ck_assert_int_eq(store_init(&scripted->store, &scripted_driver, base, limits), 0);
	scripted->circuits = store_memory_new(base, limits, clock, NULL);
	return &scripted->store;
}

static void release(struct store_op_list *ops)
{
	struct store_op *op;

	TAILQ_FOREACH (op, ops, entry) {
		struct scripted_op *o = (struct scripted_op *)op;

		if (is_held(o)) {
			o->mood = scripted->mood;
			event_active(o->deferred, EV_TIMEOUT, 0);
		}
	}
}

void scripted_release(void)
{
	release(&scripted->store.open_ops);
	release(&scripted->store.ops);
}

bool scripted_holds_step(void)
{
	struct store_op *op;

	/* Steps have no deadline. */
	TAILQ_FOREACH (op, &scripted->store.open_ops, entry) {
		struct scripted_op *o = (struct scripted_op *)op;

		if (o->is_fold && is_held(o))
			return true;
	}
	return false;
}

struct store_result scripted_get(const char *key)
{
	struct store_request get = {.key = key, .key_len = strlen(key), .op = OP_GET};
	struct store_result r;

	store_submit(scripted->circuits, &get, NULL, NULL, &r);
	return r;
}
