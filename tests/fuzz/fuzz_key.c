/*
 * Decoding a path segment to a key: proto/key.c.
 */
#include "fuzz.h"
#include "proto/key.h"

#include <string.h>

static bool is_hex(char c)
{
	return c && strchr("0123456789abcdefABCDEF", c);
}

/* RFC 3986, section 3.3. */
static bool is_pchar(char c)
{
	return c && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
			   "-._~!$&'()*+,;=:@",
			   c);
}

/* Checks a segment that was accepted: it has only pchars and escapes, and the key is what they
 * encode. */
static void check_taken(const char *segment, size_t len, const char *key, size_t key_len)
{
	size_t n = 0;

	FUZZ_CHECK(key_len >= 1 && key_len <= KEY_MAX);
	FUZZ_CHECK(key_check(key, key_len) == NULL);
	FUZZ_CHECK(utf8_valid(key, key_len));
	for (size_t i = 0; i < len; i++, n++) {
		char hex[3] = "";

		FUZZ_CHECK(n < key_len);
		if (segment[i] == '%') {
			FUZZ_CHECK(len - i > 2 && is_hex(segment[i + 1]) && is_hex(segment[i + 2]));
			memcpy(hex, segment + i + 1, 2);
			FUZZ_CHECK((unsigned char)key[n] == strtoul(hex, NULL, 16));
			i += 2;
		} else {
			FUZZ_CHECK(is_pchar(segment[i]) && key[n] == segment[i]);
		}
		FUZZ_CHECK((unsigned char)key[n] >= 0x20 && key[n] != 0x7F);
	}
	FUZZ_CHECK(n == key_len);
}

/* Checks that the key with every byte escaped decodes to the same key. */
static void check_escaped(const char *key, size_t key_len)
{
	static char again[KEY_MAX];
	char *segment = malloc(3 * key_len);
	size_t len;

	FUZZ_CHECK(segment);
	for (size_t i = 0; i < key_len; i++) {
		char hex[4];

		snprintf(hex, sizeof(hex), i % 2 ? "%%%02x" : "%%%02X", (unsigned char)key[i]);
		memcpy(segment + 3 * i, hex, 3);
	}
	FUZZ_CHECK(key_decode(segment, 3 * key_len, again, &len) == NULL);
	FUZZ_CHECK(len == key_len && memcmp(again, key, len) == 0);
	free(segment);
}

static void check_query(const char *text, size_t len)
{
	char *out = malloc(len ? len : 1), *same = malloc(len ? len : 1);
	long n;

	FUZZ_CHECK(out && same);
	memcpy(same, text, len);
	n = percent_decode(text, len, out, len, true);
	FUZZ_CHECK(n == PERCENT_BROKEN || (n >= 0 && (size_t)n <= len));
	FUZZ_CHECK(percent_decode(same, len, same, len, true) == n);
	FUZZ_CHECK(n < 0 || memcmp(same, out, (size_t)n) == 0);
	if (n > 0)
		FUZZ_CHECK(percent_decode(text, len, out, (size_t)n - 1, true) == PERCENT_TOO_LONG);
	free(out);
	free(same);
}

static void check_clean(const char *text, size_t len, size_t size)
{
	char *out = malloc(size ? size : 1);
	size_t n;

	FUZZ_CHECK(out);
	n = utf8_clean(out, size, text, len);
	FUZZ_CHECK(n <= 3 * len && (size == 0 ? n == 0 : n < size));
	if (size > 0) {
		FUZZ_CHECK(out[n] == '\0' && strlen(out) == n);
		FUZZ_CHECK(utf8_valid(out, n));
		for (size_t i = 0; i < n; i++)
			FUZZ_CHECK((unsigned char)out[i] >= 0x20 && out[i] != 0x7F);
	}
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	char key[KEY_MAX];
	size_t len = 0;
	const char *why;

	if (size == 0)
		text = "";
	why = key_decode(text, size, key, &len);
	if (why) {
		fuzz_check_sentence(why, 256);
	} else {
		check_taken(text, size, key, len);
		check_escaped(key, len);
	}
	check_query(text, size);
	check_clean(text, size, 3 * size + 1);
	check_clean(text, size, size ? data[0] : 0);
	return 0;
}
