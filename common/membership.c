#include "common/membership.h"

#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct membership_times membership_default_times = {.listen_ms = 2000,
                                                          .abandoned_ms = 15000,
                                                          .heartbeat_ms = 250,
                                                          .retry_ms = 500,
                                                          .poll_ms = 5000,
                                                          .detector = {.silence_ms = 1000,
                                                                       .notice_ms = 1500,
                                                                       .gone_ms = 500,
                                                                       .patience_ms = 5000,
                                                                       .fence_ms = 1500,
                                                                       .suspect_ms = 400}};

enum { PROVE_RETRY_MS = 300 };

enum append_outcome { APPEND_OK, APPEND_CONFLICT, APPEND_UNKNOWN, APPEND_FAILED };

struct membership {
    struct node_address self;
    struct view_node node;
    struct membership_times times;
    struct timer_wheel *wheel;
    struct membership_actions actions;
    void *ctx;

    enum membership_state state;
    bool started;
    struct view *view;     /* newest known */
    struct view *proposed; /* an append is under way */
    bool reading;
    bool log_read;                 /* the log was read since the last event that made its content doubtful */
    struct view_number log_number; /* of the log's last entry, as far as known; seq 0: it is empty */
    int64_t next_read_ms;          /* not before: what was heard of may not be in the log at all */
    struct detector *detector;     /* shards; NULL in gateways */
    struct view_number marker;
    int64_t beat_ms;   /* when the last heartbeat went out */
    int64_t tick_ms;   /* when others were last looked at */
    int64_t proved_ms; /* when an append to prove this process was tried */
    int64_t proposed_ms;
    bool proposal_stale; /* the process was asleep or off the bus since: the append proves nothing any more */
    int64_t listening_since_ms, joining_since_ms;
    bool heard_shard;              /* a shard of the newest view was heard since listening began */
    struct view_number heard_view; /* the newest that anybody spoke of */
    struct timer step_timer, heartbeat_timer, poll_timer;
};

static void step(struct membership *m, int64_t now_ms);

const char *membership_state_name(enum membership_state state)
{
    static const char *const names[] = {"listening", "joining", "active", "leaving", "left", "removed"};
    return names[state];
}

static void enter(struct membership *m, enum membership_state state, int64_t now_ms)
{
    if (m->state == state)
        return;
    m->state = state;
    m->actions.state(m->ctx, state, now_ms);
}

static void on_step(struct timer *timer, int64_t now_ms)
{
    step(container_of(timer, struct membership, step_timer), now_ms);
}

/* A process that was asleep for longer than the fence knows nothing of what has passed, whatever its buffers say. */
static void notice_sleep(struct membership *m, int64_t now_ms)
{
    int64_t slept_ms = now_ms - m->beat_ms - m->times.heartbeat_ms;
    if (m->detector == NULL || m->beat_ms == 0 || slept_ms <= 0)
        return;
    if (slept_ms + m->times.heartbeat_ms >= m->times.detector.fence_ms)
        membership_bus_lost(m);
}

static void beat(struct membership *m, int64_t now_ms)
{
    notice_sleep(m, now_ms);
    m->beat_ms = now_ms;
    m->actions.heartbeat(m->ctx);
}

static void watch_others(struct membership *m, int64_t now_ms)
{
    struct node_address silent;
    if (m->state != MEMBERSHIP_ACTIVE)
        return;
    if (m->view != NULL && view_number_compare(m->marker, m->view->number) < 0 &&
        detector_reported(m->detector, m->view->number)) {
        m->marker = m->view->number;
        beat(m, now_ms);
    }
    if (detector_tick(m->detector, now_ms))
        beat(m, now_ms);
    while (detector_probe(m->detector, &silent, now_ms))
        m->actions.probe(m->ctx, &silent);
    step(m, now_ms);
}

static void on_heartbeat(struct timer *timer, int64_t now_ms)
{
    struct membership *m = container_of(timer, struct membership, heartbeat_timer);
    uint32_t interval_ms = m->times.heartbeat_ms / 2;
    notice_sleep(m, now_ms);
    if (m->detector != NULL && m->tick_ms != 0 && now_ms - m->tick_ms > 2 * interval_ms)
        detector_late(m->detector, (uint32_t)(now_ms - m->tick_ms - interval_ms));
    m->tick_ms = now_ms;
    if (now_ms - m->beat_ms >= m->times.heartbeat_ms)
        beat(m, now_ms);
    if (m->detector != NULL)
        watch_others(m, now_ms);
    timer_set(m->wheel, timer, now_ms + interval_ms);
}

