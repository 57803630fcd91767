#include "common/link.h"

#include "common/arena.h"
#include "common/bus.h"
#include "common/codec.h"
#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <uthash.h>

enum {
    PEERS_PER_MS = 3,
    TICK_MIN_MS = 5,
    TICK_BUSY_MS = 10,
    BUSY_PERMILLE = 500,
    ARENA_MAX = 8 * 1024 * 1024,
    ITEMS_FIELD = 10
};

struct pending {
    struct list link;
    struct payload *item;
};

struct link_peer {
    struct node_address address;
    char subject[LINK_SUBJECT_MAX];

    uint64_t sent_seq;
    struct list pending; /* struct pending */
    size_t pending_bytes, pending_items;
    bool skipped; /* something was dropped: the next envelope's number must show it */
    int64_t next_send_ms;
    int64_t last_sent_ms;
    int64_t last_used_ms; /* an item went either way */

    uint64_t received_seq;
    int64_t forgotten_ms; /* when it left the view; -1 while it is there */

    UT_hash_handle hh; /* by incarnation */
};

struct held {
    struct list link;
    uint64_t incarnation; /* of the sender */
    struct payload *bytes;
};

struct links {
    struct node_address self;
    struct link_handlers handlers;
    void *ctx;
    struct link_peer *peers;
    size_t pending_items;
    int64_t busy_ms; /* by which ticks are longer */
    struct list held;
    size_t held_bytes;
    struct arena arena;
};

void node_inbox(const struct node_address *node, char subject[LINK_SUBJECT_MAX])
{
    if (node->kind == NODE_SHARD)
        snprintf(subject, LINK_SUBJECT_MAX, "sbx.shard.%s.%016" PRIx64, node->id, node->incarnation);
    else
        snprintf(subject, LINK_SUBJECT_MAX, "sbx.gw.%s.%016" PRIx64 ".in", node->id, node->incarnation);
}

bool node_address_equal(const struct node_address *a, const struct node_address *b)
{
    return a->kind == b->kind && a->incarnation == b->incarnation && strcmp(a->id, b->id) == 0;
}

struct links *links_new(const struct node_address *self, const struct link_handlers *handlers, void *ctx)
{
    struct links *links = mem_new(struct links);
    links->self = *self;
    links->handlers = *handlers;
    links->ctx = ctx;
    list_init(&links->held);
    arena_init(&links->arena, ARENA_MAX);
    return links;
}

static void drop_pending(struct links *links, struct link_peer *peer)
{
    list_for_each_safe(pos, &peer->pending) {
        struct pending *pending = container_of(pos, struct pending, link);
        payload_unref(&pending->item);
        free(pending);
    }
    list_init(&peer->pending);
    links->pending_items -= peer->pending_items;
    peer->pending_items = peer->pending_bytes = 0;
}

static void peer_free(struct links *links, struct link_peer *peer)
{
    drop_pending(links, peer);
    HASH_DEL(links->peers, peer);
    free(peer);
}

static void held_free(struct links *links, struct held *held)
{
    list_remove(&held->link);
    links->held_bytes -= held->bytes->size;
    payload_unref(&held->bytes);
    free(held);
}

void links_free(struct links **links_ptr)
{
    struct links *links = *links_ptr;
    if (links == NULL)
        return;
    struct link_peer *peer, *next;
    HASH_ITER(hh, links->peers, peer, next)
        peer_free(links, peer);
    list_for_each_safe(pos, &links->held)
        held_free(links, container_of(pos, struct held, link));
    arena_done(&links->arena);
    free(links);
    *links_ptr = NULL;
}

static struct link_peer *find_peer(struct links *links, const struct node_address *address)
{
    struct link_peer *peer;
    HASH_FIND(hh, links->peers, &address->incarnation, sizeof address->incarnation, peer);
    return peer != NULL && node_address_equal(&peer->address, address) ? peer : NULL;
}

static struct link_peer *open_peer(struct links *links, const struct node_address *address)
{
    struct link_peer *peer = find_peer(links, address);
    if (peer != NULL) {
        peer->forgotten_ms = -1;
        return peer;
    }
    peer = mem_new(struct link_peer);
    peer->forgotten_ms = -1;
    peer->address = *address;
    node_inbox(address, peer->subject);
    list_init(&peer->pending);
    HASH_ADD(hh, links->peers, address.incarnation, sizeof peer->address.incarnation, peer);
    return peer;
}

struct payload *link_pack_item(const Signalbox__Cluster__V1__Item *item)
{
    size_t size = protobuf_c_message_get_packed_size(&item->base);
    uint8_t prefix[1 + 10];
    size_t prefix_size = 0;
    prefix[prefix_size++] = ITEMS_FIELD << 3 | 2;
    size_t left = size;
    do {
        prefix[prefix_size++] = (left & 0x7f) | (left > 0x7f ? 0x80 : 0);
        left >>= 7;
    } while (left != 0);
    struct payload *payload = payload_new(prefix_size + size);
    memcpy(payload->data, prefix, prefix_size);
    protobuf_c_message_pack(&item->base, payload->data + prefix_size);
    return payload;
}

