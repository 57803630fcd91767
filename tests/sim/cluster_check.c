/* What must hold after every step.
 *
 * "One accepted owner": a gateway takes a shard's word on a room only if the gateway's own view makes that shard the
 * owner, and gateways read the log at different times. So it is the shards that must not overlap: whatever anybody has
 * read, at most one process at a time serves a room (carries out commands, publishes events) and is able to act on it,
 * whether a gateway listens to it or not. */
#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include "shard/internal.h"
#include "tests/sim/cluster.h"
#include <string.h>

enum { LINKS_PENDING_MAX_ITEMS = 20000, HANDOFFS_TAKEN = 5 /* label value of M_HANDOFFS */ };

/* --- who owns what --------------------------------------------------------------------------------------------- */

bool cluster_lists(const struct view *view, const struct node_address *node)
{
    return view != NULL && view_lists(view, node);
}

uint64_t cluster_owner(struct world *world, const struct view *view, int room)
{
    static const struct score_seed seed;
    if (view == NULL)
        return 0;
    struct owner_row *row = &world->owner_rows[(view->number.generation * 31 + view->number.seq) % CLUSTER_OWNER_ROWS];
    if (view_number_compare(row->view, view->number) != 0) {
        row->view = view->number;
        for (int i = 0; i < CLUSTER_ROOMS; i++) {
            char region[REGION_MAX + 1];
            room_region(cluster_room_names[i], region);
            const struct view_node *owner = view_owner(view, &seed, &world->rooms[i], region);
            row->owners[i] = owner != NULL ? owner->incarnation : 0;
        }
    }
    return row->owners[room];
}

int cluster_room_index(const struct world *world, const struct room_key *key)
{
    for (int i = 0; i < CLUSTER_ROOMS; i++)
        if (room_key_equal(&world->rooms[i], key))
            return i;
    return CLUSTER_NO_ROOM;
}

static bool owns(struct world *world, const struct process *shard, const struct process *by, int room)
{
    return cluster_owner(world, membership_view(by->membership), room) == shard->address.incarnation;
}

/* --- views ----------------------------------------------------------------------------------------------------- */

static struct log_entry *find_entry(const struct world *world, struct view_number number)
{
    for (size_t i = world->entry_count; i-- > 0;)
        if (view_number_compare(world->entries[i].view->number, number) == 0)
            return &world->entries[i];
    return NULL;
}

/* Numbers only grow, and each is used for one membership, the log's. */
void cluster_check_view(struct process *process, const struct view *old, const struct view *view)
{
    struct world *world = process->world;
    unsigned generation = (unsigned)view->number.generation, seq = (unsigned)view->number.seq;
    if (process->shard != NULL)
        cluster_tell(world, "%s has view %u.%u", process->address.id, generation, seq);
    if (old != NULL && view_number_compare(view->number, old->number) <= 0)
        cluster_violated(world, "view numbers", CLUSTER_NO_ROOM, "%s goes back from view %u.%u to %u.%u",
                         process->address.id, (unsigned)old->number.generation, (unsigned)old->number.seq, generation,
                         seq);
    struct log_entry *entry = find_entry(world, view->number);
    if (entry == NULL) {
        cluster_violated(world, "view numbers", CLUSTER_NO_ROOM, "%s has view %u.%u, which the log never held",
                         process->address.id, generation, seq);
        return;
    }
    entry->taken = true;
    entry->had_by[process->index] = process->life;
    struct payload *bytes = view_pack(view);
    if (bytes->size != entry->bytes->size || memcmp(bytes->data, entry->bytes->data, bytes->size) != 0)
        cluster_violated(world, "view numbers", CLUSTER_NO_ROOM, "%s has another view %u.%u than the log",
                         process->address.id, generation, seq);
    payload_unref(&bytes);
}

/* Nothing of a removed process is taken in by anybody who knows of it. */
void cluster_check_item(struct process *process, const struct node_address *from)
{
    if (!cluster_lists(membership_view(process->membership), from))
        cluster_violated(process->world, "one owner", CLUSTER_NO_ROOM,
                         "%s takes in what %s (%016llx) sent, which its view %u does not list", process->address.id,
                         from->id, (unsigned long long)from->incarnation,
                         (unsigned)membership_view(process->membership)->number.seq);
}

