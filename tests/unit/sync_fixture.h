/* A gateway with two clients in a room "r", and what their room's owner says of its order. */
#ifndef SBX_TESTS_SYNC_FIXTURE_H
#define SBX_TESTS_SYNC_FIXTURE_H

#include "gateway_fixture.h"

/* Each test program has these. */
extern struct fixture f;
extern int ann, bob;
extern uint64_t start; /* the room's seq when both had joined */

void setup(void);
void teardown(void);

/* How many batches of room events a client has been sent. */
int events_of(int client);
/* To the gateway itself with `sid` "". */
void sync_reply(const char *sid, uint64_t connection, ProtobufCBinaryData message, uint64_t seq, bool replay,
                bool last_page, int code);
void session_reply(int client, ProtobufCBinaryData message, uint64_t seq, bool replay, bool last_page);
/* The last that the owner was asked for. */
const Signalbox__Cluster__V1__SyncRequest *last_ask(void);
/* A client asks for what it misses, with request id 50. */
void say_sync(int client, Signalbox__V1__Position *position, const char *cursor);

#endif
