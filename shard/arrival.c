/* Rooms on their way in: chunks are put together, checked, and installed once.
 *
 * What was decided of a handoff is remembered until its view has settled, so that a chunk that comes late, or a
 * question that is asked again, gets the same answer: nothing is installed twice, and what was not this shard's is not
 * installed later. */
#include "common/codec.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/internal.h"
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES_MAX = 256 * 1024, ROOM_BYTES_MAX = 64 * 1024 * 1024, DECISIONS_MAX = 200000, TAKEN = 5 };
enum chunk_refusal { CHUNK_NO_ROOM, CHUNK_OTHER_HANDOFF, CHUNK_TOO_LARGE, CHUNK_DAMAGED, CHUNK_MALFORMED };
/* An unpacked room is larger than its bytes by pointers and lengths. */
static const size_t unpacked_factor = 24;

typedef Signalbox__Cluster__V1__HandoffChunk Chunk;
typedef Signalbox__Cluster__V1__RoomState RoomState;

struct arrival {
    uint64_t id;
    uint64_t from; /* incarnation */
    struct room_key key;
    uint32_t count, received;
    uint8_t digest[crypto_hash_sha256_BYTES];
    struct buf data;
    UT_hash_handle hh;
};

struct decision {
    uint64_t id;
    Signalbox__Cluster__V1__HandoffReply__Result result;
    struct view_number view;
    UT_hash_handle hh;
};

static void reply(struct shard *shard, const struct node_address *to, const Chunk *chunk,
                  Signalbox__Cluster__V1__HandoffReply__Result result, uint32_t received)
{
    Signalbox__Cluster__V1__HandoffReply body = SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    body.handoff_id = chunk->handoff_id;
    body.room_key = chunk->room_key;
    body.result = result;
    body.received = received;
    body.view = &view;
    view.generation = shard->view->number.generation;
    view.seq = shard->view->number.seq;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_HANDOFF_REPLY;
    item.handoff_reply = &body;
    shard_send(shard, to, &item);
}

static void arrival_free(struct shard *shard, struct arrival *arrival)
{
    HASH_DEL(shard->arrivals, arrival);
    shard->arrival_bytes -= arrival->data.size;
    buf_done(&arrival->data);
    free(arrival);
}

static void decision_free(struct shard *shard, struct decision *decision)
{
    HASH_DEL(shard->decisions, decision);
    free(decision);
}

void arrival_done(struct shard *shard)
{
    struct arrival *arrival, *next_arrival;
    struct decision *decision, *next_decision;
    HASH_ITER(hh, shard->arrivals, arrival, next_arrival)
        arrival_free(shard, arrival);
    HASH_ITER(hh, shard->decisions, decision, next_decision)
        decision_free(shard, decision);
}

void arrival_view(struct shard *shard)
{
    struct arrival *arrival, *next_arrival;
    struct decision *decision, *next_decision;
    HASH_ITER(hh, shard->arrivals, arrival, next_arrival)
        if (!history_lists_shard(&shard->history, arrival->from))
            arrival_free(shard, arrival);
    HASH_ITER(hh, shard->decisions, decision, next_decision)
        if (view_number_compare(decision->view, shard->view->settled) <= 0)
            decision_free(shard, decision);
}

static void decide(struct shard *shard, const struct node_address *from, const Chunk *chunk,
                   Signalbox__Cluster__V1__HandoffReply__Result result)
{
    struct arrival *arrival;
    struct decision *decision = mem_new(struct decision);
    HASH_FIND(hh, shard->arrivals, &chunk->handoff_id, sizeof chunk->handoff_id, arrival);
    if (arrival != NULL)
        arrival_free(shard, arrival);
    if (HASH_COUNT(shard->decisions) >= DECISIONS_MAX) {
        decision_free(shard, shard->decisions); /* its head is the oldest */
        metric_add(M_DECISIONS_FORGOTTEN, 1);
    }
    decision->id = chunk->handoff_id;
    decision->result = result;
    decision->view = shard->view->number;
    HASH_ADD(hh, shard->decisions, id, sizeof decision->id, decision);
    reply(shard, from, chunk, result, chunk->count);
}

