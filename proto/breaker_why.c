/*
 * What the policy machine says in words: reasons, and what led to a change of state.
 */
#include "proto/breaker.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const reason_names[BREAKER_REASONS] = {
	[BREAKER_CLOSED] = "closed",
	[BREAKER_PROBE] = "probe",
	[BREAKER_OPEN] = "open",
	[BREAKER_PROBING] = "probing",
	[BREAKER_REASON_FORCED_OPEN] = "forced-open",
	[BREAKER_REASON_FORCED_CLOSED] = "forced-closed",
	[BREAKER_OBSERVED] = "observed",
	[BREAKER_COUNTED] = "counted",
	[BREAKER_STALE] = "stale",
	[BREAKER_SPENT] = "spent",
	[BREAKER_REASON_IGNORED] = "ignored",
	[BREAKER_OVERRIDDEN] = "overridden",
};

const char *breaker_reason_name(enum breaker_reason reason)
{
	return reason_names[reason];
}

static int write_rate(char *buf, const struct breaker_move *m, const char *what)
{
	return snprintf(buf, BREAKER_WHY_MAX,
			"%" PRIu64 "%% of %" PRIu64 " calls %s, %u reporter%s",
			m->of_them * 100 / m->calls, m->calls, what, m->reporters,
			m->reporters == 1 ? "" : "s");
}

size_t breaker_why(char buf[BREAKER_WHY_MAX], const struct breaker_move *m)
{
	int len = 0;

	buf[0] = '\0';
	switch (m->cause) {
	case BREAKER_NOT_MOVED:
		break;
	case BREAKER_RUN:
		len = snprintf(buf, BREAKER_WHY_MAX, "%u consecutive failure%s", m->run,
			       m->run == 1 ? "" : "s");
		break;
	case BREAKER_FAILURE_RATE:
		len = write_rate(buf, m, "failed");
		break;
	case BREAKER_SLOW_RATE:
		len = write_rate(buf, m, "were slow");
		break;
	case BREAKER_PROBE_FAILED:
		len = snprintf(buf, BREAKER_WHY_MAX, "a probe failed");
		break;
	case BREAKER_PROBE_SLOW:
		len = snprintf(buf, BREAKER_WHY_MAX, "a probe was slow");
		break;
	case BREAKER_PROBE_LOST:
		len = snprintf(buf, BREAKER_WHY_MAX, "a probe was lost");
		break;
	case BREAKER_OPENING_OVER:
		len = snprintf(buf, BREAKER_WHY_MAX, "open for %" PRId64 " ms", m->open_ms);
		break;
	case BREAKER_PROBES_PASSED:
		len = snprintf(buf, BREAKER_WHY_MAX, "%u probe%s succeeded", m->passed,
			       m->passed == 1 ? "" : "s");
		break;
	}
	return (size_t)len;
}
