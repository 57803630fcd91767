#include "gateway/process.h"

#include "common/admin_http.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/memory.h"
#include "common/metrics.h"
#include "common/token.h"
#include "gateway/front.h"
#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ERROR_MAX = 512,
    DRAIN_POLL_MS = 50,
    MEMORY_POLL_MS = 100,
    MEMORY_TRIM_MS = 2000,
    MEMORY_CEILING_PERCENT = 85,
    DRAIN_END_MS = 5000, /* for the last sockets to close and the view to let this process go */
};

struct gateway_process {
    struct loop *loop;
    const struct gateway_config *config;
    struct gateway *gateway;
    struct front *front;
    struct node *node;
    struct admin_http *admin;
    struct front_demo_key *demo_keys;
    struct timer drain_timer, drain_deadline;
    struct timer memory_timer;
    uint64_t memory_ceiling_bytes;
    int64_t next_trim_ms;
    enum shed_level shed;
    struct loop_task rejoin_task;
    bool draining, leaving;
    uint32_t drain_within_ms;
    enum program_exit exit;
};

static void end(struct gateway_process *process, enum program_exit exit)
{
    process->exit = exit;
    loop_stop(process->loop);
}

/* --- what the decisions want ---------------------------------------------------------------------------------------
 */

static void on_send(void *ctx, void *transport, struct outmsg *message, enum message_class class)
{
    front_send(transport, message, class);
}

static void on_close(void *ctx, void *transport, uint16_t code, const char *reason)
{
    front_close_client(transport, code, reason);
}

static void on_to_shard(void *ctx, const struct node_address *shard, struct payload *item)
{
    struct gateway_process *process = ctx;
    node_send(process->node, shard, item);
}

static int64_t on_wall_ms(void *ctx)
{
    return clock_wall_ms();
}

/* --- what the cluster says -----------------------------------------------------------------------------------------
 */

static void on_item(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                    int64_t now_ms)
{
    struct gateway_process *process = ctx;
    gateway_item(process->gateway, from, item, now_ms);
    node_set_marker(process->node, gateway_reported(process->gateway));
}

static void on_gap(void *ctx, const struct node_address *from, int64_t now_ms)
{
    struct gateway_process *process = ctx;
    gateway_gap(process->gateway, from, now_ms);
}

static void on_view(void *ctx, struct view *view, int64_t now_ms)
{
    struct gateway_process *process = ctx;
    gateway_view(process->gateway, view, now_ms);
    node_set_marker(process->node, gateway_reported(process->gateway));
}

static void on_bus(void *ctx, bool up, int64_t now_ms)
{
    struct gateway_process *process = ctx;
    gateway_bus(process->gateway, up, now_ms);
}

static void on_state(void *ctx, enum membership_state state, int64_t now_ms)
{
    struct gateway_process *process = ctx;
    if (state == MEMBERSHIP_LEFT && process->leaving) {
        end(process, PROGRAM_EXIT_OK);
    } else if (state == MEMBERSHIP_REMOVED && node_was_replaced(process->node)) {
        log_error("replaced_in_view", log_str("reason", "another process has joined under this node.id"),
                  log_str("action", "ends; give every gateway an id of its own"));
        end(process, PROGRAM_EXIT_FAILED);
    } else if (state == MEMBERSHIP_REMOVED) {
        loop_defer(process->loop, &process->rejoin_task);
    }
}

static void on_load(void *ctx, Signalbox__Cluster__V1__Load *load)
{
    struct gateway_process *process = ctx;
    struct gateway_stats stats = gateway_stats(process->gateway);
    load->rooms = (uint32_t)stats.rooms;
    load->participants = (uint32_t)stats.sessions;
    load->connections = (uint32_t)front_connections(process->front);
    load->queue_depth = (uint32_t)front_queued_messages(process->front);
}

static void drain(struct gateway_process *process, uint32_t deadline_ms);