/* --- installing -------------------------------------------------------------------------------------------------- */

static bool is_about(const RoomState *state, const struct arrival *arrival, const Chunk *chunk)
{
    if (state->room_key.len != sizeof arrival->key.bytes || strcmp(state->room, chunk->room) != 0 ||
        !name_valid(state->room, ROOM_NAME_MAX))
        return false;
    struct room_key key = room_key_make(state->project, state->room);
    return room_key_equal(&key, &arrival->key);
}

static bool install(struct shard *shard, const struct arrival *arrival, const Chunk *chunk, const RoomState *state,
                    int64_t now_ms)
{
    struct list waiting;
    struct epoch epoch = owner_next_epoch(shard), old_epoch = epoch_from_proto(state->epoch);
    if (!is_about(state, arrival, chunk) || epoch_compare(&epoch, &old_epoch) <= 0)
        return false;
    list_init(&waiting);
    struct room *room = shard_find_any_room(shard, &arrival->key);
    if (room != NULL) {
        /* Held, or an older copy: what was sent out has come back. */
        search_take(room, &waiting);
        session_drop_room(shard, room);
    }
    room = shard_open_room(shard, &arrival->key, state->project, state->room);
    bool taken = transfer_unpack(room, state, &epoch, now_ms);
    if (taken) {
        if (state->settling)
            rebuild_settle(room, state->settling_left_ms, now_ms);
        else
            room_set_state(room, ROOM_LIVE);
        log_info("room_taken_over", log_str("room", room->name), log_uint("participants", room->total));
        rebuild_tell_all(room);
        session_detach_lost(shard, now_ms); /* the gateway of some may have left the view meanwhile */
        metric_add_at(M_HANDOFFS, TAKEN, 1);
    } else {
        session_drop_room(shard, room);
    }
    search_replay(shard, &waiting, now_ms);
    return taken;
}

static void finish(struct shard *shard, const struct node_address *from, struct arrival *arrival, const Chunk *chunk,
                   int64_t now_ms)
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, arrival->data.data, arrival->data.size);
    if (memcmp(digest, arrival->digest, sizeof digest) != 0) {
        log_warn("handoff_damaged", log_str("room", chunk->room), log_str("from", from->id));
        metric_add_at(M_HANDOFF_CHUNKS_REFUSED, CHUNK_DAMAGED, 1);
        arrival_free(shard, arrival);
        reply(shard, from, chunk, SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__RECEIVED, 0);
        return;
    }
    struct arena arena;
    char error[128] = "it is about another room, or holds what no room may hold";
    arena_init(&arena, (arrival->data.size + 4096) * unpacked_factor);
    const RoomState *state =
        (const RoomState *)codec_unpack(&signalbox__cluster__v1__room_state__descriptor, arrival->data.data,
                                        arrival->data.size, &arena, error, sizeof error);
    bool installed = state != NULL && install(shard, arrival, chunk, state, now_ms);
    arena_done(&arena);
    if (!installed) {
        metric_add_at(M_HANDOFF_CHUNKS_REFUSED, CHUNK_MALFORMED, 1);
        log_error("handoff_malformed", log_str("room", chunk->room), log_str("from", from->id),
                  log_str("reason", error), log_str("action", "the room is rebuilt from what gateways report"));
    }
    decide(shard, from, chunk,
           installed ? SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__INSTALLED
                     : SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__REFUSED);
    owner_progress(shard, now_ms);
}

/* --- chunks ------------------------------------------------------------------------------------------------------ */

static bool is_valid(const Chunk *chunk)
{
    return chunk->room_key.len == sizeof((struct room_key *)0)->bytes && chunk->count > 0 &&
           chunk->index < chunk->count && chunk->digest.len == crypto_hash_sha256_BYTES && chunk->data.len > 0 &&
           chunk->data.len <= CHUNK_BYTES_MAX && name_valid(chunk->room, ROOM_NAME_MAX);
}

