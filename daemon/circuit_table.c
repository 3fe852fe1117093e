#include "circuit_table.h"

#include "metrics.h"
#include "siphash.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define SEGMENT_BITS  10 /* of buckets and of slots, which grow a segment at a time */
#define SEGMENT_SIZE  ((size_t)1 << SEGMENT_BITS)
#define FIRST_BUCKETS 64

struct circuit_entry {
	struct circuit_entry *chain;
	TAILQ_ENTRY(circuit_entry) entry;
	int64_t written; /* monotonic milliseconds */
	struct circuit circuit;
	uint32_t hash;
	uint32_t slot;
	uint16_t key_len;
	char key[];
};

TAILQ_HEAD(entry_list, circuit_entry);

/* A slot holds an entry, or, with the lowest bit set, the next free slot above that bit. */
union slot {
	struct circuit_entry *entry;
	uintptr_t next_free;
};
#define SLOT_NONE UINT32_MAX

/* A growing array of pointer-sized cells that never moves what it holds. */
struct segments {
	void **segment;
	size_t count;
	size_t room;
};

struct circuit_table {
	struct siphash_key secret;
	struct segments buckets;
	size_t low_mask; /* buckets of the last full doubling, less one */
	size_t split;	 /* next bucket to split; those before it use one more bit */
	struct segments slots;
	size_t slot_count;
	uint32_t free_slot;
	size_t count;
	size_t max;
	int64_t ttl;
	/* Each in the order of writing, so that the first is the next to expire. */
	struct entry_list closed;
	struct entry_list tripped;
	struct metrics *metrics;
};

static bool segments_grow(struct segments *s)
{
	if (s->count == s->room) {
		size_t room = s->room ? s->room * 2 : 16;
		void **wider = realloc(s->segment, room * sizeof(*wider));

		if (!wider)
			return false;
		s->segment = wider;
		s->room = room;
	}
	s->segment[s->count] = calloc(SEGMENT_SIZE, sizeof(void *));
	if (!s->segment[s->count])
		return false;
	s->count++;
	return true;
}

static void segments_free(struct segments *s)
{
	for (size_t i = 0; i < s->count; i++)
		free(s->segment[i]);
	free(s->segment);
}

static struct circuit_entry **bucket_at(struct circuit_table *t, size_t i)
{
	struct circuit_entry **segment = t->buckets.segment[i >> SEGMENT_BITS];

	return &segment[i & (SEGMENT_SIZE - 1)];
}

static struct circuit_entry **bucket_of(struct circuit_table *t, uint32_t hash)
{
	size_t i = hash & t->low_mask;

	if (i < t->split)
		i = hash & (t->low_mask << 1 | 1);
	return bucket_at(t, i);
}

/* One more bucket: the entries of bucket `split` whose next hash bit is set move there. */
static void bucket_split(struct circuit_table *t)
{
	size_t to = t->low_mask + 1 + t->split;
	struct circuit_entry **from_link, **to_link;

	/* Without memory the chains grow longer, and the next insertion tries again. */
	if (to >> SEGMENT_BITS >= t->buckets.count && !segments_grow(&t->buckets))
		return;
	from_link = bucket_at(t, t->split);
	to_link = bucket_at(t, to);
	*to_link = NULL;
	while (*from_link) {
		struct circuit_entry *e = *from_link;

		if (e->hash & (t->low_mask + 1)) {
			*from_link = e->chain;
			e->chain = *to_link;
			*to_link = e;
		} else {
			from_link = &e->chain;
		}
	}
	if (++t->split > t->low_mask) {
		t->low_mask = t->low_mask << 1 | 1;
		t->split = 0;
	}
}

static union slot *slot_at(struct circuit_table *t, size_t i)
{
	union slot *segment = t->slots.segment[i >> SEGMENT_BITS];

	return &segment[i & (SEGMENT_SIZE - 1)];
}

static bool slot_take(struct circuit_table *t, struct circuit_entry *e)
{
	if (t->free_slot != SLOT_NONE) {
		e->slot = t->free_slot;
		t->free_slot = (uint32_t)(slot_at(t, e->slot)->next_free >> 1);
	} else {
		if (t->slot_count == SLOT_NONE)
			return false;
		if (t->slot_count >> SEGMENT_BITS >= t->slots.count && !segments_grow(&t->slots))
			return false;
		e->slot = (uint32_t)t->slot_count++;
	}
	slot_at(t, e->slot)->entry = e;
	return true;
}

static void slot_give(struct circuit_table *t, uint32_t slot)
{
	slot_at(t, slot)->next_free = (uintptr_t)t->free_slot << 1 | 1;
	t->free_slot = slot;
}

static struct entry_list *list_of(struct circuit_table *t, enum circuit_state state)
{
	return state == CIRCUIT_CLOSED ? &t->closed : &t->tripped;
}

static void gauge(struct circuit_table *t, enum circuit_state state, int by)
{
	if (t->metrics)
		t->metrics->circuits[state] += by;
}

static bool expired(const struct circuit_table *t, const struct circuit_entry *e, int64_t now)
{
	return now - e->written >= t->ttl;
}

