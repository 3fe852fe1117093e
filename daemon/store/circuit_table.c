#include "store/circuit_table.h"

#include "base/clock.h"
#include "base/keytable.h"
#include "base/metrics.h"
#include "store/packed_breaker.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct circuit_entry {
	struct keynode node;
	TAILQ_ENTRY(circuit_entry) entry;
	int64_t written; /* monotonic milliseconds */
	struct circuit circuit;
	/* In a larger entry the member follows. */
};

/* Stands between the entry and its key, in an entry with room for it. */
struct member {
	uint16_t len : 15;
	uint16_t held : 1; /* it has an override */
	unsigned char bytes[];
};

/* Room for a member grows in steps of MEMBER_STEP, and is given back only if more than MEMBER_SLACK
 * of it is unused: so an entry seldom moves. */
#define MEMBER_STEP  16
#define MEMBER_SLACK 256

/* Overrides end by themselves. This many are checked when room is needed, and some are checked this
 * often anyway. */
#define HELD_CHECKS   256
#define HELD_CHECK_MS 1000

TAILQ_HEAD(entry_list, circuit_entry);

struct circuit_table {
	struct keytable keys;
	size_t max;
	int64_t ttl;
	/* In the order of writing, so that the first is the next to expire. */
	struct entry_list closed;
	struct entry_list tripped;
	struct entry_list held; /* closed, with an override; the next to be checked is the first */
	int64_t (*now_ms)(void *arg);
	void *now_arg;
	struct metrics *metrics;
};

static struct member *member_of(const struct circuit_entry *e)
{
	return e->node.key_at > sizeof(*e) ? (struct member *)(e + 1) : NULL;
}

bool circuit_entry_is_held(const struct circuit_entry *e)
{
	const struct member *member = member_of(e);

	return member && member->held;
}

static struct entry_list *list_of(struct circuit_table *t, const struct circuit_entry *e)
{
	if (e->circuit.state != CIRCUIT_CLOSED)
		return &t->tripped;
	return circuit_entry_is_held(e) ? &t->held : &t->closed;
}

static void gauge(struct circuit_table *t, enum circuit_state state, int by)
{
	if (t->metrics)
		t->metrics->circuits[state] += by;
}

/* True if the member keeps the circuit alive (breaker_matters_until). */
static bool holds(const struct circuit_table *t, const struct circuit_entry *e)
{
	const struct member *member = member_of(e);
	int64_t now_ms;

	if (!member)
		return false;
	now_ms = t->now_ms(t->now_arg);
	return packed_breaker_matters_until(member->bytes, member->len, now_ms) > now_ms;
}

static bool is_old(const struct circuit_table *t, const struct circuit_entry *e, int64_t now)
{
	return now - e->written >= t->ttl;
}

static bool expired(const struct circuit_table *t, const struct circuit_entry *e, int64_t now)
{
	return is_old(t, e, now) && !holds(t, e);
}

static void expire(struct circuit_table *t, struct circuit_entry *e)
{
	circuit_table_remove(t, e);
	if (t->metrics)
		t->metrics->expirations++;
}

static int64_t wall_clock(void *arg)
{
	(void)arg;
	return clock_wall_ms();
}

struct circuit_table *circuit_table_new(size_t max, int64_t ttl_ms, struct metrics *metrics)
{
	struct circuit_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->metrics = metrics;
	t->now_ms = wall_clock;
	TAILQ_INIT(&t->closed);
	TAILQ_INIT(&t->tripped);
	TAILQ_INIT(&t->held);
	circuit_table_limit(t, max, ttl_ms);
	if (keytable_init(&t->keys) != 0) {
		circuit_table_free(t);
		return NULL;
	}
	return t;
}

void circuit_table_free(struct circuit_table *t)
{
	if (!t)
		return;
	if (t->metrics) {
		for (int i = 0; i < CIRCUIT_STATES; i++)
			t->metrics->circuits[i] = 0;
	}
	keytable_fini(&t->keys);
	free(t);
}

void circuit_table_set_clock(struct circuit_table *t, int64_t (*now_ms)(void *arg), void *arg)
{
	t->now_ms = now_ms;
	t->now_arg = arg;
}

void circuit_table_limit(struct circuit_table *t, size_t max, int64_t ttl_ms)
{
	t->max = max;
	t->ttl = ttl_ms;
}

struct circuit_entry *circuit_table_find(struct circuit_table *t, const char *key, size_t len,
					 int64_t now)
{
	struct circuit_entry *e = (struct circuit_entry *)keytable_find(&t->keys, key, len);

	if (e && expired(t, e, now)) {
		expire(t, e);
		return NULL;
	}
	return e;
}

