/* The views since the last settled one: who may still hold a room, because it owned it in one of them.
 *
 * Ownership is a pure function of a view, so who owned a room is computed, never remembered. What was before the last
 * settled view does not matter: every shard had reached it, so no room was left where it did not belong.
 * Free of I/O; used alike by gateways and shards. Threading: loop thread.
 */
#ifndef SBX_COMMON_HISTORY_H
#define SBX_COMMON_HISTORY_H

#include "common/view.h"
#include <stdbool.h>
#include <stddef.h>

enum { HISTORY_MAX = 64 };

struct history {
    struct view *views[HISTORY_MAX]; /* by number, the newest last; referenced */
    size_t count;
    bool cut; /* an older one had to be dropped although it was not settled */
};

void history_done(struct history *history);
/* Views may come in any order, and more than once; those before the last settled one are dropped. Takes a reference. */
void history_add(struct history *history, struct view *view);
/* The newest view; NULL before the first. Borrowed. */
struct view *history_newest(const struct history *history);
/* No view from `since` (or from the last settled one, if that is newer) to the newest is missing. */
bool history_whole(const struct history *history, struct view_number since);

/* Incarnations of the shards that have owned a room from `since` on, the newest view's owner included, each once.
 * Returns how many were written to `ret_owners`. */
size_t history_owners(const struct history *history, struct view_number since, const struct score_seed *seed,
                      const struct room_key *key, const char *region, uint64_t ret_owners[HISTORY_MAX]);
/* Whether the newest view has this shard. */
bool history_lists_shard(const struct history *history, uint64_t incarnation);
/* Whether a room's members must be reported to its owner: somebody who has owned it since the last settled view was in
 * a view from `since` on and is not in the newest, or may be so for all that is known. */
bool history_lost_owner(const struct history *history, struct view_number since, const struct score_seed *seed,
                        const struct room_key *key, const char *region);

#endif
