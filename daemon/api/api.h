/*
 * The HTTP API: routes, access checks, decoding, the store, encoding.
 */
#ifndef BREAKERD_API_H
#define BREAKERD_API_H

#include "api/access.h"
#include "base/metrics.h"
#include "http/http.h"
#include "proto/policy_set.h"
#include "store/store.h"

struct api;

struct api_limits {
	unsigned max_streams;      /* of events, at once */
	size_t max_circuits;       /* circuits that are watched (watch.h) */
	unsigned metrics_circuits; /* circuits named in /metrics */
	unsigned max_lines;        /* reports out of logs that wait for the store; 1 or more */
};

/* NULL when out of memory. All but `access` and `limits` must outlive it, `policies` until
 * api_reconfigure. */
struct api *api_new(struct event_base *base, struct store *store, const struct api_access *access,
		    const struct policy_set *policies, const struct api_limits *limits,
		    struct metrics *metrics, struct log *log);

void api_reconfigure(struct api *api, const struct api_access *access,
		     const struct policy_set *policies, const struct api_limits *limits);

/* An http_handler_fn; arg is the api. */
void api_handle(void *api, struct http_request *request);

/* Answers every request that still waits for the store with store_unavailable. */
void api_abort(struct api *api);

/* Nothing may be waiting any more (api_abort). NULL is allowed. */
void api_free(struct api *api);

#endif
