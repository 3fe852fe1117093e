/*
 * The window of the policy machine: see breaker_window.h.
 */
#include "proto/breaker_window.h"

#include <string.h>

void breaker_window_clear(struct breaker *b)
{
	b->run = 0;
	b->window_ms = 0;
	b->newest = 0;
	b->slot_count = 0;
}

static uint32_t plus(uint32_t count, uint32_t more)
{
	return count < BREAKER_COUNT_MAX - more ? count + more : BREAKER_COUNT_MAX;
}

static void add_reporter(struct breaker_slot *slot, uint16_t reporter)
{
	for (unsigned i = 0; i < slot->reporter_count; i++)
		if (slot->reporters[i] == reporter)
			return;
	if (slot->reporter_count < BREAKER_SLOT_REPORTERS)
		slot->reporters[slot->reporter_count++] = reporter;
}

static void start(struct breaker *b, int64_t newest)
{
	b->newest = newest;
	b->slot_count = 1;
	b->slots[0] = (struct breaker_slot){0};
}

/* Makes `slot` the newest one, unless the newest is later. Drops slots that are too old, or all of
 * them if `slot` is a window or more behind. */
static void go_to(struct breaker *b, int64_t slot)
{
	int64_t ahead = slot - b->newest;
	unsigned keep;

	if (b->slot_count == 0 || ahead >= BREAKER_SLOTS || ahead <= -BREAKER_SLOTS) {
		start(b, slot);
		return;
	}
	if (ahead <= 0)
		return;
	keep = BREAKER_SLOTS - (unsigned)ahead;
	if (keep > b->slot_count)
		keep = b->slot_count;
	memmove(&b->slots[ahead], b->slots, keep * sizeof(b->slots[0]));
	memset(b->slots, 0, (size_t)ahead * sizeof(b->slots[0]));
	b->newest = slot;
	b->slot_count = keep + (unsigned)ahead;
	while (b->slot_count > 1 && b->slots[b->slot_count - 1].calls == 0)
		b->slot_count--;
}

/* Moves the counts to slots of another length: those of each old slot to the new slot in which the
 * old one began. */
static void resize(struct breaker *b, int64_t window_ms)
{
	struct breaker_slot old[BREAKER_SLOTS];
	unsigned count = b->slot_count;
	int64_t newest = b->newest, old_ms = b->window_ms;

	memcpy(old, b->slots, count * sizeof(old[0]));
	b->slot_count = 0;
	for (unsigned i = count; i-- > 0;) {
		int64_t begin_ms = (newest - (int64_t)i) * old_ms / BREAKER_SLOTS;
		struct breaker_slot *to = b->slots;

		go_to(b, begin_ms * BREAKER_SLOTS / window_ms);
		to->calls = plus(to->calls, old[i].calls);
		to->failures = plus(to->failures, old[i].failures);
		to->slow = plus(to->slow, old[i].slow);
		for (unsigned j = 0; j < old[i].reporter_count; j++)
			add_reporter(to, old[i].reporters[j]);
	}
}

void breaker_window_advance(struct breaker *b, int64_t window_ms, int64_t now_ms)
{
	if (b->slot_count > 0 && b->window_ms != window_ms)
		resize(b, window_ms);
	b->window_ms = window_ms;
	go_to(b, now_ms * BREAKER_SLOTS / window_ms);
}

/* What the window holds. */
struct sums {
	uint64_t calls, failures, slow;
	unsigned reporters;
};

static void sum_up(const struct breaker *b, struct sums *sums)
{
	uint64_t seen[(BREAKER_REPORTERS + 63) / 64] = {0};

	*sums = (struct sums){0};
	for (unsigned i = 0; i < b->slot_count; i++) {
		const struct breaker_slot *slot = &b->slots[i];

		sums->calls += slot->calls;
		sums->failures += slot->failures;
		sums->slow += slot->slow;
		for (unsigned j = 0; j < slot->reporter_count; j++) {
			unsigned n = slot->reporters[j];
			uint64_t bit = UINT64_C(1) << (n % 64);

			sums->reporters += !(seen[n / 64] & bit);
			seen[n / 64] |= bit;
		}
	}
}

static enum breaker_cause check(const struct breaker *b, const struct policy *p,
				const struct sums *sums)
{
	if (sums->reporters < p->min_reporters)
		return BREAKER_NOT_MOVED;
	if (p->consecutive_failures > 0 && b->run >= p->consecutive_failures)
		return BREAKER_RUN;
	if (sums->calls < p->min_calls)
		return BREAKER_NOT_MOVED;
	if (p->failure_rate > 0 && sums->failures * 100 >= p->failure_rate * sums->calls)
		return BREAKER_FAILURE_RATE;
	if (p->slow_time_ms > 0 && sums->slow * 100 >= p->slow_rate * sums->calls)
		return BREAKER_SLOW_RATE;
	return BREAKER_NOT_MOVED;
}

/* How many of `count` reports are to be counted before the rates are checked. Successes only lower
 * the rates, so the rates are highest after the report that completes min_calls or, if that has
 * come before, after the first one. */
static uint32_t decisive(const struct sums *sums, const struct policy *p, uint32_t count)
{
	uint64_t missing = sums->calls < p->min_calls ? p->min_calls - sums->calls : 1;

	return missing < count ? (uint32_t)missing : count;
}

uint32_t breaker_window_count(struct breaker *b, const struct policy *p,
			      const struct breaker_call *call, enum breaker_cause *cause,
			      struct breaker_move *move)
{
	bool failed = call->outcome == BREAKER_FAILURE;
	struct breaker_slot *slot = b->slots;
	struct sums sums;
	uint32_t first;

	slot->failures = plus(slot->failures, failed);
	slot->slow = plus(slot->slow, call->slow);
	if (failed || call->slow)
		add_reporter(slot, call->reporter);
	b->run = failed ? plus(b->run, 1) : 0;

	sum_up(b, &sums);
	first = decisive(&sums, p, call->count);
	sums.calls += first;
	*cause = check(b, p, &sums);
	if (*cause != BREAKER_NOT_MOVED) {
		slot->calls = plus(slot->calls, first);
		*move = (struct breaker_move){
			.run = b->run,
			.calls = sums.calls,
			.of_them = *cause == BREAKER_SLOW_RATE ? sums.slow : sums.failures,
			.reporters = sums.reporters,
		};
		return first;
	}
	slot->calls = plus(slot->calls, call->count);
	return call->count;
}
