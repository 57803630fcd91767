#include "common/timer.h"

#include <assert.h>
#include <stddef.h>

/* A timer lives on the level of the highest byte in which its due time differs from the wheel's time, in the slot that
 * this byte names. So a level's slots are all ahead of the wheel's time and below the next level's; the first occupied
 * slot of the lowest occupied level is the next event; and timers of one due time always share a slot, in the order
 * set. Two places are special: the level 0 slot of the wheel's own time takes what is due already, and `far` takes what
 * differs above the highest level. */

enum { LEVEL_BITS = 8, WHEEL_BITS = LEVEL_BITS * TIMER_LEVELS, WORD_BITS = 64 };
_Static_assert(1 << LEVEL_BITS == TIMER_SLOTS, "a slot is a byte of the time");

static unsigned slot_index(int64_t ms, unsigned level)
{
    return (unsigned)((uint64_t)ms >> (level * LEVEL_BITS)) % TIMER_SLOTS;
}

static int64_t round_down(int64_t ms, unsigned bits)
{
    return (int64_t)((uint64_t)ms >> bits << bits);
}

static void insert_by_due(struct list *slot, struct timer *timer)
{
    struct list *pos = slot;
    while (pos->prev != slot && container_of(pos->prev, struct timer, link)->due_ms > timer->due_ms)
        pos = pos->prev;
    list_insert_before(pos, &timer->link);
}

static void wheel_insert(struct timer_wheel *wheel, struct timer *timer)
{
    unsigned level = 0, slot = slot_index(wheel->now_ms, 0);
    if (timer->due_ms <= wheel->now_ms) {
        insert_by_due(&wheel->slots[0][slot], timer);
    } else {
        uint64_t difference = (uint64_t)timer->due_ms ^ (uint64_t)wheel->now_ms;
        level = (WORD_BITS - 1 - (unsigned)__builtin_clzll(difference)) / LEVEL_BITS;
        if (level >= TIMER_LEVELS) {
            list_append(&wheel->far, &timer->link);
            return;
        }
        slot = slot_index(timer->due_ms, level);
        list_append(&wheel->slots[level][slot], &timer->link);
    }
    wheel->occupied[level][slot / WORD_BITS] |= UINT64_C(1) << slot % WORD_BITS;
}

static void mark_empty(struct timer_wheel *wheel, unsigned level, unsigned slot)
{
    wheel->occupied[level][slot / WORD_BITS] &= ~(UINT64_C(1) << slot % WORD_BITS);
}

/* The first occupied slot of a level at or after `from`, -1 if there is none. */
static int find_occupied(const uint64_t occupied[TIMER_SLOTS / WORD_BITS], unsigned from)
{
    for (unsigned word = from / WORD_BITS; word < TIMER_SLOTS / WORD_BITS; word++) {
        uint64_t bits = occupied[word];
        if (word == from / WORD_BITS)
            bits &= ~UINT64_C(0) << from % WORD_BITS;
        if (bits != 0)
            return (int)(word * WORD_BITS) + __builtin_ctzll(bits);
    }
    return -1;
}

struct event {
    int64_t at_ms;
    unsigned level; /* TIMER_LEVELS: the far list */
    unsigned slot;
};

/* What the wheel must do next: run a slot of level 0, or spread a slot of a higher level over the lower ones. */
static bool next_event(const struct timer_wheel *wheel, struct event *ret_event)
{
    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        int slot = find_occupied(wheel->occupied[level], slot_index(wheel->now_ms, level));
        if (slot < 0)
            continue;
        int64_t base_ms = round_down(wheel->now_ms, (level + 1) * LEVEL_BITS);
        *ret_event = (struct event){
            .at_ms = base_ms + ((int64_t)slot << (level * LEVEL_BITS)), .level = level, .slot = (unsigned)slot};
        return true;
    }
    if (list_empty(&wheel->far))
        return false;
    *ret_event = (struct event){.at_ms = round_down(wheel->now_ms, WHEEL_BITS) + (INT64_C(1) << WHEEL_BITS),
                                .level = TIMER_LEVELS};
    return true;
}

void timer_wheel_init(struct timer_wheel *wheel, int64_t now_ms)
{
    assert(now_ms >= 0);
    *wheel = (struct timer_wheel){.now_ms = now_ms};
    list_init(&wheel->far);
    for (unsigned level = 0; level < TIMER_LEVELS; level++)
        for (unsigned slot = 0; slot < TIMER_SLOTS; slot++)
            list_init(&wheel->slots[level][slot]);
}

/* Moves the wheel's time on and everything that is due by then to `due`, in order. */
static void collect_due(struct timer_wheel *wheel, int64_t now_ms, struct list *due)
{
    struct event event;
    while (next_event(wheel, &event) && event.at_ms <= now_ms) {
        wheel->now_ms = event.at_ms;
        if (event.level == 0) {
            list_splice(due, &wheel->slots[0][event.slot]);
            mark_empty(wheel, 0, event.slot);
            continue;
        }
        struct list spread = LIST_INIT(spread);
        if (event.level < TIMER_LEVELS) {
            list_splice(&spread, &wheel->slots[event.level][event.slot]);
            mark_empty(wheel, event.level, event.slot);
        } else {
            list_splice(&spread, &wheel->far);
        }
        while (!list_empty(&spread)) {
            struct timer *timer = list_first(&spread, struct timer, link);
            list_remove(&timer->link);
            wheel_insert(wheel, timer);
        }
    }
    wheel->now_ms = now_ms;
}

int64_t timer_wheel_advance(struct timer_wheel *wheel, int64_t now_ms)
{
    int64_t before_ms = wheel->now_ms;
    if (now_ms < before_ms)
        now_ms = before_ms;
    struct list due = LIST_INIT(due);
    collect_due(wheel, now_ms, &due);
    if (list_empty(&due))
        return -1;
    int64_t first_ms = list_first(&due, struct timer, link)->due_ms;
    while (!list_empty(&due)) {
        struct timer *timer = list_first(&due, struct timer, link);
        list_remove(&timer->link);
        wheel->count--;
        timer->cb(timer, now_ms);
    }
    return now_ms - (first_ms > before_ms ? first_ms : before_ms);
}

int64_t timer_wheel_wait_ms(const struct timer_wheel *wheel, int64_t now_ms)
{
    struct event event;
    if (!next_event(wheel, &event))
        return -1;
    return event.at_ms > now_ms ? event.at_ms - now_ms : 0;
}

void timer_init(struct timer *timer, timer_cb cb)
{
    *timer = (struct timer){.cb = cb};
    list_init(&timer->link);
}

void timer_set(struct timer_wheel *wheel, struct timer *timer, int64_t due_ms)
{
    timer_cancel(wheel, timer);
    timer->due_ms = due_ms;
    wheel_insert(wheel, timer);
    wheel->count++;
}

void timer_cancel(struct timer_wheel *wheel, struct timer *timer)
{
    if (!timer_pending(timer))
        return;
    /* The last of its slot has the slot itself on both sides; on the far list or among those being run it is no slot.
     */
    uintptr_t first = (uintptr_t)&wheel->slots[0][0], neighbour = (uintptr_t)timer->link.next;
    if (timer->link.next == timer->link.prev && neighbour >= first && neighbour < first + sizeof(wheel->slots)) {
        unsigned index = (unsigned)((neighbour - first) / sizeof(struct list));
        mark_empty(wheel, index / TIMER_SLOTS, index % TIMER_SLOTS);
    }
    list_remove(&timer->link);
    wheel->count--;
}
