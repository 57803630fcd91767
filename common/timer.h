/* A hierarchical timer wheel: set and cancel in O(1), no allocation, millisecond resolution.
 *
 * Free of I/O: whoever owns the wheel advances it with the time it lives in, so the simulator drives the very same
 * timers as the loop. Timers are embedded in their objects; cancel is idempotent. A callback may set or cancel any
 * timer, its own included, and may free the object that its timer is embedded in.
 * Model: Varghese & Lauck 1987, "Hashed and hierarchical timing wheels"; 4 levels of 256 slots cover 49 days, and
 * what is further away waits on a list that is looked at every 49 days.
 */
#ifndef SBX_COMMON_TIMER_H
#define SBX_COMMON_TIMER_H

#include "common/list.h"
#include <stdbool.h>
#include <stdint.h>

struct timer;
typedef void (*timer_cb)(struct timer *timer, int64_t now_ms);

struct timer {
    struct list link;
    int64_t due_ms;
    timer_cb cb;
};

enum { TIMER_LEVELS = 4, TIMER_SLOTS = 256 };

struct timer_wheel {
    int64_t now_ms; /* everything due at or before this has run */
    uint64_t count;
    struct list slots[TIMER_LEVELS][TIMER_SLOTS];
    struct list far;                                   /* beyond the highest level */
    uint64_t occupied[TIMER_LEVELS][TIMER_SLOTS / 64]; /* one bit per non-empty slot, to find the next due quickly */
};

void timer_wheel_init(struct timer_wheel *wheel, int64_t now_ms);
/* Runs everything that is due, in order of due time (ties: in the order set). What a callback sets runs at a later
 * advance at the earliest. Returns how many milliseconds late the first one ran, -1 if nothing was due; lateness counts
 * from the previous advance at the earliest, so that a due time in the past is not a late loop. A time before the
 * wheel's own counts as the wheel's own. */
int64_t timer_wheel_advance(struct timer_wheel *wheel, int64_t now_ms);
/* Milliseconds until the wheel must be advanced again (it may be early, never late); -1 if no timer is set. */
int64_t timer_wheel_wait_ms(const struct timer_wheel *wheel, int64_t now_ms);

void timer_init(struct timer *timer, timer_cb cb);
/* (Re)arms; a due time in the past runs at the next advance. */
void timer_set(struct timer_wheel *wheel, struct timer *timer, int64_t due_ms);
void timer_cancel(struct timer_wheel *wheel, struct timer *timer);
static inline bool timer_pending(const struct timer *timer)
{
    return list_linked(&timer->link);
}

#endif
