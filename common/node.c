#include "common/node.h"

#include "common/arena.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/cpu_use.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/view_exchange.h"
#include "common/viewlog.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERVER_ID_MAX = 64, MESSAGE_ARENA_MAX = 2 * 1024 * 1024, MAX_SUBSCRIPTIONS = 4, CONCURRENCES_MAX = 64 };

struct node {
    struct loop *loop;
    struct node_address self;
    struct node_handlers handlers;
    void *ctx;

    struct bus *bus;
    struct viewlog *viewlog;
    struct membership *membership;
    struct links *links;
    struct loop_task flush_task;
    struct loop_task release_task;
    struct timer flush_timer;
    struct cpu_use cpu_use;
    struct arena arena;

    int64_t opened_ms;
    bool bus_up;
    bool was_active; /* a refusal after that is the server's trouble, which somebody may mend */
    char server_id[SERVER_ID_MAX];
    uint64_t beat;
    char name[NODE_ID_MAX + 32];
    char echo[LINK_SUBJECT_MAX];
    char subjects[MAX_SUBSCRIPTIONS][LINK_SUBJECT_MAX];
    const char *subscriptions[MAX_SUBSCRIPTIONS];
    size_t subscription_count;
};

/* --- links ------------------------------------------------------------------------------------------------------- */

static int on_link_publish(void *ctx, const char *subject, struct payload *envelope)
{
    struct node *node = ctx;
    if (!membership_may_act(node->membership, loop_now_ms(node->loop)))
        return -1;
    return bus_publish(node->bus, subject, envelope, 0);
}

static enum link_verdict on_link_judge(void *ctx, const struct node_address *from, struct view_number number)
{
    struct node *node = ctx;
    membership_heard(node->membership, from, number, loop_now_ms(node->loop));
    struct view *view = membership_view(node->membership);
    if (view == NULL || view_number_compare(number, view->number) > 0)
        return LINK_HOLD;
    return view_lists(view, from) ? LINK_ACCEPT : LINK_REFUSE;
}

static void on_link_item(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                         int64_t now_ms)
{
    struct node *node = ctx;
    if (!view_exchange_item(node->membership, node->links, from, item, now_ms))
        node->handlers.item(node->ctx, from, item, now_ms);
}

static void on_link_gap(void *ctx, const struct node_address *from, int64_t now_ms)
{
    struct node *node = ctx;
    log_info("link_gap", log_str("peer", from->id));
    node->handlers.gap(node->ctx, from, now_ms);
}

static struct view_number on_link_view(void *ctx)
{
    struct node *node = ctx;
    struct view *view = membership_view(node->membership);
    return view != NULL ? view->number : (struct view_number){0, 0};
}

static void on_flush(struct loop_task *task)
{
    struct node *node = container_of(task, struct node, flush_task);
    int64_t now_ms = loop_now_ms(node->loop);
    links_set_busy(node->links, cpu_use_permille(&node->cpu_use, now_ms));
    int64_t wait_ms = links_flush(node->links, now_ms);
    if (wait_ms >= 0)
        timer_set(loop_timers(node->loop), &node->flush_timer, now_ms + (wait_ms > 0 ? wait_ms : 1));
}

static void on_flush_timer(struct timer *timer, int64_t now_ms)
{
    struct node *node = container_of(timer, struct node, flush_timer);
    loop_defer(node->loop, &node->flush_task);
}

/* Held messages are judged again outside of any message's handling, because links_receive() does not nest. */
static void on_release(struct loop_task *task)
{
    struct node *node = container_of(task, struct node, release_task);
    links_release(node->links, loop_now_ms(node->loop));
}

/* --- membership -------------------------------------------------------------------------------------------------- */

static struct view *unpack_entry(enum viewlog_result result, uint64_t seq, const uint8_t *data, size_t size)
{
    struct view *view = result == VIEWLOG_OK ? view_unpack(data, size, seq) : NULL;
    if (result == VIEWLOG_OK && view == NULL)
        log_error("view_entry_malformed", log_uint("seq", seq), log_uint("bytes", size));
    return view;
}

