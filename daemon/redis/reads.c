#include "redis/reads.h"

#include "proto/breaker_member.h"
#include "redis/server_time.h"
#include "redis/writes.h"

#include <stdlib.h>
#include <string.h>

/* Lists that the commands not sent yet are found in, by a hash of their key. */
#define BUCKETS 256
/* Reads that share a command, as many as operations that share a call: it is bounded what a turn of
 * the loop has to answer. */
#define SHARED_MAX 1024

/* A GETRANGE and the reads that it answers. */
struct shared_read {
	TAILQ_ENTRY(shared_read) entry; /* until it is sent, as the next */
	LIST_ENTRY(shared_read) bucket;
	struct redis_op_queue ops;
	struct redis_command *command; /* NULL until it is sent, and once it is answered */
	bool answering;                /* its answer is being told */
	size_t count;                  /* of the reads that have come */
	uint64_t hash;
	size_t key_len;
	char key[]; /* the whole Redis key */
};

struct redis_read {
	struct redis_op base;
	bool with_member;           /* as in the request */
	bool must_be_last;          /* as in the request */
	bool overtaken;             /* as in the result */
	struct shared_read *shared; /* NULL: it waits for TIME */
	struct breaker *breaker;    /* of a circuit with an override, while the time is asked for */
	struct circuit circuit;     /* as that */
};

struct redis_reads {
	TAILQ_HEAD(shared_read_list, shared_read) unsent;
	LIST_HEAD(bucket, shared_read) buckets[BUCKETS];
	struct redis_op_queue clock_queue; /* reads that wait for the TIME that is under way */
};

static struct redis_read *redis_read(struct redis_op *o)
{
	return (struct redis_read *)o;
}

/* --- answers ------------------------------------------------------------------------------- */

/* `b`: its member. */
static void finish_circuit(struct redis_read *read, const struct circuit *c, bool absent,
			   const struct breaker *b)
{
	struct store_result result;

	store_refuse(&result, STORE_OK, NULL);
	result.circuit = *c;
	result.absent = absent;
	result.breaker = b;
	result.overtaken = read->overtaken;
	redis_op_finish(&read->base, &result);
}

