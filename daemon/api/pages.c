/* The daemon's own pages: for a person, for probes, for Prometheus. */
#include "api/access.h"
#include "api/private.h"
#include "proto/key.h"
#include "store/count.h"

#include <event2/buffer.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *condition_name(enum store_condition condition)
{
	switch (condition) {
	case STORE_READY:
		return "ready";
	case STORE_DEGRADED:
		return "degraded";
	default:
		return "unavailable";
	}
}

/* Room for any reason once it is UTF-8. */
#define REASON_MAX (3 * sizeof(((struct store_health *)NULL)->reason))

/* {"status":...,"store":...,"reason":...,"since":...}, to be freed; NULL when out of memory. */
static char *write_readiness(const struct store_health *health, size_t *len)
{
	char reason[REASON_MAX];
	/* The reason may name a path, and so hold any bytes. */
	bool has_reason =
		utf8_clean(reason, sizeof(reason), health->reason, strlen(health->reason)) > 0;
	json_t *doc = json_pack("{s:s, s:s, s:s?, s:I}", "status",
				condition_name(health->condition), "store", health->store, "reason",
				has_reason ? reason : NULL, "since", (json_int_t)health->since_ms);
	char *text = NULL, *line = NULL;

	if (doc)
		text = json_dumps(doc, JSON_COMPACT);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	json_decref(doc);
	if (line)
		*len = strlen(line);
	return line;
}

static void format_stamp(int64_t ms, char *out, size_t size)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(out, size, "%lld", (long long)ms);
}

/* Writes how many circuits are in each state. If there are more than the page holds, the numbers
 * are those that the watch knows: of circuits that are not closed. */
static int add_circuits(struct evbuffer *out, const struct store_health *health,
			const struct store_page *page, const struct metrics *metrics)
{
	int64_t count[CIRCUIT_STATES] = {0};
	bool many = page && page->cursor[0];

	if (many || health->counts_circuits) {
		memcpy(count, many ? metrics->watched : metrics->circuits, sizeof(count));
	} else if (page) {
		for (size_t i = 0; i < page->count; i++)
			count[page->items[i].circuit.state]++;
	} else {
		return evbuffer_add_printf(out, "circuits  not known while the store is away\n");
	}
	if (many)
		return evbuffer_add_printf(out,
					   "circuits  more than 1000, %lld open, %lld half-open\n",
					   (long long)count[CIRCUIT_OPEN],
					   (long long)count[CIRCUIT_HALF_OPEN]);
	return evbuffer_add_printf(out, "circuits  %lld closed, %lld open, %lld half-open\n",
				   (long long)count[CIRCUIT_CLOSED], (long long)count[CIRCUIT_OPEN],
				   (long long)count[CIRCUIT_HALF_OPEN]);
}

/* True if Host may be shown to the client that sent it: it has only what an address can have. */
static bool host_is_plain(const char *host)
{
	return host && strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789.-:[]_") == strlen(host);
}

/*
 * Writes version, store, circuits by state (counted in `page` if there is one, else from the
 * metrics of a store that counts its circuits), the circuits that are not closed, and the
 * endpoints. `host` is the Host asked for, or NULL. 0, or -1 when out of memory.
 */
static int write_index(struct api *api, const struct store_health *health,
		       const struct store_page *page, const char *host, struct evbuffer *out)
{
	char since[32], reason[REASON_MAX], detail[3 * sizeof(health->detail)];

	if (!host_is_plain(host))
		host = "127.0.0.1:8747";
	utf8_clean(reason, sizeof(reason), health->reason, strlen(health->reason));
	utf8_clean(detail, sizeof(detail), health->detail, strlen(health->detail));
	format_stamp(health->since_ms, since, sizeof(since));
	if (evbuffer_add_printf(out, "breakerd %s\n\nstore     %s, %s since %s%s%s%s%s\n",
				BREAKERD_VERSION, health->store, condition_name(health->condition),
				since, detail[0] ? ", " : "", detail, reason[0] ? ": " : "",
				reason) < 0 ||
	    add_circuits(out, health, page, api->metrics) < 0 || api_add_open_lines(api, out) != 0)
		return -1;
	return evbuffer_add_printf(
		       out,
		       "\n"
		       "POST   /v1/circuits/{key}/acquire     may this request pass?\n"
		       "POST   /v1/circuits/{key}/report      {\"outcome\":\"failure\"}: "
		       "what became of it\n"
		       "GET    /v1/check/{key}                acquire as a gateway's "
		       "sub-request\n"
		       "GET    /v1/policies                   what opens and closes: ?key=\n"
		       "GET    /v1/circuits/{key}             read a circuit\n"
		       "POST   /v1/circuits/{key}/success     record a success\n"
		       "POST   /v1/circuits/{key}/failure     record a failure\n"
		       "POST   /v1/circuits/{key}/transition  {\"to\":\"open\"}, "
		       "optionally \"from\"\n"
		       "DELETE /v1/circuits/{key}             reset a circuit\n"
		       "PUT    /v1/circuits/{key}/override    force it open or closed, "
		       "for all gateways\n"
		       "GET    /v1/circuits/{key}/changes     its last changes\n"
		       "GET    /v1/events                     changes as they happen\n"
		       "GET    /v1/circuits                   list: ?state= &prefix= "
		       "&limit= &cursor=\n"
		       "GET    /healthz                       the process lives\n"
		       "GET    /readyz                        may traffic come?\n"
		       "GET    /metrics                       for Prometheus\n"
		       "GET    /ui                            a page for a browser\n"
		       "\n"
		       "curl -X POST http://%s/v1/circuits/payments/failure\n",
		       host) < 0
		       ? -1
		       : 0;
}

