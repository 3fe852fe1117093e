/* The binary heap of minheap.h. */
#include "base/minheap.h"

#include <stdlib.h>

static void put(struct minheap *heap, size_t place, struct minheap_node *node)
{
	heap->nodes[place - 1] = node;
	node->place = place;
}

static void sift_up(struct minheap *heap, size_t place, struct minheap_node *node)
{
	while (place > 1 && heap->nodes[place / 2 - 1]->value > node->value) {
		put(heap, place, heap->nodes[place / 2 - 1]);
		place /= 2;
	}
	put(heap, place, node);
}

static void sift_down(struct minheap *heap, size_t place, struct minheap_node *node)
{
	size_t child;

	while ((child = 2 * place) <= heap->count) {
		if (child < heap->count &&
		    heap->nodes[child]->value < heap->nodes[child - 1]->value)
			child++;
		if (heap->nodes[child - 1]->value >= node->value)
			break;
		put(heap, place, heap->nodes[child - 1]);
		place = child;
	}
	put(heap, place, node);
}

int minheap_add(struct minheap *heap, struct minheap_node *node, int64_t value)
{
	if (heap->count == heap->room) {
		size_t room = heap->room ? 2 * heap->room : 64;
		struct minheap_node **nodes = reallocarray(heap->nodes, room, sizeof(void *));

		if (!nodes)
			return -1;
		heap->nodes = nodes;
		heap->room = room;
	}
	node->value = value;
	heap->count++;
	sift_up(heap, heap->count, node);
	return 0;
}

void minheap_remove(struct minheap *heap, struct minheap_node *node)
{
	size_t place = node->place;
	struct minheap_node *last;

	if (place == 0)
		return;
	node->place = 0;
	last = heap->nodes[--heap->count];
	if (last == node)
		return;
	if (place > 1 && heap->nodes[place / 2 - 1]->value > last->value)
		sift_up(heap, place, last);
	else
		sift_down(heap, place, last);
}

/* For minheap_first: a node that may be the next one, being a child of one that was written. The
 * candidates are in a heap of their own. */
struct candidate {
	struct minheap_node node;
	size_t of; /* its place in the heap that is read */
};

static void add_candidate(const struct minheap *heap, struct minheap *candidates,
			  struct candidate *c, size_t place)
{
	if (place > heap->count)
		return;
	c->of = place;
	minheap_add(candidates, &c->node, heap->nodes[place - 1]->value);
}

size_t minheap_first(const struct minheap *heap, struct minheap_node **out, size_t max)
{
	size_t most = heap->count < max ? heap->count : max, count = 0;
	struct candidate *all = calloc(2 * most + 1, sizeof(*all));
	struct minheap candidates = {.room = 2 * most + 1};

	candidates.nodes = calloc(candidates.room, sizeof(void *));
	if (!all || !candidates.nodes)
		goto end;
	add_candidate(heap, &candidates, &all[0], 1);
	while (count < most) {
		/* `node` is the first member. */
		struct candidate *c = (struct candidate *)candidates.nodes[0];

		minheap_remove(&candidates, &c->node);
		out[count++] = heap->nodes[c->of - 1];
		add_candidate(heap, &candidates, &all[2 * count - 1], 2 * c->of);
		add_candidate(heap, &candidates, &all[2 * count], 2 * c->of + 1);
	}
end:
	free(candidates.nodes);
	free(all);
	return count;
}

void minheap_fini(struct minheap *heap)
{
	free(heap->nodes);
	*heap = (struct minheap){0};
}
