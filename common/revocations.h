/* Who may not come back: sessions that were ended so that no resume token brings them back.
 *
 * Resume tokens are valid for as long as their access tokens, in any process that has the cluster's key, whether or not
 * anybody remembers the session. So every process keeps the sids that were removed, and tells the processes that come
 * into the view: a removal outlives the shard that made it, its room, and every restart in turn. It ends
 * with its time, or when all processes are killed at once.
 *
 * One process makes a revocation and tells all others once. What the bus loses shows as a gap of the link, after which
 * the receiver asks, with the digest of what it knows; whoever knows something else says all of it.
 *
 * Bounds: REVOCATIONS_MAX, the oldest are forgotten first (and counted); each takes about 100 bytes. Free of I/O: items
 * go out through a callback. Threading: loop thread.
 */
#ifndef SBX_COMMON_REVOCATIONS_H
#define SBX_COMMON_REVOCATIONS_H

#include "common/ids.h"
#include "common/link.h"
#include "common/pool.h"
#include "common/view.h"
#include "proto/cluster.pb-c.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    REVOCATIONS_MAX = 20000,
    REVOCATION_KEEP_S = 24 * 3600, /* no resume token should live longer */
    REVOCATION_TELLERS = 3,        /* so many of those who were there tell a newcomer */
};

struct revocation;

struct revocations {
    struct revocation *by_sid; /* oldest first */
    struct pool pool;
    uint64_t digest;
    /* How items go out; receivers that this process may not send to are the callback's to leave out. */
    void (*send)(void *ctx, const struct node_address *to, Signalbox__Cluster__V1__Item *item);
    /* Somebody else has ended this session. */
    void (*revoked)(void *ctx, const struct sid *sid, Signalbox__V1__LeaveReason reason, int64_t now_ms);
    void *ctx;
};

/* Whether a session that ended so may never be resumed, whoever has forgotten it. */
bool revocation_reason(Signalbox__V1__LeaveReason reason);

/* The callbacks are the caller's to fill in. */
void revocations_init(struct revocations *revocations);
void revocations_done(struct revocations *revocations);
/* Remembers, and tells every other process of the view (which may be NULL). Nothing if it is known. */
void revocations_make(struct revocations *revocations, const struct sid *sid, Signalbox__V1__LeaveReason reason,
                      const struct view *view, uint64_t self, int64_t now_ms);
/* Why this session must not come back; LEAVE_REASON_UNSPECIFIED if nothing is known against it. */
Signalbox__V1__LeaveReason revocations_find(const struct revocations *revocations, const struct sid *sid,
                                            int64_t now_ms);
/* `view` follows `old` (or NULL): those who are new in it are told, if that falls to this process. */
void revocations_view(struct revocations *revocations, const struct view *old, const struct view *view, uint64_t self,
                      int64_t now_ms);
/* Something that `to` said was lost. */
void revocations_ask(struct revocations *revocations, const struct node_address *to);
void revocations_receive(struct revocations *revocations, const struct node_address *from,
                         const Signalbox__Cluster__V1__Revocations *said, int64_t now_ms);

#endif
