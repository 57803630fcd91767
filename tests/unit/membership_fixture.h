/* One membership under test in virtual time: what it asks for is counted, and the answers are the test's. */
#ifndef SBX_TESTS_MEMBERSHIP_FIXTURE_H
#define SBX_TESTS_MEMBERSHIP_FIXTURE_H

#include "common/membership.h"
#include <check.h>

enum { WALL_S = 5000, SELF = 100, SEEN_MAX = 16 };

struct membership_fixture {
    struct timer_wheel wheel;
    struct membership *membership;
    int64_t now_ms;
    uint32_t rooms_of_others;
    unsigned reads_answered;
    /* What the actions asked for. */
    unsigned reads, entry_reads, appends, heartbeats, announcements, probes, questions;
    uint64_t expected_seq, entry_seq;
    struct view *proposed;   /* of the last append */
    uint64_t seen[SEEN_MAX]; /* sequences of the views that came into force */
    unsigned seen_count;
};

/* Each test program has one. */
extern struct membership_fixture f;

void setup(void);
void teardown(void);

/* A membership that has not started. */
void begin(enum node_kind kind);
/* A shard that has found an empty log and listened for others: it appends. */
void begin_alone(void);
/* One that is ACTIVE in view (9, 21), beside a and b. */
void join(enum node_kind kind);
void pass(int64_t ms);
/* ... while a and b are heard, with the view in force settled or not. */
void pass_heard(int64_t ms, bool settled);

/* Shards of one letter each, which is also the incarnation. */
struct view *make_view(uint64_t generation, uint64_t seq, const char *shards);
void put_self(struct view *view, enum node_kind kind, uint64_t incarnation);
void read_done(struct view *take_view);
void learn(struct view *take_view);
/* A heartbeat of a shard that has reached the view that it speaks of. */
void hear(const char *id, uint64_t generation, uint64_t seq);
/* Says that this shard has reached the view in force. */
void mark_self(void);
void assert_state(enum membership_state state);

#endif
