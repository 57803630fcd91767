/* Repair without a cause: what this gateway holds and what owners list as attached to it should be the same, and is
 * compared now and then. Each owner is told a digest every 10 s; one that differs answers with its list, of which both
 * sides mend their part. What is on its way differs for a moment: a session is missed here only if it was missed the
 * time before. */
#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include <stdlib.h>
#include <string.h>

enum {
    COMPARE_MS = 10 * 1000,
    SLICE_SESSIONS = 512,
    SLICES_MAX = 256,
    ROUNDS_PER_SLICE = 2,
    IDLE_ROUNDS = 4,
    LISTED_MAX = 8192,
    MISSED_MAX = 64
};

/* Indexes of M_SESSIONS_REPAIRED. */
enum repair { REPAIR_MISSED, REPAIR_REPEATED };

typedef Signalbox__Cluster__V1__SessionDigest Digest;
typedef Signalbox__Cluster__V1__SessionRef Ref;

/* Listed by the owner, and not held here. */
struct missed {
    char sid[SID_TEXT_SIZE + 1];
    uint64_t bind_generation;
};

struct compared {
    struct node_address shard;
    uint64_t digest;
    uint32_t count;
    unsigned idle_rounds; /* since there was a session of its rooms */
    struct missed missed[MISSED_MAX];
    size_t missed_count;
    UT_hash_handle hh; /* by incarnation */
};

static bool is_held(const struct session *session)
{
    return session->state == SESSION_BOUND && session->client != NULL && session->room->owner.incarnation != 0;
}

static bool in_slice(const struct gateway *gateway, const struct session *session)
{
    return session->sid.bytes[0] % gateway->compare_slices == gateway->compare_slice;
}

static struct compared *find(struct gateway *gateway, const struct node_address *shard)
{
    struct compared *compared;
    HASH_FIND(hh, gateway->compared, &shard->incarnation, sizeof shard->incarnation, compared);
    return compared;
}

static struct compared *open_compared(struct gateway *gateway, const struct node_address *shard)
{
    struct compared *compared = find(gateway, shard);
    if (compared != NULL)
        return compared;
    compared = mem_new(struct compared);
    compared->shard = *shard;
    HASH_ADD(hh, gateway->compared, shard.incarnation, sizeof compared->shard.incarnation, compared);
    return compared;
}

static void close_compared(struct gateway *gateway, struct compared *compared)
{
    HASH_DEL(gateway->compared, compared);
    free(compared);
}

static void say(struct gateway *gateway, const struct node_address *shard, Digest *digest)
{
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    digest->slice = gateway->compare_slice;
    digest->slices = gateway->compare_slices;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_DIGEST;
    item.session_digest = digest;
    struct payload *packed = link_pack_item(&item);
    gateway->actions.to_shard(gateway->ctx, shard, packed);
    payload_unref(&packed);
}

static void choose_slice(struct gateway *gateway)
{
    unsigned round = gateway->compare_round++;
    if (round % ROUNDS_PER_SLICE != 0)
        return;
    size_t slices = 1 + HASH_CNT(hh_connection, gateway->sessions) / SLICE_SESSIONS;
    gateway->compare_slices = slices < SLICES_MAX ? (uint32_t)slices : SLICES_MAX;
    gateway->compare_slice = round / ROUNDS_PER_SLICE % gateway->compare_slices;
    struct compared *compared, *next;
    HASH_ITER(hh, gateway->compared, compared, next)
        compared->missed_count = 0; /* of another slice */
}

static void on_compare(struct timer *timer, int64_t now_ms)
{
    struct gateway *gateway = container_of(timer, struct gateway, compare_timer);
    struct compared *compared, *next;
    struct session *session, *next_session;
    timer_set(gateway->wheel, timer, now_ms + COMPARE_MS);
    if (!gateway->bus_up)
        return;
    choose_slice(gateway);
    HASH_ITER(hh, gateway->compared, compared, next) {
        compared->digest = compared->count = 0;
        compared->idle_rounds++;
    }
    HASH_ITER(hh_connection, gateway->sessions, session, next_session) {
        if (!is_held(session))
            continue;
        compared = open_compared(gateway, &session->room->owner);
        compared->idle_rounds = 0;
        if (!in_slice(gateway, session))
            continue;
        compared->digest += session_digest(&session->sid, session->bind_generation);
        compared->count++;
    }
    HASH_ITER(hh, gateway->compared, compared, next) {
        Digest digest = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__INIT;
        if (compared->idle_rounds > IDLE_ROUNDS) {
            close_compared(gateway, compared);
            continue;
        }
        digest.digest = compared->digest;
        digest.count = compared->count;
        say(gateway, &compared->shard, &digest);
    }
}

