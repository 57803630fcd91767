/* Priority classes of what goes to clients, and the accounting of what gave way. What the classes promise is in
 * ARCHITECTURE.md ("Classes"). */
#ifndef SBX_COMMON_MESSAGE_CLASS_H
#define SBX_COMMON_MESSAGE_CLASS_H

#include "common/metrics.h"

/* Most important first; METRIC_CLASSES in the same order. */
enum message_class {
    CLASS_CONTROL,     /* P0 */
    CLASS_NEGOTIATION, /* P1 */
    CLASS_CANDIDATES,  /* P2 */
    CLASS_MEMBERSHIP,  /* P3 */
    CLASS_EPHEMERAL,   /* P4 */
    CLASS_COUNT,
};

/* Why an update was dropped: label values of M_UPDATES_DROPPED_REASON. */
enum drop_reason {
    DROP_ROOM_BUDGET,    /* the room was over its budget */
    DROP_ROOM_QUEUE,     /* too many of the room waited to be published */
    DROP_RECEIVER_AWAY,  /* directed to somebody without a connection */
    DROP_CLIENT_QUEUE,   /* the client does not read fast enough */
    DROP_GATEWAY_MEMORY, /* the gateway is short of memory */
    DROP_CLIENT_BUDGET,  /* the sender's connection was over its budget */
};

static inline void count_dropped(enum message_class class, enum drop_reason reason, uint64_t n)
{
    if (n == 0)
        return;
    metric_add_at(M_UPDATES_DROPPED, class, n);
    metric_add_at(M_UPDATES_DROPPED_REASON, reason, n);
}

#endif
