/*
 * Listings of the store: at the start, and when changes may have been missed. They run in parts,
 * with pauses for messages that tell the same and for streams to take the news.
 */
#include "api/watch_private.h"
#include "base/clock.h"
#include "base/timer.h"

#include <string.h>

/* How long the news of a page wait for messages of the same changes, which also say who made them.
 */
#define MESSAGES_MS 20
/* How long after a failed listing the next one begins. */
#define RETRY_MS  500
#define LIST_PAGE 500
/* How long a listing pauses at most, between two parts, for streams to take what is new; and how
 * often it checks whether they have. */
#define BUSY_MAX_MS  200
#define BUSY_LOOK_MS 2

static void note_item(struct watch *w, const struct store_item *item)
{
	struct watched *c = watch_find(w, item->key, item->key_len);
	struct store_change change = {
		.key = item->key,
		.key_len = item->key_len,
		.circuit = item->circuit,
		.override = item->override,
		.by = watch_changed_by(c, &item->circuit, false),
	};

	/* What was heard since the listing began is newer than the page, unless another program has
	 * changed the circuit once more: a recheck tells. */
	if (c && c->heard_ms >= w->list_began_ms) {
		if (watch_differs(c, item->circuit.state, item->override))
			recheck_doubt(&w->recheck, &c->check);
		return;
	}
	if (c || item->circuit.state != CIRCUIT_CLOSED || item->override)
		watch_note(w, &change);
	c = watch_find(w, item->key, item->key_len);
	if (!c)
		return;
	c->heard_ms = c->listed_ms = clock_ms();
	/* list_began_ms may still be ahead: the loop's timers count from the beginning of a turn,
	 * so the listing's first timer can fire early. */
	if (c->heard_ms < w->list_began_ms)
		c->heard_ms = w->list_began_ms;
}

/* The circuit was in no page of the listing: notes that it is gone. */
static void note_gone(struct watch *w, const struct watched *c)
{
	struct store_change change = {
		.key = keynode_key(&c->node),
		.key_len = c->node.key_len,
	};

	change.by = watch_changed_by(c, &change.circuit, true);
	change.circuit.last_state_change = store_clock_ms(w->store);
	watch_note(w, &change);
}

static void list_end(struct watch *w)
{
	w->listing = w->sweeping = false;
	w->complete = w->embedded;
	w->listed(w->arg, w->list_number);
	if (w->list_again)
		watch_list(w);
}

/* Checks a part of the active circuits: those that the listing has not shown are gone. */
static void sweep_part(struct watch *w)
{
	for (unsigned checked = 0; checked < LIST_PAGE && w->sweep; checked++) {
		struct watched *c = w->sweep;

		w->sweep = TAILQ_NEXT(c, entry);
		if (c->heard_ms < w->list_began_ms)
			note_gone(w, c);
	}
	if (w->sweep)
		timer_arm(w->list_timer, 0);
	else
		list_end(w);
}

static void list_done(struct watch *w)
{
	w->sweeping = true;
	w->sweep = w->complete ? NULL : TAILQ_FIRST(&w->active);
	sweep_part(w);
}

static void take_page(struct watch *w)
{
	struct store_page *page = w->page;

	w->page = NULL;
	for (size_t i = 0; i < page->count; i++)
		note_item(w, &page->items[i]);
	memcpy(w->query.cursor, page->cursor, sizeof(w->query.cursor));
	store_page_free(page);
	if (w->query.cursor[0])
		timer_arm(w->list_timer, 0);
	else
		list_done(w);
}

static void on_page(void *arg, struct store_result *result)
{
	struct watch *w = arg;

	w->op = NULL;
	if (result->status != STORE_OK) {
		w->listing = false;
		timer_arm(w->list_timer, RETRY_MS);
		return;
	}
	w->page = result->page;
	for (size_t i = 0; i < w->page->count; i++) {
		const struct store_item *item = &w->page->items[i];

		if (watch_differs(watch_find(w, item->key, item->key_len), item->circuit.state,
				  item->override)) {
			timer_arm(w->list_timer, MESSAGES_MS);
			return;
		}
	}
	take_page(w);
}

static void list_next(struct watch *w)
{
	struct store_result result;

	w->op = store_list(w->store, &w->query, on_page, w, &result);
	if (!w->op)
		on_page(w, &result);
}

/* True while streams have still to take the news of the last part; for BUSY_MAX_MS at most, so that
 * no client holds up a listing. */
static bool must_wait(struct watch *w)
{
	int64_t now = clock_ms();

	if (!w->listing || !w->busy(w->arg) || (w->busy_ms && now - w->busy_ms >= BUSY_MAX_MS)) {
		w->busy_ms = 0;
		return false;
	}
	if (!w->busy_ms)
		w->busy_ms = now;
	return true;
}

void watch_list_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct watch *w = arg;

	(void)fd;
	(void)what;
	if (must_wait(w))
		timer_arm(w->list_timer, BUSY_LOOK_MS);
	else if (w->page)
		take_page(w);
	else if (w->sweeping)
		sweep_part(w);
	else if (w->listing && w->complete)
		list_done(w);
	else if (w->listing)
		list_next(w);
	else
		watch_list(w);
}

uint64_t watch_list(struct watch *w)
{
	if (w->listing) {
		w->list_again = true;
		return w->list_number + 1;
	}
	w->list_number++;
	w->listing = true;
	w->list_again = false;
	w->list_began_ms = clock_ms() + 1;
	w->query = (struct store_query){.limit = LIST_PAGE, .background = true};
	/* Begins in the loop, for the embedded store would call back from here. */
	timer_arm(w->list_timer, 1);
	return w->list_number;
}
