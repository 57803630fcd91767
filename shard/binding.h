/* One SessionState while it is being handled: session.c decides, seat.c seats members that this owner lacks, binding.c
 * answers. Free of I/O; loop thread. */
#ifndef SBX_SHARD_BINDING_H
#define SBX_SHARD_BINDING_H

#include "shard/internal.h"

/* Outcomes of M_SESSION_COMMANDS, in the order of its labels. */
enum session_outcome {
    SESSION_JOINED,
    SESSION_REBOUND,
    SESSION_UPDATED,
    SESSION_REPEATED,
    SESSION_RESTORED,
    SESSION_DEPARTED,
    SESSION_STALE,
    SESSION_REFUSED,
    SESSION_NOT_OWNER,
    SESSION_HELD,
    SESSION_OLDER_VIEW,
};

/* One SessionState while it is being handled. */
struct binding {
    struct shard *shard;
    const struct node_address *from;
    const Signalbox__Cluster__V1__SessionState *state;
    struct room_key key;
    struct sid sid;
    int64_t now_ms;
};

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What is left of a resume window, as a gateway has it, within what is allowed. */
uint32_t binding_window_ms(uint32_t asked_ms);

/* --- answers, each counted ---------------------------------------------------------------------------------------- */

void binding_refuse(const struct binding *binding, Signalbox__V1__Code code, Signalbox__V1__LeaveReason reason,
                    Signalbox__V1__LeaveAction action, uint32_t retry_after_ms, const char *detail);
/* To a gateway that lost the session to a newer connection, whether it knows or not. */
void binding_refuse_stale(const struct binding *binding);
/* Asked to depart, and departed already or never known. */
void binding_ack_departed(const struct binding *binding);
/* The acknowledgement of an update: no more than that. */
void binding_ack_update(const struct binding *binding, struct member *member);
/* The first acknowledgement of a connection: with it comes what the client must know of the room. */
void binding_ack_bound(const struct binding *binding, struct member *member, bool newly_seated);

/* --- members that this owner lacks -------------------------------------------------------------------------------- */

/* A join: seated, or refused by a limit or the policy on duplicates. */
void seat_joined(const struct binding *binding);
/* A session asks for its place again. It gets it only while others may come back, too. */
void seat_resumed(const struct binding *binding);
/* A gateway reports a session that it holds. Its client knows the room already: what is different is said when the room
 * is whole, or asked for. */
void seat_reported(const struct binding *binding);

#endif
