/* The hash table of keytable.h. */
#include "base/keytable.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENT_BITS  10 /* buckets and slots grow by segments of this size */
#define SEGMENT_SIZE  ((size_t)1 << SEGMENT_BITS)
#define FIRST_BUCKETS 64

/* A slot holds a node, or the index of the next free slot, shifted left, with the lowest bit set.
 */
union slot {
	struct keynode *node;
	uintptr_t next_free;
};
#define SLOT_NONE UINT32_MAX

static bool cells_grow(struct keytable_cells *c)
{
	if (c->count == c->room) {
		size_t room = c->room ? c->room * 2 : 16;
		void **wider = realloc(c->segment, room * sizeof(*wider));

		if (!wider)
			return false;
		c->segment = wider;
		c->room = room;
	}
	c->segment[c->count] = calloc(SEGMENT_SIZE, sizeof(void *));
	if (!c->segment[c->count])
		return false;
	c->count++;
	return true;
}

static void cells_free(struct keytable_cells *c)
{
	for (size_t i = 0; i < c->count; i++)
		free(c->segment[i]);
	free(c->segment);
}

static struct keynode **bucket_at(struct keytable *t, size_t i)
{
	struct keynode **segment = t->buckets.segment[i >> SEGMENT_BITS];

	return &segment[i & (SEGMENT_SIZE - 1)];
}

static struct keynode **bucket_of(struct keytable *t, uint32_t hash)
{
	size_t i = hash & t->low_mask;

	if (i < t->split)
		i = hash & (t->low_mask << 1 | 1);
	return bucket_at(t, i);
}

/* Adds a bucket: the nodes of bucket `split` whose next bit of the hash is set move there. */
static void bucket_split(struct keytable *t)
{
	size_t to = t->low_mask + 1 + t->split;
	struct keynode **from_link, **to_link;

	/* Out of memory: the chains get longer, and the next insertion tries again. */
	if (to >> SEGMENT_BITS >= t->buckets.count && !cells_grow(&t->buckets))
		return;
	from_link = bucket_at(t, t->split);
	to_link = bucket_at(t, to);
	*to_link = NULL;
	while (*from_link) {
		struct keynode *node = *from_link;

		if (node->hash & (t->low_mask + 1)) {
			*from_link = node->chain;
			node->chain = *to_link;
			*to_link = node;
		} else {
			from_link = &node->chain;
		}
	}
	if (++t->split > t->low_mask) {
		t->low_mask = t->low_mask << 1 | 1;
		t->split = 0;
	}
}

static union slot *slot_at(struct keytable *t, size_t i)
{
	union slot *segment = (union slot *)t->slots.segment[i >> SEGMENT_BITS];

	return &segment[i & (SEGMENT_SIZE - 1)];
}

static bool slot_take(struct keytable *t, struct keynode *node)
{
	if (t->free_slot != SLOT_NONE) {
		node->slot = t->free_slot;
		t->free_slot = (uint32_t)(slot_at(t, node->slot)->next_free >> 1);
	} else {
		if (t->slot_count == SLOT_NONE)
			return false;
		if (t->slot_count >> SEGMENT_BITS >= t->slots.count && !cells_grow(&t->slots))
			return false;
		node->slot = (uint32_t)t->slot_count++;
	}
	slot_at(t, node->slot)->node = node;
	return true;
}

static void slot_give(struct keytable *t, uint32_t slot)
{
	slot_at(t, slot)->next_free = (uintptr_t)t->free_slot << 1 | 1;
	t->free_slot = slot;
}

int keytable_init(struct keytable *t)
{
	memset(t, 0, sizeof(*t));
	siphash_key_init(&t->secret);
	t->low_mask = FIRST_BUCKETS - 1;
	t->free_slot = SLOT_NONE;
	return cells_grow(&t->buckets) ? 0 : -1;
}

void keytable_fini(struct keytable *t)
{
	for (size_t i = 0; i < t->slot_count; i++)
		free(keytable_slot(t, i));
	cells_free(&t->buckets);
	cells_free(&t->slots);
}

struct keynode *keytable_find(struct keytable *t, const char *key, size_t len)
{
	uint32_t hash = (uint32_t)siphash(&t->secret, key, len);
	struct keynode *node;

	for (node = *bucket_of(t, hash); node; node = node->chain) {
		if (node->hash == hash && node->key_len == len &&
		    memcmp(keynode_key(node), key, len) == 0)
			break;
	}
	return node;
}

struct keynode *keytable_add(struct keytable *t, size_t size, const char *key, size_t len)
{
	struct keynode *node = calloc(1, size + len);
	struct keynode **bucket;

	if (!node)
		return NULL;
	if (!slot_take(t, node)) {
		free(node);
		return NULL;
	}
	node->hash = (uint32_t)siphash(&t->secret, key, len);
	node->key_at = (uint16_t)size;
	node->key_len = (uint16_t)len;
	memcpy((char *)node + size, key, len);
	bucket = bucket_of(t, node->hash);
	node->chain = *bucket;
	*bucket = node;
	if (++t->count > t->low_mask + 1 + t->split)
		bucket_split(t);
	return node;
}

/* The pointer in its bucket's chain that points to the node. */
static struct keynode **link_of(struct keytable *t, const struct keynode *node)
{
	struct keynode **link = bucket_of(t, node->hash);

	while (*link != node)
		link = &(*link)->chain;
	return link;
}

struct keynode *keytable_resize(struct keytable *t, struct keynode *node, size_t size)
{
	size_t before = node->key_at;
	struct keynode *other = malloc(size + node->key_len);

	if (!other)
		return NULL;
	memcpy(other, node, before < size ? before : size);
	if (size > before)
		memset((char *)other + before, 0, size - before);
	memcpy((char *)other + size, keynode_key(node), node->key_len);
	other->key_at = (uint16_t)size;
	*link_of(t, node) = other;
	slot_at(t, node->slot)->node = other;
	free(node);
	return other;
}

void keytable_remove(struct keytable *t, struct keynode *node)
{
	*link_of(t, node) = node->chain;
	slot_give(t, node->slot);
	t->count--;
	free(node);
}

struct keynode *keytable_slot(struct keytable *t, size_t i)
{
	union slot *slot = slot_at(t, i);

	return slot->next_free & 1 ? NULL : slot->node;
}