static bool was_listed(const struct world *world, const struct node_address *node)
{
    for (size_t i = world->entry_count; i-- > 0;)
        if (cluster_lists(world->entries[i].view, node))
            return true;
    return false;
}

/* Whoever was removed by others may not act, from the moment of the entry. */
static void check_fence(struct world *world, struct process *shard)
{
    const struct view *newest = cluster_newest_view(world);
    if (membership_state(shard->membership) != MEMBERSHIP_ACTIVE || cluster_lists(newest, &shard->address) ||
        !process_may_act(shard) || !was_listed(world, &shard->address))
        return;
    cluster_violated(world, "fence", CLUSTER_NO_ROOM, "%s may act though the log's view %u.%u has removed it",
                     shard->address.id, (unsigned)newest->number.generation, (unsigned)newest->number.seq);
}

/* --- markers -------------------------------------------------------------------------------------------------- */

/* Whether a shard that some entry since the last settled one had is not in `view` any more. Nobody knows what was
 * before a log that begins with nothing, and what nobody has had made nobody an owner. */
static bool lost_shards(const struct world *world, const struct view *view)
{
    for (size_t i = 0; i < world->entry_count; i++) {
        const struct view *entry = world->entries[i].view;
        if (!world->entries[i].taken)
            continue;
        if (view->settled.generation == 0 && entry->number.generation != view->number.generation)
            continue;
        if (view_number_compare(entry->number, view->settled) < 0 ||
            view_number_compare(entry->number, view->number) >= 0)
            continue;
        for (size_t n = 0; n < entry->shard_count; n++) {
            const struct view_node *now = view_find_shard(view, entry->shards[n].id);
            if (now == NULL || now->incarnation != entry->shards[n].incarnation)
                return true;
        }
    }
    return false;
}

/* NULL, or why the view in force cannot have settled as far as this shard goes. */
static const char *unsettled(struct process *shard, const struct view *view)
{
    struct world *world = shard->world;
    for (int i = 0; i < CLUSTER_ROOMS; i++) {
        const struct room *room = shard_find_any_room(shard->shard, &world->rooms[i]);
        if (room != NULL && room->state == ROOM_FROZEN)
            return "it has a room that is another's";
    }
    if (!lost_shards(world, view))
        return NULL;
    for (int i = 0; i < world->gateways; i++) {
        const struct process *gateway = &world->processes[i];
        if (gateway->alive && cluster_lists(view, &gateway->address) &&
            view_number_compare(membership_marker(gateway->membership), view->number) < 0)
            return "a gateway has not reported what it holds of a lost owner's rooms";
    }
    return NULL;
}

/* Whoever sees the markers takes nothing for lost or on its way that is older than they are. */
static void check_marker(struct process *shard)
{
    const struct view *view = membership_view(shard->membership);
    struct view_number marker = membership_marker(shard->membership);
    if (view_number_compare(marker, shard->marker) == 0)
        return;
    shard->marker = marker;
    bool of_view = view != NULL && view_number_compare(marker, view->number) == 0;
    const char *problem = of_view ? unsettled(shard, view) : NULL;
    if (problem != NULL)
        cluster_violated(shard->world, "markers", CLUSTER_NO_ROOM, "%s says that view %u.%u has settled: %s",
                         shard->address.id, (unsigned)marker.generation, (unsigned)marker.seq, problem);
}

/* --- rooms ----------------------------------------------------------------------------------------------------- */

/* The room as this shard serves it; NULL while it may not act, or does not hold the room. */
static const struct room *served(struct process *shard, int room)
{
    if (!process_runs(shard) || !process_may_act(shard))
        return NULL;
    return shard_find_room(shard->shard, &shard->world->rooms[room]);
}

