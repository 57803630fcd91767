/* The owner's side of the comparison of what gateways hold and this shard lists as attached to them: gateway/compare.c.
 * Nothing is compared while rooms come and go. */
#include "common/metrics.h"
#include "shard/internal.h"

enum { LISTED_MAX = 4096, SLICES_MAX = 256 };

typedef Signalbox__Cluster__V1__SessionDigest Digest;
typedef Signalbox__Cluster__V1__SessionRef Ref;

static bool is_listed(const struct member *member, const struct node_address *gateway, const Digest *digest)
{
    return !member->detached && member->gateway->address.incarnation == gateway->incarnation &&
           member->sid.bytes[0] % digest->slices == digest->slice;
}

static void answer(struct shard *shard, const struct node_address *gateway, const Digest *held)
{
    Digest listed = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct member *member, *next;
    arena_reset(&shard->arena);
    Ref *refs = arena_alloc(&shard->arena, LISTED_MAX * sizeof *refs);
    Ref **list = arena_alloc(&shard->arena, LISTED_MAX * sizeof *list);
    HASH_ITER(hh_sid, shard->members_by_sid, member, next) {
        if (!is_listed(member, gateway, held))
            continue;
        listed.digest += session_digest(&member->sid, member->bind_generation);
        listed.count++;
        if (refs == NULL || list == NULL || listed.n_sessions == LISTED_MAX)
            continue;
        Ref *ref = &refs[listed.n_sessions];
        signalbox__cluster__v1__session_ref__init(ref);
        ref->sid = member->sid_text;
        ref->bind_generation = member->bind_generation;
        list[listed.n_sessions++] = ref;
    }
    if (listed.digest == held->digest && listed.count == held->count)
        return;
    metric_add(M_SESSION_LISTS_DIFFER, 1);
    if (listed.n_sessions < listed.count)
        metric_add_at(M_SESSION_LISTS_CUT, SESSION_LIST_CUT_BY_OWNER, 1);
    listed.sessions = list;
    listed.slice = held->slice;
    listed.slices = held->slices;
    listed.purpose = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__LISTED;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_DIGEST;
    item.session_digest = &listed;
    shard_send(shard, gateway, &item);
}

static void detach_lacked(struct shard *shard, const struct node_address *gateway, const Digest *lacked, int64_t now_ms)
{
    for (size_t i = 0; i < lacked->n_sessions; i++) {
        struct member *member = member_find(shard, lacked->sessions[i]->sid);
        if (member != NULL && is_listed(member, gateway, lacked) &&
            member->bind_generation == lacked->sessions[i]->bind_generation)
            member_detach(member, member->resume_window_ms, now_ms);
    }
}

void compare_digest(struct shard *shard, const struct node_address *from, const Digest *digest, int64_t now_ms)
{
    bool moving =
        shard->rooms_in_state[ROOM_HELD] + shard->rooms_in_state[ROOM_REBUILDING] + shard->rooms_in_state[ROOM_FROZEN] >
        0;
    if (from->kind != NODE_GATEWAY || digest->slices == 0 || digest->slices > SLICES_MAX ||
        digest->slice >= digest->slices) {
        metric_add(M_ITEMS_INVALID, 1);
        return;
    }
    if (moving)
        return;
    if (digest->purpose == SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__HELD)
        answer(shard, from, digest);
    else if (digest->purpose == SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__LACKED)
        detach_lacked(shard, from, digest, now_ms);
}
