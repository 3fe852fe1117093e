/*
 * The policy that the settings' defaults make.
 */
#ifndef BREAKERD_TESTS_DEFAULT_POLICY_H
#define BREAKERD_TESTS_DEFAULT_POLICY_H

#include "proto/policy.h"

static const struct policy default_policy = {
	.consecutive_failures = 5,
	.failure_rate = 50,
	.slow_rate = 100,
	.window_ms = 30000,
	.min_calls = 20,
	.min_reporters = 1,
	.open_time_ms = 30000,
	.open_growth_milli = 2000,
	.open_time_max_ms = 300000,
	.probes = 1,
	.probe_successes = 1,
	.probe_timeout_ms = 30000,
	.enforce = true,
};

#endif
