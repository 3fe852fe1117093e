#include "store/driver.h"

#include "base/clock.h"
#include "base/timer.h"

#include <stdlib.h>
#include <string.h>

/* At most this many expired operations end in one turn of the loop. */
#define EXPIRE_BUDGET 256

struct store_op *store_submit(struct store *s, const struct store_request *request,
			      store_done_fn *done, void *arg, struct store_result *result)
{
	return s->driver->submit(s, request, done, arg, result);
}

struct store_op *store_list(struct store *s, const struct store_query *query, store_done_fn *done,
			    void *arg, struct store_result *result)
{
	return s->driver->list(s, query, done, arg, result);
}

void store_health(struct store *s, struct store_health *health)
{
	memset(health, 0, sizeof(*health));
	health->store = s->driver->name;
	health->in_flight = s->in_flight - s->background;
	s->driver->health(s, health);
}

void store_watch(struct store *s, void (*changed)(void *arg), void *arg)
{
	s->watcher = changed;
	s->watcher_arg = arg;
}

void store_on_answered(struct store *s, void (*answered)(void *arg), void *arg)
{
	s->on_answered = answered;
	s->on_answered_arg = arg;
}

void store_answered(struct store *s)
{
	if (s->on_answered)
		s->on_answered(s->on_answered_arg);
}

void store_flush(struct store *s)
{
	if (s->driver->flush)
		s->driver->flush(s);
}

void store_changed(struct store *s)
{
	if (s->watcher)
		s->watcher(s->watcher_arg);
}

void store_reconfigure(struct store *s, const struct store_limits *limits)
{
	s->limits = *limits;
	if (s->driver->reconfigure)
		s->driver->reconfigure(s);
}

void store_send_held(struct store *s)
{
	if (s->driver->send_held)
		s->driver->send_held(s);
}

void store_end_by(struct store *s, int64_t end_ms)
{
	s->end_ms = end_ms;
}

void store_free(struct store *s)
{
	if (!s)
		return;
	while (!TAILQ_EMPTY(&s->ops))
		store_cancel(TAILQ_FIRST(&s->ops));
	while (!TAILQ_EMPTY(&s->open_ops))
		store_cancel(TAILQ_FIRST(&s->open_ops));
	s->driver->free(s);
}

struct kept_call {
	struct breaker_call call;
	union {
		struct policy policy;
		struct breaker_override override;
	};
};

bool store_keep_call(struct circuit_op *op)
{
	struct kept_call *kept;

	if (!op->call)
		return true;
	kept = malloc(sizeof(*kept));
	if (!kept)
		return false;
	kept->call = *op->call;
	if (op->call->policy) {
		kept->policy = *op->call->policy;
		kept->call.policy = &kept->policy;
	} else if (op->call->override) {
		kept->override = *op->call->override;
		kept->call.override = &kept->override;
	}
	op->call = &kept->call;
	return true;
}

void store_drop_call(struct circuit_op *op)
{
	/* `call` is the first member. */
	free((void *)(uintptr_t)op->call);
	op->call = NULL;
}

int64_t store_now_ms(const struct store_clock *clock)
{
	return clock->now_ms ? clock->now_ms(clock->arg) : clock_forward_ms();
}

int64_t store_peek_ms(const struct store_clock *clock)
{
	return clock->peek_ms ? clock->peek_ms(clock->arg) : store_now_ms(clock);
}

/* Removes the op from the list and from the counts; the caller frees it. */
static void op_remove(struct store_op *op)
{
	struct store *s = op->store;

	TAILQ_REMOVE(op->deadline_ms == INT64_MAX ? &s->open_ops : &s->ops, op, entry);
	s->in_flight--;
	s->background -= op->background;
}

void store_op_expire(struct store_op *op)
{
	struct store_result result = {
		.timed_out = true,
		.message = "no answer within store_timeout",
	};

	op->expiring = true;
	op->store->driver->detach(op, &result);
	store_op_finish(op, &result);
}

/* The timer stays as it is when ops end in time: it then fires once, finds the next deadline and is
 * set anew. That costs one timer call for each timeout, not two for each op. */
static void deadline_arm(struct store *s)
{
	const struct store_op *first = TAILQ_FIRST(&s->ops);

	if (!first || first->deadline_ms >= s->deadline_ms)
		return;
	if (timer_arm(s->deadline, first->deadline_ms - clock_ms()) == 0)
		s->deadline_ms = first->deadline_ms;
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct store *s = arg;
	int64_t now = clock_ms();
	unsigned budget = EXPIRE_BUDGET;
	struct store_op *op;

	(void)fd;
	(void)what;
	s->deadline_ms = INT64_MAX;
	while ((op = TAILQ_FIRST(&s->ops)) != NULL && op->deadline_ms <= now && budget-- > 0)
		store_op_expire(op);
	deadline_arm(s);
}

