#include "api/watch.h"

#include "base/clock.h"
#include "base/metrics.h"
#include "base/timer.h"

#include <event2/event.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* News of a page wait so long for the messages that tell the same, and who made it. */
#define MESSAGES_MS 20
/* A message that is older than what a listing has told comes so much later at most. */
#define LATE_MS 1000
/* The circuit of an override that ends is read for so long at most. */
#define END_READ_MS 300
/* When a listing failed, the next one begins so much later. */
#define RETRY_MS  500
#define LIST_PAGE 500
/* Between two parts of a listing it waits so long at most for streams to take what is new, and
 * looks so often. */
#define BUSY_MAX_MS  200
#define BUSY_LOOK_MS 2

const char *watch_by_name(unsigned by)
{
	static const char *const names[] = {
		[STORE_BY_REPORT] = "report",         [STORE_BY_ACQUIRE] = "acquire",
		[STORE_BY_TRANSITION] = "transition", [STORE_BY_RESET] = "reset",
		[STORE_BY_OVERRIDE] = "override",     [STORE_BY_ELSEWHERE] = "elsewhere",
	};

	return names[by];
}

struct watched *watch_find(struct watch *w, const char *key, size_t len)
{
	return (struct watched *)keytable_find(&w->table, key, len);
}

/* --- entries ------------------------------------------------------------------------------- */

static void count_active(struct watch *w, const struct watched *c, int by)
{
	struct metrics *m = w->metrics;

	m->watched[c->circuit.state] += by;
	if (c->override)
		m->overrides[c->override->mode == BREAKER_FORCED_CLOSED] += by;
}

/* Takes it out of its list; places in it move on. */
static void leave_list(struct watch *w, struct watched *c)
{
	if (c->active && w->sweep == c)
		w->sweep = TAILQ_NEXT(c, entry);
	if (c->active)
		w->moves(w->arg, c);
	TAILQ_REMOVE(c->active ? &w->active : &w->past, c, entry);
}

static void entry_free(struct watched *c)
{
	struct watch *w = c->watch;

	if (c->active)
		count_active(w, c, -1);
	leave_list(w, c);
	minheap_remove(&w->open, &c->open);
	recheck_end(&w->recheck, &c->check);
	w->change_count -= c->change_count;
	for (unsigned i = 0; c->changes && i < WATCH_CHANGES; i++)
		free(c->changes[i].why);
	free(c->changes);
	free(c->why);
	free(c->override);
	if (c->end)
		event_free(c->end);
	keytable_remove(&w->table, &c->node);
}

/* Forgets the circuits that changed the longest ago, as far as they are closed. */
static void make_room(struct watch *w, const struct watched *but)
{
	struct watched *c;

	while ((w->table.count > w->max || w->change_count > w->max) &&
	       (c = TAILQ_FIRST(&w->past)) != NULL && c != but)
		entry_free(c);
}

static struct watched *entry_get(struct watch *w, const char *key, size_t len)
{
	struct watched *c = watch_find(w, key, len);

	if (c)
		return c;
	if (w->table.count >= w->max && TAILQ_EMPTY(&w->past))
		return NULL;
	c = (struct watched *)keytable_add(&w->table, sizeof(*c), key, len);
	if (!c)
		return NULL;
	c->watch = w;
	c->serial = ++w->serial;
	TAILQ_INSERT_TAIL(&w->past, c, entry);
	return c;
}

static void note_history(struct watched *c, enum circuit_state from, int64_t at_ms,
			 enum store_by by, const char *why)
{
	struct watch_change *change;

	if (!c->changes)
		c->changes = calloc(WATCH_CHANGES, sizeof(*c->changes));
	if (!c->changes)
		return;
	change = &c->changes[c->change_at];
	c->change_at = (unsigned char)((c->change_at + 1) % WATCH_CHANGES);
	if (c->change_count < WATCH_CHANGES) {
		c->change_count++;
		c->watch->change_count++;
	}
	free(change->why);
	if ((!why || !*why) && c->why && c->why_at_ms == at_ms)
		why = c->why;
	*change = (struct watch_change){.at_ms = at_ms,
					.why = why && *why ? strdup(why) : NULL,
					.from = (unsigned char)from,
					.to = (unsigned char)c->circuit.state,
					.by = (unsigned char)by};
	free(c->why);
	c->why = NULL;
}

