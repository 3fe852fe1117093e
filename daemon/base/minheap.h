/*
 * Nodes in the order of a number, the smallest first: a binary heap, in which adding, removing and
 * asking for the first n of them do not take longer than the logarithm of the rest allows.
 */
#ifndef BREAKERD_MINHEAP_H
#define BREAKERD_MINHEAP_H

#include <stddef.h>
#include <stdint.h>

struct minheap_node {
	int64_t value;
	size_t place; /* in the heap, from 1; 0: in none */
};

/* Begins as zeros. */
struct minheap {
	struct minheap_node **nodes; /* nodes[place - 1] */
	size_t count, room;
};

/* Adds a node that is in no heap. 0; -1 when out of memory, and it is in none then. */
int minheap_add(struct minheap *heap, struct minheap_node *node, int64_t value);

/* A node that is in no heap may be given. */
void minheap_remove(struct minheap *heap, struct minheap_node *node);

/* Writes the first `max` nodes to out, in their order; returns how many there are, 0 when out of
 * memory. */
size_t minheap_first(const struct minheap *heap, struct minheap_node **out, size_t max);

/* The nodes are the caller's. */
void minheap_fini(struct minheap *heap);

#endif
