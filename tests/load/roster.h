/* A participant's roster (docs/PROTOCOL.md section 4): one link for each seat of its room, found by the identity that
 * the swarm gave, then by sid. Free of I/O. */
#ifndef SBX_LOAD_ROSTER_H
#define SBX_LOAD_ROSTER_H

#include "tests/load/participant.h"

/* A new session: nothing is known, no message was ever sent. */
void roster_reset(struct participant *participant);

/* Every page between begin and end; without end, nobody is removed. */
void roster_snapshot_begin(struct participant *participant);
void roster_snapshot_page(struct participant *participant, const Signalbox__V1__Snapshot *page);
void roster_snapshot_end(struct participant *participant);

void roster_apply(struct participant *participant, const Signalbox__V1__RoomEvent *event);

/* As the server computes it, to be compared with `settled`. */
uint64_t roster_digest(const struct participant *participant);

/* Seats of the room whose entry differs from the truth: who is joined, under which sid, muted or not. */
unsigned roster_count_differences(const struct participant *participant);

#endif
