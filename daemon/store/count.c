#include "store/count.h"

#include "base/metrics.h"

enum result {
	RESULT_OK,
	RESULT_CONFLICT,
	RESULT_UNAVAILABLE,
	RESULT_UNKNOWN,
	RESULT_TIMEOUT,
	RESULT_ERROR,
	RESULT_FULL,
	RESULTS
};

_Static_assert(STORE_OPERATION_LIST < METRICS_OPERATIONS, "each operation is counted");
_Static_assert(RESULTS <= METRICS_RESULTS, "each result is counted");

static const char *operation_name(unsigned operation)
{
	return operation == STORE_OPERATION_LIST ? "list"
						 : circuit_verb_name((enum circuit_verb)operation);
}

static const char *result_name(unsigned result)
{
	static const char *const names[RESULTS] = {
		[RESULT_OK] = "ok",
		[RESULT_CONFLICT] = "conflict",
		[RESULT_UNAVAILABLE] = "unavailable",
		[RESULT_UNKNOWN] = "unknown",
		[RESULT_TIMEOUT] = "timeout",
		[RESULT_ERROR] = "error",
		[RESULT_FULL] = "full",
	};

	return names[result];
}

void store_count_init(struct metrics *m)
{
	m->operation_names = (struct metrics_label){operation_name, STORE_OPERATION_LIST + 1};
	m->result_names = (struct metrics_label){result_name, RESULTS};
}

/* RESULTS: it is not counted. */
static enum result result_of(enum store_status status)
{
	switch (status) {
	case STORE_OK:
		return RESULT_OK;
	case STORE_CONFLICT:
		return RESULT_CONFLICT;
	case STORE_UNAVAILABLE:
	case STORE_OVERLOADED: /* refused, and surely not applied */
		return RESULT_UNAVAILABLE;
	case STORE_UNKNOWN:
		return RESULT_UNKNOWN;
	case STORE_TIMEOUT:
		return RESULT_TIMEOUT;
	case STORE_FULL:
		return RESULT_FULL;
	case STORE_BAD_CURSOR:
		return RESULTS;
	case STORE_ERROR:
		break;
	}
	return RESULT_ERROR;
}

void store_count(struct metrics *m, unsigned operation, const struct store_result *result,
		 uint64_t duration_ns)
{
	enum result counted = result_of(result->status);

	if (counted != RESULTS)
		metrics_operation(m, operation, counted, duration_ns);
	/* A listing whose time is over has waited for other listings, not for max_in_flight. */
	if (result->status == STORE_OVERLOADED && !result->timed_out)
		m->overloaded++;
}
