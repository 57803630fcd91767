#include "tests/sim/heap.h"

#include "common/mem.h"
#include <assert.h>
#include <stdbool.h>

static bool earlier(const struct heap_entry *a, const struct heap_entry *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

uint64_t heap_push(struct heap *heap, int64_t at_ms, uint64_t order, void *value)
{
    struct heap_entry entry = {.at_ms = at_ms, .order = order != 0 ? order : ++heap->order, .value = value};
    if (heap->count == heap->capacity) {
        heap->capacity = heap->capacity * 2 + 64;
        heap->entries = mem_realloc(heap->entries, heap->capacity * sizeof *heap->entries);
    }
    size_t i = heap->count++;
    for (; i > 0 && earlier(&entry, &heap->entries[(i - 1) / 2]); i = (i - 1) / 2)
        heap->entries[i] = heap->entries[(i - 1) / 2];
    heap->entries[i] = entry;
    return entry.order;
}

int64_t heap_due_ms(const struct heap *heap)
{
    return heap->count > 0 ? heap->entries[0].at_ms : INT64_MAX;
}

void *heap_pop(struct heap *heap)
{
    assert(heap->count > 0);
    struct heap_entry first = heap->entries[0], last = heap->entries[--heap->count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && earlier(&heap->entries[child + 1], &heap->entries[child]))
            child++;
        if (!earlier(&heap->entries[child], &last))
            break;
        heap->entries[i] = heap->entries[child];
        i = child;
    }
    heap->entries[i] = last;
    return first.value;
}

void heap_done(struct heap *heap)
{
    assert(heap->count == 0);
    free(heap->entries);
}
