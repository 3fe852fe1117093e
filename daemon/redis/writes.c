/*
 * The writing operations: group commit. While a call of circuit.lua is under way for a
 * circuit, further operations on it wait, and go out together in the next; circuits that
 * are ready together share a call. So Redis reads and writes a circuit once for many
 * operations, each of which still is a step of its own, in the order of their coming.
 */
#include "redis/writes.h"

#include "base/clock.h"
#include "base/keytable.h"
#include "base/later.h"
#include "proto/breaker_member.h"
#include "proto/circuit_script.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

/* Calls under way: Redis runs one while the next is on its way. More calls would be smaller ones.
 * To a server far away, so many that one goes out each CALL_EACH_MS. */
#define CALLS_UNDER_WAY 2
#define CALL_EACH_MS    2
#define CALLS_MAX       64
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
	unsigned under_way; /* calls */
	int64_t took_ms;    /* how long calls take; one that was held up counts little */
	struct later *flush;
};

static void call_send(struct redis_call *call);

/* --- circuits ----------------------------------------------------------------------------- */

static struct write_queue *queue_get(struct redis_store *r, const char *key, size_t key_len)
{
	char full[REDIS_KEY_MAX];
	struct write_queue *q;

	memcpy(full, r->prefix, r->prefix_len);
	memcpy(full + r->prefix_len, key, key_len);
	key_len += r->prefix_len;
	q = (struct write_queue *)keytable_find(&r->writes->circuits, full, key_len);
	if (q)
		return q;
	q = (struct write_queue *)keytable_add(&r->writes->circuits, sizeof(*q), full, key_len);
	if (q)
		TAILQ_INIT(&q->waiting);
	return q;
}

/* To be called after each change: puts the circuit into the list, or removes it when empty. */
static void queue_settle(struct redis_store *r, struct write_queue *q)
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
		later_run(r->writes->flush);
	}
}

/* --- the end of operations ---------------------------------------------------------------- */

static void write_fail(struct redis_write *write, enum store_status status, const char *message)
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
static void fail_waiting_before(struct redis_store *r, struct write_queue *q,
				const struct redis_write *end, const char *why)
{
	struct redis_write *write;
	bool under_way = q->under_way;

	q->under_way = true; /* nobody else settles it meanwhile */
	while ((write = TAILQ_FIRST(&q->waiting)) != end) {
		TAILQ_REMOVE(&q->waiting, write, entry);
		store_drop_call(&write->what);
		write_fail(write, STORE_UNAVAILABLE, why);
	}
	q->under_way = under_way;
	queue_settle(r, q);
}

static void fail_waiting(struct redis_store *r, struct write_queue *q, const char *why)
{
	fail_waiting_before(r, q, NULL, why);
}

/*
 * A write on the circuit ended as "surely not sent". The caller may have made it a step instead
 * (store/fallback_op.c), which must reach Redis before the writes that still wait: so those end in
 * the same way.
 */
static void queue_give_up(struct redis_store *r, struct write_queue *q)
{
	if (q->given_up || TAILQ_EMPTY(&q->waiting)) {
		queue_settle(r, q);
		return;
	}
	if (q->ready)
		TAILQ_REMOVE(&r->writes->ready, q, entry);
	q->ready = false;
	q->given_up = true;
	TAILQ_INSERT_TAIL(&r->writes->given_up, q, entry);
	later_run(r->writes->flush);
}

static void end_given_up(struct redis_store *r)
{
	struct write_queue *q;

	while ((q = TAILQ_FIRST(&r->writes->given_up)) != NULL) {
		TAILQ_REMOVE(&r->writes->given_up, q, entry);
		q->given_up = false;
		fail_waiting(r, q, "an operation that came before on this circuit was given up");
	}
}

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
			write_fail(write, status, message);
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
				    part->circuit->node.key_len, answer->stored);
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
	queue_settle(call->r, part->circuit);
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
			queue_give_up(call->r, call->parts[i].circuit);
		part_end(call, &call->parts[i]);
	}
	call_free(call);
}

static struct redis_call *call_new(struct redis_store *r, size_t op_count)
{
	struct redis_call *call = malloc(sizeof(*call) + op_count * sizeof(call->ops[0]));

	if (!call)
		return NULL;
	call->r = r;
	call->whole = false;
	call->part_count = 0;
	call->op_count = 0;
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
		struct redis_call *single = call_new(call->r, part->count);

		if (!single) {
			part_fail(call, part, STORE_UNAVAILABLE, "out of memory");
			queue_give_up(call->r, part->circuit);
			part_end(call, part);
			continue;
		}
		call_add_part(single, part->circuit);
		for (size_t i = part->first; i < part->first + part->count; i++)
			call_add_op(single, call->ops[i].write, &call->ops[i].what);
		call_send(single);
	}
	call_free(call);
}

static void call_error(struct redis_call *call, const redisReply *reply)
{
	if (redis_script_again(call->r, reply, &call->whole))
		call_send(call);
	else if (redis_script_broke(reply))
		call_fail(call, STORE_UNKNOWN, reply->str);
	else if (call->part_count > 1)
		call_split(call);
	else
		call_fail(call, STORE_ERROR, reply->str);
}

