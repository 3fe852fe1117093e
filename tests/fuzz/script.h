/*
 * Runs circuit.lua in this process, with a stand-in for Redis that has one key, for the fuzz
 * targets that compare it with C. It runs in Debian's Lua 5.1; Redis's Lua derives from 5.1.
 */
#ifndef BREAKERD_TESTS_FUZZ_SCRIPT_H
#define BREAKERD_TESTS_FUZZ_SCRIPT_H

#include "fuzz.h"
#include "proto/circuit_script.h"

#define NOW_MS  INT64_C(1700000000123)
#define TTL_S   86400
#define LEFT_MS INT64_C(86000000) /* what PTTL answers */

/* What the last script_eval did. */
struct script {
	struct fuzz_text value; /* what GET and GETRANGE answer */
	char *set;              /* the value that SET was called with; NULL: it was not called */
	size_t set_len;
	bool deleted;
	char *reply;
};
extern struct script script;

/* Runs the script on the key, which holds `value`. *answer gets its answer as the daemon reads it,
 * and is valid until the next call. */
void script_eval(struct fuzz_text value, const char *ops, struct circuit_script_answer *answer);

/* Frees the results of the last call. */
void script_forget(void);

#endif
