/*
 * What the files of writes.c share; nobody else includes this. Each uses those above it:
 * write_queue.c: circuits with writes that wait or are under way; call.c: one call of circuit.lua;
 * writes.c: when calls go out, and what the store asks of writes.
 */
#ifndef BREAKERD_REDIS_WRITES_PRIVATE_H
#define BREAKERD_REDIS_WRITES_PRIVATE_H

#include "base/keytable.h"
#include "redis/writes.h"

struct evbuffer;

/* Bounds of one call, so that Redis serves others soon: some 0.3 ms. */
#define CALL_CIRCUITS 64
#define CALL_OPS      1024

/* A circuit with writes that wait or are under way. Its key is the whole Redis key. */
struct write_queue {
	struct keynode node;
	TAILQ_ENTRY(write_queue) entry; /* while it is ready or given up */
	TAILQ_HEAD(write_list, redis_write) waiting;
	bool ready;     /* in the list of those that wait for a call */
	bool under_way; /* in a call */
	bool given_up;  /* in the list of those whose waiting writes end in the next turn */
};

struct redis_write {
	struct redis_op base;
	struct circuit_op what; /* while it waits, its call is kept (store_keep_call) */
	struct write_queue *circuit;
	struct redis_call *call; /* NULL: it waits */
	size_t index;            /* in the call */
	uint64_t number;         /* in the order of their coming */
	TAILQ_ENTRY(redis_write) entry;
};

struct call_op {
	struct redis_write *write; /* NULL: nobody waits for it any more */
	struct circuit_op what;    /* its call is kept */
};

struct call_part {
	struct write_queue *circuit;
	size_t first;
	size_t count;
	bool decides; /* one of its operations is acquire or report */
};

struct redis_call {
	TAILQ_ENTRY(redis_call) entry;
	struct redis_store *r;
	bool whole;      /* with the script, not its hash */
	int64_t sent_ms; /* monotonic */
	size_t part_count;
	size_t op_count;
	bool may_publish; /* an operation is more than a record */
	struct evbuffer
		*tokens; /* the operations of parts that decide, until it is sent; or NULL */
	struct call_part parts[CALL_CIRCUITS];
	char letters[CALL_OPS];
	struct call_op ops[];
};

struct redis_writes {
	struct keytable circuits;
	TAILQ_HEAD(queue_list, write_queue) ready;
	struct queue_list given_up;
	TAILQ_HEAD(call_list, redis_call) calls;
	uint64_t last_number; /* of a write */
	unsigned under_way;   /* calls */
	int64_t took_ms;      /* how long calls take; one that was held up counts little */
};

/* --- write_queue.c */

/* The circuit's queue, made if need be; NULL when out of memory. */
struct write_queue *write_queue_get(struct redis_store *r, const char *key, size_t key_len);

/* To be called after each change: puts the circuit into the list, or removes it when empty. */
void write_queue_settle(struct redis_store *r, struct write_queue *q);

/* Ends an operation that is in no queue any more. */
void redis_write_fail(struct redis_write *write, enum store_status status, const char *message);

/* Ends the operations that wait for a call; of the first, those before `end`. They were surely not
 * sent. Those that their callbacks submit wait on. */
void write_queue_fail_before(struct redis_store *r, struct write_queue *q,
			     const struct redis_write *end, const char *why);
void write_queue_fail(struct redis_store *r, struct write_queue *q, const char *why);

/* A write on the circuit ended as "surely not sent": those that wait end so, too, when
 * write_queues_end_given_up is called in the next turn. */
void write_queue_give_up(struct redis_store *r, struct write_queue *q);
void write_queues_end_given_up(struct redis_store *r, const char *why);

/* --- call.c */

/* A call with room for so many operations; NULL when out of memory. */
struct redis_call *redis_call_new(struct redis_store *r, size_t op_count);

/* Adds the circuit's waiting operations, as far as they fit. */
void redis_call_fill_part(struct redis_call *call, struct write_queue *q);

/* Hands the call over, or ends it. */
void redis_call_send(struct redis_call *call);

#endif