static void on_read_done(void *ctx, enum viewlog_result result, uint64_t seq, const uint8_t *data, size_t size,
                         const char *detail)
{
    struct node *node = ctx;
    struct view *view = unpack_entry(result, seq, data, size);
    if (result == VIEWLOG_OK) {
        result = view != NULL ? VIEWLOG_OK : VIEWLOG_FAILED;
    } else if (result == VIEWLOG_REFUSED && membership_view(node->membership) == NULL) {
        node->handlers.fatal(node->ctx, detail);
    } else if (result != VIEWLOG_EMPTY) {
        log_warn("view_log_read_failed", log_str("reason", detail));
    }
    membership_read_done(node->membership, result, view, loop_now_ms(node->loop));
    view_unref(&view);
}

static void on_read_last(void *ctx)
{
    struct node *node = ctx;
    viewlog_read_last(node->viewlog, on_read_done, node);
}

static void on_entry_done(void *ctx, enum viewlog_result result, uint64_t seq, const uint8_t *data, size_t size,
                          const char *detail)
{
    struct node *node = ctx;
    struct view *view = unpack_entry(result, seq, data, size);
    if (result == VIEWLOG_OK && view == NULL)
        result = VIEWLOG_GONE; /* what it said is lost, as if it had been truncated */
    else if (result != VIEWLOG_OK)
        log_warn("view_log_read_failed", log_str("reason", detail));
    membership_entry_done(node->membership, result, view, loop_now_ms(node->loop));
    view_unref(&view);
}

static void on_read(void *ctx, uint64_t seq)
{
    struct node *node = ctx;
    viewlog_read(node->viewlog, seq, on_entry_done, node);
}

static void on_append_done(void *ctx, enum viewlog_result result, uint64_t seq, const char *detail)
{
    struct node *node = ctx;
    if (result == VIEWLOG_REFUSED && membership_state(node->membership) == MEMBERSHIP_JOINING)
        node->handlers.fatal(node->ctx, detail);
    else if (result == VIEWLOG_FAILED || result == VIEWLOG_REFUSED)
        log_warn("view_log_append_failed", log_str("reason", detail));
    membership_append_done(node->membership, result, seq, loop_now_ms(node->loop));
}

static void on_append(void *ctx, const struct view *entry, uint64_t expected_last_seq)
{
    struct node *node = ctx;
    struct payload *bytes = view_pack(entry);
    viewlog_append(node->viewlog, bytes->data, bytes->size, expected_last_seq, on_append_done, node);
    payload_unref(&bytes);
}

static void on_announce(void *ctx, const struct view *view)
{
    struct node *node = ctx;
    struct payload *record = view_exchange_pack(view);
    bus_publish(node->bus, "sbx.view", record, 0);
    payload_unref(&record);
}

static void on_ask(void *ctx, const struct node_address *whom, struct view_number after)
{
    struct node *node = ctx;
    view_exchange_ask(node->links, whom, after, loop_now_ms(node->loop));
    loop_defer(node->loop, &node->flush_task);
}

static void on_heartbeat(void *ctx)
{
    struct node *node = ctx;
    Signalbox__Cluster__V1__Heartbeat beat = SIGNALBOX__CLUSTER__V1__HEARTBEAT__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__ViewNumber settled = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Load load = SIGNALBOX__CLUSTER__V1__LOAD__INIT;
    Signalbox__Cluster__V1__Concurrence concurs[CONCURRENCES_MAX], *concur_list[CONCURRENCES_MAX];
    struct view_number view = on_link_view(node);
    number.generation = view.generation;
    number.seq = view.seq;
    beat.schema_version = LINK_SCHEMA_VERSION;
    beat.node = node->self.id;
    beat.incarnation = node->self.incarnation;
    beat.kind = (Signalbox__Cluster__V1__NodeKind)node->self.kind;
    beat.view = &number;
    struct view_number marker = membership_marker(node->membership);
    settled.generation = marker.generation;
    settled.seq = marker.seq;
    beat.settled = &settled;
    beat.n_concurs = membership_concurrences(node->membership, concurs, CONCURRENCES_MAX, loop_now_ms(node->loop));
    for (size_t i = 0; i < beat.n_concurs; i++)
        concur_list[i] = &concurs[i];
    beat.concurs = concur_list;
    beat.nats_server = node->server_id;
    beat.beat = ++node->beat;
    beat.sent_ms = loop_now_ms(node->loop);
    beat.load = &load;
    beat.joining = membership_state(node->membership) < MEMBERSHIP_ACTIVE;
    beat.leaving = membership_state(node->membership) == MEMBERSHIP_LEAVING;
    node->handlers.load(node->ctx, &load);
    char subject[LINK_SUBJECT_MAX];
    snprintf(subject, sizeof subject, "sbx.hb.%s.%s", node->self.kind == NODE_SHARD ? "shard" : "gw", node->self.id);
    struct payload *payload = payload_pack(&beat.base);
    bus_publish(node->bus, subject, payload, 0);
    payload_unref(&payload);
    const char *second_server = viewlog_server(node->viewlog);
    if (second_server[0] == '\0' || strcmp(second_server, node->server_id) == 0)
        return;
    beat.second = true;
    beat.nats_server = (char *)second_server;
    payload = payload_pack(&beat.base);
    viewlog_publish(node->viewlog, subject, payload);
    payload_unref(&payload);
}

