/*
 * The store in Redis itself: its link and its channel, its health, its start and its end. A read is
 * in reads.c, a write in writes.c or fold.c, a listing in list.c, what is published in events.c.
 */
#include "redis/store.h"

#include "base/metrics.h"
#include "redis/channel.h"
#include "redis/events.h"
#include "redis/fold.h"
#include "redis/list.h"
#include "redis/op.h"
#include "redis/reads.h"
#include "redis/target.h"
#include "redis/writes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS   2000
#define HANDSHAKE_TIMEOUT_MS 2000
#define COMMAND_TIMEOUT_MS   3000
#define BACKOFF_MIN_MS       50
#define BACKOFF_MAX_MS       1500

static struct store_op *redis_submit(struct store *s, const struct store_request *request,
				     store_done_fn *done, void *arg, struct store_result *result)
{
	struct redis_store *r = redis_store_open(s, result);

	if (!r)
		return NULL;
	if (circuit_verb_writes(request->op.verb) || request->behind_writes)
		return redis_writes_submit(r, request, done, arg, result);
	return redis_reads_submit(r, request, done, arg, result);
}

static int64_t redis_clock_offset_ms(struct store *s, int64_t *error_ms)
{
	return redis_link_clock_offset_ms(redis_store(s)->link, error_ms);
}

static void redis_detach(struct store_op *op, struct store_result *verdict)
{
	struct redis_op *o = (struct redis_op *)op;
	struct redis_store *r = redis_store(op->store);
	bool lists = o->lists;

	if (o->detach) {
		o->detach(o, verdict);
	} else {
		redis_op_forget(o);
		verdict->status = o->writes ? STORE_UNKNOWN : STORE_TIMEOUT;
	}
	if (verdict->timed_out && !lists)
		redis_link_missed(r->link, verdict->status != STORE_UNAVAILABLE,
				  r->store.limits.timeout_ms);
}

static void redis_health(struct store *s, struct store_health *health)
{
	struct redis_store *r = redis_store(s);

	health->condition = redis_link_ready(r->link) ? STORE_READY : STORE_AWAY;
	health->suspect = redis_link_state(r->link) == LINK_SUSPECT;
	health->since_ms = redis_link_since_ms(r->link);
	if (health->condition != STORE_READY)
		snprintf(health->reason, sizeof(health->reason), "%s", redis_link_reason(r->link));
	snprintf(health->detail, sizeof(health->detail), "%s", redis_link_server(r->link));
}

static void redis_reconfigure(struct store *s)
{
	struct redis_store *r = redis_store(s);

	r->ttl_len = snprintf(r->ttl, sizeof(r->ttl), "%" PRId64, s->limits.ttl_ms);
}

/* Reads go first: one that came before a write is not told of what came after it. */
static void on_flush(void *arg)
{
	struct redis_store *r = arg;

	redis_reads_send(r);
	redis_writes_send(r);
	redis_link_flush(r->link);
	r->in_flight_sent = r->store.in_flight;
}

/* While Redis has commands of ours or has just answered some, what came waits for the next turn,
 * which may bring more: fewer and larger batches cost it and us less, and a turn is short beside a
 * round trip. */
static void redis_flush(struct store *s)
{
	struct redis_store *r = redis_store(s);

	if (r->answering || redis_link_busy(r->link))
		return;
	later_now(r->flush);
	redis_link_flush(r->link);
}

static void redis_free(struct store *s)
{
	struct redis_store *r = redis_store(s);

	redis_link_free(r->link);
	redis_channel_free(r->channel);
	redis_reads_free(r->reads);
	redis_writes_free(r->writes);
	later_free(r->flush);
	later_free(r->lists_next);
	store_fini(s);
	free(r);
}

static const struct store_driver redis_driver = {
	.name = "redis",
	.submit = redis_submit,
	.list = redis_store_list,
	.detach = redis_detach,
	.health = redis_health,
	.reconfigure = redis_reconfigure,
	.flush = redis_flush,
	.free = redis_free,
	.fold = redis_fold,
	.clock_offset_ms = redis_clock_offset_ms,
};

static void on_change(void *arg, bool ready)
{
	struct redis_store *r = arg;

	redis_channel_follow(r->channel, ready ? redis_link_address(r->link) : NULL);

	if (r->metrics)
		r->metrics->store_up = ready;
	if (ready)
		redis_writes_begin(r);
	if (r->store.on_change)
		r->store.on_change(r->store.on_change_arg, ready);
	if (!ready) {
		redis_reads_send(r); /* which fails them */
		redis_writes_give_up(r, redis_store_why(r));
	}
}

static void on_news(void *arg)
{
	struct redis_store *r = arg;

	store_changed(&r->store);
}

static void on_answered(void *arg)
{
	struct redis_store *r = arg;

	r->answering = true;
	store_answered(&r->store);
	r->answering = false;
	/* All who were answered have asked again: there is nothing to wait for. */
	if (r->store.in_flight >= r->in_flight_sent)
		redis_flush(&r->store);
}

struct store *store_redis_new(struct event_base *base, const struct redis_target *target,
			      const char *prefix, const struct store_limits *limits,
			      struct metrics *metrics, struct log *log)
{
	struct redis_link_options options = {
		.connect_timeout_ms = CONNECT_TIMEOUT_MS,
		.handshake_timeout_ms = HANDSHAKE_TIMEOUT_MS,
		.command_timeout_ms = COMMAND_TIMEOUT_MS,
		.backoff_min_ms = BACKOFF_MIN_MS,
		.backoff_max_ms = BACKOFF_MAX_MS,
		.script = circuit_lua,
		.on_change = on_change,
		.on_news = on_news,
		.on_answered = on_answered,
	};
	struct redis_channel_events channel_events = redis_store_channel_events;
	struct redis_store *r;

	if (strlen(prefix) > REDIS_PREFIX_MAX)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	if (store_init(&r->store, &redis_driver, base, limits) != 0)
		goto fail;
	r->metrics = metrics;
	r->log = log;
	r->prefix_len = snprintf(r->prefix, sizeof(r->prefix), "%scb:", prefix);
	if (redis_lists_init(r, base) != 0)
		goto fail;
	siphash_key_init(&r->hash_key);
	redis_reconfigure(&r->store);
	r->flush = later_new(base, on_flush, r);
	r->reads = redis_reads_new();
	r->writes = redis_writes_new();
	if (!r->flush || !r->reads || !r->writes)
		goto fail;
	r->target = *target;
	snprintf(r->channel_name, sizeof(r->channel_name), "%scb:events", prefix);
	snprintf(r->publish, sizeof(r->publish), "%u %s", target->db, r->channel_name);
	channel_events.arg = r;
	r->channel = redis_channel_new(base, &r->target, r->channel_name, &channel_events, log);
	if (!r->channel)
		goto fail;
	options.arg = r;
	r->link = redis_link_new(base, target, &options, metrics, log);
	if (!r->link)
		goto fail;
	return &r->store;
fail:
	later_free(r->lists_next);
	redis_channel_free(r->channel);
	redis_reads_free(r->reads);
	redis_writes_free(r->writes);
	later_free(r->flush);
	store_fini(&r->store);
	free(r);
	return NULL;
}
