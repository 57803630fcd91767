#include "tests/sim/cluster_wiring.h"

#include "common/sim_fault.h"
#include "common/view_exchange.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    BUS_UP_MAX_MS = 300,
    CONCURRENCES_MAX = 64,
    AMBUSH_ONE_IN = 2,
    UNHEARD_MIN_MS = 200,
    UNHEARD_MAX_MS = 1200,
    VIEW_ARENA_MAX = 1024 * 1024
};

bool process_may_act(struct process *process)
{
    return membership_may_act(process->membership, process->world->now_ms);
}

/* --- links ----------------------------------------------------------------------------------------------------- */

static int on_link_publish(void *ctx, const char *subject, struct payload *envelope)
{
    struct process *process = ctx;
    if (!process_may_act(process) || !process->bus_up)
        return -1;
    cluster_publish(process, EVENT_LINK, subject, envelope);
    return 0;
}

static enum link_verdict on_link_judge(void *ctx, const struct node_address *from, struct view_number number)
{
    struct process *process = ctx;
    membership_heard(process->membership, from, number, process->world->now_ms);
    struct view *view = membership_view(process->membership);
    if (view == NULL || view_number_compare(number, view->number) > 0)
        return LINK_HOLD;
    return cluster_lists(view, from) || SIM_FAULT(ACCEPT_REMOVED) ? LINK_ACCEPT : LINK_REFUSE;
}

static void on_link_item(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                         int64_t now_ms)
{
    struct process *process = ctx;
    if (view_exchange_item(process->membership, process->links, from, item, now_ms)) {
        process->links_due_ms = now_ms;
        return;
    }
    cluster_check_item(process, from);
    if (process->shard != NULL) {
        shard_item(process->shard, from, item, now_ms);
        return;
    }
    gateway_item(process->gateway, from, item, now_ms);
    membership_set_marker(process->membership, gateway_reported(process->gateway), now_ms);
}

static void on_link_gap(void *ctx, const struct node_address *from, int64_t now_ms)
{
    struct process *process = ctx;
    if (process->gateway != NULL)
        gateway_gap(process->gateway, from, now_ms);
    else
        shard_gap(process->shard, from);
}

static struct view_number on_link_view(void *ctx)
{
    struct view *view = membership_view(((struct process *)ctx)->membership);
    return view != NULL ? view->number : (struct view_number){0, 0};
}

static void on_to_peer(void *ctx, const struct node_address *to, struct payload *item)
{
    struct process *process = ctx;
    if (process->links == NULL)
        return; /* the process ends */
    links_send(process->links, to, item, process->world->now_ms);
    process->links_due_ms = process->world->now_ms;
}

/* --- membership ------------------------------------------------------------------------------------------------ */

static void on_read_last(void *ctx)
{
    cluster_log_request(ctx, EVENT_LOG_READ, NULL, 0);
}

static void on_read(void *ctx, uint64_t seq)
{
    cluster_log_request(ctx, EVENT_LOG_ENTRY, NULL, seq);
}

static void on_append(void *ctx, const struct view *entry, uint64_t expected_last_seq)
{
    struct payload *bytes = view_pack(entry);
    cluster_log_request(ctx, EVENT_LOG_APPEND, bytes, expected_last_seq);
    payload_unref(&bytes);
}

static void on_announce(void *ctx, const struct view *view)
{
    struct payload *record = view_exchange_pack(view);
    cluster_publish(ctx, EVENT_VIEW, "sbx.view", record);
    payload_unref(&record);
}

static void on_ask(void *ctx, const struct node_address *whom, struct view_number after)
{
    struct process *process = ctx;
    view_exchange_ask(process->links, whom, after, process->world->now_ms);
    process->links_due_ms = process->world->now_ms;
}

static void note_suspension(struct process *process)
{
    bool acting = process_may_act(process);
    if (process->shard == NULL || acting == process->acting)
        return;
    process->acting = acting;
    shard_suspend(process->shard, !acting, process->world->now_ms);
    cluster_tell(process->world, "%s %s", process->address.id, acting ? "acts" : "suspends itself");
}

/* As shard/process.c does it with what it has measured. */
static void note_load(struct process *process)
{
    int64_t now_ms = process->world->now_ms;
    bool empty = shard_stats(process->shard).rooms == 0;
    struct membership_load load = {
        .empty = empty, .full = now_ms < process->full_until_ms, .pressure = process->pressure};
    shard_set_full(process->shard, load.full);
    membership_set_load(process->membership, &load, now_ms);
    if (process->leave_by_ms == 0 || process->leaving)
        return;
    enum drain_progress progress = membership_drain_progress(process->membership);
    if ((progress == DRAIN_DONE && empty) || progress == DRAIN_NO_HEIR || now_ms >= process->leave_by_ms)
        process->leave_wanted = true;
}

