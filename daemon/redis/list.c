/*
 * The listing: SCAN in bounded steps, then the values of the keys that a step found, until a page
 * is full.
 *
 * SCAN gives as many keys as it likes, but a page has a limit. So a page may end within a step, and
 * the next page must go on in the middle of that step, although keys come and go meanwhile and the
 * server remembers nothing. A step is a region of the server's hash table, from one SCAN cursor to
 * the next. Its keys are sorted, and our cursor (list_cursor.h) names the region and the last key.
 *
 * The next page must scan exactly the same region, or keys would be left out. But SCAN from the
 * same start may now stop elsewhere. If it went too far, it is called again with a smaller COUNT;
 * if it stopped short, it is called for the rest. redis_scan_position tells which was the case.
 *
 * SCAN itself may show a key twice when the server shrinks its hash table between two steps
 * (manual of SCAN, "Scan guarantees"). Within a step duplicates are removed here.
 */
#include "redis/list.h"

#include "base/clock.h"
#include "base/log.h"
#include "redis/list_cursor.h"
#include "redis/values.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* At most this many listings are under way; further ones wait in order. A step of a listing
 * occupies Redis and the connection for some milliseconds, and every other operation waits for
 * that. */
#define LISTS_MAX  4
#define SCAN_COUNT 500
#define READ_MOST  256
/* A glob may need two bytes for each byte of the key. */
#define PATTERN_MAX (2 * REDIS_KEY_MAX + 1)

/* A key that a step found: its place in the arena, without the prefix. */
struct found {
	size_t offset;
	size_t len;
};

struct redis_list {
	struct redis_op base;
	struct store_query query;
	struct store_page *page;
	int64_t stop_ms; /* monotonic: the page ends then, full or not */
	bool running;    /* it is one of the LISTS_MAX */

	struct redis_list_cursor step; /* the step under way */
	uint64_t scanned_to;           /* the step has been scanned up to here */
	unsigned count;                /* for SCAN */

	struct found *found;
	size_t found_count, found_room;
	size_t next;                 /* the first key in `found` that is not dealt with */
	size_t asked;                /* how many keys from `next` on are being read */
	struct redis_values *values; /* the read under way, or NULL */
	char *arena;
	size_t arena_len, arena_room;

	size_t pattern_len;
	char pattern[PATTERN_MAX];
};

static struct redis_list *list_op(struct redis_op *o)
{
	return (struct redis_list *)o;
}

static void list_release(struct redis_op *o)
{
	struct redis_list *l = list_op(o);
	struct redis_store *r = redis_store(o->op.store);

	if (l->running) {
		r->lists_running--;
		later_run(r->lists_next);
	}
	store_page_free(l->page);
	free(l->found);
	free(l->arena);
}

/* --- the keys of a step */