static void call_answer(struct redis_call *call, const redisReply *reply)
{
	static const char unexpected[] = "unexpected reply from Redis";
	bool fits = reply->type == REDIS_REPLY_ARRAY && reply->elements == call->part_count;

	for (size_t i = 0; i < call->part_count; i++) {
		const struct call_part *part = &call->parts[i];
		const redisReply *one = fits ? reply->element[i] : NULL;
		struct circuit_script_answer answer;

		if (one && one->type == REDIS_REPLY_STRING &&
		    circuit_script_read(one->str, one->len, &answer))
			part_answer(call, part, &answer);
		else
			part_fail(call, part, STORE_ERROR,
				  one && one->type == REDIS_REPLY_ERROR ? one->str : unexpected);
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

/* How many calls may be under way, each with `most` circuits at most. */
static unsigned calls_allowed(const struct redis_writes *writes, size_t most)
{
	int64_t calls = writes->took_ms / CALL_EACH_MS;

	if (calls < CALLS_UNDER_WAY)
		calls = CALLS_UNDER_WAY;
	return (unsigned)(calls < CALLS_MAX ? calls : CALLS_MAX) * (CALL_CIRCUITS / (unsigned)most);
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
		later_run(r->writes->flush);
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
static void call_send(struct redis_call *call)
{
	struct redis_store *r = call->r;
	struct redis_script_words words = redis_script_words(r, call->whole);
	const char *argv[5 + 2 * CALL_CIRCUITS];
	size_t lens[5 + 2 * CALL_CIRCUITS];
	size_t n = call->part_count;
	char keys[24];

	argv[0] = words.command;
	argv[1] = words.script;
	argv[2] = keys;
	argv[3 + n] = r->ttl;
	lens[0] = words.command_len;
	lens[1] = words.script_len;
	lens[2] = (size_t)snprintf(keys, sizeof(keys), "%zu", n);
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
	argv[4 + 2 * n] = r->publish;
	lens[4 + 2 * n] = strlen(r->publish);
	if (!redis_link_send(r->link, on_call, call, (int)(5 + 2 * n), argv, lens)) {
		call_fail(call, STORE_UNAVAILABLE, redis_store_why(r));
		return;
	}
	call_sent(call);
	call->sent_ms = clock_ms();
	TAILQ_INSERT_TAIL(&r->writes->calls, call, entry);
	r->writes->under_way++;
}

/* The circuit's waiting operations, as far as they fit. */
static void call_fill_part(struct redis_call *call, struct write_queue *q)
{
	struct redis_write *write;

	call_add_part(call, q);
	while (call->op_count < CALL_OPS && (write = TAILQ_FIRST(&q->waiting)) != NULL) {
		TAILQ_REMOVE(&q->waiting, write, entry);
		call_add_op(call, write, &write->what);
	}
	q->under_way = true;
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

static void on_flush(void *arg)
{
	struct redis_store *r = arg;
	/* With cluster mode on, all keys of a call must be in one slot: one circuit a call. */
	size_t most = redis_link_cluster(r->link) ? 1 : CALL_CIRCUITS;
	unsigned allowed = calls_allowed(r->writes, most);
	struct write_queue *q;

	end_given_up(r);
	while (!TAILQ_EMPTY(&r->writes->ready) && r->writes->under_way < allowed) {
		struct redis_call *call = call_new(r, count_ready(r, most));

		while ((q = TAILQ_FIRST(&r->writes->ready)) != NULL &&
		       (!call || (call->part_count < most && call->op_count < CALL_OPS))) {
			TAILQ_REMOVE(&r->writes->ready, q, entry);
			q->ready = false;
			if (call)
				call_fill_part(call, q);
			else
				fail_waiting(r, q, "out of memory");
		}
		if (call)
			call_send(call);
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
		fail_waiting_before(r, write->circuit, write,
				    "an operation that came later was given up");
	TAILQ_REMOVE(&write->circuit->waiting, write, entry);
	if (verdict->timed_out)
		queue_give_up(r, write->circuit);
	else
		queue_settle(r, write->circuit); /* cancelled: nobody gets an answer */
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
	q = queue_get(r, request->key, request->key_len);
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
	TAILQ_INSERT_TAIL(&q->waiting, write, entry);
	queue_settle(r, q);
	if (request->background)
		store_op_start_open(&r->store, &write->base.op, done, arg);
	else
		store_op_start(&r->store, &write->base.op, done, arg);
	return &write->base.op;
}

void redis_writes_flush(struct redis_store *r)
{
	later_now(r->writes->flush);
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
			fail_waiting(r, call->parts[i].circuit, why);
	}
	end_given_up(r);
	while ((q = TAILQ_FIRST(&r->writes->ready)) != NULL)
		fail_waiting(r, q, why);
}

struct redis_writes *redis_writes_new(struct redis_store *r)
{
	struct redis_writes *writes = calloc(1, sizeof(*writes));

	if (!writes)
		return NULL;
	TAILQ_INIT(&writes->ready);
	TAILQ_INIT(&writes->given_up);
	TAILQ_INIT(&writes->calls);
	writes->flush = later_new(r->store.base, on_flush, r);
	if (writes->flush && keytable_init(&writes->circuits) == 0)
		return writes;
	later_free(writes->flush);
	free(writes);
	return NULL;
}

void redis_writes_free(struct redis_writes *writes)
{
	if (!writes)
		return;
	keytable_fini(&writes->circuits);
	later_free(writes->flush);
	free(writes);
}