static void read_log(struct membership *m)
{
    if (m->reading)
        return;
    m->reading = true;
    m->actions.read_last(m->ctx);
}

static void on_poll(struct timer *timer, int64_t now_ms)
{
    struct membership *m = container_of(timer, struct membership, poll_timer);
    read_log(m);
    timer_set(m->wheel, timer, now_ms + m->times.poll_ms);
}

struct membership *membership_new(const struct node_address *self, const char *region, uint32_t weight,
                                  const struct membership_times *times, struct timer_wheel *wheel,
                                  const struct membership_actions *actions, void *ctx)
{
    struct membership *m = mem_new(struct membership);
    m->self = *self;
    snprintf(m->node.id, sizeof m->node.id, "%s", self->id);
    m->node.incarnation = self->incarnation;
    if (self->kind == NODE_SHARD) {
        snprintf(m->node.region, sizeof m->node.region, "%s", region);
        m->node.weight = m->node.full_weight = weight;
    }
    m->times = *times;
    m->wheel = wheel;
    m->actions = *actions;
    m->ctx = ctx;
    if (self->kind == NODE_SHARD)
        m->detector = detector_new(self, &times->detector, wheel->now_ms);
    timer_init(&m->step_timer, on_step);
    timer_init(&m->heartbeat_timer, on_heartbeat);
    timer_init(&m->poll_timer, on_poll);
    return m;
}

void membership_free(struct membership **membership)
{
    struct membership *m = *membership;
    if (m == NULL)
        return;
    timer_cancel(m->wheel, &m->step_timer);
    timer_cancel(m->wheel, &m->heartbeat_timer);
    timer_cancel(m->wheel, &m->poll_timer);
    view_unref(&m->view);
    view_unref(&m->proposed);
    detector_free(&m->detector);
    free(m);
    *membership = NULL;
}

enum membership_state membership_state(const struct membership *m)
{
    return m->state;
}

struct view *membership_view(const struct membership *m)
{
    return m->view;
}

static const struct view_node *namesake_in(const struct membership *m, const struct view *view)
{
    return m->self.kind == NODE_SHARD ? view_find_shard(view, m->self.id) : view_find_gateway(view, m->self.id);
}

static const struct view_node *find_in(const struct membership *m, const struct view *view)
{
    if (view == NULL)
        return NULL;
    const struct view_node *node = namesake_in(m, view);
    return node != NULL && node->incarnation == m->self.incarnation ? node : NULL;
}

static bool view_has(const struct view *view, const struct node_address *address)
{
    const struct view_node *node =
        address->kind == NODE_SHARD ? view_find_shard(view, address->id) : view_find_gateway(view, address->id);
    return node != NULL && node->incarnation == address->incarnation;
}

/* Everything was stopped, and this is the first shard to come back. A view with no shard but an earlier start of this
 * one needs no such judgement: it is replaced. Gateways leave that judgement to shards, which hear
 * heartbeats; the entry that a gateway appends meanwhile goes with the rest, and it appends itself anew. */
static bool is_abandoned(const struct membership *m)
{
    bool arriving = m->state == MEMBERSHIP_LISTENING || m->state == MEMBERSHIP_JOINING;
    if (m->self.kind != NODE_SHARD || !arriving || m->view == NULL || m->heard_shard)
        return false;
    size_t others = m->view->shard_count - (namesake_in(m, m->view) != NULL);
    return others > 0;
}

/* The newest view that is settled. One who is not in the view has no marker of its own to reach, and the namesake whose
 * place it takes will never reach one. */
static struct view_number settled_now(const struct membership *m)
{
    bool listed = find_in(m, m->view) != NULL;
    const struct view_node *namesake = listed ? NULL : namesake_in(m, m->view);
    return detector_settled(m->detector, listed ? m->marker : m->view->number,
                            namesake != NULL ? namesake->incarnation : 0);
}

/* Where a new entry begins: what is known of the membership, in a number above everything that was ever heard. A log
 * that is behind what was heard was lost, or lost its tail: it goes on in a new generation. */
