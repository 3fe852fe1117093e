/*
 * Keys, percent-encoding, UTF-8: see key.h.
 */
#include "proto/key.h"

#include <string.h>

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

long percent_decode(const char *in, size_t len, char *out, size_t cap, bool plus_is_space)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = in[i];

		if (c == '%') {
			int high = len - i > 2 ? hex_value(in[i + 1]) : -1;
			int low = len - i > 2 ? hex_value(in[i + 2]) : -1;

			if (high < 0 || low < 0)
				return PERCENT_BROKEN;
			c = (char)(high << 4 | low);
			i += 2;
		} else if (c == '+' && plus_is_space) {
			c = ' ';
		}
		if (n == cap)
			return PERCENT_TOO_LONG;
		out[n++] = c;
	}
	return (long)n;
}

/* RFC 3629, section 4. */
size_t utf8_sequence(const unsigned char *s, size_t len)
{
	unsigned char low = 0x80, high = 0xBF;
	size_t need;

	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xC2 || s[0] > 0xF4)
		return 0;
	need = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
	if (need > len)
		return 0;
	/* Overlong forms, surrogates and values beyond U+10FFFF show in the second byte. */
	if (s[0] == 0xE0)
		low = 0xA0;
	else if (s[0] == 0xED)
		high = 0x9F;
	else if (s[0] == 0xF0)
		low = 0x90;
	else if (s[0] == 0xF4)
		high = 0x8F;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < need; i++)
		if (s[i] < 0x80 || s[i] > 0xBF)
			return 0;
	return need;
}

bool utf8_valid(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;

	for (size_t i = 0; i < len;) {
		size_t n = utf8_sequence(s + i, len - i);

		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

/* True for the control characters: C0, DEL and C1. */
static bool is_control(const unsigned char *s, size_t n)
{
	return (n == 1 && (s[0] < 0x20 || s[0] == 0x7F)) || (n == 2 && s[0] == 0xC2 && s[1] < 0xA0);
}

size_t utf8_clean(char *out, size_t size, const char *text, size_t len)
{
	static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */
	const unsigned char *s = (const unsigned char *)text;
	size_t used = 0;

	if (size == 0)
		return 0;
	for (size_t i = 0; i < len;) {
		size_t n = utf8_sequence(s + i, len - i);
		size_t step = n ? n : 1;
		const char *from = text + i;

		if (n == 1 && (s[i] == '\t' || s[i] == '\n' || s[i] == '\r')) {
			from = " ";
		} else if (n == 0 || is_control(s + i, n)) {
			from = replacement;
			n = strlen(replacement);
		}
		if (n > size - 1 - used)
			break;
		memcpy(out + used, from, n);
		used += n;
		i += step;
	}
	out[used] = '\0';
	return used;
}

const char *key_check(const char *key, size_t len)
{
	if (len == 0)
		return "The circuit key is empty; it must have 1 to 1024 bytes.";
	if (len > KEY_MAX)
		return "The circuit key is too long; it may have up to 1024 bytes after "
		       "percent-decoding.";
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)key[i] < 0x20 || key[i] == 0x7F)
			return "The circuit key holds a control character; U+0000 to U+001F and "
			       "U+007F are not allowed.";
	if (!utf8_valid(key, len))
		return "The circuit key is not valid UTF-8 after percent-decoding.";
	return NULL;
}

/* The characters that a path segment may hold literally (RFC 3986, section 3.3), and '%'. */
static bool is_pchar(char c)
{
	if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
		return true;
	return c != '\0' && strchr("-._~!$&'()*+,;=:@%", c);
}

const char *key_decode(const char *segment, size_t len, char key[KEY_MAX], size_t *key_len)
{
	long n = percent_decode(segment, len, key, KEY_MAX, false);
	const char *why;

	if (n == PERCENT_BROKEN)
		return "The circuit key holds a % that is not followed by two hexadecimal digits; "
		       "a percent sign itself is written %25.";
	*key_len = n == PERCENT_TOO_LONG ? KEY_MAX + 1 : (size_t)n;
	why = key_check(key, *key_len);
	for (size_t i = 0; i < len && !why; i++)
		if (!is_pchar(segment[i]))
			why = "The circuit key holds a character that has to be percent-encoded; "
			      "only letters, digits and -._~!$&'()*+,;=:@ may stand as they are.";
	return why;
}
