/*
 * Steps of a circuit's life, one a line, through the C functions and, if a Redis is given, through
 * circuit.lua as well; the two must answer alike and leave the same bytes. Steps:
 *
 *   policy NAME=VALUE ...     the defaults, but for these; times in milliseconds, open_growth in
 *                             thousandths; it is the policy from then on
 *   wait MS, back MS          moves the clock
 *   acquire
 *   report PERMIT OUTCOME [slow] [by N] [xN]    PERMIT: - or the number of an acquire that was
 *                             allowed, from 0; OUTCOME: success, failure, ignored; N: the daemon,
 *                             or how many reports alike
 *   get, success, failure, reset, transition TO [from FROM]
 *   force MODE MS          forced-open, forced-closed, or none
 *   drop                      another program drops the member `breakerd`
 *   member TEXT               another program writes it
 *
 * Operations with " | " between two are one call. Answers:
 *   acquire     yes|no STATE REASON RETRY_AFTER_MS
 *   report      counted|stale|spent|ignored|overridden WAS STATE; of xN: N counted WAS STATE, N
 *               being how many were
 *   get ...     STATE failureCount successCount lastFailureTime lastStateChange; times are from
 *               STEPS_START, but 0 is "never"
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
	/* What C's store holds; "": nothing. */
	char value[CIRCUIT_JSON_MEMBER_MAX];
	char (*permits)[BREAKER_PERMIT_MAX];
	size_t permit_count, permit_room;
};

/* Begins anew: no circuit, the defaults, the clock at STEPS_START. */
void steps_begin(struct steps *steps, redisContext *redis);
void steps_end(struct steps *steps);

/* Runs a line and writes what it answers. False: this is no step, or C and Lua differ; `answer`
 * says what is wrong. */
bool steps_run(struct steps *steps, const char *line, char answer[STEPS_ANSWER_MAX]);

#endif
