#include "store/packed_breaker.h"

#include <string.h>

struct head {
	int64_t since_ms;
	int64_t newest;
	int64_t half_open_ms;
	uint32_t open_ms;
	uint32_t openings;
	uint32_t run;
	uint32_t window_ms;
	uint32_t passed;
	uint8_t state : 2;
	uint8_t fresh : 1;
	uint8_t override : 2;
	uint8_t slots;
	uint8_t probes;
};

/* A slot's first byte, if nothing failed or was slow: only the number of calls follows. In other
 * slots the first byte is the number of daemons that reported. */
#define CALLS_ALONE 0xff

/* `reason_len` bytes follow. */
struct override {
	int64_t since_ms, until_ms;
	uint8_t reason_len;
};

_Static_assert(sizeof(struct head) + BREAKER_SLOTS * (1 + 12 + 2 * BREAKER_SLOT_REPORTERS) +
			       sizeof(struct override) + BREAKER_REASON_MAX +
			       POLICY_PROBES_MAX * sizeof(uint32_t) <=
		       PACKED_BREAKER_MAX,
	       "a closed circuit's fits");
_Static_assert(sizeof(struct head) + sizeof(int64_t) + POLICY_PROBES_MAX * 2 * sizeof(uint32_t) +
			       sizeof(struct override) + BREAKER_REASON_MAX <=
		       PACKED_BREAKER_MAX,
	       "a half-open circuit's fits");

/* --- writing ------------------------------------------------------------------------------ */

static unsigned char *put(unsigned char *to, const void *from, size_t size)
{
	memcpy(to, from, size);
	return to + size;
}

static unsigned char *put_slot(unsigned char *to, const struct breaker_slot *slot)
{
	uint32_t counts[] = {slot->calls, slot->failures, slot->slow};

	if (slot->failures == 0 && slot->slow == 0) {
		*to++ = CALLS_ALONE;
		return put(to, counts, sizeof(counts[0]));
	}
	*to++ = slot->reporter_count;
	to = put(to, counts, sizeof(counts));
	return put(to, slot->reporters, slot->reporter_count * sizeof(slot->reporters[0]));
}

/* Writes a deadline as its distance from the first one. A circuit that is no longer half-open has
 * no use for deadlines. */
static unsigned char *put_probes(unsigned char *to, const struct breaker *b)
{
	bool out = b->state == CIRCUIT_HALF_OPEN;
	int64_t first = b->probes[0].deadline_ms;

	for (unsigned i = 1; i < b->probe_count; i++)
		if (b->probes[i].deadline_ms < first)
			first = b->probes[i].deadline_ms;
	if (out)
		to = put(to, &first, sizeof(first));
	for (unsigned i = 0; i < b->probe_count; i++) {
		uint32_t later = (uint32_t)(b->probes[i].deadline_ms - first);

		to = put(to, &b->probes[i].id, sizeof(b->probes[i].id));
		if (out)
			to = put(to, &later, sizeof(later));
	}
	return to;
}

static unsigned char *put_override(unsigned char *to, const struct breaker_override *o)
{
	struct override packed = {o->since_ms, o->until_ms, o->reason_len};

	to = put(to, &packed, sizeof(packed));
	return put(to, o->reason, o->reason_len);
}

size_t packed_breaker_write(unsigned char buf[PACKED_BREAKER_MAX], const struct breaker *b)
{
	unsigned char *to = buf;
	struct head head = {
		.since_ms = b->since_ms,
		.newest = b->newest,
		.half_open_ms = b->half_open_ms,
		.open_ms = (uint32_t)b->open_ms,
		.openings = b->openings,
		.run = b->run,
		.window_ms = (uint32_t)b->window_ms,
		.passed = b->passed,
		.state = b->state,
		.fresh = b->fresh,
		.override = b->override.mode,
		.slots = (uint8_t)b->slot_count,
		.probes = (uint8_t)b->probe_count,
	};

	if (!b->exists)
		return 0;
	to = put(to, &head, sizeof(head));
	for (unsigned i = 0; i < b->slot_count; i++)
		to = put_slot(to, &b->slots[i]);
	if (b->probe_count > 0)
		to = put_probes(to, b);
	if (b->override.mode != BREAKER_NO_OVERRIDE)
		to = put_override(to, &b->override);
	return (size_t)(to - buf);
}

/* --- reading ------------------------------------------------------------------------------ */

static const unsigned char *take(const unsigned char *from, void *to, size_t size)
{
	memcpy(to, from, size);
	return from + size;
}

static const unsigned char *take_slot(const unsigned char *from, struct breaker_slot *slot)
{
	uint32_t counts[3] = {0};
	unsigned char tag = *from++;

	slot->reporter_count = 0;
	if (tag == CALLS_ALONE) {
		from = take(from, counts, sizeof(counts[0]));
	} else {
		from = take(from, counts, sizeof(counts));
		slot->reporter_count = tag;
		from = take(from, slot->reporters, tag * sizeof(slot->reporters[0]));
	}
	slot->calls = counts[0];
	slot->failures = counts[1];
	slot->slow = counts[2];
	return from;
}

static const unsigned char *take_probes(const unsigned char *from, struct breaker *b)
{
	bool out = b->state == CIRCUIT_HALF_OPEN;
	int64_t first = 0;

	if (out)
		from = take(from, &first, sizeof(first));
	for (unsigned i = 0; i < b->probe_count; i++) {
		uint32_t later = 0;

		from = take(from, &b->probes[i].id, sizeof(b->probes[i].id));
		if (out)
			from = take(from, &later, sizeof(later));
		b->probes[i].deadline_ms = first + later;
	}
	return from;
}

static void take_override(const unsigned char *from, struct breaker_override *o)
{
	struct override packed;

	from = take(from, &packed, sizeof(packed));
	o->since_ms = packed.since_ms;
	o->until_ms = packed.until_ms;
	o->reason_len = packed.reason_len;
	take(from, o->reason, packed.reason_len);
}

void packed_breaker_read(const unsigned char *buf, size_t len, struct breaker *b)
{
	struct head head;

	if (len == 0) {
		breaker_none(b);
		return;
	}
	buf = take(buf, &head, sizeof(head));
	b->exists = true;
	b->state = (enum circuit_state)head.state;
	b->since_ms = head.since_ms;
	b->fresh = head.fresh;
	b->openings = head.openings;
	b->open_ms = head.open_ms;
	b->run = head.run;
	b->window_ms = head.window_ms;
	b->newest = head.newest;
	b->slot_count = head.slots;
	b->half_open_ms = head.half_open_ms;
	b->passed = head.passed;
	b->probe_count = head.probes;
	b->override.mode = (enum breaker_override_mode)head.override;
	for (unsigned i = 0; i < b->slot_count; i++)
		buf = take_slot(buf, &b->slots[i]);
	if (b->probe_count > 0)
		buf = take_probes(buf, b);
	if (b->override.mode != BREAKER_NO_OVERRIDE)
		take_override(buf, &b->override);
}

bool packed_breaker_has_override(const unsigned char *buf, size_t len)
{
	struct head head;

	if (len == 0)
		return false;
	take(buf, &head, sizeof(head));
	return head.override != BREAKER_NO_OVERRIDE;
}

int64_t packed_breaker_matters_until(const unsigned char *buf, size_t len, int64_t now_ms)
{
	struct breaker b;

	if (len == 0)
		return 0;
	packed_breaker_read(buf, len, &b);
	return breaker_matters_until(&b, now_ms);
}