static int64_t on_wall_s(void *ctx)
{
    return clock_wall_s();
}

static void on_progress(void *ctx, int64_t now_ms)
{
    struct node *node = ctx;
    node->handlers.progress(node->ctx, now_ms);
}

static void forget_departed(struct node *node, const struct view *old, const struct view *view, int64_t now_ms)
{
    for (size_t i = 0; old != NULL && i < view_node_count(old); i++) {
        struct node_address address = view_node_at(old, i);
        if (!view_lists(view, &address))
            links_forget(node->links, address.incarnation, now_ms);
    }
}

static void on_view(void *ctx, struct view *old, struct view *view, int64_t now_ms)
{
    struct node *node = ctx;
    log_info("view", log_uint("generation", view->number.generation), log_uint("seq", view->number.seq),
             log_uint("shards", view->shard_count), log_uint("gateways", view->gateway_count));
    node->handlers.view(node->ctx, view, now_ms);
    forget_departed(node, old, view, now_ms);
    loop_defer(node->loop, &node->release_task);
}

static void on_state(void *ctx, enum membership_state state, int64_t now_ms)
{
    struct node *node = ctx;
    log_info("membership", log_str("state", membership_state_name(state)));
    node->was_active |= state == MEMBERSHIP_ACTIVE;
    node->handlers.state(node->ctx, state, now_ms);
}

/* --- bus --------------------------------------------------------------------------------------------------------- */

static void on_heartbeat_message(struct node *node, const uint8_t *data, size_t size)
{
    char error[128];
    arena_reset(&node->arena);
    Signalbox__Cluster__V1__Heartbeat *beat = (Signalbox__Cluster__V1__Heartbeat *)codec_unpack(
        &signalbox__cluster__v1__heartbeat__descriptor, data, size, &node->arena, error, sizeof error);
    if (beat == NULL || !node_id_valid(beat->node) || beat->view == NULL) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_MALFORMED, 1);
        return;
    }
    membership_heartbeat(node->membership, beat, loop_now_ms(node->loop));
}

static void on_view_message(struct node *node, const uint8_t *data, size_t size)
{
    struct view *view = view_exchange_unpack(data, size, &node->arena);
    if (view != NULL)
        membership_learn(node->membership, view, loop_now_ms(node->loop));
    view_unref(&view);
}

/* Replies go to tools and to gateways, never to what others listen to. */
static bool is_reply_subject(const char *subject)
{
    return (strncmp(subject, "sbx.tool.", 9) == 0 || strncmp(subject, "sbx.gw.", 7) == 0) &&
           strlen(subject) <= BUS_SUBJECT_MAX && strpbrk(subject, "*> \t\r\n") == NULL;
}

static void reply_node(struct node *node, const Signalbox__Cluster__V1__AdminRequest *request)
{
    static const char *const states[] = {"joining", "joining", "active", "draining", "draining", "suspended"};
    Signalbox__Cluster__V1__AdminReply reply = SIGNALBOX__CLUSTER__V1__ADMIN_REPLY__INIT;
    Signalbox__Cluster__V1__NodeInfo info = SIGNALBOX__CLUSTER__V1__NODE_INFO__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Load load = SIGNALBOX__CLUSTER__V1__LOAD__INIT;
    struct view_number view = on_link_view(node);
    number.generation = view.generation;
    number.seq = view.seq;
    node->handlers.load(node->ctx, &load);
    info.node = node->self.id;
    info.incarnation = node->self.incarnation;
    info.kind = (Signalbox__Cluster__V1__NodeKind)node->self.kind;
    info.version = (char *)SBX_VERSION;
    info.view = &number;
    info.settled = &number;
    info.load = &load;
    info.state = (char *)states[membership_state(node->membership)];
    info.uptime_ms = loop_now_ms(node->loop) - node->opened_ms;
    info.nats_server = node->server_id;
    reply.request_id = request->request_id;
    reply.code = SIGNALBOX__V1__CODE__OK;
    reply.node = &info;
    node_reply(node, request->reply_subject, &reply);
}

