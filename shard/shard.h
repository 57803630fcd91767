/* The shard's decisions: rooms, their members, and what becomes of every command that gateways send.
 *
 * Free of I/O: bus items, views and time come in as calls, items for gateways go out through shard_actions. The same
 * code runs on the bus and in the simulator.
 *
 * Threading: loop thread.
 */
#ifndef SBX_SHARD_SHARD_H
#define SBX_SHARD_SHARD_H

#include "common/arena.h"
#include "common/link.h"
#include "common/score.h"
#include "common/timer.h"
#include "common/view.h"
#include "proto/cluster.pb-c.h"
#include "shard/states.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shard;

enum duplicate_policy { DUPLICATE_REPLACE, DUPLICATE_REFUSE };

/* shard/limits_table.h says what each means. */
struct shard_limits {
#define LIMIT(name, def, min, max, unit, help) uint32_t name;
#include "shard/limits_table.h"
#undef LIMIT
};

extern const struct shard_limits shard_default_limits;

struct shard_options {
    struct node_address self;
    struct score_seed seed;
    enum duplicate_policy duplicate;
    struct shard_limits limits;
};

struct shard_actions {
    /* To a gateway or a shard; takes a reference of its own. */
    void (*send)(void *ctx, const struct node_address *to, struct payload *item);
    /* shard_flush() is wanted at the end of this turn. */
    void (*flush_soon)(void *ctx);
    int64_t (*wall_ms)(void *ctx);
    /* The newest view of which every gateway has reported what it holds. */
    struct view_number (*reported)(void *ctx);
    /* The newest view in which another shard says that it holds no room that is not its own; zero if it is not known.
     */
    struct view_number (*marker_of)(void *ctx, uint64_t incarnation);
    /* The same of this shard; only ever greater. */
    void (*set_marker)(void *ctx, struct view_number marker, int64_t now_ms);
};

struct shard *shard_new(const struct shard_options *options, struct timer_wheel *wheel,
                        const struct shard_actions *actions, void *ctx);
void shard_free(struct shard **shard);
/* New limits and policy, for what is asked from now on: a room that is over a lowered limit stays as it is. */
void shard_reconfigure(struct shard *shard, const struct shard_options *options);

/* Messages inside the item are altered; they are good for nothing after the call. */
void shard_item(struct shard *shard, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                int64_t now_ms);
/* Something that `from` said was lost. Gateways repeat their sessions' states, and clients their messages, until they
 * are acknowledged; what is said once is asked for. */
void shard_gap(struct shard *shard, const struct node_address *from);
/* A view: the newest one takes force, one before it (any that has not settled) tells who owned what. */
void shard_view(struct shard *shard, struct view *view, int64_t now_ms);
/* Another shard's marker has moved, or a gateway has reported. */
void shard_progress(struct shard *shard, int64_t now_ms);
/* While a shard is not sure of its own place nobody's window ends. */
void shard_suspend(struct shard *shard, bool suspended, int64_t now_ms);
/* Whether rooms that are not here yet are refused, beyond what the limits on rooms and participants say. */
void shard_set_full(struct shard *shard, bool full);
/* Publishes what the rooms have gathered. */
void shard_flush(struct shard *shard, int64_t now_ms);
/* Fills `reply` (its memory comes from `arena`) for the requests about rooms; false if it is not one of those. */
bool shard_admin(struct shard *shard, const Signalbox__Cluster__V1__AdminRequest *request, struct arena *arena,
                 Signalbox__Cluster__V1__AdminReply *reply, int64_t now_ms);

struct shard_stats {
    size_t rooms, participants, detached, gateways, pending_updates, waiting_commands;
    size_t ring_bytes, held_bytes, arrival_bytes;
    size_t rooms_in_state[ROOM_STATE_COUNT];
};
struct shard_stats shard_stats(const struct shard *shard);

#endif
