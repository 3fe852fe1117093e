/*
 * Reads the circuits at many keys for the listing: one command for each key, all sent together.
 * MGET would fail on a server with cluster mode on (keys of several slots), and would read large
 * values whole.
 */
#include "redis/values.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* This many bytes are asked for first. A shorter value costs one command only. */
#define HEAD_MAX 4096

enum asked { ASKED_HEAD, ASKED_LENGTH, ASKED_WHOLE };

struct item {
	struct redis_values *values;
	size_t index;
	enum asked asked;
	const char *key; /* the whole Redis key */
	size_t key_len;
};

struct redis_values {
	struct redis_store *r;
	redis_values_fn *fn; /* NULL: nobody waits any more */
	void *arg;
	size_t unanswered;
	size_t count;
	char *keys;
	struct redis_value *found;
	struct item items[];
};

static void values_destroy(struct redis_values *v)
{
	for (size_t i = 0; v->found && i < v->count; i++)
		free(v->found[i].override);
	free(v->keys);
	free(v->found);
	free(v);
}

static void values_fail(struct redis_values *v, enum store_status status, const char *why)
{
	redis_values_fn *fn = v->fn;

	v->fn = NULL;
	fn(v->arg, NULL, status, why);
}

static void on_reply(void *arg, enum redis_outcome outcome, const redisReply *reply,
		     const char *why);

static int item_send(struct item *item, enum asked asked)
{
	struct redis_values *v = item->values;
	bool length = asked == ASKED_LENGTH;
	const char *last = asked == ASKED_HEAD ? "4095" : "65535";
	const char *argv[] = {length ? "STRLEN" : "GETRANGE", item->key, "0", last};
	const size_t lens[] = {strlen(argv[0]), item->key_len, 1, strlen(last)};

	_Static_assert(HEAD_MAX == 4096 && CIRCUIT_STORED_BYTES_MAX == 65536, "as in `last`");
	item->asked = asked;
	if (!redis_link_send(v->r->link, on_reply, item, length ? 2 : 4, argv, lens))
		return -1;
	v->unanswered++;
	return 0;
}

static void item_decode(struct item *item, const redisReply *reply)
{
	struct redis_value *found = &item->values->found[item->index];
	const char *member;
	size_t len;
	struct breaker b;

	found->stored =
		circuit_json_decode_member(reply->str, reply->len, &found->circuit, &member, &len);
	found->exists = true;
	/* Only a member with " o" in its text can have an override: others need not be decoded. */
	if (member && memmem(member, len, " o", 2) && breaker_member_decode(member, len, &b) &&
	    b.override.mode != BREAKER_NO_OVERRIDE) {
		found->override = malloc(sizeof(b.override));
		if (found->override)
			*found->override = b.override;
	}
}

/* Takes an answer. If the value is longer than HEAD_MAX, asks for its length, and then for all of
 * it. False if the answer is not as expected, or the question cannot be sent. */
static bool item_take(struct item *item, const redisReply *reply)
{
	bool whole = true;

	if (item->asked == ASKED_LENGTH) {
		if (reply->type != REDIS_REPLY_INTEGER)
			return false;
		return reply->integer > CIRCUIT_STORED_BYTES_MAX ||
		       item_send(item, ASKED_WHOLE) == 0;
	}
	if (reply->type != REDIS_REPLY_STRING)
		return false;
	if (item->asked == ASKED_HEAD)
		whole = reply->len < HEAD_MAX;
	if (!whole)
		return item_send(item, ASKED_LENGTH) == 0;
	if (reply->len > 0) /* "" also stands for no key */
		item_decode(item, reply);
	return true;
}

static void values_take(struct redis_values *v, struct item *item, enum redis_outcome outcome,
			const redisReply *reply, const char *why)
{
	if (outcome != REDIS_REPLY)
		values_fail(v, STORE_UNAVAILABLE, why);
	else if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "WRONGTYPE", 9) != 0)
		values_fail(v, STORE_ERROR, reply->str);
	else if (reply->type != REDIS_REPLY_ERROR && !item_take(item, reply))
		values_fail(v, STORE_ERROR, redis_reply_words(reply));
}

static void on_reply(void *arg, enum redis_outcome outcome, const redisReply *reply,
		     const char *why)
{
	struct item *item = arg;
	struct redis_values *v = item->values;

	v->unanswered--;
	if (v->fn)
		values_take(v, item, outcome, reply, why);
	if (v->unanswered > 0)
		return;
	if (v->fn)
		v->fn(v->arg, v->found, STORE_OK, NULL);
	values_destroy(v);
}

static struct redis_values *values_new(struct redis_store *r, const struct redis_value_key *keys,
				       size_t count)
{
	struct redis_values *v;
	size_t room = 1; /* malloc(0) may give NULL */
	char *p;

	assert(count > 0);
	v = calloc(1, sizeof(*v) + count * sizeof(v->items[0]));
	if (!v)
		return NULL;
	for (size_t i = 0; i < count; i++)
		room += r->prefix_len + keys[i].len;
	v->keys = p = malloc(room);
	v->found = calloc(count, sizeof(*v->found));
	if (!v->keys || !v->found) {
		values_destroy(v);
		return NULL;
	}
	v->r = r;
	v->count = count;
	for (size_t i = 0; i < count; i++) {
		size_t len = redis_store_put_key(r, p, keys[i].key, keys[i].len);

		v->items[i] = (struct item){.values = v, .index = i, .key = p, .key_len = len};
		p += len;
	}
	return v;
}

struct redis_values *redis_values_read(struct redis_store *r, const struct redis_value_key *keys,
				       size_t count, redis_values_fn *fn, void *arg)
{
	struct redis_values *v = values_new(r, keys, count);

	if (!v)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		if (item_send(&v->items[i], ASKED_HEAD) != 0) {
			if (v->unanswered == 0)
				values_destroy(v);
			return NULL;
		}
	}
	v->fn = fn;
	v->arg = arg;
	return v;
}

void redis_values_cancel(struct redis_values *v)
{
	v->fn = NULL;
}
