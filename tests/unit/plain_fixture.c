#include "plain_fixture.h"

struct fixture fixture;

void open_fixture(void)
{
    fixture_open(&fixture, NULL);
}

void close_fixture(void)
{
    fixture_close(&fixture);
}
