/* A circuit and its override as JSON, for listings, events and the answers about overrides. */
#include "api/private.h"
#include "proto/circuit_json.h"

#include <event2/buffer.h>
#include <inttypes.h>

/* Writes a JSON string. The text is valid UTF-8 without control characters, so '"' and '\' alone
 * need a backslash (RFC 8259, section 7). */
static int add_string(struct evbuffer *out, const char *text, size_t len)
{
	size_t from = 0;

	if (evbuffer_add(out, "\"", 1) != 0)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (text[i] != '"' && text[i] != '\\')
			continue;
		if (evbuffer_add(out, text + from, i - from) != 0 ||
		    evbuffer_add(out, "\\", 1) != 0)
			return -1;
		from = i;
	}
	if (evbuffer_add(out, text + from, len - from) != 0)
		return -1;
	return evbuffer_add(out, "\"", 1);
}

int api_add_override(struct evbuffer *out, const struct breaker_override *o)
{
	/* Another program may have written any bytes to Redis as the reason. */
	char reason[3 * BREAKER_REASON_MAX + 4];
	size_t len = utf8_clean(reason, sizeof(reason), o->reason, o->reason_len);

	if (evbuffer_add_printf(out, "{\"mode\":\"%s\",\"reason\":",
				breaker_override_name(o->mode)) < 0 ||
	    add_string(out, reason, len) != 0)
		return -1;
	return evbuffer_add_printf(out, ",\"since\":%" PRId64 ",\"until\":%" PRId64 "}",
				   o->since_ms, o->until_ms) < 0
		       ? -1
		       : 0;
}

int api_add_item(struct evbuffer *out, const char *key, size_t key_len, const struct circuit *c,
		 const struct breaker_override *override)
{
	char snapshot[CIRCUIT_JSON_MAX];
	size_t len = circuit_json_encode(snapshot, c);

	/* The snapshot without its braces. */
	if (evbuffer_add(out, "\"key\":", 6) != 0 || add_string(out, key, key_len) != 0 ||
	    evbuffer_add(out, ",", 1) != 0 || evbuffer_add(out, snapshot + 1, len - 2) != 0)
		return -1;
	if (!override)
		return 0;
	if (evbuffer_add(out, ",\"override\":", 12) != 0)
		return -1;
	return api_add_override(out, override);
}
