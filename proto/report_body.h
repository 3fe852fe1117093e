/*
 * The body of a report: what became of a request. {"permit":"…","outcome":"failure"}, or in place
 * of the outcome "status":503, and optionally "durationMs":12.5.
 */
#ifndef BREAKERD_PROTO_REPORT_BODY_H
#define BREAKERD_PROTO_REPORT_BODY_H

#include "proto/breaker.h"
#include "proto/breaker_permit.h"

enum report_body_status {
	REPORT_BODY_OK,
	REPORT_BODY_INVALID, /* not JSON, no object, a wrong, duplicate or missing member */
	REPORT_BODY_OUTCOME, /* `outcome` is another word, `status` another number */
	REPORT_BODY_PERMIT,  /* `permit` is no permit, or one of another circuit */
};

/*
 * Reads the body of a report on the circuit `key` into outcome, slow and permit of *call; the
 * policy says which statuses are failures and which calls are slow. On failure writes one sentence
 * for the client to why (NUL-terminated, cut to why_size, valid UTF-8 without control characters)
 * and leaves *call untouched. If there are several faults, it names the first in the order above.
 * `body` must not be NULL; it needs no NUL at its end.
 */
enum report_body_status report_body_read(const char *body, size_t len, const struct policy *policy,
					 const char *key, size_t key_len, struct breaker_call *call,
					 char *why, size_t why_size);

#endif
