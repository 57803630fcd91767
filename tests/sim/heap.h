/* Events of a simulated world in their order: by time, then by when they were pushed.
 *
 * Owns its entries, not what they point to. Threading: one thread. Times are in the caller's milliseconds.
 */
#ifndef SBX_TESTS_SIM_HEAP_H
#define SBX_TESTS_SIM_HEAP_H

#include <stdint.h>
#include <stdlib.h>

struct heap_entry {
    int64_t at_ms;
    uint64_t order;
    void *value;
};

struct heap {
    struct heap_entry *entries;
    size_t count, capacity;
    uint64_t order;
};

/* `order`: that of an earlier push, so that what is put off keeps its place, or 0 for the next. Returns it. */
uint64_t heap_push(struct heap *heap, int64_t at_ms, uint64_t order, void *value);
/* When the first is due; INT64_MAX if there is none. */
int64_t heap_due_ms(const struct heap *heap);
/* The first, which must exist. */
void *heap_pop(struct heap *heap);
/* The caller has popped what there was. */
void heap_done(struct heap *heap);

#endif