static void on_heartbeat(void *ctx)
{
    struct process *process = ctx;
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__ViewNumber settled = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Concurrence concurs[CONCURRENCES_MAX], *concur_list[CONCURRENCES_MAX];
    struct view_number view = on_link_view(process), marker = membership_marker(process->membership);
    enum membership_state state = membership_state(process->membership);
    char server[16];
    snprintf(server, sizeof server, "nats-%d", process->index % CLUSTER_SERVERS);
    number.generation = view.generation;
    number.seq = view.seq;
    settled.generation = marker.generation;
    settled.seq = marker.seq;
    beat.schema_version = LINK_SCHEMA_VERSION;
    beat.node = process->address.id;
    beat.incarnation = process->address.incarnation;
    beat.kind = (Signalbox__Cluster__V1__NodeKind)process->address.kind;
    beat.view = &number;
    beat.settled = &settled;
    beat.n_concurs = membership_concurrences(process->membership, concurs, CONCURRENCES_MAX, process->world->now_ms);
    for (size_t i = 0; i < beat.n_concurs; i++)
        concur_list[i] = &concurs[i];
    beat.concurs = concur_list;
    beat.nats_server = server;
    beat.beat = ++process->beat;
    beat.sent_ms = process->world->now_ms;
    beat.joining = state < MEMBERSHIP_ACTIVE;
    beat.leaving = state == MEMBERSHIP_LEAVING;
    note_suspension(process);
    if (process->shard != NULL)
        note_load(process);
    struct payload *payload = payload_pack(&beat.base);
    cluster_publish(process, EVENT_HEARTBEAT, "", payload);
    payload_unref(&payload);
    snprintf(server, sizeof server, "nats-%d", (process->index + 1) % CLUSTER_SERVERS);
    beat.second = true;
    payload = payload_pack(&beat.base);
    cluster_publish_second(process, payload);
    payload_unref(&payload);
}

static void on_probe(void *ctx, const struct node_address *node)
{
    struct process *process = ctx;
    Signalbox__Cluster__V1__Envelope envelope = SIGNALBOX__CLUSTER__V1__ENVELOPE__INIT;
    envelope.schema_version = LINK_SCHEMA_VERSION;
    envelope.sender = process->address.id;
    envelope.incarnation = process->address.incarnation;
    envelope.kind = (Signalbox__Cluster__V1__NodeKind)process->address.kind;
    envelope.idle = true;
    struct payload *payload = payload_pack(&envelope.base);
    cluster_probe(process, node, payload);
    payload_unref(&payload);
}

static void forget_departed(struct process *process, const struct view *old, const struct view *view, int64_t now_ms)
{
    struct node_address address = {0};
    for (size_t i = 0; old != NULL && i < old->shard_count + old->gateway_count; i++) {
        bool shard = i < old->shard_count;
        const struct view_node *node = shard ? &old->shards[i] : &old->gateways[i - old->shard_count];
        address.kind = shard ? NODE_SHARD : NODE_GATEWAY;
        address.incarnation = node->incarnation;
        memcpy(address.id, node->id, sizeof address.id);
        if (!cluster_lists(view, &address))
            links_forget(process->links, node->incarnation, now_ms);
    }
}

/* The shard takes over what `from` hands to it, which never hears so, and is killed. */
static void ambush_unheard(struct process *target, struct process *from)
{
    struct world *world = target->world;
    int64_t at_ms = world->now_ms + UNHEARD_MIN_MS + (int64_t)world_random(world, UNHEARD_MAX_MS - UNHEARD_MIN_MS);
    world->injected[INJECTED_UNHEARD]++;
    cluster_tell(world, "%s hears nothing from %s until that is killed", from->address.id, target->address.id);
    if (from->deaf_until_ms[target->index] < at_ms)
        from->deaf_until_ms[target->index] = at_ms;
    cluster_push(
        world, (struct event){
                   .at_ms = at_ms, .kind = EVENT_KILL, .process = target, .incarnation = target->address.incarnation});
}

/* Kills a shard to which rooms are about to move: while the first of several is on its way, which others wait for and
 * may come back, or after it has come. */
