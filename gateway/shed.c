#include "gateway/shed.h"

enum { HYSTERESIS_PERCENT = 5 };

static const unsigned begins_percent[] = {
    [SHED_NOTHING] = 0, [SHED_JOINS] = 80, [SHED_EPHEMERAL] = 88, [SHED_SLOWEST] = 95};

static uint64_t percent_of(uint64_t bytes, unsigned percent)
{
    return bytes / 100 * percent;
}

enum shed_level shed_next_level(enum shed_level level, uint64_t used_bytes, uint64_t ceiling_bytes)
{
    if (ceiling_bytes == 0)
        return SHED_NOTHING;
    enum shed_level next = SHED_SLOWEST;
    while (next > level && used_bytes < percent_of(ceiling_bytes, begins_percent[next]))
        next--;
    while (next > SHED_NOTHING && next <= level &&
           used_bytes < percent_of(ceiling_bytes, begins_percent[next] - HYSTERESIS_PERCENT))
        next--;
    return next;
}

void shed_count_queue(struct shed_queues *queues, uint32_t queued_bytes)
{
    if (queued_bytes > 0)
        queues->bytes[31 - __builtin_clz(queued_bytes)] += queued_bytes;
}

uint32_t shed_slowest_bytes(const struct shed_queues *queues, uint64_t used_bytes, uint64_t ceiling_bytes)
{
    uint64_t wanted_bytes = percent_of(ceiling_bytes, begins_percent[SHED_SLOWEST] - HYSTERESIS_PERCENT);
    uint64_t excess_bytes = used_bytes > wanted_bytes ? used_bytes - wanted_bytes : 0;
    uint64_t freed_bytes = 0;
    uint32_t from = UINT32_MAX;
    for (int size = SHED_SIZES - 1; size >= 0 && freed_bytes < excess_bytes; size--) {
        if (queues->bytes[size] == 0)
            continue;
        freed_bytes += queues->bytes[size];
        from = UINT32_C(1) << size;
    }
    return from;
}
