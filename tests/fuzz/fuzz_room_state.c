/* A room that is handed over: the packed RoomState of a whole and undamaged handoff, up to its installation and what
 * follows from it. It was written by a shard of perhaps another version: it is taken or refused, and crashes nobody. */
#include "common/codec.h"
#include "shard/shard.h"
#include <sodium.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef Signalbox__Cluster__V1__Item Item;

static const struct node_address self = {.kind = NODE_SHARD, .id = "shard-1", .incarnation = 7};
static const struct node_address sender = {.kind = NODE_SHARD, .id = "shard-2", .incarnation = 8};

static void on_send(void *ctx, const struct node_address *to, struct payload *item)
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
    return (struct view_number){1, 2};
}

static struct view_number on_marker_of(void *ctx, uint64_t incarnation)
{
    return (struct view_number){1, 2};
}

static void on_set_marker(void *ctx, struct view_number marker, int64_t now_ms)
{
}

static struct shard *open_shard(struct timer_wheel *wheel)
{
    static const struct shard_actions actions = {.send = on_send,
                                                 .flush_soon = on_flush_soon,
                                                 .wall_ms = on_wall_ms,
                                                 .reported = on_reported,
                                                 .marker_of = on_marker_of,
                                                 .set_marker = on_set_marker};
    struct shard_options options = {.self = self, .limits = shard_default_limits};
    struct view_node owner = {.id = "shard-1", .incarnation = 7, .weight = 100, .full_weight = 100};
    struct view_node leaving = {.id = "shard-2", .incarnation = 8, .full_weight = 100, .draining = true};
    struct view_node gateway = {.id = "gateway-1", .incarnation = 5};
    struct view *view = view_copy(NULL);
    timer_wheel_init(wheel, 0);
    struct shard *shard = shard_new(&options, wheel, &actions, NULL);
    view->number = (struct view_number){1, 2}; /* later than the rooms of the corpus */
    view_put_shard(view, &owner);
    view_put_shard(view, &leaving);
    view_put_gateway(view, &gateway);
    shard_view(shard, view, 0);
    view_unref(&view);
    return shard;
}

/* Its frame is what a sender would make of it. */
static void hand_over(struct shard *shard, const uint8_t *data, size_t size)
{
    struct arena arena;
    char error[128], room[ROOM_NAME_MAX + 1] = "room", project[PROJECT_MAX + 1] = "default";
    arena_init(&arena, 1 << 20);
    const Signalbox__Cluster__V1__RoomState *state = (const Signalbox__Cluster__V1__RoomState *)codec_unpack(
        &signalbox__cluster__v1__room_state__descriptor, data, size, &arena, error, sizeof error);
    if (state != NULL && strlen(state->room) < sizeof room && strlen(state->project) < sizeof project) {
        memcpy(room, state->room, strlen(state->room) + 1);
        memcpy(project, state->project, strlen(state->project) + 1);
    }
    arena_done(&arena);

    Signalbox__Cluster__V1__HandoffChunk chunk = SIGNALBOX__CLUSTER__V1__HANDOFF_CHUNK__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct room_key key = room_key_make(project, room);
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, data, size);
    chunk.handoff_id = 1;
    chunk.room_key = (ProtobufCBinaryData){.len = sizeof key.bytes, .data = key.bytes};
    chunk.room = room;
    chunk.count = 1;
    chunk.digest = (ProtobufCBinaryData){.len = sizeof digest, .data = digest};
    chunk.data = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)data};
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_HANDOFF_CHUNK;
    item.handoff_chunk = &chunk;
    shard_item(shard, &sender, &item, 1);
    shard_item(shard, &sender, &item, 2); /* a repeat */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct timer_wheel wheel;
    struct shard *shard = open_shard(&wheel);
    hand_over(shard, data, size);
    shard_flush(shard, 10);
    timer_wheel_advance(&wheel, 60 * 1000);
    shard_flush(shard, 60 * 1000);
    shard_free(&shard);
    return 0;
}
