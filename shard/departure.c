/* Who has left for good, so that a late resume learns how it ended, and a late repeat of a join does nothing. */
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/internal.h"

void departure_forget(struct departure *departure)
{
    timer_cancel(departure->shard->wheel, &departure->expiry);
    struct shard *shard = departure->shard;
    HASH_DEL(shard->departures, departure);
    list_remove(&departure->room_link);
    pool_free(&shard->departure_pool, departure);
}

static void on_departure_forgotten(struct timer *timer, int64_t now_ms)
{
    departure_forget(container_of(timer, struct departure, expiry));
}

/* By a few bytes of the room's key, which is a hash already. */
struct list *departure_bucket(struct shard *shard, const struct room_key *key)
{
    unsigned hash = key->bytes[0] | (unsigned)key->bytes[1] << 8;
    return &shard->departures_by_room[hash % DEPARTURE_BUCKETS];
}

void departure_remember(struct shard *shard, const struct sid *sid, const struct room_key *key,
                        Signalbox__V1__LeaveReason reason, uint32_t window_ms, int64_t now_ms)
{
    departure_remember_until(shard, sid, key, reason, now_ms + window_ms + shard->options.limits.departure_ms);
}

void departure_remember_until(struct shard *shard, const struct sid *sid, const struct room_key *key,
                              Signalbox__V1__LeaveReason reason, int64_t until_ms)
{
    struct departure *departure = departure_find(shard, sid);
    if (departure == NULL) {
        /* The table iterates in the order of insertion: its head is the oldest. */
        if (HASH_COUNT(shard->departures) >= shard->options.limits.departures && shard->departures != NULL) {
            departure_forget(shard->departures);
            metric_add(M_DEPARTURES_FORGOTTEN, 1);
        }
        departure = pool_alloc(&shard->departure_pool);
        departure->sid = *sid;
        departure->shard = shard;
        timer_init(&departure->expiry, on_departure_forgotten);
        list_init(&departure->room_link);
        HASH_ADD(hh, shard->departures, sid, sizeof departure->sid, departure);
    }
    departure->room_key = *key;
    list_remove(&departure->room_link);
    list_append(departure_bucket(shard, key), &departure->room_link);
    departure->reason = reason;
    timer_set(shard->wheel, &departure->expiry, until_ms);
}

struct departure *departure_find(struct shard *shard, const struct sid *sid)
{
    struct departure *departure;
    if (SIM_FAULT(DEPARTED_FORGOTTEN))
        return NULL;
    HASH_FIND(hh, shard->departures, sid, sizeof *sid, departure);
    return departure;
}

/* --- for good ---------------------------------------------------------------------------------------------------- */

static void send(void *ctx, const struct node_address *to, Signalbox__Cluster__V1__Item *item)
{
    shard_send(ctx, to, item);
}

static void on_revoked(void *ctx, const struct sid *sid, Signalbox__V1__LeaveReason reason, int64_t now_ms)
{
    struct shard *shard = ctx;
    struct member *member;
    HASH_FIND(hh_sid, shard->members_by_sid, sid, sizeof *sid, member);
    /* Of a room on its way out, the gateway ends it: it was told, too. */
    if (member != NULL && member->room->state != ROOM_FROZEN)
        member_end(member, reason, true, now_ms);
}

void departure_init(struct shard *shard)
{
    pool_init(&shard->departure_pool, sizeof(struct departure));
    for (size_t i = 0; i < DEPARTURE_BUCKETS; i++)
        list_init(&shard->departures_by_room[i]);
    revocations_init(&shard->revocations);
    shard->revocations.send = send;
    shard->revocations.revoked = on_revoked;
    shard->revocations.ctx = shard;
}

void departure_revoke(struct shard *shard, const struct sid *sid, Signalbox__V1__LeaveReason reason, int64_t now_ms)
{
    if (revocation_reason(reason))
        revocations_make(&shard->revocations, sid, reason, shard->view, shard->options.self.incarnation, now_ms);
}

Signalbox__V1__LeaveReason departure_reason(struct shard *shard, const char *sid_text)
{
    struct sid sid;
    struct departure *departure = sid_parse(sid_text, &sid) ? departure_find(shard, &sid) : NULL;
    return departure != NULL ? departure->reason : SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE;
}

Signalbox__V1__LeaveAction departure_action(Signalbox__V1__LeaveReason reason)
{
    switch (reason) {
    case SIGNALBOX__V1__LEAVE_REASON__REPLACED:
    case SIGNALBOX__V1__LEAVE_REASON__DUPLICATE_IDENTITY:
    case SIGNALBOX__V1__LEAVE_REASON__REMOVED:
    case SIGNALBOX__V1__LEAVE_REASON__ROOM_CLOSED:
    case SIGNALBOX__V1__LEAVE_REASON__TOKEN_EXPIRED:
    case SIGNALBOX__V1__LEAVE_REASON__TOKEN_REVOKED:
    case SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR:
    case SIGNALBOX__V1__LEAVE_REASON__ABUSE:
        return SIGNALBOX__V1__LEAVE_ACTION__STOP;
    default:
        return SIGNALBOX__V1__LEAVE_ACTION__REJOIN;
    }
}
