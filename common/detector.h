/* Who is still there: failure detection, the quorum that may remove a process from the view, and the fence that stops a
 * shard which cannot be sure of its own place. Two quorums that always meet: whoever goes on acting has heard somebody
 * who must have been among those who remove it.
 *
 * Removal. A shard that has not heard a process for `silence_ms` concurs in its removal, and says so in its heartbeats
 * for `notice_ms` before the removal may be appended and until it is decided; so does a gateway, which listens to
 * shards alone. A removal needs at least half of the shards of the view, or more than half of all its processes, to
 * concur, in every view since the last settled one that the accused may go by. If nobody subscribes to the process's
 * inbox any more (NATS answers 503), silence and notice together last `gone_ms`: its connection is gone, and it must
 * prove itself by an append before it acts again. A process whose NATS server may be what died gets `patience_ms` to
 * find another: if nobody is heard through that server, or if it is heard itself over its second connection, which is
 * to another server. If it is silent on both, though somebody else is heard through one of the two servers, it is the
 * process that has gone.
 *
 * Fence. A shard may act while, within `fence_ms`, it has heard more than half of the shards and more than half of all
 * processes of its view, itself included (a heartbeat counts from when it was sent), none of them concurring in its
 * removal; or while an append that lists it was acknowledged within `fence_ms`. Once neither holds, it suspends itself
 * until such an append.
 *
 * A process whose own loop was late by d extends every silence by d, so that a busy machine evicts nobody.
 *
 * Free of I/O: heartbeats and time come in, judgements go out. Threading: loop thread.
 */
#ifndef SBX_COMMON_DETECTOR_H
#define SBX_COMMON_DETECTOR_H

#include "common/link.h"
#include "common/view.h"
#include "proto/cluster.pb-c.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct detector_times {
    uint32_t silence_ms;  /* before concurring */
    uint32_t notice_ms;   /* from concurring to removal */
    uint32_t gone_ms;     /* both together, once nobody subscribes to the process's inbox */
    uint32_t patience_ms; /* silence of everybody on one NATS server */
    uint32_t fence_ms;    /* how long what was heard counts */
    uint32_t suspect_ms;  /* silence after which a process is probed and proposes nothing */
};

struct detector;

struct detector *detector_new(const struct node_address *self, const struct detector_times *times, int64_t now_ms);
void detector_free(struct detector **detector);

/* A newer view. Processes that are new in it are not accused as if they had been silent; for the fence they count once
 * they have been heard. Keeps a reference. */
void detector_view(struct detector *detector, struct view *view, int64_t now_ms);
/* Entries before that view were missed: anybody may have appended one. Call it after detector_view(). */
void detector_entries_missed(struct detector *detector, int64_t now_ms);
/* False for one that a later one of its sender has overtaken, by way of another NATS server: it says what was true
 * once, accusations included, and counts for nothing. */
bool detector_heartbeat(struct detector *detector, const Signalbox__Cluster__V1__Heartbeat *heartbeat, int64_t now_ms);
/* Nobody subscribes to the inbox of this process. */
void detector_gone(struct detector *detector, uint64_t incarnation, int64_t now_ms);
/* This process's own loop was late. */
void detector_late(struct detector *detector, uint32_t late_ms);
/* This process was off the bus: it needs an acknowledged append before it may act. */
void detector_bus_lost(struct detector *detector);
/* ... and is back on it: the others, who may have lost the same server, get the same patience from now on. */
void detector_bus_back(struct detector *detector, int64_t now_ms);
/* An append was acknowledged whose entry lists this process. */
void detector_appended(struct detector *detector, int64_t now_ms);

/* Call every heartbeat, and after each heartbeat heard. True if what this process concurs in has changed: a heartbeat
 * should go out at once. */
bool detector_tick(struct detector *detector, int64_t now_ms);
/* Whom this process concurs in removing: fills at most `max`, the same ones in every process that accuses the same, and
 * returns how many. Ids borrow from the detector. */
size_t detector_concurrences(const struct detector *detector, Signalbox__Cluster__V1__Concurrence *out, size_t max,
                             int64_t now_ms);
/* Which processes may be removed now; edits `entry` and returns how many were taken out. 0 while others are about to be
 * removable, so that all of one moment go in one entry. */
size_t detector_remove(struct detector *detector, struct view *entry, int64_t now_ms);
/* Whether this shard is the one to propose: no live shard of the view has a lower id. */
bool detector_proposes(const struct detector *detector, int64_t now_ms);
/* The same of putting what it knows back into a log that has lost it: whoever knows an older view leaves it to others,
 * and gateways to shards. */
bool detector_restores(const struct detector *detector, int64_t now_ms);
/* More than half of the view's processes have been heard since; of its shards, for a gateway, which hears no others. */
bool detector_hears_most(const struct detector *detector, int64_t since_ms);
/* The fence. Once it has said no, only an append opens it again. */
bool detector_may_act(struct detector *detector, int64_t now_ms);
/* The next silent process that should be probed for a subscription, at most every `suspect_ms` each; false if none. */
bool detector_probe(struct detector *detector, struct node_address *ret_node, int64_t now_ms);
/* Every other shard of the view has been heard, and holds no room. */
bool detector_is_idle(const struct detector *detector);
/* The lowest of the markers of all shards of the view. */
struct view_number detector_settled(const struct detector *detector, struct view_number own_marker);
/* The newest view up to which all gateways have reported what they hold. */
struct view_number detector_reported(const struct detector *detector);
/* The newest views that are known of those after `after`, oldest first, at most `max`; borrowed. Returns how many. */
size_t detector_views_after(const struct detector *detector, struct view_number after, struct view **ret_views,
                            size_t max);
/* What a shard says of itself; zero for one that is not in the view. */
struct view_number detector_marker(const struct detector *detector, uint64_t incarnation);

#endif
