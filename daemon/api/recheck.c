#include "api/recheck.h"

#include "base/clock.h"
#include "base/timer.h"

#include <event2/event.h>
#include <stddef.h>

#define FIRST_MS 2000
#define MAX_MS   60000
/* After a read that differs, the next one follows after this time: a message that tells the same
 * may be on its way. */
#define DOUBT_MS 50
/* The least time between two reads, and between two attempts while the store is away. */
#define PAUSE_MS 5
#define AWAY_MS  1000

static void arm(struct recheck *r)
{
	int64_t wait;

	if (r->op || r->nodes.count == 0)
		return;
	wait = r->nodes.nodes[0]->value - clock_ms();
	timer_arm(r->timer, wait > PAUSE_MS ? wait : PAUSE_MS);
}

static void schedule(struct recheck *r, struct recheck_node *node, int64_t ms)
{
	minheap_remove(&r->nodes, &node->due);
	minheap_add(&r->nodes, &node->due, clock_ms() + ms);
}

void recheck_begin(struct recheck *r, struct recheck_node *node)
{
	node->doubted = false;
	node->interval_ms = FIRST_MS;
	schedule(r, node, node->interval_ms);
	/* A timer that is set fires before this node is due. */
	if (!evtimer_pending(r->timer, NULL))
		arm(r);
}

void recheck_end(struct recheck *r, struct recheck_node *node)
{
	node->doubted = false;
	minheap_remove(&r->nodes, &node->due);
	if (r->reading == node)
		r->reading = NULL;
}

void recheck_doubt(struct recheck *r, struct recheck_node *node)
{
	if (node->doubted)
		return;
	node->doubted = true;
	node->interval_ms = FIRST_MS;
	schedule(r, node, DOUBT_MS);
	arm(r);
}

void recheck_now(struct recheck *r, struct recheck_node *node)
{
	node->doubted = true;
	node->interval_ms = FIRST_MS;
	schedule(r, node, 0);
	arm(r);
}

static void take(struct recheck *r, struct recheck_node *node, const struct store_result *result)
{
	bool differs = result->status == STORE_OK && !result->degraded &&
		       r->on->differs(node, result, r->read_began_ms);
	bool again = node->doubted;

	if (differs && !again) {
		recheck_doubt(r, node);
		return;
	}
	node->doubted = false;
	if (differs) {
		r->on->take(node, result);
		return;
	}
	if (!r->on->keeps(node))
		return;
	node->interval_ms = 2 * node->interval_ms < MAX_MS ? 2 * node->interval_ms : MAX_MS;
	schedule(r, node, node->interval_ms);
}

static void on_read(void *arg, struct store_result *result)
{
	struct recheck *r = arg;
	struct recheck_node *node = r->reading;

	r->op = NULL;
	r->reading = NULL;
	if (node)
		take(r, node, result);
	arm(r);
}

static void read_first(struct recheck *r)
{
	struct store_request get = {.op = {.verb = CIRCUIT_GET_STATE}, .with_member = true};
	struct store_result result;

	r->reading = (struct recheck_node *)(void *)((char *)r->nodes.nodes[0] -
						     offsetof(struct recheck_node, due));
	minheap_remove(&r->nodes, &r->reading->due);
	get.key = r->on->key(r->reading, &get.key_len);
	r->read_began_ms = clock_ms();
	r->op = store_submit(r->store, &get, on_read, r, &result);
	if (!r->op)
		on_read(r, &result);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct recheck *r = arg;
	struct store_health health;

	(void)fd;
	(void)what;
	if (r->nodes.count == 0 || r->op)
		return;
	if (r->nodes.nodes[0]->value > clock_ms()) {
		arm(r);
		return;
	}
	store_health(r->store, &health);
	if (health.condition == STORE_READY)
		read_first(r);
	else
		timer_arm(r->timer, AWAY_MS);
}

int recheck_init(struct recheck *r, struct event_base *base, struct store *store,
		 const struct recheck_events *events)
{
	r->store = store;
	r->on = events;
	r->timer = evtimer_new(base, on_timer, r);
	return r->timer ? 0 : -1;
}

void recheck_fini(struct recheck *r)
{
	if (r->op)
		store_cancel(r->op);
	if (r->timer)
		event_free(r->timer);
	minheap_fini(&r->nodes);
	*r = (struct recheck){0};
}