int store_init(struct store *s, const struct store_driver *driver, struct event_base *base,
	       const struct store_limits *limits)
{
	s->driver = driver;
	s->base = base;
	s->limits = *limits;
	s->in_flight = 0;
	s->background = 0;
	TAILQ_INIT(&s->ops);
	TAILQ_INIT(&s->open_ops);
	s->deadline_ms = INT64_MAX;
	s->deadline = evtimer_new(base, on_deadline, s);
	return s->deadline ? 0 : -1;
}

void store_fini(struct store *s)
{
	if (s->deadline)
		event_free(s->deadline);
	s->deadline = NULL;
}

struct store_op *store_refuse(struct store_result *result, enum store_status status,
			      const char *message)
{
	memset(result, 0, sizeof(*result));
	result->status = status;
	result->message = message;
	return NULL;
}

bool store_overloaded(struct store *s, struct store_result *result)
{
	if (s->in_flight - s->background < s->limits.max_in_flight)
		return false;
	store_refuse(result, STORE_OVERLOADED, "max_in_flight operations are waiting");
	return true;
}

static void op_init(struct store *s, struct store_op *op, store_done_fn *done, void *arg,
		    int64_t deadline_ms)
{
	op->store = s;
	op->done = done;
	op->arg = arg;
	op->deadline_ms = deadline_ms;
	op->background = false;
	op->expiring = false;
	s->in_flight++;
}

void store_op_start(struct store *s, struct store_op *op, store_done_fn *done, void *arg)
{
	struct store_op *before;

	op_init(s, op, done, arg, clock_ms() + s->limits.timeout_ms);
	/* Its place is at the end, unless store_timeout has just become shorter. */
	TAILQ_FOREACH_REVERSE(before, &s->ops, store_op_list, entry)
	{
		if (before->deadline_ms <= op->deadline_ms)
			break;
	}
	if (before)
		TAILQ_INSERT_AFTER(&s->ops, before, op, entry);
	else
		TAILQ_INSERT_HEAD(&s->ops, op, entry);
	deadline_arm(s);
}

void store_op_start_open(struct store *s, struct store_op *op, store_done_fn *done, void *arg)
{
	op_init(s, op, done, arg, INT64_MAX);
	TAILQ_INSERT_TAIL(&s->open_ops, op, entry);
}

void store_op_background(struct store_op *op)
{
	op->background = true;
	op->store->background++;
}

void store_op_finish(struct store_op *op, struct store_result *result)
{
	store_done_fn *done = op->done;
	void *arg = op->arg;

	op_remove(op);
	free(op);
	done(arg, result);
}

static void no_callback(void *arg, struct store_result *result)
{
	(void)arg;
	(void)result;
}

/* The driver may end other ops while it detaches one that expires, and their callbacks may cancel
 * that one: then it ends without its callback. */
void store_cancel(struct store_op *op)
{
	struct store_result unheard = {0};

	if (op->expiring) {
		op->done = no_callback;
		return;
	}
	op->store->driver->detach(op, &unheard);
	op_remove(op);
	free(op);
}

struct store_page *store_page_new(size_t room)
{
	struct store_page *page = calloc(1, sizeof(*page));

	if (!page)
		return NULL;
	page->items = calloc(room, sizeof(*page->items));
	if (!page->items) {
		free(page);
		return NULL;
	}
	return page;
}

bool store_page_add(struct store_page *page, const char *key, size_t key_len,
		    const struct circuit *circuit, const struct breaker_override *override)
{
	struct store_item *item = &page->items[page->count];

	item->key = malloc(key_len ? key_len : 1);
	item->override = override ? malloc(sizeof(*override)) : NULL;
	if (!item->key || (override && !item->override)) {
		free(item->key);
		free(item->override);
		return false;
	}
	if (override)
		*item->override = *override;
	memcpy(item->key, key, key_len);
	item->key_len = key_len;
	item->circuit = *circuit;
	page->count++;
	return true;
}

void store_page_free(struct store_page *page)
{
	if (!page)
		return;
	for (size_t i = 0; i < page->count; i++) {
		free(page->items[i].override);
		free(page->items[i].key);
	}
	free(page->items);
	free(page);
}

bool store_query_matches(const struct store_query *query, const char *key, size_t key_len,
			 enum circuit_state state)
{
	if (query->has_state && query->state != state)
		return false;
	return key_len >= query->prefix_len && memcmp(key, query->prefix, query->prefix_len) == 0;
}

void store_follow(struct store *s, store_follow_fn *fn, void *arg)
{
	s->follow = fn;
	s->follow_arg = arg;
	if (s->driver->follow)
		s->driver->follow(s);
}

void store_tell(struct store *s, const struct store_change *change)
{
	if (s->follow)
		s->follow(s->follow_arg, change);
}

int64_t store_clock_ms(struct store *s)
{
	int64_t error_ms;

	if (!s->driver->clock_offset_ms)
		return clock_forward_ms();
	return clock_steady_ms() + s->driver->clock_offset_ms(s, &error_ms);
}
