/*
 * The Redis store's operations under way, and what they need of the store. Below store.c, reads.c,
 * writes.c, fold.c, list.c, values.c and events.c; nobody else includes this.
 */
#ifndef BREAKERD_REDIS_OP_H
#define BREAKERD_REDIS_OP_H

#include "base/later.h"
#include "base/log.h"
#include "base/siphash.h"
#include "proto/circuit_json.h"
#include "redis/link.h"
#include "redis/target.h"
#include "store/driver.h"

#define REDIS_KEY_MAX (REDIS_PREFIX_MAX + 3 + KEY_MAX)

/* Corrupt values are logged once a key: this many keys are remembered, by hash. A key that
 * was driven out by another one is logged again. */
#define CORRUPT_REMEMBERED 1024
/* The lowest bit of what is remembered: the key was logged, too, not only counted. */
#define CORRUPT_LOGGED UINT64_C(1)

struct redis_op;
struct redis_reads;
struct redis_writes;
TAILQ_HEAD(redis_op_queue, redis_op);

struct redis_store {
	struct store store;
	struct redis_link *link;
	struct redis_target target;
	struct redis_channel *channel;               /* changes of state made by any daemon */
	char channel_name[REDIS_PREFIX_MAX + 9 + 1]; /* prefix and "cb:events" */
	char publish[REDIS_PREFIX_MAX + 9 + 12];     /* the database and that: for circuit.lua */
	struct metrics *metrics;                     /* may be NULL */
	struct log *log;
	char ttl[20]; /* milliseconds */
	size_t ttl_len;
	char prefix[REDIS_PREFIX_MAX + 3 + 1]; /* with its "cb:" */
	size_t prefix_len;
	struct redis_reads *reads;         /* those on their way */
	struct redis_writes *writes;       /* as these */
	unsigned in_flight_sent;           /* how many were in flight when they were last sent */
	bool answering;                    /* those whose answers came together are told */
	struct later *flush;               /* sends the reads and writes that came in a turn */
	unsigned lists_running;            /* listings, see list.c */
	struct redis_op_queue lists_queue; /* those that wait for one of these to end */
	struct later *lists_next;
	struct siphash_key hash_key;
	struct log_limit corrupt_lines;
	uint64_t corrupt_seen[CORRUPT_REMEMBERED];
};

/* The first member of each op here. While it lives it has one command in flight, or a detach of
 * its own that knows where it is. */
struct redis_op {
	struct store_op op;
	struct redis_command *command;
	TAILQ_ENTRY(redis_op) entry; /* in a queue of its kind */
	bool writes;
	bool lists; /* its missed deadline says nothing of the link */
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

/* Releases and finishes. */
void redis_op_finish(struct redis_op *o, struct store_result *result);
void redis_op_fail(struct redis_op *o, enum store_status status, const char *message);

/* An error reply's words; "unexpected reply from Redis" for another reply, or NULL. */
const char *redis_reply_words(const redisReply *reply);

/* Ends the op with these words. */
void redis_op_fail_reply(struct redis_op *o, const redisReply *reply);

/* Drops what points at an op without a detach of its own, and releases it; for the driver's detach.
 */
void redis_op_forget(struct redis_op *o);

/* How circuit.lua is called: EVALSHA with its hash; or EVAL with its text, if `whole` or if the
 * server would not load it. */
struct redis_script_words {
	const char *command; /* "EVALSHA" or "EVAL" */
	const char *script;
	size_t command_len, script_len;
};
struct redis_script_words redis_script_words(const struct redis_store *r, bool whole);

/* True if the reply says that Redis does not know the hash of circuit.lua, or knows or permits no
 * EVALSHA: the call surely did not run, and goes again with the whole script. Sets *whole, and is
 * true only once. Without EVALSHA all calls are EVAL from then on, until the next handshake. */
bool redis_script_again(struct redis_store *r, const redisReply *reply, bool *whole);

/* True if the reply is an error of Lua's own, amid the script: what it did before stays done. */
bool redis_script_broke(const redisReply *reply);

/* NULL, with *result set, if the link is down or max_in_flight reached; else the store. */
struct redis_store *redis_store_open(struct store *s, struct store_result *result);

extern const char circuit_lua[];

/* Writes the whole Redis key of a circuit, and returns its length: r->prefix_len + len. No NUL. */
size_t redis_store_put_key(const struct redis_store *r, char *to, const char *key, size_t len);

/* Why there is no link. */
const char *redis_store_why(struct redis_store *r);

/* Says that there is no link, and why. Returns NULL. */
struct store_op *redis_store_away(struct redis_store *r, struct store_result *result);

/* Counts, and logs once a key, a stored value that is not sound. `repeated`: by a read that no
 * client asked for and that is repeated; it counts once a key, too, as far as keys are remembered.
 */
void redis_store_corrupt(struct redis_store *r, const char *key, size_t key_len,
			 enum circuit_stored stored, bool repeated);

#endif
