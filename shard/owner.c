/* What a new view means for rooms: which of them are another shard's now, and which of those that are not here may yet
 * be reported by gateways. Unknown is never taken for new. */
#include "common/log.h"
#include "shard/internal.h"
#include <string.h>

bool owner_is_self(const struct shard *shard, const struct view *view, const struct room_key *key, const char *name)
{
    char region[REGION_MAX + 1];
    if (view == NULL)
        return false;
    room_region(name, region);
    const struct view_node *owner = view_owner(view, &shard->options.seed, key, region);
    return owner != NULL && owner->incarnation == shard->options.self.incarnation;
}

void owner_forget_history(struct shard *shard)
{
    for (size_t i = 0; i < shard->history_count; i++)
        view_unref(&shard->history[i]);
    shard->history_count = 0;
}

static bool everything_reported(const struct shard *shard)
{
    return view_number_compare(shard->actions.marker(shard->ctx), shard->view->number) >= 0;
}

static void remember(struct shard *shard, struct view *view)
{
    if (shard->history_count == SHARD_HISTORY_MAX) {
        owner_forget_history(shard);
        shard->history_whole = false;
    }
    shard->history[shard->history_count++] = view_ref(view);
}

bool owner_may_be_reported(struct shard *shard, const struct room_key *key, const char *name, int64_t now_ms)
{
    if (everything_reported(shard) || now_ms - shard->view_since_ms >= SHARD_REPORT_MS)
        return false;
    if (!shard->history_whole)
        return true;
    for (size_t i = 0; i < shard->history_count; i++)
        if (!owner_is_self(shard, shard->history[i], key, name))
            return true;
    return false;
}

void shard_view(struct shard *shard, struct view *view, int64_t now_ms)
{
    struct view *old = shard->view;
    if (old != NULL && everything_reported(shard)) {
        owner_forget_history(shard);
        shard->history_whole = true;
    }
    if (old != NULL)
        remember(shard, old);
    shard->view = view_ref(view);
    shard->view_since_ms = now_ms;
    view_unref(&old);
    struct room *room, *next;
    HASH_ITER(hh, shard->rooms, room, next) {
        if (owner_is_self(shard, view, &room->key, room->name))
            continue;
        log_info("room_moved_away", log_str("room", room->name), log_uint("participants", room->total));
        session_drop_room(shard, room);
    }
    session_detach_lost(shard, now_ms);
}

void shard_set_full(struct shard *shard, bool full)
{
    shard->full = full;
}

void shard_suspend(struct shard *shard, bool suspended, int64_t now_ms)
{
    shard->suspended = suspended;
}
