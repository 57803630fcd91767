#include "common/detector.h"

#include "common/mem.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

enum {
    CONCURS_MAX = 64,
    SERVER_ID_MAX = 64,
    GATHER_MS = 300,
    VIEWS_MAX = 64,
    STARTERS_MAX = 32,
    OFFSET_AGE_MS = 30000
};

/* Label values of M_DETECTOR_FULL. */
enum detector_full { DETECTOR_FULL_ACCUSED_SAID, DETECTOR_FULL_ACCUSED_HEARD, DETECTOR_FULL_STARTING };

/* Of what was never heard. */
static const int64_t never_ms = INT64_MIN / 2;

/* Somebody concurs in the removal of `accused`, and has been saying so since `since_ms` (as heard here). */
struct concurrence {
    uint64_t accused;
    int64_t since_ms;
};

struct peer {
    struct node_address address;
    int64_t heard_ms;
    int64_t beat_ms;      /* when its last heartbeat was sent, which also says whom it accuses: counts for the fence */
    uint64_t beats[2];    /* the newest numbers heard, over its bus's connection and over the other one */
    int64_t offset_ms[2]; /* the least by which this clock was ahead of its own, lately and before; see age_of() */
    int64_t offset_since_ms;
    int64_t credit_ms; /* by which this process's own loop was late since */
    int64_t gone_ms;   /* 503, since it was last heard; 0: none */
    int64_t proved_ms; /* when an entry that it appended was learned of: it may act on that without a connection */
    int64_t accuse_ms; /* this process concurs in its removal since; 0: it does not */
    int64_t probed_ms;
    char server[SERVER_ID_MAX];
    char second_server[SERVER_ID_MAX]; /* on which it has a connection beside that of the bus; "": it never had */
    int64_t second_ms;                 /* when it was last heard over that one */
    struct view_number marker;
    struct view_number view; /* the newest that it was heard to know */
    struct concurrence concurs[CONCURS_MAX];
    size_t concur_count;
    bool idle;   /* a shard that has said it holds no room */
    bool listed; /* scratch: in the newest view */
    UT_hash_handle hh;
};

/* A process that is not in the view: whoever had its id before has ended. */
struct starter {
    struct node_address address;
    int64_t heard_ms;
};

struct detector {
    struct node_address self;
    struct starter starters[STARTERS_MAX];
    size_t next_starter;
    struct detector_times times;
    struct view *views[VIEWS_MAX]; /* from the last settled one to the newest */
    size_t view_count;
    struct view *view; /* the newest; NULL before the first */
    struct peer *peers;
    bool needs_append;
    int64_t appended_ms; /* 0: never */
};

struct detector *detector_new(const struct node_address *self, const struct detector_times *times, int64_t now_ms)
{
    struct detector *detector = mem_new(struct detector);
    detector->self = *self;
    detector->times = *times;
    return detector;
}

void detector_free(struct detector **detector_ptr)
{
    struct detector *detector = *detector_ptr;
    if (detector == NULL)
        return;
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next) {
        HASH_DEL(detector->peers, peer);
        free(peer);
    }
    for (size_t i = 0; i < detector->view_count; i++)
        view_unref(&detector->views[i]);
    free(detector);
    *detector_ptr = NULL;
}

static struct peer *find(const struct detector *detector, uint64_t incarnation)
{
    struct peer *peer;
    HASH_FIND(hh, detector->peers, &incarnation, sizeof incarnation, peer);
    return peer;
}

/* When a process that was not in the view yet was last heard. It has not accused anybody before it was. */
static int64_t starter_beat_ms(const struct detector *detector, uint64_t incarnation)
{
    for (size_t i = 0; i < STARTERS_MAX; i++)
        if (detector->starters[i].address.incarnation == incarnation)
            return detector->starters[i].heard_ms;
    return never_ms;
}

