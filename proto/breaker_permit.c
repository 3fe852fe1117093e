/*
 * The text of a permit: a letter for its kind, what belongs to that kind, ".", and the checksum in
 * ten hexadecimal digits. A permit has only one spelling.
 */
#include "proto/breaker_permit.h"

#include <endian.h>
#include <string.h>

static const char letters[] = {
	[BREAKER_PERMIT_NONE] = '-',     [BREAKER_PERMIT_CLOSED] = 'c',
	[BREAKER_PERMIT_ABSENT] = 'n',   [BREAKER_PERMIT_PROBE] = 'p',
	[BREAKER_PERMIT_OBSERVED] = 'o', [BREAKER_PERMIT_OVERRIDDEN] = 'f',
};

static uint64_t mix(uint64_t h, uint64_t block)
{
	h = (h ^ block) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 32;
}

/* 40 bits of a hash of the permit and the key. The key is hashed eight bytes at a time; the last
 * block has the bytes that are left, and their number in its top byte. */
static uint64_t checksum(const struct breaker_permit *permit, const char *key, size_t len)
{
	uint64_t h = mix((uint64_t)permit->kind << 32 | permit->id, (uint64_t)permit->since_ms);
	uint64_t block;

	for (; len >= sizeof(block); len -= sizeof(block), key += sizeof(block)) {
		memcpy(&block, key, sizeof(block));
		h = mix(h, le64toh(block));
	}
	block = (uint64_t)len << 56;
	for (; len > 0; len--)
		block ^= (uint64_t)(unsigned char)key[len - 1] << (8 * (len - 1));
	return mix(mix(h, block), 0) >> 24;
}

/* Writes sixteen bytes, of which the first `digits` are the number; the caller writes over the
 * rest. Eight digits are made at a time: each byte gets a nibble, then the nibble's character,
 * which is '0' plus the nibble, plus 39 more for a to f. */
static char *put_hex(char *to, uint64_t n, unsigned digits)
{
	n <<= 64 - 4 * digits;
	for (int half = 0; half < 2; half++) {
		uint64_t x = half ? n & 0xFFFFFFFF : n >> 32;

		x = (x << 16 | x) & UINT64_C(0x0000FFFF0000FFFF);
		x = (x << 8 | x) & UINT64_C(0x00FF00FF00FF00FF);
		x = (x << 4 | x) & UINT64_C(0x0F0F0F0F0F0F0F0F);
		x += UINT64_C(0x3030303030303030) +
		     ((x + UINT64_C(0x0606060606060606)) >> 4 & UINT64_C(0x0101010101010101)) * 39;
		x = htobe64(x);
		memcpy(to + 8 * half, &x, sizeof(x));
	}
	return to + digits;
}

/* A kind, a stamp, an id, a dot, and the sixteen bytes of the checksum. */
_Static_assert(1 + 14 + 6 + 1 + 16 < BREAKER_PERMIT_MAX, "put_hex has room");

static bool has_since(enum breaker_permit_kind kind)
{
	return kind == BREAKER_PERMIT_CLOSED || kind == BREAKER_PERMIT_PROBE;
}

size_t breaker_permit_encode(char buf[BREAKER_PERMIT_MAX], const struct breaker_permit *permit,
			     const char *key, size_t key_len)
{
	struct breaker_permit said = {.kind = permit->kind};
	char *to = buf;

	*to++ = letters[permit->kind];
	if (has_since(permit->kind)) {
		said.since_ms = permit->since_ms;
		to = put_hex(to, (uint64_t)permit->since_ms, 14);
	}
	if (permit->kind == BREAKER_PERMIT_PROBE) {
		said.id = permit->id;
		to = put_hex(to, permit->id, 6);
	}
	*to = '.';
	to = put_hex(to + 1, checksum(&said, key, key_len), 10);
	*to = '\0';
	return (size_t)(to - buf);
}

/* A digit's value plus 1; 0: the character is no digit. */
static const unsigned char hex_digits[256] = {
	['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,
	['6'] = 7,  ['7'] = 8,  ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12,
	['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

static bool take_hex(const char **p, const char *end, unsigned digits, uint64_t *out)
{
	const unsigned char *digit = (const unsigned char *)*p;
	uint64_t n = 0;

	if ((size_t)(end - *p) < digits)
		return false;
	*p += digits;
	for (; digits > 0; digits--) {
		unsigned value = hex_digits[*digit++];

		if (value == 0)
			return false;
		n = n << 4 | (value - 1);
	}
	*out = n;
	return true;
}

bool breaker_permit_decode(const char *text, size_t len, const char *key, size_t key_len,
			   struct breaker_permit *permit)
{
	const char *p = text + 1, *end = text + len, *letter;
	struct breaker_permit read = {0};
	uint64_t since = 0, id = 0;
	char sum[16];

	letter = len ? memchr(letters + 1, text[0], sizeof(letters) - 1) : NULL;
	if (!letter)
		return false;
	read.kind = (enum breaker_permit_kind)(letter - letters);
	if (has_since(read.kind) &&
	    (!take_hex(&p, end, 14, &since) || since > (uint64_t)CIRCUIT_INT_MAX))
		return false;
	if (read.kind == BREAKER_PERMIT_PROBE && !take_hex(&p, end, 6, &id))
		return false;
	read.since_ms = (int64_t)since;
	read.id = (uint32_t)id;
	put_hex(sum, checksum(&read, key, key_len), 10);
	if (end - p != 11 || *p != '.' || memcmp(p + 1, sum, 10) != 0)
		return false;
	*permit = read;
	return true;
}
