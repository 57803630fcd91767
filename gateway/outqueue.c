#include "gateway/outqueue.h"

#include "common/mem.h"
#include "common/metrics.h"
#include <assert.h>
#include <stdlib.h>

enum { RING_MIN = 4, CLASS_BITS = 7 };

static_assert(CLASS_COUNT <= CLASS_BITS + 1, "a class fits beside a pointer");

static uintptr_t slot_make(struct outmsg *message, enum message_class class)
{
    return (uintptr_t)message | class;
}

static struct outmsg *slot_message(uintptr_t slot)
{
    return (struct outmsg *)(slot & ~(uintptr_t)CLASS_BITS);
}

static enum message_class slot_class(uintptr_t slot)
{
    return slot & CLASS_BITS;
}

static uintptr_t *ring_at(struct outqueue_ring *ring, uint32_t i)
{
    return ring->capacity == 0 ? &ring->only : &ring->slots[(ring->head + i) & (ring->capacity - 1)];
}

static void ring_release(struct outqueue_ring *ring)
{
    if (ring->capacity > 0)
        free(ring->slots);
}

static void ring_grow(struct outqueue_ring *ring)
{
    uint32_t capacity = ring->capacity > 0 ? 2 * ring->capacity : RING_MIN;
    uintptr_t *slots = mem_alloc(capacity * sizeof(*slots));
    for (uint32_t i = 0; i < ring->count; i++)
        slots[i] = *ring_at(ring, i);
    ring_release(ring);
    *ring = (struct outqueue_ring){.slots = slots, .count = ring->count, .capacity = capacity};
}

static void ring_push(struct outqueue_ring *ring, uintptr_t slot)
{
    if (ring->count == (ring->capacity > 0 ? ring->capacity : 1))
        ring_grow(ring);
    ring->count++;
    *ring_at(ring, ring->count - 1) = slot;
}

static void ring_release_if_empty(struct outqueue_ring *ring)
{
    if (ring->count > 0)
        return;
    ring_release(ring);
    *ring = (struct outqueue_ring){0};
}

static uintptr_t ring_pop(struct outqueue_ring *ring)
{
    uintptr_t slot = *ring_at(ring, 0);
    ring->head++;
    ring->count--;
    ring_release_if_empty(ring);
    return slot;
}

static uint32_t frame_size(struct outmsg *message, enum encoding encoding)
{
    return outmsg_frame(message, encoding)->size;
}

/* Takes a message that has left its ring off the books. */
static void forget(struct outqueue *queue, enum encoding encoding, uintptr_t slot)
{
    uint32_t size = frame_size(slot_message(slot), encoding);
    queue->bytes -= size;
    if (slot_class(slot) == CLASS_MEMBERSHIP)
        queue->membership_bytes -= size;
    if (slot_class(slot) == CLASS_EPHEMERAL)
        queue->ephemeral_bytes -= size;
}

static void drop_oldest_ephemeral(struct outqueue *queue, enum encoding encoding, struct outqueue_drops *drops)
{
    uintptr_t slot = ring_pop(&queue->ephemeral);
    forget(queue, encoding, slot);
    struct outmsg *message = slot_message(slot);
    outmsg_unref(&message);
    drops->ephemeral++;
}

static void drop_membership(struct outqueue *queue, enum encoding encoding, struct outqueue_drops *drops)
{
    struct outqueue_ring *ring = &queue->ordered;
    uint32_t kept = 0, count = ring->count;

    for (uint32_t i = 0; i < count; i++) {
        uintptr_t slot = *ring_at(ring, i);
        if (slot_class(slot) != CLASS_MEMBERSHIP) {
            *ring_at(ring, kept++) = slot;
            continue;
        }
        forget(queue, encoding, slot);
        struct outmsg *message = slot_message(slot);
        outmsg_unref(&message);
        drops->membership++;
    }
    ring->count = kept;
    ring_release_if_empty(ring);
}

/* What is queued in the place of a signal that waits and of this message: the latest of each; or this message. */
static struct outmsg *overtake(struct outqueue *queue, enum encoding encoding, struct outmsg *message)
{
    struct outqueue_ring *ring = &queue->ephemeral;
    uint32_t overtaken;
    if (ring->count == 0)
        return outmsg_ref(message);
    uintptr_t last = *ring_at(ring, ring->count - 1);
    struct outmsg *older = slot_message(last), *both = outmsg_coalesce(older, message, &overtaken);
    if (both == NULL)
        return outmsg_ref(message);
    metric_add(M_SIGNALS_COALESCED, overtaken);
    forget(queue, encoding, last);
    ring->count--;
    outmsg_unref(&older);
    return both;
}