static void list_peer(struct detector *detector, enum node_kind kind, const struct view_node *node, int64_t now_ms)
{
    struct peer *peer = find(detector, node->incarnation);
    if (node->incarnation == detector->self.incarnation)
        return;
    if (peer == NULL) {
        peer = mem_new(struct peer);
        peer->address = view_node_address(kind, node);
        peer->heard_ms = now_ms;
        peer->beat_ms = starter_beat_ms(detector, node->incarnation);
        HASH_ADD(hh, detector->peers, address.incarnation, sizeof peer->address.incarnation, peer);
    }
    peer->listed = true;
}

/* An entry that the accused has appended itself shows that it lives: the notice starts again, in full. */
static void restart_notice(struct peer *peer, uint64_t appender, int64_t now_ms)
{
    if (peer->address.incarnation == appender) {
        peer->heard_ms = now_ms;
        peer->credit_ms = 0;
        peer->gone_ms = 0;
        peer->accuse_ms = 0;
        peer->proved_ms = now_ms;
    }
    for (size_t i = 0; i < peer->concur_count; i++)
        if (peer->concurs[i].accused == appender)
            peer->concurs[i].since_ms = now_ms;
}

static void forget_oldest_view(struct detector *detector)
{
    view_unref(&detector->views[0]);
    memmove(&detector->views[0], &detector->views[1], --detector->view_count * sizeof detector->views[0]);
}

static void keep_view(struct detector *detector, struct view *view)
{
    while (detector->view_count > 0 &&
           (detector->view_count == VIEWS_MAX || view_number_compare(detector->views[0]->number, view->settled) < 0))
        forget_oldest_view(detector);
    detector->view = detector->views[detector->view_count++] = view_ref(view);
}

void detector_view(struct detector *detector, struct view *view, int64_t now_ms)
{
    struct peer *peer, *next;
    keep_view(detector, view);
    HASH_ITER(hh, detector->peers, peer, next)
        peer->listed = false;
    for (size_t i = 0; i < view->shard_count; i++)
        list_peer(detector, NODE_SHARD, &view->shards[i], now_ms);
    for (size_t i = 0; i < view->gateway_count; i++)
        list_peer(detector, NODE_GATEWAY, &view->gateways[i], now_ms);
    HASH_ITER(hh, detector->peers, peer, next) {
        if (peer->listed) {
            restart_notice(peer, view->appender, now_ms);
            continue;
        }
        HASH_DEL(detector->peers, peer);
        free(peer);
    }
}

void detector_entries_missed(struct detector *detector, int64_t now_ms)
{
    struct peer *peer, *appender, *next, *next_appender;
    HASH_ITER(hh, detector->peers, peer, next)
        HASH_ITER(hh, detector->peers, appender, next_appender)
            restart_notice(peer, appender->address.incarnation, now_ms);
}

static int64_t concurs_since(const struct peer *peer, uint64_t accused)
{
    for (size_t i = 0; i < peer->concur_count; i++)
        if (peer->concurs[i].accused == accused)
            return peer->concurs[i].since_ms;
    return 0;
}

static void note_starter(struct detector *detector, const Signalbox__Cluster__V1__Heartbeat *heartbeat, int64_t now_ms)
{
    struct starter *starter = NULL;
    if (!heartbeat->joining)
        return;
    for (size_t i = 0; i < STARTERS_MAX && starter == NULL; i++)
        if (detector->starters[i].address.incarnation == heartbeat->incarnation)
            starter = &detector->starters[i];
    if (starter == NULL) {
        starter = &detector->starters[detector->next_starter++ % STARTERS_MAX];
        if (starter->address.incarnation != 0 && now_ms - starter->heard_ms <= detector->times.patience_ms)
            metric_add_at(M_DETECTOR_FULL, DETECTOR_FULL_STARTING, 1);
    }
    starter->heard_ms = now_ms;
    starter->address.kind = (enum node_kind)heartbeat->kind;
    starter->address.incarnation = heartbeat->incarnation;
    snprintf(starter->address.id, sizeof starter->address.id, "%s", heartbeat->node);
}

/* For how long a heartbeat has been under way, beyond what the fastest one of the last half minute or so took: it may
 * have waited in a server that stood still, or in the buffers of this process while it was asleep, and says nothing of
 * what its sender has done since. */
