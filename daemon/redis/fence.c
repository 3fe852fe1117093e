/*
 * The fence around what a server sends: one function checks each object before hiredis makes it.
 */
#include "redis/fence.h"

#include <stdio.h>
#include <string.h>

/* Far above what we ever ask for. A server that sends more is not sane. */
#define ANSWER_BYTES_MAX    ((size_t)64 << 20)
#define ANSWER_ELEMENTS_MAX 65536
#define ANSWER_DEPTH_MAX    7
/* For a line: a status, an error, a number or a length. After each read hiredis searches a line
 * from its beginning for its end. */
#define ANSWER_LINE_MAX ((size_t)64 << 10)

static const char unasked[] = "the server spoke without being asked";
static const char too_large[] = "the server sent a larger answer than is accepted";

/* An object that is about to be made. */
struct object {
	const redisReadTask *task;
	int type;        /* REDIS_REPLY_...; REDIS_REPLY_NIL also for a null bulk or array */
	const char *str; /* of text, without a NUL; else NULL */
	size_t len;
	size_t elements;
};

static bool refuse(struct redis_fence *fence, const char *why)
{
	if (!fence->why)
		fence->why = why;
	return false;
}

static bool is_text(const struct object *o, const char *text)
{
	return o->type == REDIS_REPLY_STRING && o->len == strlen(text) &&
	       memcmp(o->str, text, o->len) == 0;
}

/* Checks the first object of an answer. We never ask for RESP3, so a push is unasked, too. */
static bool root_passes(struct redis_fence *fence, const struct object *o)
{
	fence->bytes = 0;
	fence->message = fence->confirms = false;
#ifdef REDIS_REPLY_PUSH
	if (o->type == REDIS_REPLY_PUSH)
		return refuse(fence, unasked);
#endif
	if (fence->ac->replies.head)
		return true;
	if (o->type == REDIS_REPLY_ERROR) {
		snprintf(fence->unasked_error, sizeof(fence->unasked_error), "%.*s", (int)o->len,
			 o->str);
		return true;
	}
	fence->message = fence->channel && o->type == REDIS_REPLY_ARRAY && o->elements == 3;
	return fence->message || refuse(fence, unasked);
}

/* ["subscribe", channel, integer] or ["message", channel, text] */
static bool message_passes(struct redis_fence *fence, const struct object *o)
{
	bool passes = false;

	if (o->task->idx == 0) {
		fence->confirms = is_text(o, "subscribe");
		passes = fence->confirms || is_text(o, "message");
	} else if (o->task->idx == 1) {
		passes = is_text(o, fence->channel);
	} else {
		passes = o->type == (fence->confirms ? REDIS_REPLY_INTEGER : REDIS_REPLY_STRING);
	}
	return passes || refuse(fence, "the server sent what is no message of the channel");
}

static unsigned depth_of(const redisReadTask *task)
{
	unsigned depth = 0;

	for (; task->parent && depth < ANSWER_DEPTH_MAX; task = task->parent)
		depth++;
	return depth;
}

static bool passes(const struct object *o)
{
	struct redis_fence *fence = o->task->privdata;

	if (!o->task->parent && !root_passes(fence, o))
		return false;
	if (o->task->parent && fence->message && !message_passes(fence, o))
		return false;
	/* hiredis takes any number of elements; 1.x also any depth, and frees by recursion. */
	if (o->elements > ANSWER_ELEMENTS_MAX ||
	    (o->type == REDIS_REPLY_ARRAY && depth_of(o->task) == ANSWER_DEPTH_MAX))
		return refuse(fence, too_large);
	fence->bytes += sizeof(redisReply) + o->len + o->elements * sizeof(redisReply *);
	return fence->bytes <= ANSWER_BYTES_MAX || refuse(fence, too_large);
}

static const redisReplyObjectFunctions *defaults_of(const redisReadTask *task)
{
	return ((const struct redis_fence *)task->privdata)->defaults;
}

static void *create_string(const redisReadTask *task, char *str, size_t len)
{
	struct object o = {.task = task, .type = task->type, .str = str, .len = len};

	return passes(&o) ? defaults_of(task)->createString(task, str, len) : NULL;
}

static void *create_integer(const redisReadTask *task, long long value)
{
	struct object o = {.task = task, .type = REDIS_REPLY_INTEGER};

	return passes(&o) ? defaults_of(task)->createInteger(task, value) : NULL;
}

static void *create_nil(const redisReadTask *task)
{
	struct object o = {.task = task, .type = REDIS_REPLY_NIL};

	return passes(&o) ? defaults_of(task)->createNil(task) : NULL;
}

#if HIREDIS_MAJOR >= 1
static void *create_array(const redisReadTask *task, size_t elements)
#else
static void *create_array(const redisReadTask *task, int elements)
#endif
{
	struct object o = {.task = task, .elements = (size_t)elements};

#ifdef REDIS_REPLY_PUSH
	/* Maps and sets are arrays to the checks above. */
	o.type = task->type == REDIS_REPLY_PUSH ? REDIS_REPLY_PUSH : REDIS_REPLY_ARRAY;
#else
	o.type = REDIS_REPLY_ARRAY;
#endif
	return passes(&o) ? defaults_of(task)->createArray(task, elements) : NULL;
}

#if HIREDIS_MAJOR >= 1
static void *create_double(const redisReadTask *task, double value, char *str, size_t len)
{
	struct object o = {.task = task, .type = REDIS_REPLY_DOUBLE, .str = str, .len = len};

	return passes(&o) ? defaults_of(task)->createDouble(task, value, str, len) : NULL;
}

static void *create_bool(const redisReadTask *task, int value)
{
	struct object o = {.task = task, .type = REDIS_REPLY_BOOL};

	return passes(&o) ? defaults_of(task)->createBool(task, value) : NULL;
}
#endif

void redis_fence_init(struct redis_fence *fence, redisAsyncContext *ac)
{
	redisReader *reader = ac->c.reader;

	*fence = (struct redis_fence){.defaults = reader->fn, .ac = ac};
	fence->functions = *reader->fn;
	fence->functions.createString = create_string;
	fence->functions.createArray = create_array;
	fence->functions.createInteger = create_integer;
	fence->functions.createNil = create_nil;
#if HIREDIS_MAJOR >= 1
	fence->functions.createDouble = create_double;
	fence->functions.createBool = create_bool;
#endif
	reader->fn = &fence->functions;
	reader->privdata = fence;
}

void redis_fence_check_buffer(struct redis_fence *fence)
{
	redisReader *reader = fence->ac->c.reader;
	size_t unread = reader->len - reader->pos;

	if (unread <= ANSWER_LINE_MAX || (unread <= ANSWER_BYTES_MAX &&
					  memchr(reader->buf + reader->pos, '\n', ANSWER_LINE_MAX)))
		return;
	refuse(fence, too_large);
	/* The next attempt to parse fails, and hiredis drops the connection. */
	reader->err = REDIS_ERR_OOM;
	snprintf(reader->errstr, sizeof(reader->errstr), "%s", too_large);
}