static void on_admin(void *ctx, const Signalbox__Cluster__V1__AdminRequest *request, int64_t now_ms)
{
    struct gateway_process *process = ctx;
    Signalbox__Cluster__V1__AdminReply reply = SIGNALBOX__CLUSTER__V1__ADMIN_REPLY__INIT;
    if (request->request_case == SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_DRAIN) {
        reply.code = SIGNALBOX__V1__CODE__OK;
        drain(process, request->drain->deadline_ms);
    } else {
        reply.code = SIGNALBOX__V1__CODE__UNKNOWN_MESSAGE;
        reply.message = (char *)"this gateway does not know this request";
    }
    reply.request_id = request->request_id;
    node_reply(process->node, request->reply_subject, &reply);
}

static void on_fatal(void *ctx, const char *text)
{
    struct gateway_process *process = ctx;
    log_error(
        "cannot_start", log_str("reason", text),
        log_str("action", "mend nats.user, nats.password or nats.nkey_seed_file, or what the NATS server permits"));
    end(process, PROGRAM_EXIT_FAILED);
}

/* --- what the operator asks ----------------------------------------------------------------------------------------
 */

bool gateway_process_ready(struct gateway_process *process, char *reason, size_t size)
{
    struct view *view = node_view(process->node);
    if (process->draining)
        snprintf(reason, size, "draining");
    else if (view == NULL && !node_bus_up(process->node))
        snprintf(reason, size, "not connected to NATS; the log says why (bus_connect_failed)");
    else if (node_state(process->node) != MEMBERSHIP_ACTIVE)
        snprintf(reason, size, "not in the view yet: %s", membership_state_name(node_state(process->node)));
    else if (view == NULL || view->shard_count == 0)
        snprintf(reason, size, "the view has no shards");
    else
        return true;
    return false;
}

static bool on_ready(void *ctx, char *reason, size_t size)
{
    return gateway_process_ready(ctx, reason, size);
}

static void on_collect(void *ctx)
{
    struct gateway_process *process = ctx;
    struct gateway_stats stats = gateway_stats(process->gateway);
    metric_set(M_SESSIONS, (int64_t)stats.sessions);
    metric_set(M_GATEWAY_ROOMS, (int64_t)stats.rooms);
    metric_set(M_FANOUT_QUEUE_DEPTH,
               (int64_t)(front_queued_messages(process->front) + node_pending_items(process->node)));
    metric_set(M_CLIENT_QUEUE_BYTES, (int64_t)front_queued_bytes(process->front));
}

/* --- options from the configuration --------------------------------------------------------------------------------
 */

static struct gateway_options gateway_options_from(const struct gateway_config *config, const struct node_address *self)
{
    struct gateway_options options = {.self = *self,
                                      .turn = {.urls = config->turn_urls.values,
                                               .url_count = config->turn_urls.count,
                                               .secret = config->turn_secret,
                                               .ttl_s = (uint32_t)config->turn_ttl_s},
                                      .alternates = config->drain_alternates.values,
                                      .alternate_count = config->drain_alternates.count};
#define LIMIT(name, def, min, max, unit, help) options.limits.name = (uint32_t)config->limits.name;
#include "gateway/limits_table.h"
#undef LIMIT
    bool valid = cluster_parse_seed(config->cluster.placement_seed, &options.seed);
    assert(valid); /* checked when it was loaded */
    return options;
}

static struct jwt_keyring *keyring_from(const struct gateway_config *config, char *error, size_t error_size)
{
    struct jwt_keyring *ring = jwt_keyring_new(config->leeway_s);
    const struct gateway_key *keys = config->keys.items;
    const struct gateway_jwks *jwks = config->jwks.items;
    int result = 0;
    for (size_t i = 0; result == 0 && i < config->keys.count; i++)
        result = jwt_keyring_add_secret(ring, keys[i].project, keys[i].key, keys[i].secret, error, error_size);
    for (size_t i = 0; result == 0 && i < config->jwks.count; i++)
        result = jwt_keyring_add_jwks_file(ring, jwks[i].project, jwks[i].file, error, error_size);
    if (result != 0)
        jwt_keyring_unref(&ring);
    return ring;
}

bool gateway_config_keys_valid(const struct gateway_config *config, char *error, size_t error_size)
{
    struct jwt_keyring *ring = keyring_from(config, error, error_size);
    bool valid = ring != NULL;
    jwt_keyring_unref(&ring);
    return valid;
}