void links_send(struct links *links, const struct node_address *to, struct payload *item, int64_t now_ms)
{
    struct link_peer *peer = open_peer(links, to);
    peer->last_used_ms = now_ms;
    if (peer->pending_bytes + item->size > LINK_PENDING_MAX) {
        peer->skipped = true;
        metric_add(M_LINK_ITEMS_DROPPED, 1);
        return;
    }
    struct pending *pending = mem_alloc(sizeof *pending);
    pending->item = payload_ref(item);
    list_append(&peer->pending, &pending->link);
    peer->pending_bytes += item->size;
    peer->pending_items++;
    links->pending_items++;
}

void links_send_item(struct links *links, const struct node_address *to, const Signalbox__Cluster__V1__Item *item,
                     int64_t now_ms)
{
    struct payload *payload = link_pack_item(item);
    links_send(links, to, payload, now_ms);
    payload_unref(&payload);
}

size_t links_pending_items(const struct links *links)
{
    return links->pending_items;
}

/* One envelope: a header, and as many pending items as fit behind it. */
static void publish_envelope(struct links *links, struct link_peer *peer, bool idle, int64_t now_ms)
{
    Signalbox__Cluster__V1__Envelope envelope = SIGNALBOX__CLUSTER__V1__ENVELOPE__INIT;
    Signalbox__Cluster__V1__ViewNumber number = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    struct view_number view = links->handlers.view(links->ctx);
    number.generation = view.generation;
    number.seq = view.seq;
    envelope.schema_version = LINK_SCHEMA_VERSION;
    envelope.sender = links->self.id;
    envelope.incarnation = links->self.incarnation;
    envelope.kind = (Signalbox__Cluster__V1__NodeKind)links->self.kind;
    envelope.view = &number;
    envelope.idle = idle;
    envelope.link_seq = idle ? peer->sent_seq : ++peer->sent_seq;

    size_t header_size = signalbox__cluster__v1__envelope__get_packed_size(&envelope);
    size_t size = header_size;
    size_t count = 0;
    list_for_each(pos, &peer->pending) {
        size_t item_size = container_of(pos, struct pending, link)->item->size;
        if (idle || (count > 0 && size + item_size > LINK_ENVELOPE_MAX))
            break;
        size += item_size;
        count++;
    }
    struct payload *payload = payload_new(size);
    signalbox__cluster__v1__envelope__pack(&envelope, payload->data);
    size_t used = header_size;
    for (; count > 0; count--) {
        struct pending *pending = list_first(&peer->pending, struct pending, link);
        memcpy(payload->data + used, pending->item->data, pending->item->size);
        used += pending->item->size;
        peer->pending_bytes -= pending->item->size;
        peer->pending_items--;
        links->pending_items--;
        list_remove(&pending->link);
        payload_unref(&pending->item);
        free(pending);
    }
    assert(used == size);
    if (links->handlers.publish(links->ctx, peer->subject, payload) != 0)
        metric_add(M_LINK_ENVELOPES_LOST, 1);
    payload_unref(&payload);
    peer->last_sent_ms = now_ms;
}

void links_set_busy(struct links *links, uint32_t permille)
{
    links->busy_ms = TICK_BUSY_MS * (permille < BUSY_PERMILLE ? permille : BUSY_PERMILLE) / BUSY_PERMILLE;
}

int64_t links_flush(struct links *links, int64_t now_ms)
{
    int64_t tick_ms = HASH_COUNT(links->peers) / PEERS_PER_MS;
    if (tick_ms < TICK_MIN_MS)
        tick_ms = TICK_MIN_MS;
    tick_ms += links->busy_ms;
    int64_t wait_ms = -1;
    struct link_peer *peer, *next;
    HASH_ITER(hh, links->peers, peer, next) {
        int64_t due_ms = -1;
        if (peer->forgotten_ms >= 0) {
            if (now_ms >= peer->forgotten_ms + LINK_FORGET_MS)
                peer_free(links, peer);
            continue;
        }
        if (!list_empty(&peer->pending)) {
            if (now_ms >= peer->next_send_ms) {
                if (peer->skipped) {
                    peer->sent_seq++;
                    peer->skipped = false;
                }
                while (!list_empty(&peer->pending))
                    publish_envelope(links, peer, false, now_ms);
                peer->next_send_ms = now_ms + tick_ms;
            } else {
                due_ms = peer->next_send_ms;
            }
        }
        if (due_ms < 0 && peer->sent_seq > 0 && now_ms < peer->last_used_ms + LINK_IN_USE_MS) {
            if (now_ms >= peer->last_sent_ms + LINK_IDLE_MS)
                publish_envelope(links, peer, true, now_ms);
            due_ms = peer->last_sent_ms + LINK_IDLE_MS;
        }
        if (due_ms >= 0 && (wait_ms < 0 || due_ms - now_ms < wait_ms))
            wait_ms = due_ms - now_ms;
    }
    return wait_ms;
}

