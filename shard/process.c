#include "shard/process.h"

#include "common/admin_http.h"
#include "common/arena.h"
#include "common/clock.h"
#include "common/give_back.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "shard/capacity.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { REPLY_ARENA_MAX = 32 * 1024 * 1024, ADMIN_ERROR_MAX = 256, DRAIN_POLL_MS = 50, LEAVE_MAX_MS = 2000 };

/* Label values of M_PARTICIPANTS. */
enum { PARTICIPANTS_ATTACHED, PARTICIPANTS_DETACHED };
/* Of M_ROOM_MEMORY. */
enum { ROOM_MEMORY_RECENT_EVENTS, ROOM_MEMORY_HELD_MESSAGES, ROOM_MEMORY_ARRIVING_ROOMS };

struct shard_process {
    struct loop *loop;
    const struct shard_config *config;
    struct shard *shard;
    struct node *node;
    struct admin_http *admin;
    struct arena reply_arena;
    struct loop_task flush_task, rejoin_task;
    struct timer drain_timer, drain_deadline;
    int64_t leave_by_ms;
    struct give_back give_back; /* of participants */
    bool acting;
    bool draining;
    bool full; /* takes no new rooms */
    enum program_exit exit;
};

static void end(struct shard_process *process, enum program_exit exit)
{
    process->exit = exit;
    loop_stop(process->loop);
}

/* --- what the rooms want ------------------------------------------------------------------------------------------ */

static void on_send(void *ctx, const struct node_address *to, struct payload *item)
{
    struct shard_process *process = ctx;
    if (process->node != NULL) /* not while it closes */
        node_send(process->node, to, item);
}

static void on_flush(struct loop_task *task)
{
    struct shard_process *process = container_of(task, struct shard_process, flush_task);
    shard_flush(process->shard, loop_now_ms(process->loop));
}

static void on_flush_soon(void *ctx)
{
    struct shard_process *process = ctx;
    loop_defer(process->loop, &process->flush_task);
}

static int64_t on_wall_ms(void *ctx)
{
    return clock_wall_ms();
}

static struct view_number on_reported(void *ctx)
{
    struct shard_process *process = ctx;
    return node_reported(process->node);
}

static struct view_number on_marker_of(void *ctx, uint64_t incarnation)
{
    struct shard_process *process = ctx;
    return node_marker_of(process->node, incarnation);
}

static void on_set_marker(void *ctx, struct view_number marker, int64_t now_ms)
{
    struct shard_process *process = ctx;
    node_set_marker(process->node, marker);
}

/* --- what the cluster says ---------------------------------------------------------------------------------------- */

static void on_item(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                    int64_t now_ms)
{
    struct shard_process *process = ctx;
    shard_item(process->shard, from, item, now_ms);
}

static void on_gap(void *ctx, const struct node_address *from, int64_t now_ms)
{
    struct shard_process *process = ctx;
    shard_gap(process->shard, from);
}

static void on_view(void *ctx, struct view *view, int64_t now_ms)
{
    struct shard_process *process = ctx;
    shard_view(process->shard, view, now_ms);
}

static void on_progress(void *ctx, int64_t now_ms)
{
    struct shard_process *process = ctx;
    shard_progress(process->shard, now_ms);
}

/* The node has logged it; rooms stand still until it is back. */
static void on_bus(void *ctx, bool up, int64_t now_ms)
{
}

static void on_state(void *ctx, enum membership_state state, int64_t now_ms)
{
    struct shard_process *process = ctx;
    if (state == MEMBERSHIP_LEFT || (state == MEMBERSHIP_REMOVED && process->draining)) {
        end(process, PROGRAM_EXIT_OK);
    } else if (state == MEMBERSHIP_REMOVED && node_was_replaced(process->node)) {
        log_error("replaced_in_view", log_str("reason", "another process has joined under this node.id"),
                  log_str("action", "ends; give every shard an id of its own"));
        end(process, PROGRAM_EXIT_FAILED);
    } else if (state == MEMBERSHIP_REMOVED) {
        loop_defer(process->loop, &process->rejoin_task);
    }
}

