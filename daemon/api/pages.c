#include "api/pages.h"

#include "proto/circuit_json.h"

#include <event2/buffer.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- the query of a listing ----------------------------------------------------------- */

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

/* NULL, or what is wrong with the value. */
static const char *read_parameter(enum parameter which, const char *value, size_t len,
				  struct store_query *query)
{
	switch (which) {
	case PARAMETER_STATE:
		query->has_state = circuit_state_parse(value, len, &query->state);
		return query->has_state ? NULL : "`state` is one of closed, open, half-open.";
	case PARAMETER_PREFIX:
		if (len > 0 && key_check(value, len))
			return "`prefix` is the beginning of a key: at most 1024 bytes of UTF-8 "
			       "without control characters.";
		memcpy(query->prefix, value, len);
		query->prefix_len = len;
		return NULL;
	case PARAMETER_LIMIT:
		return read_limit(value, len, &query->limit);
	default:
		return read_cursor(value, len, query);
	}
}

static enum parameter parameter_find(const char *name, size_t len)
{
	int i;

	for (i = 0; i < PARAMETERS; i++) {
		if (strlen(parameter_names[i]) == len && memcmp(parameter_names[i], name, len) == 0)
			break;
	}
	return (enum parameter)i;
}

bool query_decode(const char *text, struct store_query *query, char *why, size_t why_size)
{
	bool seen[PARAMETERS] = {false};
	char value[STORE_CURSOR_MAX];
	const char *end;

	query->limit = LIMIT_DEFAULT;
	for (; text && *text; text = *end ? end + 1 : end) {
		const char *equals, *wrong;
		enum parameter which;
		char name[16];
		long name_len, len;

		end = text + strcspn(text, "&");
		equals = memchr(text, '=', (size_t)(end - text));
		if (!equals) {
			snprintf(why, why_size,
				 "\"%.*s\" is no query parameter: one is written name=value, and "
				 "they are separated by one '&'.",
				 (int)(end - text > 40 ? 40 : end - text), text);
			return false;
		}
		name_len = percent_decode(text, (size_t)(equals - text), name, sizeof(name), true);
		which = name_len < 0 ? PARAMETERS : parameter_find(name, (size_t)name_len);
		if (which == PARAMETERS) {
			snprintf(why, why_size,
				 "Unknown query parameter \"%.*s\": a listing takes "
				 "state, prefix, limit and cursor.",
				 (int)(equals - text > 40 ? 40 : equals - text), text);
			return false;
		}
		if (seen[which]) {
			snprintf(why, why_size, "`%s` is given twice.", parameter_names[which]);
			return false;
		}
		seen[which] = true;
		len = percent_decode(equals + 1, (size_t)(end - equals - 1), value, sizeof(value),
				     true);
		if (len < 0) {
			snprintf(why, why_size,
				 len == PERCENT_BROKEN
					 ? "`%s` has a '%%' without two hexadecimal digits."
					 : "`%s` is too long.",
				 parameter_names[which]);
			return false;
		}
		wrong = read_parameter(which, value, (size_t)len, query);
		if (wrong) {
			snprintf(why, why_size, "%s", wrong);
			return false;
		}
	}
	return true;
}

/* --- the listing ---------------------------------------------------------------------- */

/* A key as a JSON string: valid UTF-8 without control characters, so that two characters
 * need a backslash (RFC 8259, section 7). */
static int add_key(struct evbuffer *out, const char *key, size_t len)
{
	size_t from = 0;

	if (evbuffer_add(out, "\"", 1) != 0)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (key[i] != '"' && key[i] != '\\')
			continue;
		if (evbuffer_add(out, key + from, i - from) != 0 || evbuffer_add(out, "\\", 1) != 0)
			return -1;
		from = i;
	}
	if (evbuffer_add(out, key + from, len - from) != 0)
		return -1;
	return evbuffer_add(out, "\"", 1);
}