void watch_explain(struct watch *w, const char *key, size_t len, const struct circuit *circuit,
		   const char *why)
{
	struct watched *c = w->embedded ? NULL : entry_get(w, key, len);

	if (!c)
		return;
	for (unsigned i = 0; i < c->change_count; i++) {
		struct watch_change *change = &c->changes[i];

		if (change->at_ms != circuit->last_state_change || change->to != circuit->state)
			continue;
		if (!change->why)
			change->why = strdup(why);
		return;
	}
	/* The message is on its way. */
	free(c->why);
	c->why = strdup(why);
	c->why_at_ms = circuit->last_state_change;
}

static bool same_override(const struct breaker_override *a, const struct breaker_override *b)
{
	if (!a || !b)
		return a == b;
	return a->mode == b->mode && a->since_ms == b->since_ms && a->until_ms == b->until_ms &&
	       a->reason_len == b->reason_len && memcmp(a->reason, b->reason, a->reason_len) == 0;
}

/* What was read is not what is known; c is NULL if nothing is. */
static bool differs(const struct watched *c, enum circuit_state state,
		    const struct breaker_override *override)
{
	return (c ? c->circuit.state : CIRCUIT_CLOSED) != state ||
	       !same_override(c ? c->override : NULL, override);
}

static void on_override_end(evutil_socket_t fd, short what, void *arg);

/* The entry's override is from now on a copy of this one. False when out of memory. */
static bool set_override(struct watched *c, const struct breaker_override *o)
{
	struct breaker_override *copy = NULL;

	if (o) {
		copy = malloc(sizeof(*copy));
		if (!c->end)
			c->end = evtimer_new(c->watch->base, on_override_end, c);
		if (!copy || !c->end) {
			free(copy);
			return false;
		}
		*copy = *o;
		timer_arm(c->end, o->until_ms - store_clock_ms(c->watch->store));
	} else if (c->end) {
		event_del(c->end);
	}
	free(c->override);
	c->override = copy;
	c->ends = false;
	return true;
}

static void settle_list(struct watch *w, struct watched *c)
{
	bool active = c->circuit.state != CIRCUIT_CLOSED || c->override;

	leave_list(w, c);
	c->active = active;
	c->serial = ++w->serial;
	TAILQ_INSERT_TAIL(active ? &w->active : &w->past, c, entry);
	if (active)
		count_active(w, c, 1);
	if (active)
		recheck_begin(&w->recheck, &c->check);
	else
		recheck_end(&w->recheck, &c->check);
}

/* How long it is open counts from when it left closed; from now where that is not known. */
static void note_open(struct watch *w, struct watched *c)
{
	int64_t since = c->circuit.last_state_change;

	if (c->circuit.state == CIRCUIT_CLOSED)
		minheap_remove(&w->open, &c->open);
	else if (!c->open.place)
		minheap_add(&w->open, &c->open, since ? since : store_clock_ms(w->store));
}

/* Notes what the store has; news go to `changed`. */
static void note(struct watch *w, const struct store_change *change)
{
	struct watched *c = watch_find(w, change->key, change->key_len);
	enum circuit_state before = c ? c->circuit.state : CIRCUIT_CLOSED;
	enum circuit_state after = change->circuit.state;
	bool news = before != after || (change->by == STORE_BY_RESET && !(c && c->unsure)) ||
		    !same_override(c ? c->override : NULL, change->override);

	if (!news) {
		/* A page that was read before may still be noted: it must find that this is newer.
		 */
		if (!c && w->listing)
			c = entry_get(w, change->key, change->key_len);
		if (c)
			c->told_ms = clock_ms();
		if (c && change->by == STORE_BY_RESET)
			c->unsure = false;
		if (c && c->active)
			c->circuit = change->circuit;
		return;
	}
	c = entry_get(w, change->key, change->key_len);
	if (!c)
		return;
	if (c->active)
		count_active(w, c, -1);
	c->circuit = change->circuit;
	c->told_ms = clock_ms();
	c->wrote = c->unsure = false;
	if (!same_override(c->override, change->override))
		set_override(c, change->override);
	note_open(w, c);
	settle_list(w, c);
	if (before != after)
		note_history(c, before, change->circuit.last_state_change, change->by, change->why);
	w->changed(w->arg, c, before, change->by);
	make_room(w, c);
}