static struct front_options front_options_from(const struct gateway_config *config,
                                               const struct front_demo_key *demo_keys)
{
    return (struct front_options){.listen = config->listen,
                                  .web_root = config->web_root,
                                  .tls = config->tls,
                                  .certificate_file = config->certificate_file,
                                  .key_file = config->key_file,
                                  .ticket_secret = config->cluster.secret,
                                  .allowed_origins = &config->allowed_origins,
                                  .proxy_protocol = config->proxy_protocol,
                                  .trusted_proxies = &config->trusted_proxies,
                                  .forwarded_form = (enum forwarded_form)config->proxy_header,
                                  .max_connections = config->max_connections,
                                  .handshakes_per_address_per_s = config->handshakes_per_address_per_s,
                                  .handshakes_per_s = config->handshakes_per_s,
                                  .previous_ticket_secret = config->cluster.previous_secret,
                                  .connections_per_address = config->connections_per_address,
                                  .message_bytes = (uint32_t)config->limits.message_bytes,
                                  .queue_bytes = (uint32_t)config->queue_bytes,
                                  .ping_interval_ms = (uint32_t)config->ping_interval_ms,
                                  .ping_timeout_ms = (uint32_t)config->ping_timeout_ms,
                                  .demo = config->demo,
                                  .demo_keys = demo_keys,
                                  .demo_key_count = config->keys.count};
}

/* Borrows from the configuration. */
static struct front_demo_key *demo_keys_from(const struct gateway_config *config)
{
    struct front_demo_key *demo_keys = mem_zalloc((config->keys.count + 1) * sizeof *demo_keys);
    const struct gateway_key *keys = config->keys.items;
    for (size_t i = 0; i < config->keys.count; i++)
        demo_keys[i] = (struct front_demo_key){.key_id = keys[i].key, .secret = keys[i].secret};
    return demo_keys;
}

/* --- memory --------------------------------------------------------------------------------------------------------
 */

static uint64_t memory_ceiling(const struct gateway_config *config)
{
    if (config->memory_ceiling_mb > 0)
        return (uint64_t)config->memory_ceiling_mb << 20;
    return memory_limit_bytes() / 100 * MEMORY_CEILING_PERCENT;
}

static void note_shed(struct gateway_process *process, enum shed_level level, uint64_t used_bytes)
{
    static const char *const given_up[] = {"nothing", "new joins", "new joins, signals",
                                           "new joins, signals, the slowest connections"};
    if (level == process->shed)
        return;
    process->shed = level;
    metric_set(M_SHED_LEVEL, level);
    log_warn("memory_short", log_uint("resident_bytes", used_bytes),
             log_uint("ceiling_bytes", process->memory_ceiling_bytes), log_str("given_up", given_up[level]),
             log_str("action", "more gateways, or a higher memory.ceiling_mb"));
}

static void on_memory_timer(struct timer *timer, int64_t now_ms)
{
    struct gateway_process *process = container_of(timer, struct gateway_process, memory_timer);
    uint64_t used_bytes = memory_resident_bytes();
    enum shed_level level = shed_next_level(process->shed, used_bytes, process->memory_ceiling_bytes);
    /* What was freed and not given back counts as resident: first that, then what somebody needs. */
    if (level > SHED_NOTHING && now_ms >= process->next_trim_ms) {
        malloc_trim(0);
        process->next_trim_ms = now_ms + MEMORY_TRIM_MS;
        used_bytes = memory_resident_bytes();
        level = shed_next_level(process->shed, used_bytes, process->memory_ceiling_bytes);
    }
    note_shed(process, level, used_bytes);
    gateway_shed(process->gateway, level);
    front_shed(process->front, level, used_bytes, process->memory_ceiling_bytes);
    timer_set(loop_timers(process->loop), timer, now_ms + MEMORY_POLL_MS);
}

static void watch_memory(struct gateway_process *process)
{
    process->memory_ceiling_bytes = memory_ceiling(process->config);
    metric_set(M_MEMORY_CEILING, (int64_t)process->memory_ceiling_bytes);
    timer_set(loop_timers(process->loop), &process->memory_timer, loop_now_ms(process->loop) + MEMORY_POLL_MS);
}

/* Of connections and handshakes a share is kept for those who come back: a crowd of newcomers must not lock them out.
 */
