/* GET /ui: the page for a browser, and the redirect to it. */
#include "api/page_html.h"
#include "api/private.h"

#include <event2/buffer.h>

void api_page(struct api *api, struct http_request *rq, const struct target *to)
{
	static const struct http_header headers[] = {
		{"Content-Security-Policy", page_policy},
		{"X-Frame-Options", "DENY"}, /* for browsers that do not know frame-ancestors */
		{"X-Content-Type-Options", "nosniff"},
		{"Referrer-Policy", "no-referrer"},
		{"Cross-Origin-Resource-Policy", "same-origin"},
		{"Cache-Control", "no-store"},
	};
	struct http_reply reply = {
		.status = 200,
		.content_type = "text/html; charset=utf-8",
		.headers = headers,
		.header_count = sizeof(headers) / sizeof(headers[0]),
		.route = (int)to->route,
	};
	struct evbuffer *out;

	if (!api_takes_no_query(rq, to->route))
		return;
	out = evbuffer_new();
	if (out && evbuffer_add_printf(out, "%s%s%s", page_before_token,
				       api->access.token ? "yes" : "no", page_after_token) > 0) {
		reply.len = evbuffer_get_length(out);
		reply.body = (const char *)evbuffer_pullup(out, -1);
		http_reply(rq, &reply);
	} else {
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
	}
	if (out)
		evbuffer_free(out);
}

void api_lead_to_page(struct http_request *rq, enum api_route route)
{
	static const struct http_header headers[] = {
		{"Location", "/ui"},
		{"Cache-Control", "no-store"},
	};
	const struct http_reply reply = {
		.status = 303,
		.headers = headers,
		.header_count = sizeof(headers) / sizeof(headers[0]),
		.route = (int)route,
	};

	http_reply(rq, &reply);
}