/* Called with each heartbeat, which makes it the place to notice a change of mind about acting. */
static void note_suspension(struct shard_process *process)
{
    bool acting = node_may_act(process->node);
    if (acting == process->acting)
        return;
    process->acting = acting;
    shard_suspend(process->shard, !acting, loop_now_ms(process->loop));
    if (acting)
        log_info("acting");
    else
        log_warn("suspended",
                 log_str("reason", "too few of the view's processes are heard; waits for them or the log"));
}

static void note_load(struct shard_process *process, const struct capacity *used)
{
    const struct shard_config *config = process->config;
    const struct capacity limits = {.rooms = (uint64_t)config->limits.rooms,
                                    .participants = (uint64_t)config->limits.participants,
                                    .queue_depth = (uint64_t)config->limits.queue_depth,
                                    .loop_lag_ms = (uint64_t)config->limits.loop_lag_ms};
    const struct capacity_marks marks = {.high = (uint32_t)config->high_percent, .low = (uint32_t)config->low_percent};
    struct membership_load load = capacity_judge(used, &limits, &marks, process->full);
    if (load.full != process->full)
        log_warn(load.full ? "full" : "not_full", log_uint("rooms", used->rooms),
                 log_uint("participants", used->participants), log_uint("queue_depth", used->queue_depth),
                 log_uint("loop_lag_ms", used->loop_lag_ms));
    process->full = load.full;
    shard_set_full(process->shard, load.full);
    node_set_load(process->node, &load);
}

static void on_load(void *ctx, Signalbox__Cluster__V1__Load *load)
{
    struct shard_process *process = ctx;
    if (process->node == NULL)
        return;
    note_suspension(process);
    struct shard_stats stats = shard_stats(process->shard);
    give_back_count(&process->give_back, stats.participants);
    load->rooms = (uint32_t)stats.rooms;
    load->participants = (uint32_t)stats.participants;
    load->queue_depth = (uint32_t)(stats.pending_updates + node_pending_items(process->node));
    load->loop_lag_us = loop_lag_us(process->loop);
    note_load(process, &(struct capacity){.rooms = stats.rooms,
                                          .participants = stats.participants,
                                          .queue_depth = load->queue_depth,
                                          .loop_lag_ms = load->loop_lag_us / 1000});
    load->full = process->full;
}

static void drain(struct shard_process *process, uint32_t deadline_ms);

static void on_admin(void *ctx, const Signalbox__Cluster__V1__AdminRequest *request, int64_t now_ms)
{
    struct shard_process *process = ctx;
    Signalbox__Cluster__V1__AdminReply reply = SIGNALBOX__CLUSTER__V1__ADMIN_REPLY__INIT;
    arena_reset(&process->reply_arena);
    bool asks_drain = request->request_case == SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_DRAIN;
    if (asks_drain) {
        reply.code = SIGNALBOX__V1__CODE__OK;
        drain(process, request->drain->deadline_ms);
    } else if (!shard_admin(process->shard, request, &process->reply_arena, &reply, now_ms)) {
        reply.code = SIGNALBOX__V1__CODE__UNKNOWN_MESSAGE;
        reply.message = (char *)"this shard does not know this request";
    }
    reply.request_id = request->request_id;
    node_reply(process->node, request->reply_subject, &reply);
}

static void on_fatal(void *ctx, const char *text)
{
    struct shard_process *process = ctx;
    log_error(
        "cannot_start", log_str("reason", text),
        log_str("action", "mend nats.user, nats.password or nats.nkey_seed_file, or what the NATS server permits"));
    end(process, PROGRAM_EXIT_FAILED);
}

/* --- what the operator asks ----------------------------------------------------------------------------------------
 */

bool shard_process_ready(struct shard_process *process, char *reason, size_t size)
{
    enum membership_state state = node_state(process->node);
    if (process->draining)
        snprintf(reason, size, "draining");
    else if (node_view(process->node) == NULL && !node_bus_up(process->node))
        snprintf(reason, size, "not connected to NATS; the log says why (bus_connect_failed)");
    else if (state != MEMBERSHIP_ACTIVE)
        snprintf(reason, size, "not in the view yet: %s", membership_state_name(state));
    else
        return true;
    return false;
}

static bool on_ready(void *ctx, char *reason, size_t size)
{
    return shard_process_ready(ctx, reason, size);
}

