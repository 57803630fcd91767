/* Buses under test, with real nats-servers and a loop that runs until one of them has come to what a test waits for. */
#ifndef SBX_TESTS_BUS_FIXTURE_H
#define SBX_TESTS_BUS_FIXTURE_H

#include "common/bus.h"
#include "nats_fixture.h"
#include <check.h>

enum { SUBJECT_SIZE = 64 };

/* Each test program has these. */
extern struct nats_server servers[2];
extern struct loop *loop;

/* One bus and what its handlers heard. */
struct peer {
    struct bus *bus;
    enum bus_state state;
    unsigned state_changes;
    char server_id[128];
    char detail[256];
    unsigned received;
    size_t received_bytes;
    uint32_t last_number;
    bool in_order;
    unsigned unreachable;
    char last_unreachable[SUBJECT_SIZE];
    bool gate_open;
    unsigned gate_asked;
};

struct bus_options options_for(const char *const *urls, size_t count);
void open_peer(struct peer *peer, const struct bus_options *options);
/* A peer on the first server with one subscription, or none, and an inbox named after it. */
void open_simple(struct peer *peer, const char *subject, const char *inbox);
/* A message that begins with its number. */
int publish_number(struct peer *peer, const char *subject, uint32_t number, size_t size, int flags);

/* Fails when the condition does not hold within half a minute. */
void run_until(bool (*condition)(const struct peer *peer), const struct peer *peer);
bool is_up(const struct peer *peer);
bool is_lost(const struct peer *peer);
bool got_one(const struct peer *peer);

/* What main() returns: each test begins without servers. */
int run_bus_tests(const char *name, TCase *tests);

#endif
