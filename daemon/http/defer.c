/*
 * Requests that have to wait for a later turn of the loop. One call of libmicrohttpd serves every
 * connection that is ready, however many there are; timers, signals and other descriptors would
 * have to wait for all of them.
 *
 * Each turn has two budgets of time: one for all requests that arrive, and one for those that the
 * handler calls costly. When a budget is spent, further requests wait in its queue, their
 * connections suspended. Each later turn serves both queues in order, for as much time again. A
 * cheap request never waits for a costly one.
 */
#include "base/clock.h"
#include "http/private.h"

#define TURN_NS   UINT64_C(10000000)
#define COSTLY_NS UINT64_C(5000000)
/* To decode a longer body may take a millisecond. */
#define COSTLY_BODY ((size_t)4096)

void http_defer_init(struct http *http)
{
	TAILQ_INIT(&http->deferred);
	TAILQ_INIT(&http->deferred_costly);
}

void http_defer_begin_turn(struct http *http)
{
	http->turn_ns = 0;
	http->costly_ns = 0;
}

bool http_defer_waiting(const struct http *http)
{
	return !TAILQ_EMPTY(&http->deferred) || !TAILQ_EMPTY(&http->deferred_costly);
}

bool http_request_defer(struct http_request *rq)
{
	struct conn *c = http_conn_of(rq);
	struct http *http = c->http;

	if (rq->costly)
		return false;
	rq->costly = true;
	if (TAILQ_EMPTY(&http->deferred_costly) && http->costly_ns < COSTLY_NS)
		return false;
	rq->deferred = true;
	TAILQ_INSERT_TAIL(&http->deferred_costly, c, entry);
	return true;
}

/* Calls the handler at now_ns; counts its time if the request turns out to be costly. Returns the
 * time afterwards, or now_ns if it was not measured. */
static uint64_t call_handler(struct conn *c, uint64_t now_ns)
{
	struct http *http = c->http;
	uint64_t end_ns;

	http->handler(http->arg, &c->rq);
	if (!c->rq.costly || c->rq.deferred)
		return now_ns;
	end_ns = clock_ns();
	http->costly_ns += end_ns - now_ns;
	return end_ns;
}

void http_defer_or_handle(struct conn *c)
{
	struct http *http = c->http;
	struct http_request *rq = &c->rq;

	if (!http->turn_ns)
		http->turn_ns = rq->arrived_ns;
	if (rq->arrived_ns - http->turn_ns > TURN_NS) {
		rq->deferred = true;
		TAILQ_INSERT_TAIL(&http->deferred, c, entry);
	} else if (rq->body_len <= COSTLY_BODY || !http_request_defer(rq)) {
		call_handler(c, rq->arrived_ns);
	}
}

/* Serves the first request of a queue; returns the time afterwards. */
static uint64_t serve(struct http *http, struct conn_list *queue, uint64_t now_ns)
{
	struct conn *c = TAILQ_FIRST(queue);
	uint64_t most_ns = (uint64_t)http->limits.request_timeout_ms * 1000000;

	TAILQ_REMOVE(queue, c, entry);
	c->rq.deferred = false;
	if (now_ns - c->rq.arrived_ns > most_ns)
		http_refuse_deferred(c, "Too many costly requests are waiting. "
					"Try again in a second.");
	else
		call_handler(c, now_ns);
	return clock_ns();
}

void http_defer_serve(struct http *http)
{
	uint64_t begin_ns, now_ns;

	if (!http_defer_waiting(http))
		return;
	begin_ns = now_ns = clock_ns();
	while (!TAILQ_EMPTY(&http->deferred) && now_ns - begin_ns < TURN_NS)
		now_ns = serve(http, &http->deferred, now_ns);
	while (!TAILQ_EMPTY(&http->deferred_costly) && http->costly_ns < COSTLY_NS)
		now_ns = serve(http, &http->deferred_costly, now_ns);
	if (http_defer_waiting(http))
		http_schedule_pump(http);
}

static void refuse_all(struct conn_list *queue)
{
	struct conn *c;

	while ((c = TAILQ_FIRST(queue)) != NULL) {
		TAILQ_REMOVE(queue, c, entry);
		c->rq.deferred = false;
		http_refuse_deferred(c, "breakerd is stopping. Try again in a second.");
	}
}

void http_cut_deferred(struct http *http)
{
	refuse_all(&http->deferred);
	refuse_all(&http->deferred_costly);
}
