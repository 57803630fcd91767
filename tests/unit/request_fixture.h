/* A gateway with one client in a room "r", who asks for things. */
#ifndef SBX_TESTS_REQUEST_FIXTURE_H
#define SBX_TESTS_REQUEST_FIXTURE_H

#include "gateway_fixture.h"

/* Each test program has these. */
extern struct fixture f;
extern int ann;

void setup(void);
void teardown(void);

/* A request with one field set; `route` may be NULL. */
#define REQUEST_WITH(variable, body, field, value, to)                                                                 \
    Request variable = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;                                                            \
    variable.body_case = REQUEST(body);                                                                                \
    variable.field = (value);                                                                                          \
    variable.route = (to)

/* The code of a request's result; 0 if none has come yet. */
int code_of(int client, uint32_t request_id);
/* Sends a request from `client`; the code of its result, as above. */
int ask(int client, Request *message);
/* A static string of that many characters, until the next call. */
const char *long_text(size_t size);

#endif
