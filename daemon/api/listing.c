/* GET /v1/circuits: the query of a listing, and its body. */
#include "api/private.h"
#include "proto/circuit_json.h"
#include "store/count.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum parameter {
	PARAMETER_STATE,
	PARAMETER_PREFIX,
	PARAMETER_LIMIT,
	PARAMETER_CURSOR,
	PARAMETERS,
};

static const char *const parameter_names[PARAMETERS] = {"state", "prefix", "limit", "cursor"};

#define LIMIT_DEFAULT 100
#define LIMIT_MAX     1000

static const char *read_limit(const char *value, size_t len, unsigned *limit)
{
	unsigned n = 0;

	for (size_t i = 0; i < len && i < 5; i++) {
		if (value[i] < '0' || value[i] > '9')
			return "`limit` is a number from 1 to 1000.";
		n = n * 10 + (unsigned)(value[i] - '0');
	}
	if (len == 0 || len > 4 || n < 1 || n > LIMIT_MAX)
		return "`limit` is a number from 1 to 1000.";
	*limit = n;
	return NULL;
}

static const char *read_cursor(const char *value, size_t len, struct store_query *query)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789-_.";

	if (len >= sizeof(query->cursor) || memchr(value, '\0', len))
		return "`cursor` is none of this daemon's: take it from the page before.";
	memcpy(query->cursor, value, len);
	query->cursor[len] = '\0';
	if (strspn(query->cursor, letters) != len)
		return "`cursor` is none of this daemon's: take it from the page before.";
	return NULL;
}

const char *api_read_state(struct store_query *query, const char *value, size_t len)
{
	query->has_state = circuit_state_parse(value, len, &query->state);
	return query->has_state ? NULL : "`state` is one of closed, open, half-open.";
}

const char *api_read_prefix(struct store_query *query, const char *value, size_t len)
{
	if (len > 0 && key_check(value, len))
		return "`prefix` is the beginning of a key: at most 1024 bytes of UTF-8 without "
		       "control characters.";
	memcpy(query->prefix, value, len);
	query->prefix_len = len;
	return NULL;
}

/* NULL, or what is wrong with the value. */
static const char *read_parameter(void *arg, unsigned which, const char *value, size_t len)
{
	struct store_query *query = arg;

	switch ((enum parameter)which) {
	case PARAMETER_STATE:
		return api_read_state(query, value, len);
	case PARAMETER_PREFIX:
		return api_read_prefix(query, value, len);
	case PARAMETER_LIMIT:
		return read_limit(value, len, &query->limit);
	default:
		return read_cursor(value, len, query);
	}
}

/*
 * Reads the query of a listing (NULL: none) into *query, which the caller has zeroed. False with a
 * sentence for the client in why.
 */
static bool query_decode(const char *text, struct store_query *query, char *why, size_t why_size)
{
	static const struct api_query parameters = {
		.names = parameter_names,
		.count = PARAMETERS,
		.takes = "a listing takes state, prefix, limit and cursor",
		.read = read_parameter,
	};

	query->limit = LIMIT_DEFAULT;
	return api_read_query(&parameters, text, query, why, why_size);
}

/* Writes {"circuits":[...],"cursor":...}. 0, or -1 when out of memory. */
static int write_page(const struct store_page *page, struct evbuffer *out)
{
	if (evbuffer_add_printf(out, "{\"circuits\":[") < 0)
		return -1;
	for (size_t i = 0; i < page->count; i++) {
		const struct store_item *item = &page->items[i];

		if (evbuffer_add_printf(out, i ? ",{" : "{") < 0 ||
		    api_add_item(out, item->key, item->key_len, &item->circuit, item->override) !=
			    0 ||
		    evbuffer_add(out, "}", 1) != 0)
			return -1;
	}
	if (page->cursor[0])
		return evbuffer_add_printf(out, "],\"cursor\":\"%s\"}\n", page->cursor) < 0 ? -1
											    : 0;
	return evbuffer_add_printf(out, "],\"cursor\":null}\n") < 0 ? -1 : 0;
}

#define MUCH_UNSENT "Clients have still to take answers of max_unsent bytes. Try again in a second."

static void answer_page(struct api *api, struct http_request *rq, const struct ask *ask,
			const struct store_result *result, uint64_t now_ns)
{
	struct http_reply reply = {
		.status = 200,
		.content_type = JSON,
		.headers = &api_degraded,
		.header_count = result->degraded ? 1 : 0,
		.route = ask->route,
		.now_ns = now_ns,
	};
	struct evbuffer *out = evbuffer_new();

	(void)api;
	if (http_is_sending_much(rq)) {
		api_refuse(rq, ask->route, PROBLEM_OVERLOADED, MUCH_UNSENT);
	} else if (!out || write_page(result->page, out) != 0) {
		api_refuse(rq, ask->route, PROBLEM_OVERLOADED, NO_MEMORY);
	} else {
		reply.len = evbuffer_get_length(out);
		reply.body = (const char *)evbuffer_pullup(out, -1);
		http_reply(rq, &reply);
	}
	if (out)
		evbuffer_free(out);
}

void api_circuits(struct api *api, struct http_request *rq, const struct target *to)
{
	const struct ask ask = {
		.route = to->route,
		.operation = STORE_OPERATION_LIST,
		.answer = answer_page,
	};
	struct store_query *query = calloc(1, sizeof(*query));
	char why[160];

	if (!query)
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
	else if (!query_decode(http_request_query(rq), query, why, sizeof(why)))
		api_refuse(rq, to->route, PROBLEM_INVALID_QUERY, why);
	else if (http_is_sending_much(rq))
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, MUCH_UNSENT);
	else
		api_ask(api, rq, &ask, query);
	free(query);
}
