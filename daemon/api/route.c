#include "api/route.h"

#include "base/metrics.h"

_Static_assert(API_ROUTE_COUNT <= METRICS_ROUTES, "each route is counted by itself");

const char *const api_route_names[API_ROUTE_COUNT] = {
#define X(id, label) label,
	API_ROUTES(X)
#undef X
};

const char *api_route_name(unsigned route)
{
	return api_route_names[route < API_ROUTE_COUNT ? route : ROUTE_NONE];
}
