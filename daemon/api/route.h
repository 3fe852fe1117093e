/*
 * The names of the API's routes, as the metrics' label `route` and in what a client is told.
 */
#ifndef BREAKERD_ROUTE_H
#define BREAKERD_ROUTE_H

#include <stdbool.h>

/* The first is for paths that are no route; metrics.h wants it to be 0. */
#define API_ROUTES(X)                                                                              \
	X(NONE, "none")                                                                            \
	X(CIRCUIT, "/v1/circuits/{key}")                                                           \
	X(ACQUIRE, "/v1/circuits/{key}/acquire")                                                   \
	X(REPORT, "/v1/circuits/{key}/report")                                                     \
	X(SUCCESS, "/v1/circuits/{key}/success")                                                   \
	X(FAILURE, "/v1/circuits/{key}/failure")                                                   \
	X(TRANSITION, "/v1/circuits/{key}/transition")                                             \
	X(OVERRIDE, "/v1/circuits/{key}/override")                                                 \
	X(CHECK, "/v1/check/{key}")                                                                \
	X(CHECK_401, "/v1/check-401/{key}")                                                        \
	X(CHECK_429, "/v1/check-429/{key}")                                                        \
	X(CHECK_503, "/v1/check-503/{key}")                                                        \
	X(CHANGES, "/v1/circuits/{key}/changes")                                                   \
	X(CIRCUITS, "/v1/circuits")                                                                \
	X(EVENTS, "/v1/events")                                                                    \
	X(POLICIES, "/v1/policies")                                                                \
	X(HEALTHZ, "/healthz")                                                                     \
	X(READYZ, "/readyz")                                                                       \
	X(METRICS, "/metrics")                                                                     \
	X(PAGE, "/ui")                                                                             \
	X(INDEX, "/")

enum api_route {
#define X(id, label) ROUTE_##id,
	API_ROUTES(X)
#undef X
		API_ROUTE_COUNT
};

extern const char *const api_route_names[API_ROUTE_COUNT];

/* True for the sub-requests of gateways: /v1/check, /v1/check-401 and so on. */
static inline bool api_route_is_check(enum api_route route)
{
	return route >= ROUTE_CHECK && route <= ROUTE_CHECK_503;
}

/* The name of a route, static; that of ROUTE_NONE for a number that is no route. */
const char *api_route_name(unsigned route);

#endif
