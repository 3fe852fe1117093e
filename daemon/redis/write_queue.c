/*
 * Circuits with writes that wait for a call of circuit.lua or are under way in one.
 */
#include "redis/writes_private.h"

#include <string.h>

struct write_queue *write_queue_get(struct redis_store *r, const char *key, size_t key_len)
{
	char full[REDIS_KEY_MAX];
	struct write_queue *q;

	key_len = redis_store_put_key(r, full, key, key_len);
	q = (struct write_queue *)keytable_find(&r->writes->circuits, full, key_len);
	if (q)
		return q;
	q = (struct write_queue *)keytable_add(&r->writes->circuits, sizeof(*q), full, key_len);
	if (q)
		TAILQ_INIT(&q->waiting);
	return q;
}

/* To be called after each change: puts the circuit into the list, or removes it when empty. */
void write_queue_settle(struct redis_store *r, struct write_queue *q)
{
	if (q->under_way || q->given_up)
		return;
	if (TAILQ_EMPTY(&q->waiting)) {
		if (q->ready)
			TAILQ_REMOVE(&r->writes->ready, q, entry);
		keytable_remove(&r->writes->circuits, &q->node);
	} else if (!q->ready) {
		q->ready = true;
		TAILQ_INSERT_TAIL(&r->writes->ready, q, entry);
		later_run(r->flush);
	}
}

/* --- the end of operations ---------------------------------------------------------------- */

void redis_write_fail(struct redis_write *write, enum store_status status, const char *message)
{
	struct store_result result;

	/* A lost read surely changed nothing. */
	if (status == STORE_UNKNOWN && !write->base.writes)
		status = STORE_UNAVAILABLE;
	store_refuse(&result, status, message);
	redis_op_finish(&write->base, &result);
}

/* Ends the operations that wait for a call, those before `end` (NULL: all). They were surely not
 * sent. */
void write_queue_fail_before(struct redis_store *r, struct write_queue *q,
			     const struct redis_write *end, const char *why)
{
	uint64_t last = r->writes->last_number;
	struct redis_write *write;
	bool under_way = q->under_way;

	q->under_way = true; /* nobody else settles it meanwhile */
	while ((write = TAILQ_FIRST(&q->waiting)) != end && write->number <= last) {
		TAILQ_REMOVE(&q->waiting, write, entry);
		store_drop_call(&write->what);
		redis_write_fail(write, STORE_UNAVAILABLE, why);
	}
	q->under_way = under_way;
	write_queue_settle(r, q);
}

void write_queue_fail(struct redis_store *r, struct write_queue *q, const char *why)
{
	write_queue_fail_before(r, q, NULL, why);
}

/*
 * A write on the circuit ended as "surely not sent". The caller may have made it a step instead
 * (store/fallback_op.c), which must reach Redis before the writes that still wait: so those end in
 * the same way.
 */
void write_queue_give_up(struct redis_store *r, struct write_queue *q)
{
	if (q->given_up || TAILQ_EMPTY(&q->waiting)) {
		write_queue_settle(r, q);
		return;
	}
	if (q->ready)
		TAILQ_REMOVE(&r->writes->ready, q, entry);
	q->ready = false;
	q->given_up = true;
	TAILQ_INSERT_TAIL(&r->writes->given_up, q, entry);
	later_run(r->flush);
}

void write_queues_end_given_up(struct redis_store *r, const char *why)
{
	struct write_queue *q;

	while ((q = TAILQ_FIRST(&r->writes->given_up)) != NULL) {
		TAILQ_REMOVE(&r->writes->given_up, q, entry);
		q->given_up = false;
		write_queue_fail(r, q, why);
	}
}
