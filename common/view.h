/* The view: the numbered list of live shards and gateways, and who owns a room in it.
 *
 * Immutable once made, reference-counted (loop thread only). Order of views is (generation, seq): a log that was lost
 * goes on in a higher generation. Ownership is a pure function of the view and the cluster's seed.
 * Free of I/O; shared by gateway, shard, signalboxctl and the simulator.
 */
#ifndef SBX_COMMON_VIEW_H
#define SBX_COMMON_VIEW_H

#include "common/ids.h"
#include "common/score.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum node_kind { NODE_GATEWAY = 1, NODE_SHARD = 2 }; /* values of NodeKind on the bus */

/* One start of a process. */
struct node_address {
    enum node_kind kind;
    char id[NODE_ID_MAX + 1];
    uint64_t incarnation;
};

struct view_number {
    uint64_t generation;
    uint64_t seq;
};

struct view_node {
    char id[NODE_ID_MAX + 1];
    uint64_t incarnation;
    char region[REGION_MAX + 1]; /* shards; "" = none */
    uint32_t weight;             /* shards: the weight in force, 0..SCORE_WEIGHT_MAX */
    uint32_t full_weight;        /* shards: the configured weight, towards which the weight in force moves */
    bool draining;               /* shards: the weight moves towards zero */
    bool full;                   /* shards: takes no new rooms */
};

struct view {
    uint32_t refs;
    struct view_number number;
    struct view_number settled; /* the last settled view when this one was appended */
    uint64_t appender;          /* incarnation of who appended it */
    struct view_node *shards;   /* sorted by id */
    size_t shard_count;
    struct view_node *gateways; /* sorted by id */
    size_t gateway_count;
};

enum { VIEW_SHARDS_MAX = 1024, VIEW_GATEWAYS_MAX = 4096 };
enum { VIEW_SCHEMA_VERSION = 1 + SBX_SCHEMA_RAISE };

struct payload;

int view_number_compare(struct view_number a, struct view_number b);
/* A mutable copy (refs = 1) to edit before it is shared; an empty view from NULL. */
struct view *view_copy(const struct view *view);
struct view *view_ref(struct view *view);
void view_unref(struct view **view);
/* Inserts or replaces by id, keeping order. Editing is for a view that nobody shares yet; the caller minds the maxima
 * and gives valid nodes. */
void view_put_shard(struct view *view, const struct view_node *node);
void view_put_gateway(struct view *view, const struct view_node *node);
bool view_remove_shard(struct view *view, const char *id, uint64_t incarnation);
bool view_remove_gateway(struct view *view, const char *id, uint64_t incarnation);
const struct view_node *view_find_shard(const struct view *view, const char *id);
const struct view_node *view_find_gateway(const struct view *view, const char *id);
const struct view_node *view_find(const struct view *view, enum node_kind kind, const char *id);
const struct view_node *view_find_incarnation(const struct view *view, enum node_kind kind, uint64_t incarnation);
/* Whether the view has this start of the process, and not only its id. */
bool view_lists(const struct view *view, const struct node_address *address);
/* Every process of the view by a number below the count, shards first. */
size_t view_node_count(const struct view *view);
struct node_address view_node_at(const struct view *view, size_t i);
struct node_address view_node_address(enum node_kind kind, const struct view_node *node);

/* Which shards compete for the rooms of a region ("" = none), and with which of their weights: the first that is not
 * empty of those of the region, all, and both again with full weights (all drain at once: somebody must own the rooms).
 */
struct view_candidates {
    const char *region; /* "": all shards; borrowed from the caller */
    bool full_weights;
};
struct view_candidates view_candidates(const struct view *view, const char *region);
/* The weight with which this shard competes; 0: it does not. */
uint32_t view_candidate_weight(const struct view_candidates *candidates, const struct view_node *shard);

/* The owner of a room: the highest score among the shards of its region, among all if the region ("" = none) has no
 * shards or only weightless ones; NULL in a view without shards. If every shard has weight 0, full weights are taken
 * instead (all drain at once: somebody must own the room), and if those are 0 too, the smallest id owns it. */
const struct view_node *view_owner(const struct view *view, const struct score_seed *seed, const struct room_key *key,
                                   const char *region);

/* Whether every shard that could own a room of this region takes no new ones: a pure function of the view, so that all
 * who have it refuse alike. False in a view without shards. */
bool view_is_full(const struct view *view, const char *region);

/* The bytes of a log entry (ViewEntry in proto/cluster.proto), and back; NULL if they are malformed or beyond bounds:
 * invalid, unsorted or repeated ids, incarnation or generation 0, weights or counts above their maxima, a settled view
 * beyond the view itself. The number's seq is the log's sequence and not in the bytes. */
struct payload *view_pack(const struct view *view);
struct view *view_unpack(const void *data, size_t size, uint64_t seq);

#endif
