#include "common/view.h"
#include "common/arena.h"
#include "common/mem.h"
#include "common/payload.h"
#include "proto/cluster.pb-c.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef Signalbox__Cluster__V1__ViewEntry EntryMessage;
typedef Signalbox__Cluster__V1__ViewNode NodeMessage;

/* The largest view unpacks to well under this. */
enum { UNPACK_LIMIT_BYTES = 2 * 1024 * 1024 };

int view_number_compare(struct view_number a, struct view_number b)
{
    if (a.generation != b.generation)
        return a.generation < b.generation ? -1 : 1;
    return a.seq < b.seq ? -1 : a.seq > b.seq;
}

static struct view_node *nodes_dup(const struct view_node *nodes, size_t count)
{
    return count ? mem_dup(nodes, count * sizeof(*nodes)) : NULL;
}

struct view *view_copy(const struct view *view)
{
    struct view *copy = mem_new(struct view);

    if (view) {
        *copy = *view;
        copy->shards = nodes_dup(view->shards, view->shard_count);
        copy->gateways = nodes_dup(view->gateways, view->gateway_count);
    }
    copy->refs = 1;
    return copy;
}

struct view *view_ref(struct view *view)
{
    view->refs++;
    return view;
}

void view_unref(struct view **view)
{
    struct view *unused = *view;

    *view = NULL;
    if (!unused || --unused->refs > 0)
        return;
    free(unused->shards);
    free(unused->gateways);
    free(unused);
}

static int compare_id(const void *id, const void *node)
{
    return strcmp(id, ((const struct view_node *)node)->id);
}

static struct view_node *nodes_find(struct view_node *nodes, size_t count, const char *id)
{
    return count ? bsearch(id, nodes, count, sizeof(*nodes), compare_id) : NULL;
}

static void nodes_put(struct view_node **nodes, size_t *count, const struct view_node *node)
{
    struct view_node *found = nodes_find(*nodes, *count, node->id);
    size_t at = *count;

    assert(node_id_valid(node->id) && node->incarnation != 0);
    assert(node->weight <= SCORE_WEIGHT_MAX && node->full_weight <= SCORE_WEIGHT_MAX);
    if (found) {
        *found = *node;
        return;
    }
    *nodes = mem_realloc(*nodes, (*count + 1) * sizeof(**nodes));
    while (at > 0 && strcmp((*nodes)[at - 1].id, node->id) > 0)
        at--;
    memmove(*nodes + at + 1, *nodes + at, (*count - at) * sizeof(**nodes));
    (*nodes)[at] = *node;
    ++*count;
}

static bool nodes_remove(struct view_node *nodes, size_t *count, const char *id, uint64_t incarnation)
{
    struct view_node *found = nodes_find(nodes, *count, id);

    if (!found || found->incarnation != incarnation)
        return false;
    --*count;
    memmove(found, found + 1, (size_t)(nodes + *count - found) * sizeof(*nodes));
    return true;
}

void view_put_shard(struct view *view, const struct view_node *node)
{
    assert(view->refs == 1);
    nodes_put(&view->shards, &view->shard_count, node);
    assert(view->shard_count <= VIEW_SHARDS_MAX);
}

void view_put_gateway(struct view *view, const struct view_node *node)
{
    assert(view->refs == 1);
    nodes_put(&view->gateways, &view->gateway_count, node);
    assert(view->gateway_count <= VIEW_GATEWAYS_MAX);
}

bool view_remove_shard(struct view *view, const char *id, uint64_t incarnation)
{
    assert(view->refs == 1);
    return nodes_remove(view->shards, &view->shard_count, id, incarnation);
}

bool view_remove_gateway(struct view *view, const char *id, uint64_t incarnation)
{
    assert(view->refs == 1);
    return nodes_remove(view->gateways, &view->gateway_count, id, incarnation);
}

const struct view_node *view_find_shard(const struct view *view, const char *id)
{
    return nodes_find(view->shards, view->shard_count, id);
}

