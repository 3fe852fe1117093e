/*
 * Problem documents (RFC 9457) and the table of the errors that a client can meet.
 */
#ifndef BREAKERD_PROTO_PROBLEM_H
#define BREAKERD_PROTO_PROBLEM_H

#include "proto/circuit.h"

/* code, HTTP status, title. openapi.yaml lists the same; a test compares. */
#define PROBLEM_TABLE(X)                                                                           \
	X(INVALID_KEY, "invalid_key", 400, "Invalid circuit key")                                  \
	X(INVALID_BODY, "invalid_body", 400, "Invalid request body")                               \
	X(INVALID_QUERY, "invalid_query", 400, "Invalid query")                                    \
	X(UNAUTHORIZED, "unauthorized", 401, "Missing or wrong token")                             \
	X(FORBIDDEN_ORIGIN, "forbidden_origin", 403, "Request from another origin")                \
	X(NOT_FOUND, "not_found", 404, "No such route")                                            \
	X(NO_OVERRIDE, "no_override", 404, "No override")                                          \
	X(METHOD_NOT_ALLOWED, "method_not_allowed", 405, "Method not allowed")                     \
	X(STATE_CONFLICT, "state_conflict", 409, "Circuit is in another state")                    \
	X(BODY_TOO_LARGE, "body_too_large", 413, "Request body too large")                         \
	X(MISDIRECTED_REQUEST, "misdirected_request", 421, "Host is none of ours")                 \
	X(INVALID_STATE, "invalid_state", 422, "No such circuit state")                            \
	X(INVALID_OUTCOME, "invalid_outcome", 422, "No such outcome")                              \
	X(INVALID_PERMIT, "invalid_permit", 422, "Not a permit of this circuit")                   \
	X(STORE_ERROR, "store_error", 502, "The store answered with an error")                     \
	X(STORE_UNAVAILABLE, "store_unavailable", 503, "The store is away")                        \
	X(STORE_FULL, "store_full", 503, "The store is full")                                      \
	X(OVERLOADED, "overloaded", 503, "Too many operations in flight")                          \
	X(STORE_TIMEOUT, "store_timeout", 504, "The store did not answer in time")

enum problem {
#define X(id, code, status, title) PROBLEM_##id,
	PROBLEM_TABLE(X)
#undef X
};
#define PROBLEM_TYPE_PREFIX "urn:breakerd:problem:"

/* Whether a writing operation took effect; PROBLEM_APPLIED_NONE leaves the member out. */
enum problem_applied {
	PROBLEM_APPLIED_NONE,
	PROBLEM_APPLIED_NO,
	PROBLEM_APPLIED_UNKNOWN,
};

const char *problem_code(enum problem p);
int problem_status(enum problem p);
const char *problem_title(enum problem p);

/*
 * The document as one line of JSON with its newline, to be freed by the caller; NULL when out of
 * memory. `detail` may have any bytes up to its NUL: control characters and bytes that are no UTF-8
 * are replaced (utf8_clean). `circuit`, if not NULL, becomes the member of that name.
 */
char *problem_encode(enum problem p, const char *detail, enum problem_applied applied,
		     const struct circuit *circuit, size_t *len);

#endif