static void ambush(struct process *process, const struct view *old, const struct view *view)
{
    struct world *world = process->world;
    int least = world->narrow ? 2 : 1;
    for (int i = world->gateways; i < world->gateways + world->shards; i++) {
        struct process *target = &world->processes[i];
        int moving = 0;
        for (int room = 0; room < CLUSTER_ROOMS; room++)
            moving += cluster_owner(world, old, room) == process->address.incarnation &&
                      cluster_owner(world, view, room) == target->address.incarnation;
        if (target == process || !target->alive || moving < least || world_random(world, AMBUSH_ONE_IN) != 0)
            continue;
        if (!world->narrow) {
            ambush_unheard(target, process);
            continue;
        }
        world->injected[INJECTED_AMBUSH]++;
        process_crash(target);
    }
}

static void on_view(void *ctx, struct view *old, struct view *view, int64_t now_ms)
{
    struct process *process = ctx;
    cluster_check_view(process, old, view);
    if (process->shard != NULL) {
        shard_view(process->shard, view, now_ms);
        if (process->world->ambushes)
            ambush(process, old, view);
    } else {
        gateway_view(process->gateway, view, now_ms);
        membership_set_marker(process->membership, gateway_reported(process->gateway), now_ms);
    }
    forget_departed(process, old, view, now_ms);
    process->release_wanted = true;
}

static void on_state(void *ctx, enum membership_state state, int64_t now_ms)
{
    struct process *process = ctx;
    cluster_tell(process->world, "%s is %s", process->address.id, membership_state_name(state));
    if (state == MEMBERSHIP_LEFT || (state == MEMBERSHIP_REMOVED && membership_was_replaced(process->membership)))
        process->ended = true;
    else if (state == MEMBERSHIP_REMOVED)
        process->rejoin_wanted = true;
}

static int64_t on_wall_s(void *ctx)
{
    return wiring_wall_ms(ctx) / 1000;
}

static void on_flush_soon(void *ctx)
{
    ((struct process *)ctx)->flush_wanted = true;
}

static struct view_number on_reported(void *ctx)
{
    return membership_reported(((struct process *)ctx)->membership);
}

static struct view_number on_marker_of(void *ctx, uint64_t incarnation)
{
    return membership_marker_of(((struct process *)ctx)->membership, incarnation);
}

static void on_set_marker(void *ctx, struct view_number marker, int64_t now_ms)
{
    membership_set_marker(((struct process *)ctx)->membership, marker, now_ms);
}

static void on_progress(void *ctx, int64_t now_ms)
{
    shard_progress(((struct process *)ctx)->shard, now_ms);
}

/* --- the bus --------------------------------------------------------------------------------------------------- */

static void on_heartbeat_message(struct process *process, const struct payload *bytes)
{
    Signalbox__Cluster__V1__Heartbeat *beat = signalbox__cluster__v1__heartbeat__unpack(NULL, bytes->size, bytes->data);
    membership_heartbeat(process->membership, beat, process->world->now_ms);
    signalbox__cluster__v1__heartbeat__free_unpacked(beat, NULL);
}

static void on_view_message(struct process *process, const struct payload *bytes)
{
    struct arena arena;
    arena_init(&arena, VIEW_ARENA_MAX);
    struct view *view = view_exchange_unpack(bytes->data, bytes->size, &arena);
    membership_learn(process->membership, view, process->world->now_ms);
    view_unref(&view);
    arena_done(&arena);
}

static void on_bus_state(struct process *process, bool up)
{
    int64_t now_ms = process->world->now_ms;
    if (up == process->bus_up)
        return;
    if (up && now_ms < process->cut_until_ms) {
        cluster_push(process->world, (struct event){.at_ms = process->cut_until_ms,
                                                    .kind = EVENT_BUS_UP,
                                                    .process = process,
                                                    .incarnation = process->address.incarnation});
        return;
    }
    process->bus_up = up;
    cluster_tell(process->world, "%s is %s the bus", process->address.id, up ? "on" : "off");
    if (!up)
        membership_bus_lost(process->membership);
    if (process->gateway != NULL)
        gateway_bus(process->gateway, up, now_ms);
    if (up)
        membership_start(process->membership, now_ms);
}

