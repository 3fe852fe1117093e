/*
 * A binary heap of nodes, sorted by a number, the smallest first. Adding and removing take O(log
 * n), reading the first k nodes O(k log k).
 */
#ifndef BREAKERD_MINHEAP_H
#define BREAKERD_MINHEAP_H

#include <stddef.h>
#include <stdint.h>

struct minheap_node {
	int64_t value;
	size_t place; /* in the heap, from 1; 0: the node is in no heap */
};

/* Begins as zeros. */
struct minheap {
	struct minheap_node **nodes; /* nodes[place - 1] */
	size_t count, room;
};

/* Adds a node that is in no heap. 0, or -1 when out of memory, and then the node is in no heap. */
int minheap_add(struct minheap *heap, struct minheap_node *node, int64_t value);

/* Removes a node; does nothing if the node is in no heap. */
void minheap_remove(struct minheap *heap, struct minheap_node *node);

/* Writes the first nodes to out, in their order, at most `max`. Returns how many, 0 when out of
 * memory. */
size_t minheap_first(const struct minheap *heap, struct minheap_node **out, size_t max);

/* Frees the heap. The nodes stay the caller's. */
void minheap_fini(struct minheap *heap);

#endif
