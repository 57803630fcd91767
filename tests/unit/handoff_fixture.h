/* Shards under test in virtual time, between which the test carries, loses or repeats what they send; what they send to
 * their one gateway is recorded, unpacked. They see each other's markers as they are. */
#ifndef SBX_TESTS_HANDOFF_FIXTURE_H
#define SBX_TESTS_HANDOFF_FIXTURE_H

#include "shard/internal.h"
#include "shard_fixture.h"

enum { SHARDS = 3, QUEUE_MAX = 4096 };

/* What one shard has sent to another, not yet carried. */
struct letter {
    int from, to;
    struct payload *item;
};

struct handoff_fixture {
    struct timer_wheel wheel;
    int64_t now_ms;
    struct view *view; /* the newest, which a shard goes by once it has learnt of it */
    struct peer {
        struct node_address address;
        struct shard *shard;
        struct view_number marker;
        bool flush_wanted;
    } peers[SHARDS];
    struct view_number reported; /* by the gateway */
    struct letter letters[QUEUE_MAX];
    size_t letter_count;
    Item *to_gateways[QUEUE_MAX];
    size_t to_gateway_count;
    struct arena arena; /* what was sent, for the whole test */
};

/* Each test program has one. */
extern struct handoff_fixture f;

/* Shard 0 alone is in the view. */
void setup(void);
void teardown(void);
void pass(int64_t ms);

/* A view with these shards ("02" = shards 0 and 2) and one gateway. Nobody knows of it yet. */
void next_view(const char *shards);
void learn(int shard);
/* A room that `owner` owns in the newest view; a static string. */
const char *room_of(int owner);
/* A room of shard 0 that will be shard `to`'s in a view of the shards given; a static string. */
const char *room_moving_to(int to, const char *shards);
/* NULL and ROOM_ABSENT if the shard has none of that name. */
const struct room *room_at(int shard, const char *name);
enum room_state state_at(int shard, const char *name);

Item *unpack(const struct payload *item);
void hand(const struct letter *letter);
/* Everything that waits, and what that leads to; `most` (0: all) letters. */
void carry(size_t most);
/* Everything that waits. */
void lose(void);

struct person joins(int shard, const char *identity, const char *room);
void say(int shard, const struct person *person, int intent, int wanted);
/* `seq`: of the view that the gateway goes by; 0: it does not say. */
void say_under(int shard, const struct person *person, int intent, int wanted, uint64_t seq);
/* The newest that a shard sent to the gateway; NULL if there is none. */
const Ack *last_ack(const struct person *person);
const Item *last_of(int body_case);

#endif