static void reply_index(struct api *api, struct http_request *rq, const struct store_page *page,
			bool is_degraded)
{
	const char *host = http_request_header(rq, HTTP_FIELD_HOST, NULL);
	struct evbuffer *out = evbuffer_new();
	struct http_reply reply = {
		.status = 200,
		.content_type = "text/plain; charset=utf-8",
		.headers = &api_degraded,
		.header_count = is_degraded ? 1 : 0,
		.route = ROUTE_INDEX,
	};
	struct store_health health;

	store_health(api->store, &health);
	if (!out || write_index(api, &health, page, host, out) != 0) {
		api_refuse(rq, ROUTE_INDEX, PROBLEM_OVERLOADED, NO_MEMORY);
	} else {
		reply.len = evbuffer_get_length(out);
		reply.body = (const char *)evbuffer_pullup(out, -1);
		http_reply(rq, &reply);
	}
	if (out)
		evbuffer_free(out);
}

/* After an error result->page is NULL, and the page says that the circuits are not known. */
static void answer_index(struct api *api, struct http_request *rq, const struct ask *ask,
			 const struct store_result *result, uint64_t now_ns)
{
	(void)ask;
	(void)now_ns;
	reply_index(api, rq, result->page, result->degraded);
}

void api_index(struct api *api, struct http_request *rq, const struct target *to)
{
	const struct ask ask = {
		.route = to->route,
		.operation = STORE_OPERATION_LIST,
		.answer = answer_index,
		.answers_errors = true,
	};
	struct store_query *query;
	struct store_health health;

	if (access_is_browser(rq)) {
		api_lead_to_page(rq, to->route);
		return;
	}
	/* The embedded store's circuits are counted; those in Redis have to be listed. */
	store_health(api->store, &health);
	if (health.counts_circuits || health.condition == STORE_AWAY) {
		reply_index(api, rq, NULL, false);
		return;
	}
	query = calloc(1, sizeof(*query));
	if (!query) {
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
		return;
	}
	query->limit = 1000;
	api_ask(api, rq, &ask, query);
	free(query);
}

void api_healthz(struct api *api, struct http_request *rq, const struct target *to)
{
	static const char body[] = "{\"status\":\"ok\"}\n";

	(void)api;
	api_reply(rq, to->route, JSON, body, sizeof(body) - 1);
}

void api_readyz(struct api *api, struct http_request *rq, const struct target *to)
{
	struct store_health health;
	char *body;
	struct http_reply reply = {
		.status = 200,
		.content_type = JSON,
		.route = to->route,
	};

	store_health(api->store, &health);
	body = write_readiness(&health, &reply.len);
	if (!body) {
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
		return;
	}
	reply.body = body;
	if (health.condition == STORE_AWAY)
		reply.status = 503;
	http_reply(rq, &reply);
	free(body);
}

void api_metrics(struct api *api, struct http_request *rq, const struct target *to)
{
	struct evbuffer *out = evbuffer_new();
	struct store_health health;

	store_health(api->store, &health);
	api->metrics->store_up = health.condition == STORE_READY;
	api->metrics->store_degraded = health.condition == STORE_DEGRADED;
	api->metrics->store_in_flight = health.in_flight;
	if (!out || metrics_write(api->metrics, out) != 0 ||
	    (!http_is_sending_much(rq) && api_add_open_metric(api, out) != 0))
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
	else
		api_reply(rq, to->route, "text/plain; version=0.0.4; charset=utf-8",
			  (const char *)evbuffer_pullup(out, -1), evbuffer_get_length(out));
	if (out)
		evbuffer_free(out);
}
