#include "api/route.h"

#include "base/metrics.h"

_Static_assert(API_ROUTE_COUNT <= METRICS_ROUTES, "each route is counted by itself");

const char *api_route_name(unsigned route)
{
	static const char *const names[] = {
#define X(id, label) label,
		API_ROUTES(X)
#undef X
	};

	return names[route < API_ROUTE_COUNT ? route : ROUTE_NONE];
}
