/* Changes of state: counted and logged. GET /v1/circuits/{key}/changes: a circuit's last ones. */
#include "api/private.h"
#include "api/watch.h"

#include <event2/buffer.h>
#include <inttypes.h>
#include <string.h>

void api_note_transition(struct api *api, const struct http_request *rq, const struct ask *ask,
			 const struct store_result *result, const char *why)
{
	api->metrics->transitions[result->was][result->circuit.state]++;
	if (why)
		watch_explain(api->watch, ask->store.key, ask->store.key_len, &result->circuit,
			      why);
	if (result->was == result->circuit.state ||
	    !log_allows(api->log, &api->changes, LOG_LEVEL_INFO, "state_change"))
		return;
	log_info(api->log, "state_change", "key=%s from=%s to=%s by=%s%s%s",
		 log_quote(ask->store.key, ask->store.key_len).text,
		 circuit_state_name(result->was), circuit_state_name(result->circuit.state),
		 rq ? http_request_peer(rq) : "report_listen", why ? " why=" : "",
		 why ? log_quote_text(why).text : "");
}

static int add_changes(struct evbuffer *out, const struct watched *c)
{
	int failed = evbuffer_add_printf(out, "{\"changes\":[") < 0;

	for (unsigned i = 0; c && i < c->change_count; i++) {
		const struct watch_change *change = watch_change_of(c, i);

		failed |= evbuffer_add_printf(
				  out,
				  "%s{\"at\":%" PRId64
				  ",\"from\":\"%s\",\"to\":\"%s\",\"by\":\"%s\",\"why\":\"%s\"}",
				  i ? "," : "", change->at_ms, circuit_state_name(change->from),
				  circuit_state_name(change->to), watch_by_name(change->by),
				  change->why ? change->why : "") < 0;
	}
	return failed | (evbuffer_add_printf(out, "]}\n") < 0);
}

void api_changes(struct api *api, struct http_request *rq, const struct target *to)
{
	char key[KEY_MAX];
	size_t len;
	struct evbuffer *out;

	if (!api_read_key(rq, to, key, &len) || !api_takes_no_query(rq, to->route))
		return;
	out = evbuffer_new();
	if (!out || add_changes(out, watch_find(api->watch, key, len)) != 0)
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
	else
		api_reply(rq, to->route, JSON, (const char *)evbuffer_pullup(out, -1),
			  evbuffer_get_length(out));
	if (out)
		evbuffer_free(out);
}
