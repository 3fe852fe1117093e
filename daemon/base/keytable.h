/*
 * A hash table of nodes, each under a circuit's key. No call takes longer in a larger table, for it
 * grows by linear hashing (Litwin, "Linear hashing: a new tool for file and table addressing",
 * 1980): an insertion splits one bucket at most. Each node keeps its slot for life, so that a walk
 * over the slots can stop and go on later.
 */
#ifndef BREAKERD_KEYTABLE_H
#define BREAKERD_KEYTABLE_H

#include "base/siphash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first member of a node. The key is stored after the whole node. */
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
	size_t low_mask; /* how many buckets there were at the last doubling, less one */
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

/* Adds a zeroed node of `size` bytes. The key must not be there yet, and have UINT16_MAX - size
 * bytes at most. NULL when out of memory. */
struct keynode *keytable_add(struct keytable *t, size_t size, const char *key, size_t len);

/* Gives the node another size. Its content is cut, or filled up with zeros. Returns the node, which
 * may have moved; or NULL when out of memory, and then the node is as it was. */
struct keynode *keytable_resize(struct keytable *t, struct keynode *node, size_t size);

/* Takes the node out and frees it. */
void keytable_remove(struct keytable *t, struct keynode *node);

/* Slots 0 to t->slot_count - 1 hold the nodes; NULL for an empty one. */
struct keynode *keytable_slot(struct keytable *t, size_t slot);

/* The key, without a NUL after it. */
static inline const char *keynode_key(const struct keynode *node)
{
	return (const char *)node + node->key_at;
}

#endif
