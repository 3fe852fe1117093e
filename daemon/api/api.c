/* The table of routes, and the checks between a request and its handler. */
#include "api/api.h"

#include "api/access.h"
#include "api/private.h"
#include "api/watch.h"
#include "store/count.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The routes of a circuit are KEYED and a tail; those of a check are CHECK, a suffix and "/{key}".
 */
#define CIRCUITS "/v1/circuits/"
#define KEYED    CIRCUITS "{key}"
#define CHECK    "/v1/check"

#define GET    (1u << HTTP_GET | 1u << HTTP_HEAD)
#define POST   (1u << HTTP_POST)
#define PUT    (1u << HTTP_PUT)
#define DELETE (1u << HTTP_DELETE)
#define ANY    (~0u)

struct route {
	bool keyed;       /* its name begins with KEYED */
	unsigned methods; /* bits 1 << enum http_method */
	api_handler_fn *handle;
	bool costly; /* its answer may take a millisecond or more */
};

static const struct route routes[API_ROUTE_COUNT] = {
	[ROUTE_CIRCUIT] = {true, GET | DELETE, api_circuit, false},
	[ROUTE_SUCCESS] = {true, POST, api_success, false},
	[ROUTE_FAILURE] = {true, POST, api_failure, false},
	[ROUTE_TRANSITION] = {true, POST, api_transition, false},
	[ROUTE_ACQUIRE] = {true, POST, api_acquire, false},
	[ROUTE_REPORT] = {true, POST, api_report, false},
	[ROUTE_OVERRIDE] = {true, GET | PUT | DELETE, api_override, false},
	[ROUTE_CHECK] = {false, ANY, api_check, false},
	[ROUTE_CHECK_401] = {false, ANY, api_check, false},
	[ROUTE_CHECK_429] = {false, ANY, api_check, false},
	[ROUTE_CHECK_503] = {false, ANY, api_check, false},
	[ROUTE_CHANGES] = {true, GET, api_changes, false},
	[ROUTE_EVENTS] = {false, GET, api_events, false},
	[ROUTE_CIRCUITS] = {false, GET, api_circuits, true},
	[ROUTE_POLICIES] = {false, GET, api_policies, true},
	[ROUTE_HEALTHZ] = {false, GET, api_healthz, false},
	[ROUTE_READYZ] = {false, GET, api_readyz, false},
	[ROUTE_METRICS] = {false, GET, api_metrics, true},
	[ROUTE_PAGE] = {false, GET, api_page, false},
	[ROUTE_INDEX] = {false, GET, api_index, true},
};

/* Finds the route by its path or, if `keyed`, by the tail that follows the key. ROUTE_NONE: there
 * is no such route. Comparing length and second byte first saves time. */
static enum api_route find_route(bool keyed, const char *path)
{
	static const unsigned char lengths[API_ROUTE_COUNT] = {
#define X(id, label) sizeof(label) - 1,
		API_ROUTES(X)
#undef X
	};
	size_t skip = keyed ? strlen(KEYED) : 0;
	size_t len = strlen(path);

	if (len == 0)
		return keyed ? ROUTE_CIRCUIT : ROUTE_NONE;
	for (unsigned r = ROUTE_NONE + 1; r < API_ROUTE_COUNT; r++)
		if (lengths[r] == skip + len && api_route_names[r][skip + 1] == path[1] &&
		    routes[r].keyed == keyed && memcmp(api_route_names[r] + skip, path, len) == 0)
			return (enum api_route)r;
	return ROUTE_NONE;
}

/*
 * The route of a check. Its key ends at the next '/'. What follows is the path that an end user
 * asked the gateway for, and is ignored.
 */
static struct target check_route_of(const char *path)
{
	const char *slash = strchr(path + strlen(CHECK), '/');
	struct target target = {.route = ROUTE_NONE};
	size_t len = slash ? (size_t)(slash - path) : 0;

	for (unsigned r = ROUTE_CHECK; slash && r <= ROUTE_CHECK_503; r++) {
		const char *name = api_route_names[r];

		if (strncmp(name, path, len) != 0 || name[len] != '/')
			continue;
		target.route = (enum api_route)r;
		target.segment = slash + 1;
		target.segment_len = strcspn(target.segment, "/");
	}
	return target;
}

static struct target route_of(const char *path)
{
	struct target target = {.route = ROUTE_NONE};

	if (strncmp(path, CIRCUITS, strlen(CIRCUITS)) == 0) {
		const char *tail;

		target.segment = path + strlen(CIRCUITS);
		tail = strchrnul(target.segment, '/');
		target.segment_len = (size_t)(tail - target.segment);
		target.route = find_route(true, tail);
	} else if (strncmp(path, CHECK, strlen(CHECK)) == 0) {
		target = check_route_of(path);
	} else {
		target.route = find_route(false, path);
	}
	return target;
}

