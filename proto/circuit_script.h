/*
 * What is said to circuit.lua and what it answers; its head has the language.
 */
#ifndef BREAKERD_PROTO_CIRCUIT_SCRIPT_H
#define BREAKERD_PROTO_CIRCUIT_SCRIPT_H

#include "proto/circuit_json.h"

/* The letter of an operation. */
char circuit_script_letter(const struct circuit_op *op);

/* What the script found at one key. */
struct circuit_script_answer {
	bool exists;
	enum circuit_stored stored; /* CIRCUIT_STORED_SOUND also where there was nothing */
	int64_t now_ms;             /* of the operations; 0 where none needed it */
	struct circuit circuit;     /* as it was before them; zeros where there was none */
};

/*
 * Reads the answer for one key. False if it is none. Each operation's own snapshot comes
 * of circuit_apply, in the order in which they were sent, beginning with `circuit`.
 */
bool circuit_script_read(const char *text, size_t len, struct circuit_script_answer *answer);

#endif
