#include "api/watch_private.h"
#include "base/clock.h"

/* A message that is older than what a listing has told comes so much later at most. */
#define LATE_MS 1000

/* True for a message of a change before the one that a listing has just shown; or of one behind it,
 * where who made that has a clock that is ahead: the circuit is read then. */
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
	w->retry = evtimer_new(base, watch_list_on_timer, w);
	if (keytable_init(&w->table) != 0 || !w->retry ||
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
	if (w->retry)
		event_free(w->retry);
	if (!w->store)
		return;
	while ((c = TAILQ_FIRST(&w->active)) != NULL || (c = TAILQ_FIRST(&w->past)) != NULL)
		watch_remove(c);
	recheck_fini(&w->recheck); /* behind its nodes */
	keytable_fini(&w->table);
	minheap_fini(&w->open);
}
