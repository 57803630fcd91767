/* How a test program ends. */
#ifndef SBX_TESTS_SUITE_H
#define SBX_TESTS_SUITE_H

#include <check.h>

/* Runs the suite of these cases (TCase *, the last one NULL), prints its counts and returns main()'s exit status. */
int suite_run(const char *name, ...) __attribute__((sentinel));

#endif
