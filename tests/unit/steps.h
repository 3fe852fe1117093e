/*
 * Runs steps on one circuit, one a line, through the C functions and, if a Redis is given, through
 * circuit.lua too. Both must give the same answers and store the same bytes. Steps:
 *
 *   policy NAME=VALUE ...     the policy from here on: the defaults with these changes; times in
 *                             milliseconds, open_growth in thousandths
 *   wait MS, back MS          moves the clock forward, or back
 *   acquire
 *   report PERMIT OUTCOME [slow] [by N] [xN]    PERMIT: - for none, or N for that of the Nth
 *                             allowed acquire, from 0; OUTCOME: success, failure, ignored; by N:
 *                             the daemon; xN: N equal reports
 *   get, success, failure, reset, transition TO [from FROM]
 *   force MODE MS             an override, forced-open or forced-closed, for so long
 *   unforce                   ends the override
 *   drop                      another program drops the member `breakerd`
 *   member TEXT               another program writes that member
 *
 * Operations separated by " | " are one call. Answers:
 *   acquire     yes|no STATE REASON RETRY_AFTER_MS
 *   report      counted|stale|spent|ignored|overridden WAS STATE; of xN: N counted WAS STATE, with
 *               the number that counted
 *   get, success, failure, transition   STATE failureCount successCount lastFailureTime
 *               lastStateChange; times are relative to STEPS_START, but 0 is "never"
 *   reset and others   ok
 */
#ifndef BREAKERD_TESTS_STEPS_H
#define BREAKERD_TESTS_STEPS_H

#include "proto/breaker.h"
#include "proto/breaker_permit.h"
#include "proto/circuit_json.h"

#include <hiredis/hiredis.h>

#define STEPS_START      INT64_C(1700000000000)
#define STEPS_ANSWER_MAX 512

struct steps {
	redisContext *redis; /* NULL: C alone */
	char sha[64];
	struct policy policy;
	int64_t now_ms;
	/* What the C side has stored; "": nothing. */
	char value[CIRCUIT_JSON_MEMBER_MAX];
	char (*permits)[BREAKER_PERMIT_MAX];
	size_t permit_count, permit_room;
};

/* Begins without a circuit, with the default policy and the clock at STEPS_START. */
void steps_begin(struct steps *steps, redisContext *redis);
void steps_end(struct steps *steps);

/* Runs a line and writes its answer. False if the line is no step, or if C and Lua differ: then
 * `answer` says what is wrong. */
bool steps_run(struct steps *steps, const char *line, char answer[STEPS_ANSWER_MAX]);

#endif
