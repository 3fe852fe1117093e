/*
 * circuit.lua in a Redis of one key, all in one process, for the fuzz targets that compare it with
 * C. It runs in Debian's Lua 5.1, from which Redis's own descends.
 */
#ifndef BREAKERD_TESTS_FUZZ_SCRIPT_H
#define BREAKERD_TESTS_FUZZ_SCRIPT_H

#include "fuzz.h"
#include "proto/circuit_script.h"

#define NOW_MS  INT64_C(1700000000123)
#define TTL_S   86400
#define LEFT_MS INT64_C(86000000) /* of the stored circuit's time to live */

/* What the last script_eval did. */
struct script {
	struct fuzz_text value; /* what GET and GETRANGE answer */
	char *set;              /* what SET was given; NULL: none */
	size_t set_len;
	bool deleted;
	char *reply;
};
extern struct script script;

/* Runs the script on the key, which holds `value`; *answer is what it answered, as the daemon
 * reads it, until the next call. */
void script_eval(struct fuzz_text value, const char *ops, struct circuit_script_answer *answer);

/* Frees what the last one left. */
void script_forget(void);

#endif