static int compare_keys(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_found(const void *a, const void *b, void *arena)
{
	const struct found *x = a, *y = b;

	return compare_keys((char *)arena + x->offset, x->len, (char *)arena + y->offset, y->len);
}

static bool reserve(void **array, size_t *room, size_t need, size_t size)
{
	size_t more = *room ? *room : 64;
	void *grown;

	if (need <= *room)
		return true;
	while (more < need)
		more *= 2;
	grown = reallocarray(*array, more, size);
	if (!grown)
		return false;
	*array = grown;
	*room = more;
	return true;
}

static bool add_found(struct redis_list *l, const char *key, size_t len)
{
	if (!reserve((void **)&l->found, &l->found_room, l->found_count + 1, sizeof(*l->found)) ||
	    !reserve((void **)&l->arena, &l->arena_room, l->arena_len + len, 1))
		return false;
	memcpy(l->arena + l->arena_len, key, len);
	l->found[l->found_count++] = (struct found){l->arena_len, len};
	l->arena_len += len;
	return true;
}

/* Adds the keys that can be a circuit's to `found`. False when out of memory. */
static bool take_keys(struct redis_list *l, const redisReply *keys)
{
	struct redis_store *r = redis_store(l->base.op.store);

	for (size_t i = 0; i < keys->elements; i++) {
		const redisReply *key = keys->element[i];
		size_t len;

		if (key->type != REDIS_REPLY_STRING || (size_t)key->len <= r->prefix_len)
			continue;
		len = key->len - r->prefix_len;
		if (len > KEY_MAX || key_check(key->str + r->prefix_len, len))
			continue;
		if (l->step.has_end && compare_keys(key->str + r->prefix_len, len, l->step.last,
						    l->step.last_len) <= 0)
			continue;
		if (!add_found(l, key->str + r->prefix_len, len))
			return false;
	}
	return true;
}

static void sort_found(struct redis_list *l)
{
	size_t kept = 0;

	if (l->found_count == 0)
		return;
	qsort_r(l->found, l->found_count, sizeof(*l->found), compare_found, l->arena);
	for (size_t i = 1; i < l->found_count; i++)
		if (compare_found(&l->found[kept], &l->found[i], l->arena) != 0)
			l->found[++kept] = l->found[i];
	l->found_count = kept + 1;
}

/* --- the steps */

static void scan(struct redis_list *l);
static void fill(struct redis_list *l);

static void list_done(struct redis_list *l, const struct found *last)
{
	struct store_result result;

	store_refuse(&result, STORE_OK, NULL);
	if (last)
		redis_list_cursor_write_key(l->page->cursor, l->step.start, l->step.end,
					    l->arena + last->offset, last->len);
	else
		redis_list_cursor_write_start(l->page->cursor, l->step.start);
	result.page = l->page;
	l->page = NULL;
	redis_op_finish(&l->base, &result);
}

static void begin_step(struct redis_list *l, uint64_t start)
{
	l->step.start = l->scanned_to = start;
	l->step.has_end = false;
	l->count = SCAN_COUNT;
	l->found_count = l->next = l->arena_len = 0;
}

/* All keys of the step have been dealt with. */
static void step_done(struct redis_list *l)
{
	begin_step(l, l->step.end);
	if (l->step.start == 0 || l->page->count >= l->query.limit || clock_ms() >= l->stop_ms)
		list_done(l, NULL);
	else
		scan(l);
}

/* Redis's clock, as last measured. */
static int64_t redis_now_ms(const struct redis_store *r)
{
	int64_t error_ms;

	return clock_steady_ms() + redis_link_clock_offset_ms(r->link, &error_ms);
}

/* Adds what was found at a key to the page. False when out of memory. */
static bool take_value(struct redis_list *l, const struct found *f, const struct redis_value *value)
{
	struct redis_store *r = redis_store(l->base.op.store);
	const char *key = l->arena + f->offset;

	if (!value->exists)
		return true;
	if (value->stored != CIRCUIT_STORED_SOUND) {
		char whole[REDIS_KEY_MAX];

		redis_store_corrupt(r, whole, redis_store_put_key(r, whole, key, f->len),
				    value->stored, l->query.background);
	}
	if (value->stored == CIRCUIT_STORED_NONE ||
	    !store_query_matches(&l->query, key, f->len, value->circuit.state))
		return true;
	if (!value->override || value->override->until_ms <= redis_now_ms(r))
		return store_page_add(l->page, key, f->len, &value->circuit, NULL);
	return store_page_add(l->page, key, f->len, &value->circuit, value->override);
}

static void on_values(void *arg, const struct redis_value *values, enum store_status status,
		      const char *why)
{
	struct redis_list *l = arg;
	size_t i;

	l->values = NULL;
	l->base.detach = NULL;
	if (!values) {
		redis_op_fail(&l->base, status, why);
		return;
	}
	for (i = 0; i < l->asked && l->page->count < l->query.limit; i++) {
		if (!take_value(l, &l->found[l->next + i], &values[i])) {
			redis_op_fail(&l->base, STORE_ERROR, "out of memory");
			return;
		}
	}
	l->next += i;
	fill(l);
}

static void detach_values(struct redis_op *o, struct store_result *verdict)
{
	redis_values_cancel(list_op(o)->values);
	list_release(o);
	verdict->status = STORE_TIMEOUT;
}

/* Asks for the values of the next keys of the step, if the page has room for them. */
static void fill(struct redis_list *l)
{
	size_t room = l->query.limit - l->page->count;
	size_t left = l->found_count - l->next;
	size_t most = !l->query.has_state && room < READ_MOST ? room : READ_MOST;
	struct redis_value_key keys[READ_MOST];
	struct store_result result;

	if (left == 0) {
		step_done(l);
		return;
	}
	if (room == 0 || (l->next > 0 && clock_ms() >= l->stop_ms)) {
		list_done(l, &l->found[l->next - 1]);
		return;
	}
	l->asked = left < most ? left : most;
	for (size_t i = 0; i < l->asked; i++) {
		const struct found *f = &l->found[l->next + i];

		keys[i] = (struct redis_value_key){l->arena + f->offset, f->len};
	}
	l->values = redis_values_read(redis_store(l->base.op.store), keys, l->asked, on_values, l);
	if (!l->values) {
		redis_store_away(redis_store(l->base.op.store), &result);
		redis_op_finish(&l->base, &result);
		return;
	}
	l->base.detach = detach_values;
}

/* The step has been scanned: its end is known, and `found` is complete. */
static void step_scanned(struct redis_list *l)
{
	sort_found(l);
	fill(l);
}

/* SCAN found these keys between l->scanned_to and next, in a step whose end the cursor gives. */
static void scanned_again(struct redis_list *l, uint64_t next, const redisReply *keys)
{
	if (redis_scan_position(next) > redis_scan_position(l->step.end)) {
		if (l->count > 1) {
			l->count /= 2;
			scan(l);
		} else {
			/* Even one bucket goes too far: SCAN skipped empty ones. The step ends
			 * here, and the next step begins here. */
			l->step.end = l->scanned_to;
			step_scanned(l);
		}
		return;
	}
	if (!take_keys(l, keys)) {
		redis_op_fail(&l->base, STORE_ERROR, "out of memory");
		return;
	}
	l->scanned_to = next;
	if (next == l->step.end)
		step_scanned(l);
	else
		scan(l);
}

static void on_scan(struct redis_op *o, const redisReply *reply)
{
	struct redis_list *l = list_op(o);
	const char *end;
	uint64_t next;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
	    reply->element[0]->type != REDIS_REPLY_STRING ||
	    reply->element[1]->type != REDIS_REPLY_ARRAY ||
	    !redis_scan_cursor_read(reply->element[0]->str, &end, &next) || *end) {
		redis_op_fail_reply(o, reply);
		return;
	}
	if (l->step.has_end) {
		scanned_again(l, next, reply->element[1]);
		return;
	}
	if (!take_keys(l, reply->element[1])) {
		redis_op_fail(o, STORE_ERROR, "out of memory");
		return;
	}
	l->step.end = next;
	step_scanned(l);
}

