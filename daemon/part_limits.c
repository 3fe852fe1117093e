/* Settings as each part takes them: see part_limits.h. */
#include "part_limits.h"

struct store_limits limits_of_store(const struct config *config)
{
	return (struct store_limits){
		.timeout_ms = (unsigned)config->store_timeout_ms,
		.max_in_flight = config->max_in_flight,
		.ttl_ms = config->ttl_ms,
		.max_circuits = config->max_circuits,
		.max_staleness_ms = (unsigned)config->max_staleness_ms,
		.read_cache = config->read_cache,
		.report_interval_ms = (unsigned)config->report_interval_ms,
	};
}

struct http_limits limits_of_http(const struct config *config, const struct descriptor_share *share)
{
	return (struct http_limits){
		.max_connections = share->max_connections,
		.max_head = config->max_head,
		.max_body = config->max_body,
		.idle_timeout_ms = (unsigned)config->idle_timeout_ms,
		.request_timeout_ms = (unsigned)config->request_timeout_ms,
		.max_unsent = config->max_unsent,
	};
}

struct api_limits limits_of_api(const struct config *config, const struct descriptor_share *share)
{
	return (struct api_limits){
		.max_streams = share->max_streams,
		.max_circuits = config->max_circuits,
		.metrics_circuits = config->metrics_circuits,
		/* Reports out of logs leave room for requests, whose clients wait for an answer. */
		.max_lines = config->max_in_flight < 4 ? 1 : config->max_in_flight / 4,
	};
}

void limits_show(struct metrics *metrics, const struct config *config,
		 const struct descriptor_share *share)
{
	metrics->store_in_flight_limit = config->max_in_flight;
	metrics->circuits_limit = config->max_circuits;
	metrics->http_connections_limit = share->max_connections;
}
