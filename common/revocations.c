#include "common/revocations.h"

#include "common/mem.h"
#include "common/metrics.h"
#include <string.h>
#include <uthash.h>

enum { SAID_AT_ONCE = 1000 };

typedef Signalbox__Cluster__V1__Item Item;
typedef Signalbox__Cluster__V1__Revocations Said;

struct revocation {
    struct sid sid;
    Signalbox__V1__LeaveReason reason;
    int64_t until_ms;
    UT_hash_handle hh;
};

bool revocation_reason(Signalbox__V1__LeaveReason reason)
{
    return reason == SIGNALBOX__V1__LEAVE_REASON__REMOVED || reason == SIGNALBOX__V1__LEAVE_REASON__ROOM_CLOSED ||
           reason == SIGNALBOX__V1__LEAVE_REASON__ABUSE;
}

void revocations_init(struct revocations *revocations)
{
    pool_init(&revocations->pool, sizeof(struct revocation));
}

/* Sids are random: the first eight bytes do for a sum that does not depend on the order. */
static uint64_t part_of_digest(const struct sid *sid)
{
    uint64_t part;
    memcpy(&part, sid->bytes, sizeof part);
    return part;
}

static void forget(struct revocations *revocations, struct revocation *revocation)
{
    HASH_DEL(revocations->by_sid, revocation);
    revocations->digest -= part_of_digest(&revocation->sid);
    pool_free(&revocations->pool, revocation);
    metric_set(M_REVOCATIONS, HASH_COUNT(revocations->by_sid));
}

void revocations_done(struct revocations *revocations)
{
    struct revocation *revocation, *next;
    HASH_ITER(hh, revocations->by_sid, revocation, next)
        forget(revocations, revocation);
}

static void drop_old(struct revocations *revocations, int64_t now_ms)
{
    while (revocations->by_sid != NULL && revocations->by_sid->until_ms <= now_ms)
        forget(revocations, revocations->by_sid);
}

static struct revocation *find(const struct revocations *revocations, const struct sid *sid)
{
    struct revocation *revocation;
    HASH_FIND(hh, revocations->by_sid, sid, sizeof *sid, revocation);
    return revocation;
}

/* NULL if it is known. */
static const struct revocation *add(struct revocations *revocations, const struct sid *sid,
                                    Signalbox__V1__LeaveReason reason, uint32_t left_s, int64_t now_ms)
{
    drop_old(revocations, now_ms);
    if (find(revocations, sid) != NULL)
        return NULL;
    if (HASH_COUNT(revocations->by_sid) >= REVOCATIONS_MAX) {
        forget(revocations, revocations->by_sid);
        metric_add(M_REVOCATIONS_FORGOTTEN, 1);
    }
    struct revocation *revocation = pool_alloc(&revocations->pool);
    revocation->sid = *sid;
    revocation->reason = reason;
    revocation->until_ms = now_ms + 1000 * (int64_t)(left_s < REVOCATION_KEEP_S ? left_s : REVOCATION_KEEP_S);
    HASH_ADD(hh, revocations->by_sid, sid, sizeof revocation->sid, revocation);
    revocations->digest += part_of_digest(sid);
    metric_set(M_REVOCATIONS, HASH_COUNT(revocations->by_sid));
    return revocation;
}

Signalbox__V1__LeaveReason revocations_find(const struct revocations *revocations, const struct sid *sid,
                                            int64_t now_ms)
{
    const struct revocation *revocation = find(revocations, sid);
    return revocation != NULL && revocation->until_ms > now_ms ? revocation->reason
                                                               : SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED;
}

/* --- saying it --------------------------------------------------------------------------------------------------- */

static void send_said(struct revocations *revocations, const struct node_address *to, Said *said)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_REVOCATIONS;
    item.revocations = said;
    revocations->send(revocations->ctx, to, &item);
}