static int64_t age_of(struct peer *peer, int64_t sent_ms, int64_t now_ms)
{
    int64_t offset_ms = now_ms - sent_ms;
    if (sent_ms == 0)
        return 0; /* of an earlier version */
    if (peer->offset_since_ms == 0 || now_ms - peer->offset_since_ms >= OFFSET_AGE_MS) {
        peer->offset_ms[1] = peer->offset_since_ms == 0 ? offset_ms : peer->offset_ms[0];
        peer->offset_ms[0] = offset_ms;
        peer->offset_since_ms = now_ms;
    }
    if (offset_ms < peer->offset_ms[0])
        peer->offset_ms[0] = offset_ms;
    int64_t least_ms = peer->offset_ms[0] < peer->offset_ms[1] ? peer->offset_ms[0] : peer->offset_ms[1];
    return offset_ms > least_ms ? offset_ms - least_ms : 0;
}

bool detector_heartbeat(struct detector *detector, const Signalbox__Cluster__V1__Heartbeat *heartbeat, int64_t now_ms)
{
    struct peer *peer = find(detector, heartbeat->incarnation);
    if (peer == NULL) {
        note_starter(detector, heartbeat, now_ms);
        return true;
    }
    uint64_t *beat = &peer->beats[heartbeat->second ? 1 : 0];
    if (heartbeat->beat != 0 && heartbeat->beat <= *beat) {
        metric_add(M_HEARTBEATS_STALE, 1);
        return false;
    }
    *beat = heartbeat->beat;
    if (heartbeat->second) {
        peer->second_ms = now_ms;
        snprintf(peer->second_server, sizeof peer->second_server, "%s", heartbeat->nats_server);
        return true;
    }
    peer->heard_ms = now_ms;
    peer->beat_ms = now_ms - age_of(peer, heartbeat->sent_ms, now_ms);
    peer->credit_ms = 0;
    peer->gone_ms = 0;
    peer->idle = heartbeat->load != NULL && heartbeat->load->rooms == 0;
    snprintf(peer->server, sizeof peer->server, "%s", heartbeat->nats_server);
    if (heartbeat->settled != NULL)
        peer->marker = (struct view_number){heartbeat->settled->generation, heartbeat->settled->seq};
    if (heartbeat->view != NULL)
        peer->view = (struct view_number){heartbeat->view->generation, heartbeat->view->seq};
    struct concurrence concurs[CONCURS_MAX];
    size_t count = 0;
    if (heartbeat->n_concurs > CONCURS_MAX)
        metric_add_at(M_DETECTOR_FULL, DETECTOR_FULL_ACCUSED_HEARD, heartbeat->n_concurs - CONCURS_MAX);
    for (size_t i = 0; i < heartbeat->n_concurs && count < CONCURS_MAX; i++) {
        int64_t since_ms = concurs_since(peer, heartbeat->concurs[i]->incarnation);
        concurs[count++] = (struct concurrence){.accused = heartbeat->concurs[i]->incarnation,
                                                .since_ms = since_ms != 0 ? since_ms : now_ms};
    }
    memcpy(peer->concurs, concurs, count * sizeof concurs[0]);
    peer->concur_count = count;
    return true;
}

void detector_gone(struct detector *detector, uint64_t incarnation, int64_t now_ms)
{
    struct peer *peer = find(detector, incarnation);
    if (peer != NULL && peer->gone_ms == 0 &&
        (peer->proved_ms == 0 || now_ms - peer->proved_ms > detector->times.fence_ms))
        peer->gone_ms = now_ms;
}

void detector_late(struct detector *detector, uint32_t late_ms)
{
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next) {
        peer->credit_ms += late_ms;
        if (peer->accuse_ms != 0)
            peer->accuse_ms += late_ms;
    }
}

void detector_bus_lost(struct detector *detector)
{
    detector->needs_append = true;
    detector->appended_ms = 0;
}

void detector_bus_back(struct detector *detector, int64_t now_ms)
{
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next) {
        peer->credit_ms = now_ms - peer->heard_ms + detector->times.patience_ms - detector->times.silence_ms;
        peer->accuse_ms = 0;
        peer->gone_ms = 0;
    }
}

