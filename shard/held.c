#include "shard/held.h"

#include "common/mem.h"
#include "common/metrics.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct held {
    size_t count, bytes;
    struct payload *items[HELD_MESSAGES_MAX];
};

static bool is_kept(const struct held *held, const struct payload *item)
{
    for (size_t i = 0; i < held->count; i++)
        if (held->items[i]->size == item->size && memcmp(held->items[i]->data, item->data, item->size) == 0)
            return true;
    return false;
}

void held_add(struct held **held_ptr, struct payload *item, size_t *all_bytes)
{
    if (*held_ptr == NULL)
        *held_ptr = mem_new(struct held);
    struct held *held = *held_ptr;
    if (is_kept(held, item)) {
        metric_add_at(M_RELAYS_HELD, HELD_REPEATED, 1);
        return;
    }
    if (held->count == HELD_MESSAGES_MAX || held->bytes + item->size > HELD_BYTES_MAX ||
        *all_bytes + item->size > HELD_ALL_BYTES_MAX) {
        metric_add_at(M_RELAYS_HELD, HELD_FULL, 1);
        return;
    }
    held->items[held->count++] = payload_ref(item);
    held->bytes += item->size;
    *all_bytes += item->size;
    metric_add_at(M_RELAYS_HELD, HELD_KEPT, 1);
}

void held_take(struct held **held_ptr, size_t *all_bytes, void (*pass_on)(void *ctx, struct payload *item), void *ctx)
{
    struct held *held = *held_ptr;
    if (held == NULL)
        return;
    *held_ptr = NULL;
    *all_bytes -= held->bytes;
    for (size_t i = 0; i < held->count; i++) {
        if (pass_on != NULL) {
            pass_on(ctx, held->items[i]);
            metric_add_at(M_RELAYS_HELD, HELD_PASSED_ON, 1);
        }
        payload_unref(&held->items[i]);
    }
    free(held);
}