static bool is_holding(const struct links *links, uint64_t incarnation)
{
    list_for_each(pos, &links->held)
        if (container_of(pos, struct held, link)->incarnation == incarnation)
            return true;
    return false;
}

static void hold(struct links *links, uint64_t incarnation, const void *data, size_t size)
{
    if (links->held_bytes + size > LINK_HELD_MAX) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_HELD_FULL, 1);
        return;
    }
    struct held *held = mem_alloc(sizeof *held);
    held->incarnation = incarnation;
    held->bytes = payload_from(data, size);
    links->held_bytes += size;
    list_append(&links->held, &held->link);
}

/* True if the envelope is the next one, or later; false if it has been seen. */
static bool advance(struct links *links, struct link_peer *peer, const Signalbox__Cluster__V1__Envelope *envelope,
                    int64_t now_ms)
{
    uint64_t expected = envelope->idle ? peer->received_seq : peer->received_seq + 1;
    if (envelope->link_seq < expected) {
        if (!envelope->idle)
            metric_add(M_LINK_DUPLICATES, 1);
        return false;
    }
    bool gap = envelope->link_seq > expected;
    peer->received_seq = envelope->link_seq;
    if (gap) {
        metric_add(M_LINK_GAPS, 1);
        links->handlers.gap(links->ctx, &peer->address, now_ms);
    }
    return true;
}

static void dispatch(struct links *links, const Signalbox__Cluster__V1__Envelope *envelope, const void *data,
                     size_t size, int64_t now_ms)
{
    struct node_address from = {.kind = (enum node_kind)envelope->kind, .incarnation = envelope->incarnation};
    if (!node_id_valid(envelope->sender) || (from.kind != NODE_GATEWAY && from.kind != NODE_SHARD)) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_MALFORMED, 1);
        return;
    }
    snprintf(from.id, sizeof from.id, "%s", envelope->sender);
    struct view_number view = {0, 0};
    if (envelope->view != NULL)
        view = (struct view_number){envelope->view->generation, envelope->view->seq};

    switch (links->handlers.judge(links->ctx, &from, view)) {
    case LINK_REFUSE:
        metric_add_at(M_BUS_DROPPED, BUS_DROP_STALE_SENDER, 1);
        return;
    case LINK_HOLD:
        /* The view that it is held for may be in it. */
        for (size_t i = 0; i < envelope->n_items; i++)
            if (envelope->items[i]->body_case == SIGNALBOX__CLUSTER__V1__ITEM__BODY_VIEW_REPLY)
                links->handlers.item(links->ctx, &from, envelope->items[i], now_ms);
        hold(links, from.incarnation, data, size);
        return;
    case LINK_ACCEPT:
        if (is_holding(links, from.incarnation)) {
            hold(links, from.incarnation, data, size); /* not before what it sent earlier */
            return;
        }
        break;
    }
    struct link_peer *peer = open_peer(links, &from);
    if (!advance(links, peer, envelope, now_ms))
        return;
    if (envelope->n_items > 0)
        peer->last_used_ms = now_ms;
    for (size_t i = 0; i < envelope->n_items; i++)
        links->handlers.item(links->ctx, &from, envelope->items[i], now_ms);
}

void links_receive(struct links *links, const void *data, size_t size, int64_t now_ms)
{
    char error[128];
    arena_reset(&links->arena);
    Signalbox__Cluster__V1__Envelope *envelope = (Signalbox__Cluster__V1__Envelope *)codec_unpack(
        &signalbox__cluster__v1__envelope__descriptor, data, size, &links->arena, error, sizeof error);
    if (envelope == NULL) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_MALFORMED, 1);
        log_warn("bus_message_malformed", log_str("error", error), log_uint("bytes", size));
        return;
    }
    if (envelope->schema_version > LINK_SCHEMA_VERSION + 1) {
        metric_add_at(M_BUS_DROPPED, BUS_DROP_SCHEMA, 1);
        log_warn("bus_schema_unknown", log_str("sender", envelope->sender),
                 log_uint("schema_version", envelope->schema_version));
        return;
    }
    dispatch(links, envelope, data, size, now_ms);
}

void links_release(struct links *links, int64_t now_ms)
{
    struct list held = LIST_INIT(held);
    list_splice(&held, &links->held);
    list_for_each_safe(pos, &held) {
        struct held *message = container_of(pos, struct held, link);
        struct payload *bytes = payload_ref(message->bytes);
        held_free(links, message);
        links_receive(links, bytes->data, bytes->size, now_ms);
        payload_unref(&bytes);
    }
}

void links_forget(struct links *links, uint64_t incarnation, int64_t now_ms)
{
    struct link_peer *peer;
    HASH_FIND(hh, links->peers, &incarnation, sizeof incarnation, peer);
    if (peer == NULL)
        return;
    peer->skipped |= !list_empty(&peer->pending);
    drop_pending(links, peer);
    peer->forgotten_ms = now_ms;
}