void detector_appended(struct detector *detector, int64_t now_ms)
{
    detector->needs_append = false;
    detector->appended_ms = now_ms;
}

/* Somebody else is heard through this NATS server, so it is not the server that is silent. */
static bool server_is_heard(const struct detector *detector, const char *server, const struct peer *accused,
                            int64_t now_ms)
{
    const struct peer *peer, *next;
    if (server[0] == '\0')
        return true;
    HASH_ITER(hh, detector->peers, peer, next) {
        bool first = strcmp(peer->server, server) == 0 && now_ms - peer->heard_ms < detector->times.suspect_ms;
        bool second = strcmp(peer->second_server, server) == 0 && now_ms - peer->second_ms < detector->times.suspect_ms;
        if (peer != accused && (first || second))
            return true;
    }
    return false;
}

/* When the process fell silent it had a second connection that worked, to another server. */
static bool had_second(const struct detector *detector, const struct peer *peer)
{
    return peer->second_server[0] != '\0' && strcmp(peer->second_server, peer->server) != 0 &&
           peer->heard_ms - peer->second_ms < detector->times.silence_ms;
}

/* Silence may be that of the NATS server, from which the process will find another. It is the process's own if others
 * are heard through that server, or through the server of its second connection, on which it is silent as well. */
static bool should_accuse(const struct detector *detector, const struct peer *peer, int64_t now_ms)
{
    int64_t silent_ms = now_ms - peer->heard_ms - peer->credit_ms;
    int64_t enough_ms = peer->gone_ms != 0 ? detector->times.suspect_ms : detector->times.silence_ms;
    if (silent_ms >= detector->times.patience_ms)
        return true;
    if (silent_ms < enough_ms)
        return false;
    if (!had_second(detector, peer))
        return server_is_heard(detector, peer->server, peer, now_ms);
    if (now_ms - peer->second_ms - peer->credit_ms < enough_ms)
        return false;
    return server_is_heard(detector, peer->server, peer, now_ms) ||
           server_is_heard(detector, peer->second_server, peer, now_ms);
}

/* Gateways listen to shards alone. */
static bool hears(const struct detector *detector, const struct peer *peer)
{
    return detector->self.kind == NODE_SHARD || peer->address.kind == NODE_SHARD;
}

bool detector_tick(struct detector *detector, int64_t now_ms)
{
    bool changed = false;
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next) {
        if (!hears(detector, peer))
            continue;
        bool accuse = should_accuse(detector, peer, now_ms);
        if (accuse == (peer->accuse_ms != 0))
            continue;
        peer->accuse_ms = accuse ? now_ms : 0;
        changed = true;
    }
    return changed;
}

/* Where not all fit, everybody must name the same ones, or no quorum would ever concur: those of the lowest
 * incarnations. */
size_t detector_concurrences(const struct detector *detector, Signalbox__Cluster__V1__Concurrence *out, size_t max,
                             int64_t now_ms)
{
    size_t count = 0;
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next) {
        if (peer->accuse_ms == 0)
            continue;
        size_t at = count;
        while (at > 0 && out[at - 1].incarnation > peer->address.incarnation)
            at--;
        if (count == max)
            metric_add_at(M_DETECTOR_FULL, DETECTOR_FULL_ACCUSED_SAID, 1);
        else
            count++;
        if (at == count)
            continue;
        memmove(&out[at + 1], &out[at], (count - at - 1) * sizeof out[0]);
        signalbox__cluster__v1__concurrence__init(&out[at]);
        out[at].node = peer->address.id;
        out[at].incarnation = peer->address.incarnation;
        out[at].kind = (Signalbox__Cluster__V1__NodeKind)peer->address.kind;
        out[at].silent_ms = (uint32_t)(now_ms - peer->heard_ms);
    }
    return count;
}