const struct view_node *view_find_gateway(const struct view *view, const char *id)
{
    return nodes_find(view->gateways, view->gateway_count, id);
}

const struct view_node *view_find(const struct view *view, enum node_kind kind, const char *id)
{
    return kind == NODE_SHARD ? view_find_shard(view, id) : view_find_gateway(view, id);
}

const struct view_node *view_find_incarnation(const struct view *view, enum node_kind kind, uint64_t incarnation)
{
    const struct view_node *nodes = kind == NODE_SHARD ? view->shards : view->gateways;
    size_t count = kind == NODE_SHARD ? view->shard_count : view->gateway_count;
    for (size_t i = 0; i < count; i++)
        if (nodes[i].incarnation == incarnation)
            return &nodes[i];
    return NULL;
}

bool view_lists(const struct view *view, const struct node_address *address)
{
    const struct view_node *node = view_find(view, address->kind, address->id);
    return node != NULL && node->incarnation == address->incarnation;
}

size_t view_node_count(const struct view *view)
{
    return view->shard_count + view->gateway_count;
}

struct node_address view_node_at(const struct view *view, size_t i)
{
    assert(i < view_node_count(view));
    return i < view->shard_count ? view_node_address(NODE_SHARD, &view->shards[i])
                                 : view_node_address(NODE_GATEWAY, &view->gateways[i - view->shard_count]);
}

struct node_address view_node_address(enum node_kind kind, const struct view_node *node)
{
    struct node_address address = {.kind = kind, .incarnation = node->incarnation};
    memcpy(address.id, node->id, sizeof address.id);
    return address;
}

uint32_t view_candidate_weight(const struct view_candidates *candidates, const struct view_node *shard)
{
    if (candidates->region[0] != '\0' && strcmp(shard->region, candidates->region) != 0)
        return 0;
    return candidates->full_weights ? shard->full_weight : shard->weight;
}

static bool any_candidate(const struct view *view, const struct view_candidates *candidates)
{
    for (size_t i = 0; i < view->shard_count; i++)
        if (view_candidate_weight(candidates, &view->shards[i]) > 0)
            return true;
    return false;
}

struct view_candidates view_candidates(const struct view *view, const char *region)
{
    const struct view_candidates sets[] = {{region, false}, {"", false}, {region, true}, {"", true}};
    size_t i = 0;

    while (i < 3 && !any_candidate(view, &sets[i]))
        i++;
    return sets[i];
}

const struct view_node *view_owner(const struct view *view, const struct score_seed *seed, const struct room_key *key,
                                   const char *region)
{
    struct view_candidates candidates = view_candidates(view, region);
    const struct view_node *best = view->shard_count ? &view->shards[0] : NULL;
    uint64_t best_score = 0;

    for (size_t i = 0; i < view->shard_count; i++) {
        uint32_t weight = view_candidate_weight(&candidates, &view->shards[i]);
        uint64_t score = weight ? score_compute(seed, view->shards[i].id, weight, key) : 0;
        /* Strictly greater: the shards are in order of their ids, so a tie stays with the smaller. */
        if (score > best_score) {
            best = &view->shards[i];
            best_score = score;
        }
    }
    return best;
}

bool view_is_full(const struct view *view, const char *region)
{
    struct view_candidates candidates = view_candidates(view, region);
    for (size_t i = 0; i < view->shard_count; i++)
        if (view_candidate_weight(&candidates, &view->shards[i]) > 0 && !view->shards[i].full)
            return false;
    return view->shard_count > 0;
}

static NodeMessage **pack_nodes(struct arena *arena, const struct view_node *nodes, size_t count)
{
    NodeMessage **messages = arena_alloc(arena, (count + 1) * sizeof(*messages));
    NodeMessage *message = arena_alloc(arena, (count + 1) * sizeof(*message));

    for (size_t i = 0; i < count; i++, message++) {
        signalbox__cluster__v1__view_node__init(message);
        message->id = (char *)nodes[i].id;
        message->incarnation = nodes[i].incarnation;
        message->region = (char *)nodes[i].region;
        message->weight = nodes[i].weight;
        message->full_weight = nodes[i].full_weight;
        message->draining = nodes[i].draining;
        message->full = nodes[i].full;
        messages[i] = message;
    }
    return messages;
}