static void set_capacity(struct gateway_process *process)
{
    const struct gateway_config *config = process->config;
    uint64_t percent = 100 - (uint64_t)config->reserved_percent;
    struct gateway_capacity capacity = {.join_connections =
                                            (size_t)(front_connections_max(process->front) * percent / 100),
                                        .joins_per_s = (uint32_t)((uint64_t)config->handshakes_per_s * percent / 100)};
    gateway_set_capacity(process->gateway, &capacity, loop_now_ms(process->loop));
}

/* --- drain ---------------------------------------------------------------------------------------------------------
 */

static void on_drain_timer(struct timer *timer, int64_t now_ms)
{
    struct gateway_process *process = container_of(timer, struct gateway_process, drain_timer);
    if (front_connections(process->front) > 0 || !gateway_drained(process->gateway)) {
        timer_set(loop_timers(process->loop), timer, now_ms + DRAIN_POLL_MS);
        return;
    }
    process->leaving = true;
    node_leave(process->node);
}

static void on_drain_deadline(struct timer *timer, int64_t now_ms)
{
    struct gateway_process *process = container_of(timer, struct gateway_process, drain_deadline);
    log_error("drain_deadline", log_uint("deadline_ms", process->drain_within_ms),
              log_uint("connections", front_connections(process->front)),
              log_str("membership", membership_state_name(node_state(process->node))),
              log_str("action", "ends with what is left"));
    end(process, PROGRAM_EXIT_FAILED);
}

/* `deadline_ms` 0: the configured one. */
static void drain(struct gateway_process *process, uint32_t deadline_ms)
{
    int64_t now_ms = loop_now_ms(process->loop);
    uint32_t within_ms = deadline_ms > 0 ? deadline_ms : (uint32_t)process->config->drain_deadline_ms;
    uint32_t spread_ms = (uint32_t)process->config->drain_spread_ms;
    if (process->draining)
        return;
    log_info("draining", log_uint("connections", front_connections(process->front)), log_uint("spread_ms", spread_ms),
             log_uint("deadline_ms", within_ms));
    process->draining = true;
    process->drain_within_ms = within_ms;
    front_stop_accepting(process->front);
    gateway_drain(process->gateway, spread_ms < within_ms ? spread_ms : within_ms, within_ms, now_ms);
    timer_set(loop_timers(process->loop), &process->drain_timer, now_ms + DRAIN_POLL_MS);
    timer_set(loop_timers(process->loop), &process->drain_deadline, now_ms + within_ms + DRAIN_END_MS);
}

void gateway_process_stop(struct gateway_process *process, bool at_once)
{
    if (at_once)
        end(process, PROGRAM_EXIT_FAILED);
    else
        drain(process, 0);
}

/* --- beginning, reload and end -------------------------------------------------------------------------------------
 */

static bool open_gateway(struct gateway_process *process, const struct node_address *self)
{
    static const struct gateway_actions actions = {
        .send = on_send, .close = on_close, .to_shard = on_to_shard, .wall_ms = on_wall_ms};
    const struct gateway_config *config = process->config;
    struct gateway_options options = gateway_options_from(config, self);
    struct token_keys token_keys;
    char error[ERROR_MAX];
    struct jwt_keyring *ring = keyring_from(config, error, sizeof error);
    if (ring == NULL) {
        log_error("keys_unusable", log_str("reason", error));
        return false;
    }
    token_key_init(&token_keys, config->cluster.secret, config->cluster.previous_secret);
    process->gateway = gateway_new(&options, ring, &token_keys, loop_timers(process->loop), &actions, process);
    jwt_keyring_unref(&ring);
    return true;
}

static bool open_listeners(struct gateway_process *process)
{
    static const struct admin_http_handlers admin_handlers = {.ready = on_ready, .collect = on_collect};
    const struct gateway_config *config = process->config;
    struct front_options options = front_options_from(config, process->demo_keys);
    char error[ERROR_MAX];
    process->front = front_open(process->loop, &options, process->gateway, error, sizeof error);
    if (process->front == NULL) {
        log_error("client_listener_failed", log_str("reason", error));
        return false;
    }
    process->admin = admin_http_open(process->loop, config->cluster.admin_listen, TIER_GATEWAY, &admin_handlers,
                                     process, error, sizeof error);
    if (process->admin == NULL) {
        log_error("admin_listener_failed", log_str("reason", error));
        return false;
    }
    return true;
}