/* This process has ended: another one has its id now. */
static bool has_ended(const struct detector *detector, enum node_kind kind, const struct view_node *node,
                      int64_t now_ms)
{
    const struct view_node *now = view_find(detector->view, kind, node->id);
    if (now != NULL && now->incarnation != node->incarnation)
        return true;
    for (size_t i = 0; i < STARTERS_MAX; i++) {
        const struct starter *starter = &detector->starters[i];
        if (starter->address.incarnation != 0 && now_ms - starter->heard_ms <= detector->times.patience_ms &&
            starter->address.kind == kind && starter->address.incarnation != node->incarnation &&
            strcmp(starter->address.id, node->id) == 0)
            return true;
    }
    return false;
}

static bool concurs(const struct detector *detector, enum node_kind kind, const struct view_node *node,
                    const struct peer *accused, uint32_t notice_ms, int64_t now_ms)
{
    if (node->incarnation == detector->self.incarnation)
        return true;
    if (node->incarnation == accused->address.incarnation)
        return false;
    const struct peer *peer = find(detector, node->incarnation);
    if (peer == NULL)
        return has_ended(detector, kind, node, now_ms);
    int64_t since_ms = concurs_since(peer, accused->address.incarnation);
    return since_ms != 0 && now_ms - since_ms >= notice_ms && now_ms - peer->heard_ms <= detector->times.silence_ms;
}

/* Enough of this view concur in the removal of `accused`, and have said so for long enough. */
static bool quorum_concurs(const struct detector *detector, const struct view *view, const struct peer *accused,
                           uint32_t notice_ms, int64_t now_ms)
{
    size_t shards = 0, gateways = 0;
    for (size_t i = 0; i < view->shard_count; i++)
        shards += concurs(detector, NODE_SHARD, &view->shards[i], accused, notice_ms, now_ms);
    for (size_t i = 0; i < view->gateway_count; i++)
        gateways += concurs(detector, NODE_GATEWAY, &view->gateways[i], accused, notice_ms, now_ms);
    return (view->shard_count > 0 && 2 * shards >= view->shard_count) ||
           2 * (shards + gateways) > view->shard_count + view->gateway_count;
}

/* An accused shard may know no newer view than the last one that it was heard to know, and acts on that if it hears
 * enough of those who are in it: it is removed by a quorum of each view that it may have. */
static bool removable(const struct detector *detector, const struct peer *accused, int64_t now_ms)
{
    uint32_t notice_ms =
        accused->gone_ms != 0 ? detector->times.gone_ms - detector->times.suspect_ms : detector->times.notice_ms;
    if (SIM_FAULT(NO_NOTICE))
        notice_ms = 0;
    if (accused->accuse_ms == 0 || now_ms - accused->accuse_ms < notice_ms)
        return false;
    if (SIM_FAULT(NO_QUORUM))
        return true;
    if (accused->address.kind == NODE_GATEWAY)
        return quorum_concurs(detector, detector->view, accused, notice_ms, now_ms);
    for (size_t i = 0; i < detector->view_count; i++) {
        const struct view *view = detector->views[i];
        if (view_number_compare(view->number, accused->view) >= 0 && view_lists(view, &accused->address) &&
            !quorum_concurs(detector, view, accused, notice_ms, now_ms))
            return false;
    }
    return true;
}

size_t detector_remove(struct detector *detector, struct view *entry, int64_t now_ms)
{
    size_t removed = 0;
    struct peer *peer, *next;
    if (detector->view == NULL)
        return 0;
    HASH_ITER(hh, detector->peers, peer, next) {
        bool about_to_be =
            peer->accuse_ms != 0 && !removable(detector, peer, now_ms) && removable(detector, peer, now_ms + GATHER_MS);
        if (about_to_be)
            return 0;
    }
    HASH_ITER(hh, detector->peers, peer, next) {
        if (!removable(detector, peer, now_ms))
            continue;
        if (peer->address.kind == NODE_SHARD)
            removed += view_remove_shard(entry, peer->address.id, peer->address.incarnation);
        else
            removed += view_remove_gateway(entry, peer->address.id, peer->address.incarnation);
    }
    return removed;
}

bool detector_proposes(const struct detector *detector, int64_t now_ms)
{
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next)
        if (peer->address.kind == NODE_SHARD && strcmp(peer->address.id, detector->self.id) < 0 &&
            now_ms - peer->heard_ms < detector->times.suspect_ms)
            return false;
    return true;
}

