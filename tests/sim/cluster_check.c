/* What must hold after every step.
 *
 * "One accepted owner" is read as follows. A gateway accepts one owner of a room, the one that its view names: of that
 * there is nothing to check. Two gateways whose views differ accept two, for as long as one of them lags behind the
 * log; where a shard was *added* or left by itself both shards live and obey the log, so the overlap is bounded by how
 * long news travels, and it is measured. Where a shard was *removed by others* there must be no overlap at all: from
 * the moment at which the log holds an entry without it, whatever anybody has read of it, it may not act. That, and
 * that a gateway takes nothing from a shard which is not in the gateway's own view, is what "never two accepted owners"
 * means for a log that nobody reads at once. */
#include "tests/sim/cluster.h"

#include "gateway/internal.h"
#include "shard/internal.h"
#include <string.h>

enum { LINKS_PENDING_MAX_ITEMS = 100000 };

bool cluster_lists(const struct view *view, const struct node_address *node)
{
    if (view == NULL)
        return false;
    const struct view_node *found =
        node->kind == NODE_SHARD ? view_find_shard(view, node->id) : view_find_gateway(view, node->id);
    return found != NULL && found->incarnation == node->incarnation;
}

/* Views: numbers only grow, and each is used for one membership, the log's. */
void cluster_check_view(struct process *process, const struct view *old, const struct view *view)
{
    struct world *world = process->world;
    uint64_t seq = view->number.seq;
    cluster_tell(world, "%s has view %u.%u", process->address.id, (unsigned)view->number.generation, (unsigned)seq);
    if (old != NULL && view_number_compare(view->number, old->number) <= 0)
        cluster_violated(world, "%s goes back from view %u to %u", process->address.id, (unsigned)old->number.seq,
                         (unsigned)seq);
    if (seq == 0 || seq > world->log_count) {
        cluster_violated(world, "%s has view %u, which the log does not hold", process->address.id, (unsigned)seq);
        return;
    }
    struct payload *bytes = view_pack(view);
    const struct payload *logged = world->log[seq - 1].bytes;
    if (bytes->size != logged->size || memcmp(bytes->data, logged->data, bytes->size) != 0)
        cluster_violated(world, "%s has another view %u than the log", process->address.id, (unsigned)seq);
    payload_unref(&bytes);
}

/* Nothing of a removed process is taken in by anybody who knows of it. */
void cluster_check_item(struct process *process, const struct node_address *from)
{
    if (!cluster_lists(membership_view(process->membership), from))
        cluster_violated(process->world, "%s takes in what %s (%016llx) sent, which its view %u does not list",
                         process->address.id, from->id, (unsigned long long)from->incarnation,
                         (unsigned)membership_view(process->membership)->number.seq);
}

static bool was_listed(const struct world *world, const struct node_address *node)
{
    for (size_t i = world->log_count; i-- > 0;)
        if (cluster_lists(world->log[i].view, node))
            return true;
    return false;
}

/* Whoever was removed by others may not act, from the moment of the entry. */
static void check_fence(struct world *world, struct process *shard)
{
    if (membership_state(shard->membership) != MEMBERSHIP_ACTIVE || !process_may_act(shard) ||
        cluster_lists(cluster_log_last(world), &shard->address))
        return;
    if (was_listed(world, &shard->address))
        cluster_violated(world, "%s may act though the log's view %zu has removed it", shard->address.id,
                         world->log_count);
}

static const struct room *room_at(struct process *shard, const struct room_key *key)
{
    struct room *room, *next;
    HASH_ITER(hh, shard->shard->rooms, room, next)
        if (room_key_equal(&room->key, key))
            return room;
    return NULL;
}

static bool owns(const struct world *world, const struct view *view, const struct process *shard, int room)
{
    struct score_seed seed = {0};
    const struct view_node *owner = view != NULL ? view_owner(view, &seed, &world->rooms[room], "") : NULL;
    return owner != NULL && owner->incarnation == shard->address.incarnation;
}

static bool is_accepted(struct world *world, const struct process *shard, int room)
{
    for (int i = 0; i < world->gateways; i++)
        if (world->processes[i].alive && owns(world, membership_view(world->processes[i].membership), shard, room))
            return true;
    return false;
}

/* Two who act on one room, each with members and accepted by somebody. */
static bool is_overlap(struct world *world, int room)
{
    const struct process *first = NULL;
    for (int i = world->gateways; i < world->gateways + world->shards; i++) {
        struct process *shard = &world->processes[i];
        if (!process_runs(shard) || !process_may_act(shard) ||
            !owns(world, membership_view(shard->membership), shard, room))
            continue;
        const struct room *seated = room_at(shard, &world->rooms[room]);
        if (seated == NULL || seated->total == 0 || !is_accepted(world, shard, room))
            continue;
        if (first != NULL)
            return true;
        first = shard;
    }
    return false;
}

static void check_overlaps(struct world *world)
{
    bool overlap = false;
    for (int i = 0; i < CLUSTER_ROOMS && !overlap; i++)
        overlap = is_overlap(world, i);
    if (!overlap)
        world->overlap_since_ms = 0;
    else if (world->overlap_since_ms == 0)
        world->overlap_since_ms = world->now_ms;
    else if (world->now_ms - world->overlap_since_ms > world->overlap_max_ms)
        world->overlap_max_ms = world->now_ms - world->overlap_since_ms;
}

/* Epochs only grow, as each gateway sees a room. */
static void check_epochs(struct world *world, struct process *gateway)
{
    struct gw_room *room, *next;
    HASH_ITER(hh, gateway->gateway->rooms, room, next)
        for (int i = 0; i < CLUSTER_ROOMS; i++) {
            if (!room->has_epoch || !room_key_equal(&room->key, &world->rooms[i]))
                continue;
            if (epoch_compare(&room->epoch, &gateway->epochs[i]) < 0)
                cluster_violated(world, "%s goes back to epoch %s of room %s", gateway->address.id, room->epoch_text,
                                 room->name);
            gateway->epochs[i] = room->epoch;
        }
}

void cluster_check(struct world *world)
{
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *process = &world->processes[i];
        if (!process_runs(process))
            continue;
        if (process->shard != NULL)
            check_fence(world, process);
        else
            check_epochs(world, process);
        if (links_pending_items(process->links) > LINKS_PENDING_MAX_ITEMS)
            cluster_violated(world, "%s holds %zu items that wait", process->address.id,
                             links_pending_items(process->links));
    }
    check_overlaps(world);
}

void cluster_check_calm(struct world *world)
{
    const struct view *last = cluster_log_last(world);
    size_t alive = 0;
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *process = &world->processes[i];
        if (!process->alive)
            continue;
        alive++;
        const struct view *view = membership_view(process->membership);
        if (!cluster_lists(last, &process->address))
            cluster_violated(world, "%s is not in the last view; it is %s", process->address.id,
                             membership_state_name(membership_state(process->membership)));
        else if (view == NULL || view_number_compare(view->number, last->number) != 0)
            cluster_violated(world, "%s has not the last view", process->address.id);
        else if (!process_may_act(process))
            cluster_violated(world, "%s may not act", process->address.id);
    }
    if (last != NULL && alive != last->shard_count + last->gateway_count)
        cluster_violated(world, "the last view lists %zu processes, and %zu live",
                         last->shard_count + last->gateway_count, alive);
}
