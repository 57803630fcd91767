/* What a new view means for rooms: which of them are another shard's now, where those may be that are not here, and
 * when nothing is out of its place any more. Unknown is never taken for new. */
#include "common/log.h"
#include "common/sim_fault.h"
#include "shard/internal.h"
#include <stdlib.h>
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

struct view_number owner_since(const struct shard *shard, const struct room_key *key, const char *name)
{
    for (size_t i = shard->history.count; i > 0; i--)
        if (!owner_is_self(shard, shard->history.views[i - 1], key, name))
            return i < shard->history.count ? shard->history.views[i]->number : shard->view->number;
    return (struct view_number){0, 0};
}

struct node_address owner_address(const struct shard *shard, const struct room_key *key, const char *name)
{
    char region[REGION_MAX + 1];
    room_region(name, region);
    const struct view_node *owner =
        shard->view != NULL ? view_owner(shard->view, &shard->options.seed, key, region) : NULL;
    return owner != NULL ? view_node_address(NODE_SHARD, owner) : (struct node_address){.kind = NODE_SHARD};
}

struct epoch owner_next_epoch(struct shard *shard)
{
    return (struct epoch){.view = shard->view->number,
                          .counter = SIM_FAULT(REUSED_EPOCH) ? 1 : ++shard->epoch_counter,
                          .incarnation = shard->options.self.incarnation};
}

static bool everything_reported(const struct shard *shard)
{
    return SIM_FAULT(SETTLE_EARLY) ||
           view_number_compare(shard->actions.reported(shard->ctx), shard->view->number) >= 0;
}

bool owner_reports_complete(const struct shard *shard, int64_t now_ms)
{
    return everything_reported(shard) || now_ms - shard->view_since_ms >= SHARD_REPORT_MS;
}

/* Whether this shard may hold a room that is not its own in the newest view. */
static bool may_hold(const struct shard *shard, const struct room *room, uint64_t incarnation)
{
    struct view_number number = shard->view->number;
    if (incarnation == shard->options.self.incarnation)
        return false;
    if (view_number_compare(shard->actions.marker_of(shard->ctx, incarnation), number) >= 0)
        return false;
    return room == NULL || !search_denied(room, incarnation, number);
}

static void add_holder(uint64_t incarnation, uint64_t *ret_shards, size_t *count)
{
    if (ret_shards != NULL)
        ret_shards[*count] = incarnation;
    ++*count;
}

bool owner_others_settled(const struct shard *shard)
{
    for (size_t i = 0; i < shard->view->shard_count; i++)
        if (may_hold(shard, NULL, shard->view->shards[i].incarnation))
            return false;
    return true;
}

enum origin owner_origin(struct shard *shard, const struct room *room, const struct room_key *key, const char *name,
                         uint64_t *ret_shards, size_t *ret_count)
{
    uint64_t owners[HISTORY_MAX];
    char region[REGION_MAX + 1];
    size_t holders = 0;
    bool lost = false;
    if (ret_count != NULL)
        *ret_count = 0;
    if (SIM_FAULT(UNKNOWN_IS_NEW))
        return ORIGIN_NEW;
    room_region(name, region);
    if (history_whole(&shard->history, shard->view->settled)) {
        size_t count = history_owners(&shard->history, shard->view->settled, &shard->options.seed, key, region, owners);
        for (size_t i = 0; i < count; i++) {
            if (!history_lists_shard(&shard->history, owners[i]))
                lost = true;
            else if (may_hold(shard, room, owners[i]))
                add_holder(owners[i], ret_shards, &holders);
        }
    } else {
        /* Who owned it is not known: everybody is asked who is not known to hold nothing. */
        lost = !everything_reported(shard);
        for (size_t i = 0; i < shard->view->shard_count; i++)
            if (may_hold(shard, room, shard->view->shards[i].incarnation))
                add_holder(shard->view->shards[i].incarnation, ret_shards, &holders);
    }
    if (ret_count != NULL)
        *ret_count = holders;
    return holders > 0 ? ORIGIN_ELSEWHERE : lost ? ORIGIN_LOST : ORIGIN_NEW;
}

