#include "request_fixture.h"

#include <string.h>

struct fixture f;
int ann;

void setup(void)
{
    fixture_open(&f, NULL);
    ann = join_client(&f, "ann", "r", NULL);
}

void teardown(void)
{
    fixture_close(&f);
}

int code_of(int client, uint32_t request_id)
{
    const Signalbox__V1__Result *result = result_of(&f, client, request_id);
    return result != NULL ? (int)result->code : 0;
}

int ask(int client, Request *message)
{
    static uint32_t request_id = 100;
    message->request_id = ++request_id;
    request(&f, client, message);
    return code_of(client, request_id);
}

const char *long_text(size_t size)
{
    static char text[70000];
    memset(text, 'x', size);
    text[size] = '\0';
    return text;
}
