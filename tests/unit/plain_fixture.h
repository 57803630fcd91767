/* The shard of programs in which each test begins with a fresh one with default options. */
#ifndef SBX_TESTS_PLAIN_FIXTURE_H
#define SBX_TESTS_PLAIN_FIXTURE_H

#include "shard_fixture.h"

extern struct fixture fixture;

void open_fixture(void);
void close_fixture(void);

#endif
