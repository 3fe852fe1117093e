/* Changes of state: counted and logged, whatever led to them. */
#include "api/private.h"
#include "api/watch.h"

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
