/*
 * Reads of a circuit: clients' reads that differ from what is known, and our own rechecks.
 */
#include "api/watch_private.h"

#include <stddef.h>

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

	if (c->override_ending)
		return true;
	/* What was heard since the read began is newer than the read. */
	if (c->heard_ms < began_ms && watch_differs(c, result->circuit.state, result->override))
		return true;
	c->unsure = false;
	return false;
}

static bool on_recheck_keeps(const struct recheck_node *node)
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
		.by = watch_changed_by(c, &result->circuit, result->absent),
	};

	if (result->absent)
		change.circuit.last_state_change = store_clock_ms(c->watch->store);
	if (c->override_ending && c->override) {
		/* By Redis's clock the override may hold for a moment longer. */
		if (watch_same_override(c->override, change.override))
			change.override = NULL;
		if (!change.override)
			change.by = STORE_BY_OVERRIDE;
		c->watch->override_over(c->watch->arg, c);
	}
	c->unsure = false;
	watch_note(c->watch, &change);
}

const struct recheck_events watch_recheck_events = {
	.key = on_recheck_key,
	.differs = on_recheck_differs,
	.keeps = on_recheck_keeps,
	.take = on_recheck_take,
};

void watch_read(struct watch *w, const char *key, size_t len, enum circuit_state state,
		const struct breaker_override *override)
{
	struct watched *c;

	if (w->embedded || (state == CIRCUIT_CLOSED && !override && TAILQ_EMPTY(&w->active)) ||
	    !watch_differs(watch_find(w, key, len), state, override))
		return;
	c = watch_get(w, key, len);
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
