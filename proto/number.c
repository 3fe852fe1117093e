/*
 * Numbers as text: see number.h.
 */
#include "proto/number.h"

#include <stdlib.h>

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static unsigned count_digits(uint64_t number)
{
	unsigned count = 1;

	for (; number >= 10000; number /= 10000)
		count += 4;
	return count + (number >= 10) + (number >= 100) + (number >= 1000);
}

char *number_put(char *to, int64_t number)
{
	/* One division makes two digits, for each answer has two stamps of thirteen digits. */
	static const char pairs[] = "00010203040506070809101112131415161718192021222324"
				    "25262728293031323334353637383940414243444546474849"
				    "50515253545556575859606162636465666768697071727374"
				    "75767778798081828384858687888990919293949596979899";
	uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
	char *end, *p;

	if (number < 0)
		*to++ = '-';
	end = to + count_digits(rest);
	for (p = end; rest >= 10; rest /= 100) {
		*--p = pairs[rest % 100 * 2 + 1];
		*--p = pairs[rest % 100 * 2];
	}
	if (p > to)
		*to = (char)('0' + rest);
	return end;
}

char *number_put_hex(char *to, uint64_t number, unsigned digits)
{
	while (digits-- > 0)
		*to++ = "0123456789abcdef"[number >> (4 * digits) & 0xF];
	return to;
}

/* No halfway point between two doubles has more significant digits than 768. */
#define DIGITS_MAX 800

/*
 * What strtod makes of the JSON number in [p, end), without its sign. The buffer has a fixed size
 * however long the token is: of the digits beyond DIGITS_MAX it only matters whether all are zero,
 * so one digit stands for all of them.
 */
static double magnitude(const char *p, const char *end)
{
	char buf[DIGITS_MAX + 32];
	size_t n = 0;
	int64_t exponent = 0, written = 0;
	bool behind_point = false, more = false, negative;

	for (; p < end && *p != 'e' && *p != 'E'; p++) {
		if (*p == '.') {
			behind_point = true;
			continue;
		}
		if (n < DIGITS_MAX) {
			if (n > 0 || *p != '0')
				buf[n++] = *p;
		} else {
			exponent++;
			more = more || *p != '0';
		}
		exponent -= behind_point;
	}
	if (n == 0)
		return 0;
	if (more) {
		buf[n++] = '1';
		exponent--;
	}
	negative = end - p > 1 && p[1] == '-';
	for (; p < end; p++)
		if (is_digit(*p) && written < INT64_C(100000000000000000))
			written = written * 10 + (*p - '0');
	buf[n++] = 'e';
	*number_put(buf + n, exponent + (negative ? -written : written)) = '\0';
	return strtod(buf, NULL);
}

bool number_from_json(const char *begin, const char *end, int64_t *out)
{
	const char *p = begin;
	bool negative = *p == '-';
	int64_t n = 0;
	double d;

	p += negative;
	if (p == end || !is_digit(*p))
		return false;
	if (end - p <= 18) {
		const char *digit = p;

		while (digit < end && is_digit(*digit))
			n = n * 10 + (*digit++ - '0');
		if (digit == end) {
			*out = n;
			return n == 0 || (!negative && n <= CIRCUIT_INT_MAX);
		}
	}
	d = magnitude(p, end);
	if (d > (double)CIRCUIT_INT_MAX || (negative && d != 0))
		return false;
	*out = (int64_t)d;
	return (double)*out == d;
}