/* --- the marker -------------------------------------------------------------------------------------------------- */

/* Since the last settled view somebody was removed, or may have been. */
static bool lost_shards(const struct shard *shard)
{
    if (!history_whole(&shard->history, shard->view->settled))
        return true;
    for (size_t i = 0; i + 1 < shard->history.count; i++) {
        const struct view *view = shard->history.views[i];
        for (size_t n = 0; n < view->shard_count; n++)
            if (!history_lists_shard(&shard->history, view->shards[n].incarnation))
                return true;
    }
    return false;
}

static void set_marker(struct shard *shard, int64_t now_ms)
{
    if (!SIM_FAULT(MARKER_EARLY) && (shard->rooms_in_state[ROOM_FROZEN] > 0 || shard->rooms_in_state[ROOM_HELD] > 0))
        return;
    if (lost_shards(shard) && !everything_reported(shard))
        return;
    shard->actions.set_marker(shard->ctx, shard->view->number, now_ms);
}

void owner_progress(struct shard *shard, int64_t now_ms)
{
    struct room *room, *next;
    if (shard->view == NULL)
        return;
    if (shard->rooms_in_state[ROOM_HELD] + shard->rooms_in_state[ROOM_REBUILDING] > 0) {
        bool complete = owner_reports_complete(shard, now_ms);
        HASH_ITER(hh, shard->rooms, room, next) {
            if (room->state == ROOM_HELD)
                search_step(room, now_ms);
            else if (room->state == ROOM_REBUILDING && complete)
                rebuild_finish(room, now_ms);
        }
    }
    set_marker(shard, now_ms);
}

/* --- views ------------------------------------------------------------------------------------------------------- */

static void move_away(struct room *room, int64_t now_ms)
{
    struct shard *shard = room->shard;
    switch (room->state) {
    case ROOM_LIVE:
    case ROOM_SETTLING:
        handoff_freeze(room, now_ms);
        break;
    case ROOM_FROZEN:
        handoff_retarget(room, now_ms);
        break;
    case ROOM_HELD:
    case ROOM_REBUILDING: /* the gateways report it to its new owner, too */
        search_send_away(room);
        session_drop_room(shard, room);
        break;
    case ROOM_ABSENT:
    case ROOM_STATE_COUNT:
        break;
    }
}

static bool lists_self(const struct shard *shard)
{
    return history_lists_shard(&shard->history, shard->options.self.incarnation);
}

void shard_view(struct shard *shard, struct view *view, int64_t now_ms)
{
    struct view *old = shard->view;
    history_add(&shard->history, view);
    if (old != NULL && view_number_compare(view->number, old->number) < 0)
        return; /* one that was missed */
    shard->view = view_ref(view);
    shard->view_since_ms = now_ms;
    revocations_view(&shard->revocations, old, view, shard->options.self.incarnation, now_ms);
    view_unref(&old);
    timer_set(shard->wheel, &shard->progress_timer, now_ms + SHARD_REPORT_MS);
    arrival_view(shard);
    struct room *room, *next;
    HASH_ITER(hh, shard->rooms, room, next) {
        if (!lists_self(shard))
            session_drop_room(shard, room); /* whoever removed this shard has its rooms rebuilt */
        else if (!owner_is_self(shard, view, &room->key, room->name))
            move_away(room, now_ms);
        else if (room->state == ROOM_FROZEN)
            handoff_retarget(room, now_ms);
    }
    session_detach_lost(shard, now_ms);
    owner_progress(shard, now_ms);
}

void shard_progress(struct shard *shard, int64_t now_ms)
{
    owner_progress(shard, now_ms);
}

void shard_set_full(struct shard *shard, bool full)
{
    shard->full = full;
}

void shard_suspend(struct shard *shard, bool suspended, int64_t now_ms)
{
    bool resumes = shard->suspended && !suspended;
    struct room *room, *next;
    shard->suspended = suspended;
    if (!resumes)
        return;
    HASH_ITER(hh, shard->rooms, room, next) {
        if (room_is_served(room))
            rebuild_tell_resumed(room);
    }
}