/* Writes the methods of a route as Allow lists them (RFC 9110, section 10.2.1). */
static void list_methods(unsigned methods, char *out, size_t size)
{
	size_t len = 0;

	out[0] = '\0';
	for (unsigned m = 0; m < HTTP_METHODS && len < size; m++)
		if (methods & 1u << m)
			len += (size_t)snprintf(out + len, size - len, "%s%s", len ? ", " : "",
						http_method_name((enum http_method)m));
}

static void refuse_method(struct http_request *rq, enum api_route route)
{
	char allow[64], detail[256];
	const struct http_header header = {"Allow", allow};
	const struct api_problem what = {
		.problem = PROBLEM_METHOD_NOT_ALLOWED,
		.detail = detail,
		.applied = api_is_writing(rq) ? PROBLEM_APPLIED_NO : PROBLEM_APPLIED_NONE,
		.headers = &header,
		.header_count = 1,
	};

	list_methods(routes[route].methods, allow, sizeof(allow));
	snprintf(detail, sizeof(detail), "%s takes %s.", api_route_name(route), allow);
	api_reply_problem(rq, route, &what);
}

static void refuse_body(const struct api *api, struct http_request *rq, enum api_route route)
{
	char detail[128];

	snprintf(detail, sizeof(detail), "The body is over the limit of %zu bytes (max_body).",
		 api->access.max_body);
	api_refuse(rq, route, PROBLEM_BODY_TOO_LARGE, detail);
}

/* True for a route that this listener does not have: metrics_listen has three alone. */
static bool is_out_of_place(const struct http_request *rq, enum api_route route)
{
	return http_request_purpose(rq) == ACCESS_METRICS && route != ROUTE_METRICS &&
	       route != ROUTE_HEALTHZ && route != ROUTE_READYZ;
}

void api_handle(void *arg, struct http_request *rq)
{
	struct api *api = arg;
	struct target to = route_of(http_request_path(rq));
	const struct route *route = &routes[to.route];
	struct access_verdict verdict;
	bool too_large;
	size_t len;

	if (is_out_of_place(rq, to.route)) {
		api_refuse(
			rq, ROUTE_NONE, PROBLEM_NOT_FOUND,
			"This address (metrics_listen) has /metrics, /healthz and /readyz alone.");
		return;
	}
	if (!access_check(&api->access, rq, to.route, &verdict)) {
		api_refuse(rq, to.route, verdict.problem, verdict.detail);
		return;
	}
	if (!route->handle) {
		api_refuse(rq, to.route, PROBLEM_NOT_FOUND,
			   "No such route; GET / lists them. A '/' inside a key is written %2F.");
		return;
	}
	if (!(route->methods & 1u << http_request_method(rq))) {
		refuse_method(rq, to.route);
		return;
	}
	http_request_body(rq, &len, &too_large);
	/* The body of a check is the end user's, and an end user must not turn a decision into an
	 * error. */
	if (too_large && !api_route_is_check(to.route))
		refuse_body(api, rq, to.route);
	else if (!route->costly || !http_request_defer(rq))
		route->handle(api, rq, &to);
}

struct api *api_new(struct event_base *base, struct store *store, const struct api_access *access,
		    const struct policy_set *policies, const struct api_limits *limits,
		    struct metrics *metrics, struct log *log)
{
	struct api *api = calloc(1, sizeof(*api));

	if (!api)
		return NULL;
	api->store = store;
	api->access = *access;
	api->policies = policies;
	api->metrics = metrics;
	metrics->routes = (struct metrics_label){api_route_name, API_ROUTE_COUNT};
	store_count_init(metrics);
	api_decisions_init(api);
	api->log = log;
	TAILQ_INIT(&api->waiting);
	api->max_streams = limits->max_streams;
	api->metrics_circuits = limits->metrics_circuits;
	api->max_lines = limits->max_lines;
	if (api_events_init(api, base, limits->max_circuits) != 0) {
		api_free(api);
		return NULL;
	}
	return api;
}

void api_reconfigure(struct api *api, const struct api_access *access,
		     const struct policy_set *policies, const struct api_limits *limits)
{
	api->max_streams = limits->max_streams;
	api->metrics_circuits = limits->metrics_circuits;
	api->max_lines = limits->max_lines;
	api->watch->max = limits->max_circuits;
	api->access = *access;
	api->policies = policies;
}

void api_abort(struct api *api)
{
	api_ask_abort(api);
}

void api_free(struct api *api)
{
	if (!api)
		return;
	api_events_free(api);
	free(api);
}
