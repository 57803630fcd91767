/* Views in the log's order: what is newer than the view in force takes its place once every entry between the two is
 * here, because an owner that somebody had in between may hold, or have lost, what is being looked for. A process
 * without a view begins with the last settled one. */
#include "common/log.h"
#include "common/membership_private.h"
#include "common/metrics.h"

/* Behind by more than this, a process takes the newest view and holds its history for unknown. */
enum { FOLLOW_MAX = 256 };

static bool lacks_shard_of(const struct view *view, const struct view *old)
{
    for (size_t i = 0; i < old->shard_count; i++) {
        struct node_address shard = view_node_address(NODE_SHARD, &old->shards[i]);
        if (!view_lists(view, &shard))
            return true;
    }
    return false;
}

/* Another shard of the view was there to append it. */
static bool appended_by_shard(const struct membership *m, const struct view *view)
{
    return view->appender != m->self.incarnation && view_find_incarnation(view, NODE_SHARD, view->appender) != NULL;
}

static void note_state(struct membership *m, bool was_listed, int64_t now_ms)
{
    bool listed = membership_find_self(m, m->view) != NULL;
    if (listed && m->state == MEMBERSHIP_JOINING)
        membership_enter(m, MEMBERSHIP_ACTIVE, now_ms);
    else if (!listed && m->state == MEMBERSHIP_LEAVING)
        membership_enter(m, MEMBERSHIP_LEFT, now_ms);
    else if (was_listed && !listed && m->state == MEMBERSHIP_ACTIVE)
        membership_enter(m, MEMBERSHIP_REMOVED, now_ms);
    if (m->state == MEMBERSHIP_JOINING)
        timer_set(m->wheel, &m->step_timer, now_ms);
}

static void apply(struct membership *m, struct view *view, bool follows, int64_t now_ms)
{
    bool was_listed = membership_find_self(m, m->view) != NULL;
    struct view *old = m->view;
    if (old == NULL)
        m->listening_since_ms = now_ms; /* whom to listen for is known from here on */
    else if (appended_by_shard(m, view))
        membership_note_shard(m, now_ms);
    if (!follows || (old != NULL && lacks_shard_of(view, old)))
        m->removed_at = view->number;
    m->view = view_ref(view);
    m->log_number = view->number;
    detector_view(m->detector, view, now_ms);
    if (!follows)
        detector_entries_missed(m->detector, now_ms);
    metric_set(M_VIEW_GENERATION, (int64_t)view->number.generation);
    metric_set(M_VIEW_SEQ, (int64_t)view->number.seq);
    metric_set(M_VIEW_SHARDS, (int64_t)view->shard_count);
    metric_set(M_VIEW_GATEWAYS, (int64_t)view->gateway_count);
    weight_view(m, old, now_ms);
    m->actions.view(m->ctx, old, m->view, now_ms);
    view_unref(&old);
    note_state(m, was_listed, now_ms);
}

/* The first sequence that must be in force before `view`, or 0 if nobody can tell: then its history is lost. */
static uint64_t first_needed(const struct membership *m, const struct view *view)
{
    struct view_number settled = view->settled;
    uint64_t first = m->view != NULL ? m->view->number.seq + 1 : settled.seq;
    if (m->view != NULL && m->view->number.generation != view->number.generation)
        return 0;
    if (settled.generation != 0 && settled.generation != view->number.generation)
        return m->view != NULL && first == view->number.seq ? first : 0;
    /* What has settled is nobody's concern any more. */
    if (settled.seq > first)
        first = settled.seq;
    return first <= view->number.seq && view->number.seq - first <= FOLLOW_MAX ? first : 0;
}

static void jump(struct membership *m, struct view *view, int64_t now_ms)
{
    if (m->view != NULL ? m->view->shard_count > 0 : view->settled.seq != 0) {
        metric_add(M_VIEW_HISTORY_LOST, 1);
        log_warn("view_history_lost", log_uint("seq", view->number.seq), log_uint("settled", view->settled.seq));
    }
    apply(m, view, false, now_ms);
}

/* The newest view known is in force: nothing is missing any more. */
static void arrive(struct membership *m, bool follows, int64_t now_ms)
{
    struct view *ahead = m->ahead;
    m->ahead = NULL;
    if (follows)
        apply(m, ahead, true, now_ms);
    else
        jump(m, ahead, now_ms);
    view_unref(&ahead);
}

void follow_fetch(struct membership *m)
{
    if (m->fetching)
        return;
    m->fetching = true;
    m->actions.read(m->ctx, m->next_seq);
}

/* `view` is the next of the missing ones. */
static void take_next(struct membership *m, struct view *view, int64_t now_ms)
{
    bool fits = view->number.generation == m->ahead->number.generation &&
                (m->view == NULL ? view_number_compare(view->number, m->ahead->settled) == 0
                                 : view_number_compare(view->number, m->view->number) > 0);
    if (!fits) {
        arrive(m, false, now_ms);
        return;
    }
    apply(m, view, true, now_ms);
    if (m->ahead != NULL && ++m->next_seq == m->ahead->number.seq)
        arrive(m, true, now_ms);
}

void membership_learn(struct membership *m, struct view *view, int64_t now_ms)
{
    if (view_number_compare(view->number, m->heard_view) > 0)
        m->heard_view = view->number;
    if (m->view != NULL && view_number_compare(view->number, m->view->number) <= 0)
        return;
    if (m->ahead != NULL && view_number_compare(view->number, m->ahead->number) <= 0) {
        if (view->number.seq == m->next_seq)
            take_next(m, view, now_ms);
        if (m->ahead != NULL)
            follow_fetch(m);
        return;
    }
    uint64_t first = first_needed(m, view);
    view_unref(&m->ahead);
    if (first == 0) {
        jump(m, view, now_ms);
    } else if (first == view->number.seq) {
        apply(m, view, true, now_ms);
    } else {
        m->ahead = view_ref(view);
        m->next_seq = first;
        follow_fetch(m);
    }
}

void membership_entry_done(struct membership *m, enum viewlog_result result, struct view *view, int64_t now_ms)
{
    m->fetching = false;
    if (m->ahead == NULL)
        return; /* what was missing has come another way */
    if (result == VIEWLOG_OK && view != NULL)
        membership_learn(m, view, now_ms);
    else if (result == VIEWLOG_GONE)
        arrive(m, false, now_ms);
    else
        timer_set(m->wheel, &m->step_timer, now_ms + m->times.retry_ms);
    if (m->ahead == NULL)
        membership_step(m, now_ms);
}