/* What a shard answers about a room, some gateway may take for the owner's word: at no time may two of them answer. */
static void check_one_owner(struct world *world, int room)
{
    struct process *first = NULL;
    for (int i = world->gateways; i < world->gateways + world->shards; i++) {
        struct process *shard = &world->processes[i];
        if (!shard->alive || shard_find_room(shard->shard, &world->rooms[room]) == NULL || served(shard, room) == NULL)
            continue;
        if (first != NULL)
            cluster_violated(world, "one owner", room, "%s and %s both act on room %s", first->address.id,
                             shard->address.id, cluster_room_names[room]);
        first = shard;
    }
}

/* A room that was handed over is what its last owner had; one that was not is so because nobody has it. */
static void check_origin(struct process *shard, int index, const struct room *room)
{
    struct world *world = shard->world;
    const struct epoch *live = &world->live_epochs[index];
    if (!process_may_act(shard))
        return; /* nobody hears of it */
    if (room->came_epoch.incarnation != 0) {
        if (epoch_compare(live, &room->came_epoch) > 0 && live->incarnation != shard->address.incarnation)
            cluster_violated(world, "copies", index,
                             "%s takes up a copy of room %s that another owner has served since", shard->address.id,
                             room->name);
        return;
    }
    if (metric_value_at(M_HANDOFFS, HANDOFFS_TAKEN) != world->handoffs_taken)
        return; /* it may be what was installed, emptied and joined again within this step */
    for (int i = world->gateways; i < world->gateways + world->shards; i++) {
        struct process *other = &world->processes[i];
        if (other == shard || !other->alive || !cluster_lists(membership_view(shard->membership), &other->address))
            continue;
        const struct room *held = shard_find_any_room(other->shard, &world->rooms[index]);
        if (held != NULL && held->total > 0 && (room_is_served(held) || held->state == ROOM_FROZEN) &&
            epoch_compare(&held->epoch, live) >= 0)
            cluster_violated(world, "copies", index, "%s begins room %s anew while %s has it", shard->address.id,
                             room->name, other->address.id);
    }
}

/* An epoch stands for one taking of one room by one owner. */
static void use_epoch(struct process *shard, int room, const struct epoch *epoch)
{
    struct world *world = shard->world;
    char text[EPOCH_TEXT_MAX + 1];
    epoch_format(epoch, text);
    for (size_t i = 0; i < world->used_epoch_count; i++)
        if (epoch_equal(&world->used_epochs[i].epoch, epoch))
            cluster_violated(world, "epochs are used once", room, "%s takes room %s under epoch %s, which room %s had",
                             shard->address.id, cluster_room_names[room], text,
                             cluster_room_names[world->used_epochs[i].room]);
    if (epoch->incarnation != shard->address.incarnation)
        cluster_violated(world, "epochs are used once", room, "%s takes room %s under another's epoch %s",
                         shard->address.id, cluster_room_names[room], text);
    world->used_epochs = mem_realloc(world->used_epochs, (world->used_epoch_count + 1) * sizeof *world->used_epochs);
    world->used_epochs[world->used_epoch_count++] = (struct used_epoch){.epoch = *epoch, .room = room};
    world_note(world, cluster_room_names[room], "%s takes the room: epoch %s", shard->address.id, text);
}

static void check_rooms(struct world *world, struct process *shard)
{
    static const struct epoch none;
    for (int i = 0; i < CLUSTER_ROOMS; i++) {
        const struct room *room = shard_find_room(shard->shard, &world->rooms[i]);
        const struct epoch *epoch = room != NULL ? &room->epoch : &none;
        if (!epoch_equal(epoch, &shard->epochs[i]) && room != NULL) {
            use_epoch(shard, i, epoch);
            check_origin(shard, i, room);
        } else if (room == NULL && !epoch_equal(&shard->epochs[i], &none)) {
            world_note(world, cluster_room_names[i], "%s gives the room up", shard->address.id);
        }
        shard->epochs[i] = *epoch;
        if (room == NULL)
            continue;
        if (room->total > 0 && process_may_act(shard) && epoch_compare(epoch, &world->live_epochs[i]) > 0)
            world->live_epochs[i] = *epoch;
        const struct shard_limits *limits = &shard->shard->options.limits;
        if (room->ring_entries > limits->ring_entries || room->ring_bytes > limits->ring_bytes)
            cluster_violated(world, "queues", i, "%s keeps %u batches of %u bytes for room %s", shard->address.id,
                             room->ring_entries, room->ring_bytes, room->name);
        if (room->total > limits->room_participants)
            cluster_violated(world, "queues", i, "%u are in room %s", room->total, room->name);
    }
    if (HASH_COUNT(shard->shard->departures) > shard->shard->options.limits.departures ||
        shard->shard->history.count > HISTORY_MAX)
        cluster_violated(world, "queues", CLUSTER_NO_ROOM, "%s remembers %u departures and %zu views",
                         shard->address.id, HASH_COUNT(shard->shard->departures), shard->shard->history.count);
}