struct payload *view_pack(const struct view *view)
{
    EntryMessage entry = SIGNALBOX__CLUSTER__V1__VIEW_ENTRY__INIT;
    Signalbox__Cluster__V1__ViewNumber settled = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    struct arena arena;

    assert(view->number.generation != 0);
    arena_init(&arena, UNPACK_LIMIT_BYTES);
    entry.schema_version = VIEW_SCHEMA_VERSION;
    entry.generation = view->number.generation;
    settled.generation = view->settled.generation;
    settled.seq = view->settled.seq;
    entry.settled = &settled;
    entry.appender = view->appender;
    entry.n_shards = view->shard_count;
    entry.shards = pack_nodes(&arena, view->shards, view->shard_count);
    entry.n_gateways = view->gateway_count;
    entry.gateways = pack_nodes(&arena, view->gateways, view->gateway_count);
    struct payload *payload = payload_pack(&entry.base);
    arena_done(&arena);
    return payload;
}

static bool unpack_node(const NodeMessage *message, bool is_shard, struct view_node *ret_node)
{
    if (!node_id_valid(message->id) || message->incarnation == 0)
        return false;
    memset(ret_node, 0, sizeof(*ret_node));
    memcpy(ret_node->id, message->id, strlen(message->id));
    ret_node->incarnation = message->incarnation;
    if (!is_shard)
        return true;
    if ((message->region[0] && !region_valid(message->region)) || message->weight > SCORE_WEIGHT_MAX ||
        message->full_weight > SCORE_WEIGHT_MAX)
        return false;
    memcpy(ret_node->region, message->region, strlen(message->region));
    ret_node->weight = message->weight;
    ret_node->full_weight = message->full_weight;
    ret_node->draining = message->draining;
    ret_node->full = message->full;
    return true;
}

static bool unpack_nodes(NodeMessage *const *messages, size_t count, bool is_shard, struct view_node **ret_nodes,
                         size_t *ret_count)
{
    if (count == 0)
        return true;
    *ret_nodes = mem_alloc(count * sizeof(**ret_nodes));
    *ret_count = count;
    for (size_t i = 0; i < count; i++) {
        if (!unpack_node(messages[i], is_shard, &(*ret_nodes)[i]))
            return false;
        /* Strictly ascending, which refuses duplicates too. */
        if (i > 0 && strcmp((*ret_nodes)[i - 1].id, (*ret_nodes)[i].id) >= 0)
            return false;
    }
    return true;
}

static bool unpack_entry(const EntryMessage *entry, struct view *view)
{
    /* The next version may add to an entry, but what this one reads keeps its meaning there. */
    if (entry->schema_version == 0 || entry->schema_version > VIEW_SCHEMA_VERSION + 1 || entry->generation == 0 ||
        entry->n_shards > VIEW_SHARDS_MAX || entry->n_gateways > VIEW_GATEWAYS_MAX)
        return false;
    view->number.generation = entry->generation;
    view->appender = entry->appender;
    if (entry->settled)
        view->settled = (struct view_number){.generation = entry->settled->generation, .seq = entry->settled->seq};
    return view_number_compare(view->settled, view->number) <= 0 &&
           unpack_nodes(entry->shards, entry->n_shards, true, &view->shards, &view->shard_count) &&
           unpack_nodes(entry->gateways, entry->n_gateways, false, &view->gateways, &view->gateway_count);
}

struct view *view_unpack(const void *data, size_t size, uint64_t seq)
{
    struct view *view = view_copy(NULL);
    struct arena arena;

    arena_init(&arena, UNPACK_LIMIT_BYTES);
    EntryMessage *entry = signalbox__cluster__v1__view_entry__unpack(&arena.allocator, size, data);
    view->number.seq = seq;
    if (!entry || !unpack_entry(entry, view))
        view_unref(&view);
    arena_done(&arena);
    return view;
}