static struct view *begin_entry(const struct membership *m)
{
    bool abandoned = is_abandoned(m);
    struct view *entry = view_copy(abandoned ? NULL : m->view);
    /* The append succeeds only if there is nothing newer in the log: then what is known or heard of has been lost. */
    if (abandoned || m->log_number.seq == 0 || view_number_compare(m->heard_view, m->log_number) > 0) {
        uint64_t floor = (uint64_t)m->actions.wall_s(m->ctx);
        entry->number.generation = m->heard_view.generation + 1 > floor ? m->heard_view.generation + 1 : floor;
    }
    entry->settled = (struct view_number){0, 0};
    if (m->view != NULL && !abandoned && m->detector != NULL)
        entry->settled = settled_now(m);
    if (view_number_compare(entry->settled, (struct view_number){0, 0}) == 0 && m->view != NULL && !abandoned)
        entry->settled = m->view->settled;
    entry->appender = m->self.incarnation;
    return entry;
}

static void list_self(const struct membership *m, struct view *entry)
{
    if (m->self.kind == NODE_SHARD)
        view_put_shard(entry, &m->node);
    else
        view_put_gateway(entry, &m->node);
}

static void unlist_self(const struct membership *m, struct view *entry)
{
    if (m->self.kind == NODE_SHARD)
        view_remove_shard(entry, m->self.id, m->self.incarnation);
    else
        view_remove_gateway(entry, m->self.id, m->self.incarnation);
}

static void append(struct membership *m, struct view *take_entry, int64_t now_ms)
{
    m->proposed = take_entry;
    m->proposed_ms = now_ms;
    m->proposal_stale = false;
    m->actions.append(m->ctx, take_entry, m->log_number.seq);
}

static void propose(struct membership *m, int64_t now_ms)
{
    bool leaving = m->state == MEMBERSHIP_LEAVING;
    if ((find_in(m, m->view) != NULL) != leaving) {
        enter(m, leaving ? MEMBERSHIP_LEFT : MEMBERSHIP_ACTIVE, now_ms);
        return;
    }
    struct view *entry = begin_entry(m);
    if (leaving)
        unlist_self(m, entry);
    else
        list_self(m, entry);
    append(m, entry, now_ms);
}

/* What an active shard appends on others' account or to prove itself: removals, or the membership as it is. */
static void maintain(struct membership *m, int64_t now_ms)
{
    if (m->detector == NULL || m->view == NULL)
        return;
    struct view *probe = view_copy(m->view);
    bool removals = detector_proposes(m->detector, now_ms) && detector_remove(m->detector, probe, now_ms) > 0;
    view_unref(&probe);
    bool prove = !detector_may_act(m->detector, now_ms) && now_ms - m->proved_ms >= PROVE_RETRY_MS;
    if (!removals && !prove)
        return;
    if (!m->log_read) {
        read_log(m);
        return;
    }
    struct view *entry = begin_entry(m);
    size_t removed = removals ? detector_remove(m->detector, entry, now_ms) : 0;
    m->proved_ms = now_ms;
    log_warn(removed > 0 ? "removing" : "proving", log_uint("removed", removed),
             log_uint("after_seq", m->log_number.seq));
    append(m, entry, now_ms);
}

/* A shard joins only once the last view has settled, so that no room is sought in two places at once; not for ever,
 * because a cluster that cannot grow is worse off than one whose clients are told their rooms anew. */
static bool must_wait(struct membership *m, int64_t now_ms)
{
    if (m->detector == NULL || m->view == NULL || is_abandoned(m) || find_in(m, m->view) != NULL ||
        now_ms - m->joining_since_ms >= m->times.abandoned_ms)
        return false;
    size_t others = m->view->shard_count - (namesake_in(m, m->view) != NULL);
    return others > 0 && view_number_compare(settled_now(m), m->view->number) < 0;
}

