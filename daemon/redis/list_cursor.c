#include "redis/list_cursor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* RFC 4648, section 5, without padding. Returns the end of what was written. */
static char *base64_write(char *out, const char *in, size_t len)
{
	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t bits = 0;

		for (size_t j = 0; j < n; j++)
			bits |= (uint32_t)(unsigned char)in[i + j] << (16 - 8 * j);
		for (size_t j = 0; j <= n; j++)
			*out++ = base64url[bits >> (18 - 6 * j) & 63];
	}
	return out;
}

static bool base64_read(const char *in, char *out, size_t room, size_t *len)
{
	uint32_t bits = 0;
	unsigned have = 0;

	for (*len = 0; *in; in++) {
		const char *place = strchr(base64url, *in);

		if (!place)
			return false;
		bits = bits << 6 | (uint32_t)(place - base64url);
		have += 6;
		if (have < 8)
			continue;
		if (*len == room)
			return false;
		have -= 8;
		out[(*len)++] = (char)(bits >> have);
		bits &= (1u << have) - 1;
	}
	return have < 6 && bits == 0;
}

bool redis_scan_cursor_read(const char *text, const char **end, uint64_t *cursor)
{
	char *stop;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*cursor = strtoull(text, &stop, 10);
	*end = stop;
	return errno == 0;
}

uint64_t redis_scan_position(uint64_t cursor)
{
	uint64_t reversed = 0;

	if (cursor == 0)
		return UINT64_MAX;
	for (int i = 0; i < 64; i++)
		reversed |= (cursor >> i & 1) << (63 - i);
	return reversed;
}

bool redis_list_cursor_read(const char *text, struct redis_list_cursor *cursor)
{
	if (!*text)
		return true;
	if (!redis_scan_cursor_read(text, &text, &cursor->start))
		return false;
	if (!*text)
		return cursor->start != 0;
	if (*text != '.' || !redis_scan_cursor_read(text + 1, &text, &cursor->end) || *text != '.')
		return false;
	cursor->has_end = true;
	return base64_read(text + 1, cursor->last, sizeof(cursor->last), &cursor->last_len) &&
	       key_check(cursor->last, cursor->last_len) == NULL;
}

void redis_list_cursor_write_start(char text[STORE_CURSOR_MAX], uint64_t start)
{
	if (start == 0)
		text[0] = '\0';
	else
		snprintf(text, STORE_CURSOR_MAX, "%" PRIu64, start);
}

void redis_list_cursor_write_key(char text[STORE_CURSOR_MAX], uint64_t start, uint64_t end,
				 const char *key, size_t key_len)
{
	char *p = text;

	p += snprintf(text, STORE_CURSOR_MAX, "%" PRIu64 ".%" PRIu64 ".", start, end);
	p = base64_write(p, key, key_len);
	*p = '\0';
}