bool detector_restores(const struct detector *detector, int64_t now_ms)
{
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next) {
        bool first = detector->self.kind == NODE_GATEWAY || strcmp(peer->address.id, detector->self.id) < 0;
        if (peer->address.kind == NODE_SHARD && first && now_ms - peer->heard_ms < detector->times.silence_ms &&
            view_number_compare(peer->view, detector->view->number) >= 0)
            return false;
    }
    return true;
}

bool detector_hears_most(const struct detector *detector, int64_t since_ms)
{
    bool shard = detector->self.kind == NODE_SHARD;
    size_t heard = shard, all = detector->view->shard_count + (shard ? detector->view->gateway_count : 0);
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next)
        heard += peer->beat_ms >= since_ms && hears(detector, peer);
    return 2 * heard > all;
}

static bool quorum_is_heard(const struct detector *detector, int64_t now_ms)
{
    size_t shards = 1;
    size_t all = 1;
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next) {
        if (now_ms - peer->beat_ms > detector->times.fence_ms || concurs_since(peer, detector->self.incarnation) != 0)
            continue;
        all++;
        if (peer->address.kind == NODE_SHARD)
            shards++;
    }
    return 2 * shards > detector->view->shard_count &&
           2 * all > detector->view->shard_count + detector->view->gateway_count;
}

/* Whoever fell silent or was accused may be removed by an entry that is under way, or that has not been heard of yet:
 * hearing the others again, who then accuse it no longer, says nothing about that. */
bool detector_may_act(struct detector *detector, int64_t now_ms)
{
    if (detector->view == NULL)
        return false;
    if (detector->appended_ms != 0 && now_ms - detector->appended_ms <= detector->times.fence_ms)
        return true;
    if (SIM_FAULT(NO_FENCE))
        return true;
    if (SIM_FAULT(FENCE_REOPENS))
        return quorum_is_heard(detector, now_ms);
    if (!detector->needs_append && !quorum_is_heard(detector, now_ms))
        detector->needs_append = true;
    return !detector->needs_append;
}

bool detector_probe(struct detector *detector, struct node_address *ret_node, int64_t now_ms)
{
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next) {
        if (peer->gone_ms != 0 || now_ms - peer->heard_ms < detector->times.suspect_ms ||
            now_ms - peer->probed_ms < detector->times.suspect_ms)
            continue;
        peer->probed_ms = now_ms;
        *ret_node = peer->address;
        return true;
    }
    return false;
}

bool detector_is_idle(const struct detector *detector)
{
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next)
        if (peer->address.kind == NODE_SHARD && !peer->idle)
            return false;
    return true;
}

struct view_number detector_settled(const struct detector *detector, struct view_number own_marker)
{
    struct view_number settled = own_marker;
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next)
        if (peer->address.kind == NODE_SHARD && view_number_compare(peer->marker, settled) < 0)
            settled = peer->marker;
    return settled;
}

struct view_number detector_reported(const struct detector *detector)
{
    struct view_number lowest = detector->view != NULL ? detector->view->number : (struct view_number){0, 0};
    struct peer *peer, *next;
    HASH_ITER(hh, detector->peers, peer, next)
        if (peer->address.kind == NODE_GATEWAY && view_number_compare(peer->marker, lowest) < 0)
            lowest = peer->marker;
    return lowest;
}

struct view_number detector_marker(const struct detector *detector, uint64_t incarnation)
{
    const struct peer *peer = find(detector, incarnation);
    return peer != NULL ? peer->marker : (struct view_number){0, 0};
}

size_t detector_views_after(const struct detector *detector, struct view_number after, struct view **ret_views,
                            size_t max)
{
    size_t first = detector->view_count;
    while (first > 0 && detector->view_count - first < max &&
           view_number_compare(detector->views[first - 1]->number, after) > 0)
        first--;
    for (size_t i = first; i < detector->view_count; i++)
        ret_views[i - first] = detector->views[i];
    return detector->view_count - first;
}