/* Epochs only grow, as each gateway sees a room. */
static void check_gateway(struct world *world, struct process *process)
{
    struct gateway *gateway = process->gateway;
    for (int i = 0; i < CLUSTER_ROOMS; i++) {
        struct gw_room *room;
        HASH_FIND(hh, gateway->rooms, &world->rooms[i], sizeof world->rooms[i], room);
        if (room == NULL || !room->has_epoch)
            continue;
        if (epoch_compare(&room->epoch, &process->epochs[i]) < 0)
            cluster_violated(world, "epochs only grow", i, "%s goes back to epoch %s of room %s", process->address.id,
                             room->epoch_text, room->name);
        process->epochs[i] = room->epoch;
    }
    if (gateway->orphan_count > gateway->options.limits.orphaned_sessions)
        cluster_violated(world, "queues", CLUSTER_NO_ROOM, "%s keeps %zu sessions without a client",
                         process->address.id, gateway->orphan_count);
}

void cluster_check(struct world *world)
{
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *process = &world->processes[i];
        if (!process_runs(process))
            continue;
        if (process->shard != NULL) {
            check_fence(world, process);
            check_marker(process);
            check_rooms(world, process);
        } else {
            check_gateway(world, process);
        }
        if (links_pending_items(process->links) > LINKS_PENDING_MAX_ITEMS)
            cluster_violated(world, "queues", CLUSTER_NO_ROOM, "%s holds %zu items that wait", process->address.id,
                             links_pending_items(process->links));
    }
    for (int i = 0; i < CLUSTER_ROOMS; i++)
        check_one_owner(world, i);
    world->handoffs_taken = metric_value_at(M_HANDOFFS, HANDOFFS_TAKEN);
}

/* --- calm ------------------------------------------------------------------------------------------------------ */

/* NULL, or what is not as it should be with a process once nothing befalls it any more. */
static const char *unrest(struct world *world, struct process *process)
{
    const struct view *last = cluster_newest_view(world), *view = membership_view(process->membership);
    if (process->leaving)
        return "has not left";
    if (!cluster_lists(last, &process->address))
        return "is not in the last view";
    if (view == NULL || view_number_compare(view->number, last->number) != 0)
        return "has not the last view";
    if (!process_may_act(process))
        return "may not act";
    if (last->shard_count > 0 && view_number_compare(membership_marker(process->membership), last->number) < 0)
        return "has not settled the last view";
    for (int i = 0; process->shard != NULL && i < CLUSTER_ROOMS; i++)
        if (shard_find_room(process->shard, &world->rooms[i]) != NULL && !owns(world, process, process, i))
            return "holds a room that is another's";
    return NULL;
}

bool cluster_check_calm(struct world *world, bool must)
{
    const struct view *last = cluster_newest_view(world);
    size_t alive = 0;
    bool calm = true;
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *process = &world->processes[i];
        if (!process->alive)
            continue;
        alive++;
        const char *problem = unrest(world, process);
        calm &= problem == NULL;
        if (problem != NULL && must)
            cluster_violated(world, "calm", CLUSTER_NO_ROOM, "%s %s; it is %s", process->address.id, problem,
                             membership_state_name(membership_state(process->membership)));
    }
    if (last == NULL || alive == last->shard_count + last->gateway_count)
        return calm;
    if (must)
        cluster_violated(world, "calm", CLUSTER_NO_ROOM, "the last view lists %zu processes, and %zu live",
                         last->shard_count + last->gateway_count, alive);
    return false;
}