/* `first` and those after it, up to `max`; returns the one after them. */
static const struct revocation *say_some(struct revocations *revocations, const struct node_address *to,
                                         const struct revocation *first, size_t max, int64_t now_ms)
{
    Signalbox__Cluster__V1__Revocation entries[SAID_AT_ONCE], *list[SAID_AT_ONCE];
    Said said = SIGNALBOX__CLUSTER__V1__REVOCATIONS__INIT;
    const struct revocation *revocation = first;
    for (; revocation != NULL && said.n_revoked < max; revocation = revocation->hh.next) {
        Signalbox__Cluster__V1__Revocation *entry = &entries[said.n_revoked];
        if (revocation->until_ms <= now_ms)
            continue;
        signalbox__cluster__v1__revocation__init(entry);
        entry->sid =
            (ProtobufCBinaryData){.len = sizeof revocation->sid.bytes, .data = (uint8_t *)revocation->sid.bytes};
        entry->reason = revocation->reason;
        entry->left_s = (uint32_t)((revocation->until_ms - now_ms + 999) / 1000);
        list[said.n_revoked++] = entry;
    }
    said.revoked = list;
    if (said.n_revoked > 0)
        send_said(revocations, to, &said);
    return revocation;
}

static void say_all(struct revocations *revocations, const struct node_address *to, int64_t now_ms)
{
    const struct revocation *next = revocations->by_sid;
    while (next != NULL)
        next = say_some(revocations, to, next, SAID_AT_ONCE, now_ms);
}

struct telling {
    struct revocations *revocations;
    const struct view *old;        /* tell only those that it lacks; NULL: all */
    const struct revocation *only; /* this one; NULL: all */
    uint64_t self;
    int64_t now_ms;
};

/* Shards first. */
static void tell(const struct telling *telling, const struct view *view)
{
    for (size_t i = 0; i < view_node_count(view); i++) {
        struct node_address to = view_node_at(view, i);
        if (to.incarnation == telling->self || (telling->old != NULL && view_lists(telling->old, &to)))
            continue;
        if (telling->only != NULL)
            say_some(telling->revocations, &to, telling->only, 1, telling->now_ms);
        else
            say_all(telling->revocations, &to, telling->now_ms);
    }
}

void revocations_make(struct revocations *revocations, const struct sid *sid, Signalbox__V1__LeaveReason reason,
                      const struct view *view, uint64_t self, int64_t now_ms)
{
    const struct revocation *made = add(revocations, sid, reason, REVOCATION_KEEP_S, now_ms);
    if (made == NULL || view == NULL)
        return;
    struct telling telling = {.revocations = revocations, .only = made, .self = self, .now_ms = now_ms};
    tell(&telling, view);
}

/* Whether this process is among the first few that both views list: shards before gateways, by id. */
static bool falls_to(const struct view *old, const struct view *view, uint64_t self)
{
    size_t before = 0;
    for (size_t i = 0; i < view_node_count(view) && before < REVOCATION_TELLERS; i++) {
        struct node_address address = view_node_at(view, i);
        if (!view_lists(old, &address))
            continue;
        if (address.incarnation == self)
            return true;
        before++;
    }
    return false;
}

void revocations_view(struct revocations *revocations, const struct view *old, const struct view *view, uint64_t self,
                      int64_t now_ms)
{
    if (revocations->by_sid == NULL || old == NULL || !falls_to(old, view, self))
        return;
    struct telling telling = {.revocations = revocations, .old = old, .self = self, .now_ms = now_ms};
    tell(&telling, view);
}

void revocations_ask(struct revocations *revocations, const struct node_address *to)
{
    Said said = SIGNALBOX__CLUSTER__V1__REVOCATIONS__INIT;
    said.asks = true;
    said.digest = revocations->digest;
    send_said(revocations, to, &said);
}

/* --- hearing it -------------------------------------------------------------------------------------------------- */

void revocations_receive(struct revocations *revocations, const struct node_address *from, const Said *said,
                         int64_t now_ms)
{
    drop_old(revocations, now_ms);
    if (said->n_revoked > SAID_AT_ONCE)
        metric_add(M_ITEMS_INVALID, 1);
    for (size_t i = 0; i < said->n_revoked && i < SAID_AT_ONCE; i++) {
        const Signalbox__Cluster__V1__Revocation *entry = said->revoked[i];
        struct sid sid;
        if (entry->sid.len != sizeof sid.bytes || !revocation_reason(entry->reason)) {
            metric_add(M_ITEMS_INVALID, 1);
            continue;
        }
        memcpy(sid.bytes, entry->sid.data, sizeof sid.bytes);
        if (add(revocations, &sid, entry->reason, entry->left_s, now_ms) != NULL)
            revocations->revoked(revocations->ctx, &sid, entry->reason, now_ms);
    }
    if (said->asks && said->digest != revocations->digest)
        say_all(revocations, from, now_ms);
}