/* Drives the state machine; called whenever something that it waits for may have happened. */
static void step(struct membership *m, int64_t now_ms)
{
    if (m->proposed != NULL || m->reading)
        return;
    switch (m->state) {
    case MEMBERSHIP_LISTENING:
        if (!m->log_read) {
            read_log(m);
            return;
        }
        int64_t wait_ms = m->view == NULL ? 0 : is_abandoned(m) ? m->times.abandoned_ms : m->times.listen_ms;
        if (now_ms < m->listening_since_ms + wait_ms) {
            /* Somebody may be heard any moment, which shortens the wait. */
            timer_set(m->wheel, &m->step_timer, m->listening_since_ms + wait_ms);
            return;
        }
        enter(m, MEMBERSHIP_JOINING, now_ms);
        m->joining_since_ms = now_ms;
        step(m, now_ms);
        return;
    case MEMBERSHIP_JOINING:
        /* The log may have been empty, or not to be had, when listening ended. */
        if (must_wait(m, now_ms) || (is_abandoned(m) && now_ms < m->listening_since_ms + m->times.abandoned_ms)) {
            timer_set(m->wheel, &m->step_timer, now_ms + m->times.heartbeat_ms);
            return;
        }
        /* fall through */
    case MEMBERSHIP_LEAVING:
        if (m->log_read)
            propose(m, now_ms);
        else
            read_log(m);
        return;
    case MEMBERSHIP_ACTIVE:
        if (m->view == NULL)
            return;
        if (view_number_compare(m->heard_view, m->view->number) <= 0) {
            maintain(m, now_ms);
            return;
        }
        if (now_ms < m->next_read_ms) {
            timer_set(m->wheel, &m->step_timer, m->next_read_ms);
            return;
        }
        m->next_read_ms = now_ms + m->times.retry_ms;
        read_log(m);
        return;
    case MEMBERSHIP_LEFT:
    case MEMBERSHIP_REMOVED:
        return;
    }
}

void membership_start(struct membership *m, int64_t now_ms)
{
    if (!m->started) {
        m->started = true;
        m->listening_since_ms = now_ms;
        on_heartbeat(&m->heartbeat_timer, now_ms);
        timer_set(m->wheel, &m->poll_timer, now_ms + m->times.poll_ms);
    } else {
        if (m->detector != NULL)
            detector_bus_back(m->detector, now_ms);
        m->listening_since_ms = now_ms;
        read_log(m); /* views may have passed while the bus was away */
    }
    step(m, now_ms);
}

void membership_leave(struct membership *m, int64_t now_ms)
{
    if (m->state == MEMBERSHIP_LEFT || m->state == MEMBERSHIP_REMOVED)
        return;
    bool in_doubt = m->proposed != NULL || (m->state != MEMBERSHIP_LISTENING && !m->log_read);
    if (find_in(m, m->view) == NULL && !in_doubt) {
        enter(m, MEMBERSHIP_LEFT, now_ms);
        return;
    }
    enter(m, MEMBERSHIP_LEAVING, now_ms);
    step(m, now_ms);
}

void membership_bus_lost(struct membership *m)
{
    m->proposal_stale = true;
    if (m->detector != NULL)
        detector_bus_lost(m->detector);
}

void membership_heartbeat(struct membership *m, const Signalbox__Cluster__V1__Heartbeat *heartbeat, int64_t now_ms)
{
    struct node_address from = {.kind = (enum node_kind)heartbeat->kind, .incarnation = heartbeat->incarnation};
    struct view_number view = {0, 0};
    if (from.kind != NODE_GATEWAY && from.kind != NODE_SHARD)
        return;
    snprintf(from.id, sizeof from.id, "%s", heartbeat->node);
    if (heartbeat->view != NULL)
        view = (struct view_number){heartbeat->view->generation, heartbeat->view->seq};
    if (m->detector != NULL)
        detector_heartbeat(m->detector, heartbeat, now_ms);
    membership_heard(m, &from, view, now_ms);
    bool waits = m->view != NULL && view_number_compare(m->marker, m->view->number) < 0;
    if (m->detector != NULL && (heartbeat->n_concurs > 0 || waits))
        watch_others(m, now_ms);
}

void membership_gone(struct membership *m, uint64_t incarnation, int64_t now_ms)
{
    if (m->detector == NULL)
        return;
    detector_gone(m->detector, incarnation, now_ms);
    watch_others(m, now_ms);
}

size_t membership_concurrences(const struct membership *m, Signalbox__Cluster__V1__Concurrence *out, size_t max,
                               int64_t now_ms)
{
    return m->detector != NULL && m->state == MEMBERSHIP_ACTIVE ? detector_concurrences(m->detector, out, max, now_ms)
                                                                : 0;
}

bool membership_may_act(struct membership *m, int64_t now_ms)
{
    if (m->detector == NULL)
        return true;
    notice_sleep(m, now_ms);
    return m->state == MEMBERSHIP_LEAVING || (m->state == MEMBERSHIP_ACTIVE && detector_may_act(m->detector, now_ms));
}

void membership_set_marker(struct membership *m, struct view_number marker, int64_t now_ms)
{
    if (view_number_compare(marker, m->marker) <= 0)
        return;
    m->marker = marker;
    if (m->started)
        beat(m, now_ms);
}

struct view_number membership_marker(const struct membership *m)
{
    return m->marker;
}

