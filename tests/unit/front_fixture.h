/* The front with a gateway behind it that only records and echoes, and a client's first steps. Each test's client runs
 * in a thread of its own (run()) while the loop runs in the main one. */
#ifndef SBX_TESTS_FRONT_FIXTURE_H
#define SBX_TESTS_FRONT_FIXTURE_H

#include "gateway/front.h"

#include "common/metrics.h"
#include "ws_client.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { QUEUE_BYTES = 65536, MESSAGE_BYTES = 4096 };
#define JSON "signalbox.v1.json"
#define PROTOBUF "signalbox.v1.protobuf"

/* What a client asks of the gateway by its request_id: a result; the same and a close; 40 KB of membership; 100 KB of
 * negotiation; five results; signals and results, and then memory runs short; a result, but over budget. */
enum { ASK_PONG = 1, ASK_CLOSE, ASK_MEMBERSHIP, ASK_NEGOTIATION, ASK_FIVE, ASK_SHED, ASK_TOO_MUCH };

struct recorded {
    unsigned opened, gone, gone_clean, malformed, overflow_membership, overflow_ephemeral, messages, left;
    char token[256];
    size_t queued_at[SHED_SLOWEST + 1]; /* messages, after memory ran short to this level */
};
extern struct recorded recorded;
extern bool gateway_is_ready, gateway_refuses_joins, gateway_is_full;

extern struct loop *loop;
extern struct front *front;
extern struct front_options options; /* of the next open_front() */
extern const struct config_strings loopback_proxies;
extern SSL_CTX *client_tls;
extern char front_error[512];

void open_front(void);
/* Runs a client's script, then the loop until every client is known to be gone. */
void run(void (*script)(void));
struct ws_client *join(const char *subprotocol);
void ask(struct ws_client *client, int what);
/* The next frame; `text` may be NULL. */
void expect(struct ws_client *client, int opcode, const char *text);
/* Closes with 1000 and frees. */
void leave(struct ws_client *client);
void expect_status(const char *request, const char *status, const char *contains);
int run_suite(const char *name, void (*add_tests)(TCase *tcase));

#endif