static bool fits(uint32_t used_bytes, uint32_t size, uint32_t limit_bytes)
{
    return used_bytes == 0 || (size <= limit_bytes && used_bytes <= limit_bytes - size);
}

static enum outqueue_result make_room_ordered(struct outqueue *queue, const struct outqueue_limits *limits,
                                              enum encoding encoding, uint32_t size, struct outqueue_drops *drops)
{
    while (!fits(queue->bytes, size, limits->total_bytes) && queue->ephemeral.count > 0)
        drop_oldest_ephemeral(queue, encoding, drops);
    if (!fits(queue->bytes, size, limits->total_bytes) && queue->membership_bytes > 0)
        drop_membership(queue, encoding, drops);
    return fits(queue->bytes, size, limits->total_bytes) ? OUTQUEUE_OK : OUTQUEUE_SLOW;
}

static bool make_room_membership(struct outqueue *queue, const struct outqueue_limits *limits, enum encoding encoding,
                                 uint32_t size, struct outqueue_drops *drops)
{
    while (!fits(queue->bytes, size, limits->total_bytes) && queue->ephemeral.count > 0)
        drop_oldest_ephemeral(queue, encoding, drops);
    if (fits(queue->bytes, size, limits->total_bytes) && fits(queue->membership_bytes, size, limits->membership_bytes))
        return true;
    drop_membership(queue, encoding, drops);
    drops->membership++;
    return false;
}

static bool make_room_ephemeral(struct outqueue *queue, const struct outqueue_limits *limits, enum encoding encoding,
                                uint32_t size, struct outqueue_drops *drops)
{
    while (queue->ephemeral.count > 0 && !(fits(queue->bytes, size, limits->total_bytes) &&
                                           fits(queue->ephemeral_bytes, size, limits->ephemeral_bytes)))
        drop_oldest_ephemeral(queue, encoding, drops);
    if (fits(queue->bytes, size, limits->total_bytes))
        return true;
    drops->ephemeral++;
    return false;
}

static void push_ephemeral(struct outqueue *queue, const struct outqueue_limits *limits, enum encoding encoding,
                           struct outmsg *message, struct outqueue_drops *drops)
{
    struct outmsg *latest = overtake(queue, encoding, message);
    uint32_t size = frame_size(latest, encoding);

    if (make_room_ephemeral(queue, limits, encoding, size, drops)) {
        queue->bytes += size;
        queue->ephemeral_bytes += size;
        ring_push(&queue->ephemeral, slot_make(latest, CLASS_EPHEMERAL));
    } else {
        ring_release_if_empty(&queue->ephemeral);
        outmsg_unref(&latest);
    }
}

enum outqueue_result outqueue_push(struct outqueue *queue, const struct outqueue_limits *limits, enum encoding encoding,
                                   struct outmsg *message, enum message_class class, struct outqueue_drops *drops)
{
    if (class == CLASS_EPHEMERAL) {
        push_ephemeral(queue, limits, encoding, message, drops);
        return OUTQUEUE_OK;
    }
    uint32_t size = frame_size(message, encoding);
    if (class == CLASS_MEMBERSHIP) {
        if (!make_room_membership(queue, limits, encoding, size, drops))
            return OUTQUEUE_OK;
        queue->membership_bytes += size;
    } else if (make_room_ordered(queue, limits, encoding, size, drops) != OUTQUEUE_OK) {
        return OUTQUEUE_SLOW;
    }
    queue->bytes += size;
    ring_push(&queue->ordered, slot_make(outmsg_ref(message), class));
    return OUTQUEUE_OK;
}

struct outmsg *outqueue_pop(struct outqueue *queue, enum encoding encoding)
{
    struct outqueue_ring *ring = queue->ordered.count > 0 ? &queue->ordered : &queue->ephemeral;
    if (ring->count == 0)
        return NULL;
    uintptr_t slot = ring_pop(ring);
    forget(queue, encoding, slot);
    return slot_message(slot);
}

void outqueue_drop_ephemeral(struct outqueue *queue, enum encoding encoding, struct outqueue_drops *drops)
{
    while (queue->ephemeral.count > 0)
        drop_oldest_ephemeral(queue, encoding, drops);
}

static void ring_clear(struct outqueue_ring *ring)
{
    while (ring->count > 0) {
        struct outmsg *message = slot_message(ring_pop(ring));
        outmsg_unref(&message);
    }
}

void outqueue_clear(struct outqueue *queue)
{
    ring_clear(&queue->ordered);
    ring_clear(&queue->ephemeral);
    *queue = (struct outqueue){0};
}
