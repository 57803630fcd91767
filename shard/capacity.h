/* How near a shard is to its limits: what membership makes of it is a lower or a higher weight, and the mark in the
 * view that no new rooms are taken here.
 *
 * Threading: pure functions.
 */
#ifndef SBX_SHARD_CAPACITY_H
#define SBX_SHARD_CAPACITY_H

#include "common/membership.h"
#include <stdbool.h>
#include <stdint.h>

struct capacity {
    uint64_t rooms, participants;
    uint64_t queue_depth; /* events and items that wait to be sent */
    uint64_t loop_lag_ms; /* how late timers run, on average */
};

/* Shares of the limits, in percent. */
struct capacity_marks {
    uint32_t high; /* from here on the weight falls */
    uint32_t low;  /* below it rises again */
};

/* `was_full`: what was said before. At a limit a shard is full, and until everything is below the high mark. */
struct membership_load capacity_judge(const struct capacity *used, const struct capacity *limits,
                                      const struct capacity_marks *marks, bool was_full);

#endif
