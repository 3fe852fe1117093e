/* GET /v1/policies: the policies, in the order in which they are tried for a key. */
#include "api/private.h"
#include "proto/key.h"

#include <event2/buffer.h>
#include <string.h>

struct question {
	char key[KEY_MAX];
	size_t len; /* 0: all */
};

static const char *read_key(void *arg, unsigned which, const char *value, size_t len)
{
	struct question *q = arg;

	(void)which;
	if (key_check(value, len))
		return "`key` is a circuit's key: 1 to 1024 bytes of UTF-8 without control "
		       "characters.";
	memcpy(q->key, value, len);
	q->len = len;
	return NULL;
}

static bool write_policies(const struct policy_set *set, const struct question *q,
			   struct evbuffer *out)
{
	const struct policy_entry *first = set->entries, *end = set->entries + set->count;
	bool ok = evbuffer_add_printf(out, "{\"policies\":[") > 0;

	if (q->len > 0) {
		first = policy_set_entry(set, q->key, q->len);
		end = first + 1;
	}
	for (const struct policy_entry *e = first; e < end && ok; e++)
		ok = evbuffer_add_printf(out, "%s%s", e == first ? "" : ",", e->json) > 0;
	return ok && evbuffer_add_printf(out, "]}\n") > 0;
}

void api_policies(struct api *api, struct http_request *rq, const struct target *to)
{
	static const char *const names[] = {"key"};
	static const struct api_query parameters = {
		.names = names,
		.count = 1,
		.takes = "this route takes key",
		.read = read_key,
	};
	struct question q = {.len = 0};
	struct evbuffer *out;
	char why[160];

	if (!api_read_query(&parameters, http_request_query(rq), &q, why, sizeof(why))) {
		api_refuse(rq, to->route, PROBLEM_INVALID_QUERY, why);
		return;
	}
	out = evbuffer_new();
	if (out && write_policies(api->policies, &q, out))
		api_reply(rq, to->route, JSON, (const char *)evbuffer_pullup(out, -1),
			  evbuffer_get_length(out));
	else
		api_refuse(rq, to->route, PROBLEM_OVERLOADED, NO_MEMORY);
	if (out)
		evbuffer_free(out);
}
