/* What the shard remembers of negotiations between two sessions: for metrics and time to connected, never for a
 * decision.
 *
 * One record a pair, kept by the session that offered first, in the states offered -> answered -> connected; `failed`
 * and `closed` end it. A session keeps at most NEGOTIATIONS_MAX records, the least recently used are forgotten first,
 * and so are all when the room gets another owner. Every negotiation is counted once, by its outcome.
 *
 * Repeats (messages are sent again until they are acknowledged) count nothing. An offer for a connected pair without an
 * ICE restart is over with its answer, for nobody reports `connected` a second time.
 *
 * Internal to shard/. Free of I/O; threading: loop thread.
 */
#ifndef SBX_SHARD_NEGOTIATION_H
#define SBX_SHARD_NEGOTIATION_H

#include "common/ids.h"
#include "common/list.h"
#include "proto/cluster.pb-c.h"
#include <stdint.h>

enum { NEGOTIATIONS_MAX = 32 };

/* Values of the label of M_NEGOTIATIONS. */
enum negotiation_outcome {
    NEGOTIATION_CONNECTED,
    NEGOTIATION_FAILED,
    NEGOTIATION_CLOSED,     /* before it connected: by an end, or because an end has left */
    NEGOTIATION_SUPERSEDED, /* by a newer offer of the same end */
    NEGOTIATION_FORGOTTEN,
};

/* The records that one session keeps. */
struct negotiations {
    struct list records; /* struct negotiation, least recently used first */
    uint32_t count;
};

/* One of the two ends. `records` is NULL if the session is not here. */
struct negotiation_end {
    struct sid sid;
    struct negotiations *records;
};

void negotiations_init(struct negotiations *negotiations);
/* Drops all records; those without an outcome get this one. */
void negotiations_done(struct negotiations *negotiations, enum negotiation_outcome outcome);
/* A directed message goes from one end to the other. */
void negotiation_relay(const struct negotiation_end *from, const struct negotiation_end *to,
                       const Signalbox__Cluster__V1__Relay *relay, int64_t now_ms);
/* One end reports how its peer connection to the other does. */
void negotiation_report(const struct negotiation_end *from, const struct negotiation_end *to,
                        const Signalbox__V1__IceState *report, int64_t now_ms);

#endif
