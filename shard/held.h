/* Directed messages for a member whose connection is lost: kept within bounds, and passed on when it is back. Their
 * senders repeat them anyway; this saves a call the wait for their timers, which have doubled meanwhile.
 *
 * Free of I/O. Threading: loop thread. */
#ifndef SBX_SHARD_HELD_H
#define SBX_SHARD_HELD_H

#include "common/payload.h"
#include <stddef.h>

enum {
    HELD_MESSAGES_MAX = 64,        /* for one member */
    HELD_BYTES_MAX = 256 * 1024,   /* likewise */
    HELD_ALL_BYTES_MAX = 64 << 20, /* for all members of a shard */
};

struct held;

/* Positions in the metric's label. */
enum held_outcome { HELD_KEPT, HELD_REPEATED, HELD_FULL, HELD_PASSED_ON };

/* Keeps a reference to a packed item, in the order of coming; what is there already is not kept twice. `held` is made
 * when it is NULL; `all_bytes` is the shard's sum. */
void held_add(struct held **held, struct payload *item, size_t *all_bytes);
/* Gives the items to `pass_on` (NULL: forgets them) and ends: nulls the caller's pointer. NULL-safe. */
void held_take(struct held **held, size_t *all_bytes, void (*pass_on)(void *ctx, struct payload *item), void *ctx);

#endif