void wiring_event(struct process *process, struct event *event)
{
    int64_t now_ms = process->world->now_ms;
    struct view *view = NULL;
    process->links_due_ms = now_ms;
    switch (event->kind) {
    case EVENT_LINK:
        if (process_may_act(process))
            links_receive(process->links, event->bytes->data, event->bytes->size, now_ms);
        break;
    case EVENT_HEARTBEAT:
        on_heartbeat_message(process, event->bytes);
        break;
    case EVENT_VIEW:
        on_view_message(process, event->bytes);
        break;
    case EVENT_UNREACHABLE:
        membership_gone(process->membership, event->number, now_ms);
        break;
    case EVENT_BUS_UP:
    case EVENT_BUS_DOWN:
        on_bus_state(process, event->kind == EVENT_BUS_UP);
        break;
    case EVENT_LOG_READ_DONE:
        if (event->result == VIEWLOG_OK)
            view = view_unpack(event->bytes->data, event->bytes->size, event->number);
        membership_read_done(process->membership, event->result, view, now_ms);
        view_unref(&view);
        break;
    case EVENT_LOG_ENTRY_DONE:
        if (event->result == VIEWLOG_OK)
            view = view_unpack(event->bytes->data, event->bytes->size, event->number);
        membership_entry_done(process->membership, event->result, view, now_ms);
        view_unref(&view);
        break;
    case EVENT_LOG_APPEND_DONE:
        membership_append_done(process->membership, event->result, event->number, now_ms);
        break;
    default:
        break;
    }
}

/* --- beginning and end ----------------------------------------------------------------------------------------- */

void wiring_name(struct process *process, enum node_kind kind)
{
    process->address = (struct node_address){.kind = kind, .incarnation = incarnation_random()};
    snprintf(process->address.id, sizeof process->address.id, kind == NODE_GATEWAY ? "gw-%d" : "shard-%d",
             process->index);
    node_inbox(&process->address, process->subject);
}

void wiring_open_core(struct process *process, struct jwt_keyring *keyring, const struct token_keys *token_keys)
{
    static const struct gateway_actions gateway_actions = {
        .send = wiring_client_send, .close = wiring_client_close, .to_shard = on_to_peer, .wall_ms = wiring_wall_ms};
    static const struct shard_actions shard_actions = {.send = on_to_peer,
                                                       .flush_soon = on_flush_soon,
                                                       .wall_ms = wiring_wall_ms,
                                                       .reported = on_reported,
                                                       .marker_of = on_marker_of,
                                                       .set_marker = on_set_marker};
    if (process->address.kind == NODE_GATEWAY) {
        struct gateway_options options = {.self = process->address, .limits = gateway_default_limits};
        process->gateway = gateway_new(&options, keyring, token_keys, &process->wheel, &gateway_actions, process);
    } else {
        struct shard_options options = {.self = process->address, .limits = shard_default_limits};
        if (process->world->narrow)
            options.limits.handoff_rooms = 1;
        process->shard = shard_new(&options, &process->wheel, &shard_actions, process);
    }
}

void wiring_open_node(struct process *process)
{
    static const struct link_handlers link_handlers = {.publish = on_link_publish,
                                                       .judge = on_link_judge,
                                                       .item = on_link_item,
                                                       .gap = on_link_gap,
                                                       .view = on_link_view};
    static const struct membership_actions actions = {.read_last = on_read_last,
                                                      .read = on_read,
                                                      .append = on_append,
                                                      .announce = on_announce,
                                                      .heartbeat = on_heartbeat,
                                                      .probe = on_probe,
                                                      .ask = on_ask,
                                                      .view = on_view,
                                                      .state = on_state,
                                                      .wall_s = on_wall_s,
                                                      .progress = on_progress};
    struct world *world = process->world;
    process->bus_up = process->acting = process->release_wanted = process->flush_wanted = false;
    process->links_due_ms = -1;
    process->links = links_new(&process->address, &link_handlers, process);
    process->membership = membership_new(&process->address, process->region, process->weight, &world->times,
                                         &process->wheel, &actions, process);
    cluster_push(world, (struct event){.at_ms = world->now_ms + 1 + (int64_t)world_random(world, BUS_UP_MAX_MS),
                                       .kind = EVENT_BUS_UP,
                                       .process = process,
                                       .incarnation = process->address.incarnation});
}

void wiring_close_node(struct process *process)
{
    membership_free(&process->membership);
    links_free(&process->links);
}

void wiring_rejoin(struct process *process)
{
    struct world *world = process->world;
    process->rejoin_wanted = false;
    world->injected[INJECTED_REJOIN]++;
    if (process->gateway != NULL)
        gateway_bus(process->gateway, false, world->now_ms);
    wiring_close_node(process);
    wiring_name(process, process->address.kind);
    if (process->shard != NULL) {
        process->ended = process->leave_by_ms != 0; /* it had given its rooms up in any case */
        shard_free(&process->shard);
        wiring_open_core(process, NULL, NULL);
    }
    wiring_open_node(process);
    if (process->gateway != NULL)
        gateway_rename(process->gateway, &process->address);
    cluster_tell(world, "%s rejoins as %016" PRIx64, process->address.id, process->address.incarnation);
}
