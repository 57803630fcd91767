/* Bus messages, all the way into a membership's, a shard's and a gateway's decisions. What comes from the bus was sent
 * by a process of the cluster, perhaps of another version: it must be refused, not crash anybody. */
#include "common/link.h"
#include "common/view_exchange.h"
#include "gateway/gateway.h"
#include "shard/shard.h"
#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char secret[] = "0123456789abcdef0123456789abcdef";
static const struct node_address shard_address = {.kind = NODE_SHARD, .id = "shard-1", .incarnation = 7};
static const struct node_address gateway_address = {.kind = NODE_GATEWAY, .id = "gateway-1", .incarnation = 5};

struct world {
    struct timer_wheel wheel;
    struct links *links;
    struct membership *membership;
    struct shard *shard;
    struct gateway *gateway;
};

static int on_publish(void *ctx, const char *subject, struct payload *envelope)
{
    return 0;
}

static enum link_verdict on_judge(void *ctx, const struct node_address *from, struct view_number view)
{
    return view.generation > 1 ? LINK_HOLD : LINK_ACCEPT;
}

static void on_item(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                    int64_t now_ms)
{
    struct world *world = ctx;
    if (view_exchange_item(world->membership, world->links, from, item, now_ms))
        return;
    shard_item(world->shard, &gateway_address, item, now_ms);
    gateway_item(world->gateway, &shard_address, item, now_ms);
}

static void on_gap(void *ctx, const struct node_address *from, int64_t now_ms)
{
    struct world *world = ctx;
    gateway_gap(world->gateway, &shard_address, now_ms);
}

static struct view_number on_view(void *ctx)
{
    return (struct view_number){1, 1};
}

static void on_to_gateway(void *ctx, const struct node_address *gateway, struct payload *item)
{
}

static void on_flush_soon(void *ctx)
{
}

static int64_t on_wall_ms(void *ctx)
{
    return INT64_C(1800000000000);
}

static struct view_number on_reported(void *ctx)
{
    return (struct view_number){1, 1};
}

static struct view_number on_marker_of(void *ctx, uint64_t incarnation)
{
    return (struct view_number){1, 1};
}

static void on_set_marker(void *ctx, struct view_number marker, int64_t now_ms)
{
}

static void on_send(void *ctx, void *transport, struct outmsg *message, enum message_class class)
{
}

static void on_close(void *ctx, void *transport, uint16_t code, const char *reason)
{
}

static void on_to_shard(void *ctx, const struct node_address *shard, struct payload *item)
{
}

static void on_nothing(void *ctx)
{
}

static void on_read(void *ctx, uint64_t seq)
{
}

static void on_append(void *ctx, const struct view *entry, uint64_t expected_last_seq)
{
}

static void on_announce(void *ctx, const struct view *view)
{
}

static void on_probe(void *ctx, const struct node_address *node)
{
}

static void on_ask(void *ctx, const struct node_address *whom, struct view_number after)
{
}

static void on_new_view(void *ctx, struct view *old, struct view *view, int64_t now_ms)
{
    struct world *world = ctx;
    shard_view(world->shard, view, now_ms);
    gateway_view(world->gateway, view, now_ms);
}

static void on_state(void *ctx, enum membership_state state, int64_t now_ms)
{
}

static int64_t on_wall_s(void *ctx)
{
    return 1800000000;
}

static void on_progress(void *ctx, int64_t now_ms)
{
}

static struct membership *open_membership(struct world *world)
{
    static const struct membership_actions actions = {.read_last = on_nothing,
                                                      .read = on_read,
                                                      .append = on_append,
                                                      .announce = on_announce,
                                                      .heartbeat = on_nothing,
                                                      .probe = on_probe,
                                                      .ask = on_ask,
                                                      .view = on_new_view,
                                                      .state = on_state,
                                                      .wall_s = on_wall_s,
                                                      .progress = on_progress};
    return membership_new(&shard_address, "", 100, &membership_default_times, &world->wheel, &actions, world);
}

static void open_world(struct world *world)
{
    static const struct shard_actions shard_actions = {.send = on_to_gateway,
                                                       .flush_soon = on_flush_soon,
                                                       .wall_ms = on_wall_ms,
                                                       .reported = on_reported,
                                                       .marker_of = on_marker_of,
                                                       .set_marker = on_set_marker};
    static const struct gateway_actions gateway_actions = {
        .send = on_send, .close = on_close, .to_shard = on_to_shard, .wall_ms = on_wall_ms};
    struct shard_options shard_options = {.self = shard_address, .limits = shard_default_limits};
    struct gateway_options gateway_options = {.self = gateway_address, .limits = gateway_default_limits};
    struct jwt_keyring *ring = jwt_keyring_new(10);
    struct token_keys keys;
    struct view *view = view_copy(NULL);
    struct view_node node = {.id = "shard-1", .incarnation = 7, .weight = 100, .full_weight = 100};

    timer_wheel_init(&world->wheel, 0);
    token_key_init(&keys, secret, NULL);
    world->shard = shard_new(&shard_options, &world->wheel, &shard_actions, world);
    world->gateway = gateway_new(&gateway_options, ring, &keys, &world->wheel, &gateway_actions, world);
    jwt_keyring_unref(&ring);
    view->number = (struct view_number){1, 1};
    struct view_node gateway = {.incarnation = gateway_address.incarnation};
    memcpy(gateway.id, gateway_address.id, sizeof gateway.id);
    view_put_shard(view, &node);
    view_put_gateway(view, &gateway);
    world->membership = open_membership(world);
    membership_learn(world->membership, view, 0);
    gateway_bus(world->gateway, true, 0);
    view_unref(&view);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct link_handlers handlers = {
        .publish = on_publish, .judge = on_judge, .item = on_item, .gap = on_gap, .view = on_view};
    struct world world;
    open_world(&world);
    world.links = links_new(&shard_address, &handlers, &world);
    links_receive(world.links, data, size, 1);
    links_receive(world.links, data, size, 2); /* a repeat */
    links_release(world.links, 3);
    links_flush(world.links, 10);
    shard_flush(world.shard, 10);
    timer_wheel_advance(&world.wheel, 60 * 1000);
    shard_flush(world.shard, 60 * 1000);
    membership_free(&world.membership);
    links_free(&world.links);
    gateway_free(&world.gateway);
    shard_free(&world.shard);
    return 0;
}
