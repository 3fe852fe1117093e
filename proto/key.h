/*
 * Circuit keys as path segments, percent-encoding (RFC 3986, section 2.1), and UTF-8.
 */
#ifndef BREAKERD_PROTO_KEY_H
#define BREAKERD_PROTO_KEY_H

#include <stdbool.h>
#include <stddef.h>

/* The longest key, in bytes after decoding. */
#define KEY_MAX 1024

/*
 * Decodes %XX in in[0..len) to out, which has room for cap bytes; no NUL is added. With
 * plus_is_space '+' becomes a space, as in a query. Returns the decoded length, PERCENT_BROKEN for
 * a broken escape, PERCENT_TOO_LONG if cap is too small. out may be the same as in.
 */
#define PERCENT_BROKEN   (-1)
#define PERCENT_TOO_LONG (-2)
long percent_decode(const char *in, size_t len, char *out, size_t cap, bool plus_is_space);

/*
 * NULL if key[0..len) is a key: 1 to KEY_MAX bytes of valid UTF-8 (RFC 3629) without U+0000 to
 * U+001F and U+007F. Otherwise a static sentence that says what is wrong.
 */
const char *key_check(const char *key, size_t len);

/*
 * Decodes a path segment to key, and sets *key_len. Returns NULL, or a static sentence that says
 * what is wrong, for the problem's detail; then *key_len has no meaning. Characters that a segment
 * cannot hold literally (RFC 3986, section 3.3) have to be percent-encoded.
 */
const char *key_decode(const char *segment, size_t len, char key[KEY_MAX], size_t *key_len);

/* The length of the UTF-8 sequence (RFC 3629) at s, which has len bytes, at least 1; 0: none. */
size_t utf8_sequence(const unsigned char *s, size_t len);

/* True if text[0..len) is valid UTF-8 (RFC 3629: no surrogates, nothing overlong). */
bool utf8_valid(const char *text, size_t len);

/*
 * Copies text[0..len), any bytes, to out as UTF-8 that is safe to show: tabs and line ends become
 * spaces; other control characters, and bytes that are no UTF-8, become U+FFFD. Cuts between two
 * characters to fit into size bytes, NUL included. The NUL is written unless size is 0. Returns the
 * length without it, at most 3 * len.
 */
size_t utf8_clean(char *out, size_t size, const char *text, size_t len);

#endif
