#include "shard/capacity.h"

/* What is used most, in percent of its limit. */
static uint64_t most_used(const struct capacity *used, const struct capacity *limits)
{
    const uint64_t shares[] = {used->rooms * 100 / limits->rooms, used->participants * 100 / limits->participants,
                               used->queue_depth * 100 / limits->queue_depth,
                               used->loop_lag_ms * 100 / limits->loop_lag_ms};
    uint64_t most = 0;
    for (unsigned i = 0; i < sizeof shares / sizeof shares[0]; i++)
        most = shares[i] > most ? shares[i] : most;
    return most;
}

struct membership_load capacity_judge(const struct capacity *used, const struct capacity *limits,
                                      const struct capacity_marks *marks, bool was_full)
{
    uint64_t percent = most_used(used, limits);
    return (struct membership_load){.empty = used->rooms == 0,
                                    .full = percent >= 100 || (was_full && percent >= marks->high),
                                    .pressure = percent >= marks->high ? PRESSURE_HIGH
                                                : percent < marks->low ? PRESSURE_LOW
                                                                       : PRESSURE_STEADY};
}
