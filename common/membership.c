#include "common/membership_private.h"

#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
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
                                                                       .fence_ms = 1250,
                                                                       .suspect_ms = 400},
                                                          .pace = {.steps = 8, .step_ms = 500, .relief_ms = 10000}};

enum append_outcome { APPEND_OK, APPEND_CONFLICT, APPEND_UNKNOWN, APPEND_FAILED };

const char *membership_times_problem(const struct membership_times *times, const char **ret_key)
{
    const struct detector_times *d = &times->detector;
    uint32_t beat_ms = times->heartbeat_ms;
    const struct {
        bool wrong;
        const char *key, *text;
    } rules[] = {
        {d->silence_ms < 3 * beat_ms, "silence_ms", "must be at least three times membership.heartbeat_ms"},
        {d->fence_ms < 3 * beat_ms, "fence_ms",
         "must be at least three times membership.heartbeat_ms, or shards suspend themselves for nothing"},
        {d->notice_ms < d->fence_ms + beat_ms, "notice_ms",
         "must be at least membership.fence_ms and membership.heartbeat_ms together, or a removed shard could still "
         "act "
         "on news that was late"},
        {d->gone_ms < d->suspect_ms || d->gone_ms > d->silence_ms, "gone_ms",
         "must lie between membership.suspect_ms and membership.silence_ms"},
        {d->patience_ms < d->silence_ms, "patience_ms", "must be at least membership.silence_ms"},
        {times->listen_ms < d->notice_ms, "listen_ms", "must be at least membership.notice_ms"},
        {times->abandoned_ms < d->patience_ms + d->notice_ms, "abandoned_ms",
         "must be at least membership.patience_ms and membership.notice_ms together"},
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (!rules[i].wrong)
            continue;
        *ret_key = rules[i].key;
        return rules[i].text;
    }
    return NULL;
}

const char *membership_state_name(enum membership_state state)
{
    static const char *const names[] = {"listening", "joining", "active", "leaving", "left", "removed"};
    return names[state];
}

void membership_enter(struct membership *m, enum membership_state state, int64_t now_ms)
{
    if (m->state == state)
        return;
    m->state = state;
    m->actions.state(m->ctx, state, now_ms);
}

static void on_step(struct timer *timer, int64_t now_ms)
{
    membership_step(container_of(timer, struct membership, step_timer), now_ms);
}

static void lose_touch(struct membership *m)
{
    m->proposal_stale = true;
    m->log_read = false; /* whoever was away does not know what has become of it */
    detector_bus_lost(m->detector);
}

/* A process that was asleep for longer than the fence knows nothing of what has passed, whatever its buffers say. */
static void notice_sleep(struct membership *m, int64_t now_ms)
{
    int64_t slept_ms = now_ms - m->beat_ms - m->times.heartbeat_ms;
    if (m->beat_ms == 0 || slept_ms <= 0)
        return;
    if (slept_ms + m->times.heartbeat_ms < m->times.detector.fence_ms)
        return;
    m->listening_since_ms = now_ms;
    lose_touch(m);
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
    if (membership_is_shard(m) && m->view != NULL && view_number_compare(m->marker, m->view->number) < 0)
        m->actions.progress(m->ctx, now_ms);
    if (m->state != MEMBERSHIP_ACTIVE) {
        detector_tick(m->detector, now_ms); /* for propose_succeeds(); nobody is told */
        return;
    }
    if (detector_tick(m->detector, now_ms))
        beat(m, now_ms);
    while (membership_is_shard(m) && detector_probe(m->detector, &silent, now_ms))
        m->actions.probe(m->ctx, &silent);
    membership_step(m, now_ms);
}

static void on_heartbeat(struct timer *timer, int64_t now_ms)
{
    struct membership *m = container_of(timer, struct membership, heartbeat_timer);
    uint32_t interval_ms = m->times.heartbeat_ms / 2;
    notice_sleep(m, now_ms);
    if (m->tick_ms != 0 && now_ms - m->tick_ms > 2 * (int64_t)interval_ms)
        detector_late(m->detector, (uint32_t)(now_ms - m->tick_ms - interval_ms));
    m->tick_ms = now_ms;
    if (now_ms - m->beat_ms >= m->times.heartbeat_ms)
        beat(m, now_ms);
    watch_others(m, now_ms);
    timer_set(m->wheel, timer, now_ms + interval_ms);
}