void membership_heard(struct membership *m, const struct node_address *from, struct view_number view, int64_t now_ms)
{
    if (view_number_compare(view, m->heard_view) > 0)
        m->heard_view = view;
    bool was_heard = m->heard_shard;
    if (from->kind == NODE_SHARD && from->incarnation != m->self.incarnation && m->view != NULL &&
        view_has(m->view, from))
        m->heard_shard = true;
    if (m->heard_shard != was_heard || (m->view != NULL && view_number_compare(m->heard_view, m->view->number) > 0))
        step(m, now_ms);
}

void membership_learn(struct membership *m, struct view *view, int64_t now_ms)
{
    if (view_number_compare(view->number, m->heard_view) > 0)
        m->heard_view = view->number;
    if (m->view != NULL && view_number_compare(view->number, m->view->number) <= 0)
        return;
    bool was_listed = find_in(m, m->view) != NULL;
    struct view *old = m->view;
    if (old == NULL)
        m->listening_since_ms = now_ms; /* whom to listen for is known from here on */
    m->view = view_ref(view);
    m->log_number = view->number;
    if (m->detector != NULL)
        detector_view(m->detector, view, now_ms);
    metric_set(M_VIEW_GENERATION, (int64_t)view->number.generation);
    metric_set(M_VIEW_SEQ, (int64_t)view->number.seq);
    metric_set(M_VIEW_SHARDS, (int64_t)view->shard_count);
    metric_set(M_VIEW_GATEWAYS, (int64_t)view->gateway_count);
    m->actions.view(m->ctx, old, m->view, now_ms);
    view_unref(&old);

    bool listed = find_in(m, m->view) != NULL;
    if (listed && m->state == MEMBERSHIP_JOINING)
        enter(m, MEMBERSHIP_ACTIVE, now_ms);
    else if (!listed && m->state == MEMBERSHIP_LEAVING)
        enter(m, MEMBERSHIP_LEFT, now_ms);
    else if (was_listed && !listed && m->state == MEMBERSHIP_ACTIVE)
        enter(m, MEMBERSHIP_REMOVED, now_ms);
    if (m->state == MEMBERSHIP_JOINING)
        timer_set(m->wheel, &m->step_timer, now_ms);
}

void membership_read_done(struct membership *m, enum viewlog_result result, struct view *view, int64_t now_ms)
{
    m->reading = false;
    if (result == VIEWLOG_OK && view != NULL) {
        m->log_read = true;
        membership_learn(m, view, now_ms);
        m->log_number = view->number;
        if (view_number_compare(view->number, m->view->number) < 0)
            log_warn("view_log_behind", log_uint("log_seq", view->number.seq),
                     log_uint("known_seq", m->view->number.seq));
    } else if (result == VIEWLOG_EMPTY) {
        m->log_read = true;
        m->log_number = (struct view_number){0, 0};
    } else {
        timer_set(m->wheel, &m->step_timer, now_ms + m->times.retry_ms);
        return;
    }
    step(m, now_ms);
}

void membership_append_done(struct membership *m, enum viewlog_result result, uint64_t seq, int64_t now_ms)
{
    struct view *entry = m->proposed;
    assert(entry != NULL);
    notice_sleep(m, now_ms);
    m->proposed = NULL;
    m->log_read = false; /* whatever happened, the next decision starts from what the log says */
    switch (result) {
    case VIEWLOG_OK:
        metric_add_at(M_VIEW_APPENDS, APPEND_OK, 1);
        m->log_read = true;
        entry->number.seq = seq;
        membership_learn(m, entry, now_ms);
        /* It lists this process as of when it was asked for; the answer may have waited. */
        if (m->detector != NULL && !m->proposal_stale && find_in(m, entry) != NULL)
            detector_appended(m->detector, m->proposed_ms);
        m->actions.announce(m->ctx, entry);
        break;
    case VIEWLOG_CONFLICT:
        metric_add_at(M_VIEW_APPENDS, APPEND_CONFLICT, 1);
        m->heard_shard = true; /* whoever won is alive */
        break;
    case VIEWLOG_UNKNOWN:
        metric_add_at(M_VIEW_APPENDS, APPEND_UNKNOWN, 1);
        break;
    default:
        metric_add_at(M_VIEW_APPENDS, APPEND_FAILED, 1);
        timer_set(m->wheel, &m->step_timer, now_ms + m->times.retry_ms);
        view_unref(&entry);
        return;
    }
    view_unref(&entry);
    step(m, now_ms);
}
