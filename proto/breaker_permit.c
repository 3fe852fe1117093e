/*
 * The text of a permit: a letter for its kind, what belongs to that kind, ".", and the checksum in
 * ten hexadecimal digits. Decoding encodes again: there is one spelling.
 */
#include "proto/breaker_permit.h"

#include "proto/number.h"

#include <string.h>

static const char letters[] = {
	[BREAKER_PERMIT_NONE] = '-',     [BREAKER_PERMIT_CLOSED] = 'c',
	[BREAKER_PERMIT_ABSENT] = 'n',   [BREAKER_PERMIT_PROBE] = 'p',
	[BREAKER_PERMIT_OBSERVED] = 'o', [BREAKER_PERMIT_OVERRIDDEN] = 'f',
};

/* FNV-1a, 64 bits. */
static uint64_t hash(uint64_t h, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static uint64_t checksum(const char *key, size_t key_len, const char *text, size_t len)
{
	uint64_t h = hash(UINT64_C(0xcbf29ce484222325), text, len);

	/* A permit's own text has no NUL. */
	h = hash(hash(h, "", 1), key, key_len);
	h ^= h >> 32;
	h *= UINT64_C(0x9e3779b97f4a7c15);
	return h >> 24;
}

size_t breaker_permit_encode(char buf[BREAKER_PERMIT_MAX], const struct breaker_permit *permit,
			     const char *key, size_t key_len)
{
	char *to = buf;

	*to++ = letters[permit->kind];
	if (permit->kind == BREAKER_PERMIT_CLOSED || permit->kind == BREAKER_PERMIT_PROBE)
		to = number_put_hex(to, (uint64_t)permit->since_ms, 14);
	if (permit->kind == BREAKER_PERMIT_PROBE)
		to = number_put_hex(to, permit->id, 6);
	*to = '.';
	to = number_put_hex(to + 1, checksum(key, key_len, buf, (size_t)(to - buf)), 10);
	*to = '\0';
	return (size_t)(to - buf);
}

static uint64_t read_hex(const char *p, unsigned digits)
{
	uint64_t n = 0;

	/* What is no digit does not survive the comparison with the permit encoded again. */
	for (; digits > 0; digits--, p++)
		n = n * 16 + (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10) % 16;
	return n;
}

bool breaker_permit_decode(const char *text, size_t len, const char *key, size_t key_len,
			   struct breaker_permit *permit)
{
	char again[BREAKER_PERMIT_MAX];
	struct breaker_permit p = {0};
	const char *letter;

	if (len < 1 || len >= BREAKER_PERMIT_MAX)
		return false;
	letter = memchr(letters, text[0], sizeof(letters));
	if (!letter || letter == letters)
		return false;
	p.kind = (enum breaker_permit_kind)(letter - letters);
	if ((p.kind == BREAKER_PERMIT_CLOSED && len >= 15) ||
	    (p.kind == BREAKER_PERMIT_PROBE && len >= 21)) {
		p.since_ms = (int64_t)(read_hex(text + 1, 14) & (uint64_t)CIRCUIT_INT_MAX);
		if (p.kind == BREAKER_PERMIT_PROBE)
			p.id = (uint32_t)read_hex(text + 15, 6);
	}
	if (breaker_permit_encode(again, &p, key, key_len) != len || memcmp(again, text, len) != 0)
		return false;
	*permit = p;
	return true;
}
