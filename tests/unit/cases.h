/*
 * The reader of tests/cases/circuit.tsv, the one table of cases that the operations in C
 * and the Lua script both run through. The table's head says what its columns mean.
 */
#ifndef BREAKERD_TESTS_CASES_H
#define BREAKERD_TESTS_CASES_H

#include "proto/circuit.h"

/* What the store holds before the operation. */
enum case_found {
	CASE_ABSENT,   /* nothing */
	CASE_SOUND,    /* an object with the five members, each well typed */
	CASE_REPAIRED, /* an object in which a missing or ill-typed member reads as its default */
	CASE_NONE,     /* no JSON object: counted as corrupt, read as an absent circuit */
};

/* What the store holds after it. */
enum case_after {
	CASE_AFTER_UNCHANGED, /* the same bytes as before, or still nothing */
	CASE_AFTER_NOTHING,
	CASE_AFTER_TEXT, /* cases_after() */
};

struct circuit_case {
	char *name;
	int line; /* in the table */
	char *before;
	size_t before_len; /* before is NULL for CASE_ABSENT; may hold any byte, NUL too */
	enum case_found found;
	struct circuit_op op;
	int64_t now_ms; /* the clock, in tests that can set it */
	enum circuit_effect effect;
	struct circuit expected; /* not for CIRCUIT_REMOVED; NOW is 0 here, see cases_expected */
	bool failure_time_is_now;
	bool state_change_is_now;
	enum case_after after;
	char *after_text; /* as in the table, NOW and <HH> not yet replaced */
};

struct cases {
	struct circuit_case *rows;
	size_t count;
};

/* Reads the table; the working directory must be the root of the source tree. An error in the
 * table ends the program with one line that says where. */
void cases_load(struct cases *cases);
void cases_free(struct cases *cases);

/* The snapshot that the operation answers with if its clock says now_ms. */
struct circuit cases_expected(const struct circuit_case *row, int64_t now_ms);

/* The bytes stored after the operation (CASE_AFTER_TEXT), NUL-terminated; the caller frees them. */
char *cases_after(const struct circuit_case *row, int64_t now_ms, size_t *len);

#endif
