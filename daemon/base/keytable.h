/*
 * A hash table of nodes under a circuit's key. No call takes longer in a larger table: it grows by
 * linear hashing (Litwin, "Linear hashing: a new tool for file and table addressing", 1980),
 * splitting at most one bucket an insertion. Each node keeps one slot for its life, so that a walk
 * over the slots can stop and go on later.
 */
#ifndef BREAKERD_KEYTABLE_H
#define BREAKERD_KEYTABLE_H

#include "base/siphash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first member of a node; the key stands behind the whole node. */
struct keynode {
	struct keynode *chain;
	uint32_t hash;
	uint32_t slot;
	uint16_t key_at; /* from the node's beginning */
	uint16_t key_len;
};

/* A growing array of pointer-sized cells that never moves what it holds. */
struct keytable_cells {
	void **segment;
	size_t count;
	size_t room;
};

struct keytable {
	struct siphash_key secret;
	struct keytable_cells buckets;
	size_t low_mask; /* buckets of the last full doubling, less one */
	size_t split;    /* next bucket to split; those before it use one more bit */
	struct keytable_cells slots;
	size_t slot_count;
	uint32_t free_slot;
	size_t count;
};

/* 0, or -1 when out of memory. */
int keytable_init(struct keytable *t);

/* Frees the table and, with free(3), every node in it. Allowed after a failed init. */
void keytable_fini(struct keytable *t);

struct keynode *keytable_find(struct keytable *t, const char *key, size_t len);

/* Adds a zeroed node of `size` bytes under a key that is not there yet, of at most
 * UINT16_MAX - size bytes. NULL when out of memory. */
struct keynode *keytable_add(struct keytable *t, size_t size, const char *key, size_t len);

/* Gives the node another size: its key moves, what stands before it is kept as far as there is
 * room, and what is added is zeroed. Returns the node, which may have moved; NULL when out of
 * memory, and then it is as it was. */
struct keynode *keytable_resize(struct keytable *t, struct keynode *node, size_t size);

/* Takes the node out and frees it. */
void keytable_remove(struct keytable *t, struct keynode *node);

/* Slots 0 to t->slot_count - 1 hold the nodes; NULL for an empty one. */
struct keynode *keytable_slot(struct keytable *t, size_t slot);

/* The key: no NUL behind it. */
static inline const char *keynode_key(const struct keynode *node)
{
	return (const char *)node + node->key_at;
}

#endif
