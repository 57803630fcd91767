/* Who is in which room: decided before anything is connected, from the options and the seed alone. Free of I/O. */
#ifndef SBX_LOAD_PLAN_H
#define SBX_LOAD_PLAN_H

#include "tests/load/options.h"

/* Of rooms whose size is drawn. */
enum { ROOM_SMALLEST = 2, ROOM_LARGEST = 50 };

/* How many of the participants worker `index` has. */
unsigned plan_share(const struct swarm_options *options, unsigned index);

/* Cuts `count` participants into rooms: of the fixed size, or by a geometric distribution with the wanted mean, cut off
 * at the largest size, which leaves nobody alone. Writes at most `count` sizes and returns how many rooms there are.
 * `uniform` draws from [0, 1). */
unsigned plan_rooms(const struct swarm_options *options, unsigned count, double (*uniform)(void *ctx), void *ctx,
                    uint8_t *ret_sizes);

#endif
