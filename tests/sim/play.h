/* One seed: a world is drawn, people in it, and what befalls them; what must hold is checked after every step and once
 * it is quiet again. */
#ifndef SBX_TESTS_SIM_PLAY_H
#define SBX_TESTS_SIM_PLAY_H

#include "shard/states.h"
#include "tests/sim/cluster.h"
#include "tests/sim/story.h"

struct play_result {
    uint64_t seed;
    uint64_t digest; /* of every event: two runs of a seed have the same */
    bool held;
    bool fleet;
    uint64_t injected[INJECTED_COUNT];
    uint64_t edges[ROOM_EDGE_COUNT]; /* how often each was taken */
};

/* The story is borrowed, and broken if something did not hold. */
void play_seed(uint64_t seed, struct story *story, struct play_result *ret_result);
const char *play_injected_help(enum injected injected);

#endif