int pages_listing(const struct store_page *page, struct evbuffer *out)
{
	char snapshot[CIRCUIT_JSON_MAX];

	if (evbuffer_add_printf(out, "{\"circuits\":[") < 0)
		return -1;
	for (size_t i = 0; i < page->count; i++) {
		const struct store_item *item = &page->items[i];
		size_t len = circuit_json_encode(snapshot, &item->circuit);

		if (evbuffer_add_printf(out, "%s{\"key\":", i ? "," : "") < 0 ||
		    add_key(out, item->key, item->key_len) != 0 || evbuffer_add(out, ",", 1) != 0 ||
		    evbuffer_add(out, snapshot + 1, len - 1) != 0)
			return -1;
	}
	if (page->cursor[0])
		return evbuffer_add_printf(out, "],\"cursor\":\"%s\"}\n", page->cursor) < 0 ? -1
											    : 0;
	return evbuffer_add_printf(out, "],\"cursor\":null}\n") < 0 ? -1 : 0;
}

/* --- readiness and the page for a person ---------------------------------------------- */

static const char *condition_name(enum store_condition condition)
{
	switch (condition) {
	case STORE_READY:
		return "ready";
	case STORE_DEGRADED:
		return "degraded";
	default:
		return "unavailable";
	}
}

char *pages_readiness(const struct store_health *health, size_t *len)
{
	const char *reason = health->reason[0] ? health->reason : NULL;
	json_t *doc = json_pack("{s:s, s:s, s:s?, s:I}", "status",
				condition_name(health->condition), "store", health->store, "reason",
				reason, "since", (json_int_t)health->since_ms);
	char *text = NULL, *line = NULL;

	if (doc)
		text = json_dumps(doc, JSON_COMPACT);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	json_decref(doc);
	if (line)
		*len = strlen(line);
	return line;
}

static void format_stamp(int64_t ms, char *out, size_t size)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(out, size, "%lld", (long long)ms);
}

static int add_circuits(struct evbuffer *out, const struct store_health *health,
			const struct store_page *page, const struct metrics *metrics)
{
	int64_t count[CIRCUIT_STATES] = {0};

	if (page) {
		for (size_t i = 0; i < page->count; i++)
			count[page->items[i].circuit.state]++;
	} else if (health->counts_circuits) {
		memcpy(count, metrics->circuits, sizeof(count));
	} else {
		return evbuffer_add_printf(out, "circuits  not known while the store is away\n");
	}
	return evbuffer_add_printf(out, "circuits  %lld closed, %lld open, %lld half-open%s\n",
				   (long long)count[CIRCUIT_CLOSED], (long long)count[CIRCUIT_OPEN],
				   (long long)count[CIRCUIT_HALF_OPEN],
				   page && page->cursor[0]
					   ? " among the first ones listed; there are more"
					   : "");
}

/* Host goes back to who sent it, as text: only what can be part of an address. */
static bool host_is_plain(const char *host)
{
	return host && strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789.-:[]_") == strlen(host);
}

int pages_index(const struct store_health *health, const struct store_page *page,
		const struct metrics *metrics, const char *host, struct evbuffer *out)
{
	char since[32];

	if (!host_is_plain(host))
		host = "127.0.0.1:8747";
	format_stamp(health->since_ms, since, sizeof(since));
	if (evbuffer_add_printf(out, "breakerd %s\n\nstore     %s, %s since %s%s%s%s%s\n",
				BREAKERD_VERSION, health->store, condition_name(health->condition),
				since, health->detail[0] ? ", " : "", health->detail,
				health->reason[0] ? ": " : "", health->reason) < 0 ||
	    add_circuits(out, health, page, metrics) < 0)
		return -1;
	return evbuffer_add_printf(out,
				   "\n"
				   "GET    /v1/circuits/{key}             read a circuit\n"
				   "POST   /v1/circuits/{key}/success     record a success\n"
				   "POST   /v1/circuits/{key}/failure     record a failure\n"
				   "POST   /v1/circuits/{key}/transition  {\"to\":\"open\"}, "
				   "optionally \"from\"\n"
				   "DELETE /v1/circuits/{key}             reset a circuit\n"
				   "GET    /v1/circuits                   list: ?state= &prefix= "
				   "&limit= &cursor=\n"
				   "GET    /healthz                       the process lives\n"
				   "GET    /readyz                        may traffic come?\n"
				   "GET    /metrics                       for Prometheus\n"
				   "\n"
				   "curl -X POST http://%s/v1/circuits/payments/failure\n",
				   host) < 0
		       ? -1
		       : 0;
}