void membership_read_log(struct membership *m)
{
    if (m->reading)
        return;
    m->reading = true;
    m->actions.read_last(m->ctx);
}

static void on_poll(struct timer *timer, int64_t now_ms)
{
    struct membership *m = container_of(timer, struct membership, poll_timer);
    membership_read_log(m);
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
        m->level = times->pace.steps;
        m->stepped_ms = m->relieved_ms = wheel->now_ms;
    }
    m->times = *times;
    m->spoke_ms = INT64_MIN / 2;
    m->wheel = wheel;
    m->actions = *actions;
    m->ctx = ctx;
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
    view_unref(&m->ahead);
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

const struct view_node *membership_namesake(const struct membership *m, const struct view *view)
{
    return view_find(view, m->self.kind, m->self.id);
}

const struct view_node *membership_find_self(const struct membership *m, const struct view *view)
{
    if (view == NULL)
        return NULL;
    const struct view_node *node = membership_namesake(m, view);
    return node != NULL && node->incarnation == m->self.incarnation ? node : NULL;
}

/* Who is listed appends the removal of others; a process that joins appends that of whoever has its id. */
bool membership_was_replaced(const struct membership *m)
{
    if (m->view == NULL || membership_find_self(m, m->view) != NULL)
        return false;
    if (membership_namesake(m, m->view) != NULL)
        return true;
    return view_find_incarnation(m->view, NODE_SHARD, m->view->appender) == NULL &&
           view_find_incarnation(m->view, NODE_GATEWAY, m->view->appender) == NULL;
}

/* Everything was stopped, and this is the first shard to come back. A view with no shard but an earlier start of this
 * one needs no such judgement: it is replaced. Gateways leave that judgement to shards, which hear
 * heartbeats; the entry that a gateway appends meanwhile goes with the rest, and it appends itself anew. */
bool membership_is_abandoned(const struct membership *m)
{
    bool arriving = m->state == MEMBERSHIP_LISTENING || m->state == MEMBERSHIP_JOINING;
    if (m->self.kind != NODE_SHARD || !arriving || m->view == NULL || m->heard_shard)
        return false;
    size_t others = m->view->shard_count - (membership_namesake(m, m->view) != NULL);
    return others > 0;
}

bool membership_is_behind(const struct membership *m)
{
    struct view_number known = m->view != NULL ? m->view->number : (struct view_number){0, 0};
    return view_number_compare(m->heard_view, known) > 0;
}

/* Nothing is built on an older view while somebody who is there knows a newer one: the log has it, or will have it
 * again. True if it is being looked for; false once nobody has spoken of it for so long. */
static bool seeks_newer(struct membership *m, uint32_t patience_ms, int64_t now_ms)
{
    if (!membership_is_behind(m) || now_ms - m->newer_ms >= patience_ms)
        return false;
    if (now_ms < m->next_read_ms) {
        timer_set(m->wheel, &m->step_timer, m->next_read_ms);
        return true;
    }
    m->next_read_ms = now_ms + m->times.retry_ms;
    membership_read_log(m);
    return true;
}

static bool listens(struct membership *m, int64_t now_ms)
{
    bool abandoned = membership_is_abandoned(m) && !propose_succeeds(m, now_ms);
    int64_t until_ms = m->listening_since_ms + (abandoned ? m->times.abandoned_ms : m->times.listen_ms);
    if (now_ms >= until_ms)
        return false;
    /* Somebody may be heard any moment, or accused, which shortens the wait. */
    timer_set(m->wheel, &m->step_timer, abandoned ? now_ms + m->times.heartbeat_ms : until_ms);
    return true;
}

/* Whoever was away hears first how far the others have come: the log may have lost it. */
static bool listens_again(struct membership *m, int64_t now_ms)
{
    if (m->view == NULL || now_ms >= m->listening_since_ms + m->times.listen_ms ||
        detector_hears_most(m->detector, m->listening_since_ms))
        return false;
    timer_set(m->wheel, &m->step_timer, now_ms + m->times.heartbeat_ms / 4);
    return true;
}

