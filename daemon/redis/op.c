/*
 * Operations under way in Redis: sending their commands, ending them, and what all of them share.
 */
#include "redis/op.h"

#include "base/metrics.h"

#include <stdlib.h>
#include <string.h>

static void release(struct redis_op *o)
{
	if (o->release)
		o->release(o);
}

void redis_op_finish(struct redis_op *o, struct store_result *result)
{
	release(o);
	store_op_finish(&o->op, result);
}

void redis_op_fail(struct redis_op *o, enum store_status status, const char *message)
{
	struct store_result result;

	store_refuse(&result, status, message);
	redis_op_finish(o, &result);
}

const char *redis_reply_words(const redisReply *reply)
{
	return reply && reply->type == REDIS_REPLY_ERROR ? reply->str
							 : "unexpected reply from Redis";
}

void redis_op_fail_reply(struct redis_op *o, const redisReply *reply)
{
	redis_op_fail(o, STORE_ERROR, redis_reply_words(reply));
}

static void on_reply(void *arg, enum redis_outcome outcome, const redisReply *reply,
		     const char *why)
{
	struct redis_op *o = arg;

	o->command = NULL;
	switch (outcome) {
	case REDIS_REPLY:
		o->on_reply(o, reply);
		break;
	case REDIS_REFUSED:
		redis_op_fail(o, STORE_UNAVAILABLE, why);
		break;
	case REDIS_LOST:
		redis_op_fail(o, o->writes ? STORE_UNKNOWN : STORE_UNAVAILABLE, why);
		break;
	}
}

int redis_op_send(struct redis_op *o, int argc, const char **argv, const size_t *argvlen)
{
	struct redis_store *r = redis_store(o->op.store);

	o->command = redis_link_send(r->link, on_reply, o, argc, argv, argvlen);
	return o->command ? 0 : -1;
}

void redis_op_forget(struct redis_op *o)
{
	redis_command_forget(o->command);
	release(o);
}

/* True if the reply to EVALSHA says that this user may not call it, or that it has another name. */
static bool has_no_evalsha(const redisReply *reply)
{
	static const char *const says[] = {"NOPERM ", "ERR unknown command "};

	if (reply->type != REDIS_REPLY_ERROR)
		return false;
	for (size_t i = 0; i < sizeof(says) / sizeof(says[0]); i++) {
		if (strncmp(reply->str, says[i], strlen(says[i])) == 0)
			return strcasestr(reply->str, "evalsha") != NULL;
	}
	return false;
}

bool redis_script_again(struct redis_store *r, const redisReply *reply, bool *whole)
{
	if (*whole)
		return false;
	if (has_no_evalsha(reply)) {
		redis_link_forget_sha(r->link);
		*whole = true;
		return true;
	}
	if (reply->type != REDIS_REPLY_ERROR || strncmp(reply->str, "NOSCRIPT", 8) != 0)
		return false;
	if (r->metrics)
		r->metrics->redis_noscript++;
	*whole = true;
	return true;
}

bool redis_script_broke(const redisReply *reply)
{
	/* Whoever kills a script can do so only before its first write. */
	return reply->type == REDIS_REPLY_ERROR && strstr(reply->str, "user_script:") &&
	       !strstr(reply->str, "Script killed");
}

struct redis_script_words redis_script_words(const struct redis_store *r, bool whole)
{
	const char *sha = redis_link_sha(r->link);
	struct redis_script_words words = {.command = "EVALSHA", .script = sha};

	if (whole || !*sha)
		words = (struct redis_script_words){.command = "EVAL", .script = circuit_lua};
	words.command_len = strlen(words.command);
	words.script_len = strlen(words.script);
	return words;
}

size_t redis_store_put_key(const struct redis_store *r, char *to, const char *key, size_t len)
{
	memcpy(to, r->prefix, r->prefix_len);
	memcpy(to + r->prefix_len, key, len);
	return r->prefix_len + len;
}

const char *redis_store_why(struct redis_store *r)
{
	const char *reason = redis_link_reason(r->link);

	return reason && *reason ? reason : "there is no link to Redis";
}

struct store_op *redis_store_away(struct redis_store *r, struct store_result *result)
{
	return store_refuse(result, STORE_UNAVAILABLE, redis_store_why(r));
}

struct redis_store *redis_store_open(struct store *s, struct store_result *result)
{
	struct redis_store *r = redis_store(s);

	if (!redis_link_ready(r->link)) {
		redis_store_away(r, result);
		return NULL;
	}
	return store_overloaded(s, result) ? NULL : r;
}

void redis_store_corrupt(struct redis_store *r, const char *key, size_t key_len,
			 enum circuit_stored stored, bool repeated)
{
	uint64_t hash = siphash(&r->hash_key, key, key_len) & ~CORRUPT_LOGGED;
	uint64_t *place = &r->corrupt_seen[(hash >> 1) % CORRUPT_REMEMBERED];
	bool known = hash && (*place & ~CORRUPT_LOGGED) == hash; /* 0 is an empty place */

	/* Repeated reads of two keys must not drive each other out. */
	if (repeated && !known && *place)
		return;
	if (r->metrics && !(known && repeated))
		r->metrics->corrupt_entries++;
	if (!known)
		*place = hash;
	if ((*place & CORRUPT_LOGGED) ||
	    !log_allows(r->log, &r->corrupt_lines, LOG_LEVEL_WARNING, "corrupt_entry"))
		return;
	*place |= CORRUPT_LOGGED;
	log_warning(r->log, "corrupt_entry", "key=%s found=\"%s\"", log_quote(key, key_len).text,
		    stored == CIRCUIT_STORED_NONE
			    ? "no JSON object, reads as no circuit"
			    : "a member missing or ill-typed, reads as its default");
}
