/*
 * The member `breakerd` as text.
 */
#include "proto/breaker_member.h"

#include "proto/number.h"

#include <string.h>

#define STAMP_MAX INT64_C(99999999999999) /* 14 digits */

static const char seconds[] = "abcdefghijklmnopqrstuvwxyz0123456789";
#define SECONDS 36
#define FIRSTS  (BREAKER_REPORTERS / SECONDS)

/* --- writing ------------------------------------------------------------------------------ */

static char *put_word(char *to, int64_t number)
{
	*to++ = ' ';
	return number_put(to, number);
}

static char *put_reporter(char *to, uint16_t reporter)
{
	*to++ = (char)('A' + reporter / SECONDS);
	*to++ = seconds[reporter % SECONDS];
	return to;
}

void breaker_member_reporter(char buf[3], uint16_t reporter)
{
	*put_reporter(buf, reporter) = '\0';
}

static char *put_slot(char *to, const struct breaker_slot *slot)
{
	to = number_put(to, slot->calls);
	if (slot->failures == 0 && slot->slow == 0)
		return to;
	*to++ = '.';
	to = number_put(to, slot->failures);
	*to++ = '.';
	to = number_put(to, slot->slow);
	*to++ = '.';
	for (unsigned i = 0; i < slot->reporter_count; i++)
		to = put_reporter(to, slot->reporters[i]);
	return to;
}

static char *put_window(char *to, const struct breaker *b)
{
	*to++ = ' ';
	*to++ = 'w';
	to = number_put(to, b->window_ms);
	*to++ = '.';
	to = number_put(to, b->newest);
	for (unsigned i = 0; i < b->slot_count; i++) {
		*to++ = i == 0 ? ':' : ',';
		to = put_slot(to, &b->slots[i]);
	}
	return to;
}

static char *put_probes(char *to, const struct breaker *b)
{
	int64_t first = b->probe_count ? b->probes[0].deadline_ms : 0;

	for (unsigned i = 1; i < b->probe_count; i++)
		if (b->probes[i].deadline_ms < first)
			first = b->probes[i].deadline_ms;
	*to++ = ' ';
	*to++ = 'h';
	to = number_put(to, b->passed);
	*to++ = '.';
	to = number_put(to, first);
	*to++ = ':';
	for (unsigned i = 0; i < b->probe_count; i++) {
		to = number_put_hex(to, b->probes[i].id, 6);
		to = number_put_hex(to, (uint64_t)(b->probes[i].deadline_ms - first), 6);
	}
	return to;
}

static char *put_past_probes(char *to, const struct breaker *b)
{
	*to++ = ' ';
	*to++ = 'q';
	to = number_put(to, b->half_open_ms);
	*to++ = ':';
	for (unsigned i = 0; i < b->probe_count; i++)
		to = number_put_hex(to, b->probes[i].id, 6);
	return to;
}

static char *put_override(char *to, const struct breaker_override *o)
{
	*to++ = ' ';
	*to++ = 'o';
	*to++ = (char)('0' + o->mode);
	*to++ = '.';
	to = number_put(to, o->since_ms);
	*to++ = '.';
	to = number_put(to, o->until_ms);
	*to++ = ':';
	for (unsigned i = 0; i < o->reason_len; i++)
		to = number_put_hex(to, (unsigned char)o->reason[i], 2);
	return to;
}

size_t breaker_member_encode(char buf[BREAKER_TEXT_MAX], const struct breaker *b)
{
	char *to = buf;

	*to++ = '1';
	to = put_word(to, b->state);
	to = put_word(to, b->since_ms);
	to = put_word(to, b->fresh);
	to = put_word(to, b->openings);
	to = put_word(to, b->open_ms);
	to = put_word(to, b->run);
	if (b->slot_count > 0)
		to = put_window(to, b);
	if (b->state == CIRCUIT_HALF_OPEN)
		to = put_probes(to, b);
	else if (b->half_open_ms > 0)
		to = put_past_probes(to, b);
	if (b->override.mode != BREAKER_NO_OVERRIDE)
		to = put_override(to, &b->override);
	*to = '\0';
	return (size_t)(to - buf);
}

/* --- reading: each function reads one thing, and returns whether it was there ------------- */

struct scan {
	const char *p, *end;
};

static bool take(struct scan *s, char c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

/* Reads a number of one to `digits` digits, at most max, without leading zeros. */
static bool take_number(struct scan *s, int digits, int64_t max, int64_t *out)
{
	const char *begin = s->p;
	int64_t n = 0;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9') {
		if (s->p - begin == digits)
			return false;
		n = n * 10 + (*s->p++ - '0');
	}
	*out = n;
	return s->p > begin && (*begin != '0' || s->p == begin + 1) && n <= max;
}

static bool take_count(struct scan *s, uint32_t *out)
{
	int64_t n;

	if (!take_number(s, 9, BREAKER_COUNT_MAX, &n))
		return false;
	*out = (uint32_t)n;
	return true;
}