static void unlist(struct circuit_table *t, struct circuit_entry *e)
{
	TAILQ_REMOVE(list_of(t, e), e, entry);
	gauge(t, e->circuit.state, -1);
}

void circuit_table_remove(struct circuit_table *t, struct circuit_entry *e)
{
	unlist(t, e);
	keytable_remove(&t->keys, &e->node);
}

static void renew(struct circuit_table *t, struct circuit_entry *e, int64_t now)
{
	TAILQ_REMOVE(list_of(t, e), e, entry);
	e->written = now;
	TAILQ_INSERT_TAIL(list_of(t, e), e, entry);
}

/* --- overrides that are over ---------------------------------------------------------------- */

static bool override_is_over(const struct circuit_entry *e, int64_t now_ms)
{
	const struct member *member = member_of(e);
	struct breaker b;

	packed_breaker_read(member->bytes, member->len, &b);
	return breaker_override_at(&b, now_ms) == NULL;
}

/* The override is over: the entry moves to `closed`, and may be dropped for another one. It goes to
 * the head if it was written first of all; else to the end, as if it had been written with the last
 * one, which saves a search for its place. */
static void release(struct circuit_table *t, struct circuit_entry *e)
{
	const struct circuit_entry *first = TAILQ_FIRST(&t->closed);
	const struct circuit_entry *last = TAILQ_LAST(&t->closed, entry_list);

	TAILQ_REMOVE(&t->held, e, entry);
	member_of(e)->held = 0;
	if (!first || e->written <= first->written) {
		TAILQ_INSERT_HEAD(&t->closed, e, entry);
		return;
	}
	if (e->written < last->written)
		e->written = last->written;
	TAILQ_INSERT_TAIL(&t->closed, e, entry);
}

/* Releases entries whose override is over; checks at most `most`, and others the next time. */
static void release_ended(struct circuit_table *t, unsigned most)
{
	const struct circuit_entry *kept = NULL;
	struct circuit_entry *e;
	int64_t now_ms;

	if (TAILQ_EMPTY(&t->held))
		return;
	now_ms = t->now_ms(t->now_arg);
	while (most-- > 0 && (e = TAILQ_FIRST(&t->held)) != NULL && e != kept) {
		if (override_is_over(e, now_ms)) {
			release(t, e);
			continue;
		}
		TAILQ_REMOVE(&t->held, e, entry);
		TAILQ_INSERT_TAIL(&t->held, e, entry);
		kept = kept ? kept : e;
	}
}

/* --- making room ---------------------------------------------------------------------------- */

int64_t circuit_table_expire(struct circuit_table *t, int64_t now, unsigned most)
{
	struct entry_list *lists[] = {&t->closed, &t->tripped};
	int64_t next = -1;

	release_ended(t, most);
	if (!TAILQ_EMPTY(&t->held))
		next = now + HELD_CHECK_MS;
	for (size_t i = 0; i < 2; i++) {
		struct circuit_entry *e;

		while ((e = TAILQ_FIRST(lists[i])) != NULL && is_old(t, e, now) && most > 0) {
			if (holds(t, e))
				renew(t, e, now);
			else
				expire(t, e);
			most--;
		}
		if (e && (next < 0 || e->written + t->ttl < next))
			next = e->written + t->ttl;
	}
	return next;
}

static void evict(struct circuit_table *t)
{
	circuit_table_remove(t, TAILQ_FIRST(&t->closed));
	if (t->metrics)
		t->metrics->evictions++;
}

bool circuit_table_shrink(struct circuit_table *t, unsigned most)
{
	while (most-- > 0 && t->keys.count > t->max && !TAILQ_EMPTY(&t->closed))
		evict(t);
	return t->keys.count > t->max && !TAILQ_EMPTY(&t->closed);
}

/* Makes room for one more; false if there is none. It removes up to two, so that a lowered bound is
 * reached in the end; above the bound one removal is enough for the insertion. */
static bool make_room(struct circuit_table *t, int64_t now)
{
	size_t before = t->keys.count;

	if (before < t->max)
		return true;
	circuit_table_expire(t, now, 2);
	if (TAILQ_EMPTY(&t->closed))
		release_ended(t, HELD_CHECKS);
	for (int i = 0; i < 2 && t->keys.count >= t->max && !TAILQ_EMPTY(&t->closed); i++)
		evict(t);
	return t->keys.count < before;
}

