/* The heap compared with a sorted array. */
#include "base/minheap.h"
#include "suite.h"

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>

#define NODES 300

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* Checks that minheap_first gives the `max` smallest of the nodes that are in the heap, sorted and
 * each once. */
static void check_first(const struct minheap *heap, const struct minheap_node *nodes, size_t max)
{
	struct minheap_node *first[NODES + 5];
	int64_t values[NODES];
	bool given[NODES] = {false};
	size_t count = 0, got = minheap_first(heap, first, max);

	for (size_t i = 0; i < NODES; i++)
		if (nodes[i].place)
			values[count++] = nodes[i].value;
	ck_assert_uint_eq(count, heap->count);
	qsort(values, count, sizeof(values[0]), by_value);
	ck_assert_uint_eq(got, count < max ? count : max);
	for (size_t i = 0; i < got; i++) {
		ck_assert_int_eq(first[i]->value, values[i]);
		ck_assert_msg(!given[first[i] - nodes], "given twice");
		given[first[i] - nodes] = true;
	}
}

START_TEST(random_ones)
{
	struct minheap_node nodes[NODES] = {{0}};
	struct minheap heap = {0};

	srandom((unsigned)_i + 1);
	check_first(&heap, nodes, 3);
	for (int step = 0; step < 3000; step++) {
		struct minheap_node *node = &nodes[random() % NODES];

		if (node->place)
			minheap_remove(&heap, node);
		else
			ck_assert_int_eq(minheap_add(&heap, node, random() % 50 - 25), 0);
		if (step % 20 == 0)
			check_first(&heap, nodes, (size_t)(random() % (NODES + 5)));
	}
	for (size_t i = 0; i < NODES; i++)
		minheap_remove(&heap, &nodes[i]);
	ck_assert_uint_eq(heap.count, 0);
	check_first(&heap, nodes, 3);
	minheap_fini(&heap);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("minheap");
	TCase *t = tcase_create("minheap");

	tcase_add_loop_test(t, random_ones, 0, 10);
	suite_add_tcase(s, t);
	return suite_run(s);
}