static bool take_stamp(struct scan *s, int64_t *out)
{
	return take_number(s, 14, STAMP_MAX, out);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_hex(struct scan *s, unsigned digits, uint32_t *out)
{
	if ((size_t)(s->end - s->p) < digits)
		return false;
	for (*out = 0; digits > 0; digits--) {
		int digit = hex_digit(*s->p++);

		if (digit < 0)
			return false;
		*out = *out * 16 + (uint32_t)digit;
	}
	return true;
}

static bool take_head(struct scan *s, struct breaker *b)
{
	int64_t state, fresh, openings, run;

	if (!take(s, '1') || !take(s, ' ') || !take_number(s, 1, CIRCUIT_STATES - 1, &state) ||
	    !take(s, ' ') || !take_number(s, 16, CIRCUIT_INT_MAX, &b->since_ms) || !take(s, ' ') ||
	    !take_number(s, 1, 1, &fresh) || !take(s, ' ') ||
	    !take_number(s, 9, BREAKER_COUNT_MAX, &openings) || !take(s, ' ') ||
	    !take_number(s, 9, BREAKER_COUNT_MAX, &b->open_ms) || !take(s, ' ') ||
	    !take_number(s, 9, BREAKER_COUNT_MAX, &run))
		return false;
	b->state = (enum circuit_state)state;
	b->fresh = fresh == 1;
	b->openings = (uint32_t)openings;
	b->run = (uint32_t)run;
	return true;
}

static bool take_slot(struct scan *s, struct breaker_slot *slot)
{
	*slot = (struct breaker_slot){0};
	if (!take_count(s, &slot->calls))
		return false;
	if (!take(s, '.'))
		return true;
	if (!take_count(s, &slot->failures) || !take(s, '.') || !take_count(s, &slot->slow) ||
	    !take(s, '.') || (slot->failures == 0 && slot->slow == 0))
		return false;
	while (s->end - s->p >= 2 && *s->p >= 'A' && *s->p < 'A' + FIRSTS) {
		const char *second = s->p[1] ? strchr(seconds, s->p[1]) : NULL;

		if (!second || slot->reporter_count == BREAKER_SLOT_REPORTERS)
			return false;
		slot->reporters[slot->reporter_count++] =
			(uint16_t)((*s->p - 'A') * SECONDS + (second - seconds));
		s->p += 2;
	}
	return true;
}

static bool take_window(struct scan *s, struct breaker *b)
{
	if (!take_number(s, 9, BREAKER_COUNT_MAX, &b->window_ms) || b->window_ms == 0 ||
	    !take(s, '.') || !take_stamp(s, &b->newest) ||
	    b->newest > CIRCUIT_INT_MAX / b->window_ms || !take(s, ':'))
		return false;
	do {
		if (b->slot_count == BREAKER_SLOTS || b->newest < b->slot_count ||
		    !take_slot(s, &b->slots[b->slot_count++]))
			return false;
	} while (take(s, ','));
	return true;
}

static bool take_probes(struct scan *s, struct breaker *b)
{
	int64_t first;

	if (!take_count(s, &b->passed) || !take(s, '.') || !take_stamp(s, &first) || !take(s, ':'))
		return false;
	b->half_open_ms = b->since_ms;
	while (s->p < s->end && *s->p != ' ') {
		struct breaker_probe *probe = &b->probes[b->probe_count];
		uint32_t later;

		if (b->probe_count == POLICY_PROBES_MAX || !take_hex(s, 6, &probe->id) ||
		    !take_hex(s, 6, &later))
			return false;
		probe->deadline_ms = first + later;
		b->probe_count++;
	}
	return true;
}

static bool take_past_probes(struct scan *s, struct breaker *b)
{
	if (!take_number(s, 16, CIRCUIT_INT_MAX, &b->half_open_ms) || b->half_open_ms == 0 ||
	    !take(s, ':'))
		return false;
	while (s->p < s->end && *s->p != ' ') {
		struct breaker_probe *probe = &b->probes[b->probe_count];

		if (b->probe_count == POLICY_PROBES_MAX || !take_hex(s, 6, &probe->id))
			return false;
		probe->deadline_ms = 0;
		b->probe_count++;
	}
	return true;
}

static bool take_override(struct scan *s, struct breaker_override *o)
{
	int64_t mode;

	if (!take_number(s, 1, BREAKER_FORCED_CLOSED, &mode) || mode == BREAKER_NO_OVERRIDE ||
	    !take(s, '.') || !take_stamp(s, &o->since_ms) || !take(s, '.') ||
	    !take_stamp(s, &o->until_ms) || !take(s, ':') ||
	    o->until_ms - o->since_ms > BREAKER_OVERRIDE_MAX_MS)
		return false;
	for (o->reason_len = 0; s->p < s->end; o->reason_len++) {
		uint32_t byte;

		if (o->reason_len == BREAKER_REASON_MAX || !take_hex(s, 2, &byte))
			return false;
		o->reason[o->reason_len] = (char)byte;
	}
	o->mode = (enum breaker_override_mode)mode;
	return true;
}

/* Reads the beginning of a part: a space and this letter. */
static bool take_letter(struct scan *s, char letter)
{
	if (s->end - s->p < 2 || s->p[0] != ' ' || s->p[1] != letter)
		return false;
	s->p += 2;
	return true;
}

static bool decode(struct scan *s, struct breaker *b)
{
	bool half_open;

	if (!take_head(s, b))
		return false;
	half_open = b->state == CIRCUIT_HALF_OPEN;
	/* Each part in its state alone: all of them at once would be longer than BREAKER_TEXT_MAX.
	 */
	if (b->state == CIRCUIT_CLOSED && take_letter(s, 'w') && !take_window(s, b))
		return false;
	if (half_open && (!take_letter(s, 'h') || !take_probes(s, b)))
		return false;
	if (!half_open && take_letter(s, 'q') && !take_past_probes(s, b))
		return false;
	if (take_letter(s, 'o') && !take_override(s, &b->override))
		return false;
	return s->p == s->end;
}

bool breaker_member_decode(const char *text, size_t len, struct breaker *b)
{
	struct scan s = {text, text + len};

	breaker_none(b);
	if (!decode(&s, b)) {
		breaker_none(b);
		return false;
	}
	b->exists = true;
	return true;
}
