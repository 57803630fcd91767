/* What one room may ask of its shard: token buckets by class and by bytes. A room that asks for more slows itself: what
 * can wait waits, what cannot is refused with a time after which to try again, and counted.
 *
 * Limits come from the configuration (`limits.room_*`), scaled by the room's own percentage, which the tokens of those
 * who join it may raise or lower (claim `roomBudgetPercent`; the latest join counts).
 *
 * Free of I/O; threading: loop thread. */
#ifndef SBX_SHARD_BUDGET_H
#define SBX_SHARD_BUDGET_H

#include "common/bucket.h"
#include "shard/shard.h"

/* In the order of the priority classes where there is one. */
enum room_budget_kind {
    BUDGET_JOINS,
    BUDGET_NEGOTIATION, /* P1 */
    BUDGET_CANDIDATES,  /* P2 */
    BUDGET_MEMBERSHIP,  /* P3: reliable messages to the room, changes of participants */
    BUDGET_EPHEMERAL,   /* P4 */
    BUDGET_BYTES,       /* of all classes, as they come in */
    BUDGET_DELIVERY,    /* bytes times members: what the gateways send on */
    BUDGET_COUNT,
};

enum { BUDGET_PERCENT_DEFAULT = 100, BUDGET_PERCENT_MAX = 10000 };

struct room_budget {
    struct bucket buckets[BUDGET_COUNT];
    uint32_t percent;
};

/* What is asked for; the delivery is 0 for what goes to one receiver, or waits until it may be paid. */
struct room_charge {
    enum room_budget_kind kind;
    uint32_t bytes;
    uint64_t delivery_bytes;
};

void budget_init(struct room_budget *budget, const struct shard_limits *limits, int64_t now_ms);
/* 0 = keep what it is. */
void budget_set_percent(struct room_budget *budget, uint32_t percent);
/* Takes all of the charge or nothing. 0 when taken, otherwise the milliseconds until it may be there, with the kind
 * that was short. */
uint32_t budget_take(struct room_budget *budget, const struct shard_limits *limits, const struct room_charge *charge,
                     int64_t now_ms, enum room_budget_kind *ret_short);
/* What signals may have delivered now: they leave half of the saved budget to messages. */
uint64_t budget_spare_delivery(const struct room_budget *budget, const struct shard_limits *limits, int64_t now_ms);
/* Until budget_spare_delivery() reaches `bytes`, or all that it can. */
uint32_t budget_wait_delivery(const struct room_budget *budget, const struct shard_limits *limits, uint64_t bytes,
                              int64_t now_ms);
/* For what has been sent, into debt if need be. */
void budget_pay_delivery(struct room_budget *budget, const struct shard_limits *limits, uint64_t bytes, int64_t now_ms);
/* The name that clients see in throttled.budget. */
const char *budget_name(enum room_budget_kind kind);

#endif