static void open_node(struct gateway_process *process, const struct node_options *options)
{
    static const struct node_handlers node_handlers = {.item = on_item,
                                                       .gap = on_gap,
                                                       .view = on_view,
                                                       .bus = on_bus,
                                                       .state = on_state,
                                                       .load = on_load,
                                                       .admin = on_admin,
                                                       .fatal = on_fatal};
    process->node = node_open(process->loop, options, &node_handlers, process);
}

/* The shards hold this incarnation for gone: it goes on as another one, with the connections that it has kept. */
static void on_rejoin(struct loop_task *task)
{
    struct gateway_process *process = container_of(task, struct gateway_process, rejoin_task);
    struct node_options options;
    log_warn("removed_from_view", log_str("action", "joins as a new incarnation; connections stay"));
    gateway_bus(process->gateway, false, loop_now_ms(process->loop));
    node_close(&process->node);
    cluster_node_options(&process->config->cluster, NODE_GATEWAY, &options);
    open_node(process, &options);
    gateway_rename(process->gateway, &options.self);
}

struct gateway_process *gateway_process_open(struct loop *loop, const struct gateway_config *config)
{
    struct gateway_process *process = mem_new(struct gateway_process);
    struct node_options options;
    process->loop = loop;
    process->config = config;
    process->demo_keys = demo_keys_from(config);
    timer_init(&process->drain_timer, on_drain_timer);
    timer_init(&process->drain_deadline, on_drain_deadline);
    timer_init(&process->memory_timer, on_memory_timer);
    loop_task_init(&process->rejoin_task, on_rejoin);
    cluster_node_options(&config->cluster, NODE_GATEWAY, &options);
    if (!open_gateway(process, &options.self) || !open_listeners(process)) {
        gateway_process_close(&process);
        return NULL;
    }
    open_node(process, &options);
    watch_memory(process);
    set_capacity(process);
    log_info("gateway_started", log_str("version", SBX_VERSION), log_str("id", options.self.id),
             log_hex("incarnation", options.self.incarnation), log_str("listen", config->listen),
             log_str("admin", config->cluster.admin_listen));
    return process;
}

bool gateway_process_reload(struct gateway_process *process, const struct gateway_config *config)
{
    char error[ERROR_MAX];
    struct jwt_keyring *ring = keyring_from(config, error, sizeof error);
    if (ring == NULL) {
        log_error("reload_failed", log_str("reason", error));
        return false;
    }
    struct front_demo_key *demo_keys = demo_keys_from(config);
    struct front_options front = front_options_from(config, demo_keys);
    if (front_reload(process->front, &front, error, sizeof error) != 0) {
        log_error("reload_failed", log_str("reason", error));
        jwt_keyring_unref(&ring);
        free(demo_keys);
        return false;
    }
    struct gateway_options options = gateway_options_from(config, node_self(process->node));
    struct token_keys token_keys;
    token_key_init(&token_keys, config->cluster.secret, config->cluster.previous_secret);
    gateway_reconfigure(process->gateway, &options, ring, &token_keys);
    jwt_keyring_unref(&ring);
    free(process->demo_keys);
    process->demo_keys = demo_keys;
    process->config = config;
    watch_memory(process);
    set_capacity(process);
    log_set_level((enum log_level)config->cluster.log_level);
    log_info("reloaded");
    return true;
}

void gateway_process_close(struct gateway_process **process_ptr)
{
    struct gateway_process *process = *process_ptr;
    if (process == NULL)
        return;
    /* The front first: the gateway must still be there for the clients that it closes, and the node for what the
     * gateway says of them. */
    if (process->front != NULL)
        front_close(&process->front);
    admin_http_close(&process->admin);
    gateway_free(&process->gateway);
    node_close(&process->node);
    timer_cancel(loop_timers(process->loop), &process->drain_timer);
    timer_cancel(loop_timers(process->loop), &process->drain_deadline);
    timer_cancel(loop_timers(process->loop), &process->memory_timer);
    loop_task_cancel(&process->rejoin_task);
    free(process->demo_keys);
    free(process);
    *process_ptr = NULL;
}

enum program_exit gateway_process_exit(const struct gateway_process *process)
{
    return process->exit;
}
