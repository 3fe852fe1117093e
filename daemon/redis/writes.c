/*
 * The writing operations: group commit. While a call of circuit.lua is under way for a
 * circuit, further operations on it wait, and go out together in the next; circuits that
 * are ready together share a call. So Redis reads and writes a circuit once for many
 * operations, each of which still is a step of its own, in the order of their coming.
 */
#include "redis/writes_private.h"

#include <stdlib.h>

/* Calls under way: Redis runs one while the next is on its way. More calls would be smaller ones.
 * To a server far away, so many that one goes out each CALL_EACH_MS. */
#define CALLS_UNDER_WAY 2
#define CALL_EACH_MS    2
#define CALLS_MAX       64

/* How many calls may be under way, each with `most` circuits at most. */
static unsigned calls_allowed(const struct redis_writes *writes, size_t most)
{
	int64_t calls = writes->took_ms / CALL_EACH_MS;

	if (calls < CALLS_UNDER_WAY)
		calls = CALLS_UNDER_WAY;
	return (unsigned)(calls < CALLS_MAX ? calls : CALLS_MAX) * (CALL_CIRCUITS / (unsigned)most);
}

/* How many operations the next call would have. */
static size_t count_ready(const struct redis_store *r, size_t circuits)
{
	const struct write_queue *q;
	const struct redis_write *write;
	size_t ops = 0;

	TAILQ_FOREACH (q, &r->writes->ready, entry) {
		if (circuits-- == 0)
			break;
		TAILQ_FOREACH (write, &q->waiting, entry) {
			if (++ops == CALL_OPS)
				return ops;
		}
	}
	return ops;
}

void redis_writes_send(struct redis_store *r)
{
	/* With cluster mode on, all keys of a call must be in one slot: one circuit a call. */
	size_t most = redis_link_cluster(r->link) ? 1 : CALL_CIRCUITS;
	unsigned allowed = calls_allowed(r->writes, most);
	struct write_queue *q;

	write_queues_end_given_up(r, "an operation that came before on this circuit was given up");
	while (!TAILQ_EMPTY(&r->writes->ready) && r->writes->under_way < allowed) {
		struct redis_call *call = redis_call_new(r, count_ready(r, most));

		while ((q = TAILQ_FIRST(&r->writes->ready)) != NULL &&
		       (!call || (call->part_count < most && call->op_count < CALL_OPS))) {
			TAILQ_REMOVE(&r->writes->ready, q, entry);
			q->ready = false;
			if (call)
				redis_call_fill_part(call, q);
			else
				write_queue_fail(r, q, "out of memory");
		}
		if (call)
			redis_call_send(call);
	}
}

/* --- what the store calls ------------------------------------------------------------------- */

static void write_detach(struct redis_op *o, struct store_result *verdict)
{
	struct redis_write *write = (struct redis_write *)o;
	struct redis_store *r = redis_store(o->op.store);

	if (write->call) {
		write->call->ops[write->index].write = NULL;
		verdict->status = o->writes ? STORE_UNKNOWN : STORE_TIMEOUT;
		return;
	}
	/* Those without a deadline that came before it end before it. */
	if (verdict->timed_out)
		write_queue_fail_before(r, write->circuit, write,
					"an operation that came later was given up");
	TAILQ_REMOVE(&write->circuit->waiting, write, entry);
	if (verdict->timed_out)
		write_queue_give_up(r, write->circuit);
	else
		write_queue_settle(r, write->circuit); /* cancelled: nobody gets an answer */
	store_drop_call(&write->what);
	verdict->status = STORE_UNAVAILABLE;
}

struct store_op *redis_writes_submit(struct redis_store *r, const struct store_request *request,
				     store_done_fn *done, void *arg, struct store_result *result)
{
	struct redis_write *write = calloc(1, sizeof(*write));
	struct circuit_op what = request->op;
	struct write_queue *q;

	if (!write || !store_keep_call(&what)) {
		free(write);
		return store_refuse(result, STORE_ERROR, "out of memory");
	}
	q = write_queue_get(r, request->key, request->key_len);
	if (!q) {
		store_drop_call(&what);
		free(write);
		return store_refuse(result, STORE_ERROR, "out of memory");
	}
	write->base.op.store = &r->store;
	write->base.writes = circuit_verb_writes(request->op.verb);
	write->base.detach = write_detach;
	write->what = what;
	write->circuit = q;
	write->number = ++r->writes->last_number;
	TAILQ_INSERT_TAIL(&q->waiting, write, entry);
	write_queue_settle(r, q);
	if (request->background)
		store_op_start_open(&r->store, &write->base.op, done, arg);
	else
		store_op_start(&r->store, &write->base.op, done, arg);
	return &write->base.op;
}

bool redis_writes_pending(struct redis_store *r, const char *full, size_t full_len)
{
	return keytable_find(&r->writes->circuits, full, full_len) != NULL;
}

void redis_writes_begin(struct redis_store *r)
{
	int64_t error_ms;

	redis_link_clock_offset_ms(r->link, &error_ms);
	r->writes->took_ms = error_ms > 1 ? 2 * (error_ms - 1) : 0;
}

void redis_writes_give_up(struct redis_store *r, const char *why)
{
	struct redis_call *call;
	struct write_queue *q;

	TAILQ_FOREACH (call, &r->writes->calls, entry) {
		for (size_t i = 0; i < call->part_count; i++)
			write_queue_fail(r, call->parts[i].circuit, why);
	}
	write_queues_end_given_up(r, why);
	while ((q = TAILQ_FIRST(&r->writes->ready)) != NULL)
		write_queue_fail(r, q, why);
}

struct redis_writes *redis_writes_new(void)
{
	struct redis_writes *writes = calloc(1, sizeof(*writes));

	if (!writes)
		return NULL;
	TAILQ_INIT(&writes->ready);
	TAILQ_INIT(&writes->given_up);
	TAILQ_INIT(&writes->calls);
	if (keytable_init(&writes->circuits) == 0)
		return writes;
	free(writes);
	return NULL;
}

void redis_writes_free(struct redis_writes *writes)
{
	if (!writes)
		return;
	keytable_fini(&writes->circuits);
	free(writes);
}