static int send_scan(struct redis_list *l)
{
	char cursor[24], count[12];
	const char *argv[] = {"SCAN", cursor, "MATCH", l->pattern, "COUNT", count};
	size_t argvlen[] = {4, 0, 5, l->pattern_len, 5, 0};

	argvlen[1] = snprintf(cursor, sizeof(cursor), "%" PRIu64, l->scanned_to);
	argvlen[5] = snprintf(count, sizeof(count), "%u", l->count);
	l->base.on_reply = on_scan;
	return redis_op_send(&l->base, 6, argv, argvlen);
}

static void scan(struct redis_list *l)
{
	struct store_result result;

	if (send_scan(l) == 0)
		return;
	redis_store_away(redis_store(l->base.op.store), &result);
	redis_op_finish(&l->base, &result);
}

/* --- the beginning */

static void detach_waiting(struct redis_op *o, struct store_result *verdict)
{
	TAILQ_REMOVE(&redis_store(o->op.store)->lists_queue, o, entry);
	list_release(o);
	verdict->status = STORE_OVERLOADED;
	verdict->message = "other listings are under way";
}

static void on_lists_next(void *arg)
{
	struct redis_store *r = arg;
	struct redis_op *o;

	while (r->lists_running < LISTS_MAX && (o = TAILQ_FIRST(&r->lists_queue)) != NULL) {
		struct redis_list *l = list_op(o);
		int64_t now = clock_ms();

		TAILQ_REMOVE(&r->lists_queue, o, entry);
		o->detach = NULL;
		l->running = true;
		r->lists_running++;
		l->stop_ms = now + (o->op.deadline_ms - now) / 2;
		scan(l);
	}
}

int redis_lists_init(struct redis_store *r, struct event_base *base)
{
	TAILQ_INIT(&r->lists_queue);
	r->lists_next = later_new(base, on_lists_next, r);
	return r->lists_next ? 0 : -1;
}

/* Begins now, or waits in the queue. 0, or -1: there is no link. */
static int begin_or_wait(struct redis_store *r, struct redis_list *l)
{
	if (r->lists_running >= LISTS_MAX) {
		l->base.detach = detach_waiting;
		TAILQ_INSERT_TAIL(&r->lists_queue, &l->base, entry);
		return 0;
	}
	if (send_scan(l) != 0)
		return -1;
	l->running = true;
	r->lists_running++;
	return 0;
}

static void pattern_add(struct redis_list *l, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (strchr("*?[]\\", text[i]) && text[i])
			l->pattern[l->pattern_len++] = '\\';
		l->pattern[l->pattern_len++] = text[i];
	}
}

struct store_op *redis_store_list(struct store *s, const struct store_query *query,
				  store_done_fn *done, void *arg, struct store_result *result)
{
	struct redis_store *r = redis_store(s);
	struct redis_list *l = calloc(1, sizeof(*l));

	if (!l)
		return store_refuse(result, STORE_ERROR, "out of memory");
	l->base.op.store = s;
	l->base.lists = true;
	l->base.release = list_release;
	l->query = *query;
	l->count = SCAN_COUNT;
	l->stop_ms = clock_ms() + s->limits.timeout_ms / 2;
	pattern_add(l, r->prefix, r->prefix_len);
	pattern_add(l, query->prefix, query->prefix_len);
	l->pattern[l->pattern_len++] = '*';
	if (!redis_list_cursor_read(query->cursor, &l->step)) {
		store_refuse(result, STORE_BAD_CURSOR, "the cursor is none of ours");
		goto fail;
	}
	if (!redis_store_open(s, result))
		goto fail;
	l->scanned_to = l->step.start;
	l->page = store_page_new(query->limit);
	if (!l->page) {
		store_refuse(result, STORE_ERROR, "out of memory");
		goto fail;
	}
	if (begin_or_wait(r, l) != 0) {
		redis_store_away(r, result);
		goto fail;
	}
	store_op_start(s, &l->base.op, done, arg);
	return &l->base.op;
fail:
	list_release(&l->base);
	free(l);
	return NULL;
}
