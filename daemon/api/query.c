/* Queries: name=value, separated by '&'. Each name must be known, and stand once. */
#include "api/private.h"
#include "proto/key.h"

#include <stdio.h>
#include <string.h>

/* Room for any parameter's name. */
#define PARAMETER_MAX 16

static unsigned find(const struct api_query *q, const char *name, size_t len)
{
	unsigned i;

	for (i = 0; i < q->count; i++)
		if (strlen(q->names[i]) == len && memcmp(q->names[i], name, len) == 0)
			break;
	return i;
}

/* The number of the parameter named before the '='; or q->count, with why set. */
static unsigned read_name(const struct api_query *q, const char *text, const char *equals,
			  bool seen[API_QUERY_MAX], char *why, size_t why_size)
{
	char name[PARAMETER_MAX];
	long len = percent_decode(text, (size_t)(equals - text), name, sizeof(name), true);
	unsigned which = len < 0 ? q->count : find(q, name, (size_t)len);

	if (which == q->count) {
		snprintf(why, why_size, "Unknown query parameter \"%.*s\": %s.",
			 (int)(equals - text > 40 ? 40 : equals - text), text, q->takes);
	} else if (seen[which]) {
		snprintf(why, why_size, "`%s` is given twice.", q->names[which]);
		return q->count;
	} else {
		seen[which] = true;
	}
	return which;
}

bool api_read_query(const struct api_query *q, const char *text, void *arg, char *why,
		    size_t why_size)
{
	bool seen[API_QUERY_MAX] = {false};
	char value[STORE_CURSOR_MAX];
	const char *end;

	for (; text && *text; text = *end ? end + 1 : end) {
		const char *equals, *wrong;
		unsigned which;
		long len;

		end = text + strcspn(text, "&");
		equals = memchr(text, '=', (size_t)(end - text));
		if (!equals) {
			snprintf(why, why_size,
				 "\"%.*s\" is no query parameter: one is written name=value, and "
				 "they are separated by one '&'.",
				 (int)(end - text > 40 ? 40 : end - text), text);
			return false;
		}
		which = read_name(q, text, equals, seen, why, why_size);
		if (which == q->count)
			return false;
		len = percent_decode(equals + 1, (size_t)(end - equals - 1), value, sizeof(value),
				     true);
		if (len < 0) {
			snprintf(why, why_size,
				 len == PERCENT_BROKEN
					 ? "`%s` has a '%%' without two hexadecimal digits."
					 : "`%s` is too long.",
				 q->names[which]);
			return false;
		}
		wrong = q->read(arg, which, value, (size_t)len);
		if (wrong) {
			snprintf(why, why_size, "%s", wrong);
			return false;
		}
	}
	return true;
}
