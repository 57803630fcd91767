/* A process's connection to the cluster: the bus, the view log, its membership and its links, put together once for
 * gateways and shards.
 *
 * Threading: loop thread; the bus and the view log have threads of their own behind their interfaces.
 */
#ifndef SBX_COMMON_NODE_H
#define SBX_COMMON_NODE_H

#include "common/bus.h"
#include "common/link.h"
#include "common/loop.h"
#include "common/membership.h"
#include "common/view.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct node;

struct node_options {
    struct node_address self;
    const char *region;
    uint32_t weight;
    struct bus_options bus; /* servers and credentials; the node fills in name, subscriptions and echo */
    unsigned stream_replicas;
    struct membership_times times;
};

struct node_handlers {
    void (*item)(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item, int64_t now_ms);
    void (*gap)(void *ctx, const struct node_address *from, int64_t now_ms);
    /* A newer view is in force; borrowed. In the log's order from the last settled one on, without a gap
     * unless entries were lost. */
    void (*view)(void *ctx, struct view *view, int64_t now_ms);
    void (*bus)(void *ctx, bool up, int64_t now_ms);
    void (*state)(void *ctx, enum membership_state state, int64_t now_ms);
    /* Shards: what the marker waits for may have come. */
    void (*progress)(void *ctx, int64_t now_ms);
    /* Fills in what the heartbeat says of this process's load. */
    void (*load)(void *ctx, Signalbox__Cluster__V1__Load *load);
    /* Requests about more than the node itself (GetNode and GetView are answered here). The callee answers with
     * node_reply(), now or later. */
    void (*admin)(void *ctx, const Signalbox__Cluster__V1__AdminRequest *request, int64_t now_ms);
    /* Nothing can begin (credentials or permissions refused at the start): the process must end with this text. */
    void (*fatal)(void *ctx, const char *text);
};

struct node *node_open(struct loop *loop, const struct node_options *options, const struct node_handlers *handlers,
                       void *ctx);
void node_close(struct node **node);
/* Asks to leave the view; the state handler hears LEFT. */
void node_leave(struct node *node);

/* Shards: membership_set_load() and the like. */
void node_set_load(struct node *node, const struct membership_load *load);
void node_drain(struct node *node, uint32_t within_ms);
enum drain_progress node_drain_progress(const struct node *node);

void node_send(struct node *node, const struct node_address *to, struct payload *item);
void node_reply(struct node *node, const char *reply_subject, const Signalbox__Cluster__V1__AdminReply *reply);

/* Shards: whether this process is sure enough of its place to act on rooms. While it is not, nothing of its links is
 * taken in or let out; the gaps that this leaves are repaired afterwards. */
bool node_may_act(struct node *node);
/* Gateways: all reports up to this view have been acknowledged. Shards: no room is where it does not belong in it. */
void node_set_marker(struct node *node, struct view_number marker);
/* Shards: the newest view of which every gateway has reported what it holds. */
struct view_number node_reported(const struct node *node);
/* Shards: what another shard has said of itself. */
struct view_number node_marker_of(const struct node *node, uint64_t incarnation);
/* In state REMOVED: whether another process has taken this one's id, rather than the others having held it for gone. */
bool node_was_replaced(const struct node *node);
bool node_bus_up(const struct node *node);
/* Borrowed; NULL before the first. */
struct view *node_view(const struct node *node);
enum membership_state node_state(const struct node *node);
const struct node_address *node_self(const struct node *node);
size_t node_pending_items(const struct node *node);

#endif