static void reply_view(struct node *node, const Signalbox__Cluster__V1__AdminRequest *request)
{
    Signalbox__Cluster__V1__AdminReply reply = SIGNALBOX__CLUSTER__V1__ADMIN_REPLY__INIT;
    Signalbox__Cluster__V1__ViewRecord record = SIGNALBOX__CLUSTER__V1__VIEW_RECORD__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    struct view *view = membership_view(node->membership);
    struct payload *entry = NULL;
    reply.request_id = request->request_id;
    reply.code = view != NULL ? SIGNALBOX__V1__CODE__OK : SIGNALBOX__V1__CODE__NOT_FOUND;
    if (view != NULL) {
        entry = view_pack(view);
        number.generation = view->number.generation;
        number.seq = view->number.seq;
        record.number = &number;
        record.entry = (ProtobufCBinaryData){.len = entry->size, .data = entry->data};
        reply.view = &record;
    }
    node_reply(node, request->reply_subject, &reply);
    payload_unref(&entry);
}

static void on_admin_message(struct node *node, const uint8_t *data, size_t size)
{
    char error[128];
    arena_reset(&node->arena);
    Signalbox__Cluster__V1__AdminRequest *request = (Signalbox__Cluster__V1__AdminRequest *)codec_unpack(
        &signalbox__cluster__v1__admin_request__descriptor, data, size, &node->arena, error, sizeof error);
    if (request == NULL || !is_reply_subject(request->reply_subject)) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_MALFORMED, 1);
        return;
    }
    if (request->request_case == SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_GET_NODE)
        reply_node(node, request);
    else if (request->request_case == SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_GET_VIEW)
        reply_view(node, request);
    else
        node->handlers.admin(node->ctx, request, loop_now_ms(node->loop));
}

static void on_bus_message(void *ctx, const char *subject, const uint8_t *data, size_t size)
{
    struct node *node = ctx;
    if (strncmp(subject, "sbx.hb.", 7) == 0 && size == 0)
        return; /* somebody who starts tries whether it may */
    if (strncmp(subject, "sbx.hb.", 7) == 0)
        on_heartbeat_message(node, data, size);
    else if (strcmp(subject, "sbx.view") == 0)
        on_view_message(node, data, size);
    else if (strncmp(subject, "sbx.admin.", 10) == 0)
        on_admin_message(node, data, size);
    else if (membership_may_act(node->membership, loop_now_ms(node->loop)))
        links_receive(node->links, data, size, loop_now_ms(node->loop));
    else
        metric_add_at(M_BUS_DROPPED, BUS_DROP_FENCED, 1);
    loop_defer(node->loop, &node->flush_task);
}

/* An idle envelope of number 0 says nothing to whoever is there. */
static void on_probe(void *ctx, const struct node_address *address)
{
    struct node *node = ctx;
    Signalbox__Cluster__V1__Envelope envelope = SIGNALBOX__CLUSTER__V1__ENVELOPE__INIT;
    char subject[LINK_SUBJECT_MAX];
    envelope.schema_version = LINK_SCHEMA_VERSION;
    envelope.sender = node->self.id;
    envelope.incarnation = node->self.incarnation;
    envelope.kind = (Signalbox__Cluster__V1__NodeKind)node->self.kind;
    envelope.idle = true;
    node_inbox(address, subject);
    struct payload *payload = payload_pack(&envelope.base);
    bus_publish(node->bus, subject, payload, BUS_WANT_UNREACHABLE);
    payload_unref(&payload);
}

