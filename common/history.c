#include "common/history.h"
#include "common/metrics.h"

#include <string.h>

static void drop(struct history *history, size_t at)
{
    view_unref(&history->views[at]);
    history->count--;
    memmove(&history->views[at], &history->views[at + 1], (history->count - at) * sizeof history->views[0]);
}

void history_done(struct history *history)
{
    while (history->count > 0)
        drop(history, history->count - 1);
}

struct view *history_newest(const struct history *history)
{
    return history->count > 0 ? history->views[history->count - 1] : NULL;
}

static struct view_number settled(const struct history *history)
{
    return history_newest(history)->settled;
}

static void drop_settled(struct history *history)
{
    while (history->count > 1 && view_number_compare(history->views[0]->number, settled(history)) < 0) {
        drop(history, 0);
        history->cut = false;
    }
}

void history_add(struct history *history, struct view *view)
{
    size_t at = history->count;
    while (at > 0 && view_number_compare(history->views[at - 1]->number, view->number) > 0)
        at--;
    if (at > 0 && view_number_compare(history->views[at - 1]->number, view->number) == 0)
        return;
    if (history->count == HISTORY_MAX) {
        history->cut = true;
        metric_add(M_VIEWS_FORGOTTEN, 1);
        if (at == 0)
            return; /* older than all that fit */
        drop(history, 0);
        at--;
    }
    memmove(&history->views[at + 1], &history->views[at], (history->count - at) * sizeof history->views[0]);
    history->views[at] = view_ref(view);
    history->count++;
    drop_settled(history);
}

/* Entries of a log have consecutive numbers; a log that was lost goes on in a new generation, and what it held last is
 * not known. A view whose settled one is itself, or that has none because it is the log's first, needs none before. */
static bool follows(const struct view *before, const struct view *after)
{
    return before->number.generation == after->number.generation && before->number.seq + 1 == after->number.seq;
}

bool history_whole(const struct history *history, struct view_number since)
{
    if (history->count == 0)
        return false;
    if (view_number_compare(since, settled(history)) < 0)
        since = settled(history);
    size_t first = 0;
    while (first < history->count && view_number_compare(history->views[first]->number, since) < 0)
        first++;
    if (first == history->count)
        return false;
    const struct view *oldest = history->views[first];
    bool nothing_before = since.generation == 0 && since.seq == 0 && oldest->number.seq == 1 && !history->cut;
    if (view_number_compare(oldest->number, since) != 0 && !nothing_before)
        return false;
    for (size_t i = first + 1; i < history->count; i++)
        if (!follows(history->views[i - 1], history->views[i]))
            return false;
    return true;
}

size_t history_owners(const struct history *history, struct view_number since, const struct score_seed *seed,
                      const struct room_key *key, const char *region, uint64_t ret_owners[HISTORY_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < history->count; i++) {
        const struct view *view = history->views[i];
        bool counts = view_number_compare(view->number, since) >= 0 || i + 1 == history->count;
        const struct view_node *owner = counts ? view_owner(view, seed, key, region) : NULL;
        size_t known = 0;
        while (owner != NULL && known < count && ret_owners[known] != owner->incarnation)
            known++;
        if (owner != NULL && known == count)
            ret_owners[count++] = owner->incarnation;
    }
    return count;
}

static bool lists_shard(const struct view *view, uint64_t incarnation)
{
    return view != NULL && view_find_incarnation(view, NODE_SHARD, incarnation) != NULL;
}

bool history_lists_shard(const struct history *history, uint64_t incarnation)
{
    return lists_shard(history_newest(history), incarnation);
}

static bool listed_since(const struct history *history, struct view_number since, uint64_t incarnation)
{
    for (size_t i = 0; i < history->count; i++)
        if (view_number_compare(history->views[i]->number, since) >= 0 && lists_shard(history->views[i], incarnation))
            return true;
    return false;
}

bool history_lost_owner(const struct history *history, struct view_number since, const struct score_seed *seed,
                        const struct room_key *key, const char *region)
{
    uint64_t owners[HISTORY_MAX];
    if (history->count == 0)
        return false;
    struct view_number from = settled(history);
    if (!history_whole(history, from))
        return true;
    size_t count = history_owners(history, from, seed, key, region, owners);
    for (size_t i = 0; i < count; i++)
        if (!history_lists_shard(history, owners[i]) && listed_since(history, since, owners[i]))
            return true;
    return false;
}