static void on_override_end(evutil_socket_t fd, short what, void *arg)
{
	struct watched *c = arg;
	struct store_change change = {
		.key = keynode_key(&c->node),
		.key_len = c->node.key_len,
		.circuit = c->circuit,
		.by = STORE_BY_OVERRIDE,
	};
	int64_t left = c->override ? c->override->until_ms - store_clock_ms(c->watch->store) : 0;
	struct store_health health;

	(void)fd;
	(void)what;
	if (left > 0) {
		timer_arm(c->end, left);
		return;
	}
	store_health(c->watch->store, &health);
	/* What is known of the circuit is as old as the override: it is read first. */
	if (!c->ends && health.condition == STORE_READY) {
		c->ends = true;
		recheck_now(&c->watch->recheck, &c->check);
		timer_arm(c->end, END_READ_MS);
		return;
	}
	if (c->override)
		c->watch->override_over(c->watch->arg, c);
	note(c->watch, &change);
}

size_t watch_open(const struct watch *w, const struct watched **out, size_t max)
{
	struct minheap_node **nodes = calloc(max + 1, sizeof(void *));
	size_t count = nodes ? minheap_first(&w->open, nodes, max) : 0;

	for (size_t i = 0; i < count; i++)
		out[i] = (const struct watched *)(const void *)((const char *)nodes[i] -
								offsetof(struct watched, open));
	free(nodes);
	return count;
}

int64_t watch_open_ms(const struct watched *c)
{
	int64_t ms = store_clock_ms(c->watch->store) - c->open.value;

	return ms > 0 ? ms : 0;
}

/* --- listings ------------------------------------------------------------------------------ */

static void note_item(struct watch *w, const struct store_item *item)
{
	struct watched *c = watch_find(w, item->key, item->key_len);
	struct store_change change = {
		.key = item->key,
		.key_len = item->key_len,
		.circuit = item->circuit,
		.override = item->override,
		.by = STORE_BY_ELSEWHERE,
	};

	/* What was told since the listing began is newer, unless another program has changed it
	 * once more. */
	if (c && c->told_ms >= w->list_began_ms) {
		if (differs(c, item->circuit.state, item->override))
			recheck_doubt(&w->recheck, &c->check);
		return;
	}
	if (c || item->circuit.state != CIRCUIT_CLOSED || item->override)
		note(w, &change);
	c = watch_find(w, item->key, item->key_len);
	if (!c)
		return;
	c->told_ms = c->listed_ms = clock_ms();
	/* A timer may come early: in a busy turn the loop counts from the turn's beginning. */
	if (c->told_ms < w->list_began_ms)
		c->told_ms = w->list_began_ms;
}

static bool is_news(struct watch *w, const struct store_item *item)
{
	const struct watched *c = watch_find(w, item->key, item->key_len);

	if (!c)
		return item->circuit.state != CIRCUIT_CLOSED || item->override;
	return c->circuit.state != item->circuit.state ||
	       !same_override(c->override, item->override);
}

/* The circuit was in no page. */
static void note_gone(struct watch *w, const struct watched *c)
{
	struct store_change change = {
		.key = keynode_key(&c->node),
		.key_len = c->node.key_len,
		.by = STORE_BY_ELSEWHERE,
	};

	change.circuit.last_state_change = store_clock_ms(w->store);
	note(w, &change);
}

static void list_end(struct watch *w)
{
	w->listing = w->sweeping = false;
	w->complete = w->embedded;
	w->listed(w->arg, w->list_number);
	if (w->list_again)
		watch_list(w);
}

/* Looks at a part of the active circuits: those that the listing has not shown are gone. */
static void sweep_part(struct watch *w)
{
	for (unsigned looks = 0; looks < LIST_PAGE && w->sweep; looks++) {
		struct watched *c = w->sweep;

		w->sweep = TAILQ_NEXT(c, entry);
		if (c->told_ms < w->list_began_ms)
			note_gone(w, c);
	}
	if (w->sweep)
		timer_arm(w->retry, 0);
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
		timer_arm(w->retry, 0);
	else
		list_done(w);
}

