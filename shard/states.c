#include "shard/states.h"

#include "common/metrics.h"
#include "shard/internal.h"
#include <assert.h>

const char *room_state_name(enum room_state state)
{
    static const char *const names[] = {"absent", "held", "rebuilding", "settling", "live", "frozen"};
    return names[state];
}

static int find_edge(enum room_state from, enum room_state to)
{
    static const struct {
        enum room_state from, to;
    } edges[] = {
#define EDGE(from, to, when) {ROOM_##from, ROOM_##to},
        ROOM_EDGES(EDGE)
#undef EDGE
    };
    for (int i = 0; i < ROOM_EDGE_COUNT; i++)
        if (edges[i].from == from && edges[i].to == to)
            return i;
    return -1;
}

void room_set_state(struct room *room, enum room_state state)
{
    int edge = find_edge(room->state, state);
    assert(edge >= 0);
    room->shard->rooms_in_state[room->state]--;
    room->shard->rooms_in_state[state]++;
    room->state = state;
    metric_add_at(M_ROOM_TRANSITIONS, (unsigned)edge, 1);
}

bool room_is_served(const struct room *room)
{
    return room->state == ROOM_LIVE || room->state == ROOM_SETTLING;
}

bool room_is_settling(const struct room *room)
{
    return room->state == ROOM_SETTLING || room->state == ROOM_REBUILDING;
}