/* Redis's time has come for a circuit with an override, which may be over. */
static void finish_overridden(struct redis_read *read, int64_t now_ms)
{
	struct breaker b = *read->breaker;
	struct store_result result;

	store_refuse(&result, STORE_OK, NULL);
	result.circuit = read->circuit;
	result.overtaken = read->overtaken;
	result.breaker = &b;
	result.override = breaker_override_at(&b, now_ms);
	result.now_ms = now_ms;
	redis_op_finish(&read->base, &result);
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
	bool ok = outcome == REDIS_REPLY && redis_server_time(reply, &now_ms);

	breaker_none(&none);

	/* A callback may cancel any of them, but none joins meanwhile. */
	while ((o = TAILQ_FIRST(&r->reads->clock_queue)) != NULL) {
		TAILQ_REMOVE(&r->reads->clock_queue, o, entry);
		if (ok && redis_read(o)->breaker) {
			finish_overridden(redis_read(o), now_ms);
		} else if (ok) {
			circuit_absent(&c, now_ms);
			finish_circuit(redis_read(o), &c, true, &none);
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
static void wait_for_clock(struct redis_read *read, const struct shared_read *shared)
{
	struct redis_store *r = redis_store(read->base.op.store);
	const char *argv[] = {"TIME"};
	size_t argvlen[] = {4};
	struct store_result result;

	read->overtaken = redis_writes_pending(r, shared->key, shared->key_len);
	if (TAILQ_EMPTY(&r->reads->clock_queue) &&
	    !redis_link_send(r->link, on_clock, r, 1, argv, argvlen)) {
		redis_store_away(r, &result);
		redis_op_finish(&read->base, &result);
		return;
	}
	TAILQ_INSERT_TAIL(&r->reads->clock_queue, &read->base, entry);
}

static void release_breaker(struct redis_op *o)
{
	free(redis_read(o)->breaker);
}

/* The circuit has an override: Redis is asked for the time, which says whether it holds. */
static void finish_by_clock(struct redis_read *read, const struct shared_read *shared,
			    const struct circuit *c, const struct breaker *b)
{
	read->breaker = malloc(sizeof(*read->breaker));
	if (!read->breaker) {
		redis_op_fail(&read->base, STORE_ERROR, "out of memory");
		return;
	}
	*read->breaker = *b;
	read->circuit = *c;
	read->base.release = release_breaker;
	wait_for_clock(read, shared);
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
		redis_store_corrupt(q->r, q->key, q->key_len, CIRCUIT_STORED_NONE, false);
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

/* As circuit.lua says it. */
static const char too_large[] = "TOOLARGE the stored value is larger than 64 KiB";

/* The next read to be told, or NULL. A callback may cancel any of the others. */
static struct redis_read *next_read(struct shared_read *shared)
{
	struct redis_op *o = TAILQ_FIRST(&shared->ops);

	if (!o)
		return NULL;
	TAILQ_REMOVE(&shared->ops, o, entry);
	redis_read(o)->shared = NULL;
	return redis_read(o);
}

static void fail_all(struct shared_read *shared, enum store_status status, const char *why)
{
	struct redis_read *read;

	while ((read = next_read(shared)) != NULL)
		redis_op_fail(&read->base, status, why);
}

/* Counts what is wrong with the value, once. Reads with the member are repeated, by a single
 * command: if there are no others, it counts once a key, and EXISTS is not asked. */
static void check_value(struct redis_store *r, const struct shared_read *shared,
			enum circuit_stored stored, size_t len)
{
	const struct redis_op *o;

	TAILQ_FOREACH (o, &shared->ops, entry) {
		if (!((const struct redis_read *)o)->with_member)
			break;
	}
	if (stored == CIRCUIT_STORED_SOUND || (len == 0 && !o))
		return;
	if (len == 0)
		ask_whether_empty(r, shared->key, shared->key_len);
	else
		redis_store_corrupt(r, shared->key, shared->key_len, stored, !o);
}

static void tell_value(struct redis_store *r, struct shared_read *shared, const redisReply *reply)
{
	enum circuit_stored stored = CIRCUIT_STORED_NONE;
	const char *member = NULL;
	struct redis_read *read;
	struct circuit c = {0};
	struct breaker b;
	size_t len;

	if (reply->len > CIRCUIT_STORED_BYTES_MAX) {
		fail_all(shared, STORE_ERROR, too_large);
		return;
	}
	breaker_none(&b);
	if (reply->len > 0)
		stored = circuit_json_decode_member(reply->str, reply->len, &c, &member, &len);
	if (stored != CIRCUIT_STORED_NONE && member)
		breaker_member_decode(member, len, &b);
	check_value(r, shared, stored, reply->len);
	while ((read = next_read(shared)) != NULL) {
		if (read->must_be_last)
			read->overtaken = redis_writes_pending(r, shared->key, shared->key_len);
		if (read->with_member)
			finish_circuit(read, &c, stored == CIRCUIT_STORED_NONE, &b);
		else if (stored == CIRCUIT_STORED_NONE)
			wait_for_clock(read, shared);
		else if (b.override.mode != BREAKER_NO_OVERRIDE)
			finish_by_clock(read, shared, &c, &b);
		else
			finish_circuit(read, &c, false, &b);
	}
}

static void on_value(void *arg, enum redis_outcome outcome, const redisReply *reply,
		     const char *why)
{
	struct shared_read *shared = arg;
	struct redis_store *r = redis_store(TAILQ_FIRST(&shared->ops)->op.store);

	shared->command = NULL;
	shared->answering = true;
	if (outcome != REDIS_REPLY)
		fail_all(shared, STORE_UNAVAILABLE, why);
	else if (reply->type == REDIS_REPLY_STRING)
		tell_value(r, shared, reply);
	else
		fail_all(shared, STORE_ERROR, redis_reply_words(reply));
	free(shared);
}

/* --- how they begin and end ---------------------------------------------------------------- */

/* It is found by no further read. */
static void remove_unsent(struct redis_reads *reads, struct shared_read *shared)
{
	TAILQ_REMOVE(&reads->unsent, shared, entry);
	LIST_REMOVE(shared, bucket);
}

void redis_reads_send(struct redis_store *r)
{
	struct shared_read *shared;

	if (!TAILQ_EMPTY(&r->reads->unsent))
		redis_link_measure_clock(r->link);
	while ((shared = TAILQ_FIRST(&r->reads->unsent)) != NULL) {
		/* One byte more than the largest value that is read, if there is one. */
		const char *argv[] = {"GETRANGE", shared->key, "0", "65536"};
		size_t argvlen[] = {8, shared->key_len, 1, 5};

		_Static_assert(CIRCUIT_STORED_BYTES_MAX == 65536, "as above");
		remove_unsent(r->reads, shared);
		shared->command = redis_link_send(r->link, on_value, shared, 4, argv, argvlen);
		if (!shared->command)
			on_value(shared, REDIS_REFUSED, NULL, redis_store_why(r));
	}
}

static void read_detach(struct redis_op *o, struct store_result *verdict)
{
	struct redis_reads *reads = redis_store(o->op.store)->reads;
	struct shared_read *shared = redis_read(o)->shared;
	bool sent = !shared || shared->command || shared->answering;

	verdict->status = sent ? STORE_TIMEOUT : STORE_UNAVAILABLE;
	TAILQ_REMOVE(shared ? &shared->ops : &reads->clock_queue, o, entry);
	if (o->release)
		o->release(o);
	if (!shared || shared->answering || !TAILQ_EMPTY(&shared->ops))
		return;
	if (shared->command)
		redis_command_forget(shared->command);
	else
		remove_unsent(reads, shared);
	free(shared);
}

/* The command that answers further reads of the circuit, or NULL. */
static struct shared_read *find_unsent(struct redis_store *r, uint64_t hash, const char *key,
				       size_t len)
{
	struct shared_read *shared;

	LIST_FOREACH (shared, &r->reads->buckets[hash % BUCKETS], bucket) {
		if (shared->hash == hash && shared->count < SHARED_MAX &&
		    shared->key_len == r->prefix_len + len &&
		    memcmp(shared->key + r->prefix_len, key, len) == 0)
			break;
	}
	return shared;
}

/* NULL when out of memory. */
static struct shared_read *add_unsent(struct redis_store *r, uint64_t hash, const char *key,
				      size_t len)
{
	struct shared_read *shared = malloc(sizeof(*shared) + r->prefix_len + len);

	if (!shared)
		return NULL;
	TAILQ_INIT(&shared->ops);
	shared->command = NULL;
	shared->answering = false;
	shared->count = 0;
	shared->hash = hash;
	shared->key_len = redis_store_put_key(r, shared->key, key, len);
	TAILQ_INSERT_TAIL(&r->reads->unsent, shared, entry);
	LIST_INSERT_HEAD(&r->reads->buckets[hash % BUCKETS], shared, bucket);
	return shared;
}

struct store_op *redis_reads_submit(struct redis_store *r, const struct store_request *request,
				    store_done_fn *done, void *arg, struct store_result *result)
{
	struct redis_read *read = calloc(1, sizeof(*read));
	uint64_t hash = siphash(&r->hash_key, request->key, request->key_len);

	if (!read)
		return store_refuse(result, STORE_ERROR, "out of memory");
	read->shared = find_unsent(r, hash, request->key, request->key_len);
	if (!read->shared)
		read->shared = add_unsent(r, hash, request->key, request->key_len);
	if (!read->shared) {
		free(read);
		return store_refuse(result, STORE_ERROR, "out of memory");
	}
	read->base.op.store = &r->store;
	read->base.detach = read_detach;
	read->with_member = request->with_member;
	read->must_be_last = request->must_be_last;
	TAILQ_INSERT_TAIL(&read->shared->ops, &read->base, entry);
	read->shared->count++;
	later_run(r->flush);
	store_op_start(&r->store, &read->base.op, done, arg);
	return &read->base.op;
}

struct redis_reads *redis_reads_new(void)
{
	struct redis_reads *reads = calloc(1, sizeof(*reads));

	if (!reads)
		return NULL;
	TAILQ_INIT(&reads->unsent);
	TAILQ_INIT(&reads->clock_queue);
	return reads;
}

void redis_reads_free(struct redis_reads *reads)
{
	free(reads);
}
