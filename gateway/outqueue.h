/* What waits to be sent to one client: bounded, in order, and with a rule for what gives way. Free of I/O.
 *
 * Order: P0 to P3 leave in the order in which they came, all four together, because each may build on what went before
 * it (an offer on the join that introduced its sender). P4 leaves after them, in its own order: it is only ever about
 * somebody who is already known, and never worth a wait of anything else.
 *
 * When it gets full (limits count frames in the client's encoding):
 *   P4  a signal that waits is overtaken by its successor (same sender, same key). Beyond its share or the total, the
 *       oldest are dropped; one that would not fit even then is dropped itself.
 *   P3  beyond its share or the total, everything of P3 that waits is dropped, the new one included: a part of it would
 *       be a lie. One pulled snapshot takes its place, which the gateway asks for when it is told of the drop.
 *   P0 to P2 never drop. What they need they take from P4, then from P3; beyond the total the client is too slow.
 * A message that is larger than a limit all by itself passes when nothing else is there.
 *
 * Ownership: holds one reference to each message; every client's references are to the same shared messages. Embedded;
 * a queue of one or none holds no heap memory. Threading: loop thread.
 */
#ifndef SBX_GATEWAY_OUTQUEUE_H
#define SBX_GATEWAY_OUTQUEUE_H

#include "gateway/outmsg.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct outqueue_limits {
    uint32_t total_bytes;
    uint32_t membership_bytes; /* P3's share */
    uint32_t ephemeral_bytes;  /* P4's share */
};

/* Messages in a circle; a slot is a pointer whose lowest bits are the class. A lone message, which is what mostly
 * waits, needs no memory of its own. */
struct outqueue_ring {
    union {
        uintptr_t only;   /* capacity 0 */
        uintptr_t *slots; /* otherwise, as many as the capacity, a power of 2 */
    };
    uint32_t head, count, capacity;
};

struct outqueue {
    struct outqueue_ring ordered;   /* P0 to P3 */
    struct outqueue_ring ephemeral; /* P4 */
    uint32_t bytes;                 /* of all */
    uint32_t membership_bytes, ephemeral_bytes;
};

enum outqueue_result {
    OUTQUEUE_OK = 0,
    OUTQUEUE_SLOW = -1, /* no room for what must not be dropped; it was not queued */
};

/* How many messages gave way. */
struct outqueue_drops {
    uint32_t membership, ephemeral;
};

/* `size` is that of the message's frame in the client's encoding; the same encoding is named throughout a queue's life.
 * Takes a reference of its own. Adds to `drops`. */
enum outqueue_result outqueue_push(struct outqueue *queue, const struct outqueue_limits *limits, enum encoding encoding,
                                   struct outmsg *message, enum message_class class, struct outqueue_drops *drops);
/* The next to be sent, or NULL; the caller owns the reference. */
struct outmsg *outqueue_pop(struct outqueue *queue, enum encoding encoding);
/* Drops all of P4; adds to `drops`. */
void outqueue_drop_ephemeral(struct outqueue *queue, enum encoding encoding, struct outqueue_drops *drops);
/* Drops everything. */
void outqueue_clear(struct outqueue *queue);

static inline bool outqueue_empty(const struct outqueue *queue)
{
    return queue->ordered.count + queue->ephemeral.count == 0;
}

static inline size_t outqueue_count(const struct outqueue *queue)
{
    return (size_t)queue->ordered.count + queue->ephemeral.count;
}

#endif
