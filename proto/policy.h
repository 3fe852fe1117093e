/*
 * The policy of a circuit: what opens it, for how long, and what closes it again. Pure data:
 * daemon/config fills it from the settings and checks the ranges, the policy machine (breaker.h)
 * uses it. All times are in milliseconds.
 */
#ifndef BREAKERD_POLICY_H
#define BREAKERD_POLICY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A set of HTTP statuses, 100 to 599: bit (status - 100). */
#define POLICY_STATUS_MIN 100
#define POLICY_STATUS_MAX 599
struct policy_statuses {
	uint64_t bits[8];
};

/* The most permits for probes that a policy may allow at once. */
#define POLICY_PROBES_MAX 100

struct policy {
	uint32_t consecutive_failures; /* that open; 0: off */
	uint32_t failure_rate;         /* percent of the calls in the window; 0: off */
	int64_t slow_time_ms;          /* a call that takes this long or longer is slow; 0: off */
	uint32_t slow_rate;            /* percent */
	int64_t window_ms;
	uint32_t min_calls;     /* in the window, before a rate counts */
	uint32_t min_reporters; /* daemons that must have had a failure or a slow call */
	int64_t open_time_ms;
	uint32_t open_growth_milli; /* thousandths: 2000 doubles each further opening */
	int64_t open_time_max_ms;
	uint32_t probes;          /* permits out at once while half-open */
	uint32_t probe_successes; /* that close */
	int64_t probe_timeout_ms;
	struct policy_statuses failure_status;
	struct policy_statuses ignore_status;
	bool enforce;
};

static inline bool policy_statuses_have(const struct policy_statuses *set, unsigned status)
{
	unsigned bit = status - POLICY_STATUS_MIN;

	return status >= POLICY_STATUS_MIN && status <= POLICY_STATUS_MAX &&
	       (set->bits[bit / 64] >> (bit % 64) & 1);
}

static inline bool policy_statuses_equal(const struct policy_statuses *a,
					 const struct policy_statuses *b)
{
	return memcmp(a->bits, b->bits, sizeof(a->bits)) == 0;
}

/* Compares each member: memcmp would compare the padding, too. */
static inline bool policy_equal(const struct policy *a, const struct policy *b)
{
	return a == b ||
	       (a->consecutive_failures == b->consecutive_failures &&
		a->failure_rate == b->failure_rate && a->slow_time_ms == b->slow_time_ms &&
		a->slow_rate == b->slow_rate && a->window_ms == b->window_ms &&
		a->min_calls == b->min_calls && a->min_reporters == b->min_reporters &&
		a->open_time_ms == b->open_time_ms &&
		a->open_growth_milli == b->open_growth_milli &&
		a->open_time_max_ms == b->open_time_max_ms && a->probes == b->probes &&
		a->probe_successes == b->probe_successes &&
		a->probe_timeout_ms == b->probe_timeout_ms &&
		policy_statuses_equal(&a->failure_status, &b->failure_status) &&
		policy_statuses_equal(&a->ignore_status, &b->ignore_status) &&
		a->enforce == b->enforce);
}

#endif