struct circuit_table *circuit_table_new(size_t max, int64_t ttl_ms, struct metrics *metrics)
{
	struct circuit_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	siphash_key_init(&t->secret);
	t->low_mask = FIRST_BUCKETS - 1;
	t->free_slot = SLOT_NONE;
	t->metrics = metrics;
	TAILQ_INIT(&t->closed);
	TAILQ_INIT(&t->tripped);
	circuit_table_limit(t, max, ttl_ms);
	if (!segments_grow(&t->buckets)) {
		circuit_table_free(t);
		return NULL;
	}
	return t;
}

void circuit_table_free(struct circuit_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->slot_count; i++) {
		union slot *slot = slot_at(t, i);

		if (!(slot->next_free & 1)) {
			gauge(t, slot->entry->circuit.state, -1);
			free(slot->entry);
		}
	}
	segments_free(&t->buckets);
	segments_free(&t->slots);
	free(t);
}

void circuit_table_limit(struct circuit_table *t, size_t max, int64_t ttl_ms)
{
	t->max = max;
	t->ttl = ttl_ms;
}

struct circuit_entry *circuit_table_find(struct circuit_table *t, const char *key, size_t len,
					 int64_t now)
{
	uint32_t hash = (uint32_t)siphash(&t->secret, key, len);
	struct circuit_entry *e;

	for (e = *bucket_of(t, hash); e; e = e->chain) {
		if (e->hash == hash && e->key_len == len && memcmp(e->key, key, len) == 0)
			break;
	}
	if (e && expired(t, e, now)) {
		circuit_table_remove(t, e);
		if (t->metrics)
			t->metrics->expirations++;
		return NULL;
	}
	return e;
}

void circuit_table_remove(struct circuit_table *t, struct circuit_entry *e)
{
	struct circuit_entry **link = bucket_of(t, e->hash);

	while (*link != e)
		link = &(*link)->chain;
	*link = e->chain;
	TAILQ_REMOVE(list_of(t, e->circuit.state), e, entry);
	gauge(t, e->circuit.state, -1);
	slot_give(t, e->slot);
	t->count--;
	free(e);
}

int64_t circuit_table_expire(struct circuit_table *t, int64_t now, unsigned most)
{
	struct entry_list *lists[] = {&t->closed, &t->tripped};
	int64_t next = -1;

	for (size_t i = 0; i < 2; i++) {
		struct circuit_entry *e;

		while ((e = TAILQ_FIRST(lists[i])) != NULL && expired(t, e, now) && most > 0) {
			circuit_table_remove(t, e);
			if (t->metrics)
				t->metrics->expirations++;
			most--;
		}
		if (e && (next < 0 || e->written + t->ttl < next))
			next = e->written + t->ttl;
	}
	return next;
}

/* Room for one more. Two removals for an insertion, so that a lowered bound is reached;
 * until it is, whatever made way lets the insertion in. */
static bool make_room(struct circuit_table *t, int64_t now)
{
	size_t before = t->count;

	if (t->count < t->max)
		return true;
	circuit_table_expire(t, now, 2);
	for (int i = 0; i < 2 && t->count >= t->max && !TAILQ_EMPTY(&t->closed); i++) {
		circuit_table_remove(t, TAILQ_FIRST(&t->closed));
		if (t->metrics)
			t->metrics->evictions++;
	}
	return t->count < before;
}

static struct circuit_entry *entry_add(struct circuit_table *t, const char *key, size_t len)
{
	struct circuit_entry *e = malloc(sizeof(*e) + len);
	struct circuit_entry **bucket;

	if (!e)
		return NULL;
	if (!slot_take(t, e)) {
		free(e);
		return NULL;
	}
	e->hash = (uint32_t)siphash(&t->secret, key, len);
	e->key_len = (uint16_t)len;
	memcpy(e->key, key, len);
	bucket = bucket_of(t, e->hash);
	e->chain = *bucket;
	*bucket = e;
	if (++t->count > t->low_mask + 1 + t->split)
		bucket_split(t);
	return e;
}

enum circuit_table_status circuit_table_write(struct circuit_table *t, struct circuit_entry *e,
					      const char *key, size_t len,
					      const struct circuit *circuit, int64_t now)
{
	if (e) {
		TAILQ_REMOVE(list_of(t, e->circuit.state), e, entry);
		gauge(t, e->circuit.state, -1);
	} else {
		if (!make_room(t, now))
			return TABLE_FULL;
		e = entry_add(t, key, len);
		if (!e)
			return TABLE_NO_MEMORY;
	}
	e->circuit = *circuit;
	e->written = now;
	TAILQ_INSERT_TAIL(list_of(t, circuit->state), e, entry);
	gauge(t, circuit->state, 1);
	return TABLE_OK;
}

const struct circuit *circuit_entry_get(const struct circuit_entry *e)
{
	return &e->circuit;
}

const char *circuit_entry_key(const struct circuit_entry *e, size_t *len)
{
	*len = e->key_len;
	return e->key;
}

size_t circuit_table_count(const struct circuit_table *t)
{
	return t->count;
}

size_t circuit_table_slots(const struct circuit_table *t)
{
	return t->slot_count;
}

struct circuit_entry *circuit_table_slot(struct circuit_table *t, size_t i, int64_t now)
{
	union slot *slot = slot_at(t, i);

	if (slot->next_free & 1 || expired(t, slot->entry, now))
		return NULL;
	return slot->entry;
}