/* Puts the circuit into the entry, and the entry, which is in no list, into its list. */
static void put(struct circuit_table *t, struct circuit_entry *e, const struct circuit *circuit,
		int64_t now)
{
	e->circuit = *circuit;
	e->written = now;
	TAILQ_INSERT_TAIL(list_of(t, e), e, entry);
	gauge(t, circuit->state, 1);
}

enum circuit_table_status circuit_table_write(struct circuit_table *t, struct circuit_entry *e,
					      const char *key, size_t len,
					      const struct circuit *circuit, int64_t now)
{
	if (e)
		unlist(t, e);
	else if (!make_room(t, now))
		return TABLE_FULL;
	else
		e = (struct circuit_entry *)keytable_add(&t->keys, sizeof(*e), key, len);
	if (!e)
		return TABLE_NO_MEMORY;
	put(t, e, circuit, now);
	return TABLE_OK;
}

/* --- members ------------------------------------------------------------------------------ */

/* The size of an entry with room for a member of this length. */
static size_t entry_size(size_t member_len)
{
	size_t room = member_len ? sizeof(struct member) + member_len : 0;

	return sizeof(struct circuit_entry) + (room + MEMBER_STEP - 1) / MEMBER_STEP * MEMBER_STEP;
}

/* Gives the entry room for a member of this length; it may move. NULL when out of memory. */
static struct circuit_entry *fit_member(struct circuit_table *t, struct circuit_entry *e,
					size_t member_len)
{
	size_t size = entry_size(member_len), have = e->node.key_at;
	struct circuit_entry *other = e;

	if (size > have || have - size > MEMBER_SLACK)
		other = (struct circuit_entry *)keytable_resize(&t->keys, &e->node, size);
	return other;
}

enum circuit_table_status circuit_table_write_member(struct circuit_table *t,
						     struct circuit_entry *e, const char *key,
						     size_t len, const struct circuit *circuit,
						     const void *bytes, size_t bytes_len,
						     int64_t now)
{
	struct circuit_entry *to;
	struct member *member;

	if (e) {
		unlist(t, e);
		to = fit_member(t, e, bytes_len);
		/* The circuit stays as it was. It counts as written now, to keep its list in order.
		 */
		if (!to)
			put(t, e, &e->circuit, now);
	} else {
		if (!make_room(t, now))
			return TABLE_FULL;
		to = (struct circuit_entry *)keytable_add(&t->keys, entry_size(bytes_len), key,
							  len);
	}
	if (!to)
		return TABLE_NO_MEMORY;
	member = member_of(to);
	if (member) {
		member->len = (uint16_t)bytes_len & 0x7FFF;
		member->held = packed_breaker_has_override(bytes, bytes_len);
		memcpy(member->bytes, bytes, bytes_len);
	}
	put(t, to, circuit, now);
	return TABLE_OK;
}

const unsigned char *circuit_entry_member(const struct circuit_entry *e, size_t *len)
{
	const struct member *member = member_of(e);

	*len = member ? member->len : 0;
	return member ? member->bytes : NULL;
}

/* --- what is in it ------------------------------------------------------------------------ */

const struct circuit *circuit_entry_get(const struct circuit_entry *e)
{
	return &e->circuit;
}

const char *circuit_entry_key(const struct circuit_entry *e, size_t *len)
{
	*len = e->node.key_len;
	return keynode_key(&e->node);
}

int64_t circuit_entry_written(const struct circuit_entry *e)
{
	return e->written;
}

size_t circuit_table_count(const struct circuit_table *t)
{
	return t->keys.count;
}

size_t circuit_table_slots(const struct circuit_table *t)
{
	return t->keys.slot_count;
}

struct circuit_entry *circuit_table_slot(struct circuit_table *t, size_t slot, int64_t now)
{
	struct circuit_entry *e = (struct circuit_entry *)keytable_slot(&t->keys, slot);

	return e && !expired(t, e, now) ? e : NULL;
}

void circuit_walk_begin(struct circuit_walk *walk, const struct circuit_table *t)
{
	walk->closed = TAILQ_FIRST(&t->closed);
	walk->tripped = TAILQ_FIRST(&t->tripped);
	walk->held = TAILQ_FIRST(&t->held);
}

struct circuit_entry *circuit_walk_next(struct circuit_walk *walk)
{
	struct circuit_entry *c = walk->closed, *t = walk->tripped;
	struct circuit_entry **from =
		!t || (c && c->written <= t->written) ? &walk->closed : &walk->tripped;
	struct circuit_entry *next;

	if (!c && !t)
		from = &walk->held;
	next = *from;
	if (next)
		*from = TAILQ_NEXT(next, entry);
	return next;
}
