/* The watch: messages of the store, start and end. */
#include "api/watch_private.h"
#include "base/clock.h"

/* How long after a listing a message may come that is older than what the listing showed. */
#define LATE_MS 1000

/* True if the message's stamp is older than what a listing has just shown. Either the message is
 * late, or its change is newer after all, and the one that was listed has the stamp of a clock that
 * is ahead. A read of the circuit tells. */
static bool is_late(struct watch *w, const struct store_change *change)
{
	const struct watched *c = watch_find(w, change->key, change->key_len);

	return !w->embedded && c && c->listed_ms && clock_ms() - c->listed_ms < LATE_MS &&
	       change->circuit.last_state_change < c->circuit.last_state_change;
}

static void on_store_change(void *arg, const struct store_change *change)
{
	struct watch *w = arg;

	if (!change->key) {
		w->live = change->live;
		if (w->live)
			watch_list(w);
	} else if (is_late(w, change)) {
		recheck_doubt(&w->recheck, &watch_find(w, change->key, change->key_len)->check);
	} else {
		watch_note(w, change);
	}
}

int watch_init(struct watch *w, struct event_base *base, struct store *store, size_t max,
	       struct metrics *metrics)
{
	struct store_health health;

	w->base = base;
	w->store = store;
	w->metrics = metrics;
	w->max = max;
	TAILQ_INIT(&w->active);
	TAILQ_INIT(&w->past);
	TAILQ_INIT(&w->histories);
	w->list_timer = evtimer_new(base, watch_list_on_timer, w);
	if (keytable_init(&w->table) != 0 || !w->list_timer ||
	    recheck_init(&w->recheck, base, store, &watch_recheck_events) != 0)
		return -1;
	store_health(store, &health);
	w->live = w->embedded = health.counts_circuits;
	store_follow(store, on_store_change, w);
	watch_list(w);
	return 0;
}

void watch_fini(struct watch *w)
{
	struct watched *c;

	if (w->store)
		store_follow(w->store, NULL, NULL);
	if (w->op)
		store_cancel(w->op);
	store_page_free(w->page);
	if (w->list_timer)
		event_free(w->list_timer);
	if (!w->store)
		return;
	while ((c = TAILQ_FIRST(&w->active)) != NULL || (c = TAILQ_FIRST(&w->past)) != NULL)
		watch_remove(c);
	recheck_fini(&w->recheck); /* after its nodes, which watch_remove takes out of it */
	keytable_fini(&w->table);
	minheap_fini(&w->open);
}