void compare_init(struct gateway *gateway, int64_t now_ms)
{
    timer_init(&gateway->compare_timer, on_compare);
    timer_set(gateway->wheel, &gateway->compare_timer, now_ms + COMPARE_MS);
}

void compare_done(struct gateway *gateway)
{
    struct compared *compared, *next;
    timer_cancel(gateway->wheel, &gateway->compare_timer);
    HASH_ITER(hh, gateway->compared, compared, next)
        close_compared(gateway, compared);
}

static bool was_missed(const struct compared *compared, const Ref *ref)
{
    for (size_t i = 0; i < compared->missed_count; i++)
        if (compared->missed[i].bind_generation == ref->bind_generation &&
            strcmp(compared->missed[i].sid, ref->sid) == 0)
            return true;
    return false;
}

static void repeat(struct session *session)
{
    metric_add_at(M_SESSIONS_REPAIRED, REPAIR_REPEATED, 1);
    resync_add_session(session);
}

/* What the owner lists and this gateway has not got, for the second time. */
static void tell_missed(struct gateway *gateway, struct compared *compared, const Digest *listed)
{
    struct missed missed[MISSED_MAX];
    size_t missed_count = 0;
    Ref *again[MISSED_MAX];
    Digest digest = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__INIT;
    for (size_t i = 0; i < listed->n_sessions; i++) {
        Ref *ref = listed->sessions[i];
        struct sid sid;
        if (!sid_parse(ref->sid, &sid) || session_by_sid(gateway, ref->sid) != NULL)
            continue;
        if (missed_count == MISSED_MAX) {
            metric_add_at(M_SESSION_LISTS_CUT, SESSION_LIST_CUT_BY_GATEWAY, 1);
            break;
        }
        if (was_missed(compared, ref))
            again[digest.n_sessions++] = ref;
        memcpy(missed[missed_count].sid, ref->sid, sizeof missed[0].sid);
        missed[missed_count++].bind_generation = ref->bind_generation;
    }
    memcpy(compared->missed, missed, missed_count * sizeof missed[0]);
    compared->missed_count = missed_count;
    if (digest.n_sessions == 0)
        return;
    metric_add_at(M_SESSIONS_REPAIRED, REPAIR_MISSED, digest.n_sessions);
    digest.sessions = again;
    digest.count = (uint32_t)digest.n_sessions;
    digest.purpose = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__LACKED;
    say(gateway, &compared->shard, &digest);
}

void compare_listed(struct gateway *gateway, const struct node_address *from, const Digest *listed, int64_t now_ms)
{
    struct compared *compared = find(gateway, from);
    struct session *session, *next;
    if (listed->purpose != SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__LISTED || listed->n_sessions > LISTED_MAX) {
        metric_add(M_ITEMS_INVALID, 1);
        return;
    }
    if (compared == NULL || listed->slice != gateway->compare_slice || listed->slices != gateway->compare_slices) {
        metric_add(M_ACKS_STALE, 1);
        return;
    }
    gateway->compare_mark++;
    for (size_t i = 0; i < listed->n_sessions; i++) {
        session = session_by_sid(gateway, listed->sessions[i]->sid);
        if (session == NULL || session->state != SESSION_BOUND || !node_address_equal(&session->room->owner, from))
            continue;
        session->compare_mark = gateway->compare_mark;
        if (session->client == NULL || session->bind_generation != listed->sessions[i]->bind_generation)
            repeat(session);
    }
    HASH_ITER(hh_connection, gateway->sessions, session, next) {
        if (listed->count == listed->n_sessions && is_held(session) && in_slice(gateway, session) &&
            node_address_equal(&session->room->owner, from) && session->compare_mark != gateway->compare_mark)
            repeat(session);
    }
    tell_missed(gateway, compared, listed);
    resync_begin(gateway, now_ms);
}
