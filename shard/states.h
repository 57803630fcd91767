/* What a room is to a shard, and how that may change.
 *
 *   absent      not here
 *   held        not here, and asked for; somebody else may have it (search.c)
 *   rebuilding  its owner was lost; gateways report who is in it, nothing is published (rebuild.c)
 *   settling    it is served; who is missing may yet come back
 *   live        it is served
 *   frozen      another shard's now; on its way there, and not served any more (handoff.c)
 *
 * room_set_state() is the only place that changes a room's state: it counts every edge and refuses those that are not
 * in the table.
 */
#ifndef SBX_SHARD_STATES_H
#define SBX_SHARD_STATES_H

#include <stdbool.h>

enum room_state { ROOM_ABSENT, ROOM_HELD, ROOM_REBUILDING, ROOM_SETTLING, ROOM_LIVE, ROOM_FROZEN, ROOM_STATE_COUNT };

/* EDGE(from, to, when); in the order of the label values of M_ROOM_TRANSITIONS. */
#define ROOM_EDGES(EDGE)                                                                                               \
    EDGE(ABSENT, HELD, "asked for while another shard may have it")                                                    \
    EDGE(ABSENT, REBUILDING, "asked for or reported after its owner was lost")                                         \
    EDGE(ABSENT, SETTLING, "resumed, reported late, or installed while settling")                                      \
    EDGE(ABSENT, LIVE, "joined as a new room, or installed")                                                           \
    EDGE(HELD, ABSENT, "nobody waits for it any more, or another shard's")                                             \
    EDGE(HELD, REBUILDING, "nobody has it, and an owner was lost")                                                     \
    EDGE(HELD, SETTLING, "resumed, or installed while settling")                                                       \
    EDGE(HELD, LIVE, "new after all, or installed")                                                                    \
    EDGE(REBUILDING, ABSENT, "nobody was in it, or another shard's")                                                   \
    EDGE(REBUILDING, SETTLING, "all gateways have reported, or have had their time")                                   \
    EDGE(SETTLING, ABSENT, "this shard was removed")                                                                   \
    EDGE(SETTLING, LIVE, "the resume window is over")                                                                  \
    EDGE(SETTLING, FROZEN, "another shard's")                                                                          \
    EDGE(LIVE, ABSENT, "empty, or this shard was removed")                                                             \
    EDGE(LIVE, SETTLING, "resumed while it is younger than a resume window, by somebody who is not known")             \
    EDGE(LIVE, FROZEN, "another shard's")                                                                              \
    EDGE(FROZEN, ABSENT, "installed or refused by its new owner, or that owner was lost")                              \
    EDGE(FROZEN, SETTLING, "this shard's again, and nobody else has installed it")                                     \
    EDGE(FROZEN, LIVE, "the same, after it had settled")

enum room_edge {
#define EDGE(from, to, when) ROOM_EDGE_##from##_##to,
    ROOM_EDGES(EDGE)
#undef EDGE
        ROOM_EDGE_COUNT
};

struct room;

const char *room_state_name(enum room_state state);
void room_set_state(struct room *room, enum room_state state);
/* It is served: commands are carried out, events published. */
bool room_is_served(const struct room *room);
/* Nobody may be declared gone. */
bool room_is_settling(const struct room *room);

#endif
