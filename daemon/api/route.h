/*
 * The names of the API's routes, as the metrics' label `route` and in what a client is told.
 */
#ifndef BREAKERD_ROUTE_H
#define BREAKERD_ROUTE_H

/* The first is for what is no route (metrics.h asks for that). */
#define API_ROUTES(X)                                                                              \
	X(NONE, "none")                                                                            \
	X(CIRCUIT, "/v1/circuits/{key}")                                                           \
	X(SUCCESS, "/v1/circuits/{key}/success")                                                   \
	X(FAILURE, "/v1/circuits/{key}/failure")                                                   \
	X(TRANSITION, "/v1/circuits/{key}/transition")                                             \
	X(ACQUIRE, "/v1/circuits/{key}/acquire")                                                   \
	X(REPORT, "/v1/circuits/{key}/report")                                                     \
	X(OVERRIDE, "/v1/circuits/{key}/override")                                                 \
	X(CIRCUITS, "/v1/circuits")                                                                \
	X(POLICIES, "/v1/policies")                                                                \
	X(HEALTHZ, "/healthz")                                                                     \
	X(READYZ, "/readyz")                                                                       \
	X(METRICS, "/metrics")                                                                     \
	X(INDEX, "/")

enum api_route {
#define X(id, label) ROUTE_##id,
	API_ROUTES(X)
#undef X
		API_ROUTE_COUNT
};

extern const char *const api_route_names[API_ROUTE_COUNT];

/* The same; ROUTE_NONE's for what is none. Static. */
const char *api_route_name(unsigned route);

#endif