static void on_bus_unreachable(void *ctx, const char *subject)
{
    struct node *node = ctx;
    struct view *view = membership_view(node->membership);
    for (size_t i = 0; view != NULL && i < view_node_count(view); i++) {
        struct node_address address = view_node_at(view, i);
        char inbox[LINK_SUBJECT_MAX];
        node_inbox(&address, inbox);
        if (strcmp(inbox, subject) != 0)
            continue;
        membership_gone(node->membership, address.incarnation, loop_now_ms(node->loop));
        return;
    }
}

static void on_bus_state(void *ctx, enum bus_state state, const char *server_id, const char *detail)
{
    struct node *node = ctx;
    bool up = state == BUS_UP;
    snprintf(node->server_id, sizeof node->server_id, "%s", up && server_id != NULL ? server_id : "");
    viewlog_set_bus_server(node->viewlog, node->server_id);
    if (state == BUS_REFUSED && !node->was_active) {
        node->handlers.fatal(node->ctx, detail);
        return;
    }
    if (up)
        log_info("bus_up", log_str("server", server_id), log_str("detail", detail));
    else
        log_warn("bus_down", log_str("reason", detail));
    if (up == node->bus_up)
        return;
    node->bus_up = up;
    if (!up)
        membership_bus_lost(node->membership);
    node->handlers.bus(node->ctx, up, loop_now_ms(node->loop));
    if (up)
        membership_start(node->membership, loop_now_ms(node->loop));
}

static char *add_subject(struct node *node)
{
    char *subject = node->subjects[node->subscription_count];
    node->subscriptions[node->subscription_count++] = subject;
    return subject;
}

/* What deploy/nats/roles.conf grants to a role, in subjects that nobody uses, and what it must not; the view log
 * shows at once what is missing for it. */
static const struct bus_right gateway_rights[] = {
    {BUS_RIGHT_PUBLISH, "sbx.shard.permission-probe.0", true},
    {BUS_RIGHT_PUBLISH, "sbx.tool.permission-probe", true},
    {BUS_RIGHT_PUBLISH, "sbx.hb.gw.permission-probe", true},
    {BUS_RIGHT_SUBSCRIBE, "sbx.hb.permission-probe", false},
    {BUS_RIGHT_PUBLISH, "sbx.gw.permission-probe.0.in", false},
    {BUS_RIGHT_PUBLISH, "$JS.API.STREAM.DELETE.PERMISSION_PROBE", false},
};
static const struct bus_right shard_rights[] = {
    {BUS_RIGHT_PUBLISH, "sbx.shard.permission-probe.0", true},
    {BUS_RIGHT_PUBLISH, "sbx.gw.permission-probe.0.in", true},
    {BUS_RIGHT_PUBLISH, "sbx.tool.permission-probe", true},
    {BUS_RIGHT_PUBLISH, "sbx.hb.shard.permission-probe", true},
    {BUS_RIGHT_SUBSCRIBE, "sbx.gw.permission-probe.0.in", false},
    {BUS_RIGHT_PUBLISH, "sbx.admin.gw.permission-probe", false},
    {BUS_RIGHT_PUBLISH, "$JS.API.STREAM.DELETE.PERMISSION_PROBE", false},
};

static void choose_subjects(struct node *node)
{
    bool shard = node->self.kind == NODE_SHARD;
    char inbox[LINK_SUBJECT_MAX];
    node_inbox(&node->self, inbox);
    snprintf(add_subject(node), LINK_SUBJECT_MAX, "%s", inbox);
    snprintf(add_subject(node), LINK_SUBJECT_MAX, "sbx.admin.%s.%s", shard ? "shard" : "gw", node->self.id);
    snprintf(add_subject(node), LINK_SUBJECT_MAX, "sbx.view");
    snprintf(add_subject(node), LINK_SUBJECT_MAX, shard ? "sbx.hb.>" : "sbx.hb.shard.*");
    snprintf(node->echo, sizeof node->echo, "sbx.%s.%s.%016" PRIx64 ".echo", shard ? "shard" : "gw", node->self.id,
             node->self.incarnation);
}

/* --- the public face --------------------------------------------------------------------------------------------- */

