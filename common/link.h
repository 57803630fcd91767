/* Links: sequenced, batched streams of items between this process and each of its peers, over a bus that may lose
 * anything.
 *
 * A link is one direction between two incarnations. Every envelope on it has the next number; a receiver that sees a
 * gap is told so (handlers.gap) and repairs what the lost items may have said, by positions and wanted states; nothing
 * is retransmitted at this level. An idle envelope repeats the last number once a second while the link is in use, so
 * that a lost last message shows too.
 *
 * Pace: at once when the link is quiet; under load one envelope per link per tick, tick = max(5 ms, peers / 3,000 s),
 * so that a process publishes fewer than 3,000 messages a second however many peers it has. Where processors are short
 * the tick is up to 10 ms longer: what an envelope costs (three wake-ups, in as many processes) is then shared by more
 * items, and everybody waits less for a processor than the tick adds.
 *
 * Bounds: an envelope holds up to LINK_ENVELOPE_MAX bytes of items; what waits for one link is bounded by
 * LINK_PENDING_MAX, beyond which the newest items are dropped and counted and the number skipped, so that the peer
 * notices. Messages that must wait for a newer view are held up to LINK_HELD_MAX bytes, and
 * what the same sender sends meanwhile waits behind them.
 *
 * Free of I/O: publishing is a handler, time is an argument. Threading: loop thread.
 */
#ifndef SBX_COMMON_LINK_H
#define SBX_COMMON_LINK_H

#include "common/ids.h"
#include "common/payload.h"
#include "common/view.h"
#include "proto/cluster.pb-c.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LINK_SCHEMA_VERSION = 1 + SBX_SCHEMA_RAISE,
    LINK_ENVELOPE_MAX = 256 * 1024,
    LINK_PENDING_MAX = 16 * 1024 * 1024,
    LINK_HELD_MAX = 4 * 1024 * 1024,
    LINK_IDLE_MS = 1000,
    LINK_IN_USE_MS = 30 * 1000, /* idle envelopes go on for so long after the last item */
    LINK_FORGET_MS = 10 * 60 * 1000,
    LINK_SUBJECT_MAX = 128,
};

enum link_verdict {
    LINK_ACCEPT,
    LINK_REFUSE, /* the sender is not in the view, or something is wrong with it: counted and dropped */
    LINK_HOLD,   /* the sender knows a newer view: keep the message until links_release() */
};

struct link_handlers {
    /* 0, or -1 when the bus is down: the envelope is lost, the peer will notice by the number. */
    int (*publish)(void *ctx, const char *subject, struct payload *envelope);
    /* Judges a sender by the view, before anything of its message is used. */
    enum link_verdict (*judge)(void *ctx, const struct node_address *from, struct view_number view);
    /* One item; borrowed for the call. Views are handed over when they come, and again in their turn. */
    void (*item)(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item, int64_t now_ms);
    /* Something that `from` sent was lost. Called before the items that showed it. */
    void (*gap)(void *ctx, const struct node_address *from, int64_t now_ms);
    /* The newest view of this process, for the envelopes that it sends. */
    struct view_number (*view)(void *ctx);
};

struct links;

struct links *links_new(const struct node_address *self, const struct link_handlers *handlers, void *ctx);
void links_free(struct links **links);

/* Serialises an item once, in the form in which any number of envelopes can carry it. */
struct payload *link_pack_item(const Signalbox__Cluster__V1__Item *item);
/* Queues a packed item for `to`; takes a reference of its own. */
void links_send(struct links *links, const struct node_address *to, struct payload *item, int64_t now_ms);
/* Packs, queues and drops: for items with one receiver. */
void links_send_item(struct links *links, const struct node_address *to, const Signalbox__Cluster__V1__Item *item,
                     int64_t now_ms);
/* How much of its time the caller works or waits for a processor, in thousandths; 0 to begin with. */
void links_set_busy(struct links *links, uint32_t permille);
/* Publishes what is due. Call at the end of every turn; returns the milliseconds until it must be called again, or -1.
 */
int64_t links_flush(struct links *links, int64_t now_ms);
void links_receive(struct links *links, const void *data, size_t size, int64_t now_ms);
/* Judges the held messages again: after a new view. */
void links_release(struct links *links, int64_t now_ms);
/* A peer has left the view: drops what waits for it. The numbers of both directions are kept for LINK_FORGET_MS,
 * because a gateway may come back into the view as the same incarnation, and its end of the link goes on counting. */
void links_forget(struct links *links, uint64_t incarnation, int64_t now_ms);
/* Bytes and items that wait to be published. */
size_t links_pending_items(const struct links *links);

/* The inbox of a process: where links_send() publishes to. */
void node_inbox(const struct node_address *node, char subject[LINK_SUBJECT_MAX]);
bool node_address_equal(const struct node_address *a, const struct node_address *b);

#endif
