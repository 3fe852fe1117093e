/*
 * The operation that a letter of circuit.lua stands for. The table is repeated here because a test
 * must not take it from the code under test.
 */
#ifndef BREAKERD_TESTS_SCRIPT_OP_H
#define BREAKERD_TESTS_SCRIPT_OP_H

#include "proto/circuit.h"

static inline struct circuit_op script_op(char letter)
{
	int n = letter - 'A';

	switch (letter) {
	case 'g':
		return (struct circuit_op){.verb = CIRCUIT_GET_STATE};
	case 's':
		return (struct circuit_op){.verb = CIRCUIT_RECORD_SUCCESS};
	case 'f':
		return (struct circuit_op){.verb = CIRCUIT_RECORD_FAILURE};
	case 'd':
		return (struct circuit_op){.verb = CIRCUIT_RESET};
	}
	return (struct circuit_op){.verb = CIRCUIT_TRANSITION,
				   .to = n / 4,
				   .has_from = n % 4 > 0,
				   .from = n % 4 ? n % 4 - 1 : 0};
}

#endif
