/* What a process appends: itself, its weight, the removal of others, and proof that it is there. */
#include "common/log.h"
#include "common/membership_private.h"

enum { PROVE_RETRY_MS = 300 };

/* The newest view all of whose shards have reached it. The markers at hand are those of the shards of the view in
 * force, so that they speak for no view which had others. */
struct view_number propose_settled(const struct membership *m)
{
    struct view_number known = m->view->settled;
    bool listed = membership_find_self(m, m->view) != NULL;
    if (!membership_is_shard(m) || m->view->shard_count == 0)
        return known;
    struct view_number reached = detector_settled(m->detector, listed ? m->marker : m->view->number);
    if (view_number_compare(reached, m->removed_at) < 0 || view_number_compare(reached, known) < 0)
        return known;
    return view_number_compare(reached, m->view->number) < 0 ? reached : m->view->number;
}

bool propose_is_settled(const struct membership *m)
{
    return view_number_compare(propose_settled(m), m->view->number) == 0;
}

/* Where a new entry begins: what is known of the membership, in a number above everything that was ever heard. A log
 * that is behind what was heard was lost, or lost its tail: it goes on in a new generation. So it does if there is
 * nobody who would have said so (`unheard`). */
static struct view *begin_entry(const struct membership *m, bool abandoned, bool unheard)
{
    struct view *entry = view_copy(abandoned ? NULL : m->view);
    /* The append succeeds only if there is nothing newer in the log: then what is known or heard of has been lost. */
    if (abandoned || unheard || m->log_number.seq == 0 || view_number_compare(m->heard_view, m->log_number) > 0) {
        uint64_t floor = (uint64_t)m->actions.wall_s(m->ctx);
        entry->number.generation = m->heard_view.generation + 1 > floor ? m->heard_view.generation + 1 : floor;
    }
    entry->settled = m->view != NULL && !abandoned ? propose_settled(m) : (struct view_number){0, 0};
    /* Nothing has settled yet, and this is not where it all began. */
    if (m->view != NULL && !abandoned && entry->settled.generation == 0 &&
        entry->number.generation != m->view->number.generation)
        entry->settled.generation = m->view->number.generation;
    entry->appender = m->self.incarnation;
    return entry;
}

static void append(struct membership *m, struct view *take_entry, int64_t now_ms)
{
    m->proposed = take_entry;
    m->proposed_ms = now_ms;
    m->proposal_stale = false;
    m->leave_sent |= m->state == MEMBERSHIP_LEAVING;
    m->actions.append(m->ctx, take_entry, m->log_number.seq);
}

/* The shards of the view besides whoever has this process's id. */
static size_t other_shards(const struct membership *m)
{
    return m->view->shard_count - (membership_namesake(m, m->view) != NULL);
}

/* A shard joins only once the last view has settled, so that no room is sought in two places at once. The entry of an
 * earlier start of its own goes first, which is a removal like any other, unless there is no other shard that could
 * ever settle it. */
bool propose_must_wait(const struct membership *m)
{
    return membership_is_shard(m) && m->view != NULL && !membership_is_abandoned(m) && other_shards(m) > 0 &&
           membership_namesake(m, m->view) == NULL && !propose_is_settled(m);
}

bool propose_succeeds(const struct membership *m, int64_t now_ms)
{
    if (!membership_is_shard(m) || m->view == NULL || m->view->shard_count == 0 ||
        membership_find_self(m, m->view) != NULL)
        return false;
    struct view *probe = view_copy(m->view);
    bool succeeds = detector_remove(m->detector, probe, now_ms) > 0 && probe->shard_count == 0;
    view_unref(&probe);
    return succeeds;
}

static void list_self(const struct membership *m, struct view *entry)
{
    const struct view_node *namesake = membership_namesake(m, entry);
    if (m->self.kind == NODE_GATEWAY)
        view_put_gateway(entry, &m->node);
    else if (namesake != NULL && entry->shard_count > 1)
        view_remove_shard(entry, namesake->id, namesake->incarnation);
    else {
        struct view_node node = m->node;
        node.weight = weight_to_join(m, entry);
        view_put_shard(entry, &node);
    }
}

static void unlist_self(const struct membership *m, struct view *entry)
{
    if (m->self.kind == NODE_SHARD)
        view_remove_shard(entry, m->self.id, m->self.incarnation);
    else
        view_remove_gateway(entry, m->self.id, m->self.incarnation);
}

void propose_self(struct membership *m, int64_t now_ms)
{
    bool leaving = m->state == MEMBERSHIP_LEAVING;
    if ((membership_find_self(m, m->view) != NULL) != leaving) {
        membership_enter(m, leaving ? MEMBERSHIP_LEFT : MEMBERSHIP_ACTIVE, now_ms);
        return;
    }
    bool succeeds = !leaving && propose_succeeds(m, now_ms);
    bool unheard = !leaving && !succeeds && now_ms - m->spoke_ms > m->times.listen_ms;
    struct view *entry = begin_entry(m, !succeeds && membership_is_abandoned(m), unheard);
    if (succeeds)
        detector_remove(m->detector, entry, now_ms);
    if (leaving)
        unlist_self(m, entry);
    else
        list_self(m, entry);
    append(m, entry, now_ms);
}

/* The log has lost what this process knows: its view goes into the log again. */
static bool restore(struct membership *m, int64_t now_ms)
{
    if (!m->log_read || view_number_compare(m->log_number, m->view->number) >= 0 ||
        !detector_restores(m->detector, now_ms))
        return false;
    log_warn("restoring", log_uint("log_seq", m->log_number.seq), log_uint("known_seq", m->view->number.seq));
    append(m, begin_entry(m, false, false), now_ms);
    return true;
}

void propose_maintenance(struct membership *m, int64_t now_ms)
{
    if (m->view == NULL || restore(m, now_ms) || !membership_is_shard(m))
        return;
    struct view *probe = view_copy(m->view);
    bool removals = detector_proposes(m->detector, now_ms) && detector_remove(m->detector, probe, now_ms) > 0;
    view_unref(&probe);
    bool prove = !detector_may_act(m->detector, now_ms) && now_ms - m->proved_ms >= PROVE_RETRY_MS;
    struct view_node self;
    bool step = !removals && !prove && propose_is_settled(m) && weight_wants(m, &self, now_ms);
    if (!removals && !prove && !step)
        return;
    if (!m->log_read) {
        membership_read_log(m);
        return;
    }
    struct view *entry = begin_entry(m, false, false);
    if (step) {
        view_put_shard(entry, &self);
        append(m, entry, now_ms);
        return;
    }
    size_t removed = removals ? detector_remove(m->detector, entry, now_ms) : 0;
    m->proved_ms = now_ms;
    log_warn(removed > 0 ? "removing" : "proving", log_uint("removed", removed),
             log_uint("after_seq", m->log_number.seq));
    append(m, entry, now_ms);
}
