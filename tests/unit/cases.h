/*
 * The reader of tests/cases/circuit.tsv, the one table of cases that the operations in C
 * and the Lua script both run through. The table's head says what its columns mean.
 */
#ifndef BREAKERD_TESTS_CASES_H
#define BREAKERD_TESTS_CASES_H

#include "proto/circuit.h"

/* What stands in the store before the operation. */
enum case_found {
	CASE_ABSENT,   /* nothing */
	CASE_SOUND,    /* an object with the five members, each well typed */
	CASE_REPAIRED, /* an object; a member took its default */
	CASE_NONE,     /* no JSON object: counts as corrupt, reads as nothing */
};

/* What stands in the store behind it. */
enum case_after {
	CASE_AFTER_UNCHANGED, /* the very bytes of before, or nothing if nothing was there */
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
	struct circuit expected; /* not for CIRCUIT_REMOVED; NOW stands as 0, see cases_expected */
	bool failure_time_is_now;
	bool state_change_is_now;
	enum case_after after;
	char *after_text; /* as in the table, NOW and <HH> not yet replaced */
};

struct cases {
	struct circuit_case *rows;
	size_t count;
};

/* Reads the table, from the root of the source tree. An error in it ends the program with one
 * line that says where. */
void cases_load(struct cases *cases);
void cases_free(struct cases *cases);

/* The snapshot that the operation answers with if its clock says now_ms. */
struct circuit cases_expected(const struct circuit_case *row, int64_t now_ms);

/* The bytes stored behind it (CASE_AFTER_TEXT), a NUL behind them; the caller frees them. */
char *cases_after(const struct circuit_case *row, int64_t now_ms, size_t *len);

#endif