static void on_collect(void *ctx)
{
    struct shard_process *process = ctx;
    struct shard_stats stats = shard_stats(process->shard);
    for (int state = ROOM_HELD; state < ROOM_STATE_COUNT; state++)
        metric_set_at(M_ROOMS, (unsigned)state - ROOM_HELD, (int64_t)stats.rooms_in_state[state]);
    metric_set(M_COMMANDS_WAITING, (int64_t)stats.waiting_commands);
    metric_set_at(M_PARTICIPANTS, PARTICIPANTS_ATTACHED, (int64_t)(stats.participants - stats.detached));
    metric_set_at(M_PARTICIPANTS, PARTICIPANTS_DETACHED, (int64_t)stats.detached);
    metric_set(M_FANOUT_QUEUE_DEPTH, (int64_t)(stats.pending_updates + node_pending_items(process->node)));
    metric_set_at(M_ROOM_MEMORY, ROOM_MEMORY_RECENT_EVENTS, (int64_t)stats.ring_bytes);
    metric_set_at(M_ROOM_MEMORY, ROOM_MEMORY_HELD_MESSAGES, (int64_t)stats.held_bytes);
    metric_set_at(M_ROOM_MEMORY, ROOM_MEMORY_ARRIVING_ROOMS, (int64_t)stats.arrival_bytes);
}

/* --- beginning and end ---------------------------------------------------------------------------------------------
 */

static void on_drain_deadline(struct timer *timer, int64_t now_ms)
{
    struct shard_process *process = container_of(timer, struct shard_process, drain_deadline);
    log_error("drain_deadline", log_int("deadline_ms", process->config->drain_deadline_ms),
              log_str("membership", membership_state_name(node_state(process->node))),
              log_str("bus", node_bus_up(process->node) ? "up" : "down"),
              log_str("action", "ends without having left the view"));
    end(process, PROGRAM_EXIT_FAILED);
}

/* Leaves once nothing is left to hand over, or nobody is there to take it; in time for the deadline in any case. */
static void on_drain_timer(struct timer *timer, int64_t now_ms)
{
    struct shard_process *process = container_of(timer, struct shard_process, drain_timer);
    enum drain_progress progress = node_drain_progress(process->node);
    size_t rooms = shard_stats(process->shard).rooms;
    bool done = progress == DRAIN_DONE && rooms == 0;
    if (!done && progress != DRAIN_NO_HEIR && now_ms < process->leave_by_ms) {
        timer_set(loop_timers(process->loop), timer, now_ms + DRAIN_POLL_MS);
        return;
    }
    if (rooms > 0)
        log_warn("leaving_with_rooms", log_uint("rooms", rooms),
                 log_str("reason", progress == DRAIN_NO_HEIR ? "no other shard stays to take them"
                                                             : "they could not all be handed over in time"));
    node_leave(process->node);
}

/* `deadline_ms` 0: the configured one. */
static void drain(struct shard_process *process, uint32_t deadline_ms)
{
    int64_t now_ms = loop_now_ms(process->loop);
    int64_t within_ms = deadline_ms > 0 ? deadline_ms : process->config->drain_deadline_ms;
    int64_t leave_ms = within_ms / 4 < LEAVE_MAX_MS ? within_ms / 4 : LEAVE_MAX_MS;
    if (process->draining)
        return;
    process->draining = true;
    process->leave_by_ms = now_ms + within_ms - leave_ms;
    log_info("draining", log_uint("rooms", shard_stats(process->shard).rooms), log_int("deadline_ms", within_ms));
    node_drain(process->node, (uint32_t)(within_ms - leave_ms));
    timer_set(loop_timers(process->loop), &process->drain_deadline, now_ms + within_ms);
    on_drain_timer(&process->drain_timer, now_ms);
}

void shard_process_stop(struct shard_process *process, bool at_once)
{
    if (at_once)
        end(process, PROGRAM_EXIT_FAILED);
    else
        drain(process, 0);
}

enum program_exit shard_process_exit(const struct shard_process *process)
{
    return process->exit;
}

