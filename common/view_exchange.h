/* Views among processes, beside the log: what is announced on `sbx.view`, and what one asks another for when it hears
 * of a newer view than its own. The log may be slow or without a leader; whoever has read it tells the others.
 *
 * Free of I/O: questions and answers are items of links (proto/cluster.proto: ViewRequest, ViewReply), records are
 * bytes. Threading: loop thread.
 */
#ifndef SBX_COMMON_VIEW_EXCHANGE_H
#define SBX_COMMON_VIEW_EXCHANGE_H

#include "common/arena.h"
#include "common/link.h"
#include "common/membership.h"

/* A view as a packed ViewRecord, and back; NULL if it is malformed. `arena` is reset. */
struct payload *view_exchange_pack(const struct view *view);
struct view *view_exchange_unpack(const void *data, size_t size, struct arena *arena);

/* Asks `whom` for all views after this one. */
void view_exchange_ask(struct links *links, const struct node_address *whom, struct view_number after, int64_t now_ms);
/* Answers a question, or learns from an answer; false if the item is neither. */
bool view_exchange_item(struct membership *membership, struct links *links, const struct node_address *from,
                        const Signalbox__Cluster__V1__Item *item, int64_t now_ms);

#endif
