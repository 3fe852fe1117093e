/*
 * The entries of circuits: what is known of each, its last changes, the end of its override.
 */
#include "api/watch_private.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/timer.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* How long the end of an override waits for a read of its circuit. */
#define END_READ_MS 300

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

static void count_active(struct watch *w, const struct watched *c, int by)
{
	struct metrics *m = w->metrics;

	m->watched[c->circuit.state] += by;
	if (c->override)
		m->overrides[c->override->mode == BREAKER_FORCED_CLOSED] += by;
}

/* Takes the circuit out of its list. Whoever is at this place in the list moves on. */
static void leave_list(struct watch *w, struct watched *c)
{
	if (c->active && w->sweep == c)
		w->sweep = TAILQ_NEXT(c, entry);
	if (c->active)
		w->moves(w->arg, c);
	TAILQ_REMOVE(c->active ? &w->active : &w->past, c, entry);
}

static void drop_history(struct watched *c)
{
	if (c->change_count == 0)
		return;
	for (unsigned i = 0; i < WATCH_CHANGES; i++)
		free(c->changes[i].why);
	free(c->changes);
	c->changes = NULL;
	c->watch->change_count -= c->change_count;
	c->change_count = c->change_at = 0;
	TAILQ_REMOVE(&c->watch->histories, c, history_entry);
}

void watch_remove(struct watched *c)
{
	struct watch *w = c->watch;

	if (c->active)
		count_active(w, c, -1);
	leave_list(w, c);
	minheap_remove(&w->open, &c->open);
	recheck_end(&w->recheck, &c->check);
	drop_history(c);
	free(c->why);
	free(c->override);
	if (c->override_timer)
		event_free(c->override_timer);
	keytable_remove(&w->table, &c->node);
}

/* Forgets past circuits, and then the changes of active ones, those that changed the longest ago
 * first, until the bounds hold. Stops at the circuit `but`. */
static void make_room(struct watch *w, const struct watched *but)
{
	struct watched *c;

	while ((w->table.count > w->max || w->change_count > w->max) &&
	       (c = TAILQ_FIRST(&w->past)) != NULL && c != but)
		watch_remove(c);
	while (w->change_count > w->max && (c = TAILQ_FIRST(&w->histories)) != NULL && c != but)
		drop_history(c);
}

struct watched *watch_get(struct watch *w, const char *key, size_t len)
{
	struct watched *c = watch_find(w, key, len);

	if (c)
		return c;
	if (w->table.count >= w->max) {
		if (TAILQ_EMPTY(&w->past))
			return NULL;
		watch_remove(TAILQ_FIRST(&w->past));
	}
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
	struct watch *w = c->watch;
	struct watch_change *change;

	if (!c->changes)
		c->changes = calloc(WATCH_CHANGES, sizeof(*c->changes));
	if (!c->changes)
		return;
	change = &c->changes[c->change_at];
	c->change_at = (unsigned char)((c->change_at + 1) % WATCH_CHANGES);
	if (c->change_count > 0)
		TAILQ_REMOVE(&w->histories, c, history_entry);
	TAILQ_INSERT_TAIL(&w->histories, c, history_entry);
	if (c->change_count < WATCH_CHANGES && c->change_count < w->max) {
		c->change_count++;
		w->change_count++;
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
	struct watched *c = w->embedded ? NULL : watch_get(w, key, len);

	if (!c)
		return;
	for (unsigned i = 0; i < c->change_count; i++) {
		struct watch_change *change = watch_change_of(c, i);

		if (change->at_ms != circuit->last_state_change || change->to != circuit->state)
			continue;
		if (!change->why)
			change->why = strdup(why);
		return;
	}
	/* The change is not noted yet: its message is on its way. */
	free(c->why);
	c->why = strdup(why);
	c->why_at_ms = circuit->last_state_change;
}

bool watch_same_override(const struct breaker_override *a, const struct breaker_override *b)
{
	if (!a || !b)
		return a == b;
	return a->mode == b->mode && a->since_ms == b->since_ms && a->until_ms == b->until_ms &&
	       a->reason_len == b->reason_len && memcmp(a->reason, b->reason, a->reason_len) == 0;
}

bool watch_differs(const struct watched *c, enum circuit_state state,
		   const struct breaker_override *override)
{
	return (c ? c->circuit.state : CIRCUIT_CLOSED) != state ||
	       !watch_same_override(c ? c->override : NULL, override);
}

static void on_override_end(evutil_socket_t fd, short what, void *arg);

/* Makes the entry's override a copy of this one, or NULL. False when out of memory. */
static bool set_override(struct watched *c, const struct breaker_override *o)
{
	struct breaker_override *copy = NULL;

	if (o) {
		copy = malloc(sizeof(*copy));
		if (!c->override_timer)
			c->override_timer = evtimer_new(c->watch->base, on_override_end, c);
		if (!copy || !c->override_timer) {
			free(copy);
			return false;
		}
		*copy = *o;
		timer_arm(c->override_timer, o->until_ms - store_clock_ms(c->watch->store));
	} else if (c->override_timer) {
		event_del(c->override_timer);
	}
	free(c->override);
	c->override = copy;
	c->override_ending = false;
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

/* Notes since when the circuit is not closed: its lastStateChange as it left closed, or now if that
 * is not known. */
static void note_open(struct watch *w, struct watched *c)
{
	int64_t since = c->circuit.last_state_change;

	if (c->circuit.state == CIRCUIT_CLOSED)
		minheap_remove(&w->open, &c->open);
	else if (!c->open.place)
		minheap_add(&w->open, &c->open, since ? since : store_clock_ms(w->store));
}

enum store_by watch_changed_by(const struct watched *c, const struct circuit *circuit, bool absent)
{
	if (c && c->wrote &&
	    (c->wrote_at_ms == circuit->last_state_change ||
	     (absent && c->wrote_by == STORE_BY_RESET)))
		return c->wrote_by;
	return STORE_BY_ELSEWHERE;
}

void watch_note(struct watch *w, const struct store_change *change)
{
	struct watched *c = watch_find(w, change->key, change->key_len);
	enum circuit_state before = c ? c->circuit.state : CIRCUIT_CLOSED;
	enum circuit_state after = change->circuit.state;
	bool news = before != after || (change->by == STORE_BY_RESET && !(c && c->unsure)) ||
		    !watch_same_override(c ? c->override : NULL, change->override);

	if (!news) {
		/* An older page of a listing may still have to be noted. It must find that this is
		 * newer. */
		if (!c && w->listing)
			c = watch_get(w, change->key, change->key_len);
		if (c)
			c->heard_ms = clock_ms();
		if (c && change->by == STORE_BY_RESET)
			c->unsure = false;
		if (c && c->active)
			c->circuit = change->circuit;
		return;
	}
	c = watch_get(w, change->key, change->key_len);
	if (!c)
		return;
	if (c->active)
		count_active(w, c, -1);
	c->circuit = change->circuit;
	c->heard_ms = clock_ms();
	c->wrote = c->unsure = false;
	if (!watch_same_override(c->override, change->override))
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
		timer_arm(c->override_timer, left);
		return;
	}
	store_health(c->watch->store, &health);
	/* What is known of the circuit may be as old as the override, so the circuit is read first.
	 */
	if (!c->override_ending && health.condition == STORE_READY) {
		c->override_ending = true;
		recheck_now(&c->watch->recheck, &c->check);
		timer_arm(c->override_timer, END_READ_MS);
		return;
	}
	if (c->override)
		c->watch->override_over(c->watch->arg, c);
	watch_note(c->watch, &change);
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
