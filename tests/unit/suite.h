/*
 * The end of each test program's main.
 */
#ifndef BREAKERD_TESTS_SUITE_H
#define BREAKERD_TESTS_SUITE_H

#include <check.h>

/* Runs the suite, prints what failed, and frees it. Returns main's exit status. */
int suite_run(Suite *suite);

#endif