static void on_page(void *arg, struct store_result *result)
{
	struct watch *w = arg;

	w->op = NULL;
	if (result->status != STORE_OK) {
		w->listing = false;
		timer_arm(w->retry, RETRY_MS);
		return;
	}
	w->page = result->page;
	for (size_t i = 0; i < w->page->count; i++)
		if (is_news(w, &w->page->items[i])) {
			timer_arm(w->retry, MESSAGES_MS);
			return;
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

/* True while streams have still to take the news of the part before, within limits: no client holds
 * up a listing. */
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

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	struct watch *w = arg;

	(void)fd;
	(void)what;
	if (must_wait(w))
		timer_arm(w->retry, BUSY_LOOK_MS);
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
	/* From the loop: a listing of the embedded store ends at once. */
	timer_arm(w->retry, 1);
	return w->list_number;
}

/* --- reads --------------------------------------------------------------------------------- */

static struct watched *watched_of(const struct recheck_node *node)
{
	return (struct watched *)(void *)((char *)(uintptr_t)node -
					  offsetof(struct watched, check));
}

static const char *on_recheck_key(const struct recheck_node *node, size_t *len)
{
	const struct watched *c = watched_of(node);

	*len = c->node.key_len;
	return keynode_key(&c->node);
}

static bool on_recheck_differs(const struct recheck_node *node, const struct store_result *result,
			       int64_t began_ms)
{
	struct watched *c = watched_of((struct recheck_node *)(uintptr_t)node);

	if (c->ends)
		return true;
	/* What was told since is newer. */
	if (c->told_ms < began_ms && differs(c, result->circuit.state, result->override))
		return true;
	c->unsure = false;
	return false;
}

static bool on_recheck_stays(const struct recheck_node *node)
{
	const struct watched *c = watched_of(node);

	return c->active || c->unsure;
}

static void on_recheck_take(struct recheck_node *node, const struct store_result *result)
{
	struct watched *c = watched_of(node);
	struct store_change change = {
		.key = keynode_key(&c->node),
		.key_len = c->node.key_len,
		.circuit = result->circuit,
		.override = result->override,
		.by = STORE_BY_ELSEWHERE,
	};

	if (result->absent)
		change.circuit.last_state_change = store_clock_ms(c->watch->store);
	if (c->wrote && (c->wrote_at_ms == result->circuit.last_state_change ||
			 (result->absent && c->wrote_by == STORE_BY_RESET)))
		change.by = c->wrote_by;
	if (c->ends && c->override) {
		/* Redis may think that it holds for a moment longer. */
		if (same_override(c->override, change.override))
			change.override = NULL;
		if (!change.override)
			change.by = STORE_BY_OVERRIDE;
		c->watch->override_over(c->watch->arg, c);
	}
	c->unsure = false;
	note(c->watch, &change);
}

static const struct recheck_events recheck_events = {
	.key = on_recheck_key,
	.differs = on_recheck_differs,
	.stays = on_recheck_stays,
	.take = on_recheck_take,
};

void watch_read(struct watch *w, const char *key, size_t len, enum circuit_state state,
		const struct breaker_override *override)
{
	struct watched *c;

	if (w->embedded || (state == CIRCUIT_CLOSED && !override && TAILQ_EMPTY(&w->active)) ||
	    !differs(watch_find(w, key, len), state, override))
		return;
	c = entry_get(w, key, len);
	if (c)
		recheck_doubt(&w->recheck, &c->check);
}

void watch_wrote(struct watch *w, const char *key, size_t len, const struct circuit *circuit,
		 const struct breaker_override *override, enum store_by by)
{
	struct watched *c;

	watch_read(w, key, len, circuit->state, override);
	c = watch_find(w, key, len);
	if (!c || !c->check.doubted)
		return;
	c->wrote = true;
	c->wrote_by = by;
	c->wrote_at_ms = circuit->last_state_change;
}

void watch_unsure(struct watch *w, const char *key, size_t len)
{
	struct watched *c = watch_find(w, key, len);

	if (!c)
		return;
	c->unsure = true;
	if (!c->active)
		recheck_begin(&w->recheck, &c->check);
}

/* --- the whole ----------------------------------------------------------------------------- */

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
		note(w, change);
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
	w->retry = evtimer_new(base, on_retry, w);
	if (keytable_init(&w->table) != 0 || !w->retry ||
	    recheck_init(&w->recheck, base, store, &recheck_events) != 0)
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
		entry_free(c);
	recheck_fini(&w->recheck); /* behind its nodes */
	keytable_fini(&w->table);
	minheap_fini(&w->open);
}
