#include "tests/load/plan.h"
#include <math.h>

unsigned plan_share(const struct swarm_options *options, unsigned index)
{
    return options->participants / options->processes + (index < options->participants % options->processes);
}

static unsigned draw_size(double mean, double uniform)
{
    if (mean <= ROOM_SMALLEST)
        return ROOM_SMALLEST;
    double stop = 1 / (mean - ROOM_SMALLEST + 1);
    double size = ROOM_SMALLEST + floor(log1p(-uniform) / log1p(-stop));
    return size < ROOM_LARGEST ? (unsigned)size : ROOM_LARGEST;
}

unsigned plan_rooms(const struct swarm_options *options, unsigned count, double (*uniform)(void *ctx), void *ctx,
                    uint8_t *ret_sizes)
{
    unsigned rooms = 0;
    while (count > 0) {
        unsigned size = options->room_size_fixed;
        if (size == 0)
            size = draw_size(options->room_size_mean, uniform(ctx));
        if (size > count)
            size = count;
        if (options->room_size_fixed == 0 && count - size == 1)
            size += size < ROOM_LARGEST ? 1 : -1u;
        ret_sizes[rooms++] = (uint8_t)size;
        count -= size;
    }
    return rooms;
}