/* Drives the state machine; called whenever something that it waits for may have happened. */
void membership_step(struct membership *m, int64_t now_ms)
{
    notice_sleep(m, now_ms);
    if (m->proposed != NULL || m->reading)
        return;
    if (m->ahead != NULL) {
        follow_fetch(m);
        return;
    }
    if (m->off_bus && m->state != MEMBERSHIP_LEAVING)
        return; /* it would judge by a silence that is its own */
    switch (m->state) {
    case MEMBERSHIP_LISTENING:
        if (!m->log_read) {
            membership_read_log(m);
            return;
        }
        if (listens(m, now_ms))
            return;
        membership_enter(m, MEMBERSHIP_JOINING, now_ms);
        membership_step(m, now_ms);
        return;
    case MEMBERSHIP_JOINING:
        if (m->heard_shard && now_ms - m->heard_shard_ms >= m->times.abandoned_ms) {
            m->heard_shard = false;
            m->listening_since_ms = m->heard_shard_ms;
        }
        if (seeks_newer(m, m->times.abandoned_ms, now_ms))
            return;
        /* The log may have been empty, or not to be had, when listening ended. */
        if (!propose_succeeds(m, now_ms) &&
            (propose_must_wait(m) ||
             (membership_is_abandoned(m) && now_ms < m->listening_since_ms + m->times.abandoned_ms))) {
            timer_set(m->wheel, &m->step_timer, now_ms + m->times.heartbeat_ms);
            return;
        }
        /* fall through */
    case MEMBERSHIP_LEAVING:
        if (m->state == MEMBERSHIP_LEAVING &&
            (seeks_newer(m, m->times.detector.patience_ms, now_ms) || listens_again(m, now_ms)))
            return;
        if (m->log_read)
            propose_self(m, now_ms);
        else
            membership_read_log(m);
        return;
    case MEMBERSHIP_ACTIVE:
        if (m->view != NULL && !seeks_newer(m, m->times.detector.patience_ms, now_ms) && !listens_again(m, now_ms))
            propose_maintenance(m, now_ms);
        return;
    case MEMBERSHIP_LEFT:
    case MEMBERSHIP_REMOVED:
        return;
    }
}

void membership_start(struct membership *m, int64_t now_ms)
{
    m->off_bus = false;
    if (!m->started) {
        m->started = true;
        m->listening_since_ms = now_ms;
        on_heartbeat(&m->heartbeat_timer, now_ms);
        timer_set(m->wheel, &m->poll_timer, now_ms + m->times.poll_ms);
    } else {
        detector_bus_back(m->detector, now_ms);
        m->listening_since_ms = now_ms;
        membership_read_log(m); /* views may have passed while the bus was away */
    }
    membership_step(m, now_ms);
}

void membership_leave(struct membership *m, int64_t now_ms)
{
    if (m->state == MEMBERSHIP_LEFT || m->state == MEMBERSHIP_REMOVED)
        return;
    bool in_doubt = m->proposed != NULL || m->ahead != NULL || (m->state != MEMBERSHIP_LISTENING && !m->log_read);
    if (membership_find_self(m, m->view) == NULL && !in_doubt) {
        membership_enter(m, MEMBERSHIP_LEFT, now_ms);
        return;
    }
    membership_enter(m, MEMBERSHIP_LEAVING, now_ms);
    membership_step(m, now_ms);
}

void membership_bus_lost(struct membership *m)
{
    m->off_bus = true;
    lose_touch(m);
}

static void note_view(struct membership *m, struct view_number view)
{
    if (view_number_compare(view, m->heard_view) > 0)
        m->heard_view = view;
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
    if (!detector_heartbeat(m->detector, heartbeat, now_ms) || heartbeat->second)
        return;
    if (heartbeat->joining)
        note_view(m, view);
    else
        membership_heard(m, &from, view, now_ms);
    bool waits = m->view != NULL && view_number_compare(m->marker, m->view->number) < 0;
    if (membership_is_shard(m) && (heartbeat->n_concurs > 0 || waits))
        watch_others(m, now_ms);
}

void membership_gone(struct membership *m, uint64_t incarnation, int64_t now_ms)
{
    detector_gone(m->detector, incarnation, now_ms);
    watch_others(m, now_ms);
}

size_t membership_concurrences(const struct membership *m, Signalbox__Cluster__V1__Concurrence *out, size_t max,
                               int64_t now_ms)
{
    return m->state == MEMBERSHIP_ACTIVE ? detector_concurrences(m->detector, out, max, now_ms) : 0;
}