/* What is here of the room is later than what is sent: it was put together without it. */
static bool is_overtaken(struct shard *shard, const struct room_key *key, const Chunk *chunk)
{
    const struct room *room = shard_find_any_room(shard, key);
    struct epoch epoch = epoch_from_proto(chunk->old_epoch);
    if (room == NULL || room->state == ROOM_HELD || SIM_FAULT(INSTALLED_TWICE))
        return false;
    return room->state != ROOM_FROZEN || epoch_compare(&epoch, &room->epoch) <= 0;
}

static struct arrival *open_arrival(struct shard *shard, const struct node_address *from, const Chunk *chunk)
{
    struct arrival *arrival;
    HASH_FIND(hh, shard->arrivals, &chunk->handoff_id, sizeof chunk->handoff_id, arrival);
    if (arrival != NULL)
        return arrival;
    if (shard->arrival_bytes >= shard->options.limits.arrival_bytes) {
        metric_add_at(M_HANDOFF_CHUNKS_REFUSED, CHUNK_NO_ROOM, 1);
        return NULL; /* what has begun comes first; this one is sent again */
    }
    arrival = mem_new(struct arrival);
    arrival->id = chunk->handoff_id;
    arrival->from = from->incarnation;
    arrival->count = chunk->count;
    memcpy(arrival->key.bytes, chunk->room_key.data, sizeof arrival->key.bytes);
    memcpy(arrival->digest, chunk->digest.data, sizeof arrival->digest);
    HASH_ADD(hh, shard->arrivals, id, sizeof arrival->id, arrival);
    return arrival;
}

void arrival_chunk(struct shard *shard, const struct node_address *from, const Chunk *chunk, int64_t now_ms)
{
    struct room_key key;
    struct decision *decision;
    if (shard->view == NULL || !is_valid(chunk)) {
        metric_add(M_ITEMS_INVALID, 1);
        return;
    }
    metric_add_at(M_HANDOFF_CHUNKS, 1, 1);
    metric_add_at(M_HANDOFF_BYTES, 1, chunk->data.len);
    memcpy(key.bytes, chunk->room_key.data, sizeof key.bytes);
    HASH_FIND(hh, shard->decisions, &chunk->handoff_id, sizeof chunk->handoff_id, decision);
    if (decision != NULL && !SIM_FAULT(INSTALLED_TWICE)) {
        reply(shard, from, chunk, decision->result, chunk->count);
        return;
    }
    if (!owner_is_self(shard, shard->view, &key, chunk->room)) {
        decide(shard, from, chunk, SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__NOT_MINE);
        return;
    }
    if (is_overtaken(shard, &key, chunk)) {
        decide(shard, from, chunk, SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__REFUSED);
        return;
    }
    struct arrival *arrival = open_arrival(shard, from, chunk);
    if (arrival == NULL)
        return;
    if (arrival->from != from->incarnation || arrival->count != chunk->count || !room_key_equal(&arrival->key, &key)) {
        metric_add_at(M_HANDOFF_CHUNKS_REFUSED, CHUNK_OTHER_HANDOFF, 1);
        return;
    }
    if (chunk->index == arrival->received) {
        if (arrival->data.size + chunk->data.len > ROOM_BYTES_MAX) {
            metric_add_at(M_HANDOFF_CHUNKS_REFUSED, CHUNK_TOO_LARGE, 1);
            decide(shard, from, chunk, SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__REFUSED);
            return;
        }
        buf_append(&arrival->data, chunk->data.data, chunk->data.len);
        shard->arrival_bytes += chunk->data.len;
        arrival->received++;
    }
    if (arrival->received < arrival->count)
        reply(shard, from, chunk, SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__RECEIVED, arrival->received);
    else
        finish(shard, from, arrival, chunk, now_ms);
}
