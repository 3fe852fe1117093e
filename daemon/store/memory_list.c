/*
 * Listings of the embedded store. A listing takes a few turns of the loop, so that one that matches
 * little does not hold up everything else; and of many listings, only a few go on in each turn.
 */
#include "base/later.h"
#include "store/memory_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A step of a listing reads at most this many slots: some 100 us. */
#define LIST_STEP 4096
/* At most this many listings take a step in one turn of the loop. */
#define TURN_STEPS 4
/* How a cursor begins, with the store's mark: the slots of another process, and the places in
 * Redis, are other ones. */
#define CURSOR_HEAD "m%08" PRIx32 "."

struct memory_list {
	struct store_op op;
	TAILQ_ENTRY(memory_list) entry;
	struct store_query query;
	struct store_page *page;
	size_t slot;     /* the next to read */
	int64_t stop_ms; /* monotonic: the page ends then, full or not */
};

/* Reads at most LIST_STEP slots. True when the page is done, with its cursor. */
static bool list_step(struct memory_store *m, const struct store_query *query, size_t *slot,
		      struct store_page *page, bool *no_memory)
{
	int64_t now = memory_now(m);
	size_t slots = circuit_table_slots(m->table);
	size_t stop = *slot + LIST_STEP;

	while (*slot < slots && *slot < stop && page->count < query->limit) {
		struct circuit_entry *e = circuit_table_slot(m->table, (*slot)++, now);
		const struct circuit *c;
		const char *key;
		size_t len;

		if (!e)
			continue;
		c = circuit_entry_get(e);
		key = circuit_entry_key(e, &len);
		if (store_query_matches(query, key, len, c->state) &&
		    !store_page_add(page, key, len, c,
				    circuit_entry_is_held(e)
					    ? memory_override(m, e, store_now_ms(&m->clock))
					    : NULL)) {
			*no_memory = true;
			return true;
		}
	}
	if (*slot >= slots)
		return true;
	snprintf(page->cursor, sizeof(page->cursor), CURSOR_HEAD "%zu", m->cursor_mark, *slot);
	return page->count >= query->limit;
}

static void list_answer(struct store_result *result, struct store_page *page, bool no_memory)
{
	store_refuse(result, STORE_OK, NULL);
	result->page = page;
	if (no_memory) {
		store_page_free(page);
		store_refuse(result, STORE_ERROR, "out of memory");
	}
}

/* Takes a step of the listing, which then waits behind the others, or ends. */
static void list_go_on(struct memory_store *m, struct memory_list *l)
{
	struct store_result result;
	bool no_memory = false;

	l->page->cursor[0] = '\0';
	TAILQ_REMOVE(&m->lists, l, entry);
	if (!list_step(m, &l->query, &l->slot, l->page, &no_memory) && clock_ms() < l->stop_ms) {
		TAILQ_INSERT_TAIL(&m->lists, l, entry);
		return;
	}
	m->list_count--;
	list_answer(&result, l->page, no_memory);
	store_op_finish(&l->op, &result);
}

void memory_on_list_turn(void *arg)
{
	struct memory_store *m = arg;
	unsigned steps = m->list_count < TURN_STEPS ? m->list_count : TURN_STEPS;

	for (; steps > 0 && !TAILQ_EMPTY(&m->lists); steps--)
		list_go_on(m, TAILQ_FIRST(&m->lists));
	if (!TAILQ_EMPTY(&m->lists))
		later_run(m->list_turn);
}

static bool cursor_read(const struct memory_store *m, const char *cursor, size_t *slot)
{
	char head[16], *end;
	int len = snprintf(head, sizeof(head), CURSOR_HEAD, m->cursor_mark);
	unsigned long long value;

	*slot = 0;
	if (!cursor[0])
		return true;
	if (strncmp(cursor, head, (size_t)len) != 0)
		return false;
	cursor += len;
	if (cursor[0] < '0' || cursor[0] > '9')
		return false;
	errno = 0;
	value = strtoull(cursor, &end, 10);
	*slot = (size_t)value;
	return errno == 0 && *end == '\0' && value <= UINT32_MAX;
}

static struct memory_list *list_continue(struct memory_store *m, const struct store_query *query,
					 size_t slot, struct store_page *page)
{
	struct memory_list *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->query = *query;
	l->page = page;
	l->slot = slot;
	l->stop_ms = clock_ms() + m->store.limits.timeout_ms / 2;
	TAILQ_INSERT_TAIL(&m->lists, l, entry);
	m->list_count++;
	later_run(m->list_turn);
	return l;
}

struct store_op *memory_list(struct store *s, const struct store_query *query, store_done_fn *done,
			     void *arg, struct store_result *result)
{
	struct memory_store *m = memory(s);
	struct memory_list *l;
	struct store_page *page;
	bool no_memory = false;
	size_t slot;

	if (!cursor_read(m, query->cursor, &slot))
		return store_refuse(result, STORE_BAD_CURSOR, "the cursor is none of ours");
	if (!query->background && store_overloaded(s, result))
		return NULL;
	page = store_page_new(query->limit);
	if (!page)
		return store_refuse(result, STORE_ERROR, "out of memory");
	if (list_step(m, query, &slot, page, &no_memory)) {
		list_answer(result, page, no_memory);
		return NULL;
	}
	l = list_continue(m, query, slot, page);
	if (!l) {
		store_page_free(page);
		return store_refuse(result, STORE_ERROR, "out of memory");
	}
	store_op_start(s, &l->op, done, arg);
	return &l->op;
}

void memory_detach(struct store_op *op, struct store_result *verdict)
{
	struct memory_list *l = (struct memory_list *)op;
	struct memory_store *m = memory(op->store);

	TAILQ_REMOVE(&m->lists, l, entry);
	m->list_count--;
	store_page_free(l->page);
	verdict->status = STORE_TIMEOUT;
}
