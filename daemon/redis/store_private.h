/*
 * What store.c, store_write.c, store_list.c and values.c share; nobody else includes this.
 */
#ifndef BREAKERD_STORE_REDIS_H
#define BREAKERD_STORE_REDIS_H

#include "base/keytable.h"
#include "base/later.h"
#include "base/log.h"
#include "base/siphash.h"
#include "proto/circuit_json.h"
#include "redis/link.h"
#include "redis/store.h"
#include "store/driver.h"

#define REDIS_KEY_MAX (REDIS_PREFIX_MAX + 3 + KEY_MAX)

/* Corrupt values are logged once a key: this many keys are remembered, by hash. A key that
 * was driven out by another one is logged again. */
#define CORRUPT_REMEMBERED 1024

struct redis_command;
struct redis_op;
TAILQ_HEAD(redis_op_queue, redis_op);

struct written;
struct redis_call;

/* The writing operations on their way; store_write.c's own. */
struct redis_writes {
	struct keytable circuits;
	TAILQ_HEAD(written_list, written) ready;
	TAILQ_HEAD(call_list, redis_call) calls;
	unsigned under_way; /* calls */
	struct later *flush;
};

struct redis_store {
	struct store store;
	struct redis_link *link;
	struct metrics *metrics; /* may be NULL */
	struct log *log;
	char ttl[12];
	size_t ttl_len;
	char prefix[REDIS_PREFIX_MAX + 3 + 1]; /* with its "cb:" */
	size_t prefix_len;
	struct redis_op_queue clock_queue; /* reads that wait for the TIME that is under way */
	struct redis_writes writes;
	struct siphash_key hash_key;
	struct log_limit corrupt_lines;
	uint64_t corrupt_seen[CORRUPT_REMEMBERED];
};

/* The first member of each op here. While it lives it has one command in flight, or
 * stands in the clock queue, or has a detach of its own that knows where it is. */
struct redis_op {
	struct store_op op;
	struct redis_command *command;
	TAILQ_ENTRY(redis_op) clock_entry; /* in the queue while command is NULL */
	bool writes;
	/* The answer to the command, REDIS_REPLY; sends the next one, or finishes the op. */
	void (*on_reply)(struct redis_op *o, const redisReply *reply);
	void (*release)(struct redis_op *o); /* frees what the op owns; may be NULL */
	/* As the driver's, for an op without a command of its own; else NULL. */
	void (*detach)(struct redis_op *o, struct store_result *verdict);
};

static inline struct redis_store *redis_store(struct store *s)
{
	return (struct redis_store *)s;
}

/* Hands a command of the op over. 0, or -1: it was surely not sent. */
int redis_op_send(struct redis_op *o, int argc, const char **argv, const size_t *argvlen);

/* As that, but ends the op if the link does not take it; for use inside a reply. */
void redis_op_continue(struct redis_op *o, int argc, const char **argv, const size_t *argvlen);

/* Releases and finishes. */
void redis_op_finish(struct redis_op *o, struct store_result *result);
void redis_op_fail(struct redis_op *o, enum store_status status, const char *message);

/* Ends the op with an error reply's words, or with "unexpected reply". */
void redis_op_fail_reply(struct redis_op *o, const redisReply *reply);

/* True if the reply says that Redis does not know the hash of circuit.lua: the call surely did
 * not run, and goes again with the whole script. Sets *whole, and is true only once. */
bool redis_script_again(struct redis_store *r, const redisReply *reply, bool *whole);

/* NULL, with *result set, if the link is down or max_in_flight reached; else the store. */
struct redis_store *redis_store_open(struct store *s, struct store_result *result);

extern const char circuit_lua[];

/* Why there is no link. */
const char *redis_store_why(struct redis_store *r);

/* Says that there is no link, and why. Returns NULL. */
struct store_op *redis_store_away(struct redis_store *r, struct store_result *result);

/* Counts, and logs once a key, a stored value that is not sound. */
void redis_store_corrupt(struct redis_store *r, const char *key, size_t key_len,
			 enum circuit_stored stored);

/* The driver's `submit` for what writes, once redis_store_open lets it in. */
struct store_op *redis_writes_submit(struct redis_store *r, const struct store_request *request,
				     store_done_fn *done, void *arg, struct store_result *result);

/* The link is no longer ready: ends what was not handed over. */
void redis_writes_give_up(struct redis_store *r, const char *why);

/* 0, or -1 when out of memory; fini is allowed then, and once the link is freed. */
int redis_writes_init(struct redis_store *r);
void redis_writes_fini(struct redis_store *r);

/* What redis_values_read found at one key: nothing (a key of another type, a value larger than
 * CIRCUIT_STORED_BYTES_MAX and an empty one are left out, too), or a circuit. */
struct redis_value {
	bool exists;
	enum circuit_stored stored;
	struct circuit circuit; /* set unless CIRCUIT_STORED_NONE */
};

struct redis_value_key {
	const char *key; /* without the prefix */
	size_t len;
};

struct redis_values;

/* From the loop, once: what was found, in the order of the keys, with STORE_OK; else NULL, and
 * why, with STORE_UNAVAILABLE or STORE_ERROR. All live until it returns. */
typedef void redis_values_fn(void *arg, const struct redis_value *found, enum store_status status,
			     const char *why);

/* Reads the circuits of one key at least; they are copied. NULL, and fn does not come, if the link
 * does not take the commands or when out of memory. */
struct redis_values *redis_values_read(struct redis_store *r, const struct redis_value_key *keys,
				       size_t count, redis_values_fn *fn, void *arg);

/* fn does not come any more. Not from inside fn. */
void redis_values_cancel(struct redis_values *values);

/* The driver's `list`. */
struct store_op *redis_store_list(struct store *s, const struct store_query *query,
				  store_done_fn *done, void *arg, struct store_result *result);

#endif