struct node *node_open(struct loop *loop, const struct node_options *options, const struct node_handlers *handlers,
                       void *ctx)
{
    struct node *node = mem_new(struct node);
    node->loop = loop;
    node->self = options->self;
    node->handlers = *handlers;
    node->ctx = ctx;
    node->opened_ms = loop_now_ms(loop);
    arena_init(&node->arena, MESSAGE_ARENA_MAX);
    loop_task_init(&node->flush_task, on_flush);
    loop_task_init(&node->release_task, on_release);
    timer_init(&node->flush_timer, on_flush_timer);
    cpu_use_init(&node->cpu_use, node->opened_ms);
    choose_subjects(node);

    static const struct link_handlers link_handlers = {.publish = on_link_publish,
                                                       .judge = on_link_judge,
                                                       .item = on_link_item,
                                                       .gap = on_link_gap,
                                                       .view = on_link_view};
    node->links = links_new(&node->self, &link_handlers, node);
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
    node->membership = membership_new(&node->self, options->region, options->weight, &options->times, loop_timers(loop),
                                      &actions, node);

    struct bus_options bus = options->bus;
    snprintf(node->name, sizeof node->name, "signalbox-%s-%s", node->self.kind == NODE_SHARD ? "shard" : "gateway",
             node->self.id);
    bus.name = node->name;
    bus.subscriptions = node->subscriptions;
    bus.subscription_count = node->subscription_count;
    bus.echo_subject = node->echo;
    bus.rights = options->self.kind == NODE_SHARD ? shard_rights : gateway_rights;
    bus.right_count = options->self.kind == NODE_SHARD ? sizeof shard_rights / sizeof shard_rights[0]
                                                       : sizeof gateway_rights / sizeof gateway_rights[0];
    static const struct bus_handlers bus_handlers = {
        .message = on_bus_message, .unreachable = on_bus_unreachable, .state = on_bus_state};
    node->viewlog = viewlog_open(loop, &bus, options->stream_replicas);
    node->bus = bus_open(loop, &bus, &bus_handlers, node);
    return node;
}

void node_close(struct node **node_ptr)
{
    struct node *node = *node_ptr;
    if (node == NULL)
        return;
    links_flush(node->links, loop_now_ms(node->loop));
    bus_close(&node->bus);
    viewlog_close(&node->viewlog);
    membership_free(&node->membership);
    links_free(&node->links);
    loop_task_cancel(&node->flush_task);
    loop_task_cancel(&node->release_task);
    timer_cancel(loop_timers(node->loop), &node->flush_timer);
    cpu_use_done(&node->cpu_use);
    arena_done(&node->arena);
    free(node);
    *node_ptr = NULL;
}

void node_leave(struct node *node)
{
    membership_leave(node->membership, loop_now_ms(node->loop));
}

void node_set_load(struct node *node, const struct membership_load *load)
{
    membership_set_load(node->membership, load, loop_now_ms(node->loop));
}

void node_drain(struct node *node, uint32_t within_ms)
{
    membership_drain(node->membership, within_ms, loop_now_ms(node->loop));
}

enum drain_progress node_drain_progress(const struct node *node)
{
    return membership_drain_progress(node->membership);
}

void node_send(struct node *node, const struct node_address *to, struct payload *item)
{
    links_send(node->links, to, item, loop_now_ms(node->loop));
    loop_defer(node->loop, &node->flush_task);
}

void node_reply(struct node *node, const char *reply_subject, const Signalbox__Cluster__V1__AdminReply *reply)
{
    struct payload *payload = payload_pack(&reply->base);
    bus_publish(node->bus, reply_subject, payload, 0);
    payload_unref(&payload);
}

bool node_may_act(struct node *node)
{
    return membership_may_act(node->membership, loop_now_ms(node->loop));
}

void node_set_marker(struct node *node, struct view_number marker)
{
    membership_set_marker(node->membership, marker, loop_now_ms(node->loop));
}

struct view_number node_reported(const struct node *node)
{
    return membership_reported(node->membership);
}

struct view_number node_marker_of(const struct node *node, uint64_t incarnation)
{
    return membership_marker_of(node->membership, incarnation);
}

bool node_was_replaced(const struct node *node)
{
    return membership_was_replaced(node->membership);
}

bool node_bus_up(const struct node *node)
{
    return node->bus_up;
}

struct view *node_view(const struct node *node)
{
    return membership_view(node->membership);
}

enum membership_state node_state(const struct node *node)
{
    return membership_state(node->membership);
}

const struct node_address *node_self(const struct node *node)
{
    return &node->self;
}

size_t node_pending_items(const struct node *node)
{
    return links_pending_items(node->links);
}