static struct shard_options options_from(const struct shard_config *config, const struct node_address *self)
{
    struct shard_options options = {.self = *self, .duplicate = (enum duplicate_policy)config->duplicate};
#define LIMIT(name, def, min, max, unit, help) options.limits.name = (uint32_t)config->limits.name;
#include "shard/limits_table.h"
#undef LIMIT
    bool valid = cluster_parse_seed(config->cluster.placement_seed, &options.seed);
    assert(valid); /* checked when it was loaded */
    return options;
}

void shard_process_reload(struct shard_process *process, const struct shard_config *config)
{
    struct shard_options options = options_from(config, node_self(process->node));
    shard_reconfigure(process->shard, &options);
    process->config = config;
    log_set_level((enum log_level)config->cluster.log_level);
    log_info("reloaded");
}

static void open_shard(struct shard_process *process, const struct node_address *self)
{
    static const struct shard_actions actions = {.send = on_send,
                                                 .flush_soon = on_flush_soon,
                                                 .wall_ms = on_wall_ms,
                                                 .reported = on_reported,
                                                 .marker_of = on_marker_of,
                                                 .set_marker = on_set_marker};
    struct shard_options options = options_from(process->config, self);
    process->shard = shard_new(&options, loop_timers(process->loop), &actions, process);
}

/* A new incarnation: its place in the cluster, and its rooms. */
static void open_parts(struct shard_process *process)
{
    static const struct node_handlers node_handlers = {.item = on_item,
                                                       .gap = on_gap,
                                                       .view = on_view,
                                                       .bus = on_bus,
                                                       .state = on_state,
                                                       .progress = on_progress,
                                                       .load = on_load,
                                                       .admin = on_admin,
                                                       .fatal = on_fatal};
    struct node_options options;
    cluster_node_options(&process->config->cluster, NODE_SHARD, &options);
    options.weight = (uint32_t)process->config->weight;
    open_shard(process, &options.self);
    process->node = node_open(process->loop, &options, &node_handlers, process);
    log_info("shard_started", log_str("version", SBX_VERSION), log_str("id", options.self.id),
             log_hex("incarnation", options.self.incarnation), log_str("admin", process->config->cluster.admin_listen));
}

/* The others hold this incarnation for gone, and its rooms have new owners: it begins again as another one. */
static void on_rejoin(struct loop_task *task)
{
    struct shard_process *process = container_of(task, struct shard_process, rejoin_task);
    log_warn("removed_from_view", log_str("action", "drops its rooms and joins as a new incarnation"));
    node_close(&process->node);
    shard_free(&process->shard);
    open_parts(process);
}

struct shard_process *shard_process_open(struct loop *loop, const struct shard_config *config)
{
    static const struct admin_http_handlers admin_handlers = {.ready = on_ready, .collect = on_collect};
    struct shard_process *process = mem_new(struct shard_process);
    char error[ADMIN_ERROR_MAX];

    process->loop = loop;
    process->config = config;
    arena_init(&process->reply_arena, REPLY_ARENA_MAX);
    loop_task_init(&process->flush_task, on_flush);
    timer_init(&process->drain_timer, on_drain_timer);
    timer_init(&process->drain_deadline, on_drain_deadline);
    give_back_init(&process->give_back, loop_timers(loop));
    loop_task_init(&process->rejoin_task, on_rejoin);
    open_parts(process);
    process->admin =
        admin_http_open(loop, config->cluster.admin_listen, TIER_SHARD, &admin_handlers, process, error, sizeof error);
    if (process->admin == NULL) {
        log_error("admin_listener_failed", log_str("reason", error));
        shard_process_close(&process);
        return NULL;
    }
    return process;
}

void shard_process_close(struct shard_process **process_ptr)
{
    struct shard_process *process = *process_ptr;
    if (process == NULL)
        return;
    admin_http_close(&process->admin);
    node_close(&process->node);
    shard_free(&process->shard);
    timer_cancel(loop_timers(process->loop), &process->drain_timer);
    timer_cancel(loop_timers(process->loop), &process->drain_deadline);
    give_back_done(&process->give_back);
    loop_task_cancel(&process->flush_task);
    loop_task_cancel(&process->rejoin_task);
    arena_done(&process->reply_arena);
    free(process);
    *process_ptr = NULL;
}