bool membership_may_act(struct membership *m, int64_t now_ms)
{
    if (!membership_is_shard(m))
        return true;
    notice_sleep(m, now_ms);
    /* From the moment at which a leaving shard's last entry may be in the log, its rooms may be others'. */
    bool listed = m->state == MEMBERSHIP_ACTIVE || (m->state == MEMBERSHIP_LEAVING && !m->leave_sent);
    return listed && detector_may_act(m->detector, now_ms);
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

struct view_number membership_reported(const struct membership *m)
{
    return detector_reported(m->detector);
}

size_t membership_views_after(const struct membership *m, struct view_number after, struct view **ret_views, size_t max)
{
    return detector_views_after(m->detector, after, ret_views, max);
}

struct view_number membership_marker_of(const struct membership *m, uint64_t incarnation)
{
    return detector_marker(m->detector, incarnation);
}

void membership_note_shard(struct membership *m, int64_t now_ms)
{
    m->heard_shard = true;
    m->heard_shard_ms = now_ms;
}

/* The log is read only if that does not help: it may be slow, or have no leader. */
static void ask_for_view(struct membership *m, const struct node_address *whom, int64_t now_ms)
{
    if (m->state != MEMBERSHIP_ACTIVE || now_ms < m->next_ask_ms || !view_lists(m->view, whom))
        return;
    m->next_ask_ms = now_ms + m->times.retry_ms;
    if (m->next_read_ms < now_ms + m->times.heartbeat_ms)
        m->next_read_ms = now_ms + m->times.heartbeat_ms;
    m->actions.ask(m->ctx, whom, m->view->number);
}

void membership_heard(struct membership *m, const struct node_address *from, struct view_number view, int64_t now_ms)
{
    note_view(m, view);
    if (m->view == NULL || view_number_compare(view, m->view->number) > 0)
        m->newer_ms = now_ms;
    if (m->view != NULL && view_lists(m->view, from))
        m->spoke_ms = now_ms;
    bool was_heard = m->heard_shard;
    if (from->kind == NODE_SHARD && from->incarnation != m->self.incarnation && m->view != NULL &&
        view_lists(m->view, from))
        membership_note_shard(m, now_ms);
    if (m->view != NULL && view_number_compare(view, m->view->number) > 0)
        ask_for_view(m, from, now_ms);
    if (m->heard_shard != was_heard || (m->view != NULL && membership_is_behind(m)))
        membership_step(m, now_ms);
}

void membership_read_done(struct membership *m, enum viewlog_result result, struct view *view, int64_t now_ms)
{
    m->reading = false;
    if (result == VIEWLOG_OK && view != NULL) {
        m->log_read = true;
        membership_learn(m, view, now_ms);
        m->log_number = view->number;
        if (m->view != NULL && view_number_compare(view->number, m->view->number) < 0)
            log_warn("view_log_behind", log_uint("log_seq", view->number.seq),
                     log_uint("known_seq", m->view->number.seq));
    } else if (result == VIEWLOG_EMPTY) {
        m->log_read = true;
        m->log_number = (struct view_number){0, 0};
    } else {
        timer_set(m->wheel, &m->step_timer, now_ms + m->times.retry_ms);
        return;
    }
    membership_step(m, now_ms);
}

void membership_append_done(struct membership *m, enum viewlog_result result, uint64_t seq, int64_t now_ms)
{
    struct view *entry = m->proposed;
    assert(entry != NULL);
    notice_sleep(m, now_ms);
    m->proposed = NULL;
    if (SIM_FAULT(ASSUME_APPEND) && result == VIEWLOG_UNKNOWN) {
        result = VIEWLOG_OK;
        seq = m->log_number.seq + 1;
    }
    m->log_read = false; /* whatever happened, the next decision starts from what the log says */
    switch (result) {
    case VIEWLOG_OK:
        metric_add_at(M_VIEW_APPENDS, APPEND_OK, 1);
        m->log_read = true;
        entry->number.seq = seq;
        /* A log that has lost its tail uses its sequences again: this entry may have been made for another place. */
        if (view_number_compare(entry->number, m->heard_view) < 0)
            break;
        membership_learn(m, entry, now_ms);
        /* It lists this process as of when it was asked for; the answer may have waited. */
        if (!m->proposal_stale && membership_find_self(m, entry) != NULL)
            detector_appended(m->detector, m->proposed_ms);
        m->actions.announce(m->ctx, entry);
        break;
    case VIEWLOG_CONFLICT:
        metric_add_at(M_VIEW_APPENDS, APPEND_CONFLICT, 1);
        membership_note_shard(m, now_ms); /* whoever won is alive */
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
    membership_step(m, now_ms);
}
